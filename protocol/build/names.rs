//! Kafka's names as Rust spells them, and the small pieces of Rust text every emitter needs.

use crate::schema::{Field, Message, Type, Versions};

/// `TransactionalId` → `transactional_id`, `V3AndBelowTopics` → `v3_and_below_topics`.
pub(crate) fn snake(name: &str) -> String {
    // Words whose capitals or digits mislead the rule.
    let name = name.replace("KRaft", "Kraft").replace("2Pc", "_2pc");
    let mut out = String::new();
    let mut previous_lower = false;
    for (index, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 && previous_lower {
            out.push('_');
        }
        previous_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    match out.as_str() {
        "type" | "match" => format!("r#{out}"),
        _ => out,
    }
}

/// `NOT_LEADER_OR_FOLLOWER` → `NotLeaderOrFollower`.
pub(crate) fn camel(constant: &str) -> String {
    let mut out = String::new();
    for word in constant.split('_') {
        let (head, tail) = word.split_at(1.min(word.len()));
        out.push_str(head);
        out.push_str(&tail.to_ascii_lowercase());
    }
    out
}

/// The name of the API a request or response belongs to: `ProduceRequest` → `Produce`.
pub(crate) fn api_name(message: &str) -> &str {
    message
        .strip_suffix("Request")
        .or(message.strip_suffix("Response"))
        .unwrap_or(message)
}

/// The Rust type of a value that is not null.
pub(crate) fn rust_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::Int8 => "i8".into(),
        Type::Int16 => "i16".into(),
        Type::Uint16 => "u16".into(),
        Type::Int32 => "i32".into(),
        Type::Uint32 => "u32".into(),
        Type::Int64 => "i64".into(),
        Type::Float64 => "f64".into(),
        Type::Uuid => "Uuid".into(),
        Type::String => "Str".into(),
        Type::Bytes => "Bytes".into(),
        Type::Records => "Records".into(),
        Type::Struct(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", rust_type(element)),
    }
}

/// The Rust type of the field.
pub(crate) fn field_type(field: &Field) -> String {
    match field.nullable {
        Some(_) => format!("Option<{}>", rust_type(&field.ty)),
        None => rust_type(&field.ty),
    }
}

/// True when the field's default is null. Records are null without a default, as in Kafka.
pub(crate) fn null_default(field: &Field) -> bool {
    let records = field.ty == Type::Records && field.default.is_none();
    field.nullable.is_some() && (records || field.default.as_deref() == Some("null"))
}

/// The field's default as a Rust expression.
pub(crate) fn default_value(field: &Field) -> String {
    if null_default(field) {
        return "None".into();
    }
    let value = match (&field.ty, field.default.as_deref()) {
        (Type::Bool, text) => text.unwrap_or("false").to_owned(),
        (Type::Float64, None) => "0.0".into(),
        (Type::Uuid, None) => "Uuid::ZERO".into(),
        (Type::String, None) => "Str::default()".into(),
        (Type::Bytes, None) => "Bytes::new()".into(),
        (Type::Records, None) => "Records::default()".into(),
        (Type::Array(_), None) => "Vec::new()".into(),
        (Type::Struct(name), None) => format!("{name}::default()"),
        (_, text) => text.unwrap_or("0").to_owned(),
    };
    match field.nullable {
        Some(_) => format!("Some({value})"),
        None => value,
    }
}

/// True when the field's default is its Rust type's `Default`.
pub(crate) fn plain_default(field: &Field) -> bool {
    match field.nullable {
        Some(_) => null_default(field),
        None => field
            .default
            .as_deref()
            .is_none_or(|text| text == "0" || text == "false"),
    }
}

/// The condition that `place` (such as `self.name`) differs from the default.
pub(crate) fn differs(field: &Field, place: &str) -> String {
    if null_default(field) {
        return format!("{place}.is_some()");
    }
    if field.nullable.is_some() {
        return match field.ty {
            Type::Struct(_) => format!("{place} != {}", default_value(field)),
            _ => format!("{place}.as_ref().is_none_or(|value| !value.is_empty())"),
        };
    }
    match (&field.ty, field.default.as_deref()) {
        (Type::Bool, None | Some("false")) => place.to_owned(),
        (Type::Bool, _) => format!("!{place}"),
        (Type::String | Type::Bytes | Type::Records | Type::Array(_), _) => {
            format!("!{place}.is_empty()")
        }
        _ => format!("{place} != {}", default_value(field)),
    }
}

/// The condition that `version` lies in `wanted`, given that it lies in `known`. `None` when it always holds.
pub(crate) fn condition(wanted: Versions, known: Versions) -> Option<String> {
    let from_start = wanted.first <= known.first;
    let to_end = wanted.last >= known.last;
    match (from_start, to_end) {
        (true, true) => None,
        (false, true) => Some(format!("version >= {}", wanted.first)),
        (true, false) => Some(format!("version <= {}", wanted.last)),
        _ if wanted.first == wanted.last => Some(format!("version == {}", wanted.first)),
        _ => Some(format!(
            "({}..={}).contains(&version)",
            wanted.first, wanted.last
        )),
    }
}

/// The condition as an expression, `true` and `false` included.
pub(crate) fn truth(wanted: Option<Versions>, known: Versions) -> String {
    match wanted {
        None => "false".into(),
        Some(wanted) if wanted.last < known.first || wanted.first > known.last => "false".into(),
        Some(wanted) => condition(wanted, known).unwrap_or_else(|| "true".into()),
    }
}

/// The versions of the message that are flexible.
pub(crate) fn flexible(message: &Message) -> Option<Versions> {
    let from = message.flexible_from?;
    (from <= message.versions.last).then_some(Versions {
        first: from.max(message.versions.first),
        last: message.versions.last,
    })
}

/// The overlap of two ranges.
pub(crate) fn overlap(a: Versions, b: Versions) -> Option<Versions> {
    let both = Versions {
        first: a.first.max(b.first),
        last: a.last.min(b.last),
    };
    (both.first <= both.last).then_some(both)
}
