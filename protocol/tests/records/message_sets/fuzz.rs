//! Generated batches, message sets and stored bytes.

use bolero::check;
use bytes::Bytes;
use chronik_protocol::Records;
use chronik_protocol::record::legacy::{MessageFormat, UpRules};
use chronik_protocol::record::{BatchBuilder, Compression, NewRecord, RecordLimits};

use super::super::fuzz::fuzz_time;
use super::{NOW_MS, Plain, batch, convert, down, message, plain, rules, two, without_time};

/// Codec; timestamp, key and value of each record; format; bytes per step; cuts between parts.
type Generated = (
    u8,
    Vec<(u32, Option<Vec<u8>>, Option<Vec<u8>>)>,
    bool,
    u16,
    u16,
);

#[test]
fn fuzz_batches_survive_the_way_down_and_up() {
    check!()
        .with_type::<Generated>()
        .with_test_time(fuzz_time())
        .for_each(|(codec, input, old, step, cut)| {
            let codec = Compression::from_id(codec % 4).expect("below zstd");
            let mut builder = BatchBuilder::new(100).compression(codec);
            for (timestamp, key, value) in input {
                let record = NewRecord {
                    timestamp: i64::from(*timestamp),
                    key: key.as_deref(),
                    value: value.as_deref(),
                    headers: &[(b"h", None)],
                };
                builder.push(&record).expect("small");
            }
            let Ok(batch) = builder.build() else { return };
            let format = if *old {
                MessageFormat::V0
            } else {
                MessageFormat::V1
            };
            let cut = usize::from(*cut) % (batch.bytes.len() + 1);
            let parts = [batch.bytes.slice(..cut), batch.bytes.slice(cut..)];
            let step = usize::from(*step);
            let parts: Records = parts.into_iter().collect();
            let converted = down(parts, format, 0, usize::MAX, step).expect("sound");
            assert_eq!(converted.next_offset, Some(batch.header.next_offset()));
            let messages = converted.records.into_bytes();
            let back = convert(&messages, rules(codec), step).expect("sound");
            let back = back.expect("messages");
            let mut expected = plain(&batch);
            if *old {
                expected = without_time(expected);
            }
            let found = plain(&back).into_iter();
            let found: Vec<Plain> = found.map(|(o, t, k, v)| (o + 100, t, k, v)).collect();
            assert_eq!(found, expected);
        });
}

#[test]
fn fuzz_message_sets_of_anybody_are_judged_within_limits() {
    check!()
        .with_type::<(Vec<u8>, Vec<(u16, u8)>, u8, u16, bool)>()
        .with_test_time(fuzz_time())
        .for_each(|(inner, edits, codec, step, raw)| {
            let codec = Compression::from_id(codec % 4).expect("below zstd");
            let mut messages = match raw {
                true => inner.clone(),
                false => [two(1), message(2, 1, NOW_MS, 0, Some(inner), None)].concat(),
            };
            for (at, byte) in edits {
                let at = usize::from(*at) % messages.len().max(1);
                if let Some(place) = messages.get_mut(at) {
                    *place = *byte;
                }
            }
            let packed = codec.compress(None, &messages).expect("memory");
            let set = match codec {
                Compression::None => messages,
                codec => message(0, 1, NOW_MS, codec.id(), None, Some(&packed)),
            };
            let limits = RecordLimits {
                decompressed_bytes_max: 64 * 1024,
                ..RecordLimits::default()
            };
            let bounded = UpRules {
                limits,
                ..rules(codec)
            };
            let step = usize::from(*step);
            let all_at_once = convert(&set, bounded, usize::MAX);
            assert_eq!(convert(&set, bounded, step), all_at_once);
            if let Ok(Some(batch)) = all_at_once {
                assert!(batch.validate_records(&limits).is_ok());
            }
        });
}

#[test]
fn fuzz_stored_bytes_of_anybody_are_converted_or_refused() {
    check!()
        .with_type::<(Vec<Vec<u8>>, u8, Vec<(u16, u8)>, u16, i8)>()
        .with_test_time(fuzz_time())
        .for_each(|(values, codec, edits, step, from)| {
            let codec = Compression::from_id(codec % 5).expect("a codec");
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            if values.is_empty() {
                return;
            }
            let sound = batch(0, codec, &values);
            let mut bytes = sound.bytes.to_vec();
            for (at, byte) in edits {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *byte;
            }
            // With the CRC corrected, the bytes it covers are read.
            let crc = chronik_protocol::record::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            let edited = Bytes::from(bytes);
            for format in [MessageFormat::V0, MessageFormat::V1] {
                let records: Records = [edited.clone(), edited.clone()].into_iter().collect();
                let steps = usize::from(*step);
                let by_steps = down(records.clone(), format, i64::from(*from), 300, steps);
                let at_once = down(records, format, i64::from(*from), 300, usize::MAX);
                match (by_steps, at_once) {
                    (Ok(by_steps), Ok(at_once)) => assert_eq!(by_steps.records, at_once.records),
                    (by_steps, at_once) => assert_eq!(by_steps.err(), at_once.err()),
                }
            }
        });
}
