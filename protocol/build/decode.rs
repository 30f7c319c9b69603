//! Writes the decoders.
//!
//! A decoder reads the fields in order into a literal, then the tagged fields into the
//! finished value. Everything that can fail or allocate is a method of `Reader`.

use crate::names::{condition, default_value, flexible, overlap, snake, truth};
use crate::schema::{Field, Message, Struct, Type, Versions};

/// Writes `decode` for one structure.
pub(crate) fn function(out: &mut String, message: &Message, structure: &Struct, top: bool) {
    let known = structure.versions;
    let tagged = structure.fields.iter().any(|field| field.tag.is_some());
    let flexible = flexible(message).and_then(|range| overlap(range, known));
    let mut body = String::new();
    for field in &structure.fields {
        let name = snake(&field.name);
        line!(body, "{name}: {},", in_place(message, structure, field));
    }
    if crate::names::flexible(message).is_some() {
        let rest = match (tagged, flexible) {
            (true, _) | (_, None) => "Vec::new()".into(),
            (false, Some(range)) => match condition(range, known) {
                None => "r.get_unknown_tags()?".into(),
                Some(test) => {
                    format!("if {test} {{ r.get_unknown_tags()? }} else {{ Vec::new() }}")
                }
            },
        };
        line!(body, "unknown_tagged_fields: {rest},");
    }
    let tags = match (tagged, flexible) {
        (true, Some(range)) => tags(structure, range),
        _ => String::new(),
    };
    let head = "-> Result<Self, DecodeError> {";
    line!(out, "fn decode(r: &mut Reader, version: i16) {head}");
    if top {
        out.push_str("r.check_version(Self::NAME, version, Self::VERSIONS)?;\n");
    }
    if body.contains("flexible)") || body.contains("flexible,") || tags.contains("flexible)") {
        let test = truth(flexible, known);
        line!(out, "let flexible = {test};");
    }
    match tags.is_empty() {
        true => line!(out, "Ok(Self {{\n{body}}})\n}}"),
        false => line!(out, "let mut out = Self {{\n{body}}};\n{tags}Ok(out)\n}}"),
    }
}

/// The expression that reads a field in its place, or gives its default.
fn in_place(message: &Message, structure: &Struct, field: &Field) -> String {
    let known = structure.versions;
    let default = default_value(field);
    // A tagged field starts from its default; the tags come after every other field.
    let present = match &field.tag {
        Some((_, tagged)) if *tagged == field.versions => return default,
        Some((_, tagged)) => Versions {
            first: field.versions.first,
            last: tagged.first - 1,
        },
        None => field.versions,
    };
    let compact = match (flexible(message).is_some(), field.noncompact) {
        (true, false) => "flexible",
        _ => "false",
    };
    let read = format!(
        "r.at({:?}).{}",
        label(structure, field),
        read(field, present, compact)
    );
    match condition(present, known) {
        None => read,
        Some(test) => format!("if {test} {{ {read} }} else {{ {default} }}"),
    }
}

/// The method call that reads the value; the reader stands in front of it.
fn read(field: &Field, known: Versions, compact: &str) -> String {
    let nullable = field.nullable.map(|range| truth(Some(range), known));
    match (&field.ty, nullable) {
        (Type::Array(element), None) => {
            format!(
                "get_array({compact}, {})?",
                element_reader(element, compact)
            )
        }
        (Type::Array(element), Some(null)) => {
            format!(
                "get_optional_array({compact}, {null}, {})?",
                element_reader(element, compact)
            )
        }
        (Type::Struct(name), None) => format!("get_struct::<{name}>(version)?"),
        (Type::Struct(name), Some(null)) => {
            format!("get_optional_struct::<{name}>(version, {null})?")
        }
        (ty, None) => format!("get_{}({})?", method(ty), argument(ty, compact)),
        (ty, Some(null)) => format!("get_optional_{}({compact}, {null})?", method(ty)),
    }
}

/// The least size of an element and the closure or function that reads it.
fn element_reader(element: &Type, compact: &str) -> String {
    match element {
        Type::Struct(name) => {
            format!("{name}::min_bytes(version), |r| {name}::decode(r, version)")
        }
        Type::String => {
            format!("min_str_bytes({compact}), |r| r.get_str({compact})")
        }
        ty => format!("{}, Reader::get_{}", fixed_bytes(ty), method(ty)),
    }
}

fn fixed_bytes(ty: &Type) -> usize {
    match ty {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        _ => panic!("arrays of {ty:?} do not occur"),
    }
}

/// The name in the methods that read and write the type.
pub(crate) fn method(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::Int8 => "i8",
        Type::Int16 => "i16",
        Type::Uint16 => "u16",
        Type::Int32 => "i32",
        Type::Uint32 => "u32",
        Type::Int64 => "i64",
        Type::Float64 => "f64",
        Type::Uuid => "uuid",
        Type::String => "str",
        Type::Bytes => "bytes",
        Type::Records => "records",
        Type::Struct(_) | Type::Array(_) => panic!("{ty:?} has no method of its own"),
    }
}

fn argument(ty: &Type, compact: &str) -> String {
    match ty {
        Type::String | Type::Bytes | Type::Records => compact.to_owned(),
        _ => String::new(),
    }
}

/// The value's place, for error messages.
pub(crate) fn label(structure: &Struct, field: &Field) -> String {
    format!("{}.{}", structure.name, field.name)
}

fn tags(structure: &Struct, flexible: Versions) -> String {
    let known = structure.versions;
    let mut arms = String::new();
    for field in &structure.fields {
        let Some((tag, versions)) = &field.tag else {
            continue;
        };
        let guard = condition(*versions, flexible).map_or(String::new(), |t| format!(" if {t}"));
        let read = match (&field.ty, field.nullable) {
            // A nullable structure among the tags has a length-like byte in front, not a sign.
            (Type::Struct(name), Some(_)) => format!("get_tagged_struct::<{name}>(version)?"),
            _ => read(field, *versions, "true"),
        };
        let (name, label) = (snake(&field.name), label(structure, field));
        line!(arms, "{tag}{guard} => out.{name} = r.at({label:?}).{read},");
    }
    let body = format!(
        "let mut tags = r.get_tags()?;\n\
         while let Some(tag) = r.open_tag(&mut tags)? {{\n\
         match tag {{\n{arms}\
         _ => r.keep_tag(tag, &mut out.unknown_tagged_fields)?,\n}}\n\
         r.close_tag(&tags)?;\n}}\n"
    );
    match condition(flexible, known) {
        None => body,
        Some(test) => format!("if {test} {{\n{body}}}\n"),
    }
}
