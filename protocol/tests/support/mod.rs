//! Shared by the tests of messages: the schemas, wire bytes made from them without the generated code, and every
//! message by its name.

#![allow(dead_code)] // Each test binary uses a part.

#[path = "../../build/schema.rs"]
pub(crate) mod schema;
pub(crate) mod wire;

use bytes::Bytes;
use chronik_protocol::{Message, Reader, Writer, for_each_message, messages};
use schema::{Family, Message as Schema};
use std::fs;
use std::path::Path;

/// Every message of the schema files without retired ones.
pub(crate) fn schemas() -> Vec<Schema> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let entries = fs::read_dir(folder).expect("schema folder");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("schema folder").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let texts = paths
        .iter()
        .map(|path| fs::read_to_string(path).expect("schema file"));
    let messages = texts.flat_map(|text| schema::parse("schema", &text));
    messages
        .filter(|message| message.family != Family::Retired)
        .collect()
}

/// Reads a message that fills `bytes` and writes it again.
pub(crate) fn transcode_as<M: Message>(version: i16, bytes: &Bytes) -> Result<Bytes, String> {
    let mut reader = Reader::new(bytes.clone());
    let message = M::decode(&mut reader, version).map_err(|error| error.to_string())?;
    reader.finish().map_err(|error| error.to_string())?;
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .map_err(|error| error.to_string())?;
    let length = writer.len();
    let parts = writer.into_parts();
    assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), length);
    Ok(parts.concat().into())
}

macro_rules! doors {
    ($($name:ident)*) => {
        /// Reads the message called `name` and writes it again.
        pub(crate) fn transcode(name: &str, version: i16, bytes: &Bytes) -> Result<Bytes, String> {
            match name {
                $(stringify!($name) => transcode_as::<messages::$name>(version, bytes),)*
                _ => panic!("no message {name}"),
            }
        }

        /// The number of messages in the codec.
        pub(crate) const MESSAGES: usize = [$(stringify!($name)),*].len();
    };
}

for_each_message!(doors);

/// Bytes from hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).expect("a hex digit") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
