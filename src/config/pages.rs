//! The settings as people read them: `--help-config`, the end of `serve --help`, and (`documents`, held by a
//! test) the table of the README and SETTINGS.md.
//!
//! Everything comes from `protocol/schema/configs.tsv`. Runs on the main thread before anything starts, and never
//! knows a value that was set.

#[cfg(test)]
mod documents;

use chronik_protocol::configs::{self, ConfigDef, Scope, State, Valid};

/// Columns of text at the end of `serve --help`.
const HELP_COLUMNS: usize = 96;

/// The scopes in the order in which they are told, by name.
const SCOPES: [(Scope, &str); 3] = [
    (Scope::Broker, "broker"),
    (Scope::Topic, "topic"),
    (Scope::Group, "group"),
];

/// A line for each setting, with tabs: scope, name, type, default, values, state, and what it is.
pub(crate) fn table() -> String {
    let mut text = String::new();
    for (scope, of) in SCOPES {
        for definition in configs::all(scope) {
            let ConfigDef { name, doc, .. } = definition;
            let (kind, valid) = (kind(definition), valid(definition));
            let default = definition.default.unwrap_or("null");
            let state = match definition.state {
                State::Works | State::Restart => when(definition).to_owned(),
                State::Meaningless(reason) => format!("has no meaning here: {reason}"),
                State::Refused(reason) => format!("is refused at start: {reason}"),
            };
            let line = format!("{of}\t{name}\t{kind}\t{default}\t{valid}\t{state}\t{doc}");
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// The end of `serve --help`: the settings of Chronik's own.
pub(crate) fn own_settings() -> String {
    let mut text = String::from("Settings of Chronik's own:\n");
    let own = configs::all(Scope::Broker).filter(|known| known.name.starts_with("chronik."));
    for definition in own {
        let default = definition.default.map(|text| format!(" [default: {text}]"));
        let doc = format!("{}{}", definition.doc, default.unwrap_or_default());
        let mut line = format!("  {:<26}", definition.name);
        for word in doc.split(' ') {
            if line.chars().count() + word.chars().count() >= HELP_COLUMNS {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(28);
            }
            line.push_str(word);
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn kind(definition: &ConfigDef) -> String {
    format!("{:?}", definition.kind).to_lowercase()
}

/// When a change of a setting that works has its effect.
fn when(definition: &ConfigDef) -> &'static str {
    match definition.scope {
        Scope::Broker if definition.is_dynamic() => "works, also at run time",
        Scope::Broker => "works, from a start on",
        Scope::Topic | Scope::Group => "works",
    }
}

/// The values that a setting takes; nothing where the type says it all.
fn valid(definition: &ConfigDef) -> String {
    match definition.valid {
        Valid::Any => String::new(),
        Valid::Range { min, max, or } => {
            let range = match max {
                Some(max) => format!("{min} to {max}"),
                None => format!("at least {min}"),
            };
            or.map_or(range.clone(), |or| format!("{range}, or {or}"))
        }
        Valid::OneOf(names) | Valid::OneOfAnyCase(names) => names.join(", "),
        Valid::NonEmpty => "not empty".to_owned(),
        Valid::ThrottledReplicas => "PARTITION:BROKER with commas, or *".to_owned(),
        Valid::OffsetReset => "earliest, latest, by_duration:DURATION".to_owned(),
    }
}
