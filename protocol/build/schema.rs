//! Reads the message schemas of `schema/*.txt` into a small model.
//!
//! Owns the notation (explained in `schema/README.md`) and its checks; writes no Rust. The tests include this
//! file too, to build wire bytes from the schema without the generated code.

use std::fmt;

/// An inclusive range of message versions; `None` stands for no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// First version.
    pub(crate) first: i16,
    /// Last version.
    pub(crate) last: i16,
}

impl Versions {
    /// True when `version` lies inside.
    pub(crate) fn contains(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    /// Every version of the range, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = i16> {
        self.first..=self.last
    }

    /// Reads `3`, `0-4` or `2+`; an open end closes at the end of `within`.
    fn parse(text: &str, within: Versions) -> Option<Versions> {
        let (first, last) = if let Some(first) = text.strip_suffix('+') {
            (first.parse().ok()?, within.last)
        } else if let Some((first, last)) = text.split_once('-') {
            (first.parse().ok()?, last.parse().ok()?)
        } else {
            let only = text.parse().ok()?;
            (only, only)
        };
        let inside = within.contains(first) && within.contains(last) && first <= last;
        inside.then_some(Versions { first, last })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}–{}", self.first, self.last)
        }
    }
}

/// The role of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Sent by a client, a broker or a controller.
    Request,
    /// The answer to the request of the same key.
    Response,
    /// In front of a request or response.
    Header,
    /// Carried inside a `bytes` field, a control batch or a file.
    Data,
    /// A record of the metadata log.
    MetadataRecord,
    /// The key of a coordinator's record.
    RecordKey,
    /// The value of a coordinator's record.
    RecordValue,
    /// A request with a key whose body is not spoken any more.
    Retired,
}

/// One message and every structure inside it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Kafka's name, for example `ProduceRequest`.
    pub(crate) name: String,
    /// The message's role.
    pub(crate) family: Family,
    /// API key of requests and responses, record type of records.
    pub(crate) number: Option<i16>,
    /// The topic a coordinator record lives in.
    pub(crate) log: Option<String>,
    /// Every version the codec has.
    pub(crate) versions: Versions,
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible_from: Option<i16>,
    /// A version Kafka has not promised yet.
    pub(crate) unstable: Option<i16>,
    /// Listeners that serve the message: `broker`, `controller`.
    pub(crate) listeners: Vec<String>,
    /// The message itself first, then the structures it uses.
    pub(crate) structs: Vec<Struct>,
}

impl Message {
    /// True when `version` has compact lengths and tagged fields.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }

    /// The structure called `name`.
    pub(crate) fn structure(&self, name: &str) -> &Struct {
        self.structs
            .iter()
            .find(|s| s.name == name)
            .unwrap_or_else(|| panic!("{}: no structure {name}", self.name))
    }
}

/// A list of fields with a name.
#[derive(Clone, Debug)]
pub(crate) struct Struct {
    /// Kafka's name.
    pub(crate) name: String,
    /// Versions in which it can occur.
    pub(crate) versions: Versions,
    /// Its fields in wire order.
    pub(crate) fields: Vec<Field>,
}

/// The type of a field or of an array's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Type {
        match text {
            "bool" => Type::Bool,
            "int8" => Type::Int8,
            "int16" => Type::Int16,
            "uint16" => Type::Uint16,
            "int32" => Type::Int32,
            "uint32" => Type::Uint32,
            "int64" => Type::Int64,
            "float64" => Type::Float64,
            "uuid" => Type::Uuid,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "records" => Type::Records,
            _ => match text.strip_prefix("[]") {
                Some(element) => Type::Array(Box::new(Type::parse(element))),
                None => Type::Struct(text.to_owned()),
            },
        }
    }
}

/// One field of a structure.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Kafka's name.
    pub(crate) name: String,
    /// Its type.
    pub(crate) ty: Type,
    /// Versions that have it.
    pub(crate) versions: Versions,
    /// Versions in which it may be null.
    pub(crate) nullable: Option<Versions>,
    /// Its tag and the versions in which it is a tagged field.
    pub(crate) tag: Option<(u32, Versions)>,
    /// The value when it is absent, as written; zero, empty or false when `None`.
    pub(crate) default: Option<String>,
    /// Elements of the array are distinct in this field.
    pub(crate) key: bool,
    /// May be dropped silently by versions that lack it.
    pub(crate) ignorable: bool,
    /// Keeps its 16-bit length in flexible versions.
    pub(crate) noncompact: bool,
}

impl Field {
    /// True when the field is written in its place (not among the tagged ones) in `version`.
    pub(crate) fn in_place(&self, version: i16) -> bool {
        self.versions.contains(version) && !self.tagged(version)
    }

    /// True when the field is tagged in `version`.
    pub(crate) fn tagged(&self, version: i16) -> bool {
        self.tag
            .as_ref()
            .is_some_and(|(_, versions)| versions.contains(version))
    }

    /// True when the field may be null in `version`.
    pub(crate) fn nullable_in(&self, version: i16) -> bool {
        self.nullable
            .is_some_and(|versions| versions.contains(version))
    }
}

/// Reads one schema file. Panics with file, line and reason when it is malformed: the files are ours.
pub(crate) fn parse(file: &str, text: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    // The open structures: (indentation, index into the message's structures).
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{file}:{}: {line}", index + 1);
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        if indent == 0 {
            messages.push(parse_head(&words, &place));
            open = vec![(0, 0)];
            continue;
        }
        let message = messages
            .last_mut()
            .unwrap_or_else(|| panic!("{place}: no message"));
        if words[0] == "struct" {
            let versions = message.versions;
            message.structs.push(Struct {
                name: words[1].into(),
                versions,
                fields: Vec::new(),
            });
            open = vec![(indent, message.structs.len() - 1)];
            continue;
        }
        open.retain(|(at, _)| *at < indent);
        let parent = open
            .last()
            .unwrap_or_else(|| panic!("{place}: indentation"))
            .1;
        let field = parse_field(&words, message.structs[parent].versions, &place);
        if let Some(name) = struct_name(&field.ty) {
            // Fields may follow, deeper; without any, the name refers to another structure.
            let versions = field.versions;
            let name = name.to_owned();
            message.structs.push(Struct {
                name,
                versions,
                fields: Vec::new(),
            });
            open.push((indent, message.structs.len() - 1));
        }
        message.structs[parent].fields.push(field);
    }
    for message in &mut messages {
        settle(message);
    }
    messages
}

/// The structure a type refers to, through any array.
pub(crate) fn struct_name(ty: &Type) -> Option<&str> {
    match ty {
        Type::Struct(name) => Some(name),
        Type::Array(element) => struct_name(element),
        _ => None,
    }
}

/// Drops the empty placeholders that refer to a structure defined elsewhere.
fn settle(message: &mut Message) {
    let top = message.structs.remove(0);
    message.structs.retain(|s| !s.fields.is_empty());
    message.structs.insert(0, top);
    let mut names: Vec<&str> = message.structs.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(
        count,
        names.len(),
        "{}: a structure is defined twice",
        message.name
    );
    for field in message.structs.iter().flat_map(|s| &s.fields) {
        if let Some(name) = struct_name(&field.ty) {
            message.structure(name);
        }
    }
}

fn parse_head(words: &[&str], place: &str) -> Message {
    let family = match words[0] {
        "request" => Family::Request,
        "response" => Family::Response,
        "header" => Family::Header,
        "data" => Family::Data,
        "metadata-record" => Family::MetadataRecord,
        "record-key" => Family::RecordKey,
        "record-value" => Family::RecordValue,
        "retired" => Family::Retired,
        _ => panic!("{place}: unknown kind of message"),
    };
    let word = |name: &str| {
        words[2..]
            .iter()
            .find_map(|w| w.strip_prefix(name).and_then(|w| w.strip_prefix('=')))
    };
    let every = Versions {
        first: 0,
        last: i16::MAX,
    };
    let versions = word("versions").and_then(|w| Versions::parse(w, every));
    let versions = versions.unwrap_or_else(|| panic!("{place}: versions"));
    let flexible = word("flexible").unwrap_or_else(|| panic!("{place}: flexible"));
    let flexible_from = flexible.strip_suffix('+').map(|w| w.parse().expect(place));
    let number = |name| word(name).map(|w| w.parse::<i16>().expect(place));
    Message {
        name: words[1].to_owned(),
        family,
        number: number("api").or(number("type")),
        log: word("log").map(str::to_owned),
        versions,
        flexible_from,
        unstable: number("unstable"),
        listeners: word("on").map_or(Vec::new(), |w| w.split(',').map(str::to_owned).collect()),
        structs: vec![Struct {
            name: words[1].to_owned(),
            versions,
            fields: Vec::new(),
        }],
    }
}

fn parse_field(words: &[&str], parent: Versions, place: &str) -> Field {
    let mut field = Field {
        name: words[0].to_owned(),
        ty: Type::parse(words[1]),
        versions: parent,
        nullable: None,
        tag: None,
        default: None,
        key: false,
        ignorable: false,
        noncompact: false,
    };
    for word in &words[2..] {
        let within = |text: &str, limit: Versions| match text {
            "" => limit,
            _ => Versions::parse(text, limit).unwrap_or_else(|| panic!("{place}: {text}")),
        };
        if let Some(text) = word.strip_prefix('?') {
            field.nullable = Some(within(text, field.versions));
        } else if let Some(text) = word.strip_prefix('#') {
            let (tag, versions) = text.split_once('@').unwrap_or((text, ""));
            field.tag = Some((tag.parse().expect(place), within(versions, field.versions)));
        } else if let Some(text) = word.strip_prefix('=') {
            field.default = Some(text.to_owned());
        } else {
            match *word {
                "key" => field.key = true,
                "ign" => field.ignorable = true,
                "noncompact" => field.noncompact = true,
                text => field.versions = within(text, parent),
            }
        }
    }
    field
}
