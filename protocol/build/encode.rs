//! Writes the encoders.
//!
//! An encoder refuses a value its version cannot carry, unless the schema lets the field be dropped: nothing is
//! lost silently on the way to an old client.

use crate::decode::{label, method};
use crate::names::{condition, differs, flexible, overlap, snake, truth};
use crate::schema::{Field, Message, Struct, Type, Versions};

/// Writes `encode` for one structure.
pub(crate) fn function(out: &mut String, message: &Message, structure: &Struct, top: bool) {
    let known = structure.versions;
    let mut body = String::new();
    for field in &structure.fields {
        in_place(&mut body, message, structure, field);
    }
    let range = flexible(message).and_then(|range| overlap(range, known));
    if flexible(message).is_some() {
        tags(&mut body, structure, range);
    }
    let head = "-> Result<(), EncodeError> {";
    line!(out, "fn encode(&self, w: &mut Writer, version: i16) {head}");
    if top {
        out.push_str("w.check_version(Self::NAME, version, Self::VERSIONS)?;\n");
    }
    if body.contains("flexible)") || body.contains("flexible,") {
        line!(out, "let flexible = {};", truth(range, known));
    }
    line!(out, "{body}Ok(())\n}}");
}

fn in_place(out: &mut String, message: &Message, structure: &Struct, field: &Field) {
    let known = structure.versions;
    let present = match &field.tag {
        Some((_, tagged)) if *tagged == field.versions => None,
        Some((_, tagged)) => Some(Versions {
            first: field.versions.first,
            last: tagged.first - 1,
        }),
        None => Some(field.versions),
    };
    let compact = match (flexible(message).is_some(), field.noncompact) {
        (true, false) => "flexible",
        _ => "false",
    };
    if let Some(present) = present {
        let write = write(structure, field, present, compact);
        match condition(present, known) {
            None => out.push_str(&write),
            Some(test) => line!(out, "if {test} {{ {write} }}"),
        }
    }
    if !field.ignorable
        && let Some(test) = condition(field.versions, known)
    {
        let place = format!("self.{}", snake(&field.name));
        let label = label(structure, field);
        line!(
            out,
            "if !({test}) && ({}) {{ return Err(EncodeError::FieldNotInVersion {{ field: {label:?}, version }}); }}",
            differs(field, &place)
        );
    }
}

/// The statements that write the value.
fn write(structure: &Struct, field: &Field, known: Versions, compact: &str) -> String {
    let place = format!("self.{}", snake(&field.name));
    let label = format!("{:?}", label(structure, field));
    let nullable = field.nullable.map(|range| truth(Some(range), known));
    match (&field.ty, nullable) {
        (Type::Array(element), None) => {
            let each = element_writer(element, &label, compact);
            format!("w.put_array({label}, {compact}, &{place}, {each})?;\n")
        }
        (Type::Array(element), Some(null)) => {
            let each = element_writer(element, &label, compact);
            let value = format!("{place}.as_deref()");
            format!("w.put_optional_array({label}, {compact}, {null}, {value}, {each})?;\n")
        }
        (Type::Struct(_), None) => format!("{place}.encode(w, version)?;\n"),
        (Type::Struct(_), Some(null)) => {
            format!("w.put_optional_struct({label}, {null}, {place}.as_ref(), version)?;\n")
        }
        (Type::String, None) if is_sentence(field) => {
            format!("w.put_sentence({label}, {compact}, &{place})?;\n")
        }
        (Type::String | Type::Bytes | Type::Records, None) => {
            format!(
                "w.put_{}({label}, {compact}, &{place})?;\n",
                method(&field.ty)
            )
        }
        (Type::String, Some(null)) if is_sentence(field) => {
            let value = format!("{place}.as_ref()");
            format!("w.put_optional_sentence({label}, {compact}, {null}, {value})?;\n")
        }
        (ty @ (Type::String | Type::Bytes | Type::Records), Some(null)) => {
            let value = format!("{place}.as_ref()");
            format!(
                "w.put_optional_{}({label}, {compact}, {null}, {value})?;\n",
                method(ty)
            )
        }
        (ty, None) => format!("w.put_{}({place});\n", method(ty)),
        (ty, Some(_)) => panic!("{label}: {ty:?} cannot be null"),
    }
}

/// True when the field is a sentence for people, which may be shortened.
fn is_sentence(field: &Field) -> bool {
    field.name.ends_with("ErrorMessage")
}

fn element_writer(element: &Type, label: &str, compact: &str) -> String {
    match element {
        Type::Struct(_) => "|w, element| element.encode(w, version)".into(),
        Type::String => format!("|w, element| w.put_str({label}, {compact}, element)"),
        ty => format!("|w, element| {{ w.put_{}(*element); Ok(()) }}", method(ty)),
    }
}

fn tags(out: &mut String, structure: &Struct, flexible: Option<Versions>) {
    let known = structure.versions;
    let refuse = "w.check_no_tags(&self.unknown_tagged_fields, version)?;\n";
    let Some(flexible) = flexible else {
        out.push_str(refuse);
        return;
    };
    let mut fields: Vec<(&Field, u32, Versions)> = structure
        .fields
        .iter()
        .filter_map(|f| f.tag.map(|(tag, range)| (f, tag, range)))
        .collect();
    fields.sort_by_key(|(_, tag, _)| *tag);
    let mut body = String::new();
    if fields.is_empty() {
        body.push_str("w.put_unknown_tags(&self.unknown_tagged_fields)?;\n");
    } else {
        known_tags(&mut body, structure, &fields, flexible);
    }
    match condition(flexible, known) {
        None => out.push_str(&body),
        Some(test) => line!(out, "if {test} {{ {body} }} else {{ {refuse} }}"),
    }
}

fn known_tags(
    body: &mut String,
    structure: &Struct,
    fields: &[(&Field, u32, Versions)],
    flexible: Versions,
) {
    for (field, tag, range) in fields {
        let mut test = differs(field, &format!("self.{}", snake(&field.name)));
        if let Some(version) = condition(*range, flexible) {
            test = format!("{version} && {test}");
        }
        line!(body, "let has_{tag} = {test};");
    }
    let count: Vec<String> = fields
        .iter()
        .map(|(_, tag, _)| format!("usize::from(has_{tag})"))
        .collect();
    let count = count.join(" + ");
    line!(
        body,
        "let mut tags = w.put_tags(&self.unknown_tagged_fields, {count})?;"
    );
    for (field, tag, range) in fields {
        let write = match (&field.ty, field.nullable) {
            (Type::Struct(_), Some(_)) => {
                let place = format!("self.{}", snake(&field.name));
                format!("w.put_tagged_struct({place}.as_ref(), version)?;\n")
            }
            _ => write(structure, field, *range, "true"),
        };
        line!(
            body,
            "if has_{tag} {{ let open = w.open_tag(&mut tags, {tag})?;"
        );
        line!(body, "{write} w.close_tag(open); }}");
    }
    body.push_str("w.put_rest_of_tags(tags)?;\n");
}
