//! Real text for clients to carry through the broker: lines of source code and documentation present on every machine
//! that builds these tests.
//!
//! Never invents a line, and never takes one above a broker's default `message.max.bytes`.

use std::fs;
use std::path::{Path, PathBuf};

use super::say;

/// A file with a longer line is skipped: data, not text.
const LINE_BYTES_MAX: usize = 100_000;

/// Writes a file of exactly `lines` lines, each ended by a newline, and returns its path.
///
/// Reads word lists, Python's library, the documents of the system's packages and the sources of this build's crates
/// in the order of their paths, so that one machine gives the same text each time. Bytes are unchanged: some are not
/// UTF-8, some lines end in a carriage return, many are empty.
pub fn text_file(lines: usize, path: &Path) -> PathBuf {
    let mut text = Vec::new();
    let mut left = lines;
    for root in roots() {
        let mut files = Vec::new();
        collect(&root, &mut files);
        files.sort();
        for file in files {
            if left == 0 {
                break;
            }
            let Ok(bytes) = fs::read(&file) else { continue };
            let found: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
            if found.iter().any(|line| line.len() > LINE_BYTES_MAX) {
                continue;
            }
            for line in found.iter().filter(|line| line.ends_with(b"\n")).take(left) {
                text.extend_from_slice(line);
                left -= 1;
            }
        }
    }
    assert_eq!(
        left, 0,
        "this machine has not enough text for {lines} lines"
    );
    fs::write(path, &text).expect("the text fits into the scratch directory");
    say(&format!(
        "input: {lines} lines, {} bytes of text",
        text.len()
    ));
    path.to_owned()
}

fn roots() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/usr/share/dict")];
    roots.extend(["/usr/lib/python3", "/usr/share/doc", "/usr/share/perl"].map(PathBuf::from));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let user_home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    roots.extend(
        cargo_home
            .or(user_home)
            .map(|home| home.join("registry/src")),
    );
    roots
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => collect(&path, files),
            Ok(kind) if kind.is_file() && is_text(&path) => files.push(path),
            _ => {}
        }
    }
}

fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.extension() {
        Some(extension) => ["py", "rs", "md", "txt", "pl", "pm"]
            .iter()
            .any(|e| extension == *e),
        None => matches!(&*name, "words" | "copyright" | "README" | "NEWS"),
    }
}
