//! The table of the README, and SETTINGS.md, made of `protocol/schema/configs.tsv`: a test fails where they
//! differ from it.
//!
//! `make settings` (`CHRONIK_WRITE_SETTINGS=1 cargo test --lib documents`) writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::*;

/// Around what is generated in the README.
const BEGIN: &str = "<!-- settings: `make settings` writes what follows -->\n";
const END: &str = "<!-- end of settings -->\n";

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: Option<&str>) -> String {
    match text {
        None | Some("") => String::new(),
        Some(text) => format!("`{text}`"),
    }
}

/// What people look for.
fn of_readme() -> String {
    let mut text = String::from("| key | default | |\n|---|---|---|\n");
    for known in configs::all(Scope::Broker).filter(|known| known.is_in_readme) {
        let default = match known.default {
            Some("2147483647" | "1.7976931348623157E308") => "no limit".to_owned(),
            other => code(other),
        };
        let doc = cell(known.doc);
        text.push_str(&format!("| `{}` | {default} | {doc} |\n", known.name));
    }
    text
}

fn page() -> String {
    let mut text = String::from(
        "# Settings\n\nAll that Kafka knows, and Chronik's own; `chronik serve --help-config` prints them as lines. \
         `make settings` writes\nthis page from `protocol/schema/configs.tsv`. The README says where settings come \
         from.\n",
    );
    for (scope, of) in SCOPES {
        let column = if scope == Scope::Broker {
            " | changes"
        } else {
            ""
        };
        let rule = if scope == Scope::Broker { "|---" } else { "" };
        text.push_str(&format!(
            "\n## Of a {of}\n\n| key | type | default | values{column} | |\n|---|---|---|---{rule}|---|\n"
        ));
        for known in configs::all(scope).filter(|known| is_working(known)) {
            let (kind, default) = (kind(known), code(known.default));
            let (valid, doc) = (cell(&valid(known)), cell(known.doc));
            let changes = match (scope, known.is_dynamic()) {
                (Scope::Broker, true) => " | at run time",
                (Scope::Broker, false) => " | at a start",
                _ => "",
            };
            let name = known.name;
            text.push_str(&format!(
                "| `{name}` | {kind} | {default} | {valid}{changes} | {doc} |\n"
            ));
        }
    }
    text.push_str(
        "\n## Without a meaning here\n\nThey are kept and shown, and the log tells of them.\n\n",
    );
    text.push_str(&by_reason(|state| match state {
        State::Meaningless(reason) => Some(reason),
        _ => None,
    }));
    text.push_str(
        "\n## Refused at a start\n\nThey would protect somebody and cannot yet: with another value than the default \
         the broker does not start.\n\n",
    );
    text.push_str(&by_reason(|state| match state {
        State::Refused(reason) => Some(reason),
        _ => None,
    }));
    text
}

fn is_working(definition: &ConfigDef) -> bool {
    matches!(definition.state, State::Works | State::Restart)
}

fn by_reason(reason: impl Fn(State) -> Option<&'static str>) -> String {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (scope, of) in SCOPES {
        for known in configs::all(scope) {
            if let Some(reason) = reason(known.state) {
                let beside = match scope {
                    Scope::Broker => String::new(),
                    _ => format!(" ({of})"),
                };
                let names = reasons.entry(reason).or_default();
                names.push(format!("`{}`{beside}", known.name));
            }
        }
    }
    let mut text = String::from("| why | settings |\n|---|---|\n");
    for (reason, names) in reasons {
        text.push_str(&format!("| {} | {} |\n", cell(reason), names.join(", ")));
    }
    text
}

/// Holds a file against what it should be, or writes it.
fn hold(name: &str, make: impl FnOnce(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    let found = fs::read_to_string(&path).unwrap_or_default();
    let wanted = make(&found);
    if std::env::var_os("CHRONIK_WRITE_SETTINGS").is_some() {
        fs::write(&path, wanted).expect("a file of the checkout");
        return;
    }
    let lines = found.lines().zip(wanted.lines());
    let differs = lines
        .enumerate()
        .find(|(_, (found, wanted))| found != wanted);
    assert!(
        found == wanted,
        "{name} is not what configs.tsv says: run `make settings`. The first line that differs: {differs:?}"
    );
}

#[test]
fn the_documents_are_what_the_table_says() {
    hold("SETTINGS.md", |_| page());
    hold("README.md", |found| {
        let (before, rest) = found.split_once(BEGIN).expect("the README has the mark");
        let (_, after) = rest
            .split_once(END)
            .expect("the README has the second mark");
        format!("{before}{BEGIN}{}{END}{after}", of_readme())
    });
}

#[test]
fn the_lines_have_every_setting_of_chroniks_own() {
    let (table, help) = (table(), own_settings());
    for name in [
        "shards",
        "shards.pinned",
        "writebehind.bytes",
        "cluster.id",
        "durability",
    ] {
        let row = format!("broker\tchronik.{name}\t");
        assert_eq!(table.matches(&row).count(), 1, "{row}");
        assert!(help.contains(&format!("  chronik.{name} ")), "{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() < HELP_COLUMNS));
}
