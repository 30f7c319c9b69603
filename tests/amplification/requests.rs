//! Frames made from the schema alone: one array of a request is filled, with the same element repeated or with
//! different ones; everything else is minimal.

use crate::schema::{Field, Message, Struct, Type, struct_name};

/// Where an array stands: the names of the fields on the way to it.
pub(crate) type Path = Vec<String>;

/// What an array is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elements {
    /// The same element: of a topic, a group and so on that exist.
    Same,
    /// Each another: of things that do not exist.
    Different,
}

/// What the broker knows.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) topic_id: u128,
}

/// Every array that a version of a message has.
pub(crate) fn arrays(message: &Message, version: i16) -> Vec<Path> {
    let mut found = Vec::new();
    walk(
        message,
        &message.structs[0],
        version,
        &mut Vec::new(),
        &mut found,
    );
    found
}

fn walk(message: &Message, structure: &Struct, version: i16, at: &mut Path, found: &mut Vec<Path>) {
    for field in structure
        .fields
        .iter()
        .filter(|field| field.in_place(version))
    {
        at.push(field.name.clone());
        if let Type::Array(element) = &field.ty {
            found.push(at.clone());
            if let Some(name) = struct_name(element) {
                walk(message, message.structure(name), version, at, found);
            }
        }
        at.pop();
    }
}

/// The whole frame of a request of about `bytes` bytes, its length in front.
pub(crate) fn frame(
    message: &Message,
    version: i16,
    header_version: i16,
    fill: &Fill<'_>,
) -> Vec<u8> {
    let mut out = vec![0; 4];
    let key = message.number.expect("a request");
    out.extend(key.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(7_i32.to_be_bytes());
    if header_version >= 1 {
        out.extend([0, 1, b'a']);
    }
    if header_version >= 2 {
        out.push(0);
    }
    let mut maker = Maker {
        message,
        version,
        fill,
        at: Vec::new(),
        number: None,
    };
    maker.structure(&message.structs[0], &mut out);
    let length = u32::try_from(out.len() - 4).expect("small");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// What a request is made of.
#[derive(Clone, Debug)]
pub(crate) struct Fill<'a> {
    /// The array that is filled.
    pub(crate) path: &'a Path,
    /// With what.
    pub(crate) elements: Elements,
    /// Until it has so many bytes.
    pub(crate) bytes: usize,
    pub(crate) known: &'a Known,
}

struct Maker<'a> {
    message: &'a Message,
    version: i16,
    fill: &'a Fill<'a>,
    at: Path,
    /// The number of the element that is being made, if they differ.
    number: Option<u32>,
}

impl<'a> Maker<'a> {
    fn flexible(&self) -> bool {
        self.message.is_flexible(self.version)
    }

    fn structure(&mut self, structure: &'a Struct, out: &mut Vec<u8>) {
        let version = self.version;
        for field in structure
            .fields
            .iter()
            .filter(|field| field.in_place(version))
        {
            self.at.push(field.name.clone());
            self.field(field, out);
            self.at.pop();
        }
        if self.flexible() {
            out.push(0);
        }
    }

    fn field(&mut self, field: &'a Field, out: &mut Vec<u8>) {
        let compact = self.flexible() && !field.noncompact;
        let leads = self.fill.path.starts_with(&self.at);
        match &field.ty {
            Type::Array(_) if field.nullable_in(self.version) && !leads => {
                length(out, compact, None)
            }
            Type::Array(element) => self.array(field, element, compact, out),
            Type::Struct(_) if field.nullable_in(self.version) => out.push(0xff),
            ty => self.value(field, ty, compact, out),
        }
    }

    fn array(&mut self, field: &'a Field, element: &'a Type, compact: bool, out: &mut Vec<u8>) {
        if *self.fill.path != self.at {
            // One element on the way to the array that is filled, and in each of its own.
            let within =
                self.fill.path.starts_with(&self.at) || self.at.starts_with(self.fill.path);
            length(out, compact, Some(usize::from(within)));
            if within {
                self.value(field, element, compact, out);
            }
            return;
        }
        let mut elements = Vec::new();
        let mut count = 0;
        while elements.len() < self.fill.bytes {
            self.number = (self.fill.elements == Elements::Different).then_some(count);
            self.value(field, element, compact, &mut elements);
            count += 1;
        }
        self.number = None;
        length(out, compact, Some(usize::try_from(count).expect("small")));
        out.extend(elements);
    }

    fn value(&mut self, field: &'a Field, ty: &'a Type, compact: bool, out: &mut Vec<u8>) {
        let number = i64::from(self.number.unwrap_or(0));
        let integer = integer(&field.name, field.default.as_deref()).unwrap_or(number);
        match ty {
            Type::Bool => out.push(u8::from(field.name.eq_ignore_ascii_case("validateOnly"))),
            Type::Int8 => out.push(integer.to_be_bytes()[7]),
            Type::Int16 | Type::Uint16 => out.extend(&integer.to_be_bytes()[6..]),
            Type::Int32 | Type::Uint32 => out.extend(&integer.to_be_bytes()[4..]),
            Type::Int64 | Type::Float64 => out.extend(integer.to_be_bytes()),
            Type::Uuid => {
                let id = self.fill.known.topic_id + u128::from(self.number.unwrap_or(0));
                // Where a topic may be named, it is not named twice over.
                let named = self.message.name == "DeleteTopicsRequest";
                out.extend((if named { 0 } else { id }).to_be_bytes());
            }
            Type::String => {
                let text = match self.number {
                    None => text(&field.name).to_owned(),
                    Some(number) => format!("{number:x}"),
                };
                string(out, compact, &text);
            }
            Type::Bytes => {
                length(out, compact, Some(2));
                out.extend([7, 7]);
            }
            Type::Records => length(out, compact, None),
            Type::Struct(name) => self.structure(self.message.structure(name), out),
            Type::Array(element) => self.array(field, element, compact, out),
        }
    }
}

/// What a number should be for the request to go far; `None` for one that counts elements.
fn integer(name: &str, default: Option<&str>) -> Option<i64> {
    let told = match name {
        "Partition" | "PartitionIndex" | "Index" | "PartitionIndexes" | "Partitions" => {
            return None;
        }
        "ResourceType" | "ResourceTypes" | "ResourceTypeFilter" => 2,
        "Operation" | "PermissionType" => 3,
        "ReplicaId" | "SessionEpoch" | "GenerationIdOrMemberEpoch" | "Acks" | "Timestamp" => -1,
        "SessionTimeoutMs" => 10_000,
        "MaxBytes" | "PartitionMaxBytes" => 1 << 20,
        "MinBytes" | "ReplicationFactor" | "NumPartitions" | "MaxWaitMs" => 1,
        _ => default
            .and_then(|default| default.parse().ok())
            .unwrap_or(0),
    };
    Some(told)
}

fn text(name: &str) -> &'static str {
    match name {
        "GroupId" | "Groups" | "GroupIds" | "GroupsNames" | "Key" | "CoordinatorKeys" => "g",
        "ProtocolType" => "consumer",
        "MemberId" | "GroupInstanceId" | "InstanceId" | "TransactionalId" => "",
        _ => "t",
    }
}

fn string(out: &mut Vec<u8>, compact: bool, text: &str) {
    if compact {
        uvarint(out, text.len() + 1);
    } else {
        out.extend(i16::try_from(text.len()).expect("short").to_be_bytes());
    }
    out.extend(text.as_bytes());
}

fn length(out: &mut Vec<u8>, compact: bool, count: Option<usize>) {
    match (compact, count) {
        (true, count) => uvarint(out, count.map_or(0, |count| count + 1)),
        (false, Some(count)) => out.extend(i32::try_from(count).expect("small").to_be_bytes()),
        (false, None) => out.extend((-1_i32).to_be_bytes()),
    }
}

fn uvarint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
