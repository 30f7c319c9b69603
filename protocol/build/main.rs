//! Turns the schemas of `schema/` into Rust at build time.
//!
//! Reads `schema/*.txt`, `error_codes.csv` and `configs.tsv`, writes `messages.rs`, `keys.rs`, `records.rs`,
//! `errors.rs` and `configs.rs` to `OUT_DIR`. Never touches the network or other directories.

/// Appends a formatted line to a `String`.
macro_rules! line {
    ($out:expr, $($argument:tt)*) => {{
        $out.push_str(&format!($($argument)*));
        $out.push('\n');
    }};
}

mod configs;
mod decode;
mod encode;
mod keys;
mod names;
mod schema;
mod structs;

use schema::{Family, Message};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let schemas = root.join("schema");
    println!("cargo:rerun-if-changed={}", schemas.display());
    println!("cargo:rerun-if-changed={}", root.join("build").display());

    let messages = read_schemas(&schemas);
    let mut text = String::from("// Generated from schema/*.txt.\n");
    for message in messages.iter().filter(|m| m.family != Family::Retired) {
        structs::module(&mut text, message);
    }
    fs::write(out.join("messages.rs"), text).expect("OUT_DIR is writable");

    let mut text = String::from("// Generated from schema/*.txt.\n");
    keys::api_keys(&mut text, &messages);
    keys::visitor(&mut text, &messages);
    fs::write(out.join("keys.rs"), text).expect("OUT_DIR is writable");

    let mut text = String::from("// Generated from schema/error_codes.csv.\n");
    let csv = fs::read_to_string(schemas.join("error_codes.csv")).expect("error_codes.csv");
    keys::error_codes(&mut text, &csv);
    fs::write(out.join("errors.rs"), text).expect("OUT_DIR is writable");

    let mut text = String::from("// Generated from schema/configs.tsv.\n");
    let tsv = fs::read_to_string(schemas.join("configs.tsv")).expect("configs.tsv");
    configs::tables(&mut text, &tsv);
    fs::write(out.join("configs.rs"), text).expect("OUT_DIR is writable");

    let mut text = String::from("// Generated from schema/*-records.txt.\n");
    keys::record_sets(&mut text, &messages);
    fs::write(out.join("records.rs"), text).expect("OUT_DIR is writable");
}

/// Every message of every schema file, files in the order of their names.
fn read_schemas(folder: &Path) -> Vec<Message> {
    let entries = fs::read_dir(folder).expect("schema folder");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("schema folder").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let mut messages = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("schema file");
        messages.extend(schema::parse(&path.display().to_string(), &text));
    }
    messages
}
