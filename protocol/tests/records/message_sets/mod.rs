//! The formats of magic 0 and 1: Kafka's own bytes both ways, and the messages given to a reader.

use std::io::Write;

use bytes::Bytes;
use chronik_protocol::Records;
use chronik_protocol::record::legacy::{
    Converted, DownConversion, DownProgress, MessageError, MessageFormat, MessageSetCheck,
    SetProgress, UpConversion, UpProgress, UpRules,
};
use chronik_protocol::record::{
    BatchBuilder, BatchError, CheckedBatch, Compression, EndTransactionMarker, NewRecord, Record,
    RecordFault, RecordLimits, RefusedRecords, TimestampType,
};

mod fuzz;
mod verdicts;

const NOW_MS: i64 = 1_600_000_000_000;

fn rules(compression: Compression) -> UpRules {
    UpRules {
        compression,
        level: None,
        limits: RecordLimits::default(),
        append_time_ms: None,
        batch_bytes_max: 1 << 20,
    }
}

fn convert(set: &[u8], rules: UpRules, step: usize) -> Result<Option<CheckedBatch>, MessageError> {
    let mut check = MessageSetCheck::new(Bytes::copy_from_slice(set), rules.batch_bytes_max);
    let set = loop {
        if let SetProgress::Done(set) = check.step(step)? {
            break set;
        }
    };
    let Some(set) = set else { return Ok(None) };
    let mut conversion = UpConversion::new(set, rules)?;
    loop {
        if let UpProgress::Done(batch) = conversion.step(step)? {
            return Ok(Some(batch));
        }
    }
}

fn up(set: &[u8]) -> Result<CheckedBatch, MessageError> {
    convert(set, rules(Compression::None), 4096).map(|batch| batch.expect("messages"))
}

fn down(
    records: Records,
    format: MessageFormat,
    from: i64,
    bytes_max: usize,
    step: usize,
) -> Result<Converted, MessageError> {
    let mut conversion = DownConversion::new(records, format, from, bytes_max);
    loop {
        if let DownProgress::Done(converted) = conversion.step(step)? {
            return Ok(converted);
        }
    }
}

fn records(batch: &CheckedBatch) -> Vec<Record> {
    let records = batch.records(&RecordLimits::default()).expect("readable");
    records.collect::<Result<_, _>>().expect("sound records")
}

/// The fields of a record that a message can hold.
type Plain = (i64, i64, Option<Bytes>, Option<Bytes>);

fn plain(batch: &CheckedBatch) -> Vec<Plain> {
    let records = records(batch).into_iter();
    records
        .map(|record| (record.offset, record.timestamp, record.key, record.value))
        .collect()
}

fn without_time(records: Vec<Plain>) -> Vec<Plain> {
    let timeless = |(offset, _, key, value)| (offset, -1, key, value);
    records.into_iter().map(timeless).collect()
}

struct Golden {
    name: String,
    batch: Bytes,
    v1: Bytes,
    v0: Bytes,
}

fn goldens() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/message_sets.txt");
    let text = std::fs::read_to_string(path).expect(path);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let goldens = lines.map(|line| {
        let mut fields = line.split(' ');
        let name = fields.next().expect("a name").to_owned();
        let mut bytes = || unhex(fields.next().expect("three sets"));
        Golden {
            name,
            batch: bytes(),
            v1: bytes(),
            v0: bytes(),
        }
    });
    goldens.collect()
}

fn unhex(text: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

#[test]
fn kafkas_batches_become_the_messages_that_kafka_makes_of_them() {
    for golden in goldens() {
        let batch = CheckedBatch::parse(golden.batch.clone()).expect(&golden.name);
        for (format, expected) in [
            (MessageFormat::V1, &golden.v1),
            (MessageFormat::V0, &golden.v0),
        ] {
            let converted = down(Records::from(golden.batch.clone()), format, 0, 1 << 20, 1);
            let converted = converted.expect(&golden.name);
            assert_eq!(converted.next_offset, Some(4));
            let messages = converted.records.into_bytes();
            match batch.header.compression() {
                Compression::None => assert_eq!(messages, *expected, "{}", golden.name),
                // Compressors differ; the decompressed bytes must not. The wrapper's fields up to its
                // size and after its CRC are Kafka's.
                _ => {
                    let fields = if format == MessageFormat::V0 {
                        16..22
                    } else {
                        16..30
                    };
                    assert_eq!(messages[..8], expected[..8], "{}", golden.name);
                    assert_eq!(
                        messages[fields.clone()],
                        expected[fields],
                        "{}",
                        golden.name
                    );
                }
            }
            let (ours, theirs) = (up_stored(&messages), up_stored(expected));
            assert_eq!(ours, theirs, "{} {format:?}", golden.name);
        }
    }
}

/// The messages of a broker's set: their wrapper may have LogAppendTime.
fn up_stored(set: &[u8]) -> Vec<Plain> {
    let mut set = set.to_vec();
    // A producer may not send LogAppendTime: the bit is cleared in the first message, and its CRC corrected.
    let mut at = 0;
    while at < set.len() {
        let size = u32::from_be_bytes(set[at + 8..at + 12].try_into().expect("four")) as usize;
        set[at + 17] &= 7;
        let crc = crc32(&set[at + 16..at + 12 + size]);
        set[at + 12..at + 16].copy_from_slice(&crc.to_be_bytes());
        at += 12 + size;
    }
    plain(&up(&set).expect("sound messages"))
}

#[test]
fn kafkas_messages_become_the_records_that_they_were() {
    for golden in goldens() {
        let batch = CheckedBatch::parse(golden.batch).expect(&golden.name);
        let stored = plain(&batch);
        assert_eq!(up_stored(&golden.v1), stored, "{}", golden.name);
        assert_eq!(
            up_stored(&golden.v0),
            without_time(stored),
            "{}",
            golden.name
        );
        for codec in Compression::ALL {
            let converted = convert(&golden.v0, rules(codec), 7).expect(&golden.name);
            let converted = converted.expect("messages");
            assert_eq!(converted.header.compression(), codec);
            assert_eq!(converted.header.max_timestamp, -1);
            assert_eq!(plain(&converted), without_time(plain(&batch)), "{codec}");
        }
    }
}

#[test]
fn the_append_time_replaces_the_messages_own() {
    let set = [
        message(0, 1, 5, 0, Some(b"k"), Some(b"a")),
        message(1, 1, 9, 0, None, None),
    ]
    .concat();
    let append = UpRules {
        append_time_ms: Some(NOW_MS),
        ..rules(Compression::Gzip)
    };
    let batch = convert(&set, append, 64)
        .expect("accepted")
        .expect("messages");
    assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.header.max_timestamp, NOW_MS);
    assert!(
        records(&batch)
            .iter()
            .all(|record| record.timestamp == NOW_MS)
    );
    let claimed = message(0, 1, 5, 8, Some(b"k"), Some(b"a"));
    let refused = convert(&claimed, append, 64);
    assert_eq!(refused, Err(refusing(&[(0, RecordFault::TimestampType)])));
}

/// The error about these records.
fn refusing(records: &[(i32, RecordFault)]) -> MessageError {
    let by_timestamp = |fault: &RecordFault| *fault != RecordFault::NullKey;
    let refused = RefusedRecords {
        listed: records.to_vec(),
        count: i32::try_from(records.len()).expect("few"),
        by_timestamp: records.iter().any(|(_, fault)| by_timestamp(fault)),
    };
    BatchError::Refused(refused).into()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn field(bytes: Option<&[u8]>) -> Vec<u8> {
    let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("short"));
    [&length.to_be_bytes(), bytes.unwrap_or_default()].concat()
}

/// A message with its prefix and a right CRC, whatever `rest` is.
fn sealed(offset: i64, magic: i8, attributes: u8, rest: &[u8]) -> Vec<u8> {
    let body = [&magic.to_be_bytes()[..], &[attributes], rest].concat();
    let size = i32::try_from(body.len() + 4).expect("short");
    [
        &offset.to_be_bytes()[..],
        &size.to_be_bytes(),
        &crc32(&body).to_be_bytes(),
        &body,
    ]
    .concat()
}

fn message(
    offset: i64,
    magic: i8,
    timestamp: i64,
    attributes: u8,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let time = if magic == 0 {
        Vec::new()
    } else {
        timestamp.to_be_bytes().to_vec()
    };
    sealed(
        offset,
        magic,
        attributes,
        &[time, field(key), field(value)].concat(),
    )
}

fn one(magic: i8) -> Vec<u8> {
    message(0, magic, NOW_MS, 0, Some(b"k"), Some(b"v"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A wrapper of magic 1 around `inner`.
fn wrapped(offset: i64, inner: &[u8]) -> Vec<u8> {
    message(offset, 1, NOW_MS, 1, None, Some(&gzip(inner)))
}

fn two(magic: i8) -> Vec<u8> {
    let second = message(1, magic, NOW_MS + 5, 0, Some(b"b"), Some(b"2"));
    [message(0, magic, NOW_MS, 0, Some(b"a"), Some(b"1")), second].concat()
}

fn batch(base_offset: i64, codec: Compression, values: &[&[u8]]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(base_offset).compression(codec);
    for value in values {
        let record = NewRecord {
            timestamp: NOW_MS,
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("small");
    }
    builder.build().expect("small")
}

#[test]
fn a_reader_gets_what_fits_from_where_it_asked_and_always_something() {
    let first = batch(10, Compression::None, &[b"a", b"b", b"c"]);
    let second = batch(13, Compression::Gzip, &[b"d", b"e"]);
    let both: Records = [first.bytes.clone(), second.bytes.clone()]
        .into_iter()
        .collect();
    let offsets = |from, bytes_max| {
        let converted = down(both.clone(), MessageFormat::V1, from, bytes_max, 50).expect("sound");
        let bytes = converted.records.into_bytes();
        let (mut offsets, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            offsets.push(i64::from_be_bytes(
                bytes[at..at + 8].try_into().expect("eight"),
            ));
            let size = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().expect("four"));
            at += 12 + size as usize;
        }
        (offsets, converted.next_offset)
    };
    assert_eq!(offsets(10, 1000), (vec![10, 11, 12, 14], Some(15)));
    assert_eq!(offsets(12, 1000), (vec![12, 14], Some(15)));
    assert_eq!(offsets(14, 1000), (vec![14], Some(15)));
    assert_eq!(offsets(10, 1), (vec![10], None));
    assert_eq!(offsets(11, 80), (vec![11, 12], Some(13)));
    assert_eq!(
        offsets(15, 1),
        (vec![14], Some(15)),
        "a wrapper that alone is too large"
    );
}

#[test]
fn zstd_ends_what_can_be_converted() {
    let plain = batch(0, Compression::None, &[b"a"]);
    let zstd = batch(1, Compression::Zstd, &[b"b"]);
    let refused = down(
        Records::from(zstd.bytes.clone()),
        MessageFormat::V1,
        1,
        1000,
        1000,
    );
    assert_eq!(refused.expect_err("zstd"), MessageError::Codec(4));
    let before: Records = [plain.bytes, zstd.bytes].into_iter().collect();
    let converted = down(before, MessageFormat::V0, 0, 1000, 1000).expect("the first");
    assert_eq!(converted.next_offset, Some(1));
    assert!(!converted.records.is_empty());
}

#[test]
fn control_batches_and_gaps_are_passed_over() {
    let marker = EndTransactionMarker {
        commit: true,
        coordinator_epoch: 0,
    };
    let mut builder = BatchBuilder::new(7)
        .producer(5, 0, -1)
        .transactional()
        .control();
    builder
        .push_control(NOW_MS, &marker.to_record())
        .expect("small");
    let control = builder.build().expect("small");
    let only = down(
        Records::from(control.bytes.clone()),
        MessageFormat::V1,
        7,
        1000,
        1000,
    );
    let only = only.expect("sound");
    assert!(only.records.is_empty());
    assert_eq!(only.next_offset, Some(8));
    let behind = batch(8, Compression::None, &[b"a"]);
    let both: Records = [control.bytes, behind.bytes].into_iter().collect();
    let both = down(both, MessageFormat::V1, 7, 10, 1000).expect("sound");
    assert_eq!(both.records.into_bytes()[..8], 8_i64.to_be_bytes());
    let nothing = down(Records::default(), MessageFormat::V1, 7, 10, 1000).expect("sound");
    assert_eq!(nothing.next_offset, None);
}

#[test]
fn a_damaged_batch_is_an_error_only_where_nothing_comes_before_it() {
    let sound = batch(0, Compression::None, &[b"a"]);
    let mut damaged = batch(1, Compression::Lz4, &[b"b"]).bytes.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let damaged = Bytes::from(damaged);
    let alone = down(
        Records::from(damaged.clone()),
        MessageFormat::V1,
        0,
        1000,
        1000,
    );
    assert!(matches!(
        alone,
        Err(MessageError::Batch(BatchError::CrcMismatch { .. }))
    ));
    let behind: Records = [sound.bytes, damaged].into_iter().collect();
    let behind = down(behind, MessageFormat::V1, 0, 1000, 1000).expect("the sound one");
    assert_eq!(behind.next_offset, Some(1));
}
