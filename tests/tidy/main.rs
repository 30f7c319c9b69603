//! Style is a test: the arrows between rooms, the size of files and functions, opening comments,
//! and calls that belong to one room only. Each failure names the place and the mend.
//!
//! Owns no rule that a lint of the compiler or of clippy can express; those are in `Cargo.toml`.

mod arrows;
mod modules;
mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Which workspace packages a package may depend on, outside its tests.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "chronik",
        &[
            "chronik-catalog",
            "chronik-coordinators",
            "chronik-io",
            "chronik-protocol",
            "chronik-shards",
            "chronik-terms",
        ],
    ),
    ("chronik-terms", &["chronik-protocol"]),
    ("chronik-catalog", &["chronik-protocol", "chronik-terms"]),
    (
        "chronik-coordinators",
        &["chronik-catalog", "chronik-protocol", "chronik-terms"],
    ),
    (
        "chronik-log",
        &["chronik-io", "chronik-protocol", "chronik-terms"],
    ),
    (
        "chronik-partition",
        &[
            "chronik-io",
            "chronik-log",
            "chronik-protocol",
            "chronik-terms",
        ],
    ),
    (
        "chronik-shards",
        &[
            "chronik-catalog",
            "chronik-coordinators",
            "chronik-io",
            "chronik-log",
            "chronik-partition",
            "chronik-protocol",
            "chronik-terms",
        ],
    ),
    ("chronik-io", &[]),
    ("chronik-protocol", &[]),
    ("chronik-bench", &["chronik-protocol"]),
];

/// Libraries that belong to one room: (library, the only package that may depend on it).
const WALLS: &[(&str, &str)] = &[
    ("glommio", "chronik-io"),
    ("crc32c", "chronik-protocol"),
    ("flate2", "chronik-protocol"),
    ("lz4_flex", "chronik-protocol"),
    ("snap", "chronik-protocol"),
    ("zstd", "chronik-protocol"),
];

/// What may not be written in the broker's own code: (text, rooms where it may, what to do instead).
const BANNED: &[(&str, &[&str], &str)] = &[
    (
        "Instant::now",
        &["io", "bench"],
        "take the time from chronik_io's World",
    ),
    (
        "SystemTime::now",
        &["io", "bench"],
        "take the time from chronik_io's World",
    ),
    ("thread::sleep", &["io", "bench"], "use World::sleep_until"),
    (
        "unsafe ",
        &["io"],
        "move it into io/ behind a safe function",
    ),
    (
        ".unwrap()",
        &[],
        "handle the error, or `expect` with the reason why it cannot happen",
    ),
    ("dbg!(", &[], "use tracing"),
    (
        "println!(",
        &["bench"],
        "it panics when the reader is gone: use tracing, chronik_io::log_queue::write_line, or write and say \
         what an error means",
    ),
    ("todo!(", &[], "finish it"),
    ("unimplemented!(", &[], "finish it"),
];

/// What tests of the whole broker may write in these files only: (text, files, what to do instead).
const BANNED_IN_TESTS: &[(&str, &[&str], &str)] = &[
    (
        "\"VmRSS",
        &["tests/support/measured.rs"],
        "judge memory by support::measured",
    ),
    (
        "\"VmHWM",
        &["tests/support/measured.rs"],
        "judge memory by support::measured",
    ),
    (
        "schedstat",
        &["tests/support/measured.rs"],
        "judge processor time by support::measured",
    ),
    (
        "xorshift",
        &[],
        "take fastrand, or the simulation's own Random",
    ),
    (
        "eprintln!(\"SKIPPED",
        &[],
        "say it by support::skip, which is counted",
    ),
    (
        "say(\"SKIPPED",
        &[],
        "say it by support::skip, which is counted",
    ),
];

const NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project, relative to its root, outside build output and caches.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "shards", "io", "protocol", "bench", "tests"]
        .iter()
        .map(PathBuf::from)
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the project") {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            let is_dir = entry.file_type().expect("a file type").is_dir();
            if is_dir && !matches!(name.as_str(), "target" | ".cache" | "node_modules") {
                folders.push(path);
            } else if !is_dir && name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(
        found.len() > 30,
        "the walk found only {} files: is it broken?",
        found.len()
    );
    found
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(root().join(path)).expect("UTF-8 source")
}

/// The room of a file (`io/src/mesh.rs` → `io`).
fn room(path: &Path) -> &str {
    path.components()
        .next()
        .and_then(|part| part.as_os_str().to_str())
        .unwrap_or("")
}

/// Whether the whole file is test or benchmark code.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        matches!(
            part.as_os_str().to_str(),
            Some("tests" | "benches" | "examples" | "fuzz")
        )
    }) || path
        .file_stem()
        .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// The lines before the file's own tests, which by habit close it.
fn broker_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
}

fn report(failures: Vec<String>) {
    assert!(
        failures.is_empty(),
        "{} to mend:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn packages_depend_only_along_the_arrows() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(
        packages.len(),
        ARROWS.len(),
        "a package was added: give it its arrows here"
    );
    let mut failures = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let (_, allowed) = ARROWS
            .iter()
            .find(|(of, _)| *of == name)
            .expect("known package");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let on = dependency["name"].as_str().expect("a name");
            if on.starts_with("chronik") && !allowed.contains(&on) {
                failures.push(format!(
                    "{name} must not depend on {on} (see ARCHITECTURE.md)"
                ));
            }
            if let Some((_, home)) = WALLS.iter().find(|(library, _)| *library == on)
                && *home != name
            {
                failures.push(format!("{name} must not use {on}: it belongs to {home}"));
            }
        }
    }
    report(failures);
}

#[test]
fn files_open_with_what_they_own() {
    report(
        sources()
            .iter()
            .filter(|path| !text_of(path).starts_with("//!"))
            .map(|path| {
                format!(
                    "{}: open it with `//!`: what it owns, on which core, what it never does",
                    path.display()
                )
            })
            .collect(),
    );
}

#[test]
fn files_and_functions_stay_small() {
    let mut failures = Vec::new();
    for path in sources() {
        let text = text_of(&path);
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            failures.push(format!(
                "{}: {} lines (at most {FILE_LINES_MAX})",
                path.display(),
                lines.len()
            ));
        }
        for (at, name, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX {
                failures.push(format!(
                    "{}:{}: fn {name} has {length} lines (at most {FUNCTION_LINES_MAX})",
                    path.display(),
                    at + 1
                ));
            }
        }
    }
    report(failures);
}

/// (line, name, length) of each function, relying on rustfmt: it ends at `}` in its own column.
fn functions<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let Some(position) = trimmed.find("fn ") else {
            continue;
        };
        let before = &trimmed[..position];
        let is_function = before.split_whitespace().all(|word| {
            matches!(
                word,
                "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\""
            ) || word.starts_with("pub(")
        });
        if !is_function {
            continue;
        }
        let name = trimmed[position + 3..]
            .split(['(', '<'])
            .next()
            .unwrap_or("");
        let indent = line.len() - trimmed.len();
        let close = format!("{}}}", " ".repeat(indent));
        let declared_only = lines[at..]
            .iter()
            .position(|l| l.trim_end().ends_with(';') || l.contains('{'));
        if declared_only.is_some_and(|offset| !lines[at + offset].contains('{')) {
            continue;
        }
        if let Some(length) = lines[at..].iter().position(|l| *l == close) {
            found.push((at, name, length + 1));
        }
    }
    found
}

#[test]
fn calls_stay_in_their_room() {
    let mut failures = Vec::new();
    for path in sources().iter().filter(|path| !is_test_file(path)) {
        let text = text_of(path);
        for (at, line) in broker_lines(&text) {
            let code = line.split("//").next().unwrap_or("");
            for (call, rooms, instead) in BANNED {
                // That is how a build script speaks to cargo.
                if code.contains("println!(\"cargo:") {
                    continue;
                }
                if code.contains(call) && !rooms.contains(&room(path)) {
                    failures.push(format!(
                        "{}:{}: `{}`: {instead}",
                        path.display(),
                        at + 1,
                        call.trim()
                    ));
                }
            }
        }
    }
    report(failures);
}

/// The table from keys to handlers is a `match` that the compiler can check only while no arm takes the rest.
#[test]
fn the_table_of_apis_has_no_arm_for_the_rest() {
    let path = Path::new("src/handlers/table.rs");
    let text = text_of(path);
    assert!(text.contains("match call.api"), "where is the table now?");
    let rest = text.lines().zip(1..).filter(|(line, _)| {
        let code = line.split("//").next().unwrap_or("");
        code.trim_start().starts_with("_ ") && code.contains("=>")
    });
    let place = |(_, number)| format!("{}:{number}: give every key its line", path.display());
    report(rest.map(place).collect());
}

#[test]
fn tests_measure_choose_and_skip_in_one_way() {
    let mut failures = Vec::new();
    let tests = sources()
        .into_iter()
        .filter(|path| path.starts_with("tests") && !path.starts_with("tests/tidy"));
    for path in tests {
        for (at, line) in text_of(&path).lines().enumerate() {
            for (words, files, instead) in BANNED_IN_TESTS {
                if line.contains(words) && !files.iter().any(|file| path == Path::new(file)) {
                    let place = format!("{}:{}", path.display(), at + 1);
                    failures.push(format!("{place}: `{words}`: {instead}"));
                }
            }
        }
    }
    report(failures);
}

#[test]
fn unsafe_code_says_why_it_is_safe() {
    let mut failures = Vec::new();
    for path in sources().iter().filter(|path| room(path) == "io") {
        let text = text_of(path);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.contains("unsafe {") || code.contains("unsafe impl") {
                let explained = lines[at.saturating_sub(8)..=at]
                    .iter()
                    .any(|l| l.contains("SAFETY"));
                if !explained {
                    failures.push(format!(
                        "{}:{}: say `// SAFETY:` why this is sound",
                        path.display(),
                        at + 1
                    ));
                }
            }
        }
    }
    report(failures);
}

#[test]
fn names_come_from_the_field() {
    let mut failures = Vec::new();
    for path in sources() {
        let parts: BTreeSet<String> = path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        if let Some(name) = NAMES.iter().find(|name| parts.contains(**name)) {
            failures.push(format!(
                "{}: `{name}` says nothing; name what it owns",
                path.display()
            ));
        }
        if is_test_file(&path) {
            continue;
        }
        for (at, line) in text_of(&path).lines().enumerate() {
            let declares = line.trim_start().starts_with("pub struct ")
                || line.trim_start().starts_with("struct ");
            let name: String = line
                .split("struct ")
                .nth(1)
                .unwrap_or("")
                .chars()
                .take_while(|c| c.is_alphanumeric())
                .collect();
            if declares && name.ends_with("Manager") {
                failures.push(format!(
                    "{}:{}: `{name}`: name what it owns, not that it manages",
                    path.display(),
                    at + 1
                ));
            }
        }
    }
    report(failures);
}

#[test]
fn nothing_is_left_unfinished() {
    let words = ["TODO", "FIXME", "XXX"].map(|word| word.to_owned());
    let mut failures = Vec::new();
    for path in sources()
        .iter()
        .filter(|path| !path.starts_with("tests/tidy"))
    {
        for (at, line) in text_of(path).lines().enumerate() {
            let finds = |word: &String| {
                line.split(|c: char| !c.is_alphanumeric())
                    .any(|token| token == word)
            };
            if let Some(word) = words.iter().find(|word| finds(word)) {
                failures.push(format!("{}:{}: {word}", path.display(), at + 1));
            }
            if line.trim_start().starts_with("#[ignore") {
                failures.push(format!(
                    "{}:{}: a test that is switched off",
                    path.display(),
                    at + 1
                ));
            }
        }
    }
    report(failures);
}
