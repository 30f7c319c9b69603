//! Generated input: no bytes make a decoder panic, and a decoded value survives being written and read again.
//!
//! Each target runs for one second, or for `CHRONIK_FUZZ_SECONDS`.

use crate::support::{self, wire::Maker};
use bolero::check;
use bytes::Bytes;
use chronik_protocol::{ApiKey, DecodeError, Reader, frame, messages, records_of};
use std::time::Duration;

fn fuzz_time() -> Duration {
    let seconds = std::env::var("CHRONIK_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// Decodes; a decoded value must survive being written and read once more.
fn decode_twice(name: &str, version: i16, bytes: &Bytes) {
    if let Ok(once) = support::transcode(name, version, bytes) {
        assert_eq!(
            support::transcode(name, version, &once).as_ref(),
            Ok(&once),
            "{name} {version}"
        );
    }
}

/// A whole frame, as it comes out of a socket: header, then the body it names.
#[test]
fn request_frames() {
    check!()
        .with_test_time(fuzz_time())
        .with_type::<(u8, u8, Vec<u8>)>()
        .for_each(|(key, version, rest)| {
            // Small numbers reach real APIs often; the rest of the frame is as generated.
            let head = [0, key % 96, 0, version % 20, 0, 0, 0, 1];
            let frame = Bytes::from([&head[..], rest].concat());
            let mut reader = Reader::new(frame.clone());
            let Ok(header) = frame::decode_request_header(&mut reader) else {
                return;
            };
            let body = frame.slice(reader.position()..);
            if let Ok(key) = ApiKey::try_from(header.api_key)
                && key.schema_versions().is_some()
            {
                decode_twice(&format!("{key}Request"), header.api_version, &body);
            }
        });
}

/// Sound messages of any kind with some bytes changed, moved or cut.
#[test]
fn damaged_messages() {
    let schemas = support::schemas();
    check!()
        .with_test_time(fuzz_time())
        .with_type::<(u16, u8, u32, Vec<(u16, u8)>, Option<u16>)>()
        .for_each(|(which, version, seed, edits, cut)| {
            let message = &schemas[usize::from(*which) % schemas.len()];
            let span = message.versions.last - message.versions.first + 1;
            let version = message.versions.first + i16::from(*version) % span;
            let mut bytes = Maker::new(message, version, u64::from(*seed)).bytes();
            for (place, byte) in edits {
                let end = bytes.len().max(1);
                if let Some(old) = bytes.get_mut(usize::from(*place) % end) {
                    *old = *byte;
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(usize::from(*cut));
            }
            decode_twice(&message.name, version, &Bytes::from(bytes));
        });
}

/// Records of the internal logs, framing included.
#[test]
fn internal_records() {
    check!()
        .with_test_time(fuzz_time())
        .with_type::<(u8, Vec<u8>)>()
        .for_each(|(kind, bytes)| {
            let bytes = Bytes::from(bytes.clone());
            if let Ok((record, version)) = records_of::MetadataRecord::decode(bytes.clone()) {
                let again = record.encode(version).expect("what decoded encodes");
                assert_eq!(
                    records_of::MetadataRecord::decode(again),
                    Ok((record, version))
                );
            }
            let key: Result<records_of::GroupKey, DecodeError> =
                records_of::decode_key(bytes.clone());
            if let Ok(key) = key {
                assert_eq!(records_of::encode_key(&key), Ok(bytes.clone()));
            }
            let value =
                records_of::decode_value::<records_of::GroupValue>(i16::from(kind % 24), bytes);
            if let Ok((value, version)) = value {
                let again =
                    records_of::encode_value(&value, version).expect("what decoded encodes");
                let record_type = records_of::RecordSet::record_type(&value);
                assert_eq!(
                    records_of::decode_value(record_type, again),
                    Ok((value, version))
                );
            }
        });
}

/// Without this agreement the targets above would test nothing.
#[test]
fn every_key_with_a_body_has_its_request() {
    let names: Vec<String> = support::schemas()
        .into_iter()
        .map(|message| message.name)
        .collect();
    for key in ApiKey::ALL
        .iter()
        .filter(|key| key.schema_versions().is_some())
    {
        assert!(names.contains(&format!("{key}Request")), "{key}");
    }
    assert_eq!(
        <messages::ProduceRequest as chronik_protocol::Request>::KEY,
        ApiKey::Produce
    );
}
