//! Writes the tables of configurations, and a key for each by its type, from `schema/configs.tsv`.

/// Writes one sorted table for each scope, and the module of keys.
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
    let mut keys = String::new();
    for (scope, table) in [("topic", "TOPIC"), ("broker", "BROKER"), ("group", "GROUP")] {
        let rows: Vec<&Vec<&str>> = rows.iter().filter(|row| row[0] == scope).collect();
        line!(out, "static {table}: [ConfigDef; {}] = [", rows.len());
        for row in &rows {
            definition(out, row, &reasons);
        }
        line!(out, "];");
        keys.push_str(&module(scope, table, &rows));
    }
    line!(out, "/// Every configuration by its type.");
    line!(out, "pub mod keys {{\n{keys}}}");
}

/// One row of a table.
fn definition(out: &mut String, row: &[&str], reasons: &[(&str, &str)]) {
    let [scope, name, kind, default, valid, update, state, rest @ ..] = row else {
        panic!("configs.tsv: {row:?}")
    };
    let (doc, place) = match rest {
        [] => ("", ""),
        [doc] => (*doc, ""),
        [doc, place] => (*doc, *place),
        _ => panic!("configs.tsv: {row:?}"),
    };
    let is_told = !doc.is_empty() || !matches!(*state, "works" | "restart");
    assert!(
        is_told,
        "configs.tsv: {name} works, and nothing says what it is"
    );
    assert!(matches!(place, "" | "readme"), "configs.tsv: {row:?}");
    let default = match *default {
        "-" => "None".to_owned(),
        text => format!("Some({text:?})"),
    };
    let (scope, kind, valid) = (capital(scope), capital(kind), valid_values(valid));
    let (update, state) = (camel(update), state_of(state, reasons));
    line!(out, "ConfigDef {{ name: {name:?}, scope: Scope::{scope},");
    line!(
        out,
        "kind: ConfigType::{kind}, default: {default}, valid: {valid},"
    );
    let is_in_readme = place == "readme";
    line!(out, "update: Update::{update}, state: {state},");
    line!(out, "doc: {doc:?}, is_in_readme: {is_in_readme} }},");
}

/// The keys of one scope.
fn module(scope: &str, table: &str, rows: &[&Vec<&str>]) -> String {
    let mut out = String::new();
    line!(out, "/// Those of a {scope}.\npub mod {scope} {{");
    line!(out, "use super::super::{{Key, {table}}};");
    for (index, row) in rows.iter().enumerate() {
        let (name, doc) = (row[1], row.get(7).copied().unwrap_or_default());
        let (kind, default) = typed(row[2], row[3]);
        let key = name.to_ascii_uppercase().replace(['.', '-'], "_");
        let colon = if doc.is_empty() { "" } else { ": " };
        line!(out, "/// `{name}`{colon}{doc}.");
        line!(
            out,
            "pub const {key}: Key<{kind}> = Key::<{kind}>::new(&{table}[{index}], {default});"
        );
    }
    line!(out, "}}");
    out
}

/// The Rust type of a configuration, and its default as a constant of the form that the type wants.
fn typed(kind: &str, default: &str) -> (String, String) {
    let (kind, constant) = match kind {
        "boolean" => ("bool", default.to_owned()),
        "short" => ("i16", default.to_owned()),
        "int" => ("i32", default.to_owned()),
        "long" => ("i64", default.to_owned()),
        "double" => {
            let decimal: f64 = default
                .parse()
                .unwrap_or_else(|_| panic!("configs.tsv: {default}"));
            ("f64", format!("{decimal:?}"))
        }
        "list" => {
            let entries = default.split(',').filter(|entry| !entry.is_empty());
            ("Vec<String>", format!("&{:?}", entries.collect::<Vec<_>>()))
        }
        "string" | "class" | "password" => ("String", format!("{default:?}")),
        _ => panic!("configs.tsv: a type {kind}"),
    };
    match default {
        "-" => (format!("Option<{kind}>"), "()".to_owned()),
        _ => (kind.to_owned(), constant),
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
