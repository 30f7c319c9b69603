//! A setting is read by its key, which carries its type and its default from `protocol/schema/configs.tsv`.
//!
//! Owns the rule that keeps it so: who has no name of a setting as text can look none up, and so needs no default
//! of his own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{broker_lines, is_test_file, report, room, root, sources, text_of};

/// Where a text that is the name of a setting, too, is something else: (file, name).
const SOMETHING_ELSE: &[(&str, &str)] = &[
    // A line of meta.properties.
    ("shards/src/identity.rs", "node.id"),
];

/// Folders and files that only tests compile, beside those that their names tell.
const OF_TESTS: &[&str] = &["testing", "testing.rs", "documents.rs"];

fn names() -> BTreeSet<String> {
    let table = fs::read_to_string(root().join("protocol/schema/configs.tsv")).expect("the table");
    let rows = table.lines().map(|line| line.split('\t'));
    let settings = rows.filter_map(|mut row| {
        let (scope, name) = (row.next()?, row.next()?);
        matches!(scope, "topic" | "broker" | "group").then(|| name.to_owned())
    });
    let names: BTreeSet<String> = settings.collect();
    assert!(names.len() > 300, "the table was not read: {}", names.len());
    names
}

/// The texts in quotation marks of a line, without those of comments.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').skip(1).step_by(2)
}

fn is_of_tests(path: &Path) -> bool {
    let mut parts = path.components();
    is_test_file(path) || parts.any(|part| OF_TESTS.iter().any(|name| part.as_os_str() == *name))
}

#[test]
fn settings_are_read_by_their_keys() {
    let names = names();
    let files = sources();
    let ours = files
        .iter()
        .filter(|path| matches!(room(path), "src" | "shards" | "io" | "protocol"))
        .filter(|path| !is_of_tests(path));
    let mut failures = Vec::new();
    for path in ours {
        for (number, line) in broker_lines(&text_of(path)) {
            for literal in literals(line).filter(|literal| names.contains(*literal)) {
                let is_other = SOMETHING_ELSE
                    .iter()
                    .any(|(file, name)| path.as_os_str() == *file && *name == literal);
                if !is_other {
                    failures.push(format!(
                        "{}:{}: \"{literal}\": take its key of chronik_protocol::configs::keys, which has \
                         the default",
                        path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    report(failures);
}
