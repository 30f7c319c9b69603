//! Writes the structures: documentation, fields, defaults and the least wire size.

use crate::names::{default_value, field_type, flexible, plain_default, snake};
use crate::schema::{Family, Field, Message, Struct, Type, Versions};
use crate::{decode, encode};

/// Writes the module of one message.
pub(crate) fn module(out: &mut String, message: &Message) {
    let module = snake(&message.name);
    line!(
        out,
        "/// {} and the structures inside it.",
        describe(message)
    );
    line!(out, "#[allow(unused_imports)]\npub mod {module} {{");
    out.push_str("use super::prelude::*;\n");
    for (index, structure) in message.structs.iter().enumerate() {
        let top = index == 0;
        definition(out, message, structure, top);
        defaults(out, message, structure);
        let (implemented, name) = match top {
            true => ("Message", format!("{:?}", message.name)),
            false => ("Structure", String::new()),
        };
        line!(out, "impl {implemented} for {} {{", structure.name);
        if top {
            let Versions { first, last } = message.versions;
            let flexible = match flexible(message) {
                Some(range) => format!("Some({}..={})", range.first, range.last),
                None => "None".into(),
            };
            line!(out, "const NAME: &'static str = {name};");
            line!(
                out,
                "const VERSIONS: RangeInclusive<i16> = {first}..={last};"
            );
            line!(
                out,
                "const FLEXIBLE: Option<RangeInclusive<i16>> = {flexible};"
            );
        }
        if top && structure.fields.iter().any(|f| f.name == "ThrottleTimeMs") {
            line!(
                out,
                "fn set_throttle_time_ms(&mut self, ms: i32) {{ self.throttle_time_ms = ms; }}"
            );
        }
        min_bytes(out, message, structure, top);
        decode::function(out, message, structure, top);
        encode::function(out, message, structure, top);
        out.push_str("}\n");
    }
    out.push_str("}\n");
    line!(out, "pub use {module}::{};", message.name);
}

fn describe(message: &Message) -> String {
    let Message { name, versions, .. } = message;
    let number = message.number.unwrap_or_default();
    let what = match message.family {
        Family::Request => format!("`{name}` (API key {number})"),
        Family::Response => format!("`{name}` (API key {number})"),
        Family::MetadataRecord => format!("`{name}` (metadata record type {number})"),
        Family::RecordKey | Family::RecordValue => {
            let log = message.log.as_deref().unwrap_or_default();
            format!("`{name}` (record type {number} of `{log}`)")
        }
        _ => format!("`{name}`"),
    };
    let flexible = match flexible(message) {
        Some(range) if range.first > versions.first => format!(", flexible from {}", range.first),
        Some(_) => ", flexible".into(),
        None => String::new(),
    };
    let unstable = match message.unstable {
        Some(version) => format!(", version {version} not yet promised by Kafka"),
        None => String::new(),
    };
    format!("{what}: versions {versions}{flexible}{unstable}")
}

fn definition(out: &mut String, message: &Message, structure: &Struct, top: bool) {
    match top {
        true => line!(out, "/// {}.", describe(message)),
        false => line!(out, "/// Part of [`{}`].", message.name),
    }
    out.push_str("#[derive(Clone, Debug, PartialEq");
    if structure.fields.iter().all(plain_default) {
        out.push_str(", Default");
    }
    line!(out, ")]\npub struct {} {{", structure.name);
    for field in &structure.fields {
        document(out, structure, field);
        line!(out, "pub {}: {},", snake(&field.name), field_type(field));
    }
    if flexible(message).is_some() {
        out.push_str("/// Tagged fields this codec does not know, ascending by tag.\n");
        out.push_str("pub unknown_tagged_fields: UnknownTaggedFields,\n");
    }
    out.push_str("}\n");
}

fn document(out: &mut String, structure: &Struct, field: &Field) {
    let mut facts = Vec::new();
    if field.versions != structure.versions {
        facts.push(format!("versions {}", field.versions));
    }
    match field.nullable {
        Some(range) if range != field.versions => facts.push(format!("null allowed in {range}")),
        Some(_) => facts.push("nullable".into()),
        None => {}
    }
    match &field.tag {
        Some((tag, range)) if *range != field.versions => {
            facts.push(format!("tag {tag} in {range}"));
        }
        Some((tag, _)) => facts.push(format!("tag {tag}")),
        None => {}
    }
    if let Some(default) = &field.default {
        facts.push(format!("default {default}"));
    }
    if field.key {
        facts.push("distinguishes the elements".into());
    }
    if field.ignorable && field.versions != structure.versions {
        facts.push("dropped silently by versions without it".into());
    }
    let facts = match facts.is_empty() {
        true => String::new(),
        false => format!(": {}", facts.join(", ")),
    };
    line!(out, "/// `{}`{facts}.", field.name);
}

fn defaults(out: &mut String, message: &Message, structure: &Struct) {
    if structure.fields.iter().all(plain_default) {
        return;
    }
    line!(
        out,
        "impl Default for {} {{ fn default() -> Self {{ Self {{",
        structure.name
    );
    for field in &structure.fields {
        line!(out, "{}: {},", snake(&field.name), default_value(field));
    }
    if flexible(message).is_some() {
        out.push_str("unknown_tagged_fields: Vec::new(),\n");
    }
    out.push_str("} } }\n");
}

/// The fewest bytes the structure takes in `version`.
pub(crate) fn least(message: &Message, structure: &Struct, version: i16) -> usize {
    let flexible = message.is_flexible(version);
    let fields = structure
        .fields
        .iter()
        .filter(|field| field.in_place(version));
    let sum: usize = fields
        .map(|field| least_field(message, field, version))
        .sum();
    sum + usize::from(flexible)
}

fn least_field(message: &Message, field: &Field, version: i16) -> usize {
    let flexible = message.is_flexible(version) && !field.noncompact;
    match &field.ty {
        Type::Struct(_) if field.nullable_in(version) => 1,
        ty => least_type(message, ty, version, flexible),
    }
}

/// The fewest bytes a value of the type takes.
pub(crate) fn least_type(message: &Message, ty: &Type, version: i16, flexible: bool) -> usize {
    match ty {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        _ if flexible && !matches!(ty, Type::Struct(_)) => 1,
        Type::String => 2,
        Type::Bytes | Type::Records | Type::Array(_) => 4,
        Type::Struct(name) => least(message, message.structure(name), version),
    }
}

fn min_bytes(out: &mut String, message: &Message, structure: &Struct, top: bool) {
    if top {
        return;
    }
    let sizes: Vec<(i16, usize)> = structure
        .versions
        .iter()
        .map(|v| (v, least(message, structure, v)))
        .collect();
    let mut steps: Vec<(i16, usize)> = Vec::new();
    for (version, size) in sizes {
        match steps.last_mut() {
            Some((last, same)) if *same == size => *last = version,
            _ => steps.push((version, size)),
        }
    }
    let last = steps.pop().map_or(0, |(_, size)| size);
    if steps.is_empty() {
        line!(out, "fn min_bytes(_version: i16) -> usize {{ {last} }}");
        return;
    }
    out.push_str("fn min_bytes(version: i16) -> usize { match version {\n");
    let mut first = String::new();
    for (version, size) in steps {
        line!(out, "{first}..={version} => {size},");
        first = (version + 1).to_string();
    }
    line!(out, "_ => {last}, }} }}");
}
