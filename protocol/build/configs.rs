//! Writes the tables of configurations from `schema/configs.tsv`.

/// Writes one sorted table for each scope.
pub(crate) fn tables(out: &mut String, tsv: &str) {
    let mut rows: Vec<Vec<&str>> = tsv
        .lines()
        .skip(1)
        .map(|l| l.split('\t').collect())
        .collect();
    rows.sort();
    let reasons: Vec<(&str, &str)> = rows
        .iter()
        .filter(|row| row[0] == "reason")
        .map(|row| (row[1], row[2]))
        .collect();
    for (scope, table) in [("topic", "TOPIC"), ("broker", "BROKER"), ("group", "GROUP")] {
        let rows: Vec<&Vec<&str>> = rows.iter().filter(|row| row[0] == scope).collect();
        line!(out, "static {table}: [ConfigDef; {}] = [", rows.len());
        for row in rows {
            let [scope, name, kind, default, valid, update, state] = row[..] else {
                panic!("configs.tsv: {row:?}")
            };
            let default = match default {
                "-" => "None".to_owned(),
                text => format!("Some({text:?})"),
            };
            let (scope, kind, valid) = (capital(scope), capital(kind), valid_values(valid));
            let (update, state) = (camel(update), state_of(state, &reasons));
            line!(out, "ConfigDef {{ name: {name:?}, scope: Scope::{scope},");
            line!(
                out,
                "kind: ConfigType::{kind}, default: {default}, valid: {valid},"
            );
            line!(out, "update: Update::{update}, state: {state} }},");
        }
        line!(out, "];");
    }
}

fn capital(word: &str) -> String {
    let (head, tail) = word.split_at(1);
    head.to_ascii_uppercase() + tail
}

/// `read-only` becomes `ReadOnly`.
fn camel(words: &str) -> String {
    words.split('-').map(capital).collect()
}

/// Reads `works`, `restart`, `none REASON` or `refused REASON`; the sentences are the rows of scope `reason`.
fn state_of(text: &str, reasons: &[(&str, &str)]) -> String {
    let (state, reason) = text.split_once(' ').unwrap_or((text, ""));
    let sentence = reasons.iter().find(|(name, _)| *name == reason);
    match (state, sentence) {
        ("works" | "restart", None) if reason.is_empty() => format!("State::{}", capital(state)),
        ("none", Some((_, sentence))) => format!("State::Meaningless({sentence:?})"),
        ("refused", Some((_, sentence))) => format!("State::Refused({sentence:?})"),
        _ => panic!("configs.tsv: {text}"),
    }
}

/// `1..`, `1..9`, `1..9 or -1`, `one of a, b`, `one of (any case) a, b` or a name.
fn valid_values(text: &str) -> String {
    let list = |names: &str| {
        let names: Vec<&str> = names.split(", ").collect();
        format!("&{names:?}")
    };
    match text {
        "" => "Valid::Any".into(),
        "non-empty" => "Valid::NonEmpty".into(),
        "throttled replicas" => "Valid::ThrottledReplicas".into(),
        "offset reset" => "Valid::OffsetReset".into(),
        _ => {
            if let Some(names) = text.strip_prefix("one of (any case) ") {
                return format!("Valid::OneOfAnyCase({})", list(names));
            }
            if let Some(names) = text.strip_prefix("one of ") {
                return format!("Valid::OneOf({})", list(names));
            }
            let (range, or) = text.split_once(" or ").unwrap_or((text, ""));
            let (min, max) = range
                .split_once("..")
                .unwrap_or_else(|| panic!("configs.tsv: {text}"));
            let bound = |text: &str| match text {
                "" => "None".to_owned(),
                _ => format!("Some({text})"),
            };
            format!(
                "Valid::Range {{ min: {min}, max: {}, or: {} }}",
                bound(max),
                bound(or)
            )
        }
    }
}
