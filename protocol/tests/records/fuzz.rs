//! Generated input: nothing a client or a disk can send makes the record module panic, contradict itself or
//! pass its limits.
//!
//! Each target runs for one second, or for `CHRONIK_FUZZ_SECONDS`.

use std::time::Duration;

use bolero::check;
use bytes::{BufMut, Bytes, BytesMut};
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchHeader, CheckedBatch, Compression,
    CompressionError, NewRecord, Record, RecordLimits, RecordsSummary, RecordsValidator, Scan,
    TimestampType, ValidationProgress, scan,
};

const LIMIT: usize = 64 * 1024;
const LIMITS: RecordLimits = RecordLimits {
    decompressed_bytes_max: LIMIT,
    keys_required: false,
    control_allowed: true,
    timestamps_replaced: false,
    refused_listed_max: 2,
    timestamp_ms_min: i64::MIN,
    timestamp_ms_max: i64::MAX,
};

pub(super) fn fuzz_time() -> Duration {
    let seconds = std::env::var("CHRONIK_FUZZ_SECONDS")
        .ok()
        .and_then(|it| it.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// Timestamp, key, value, headers.
type FuzzedRecord = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);
/// Position of a byte, and its new value.
type Edits = Vec<(u16, u8)>;
/// The generator's output for a [`Fuzzed`].
type Generated = (
    (u8, Vec<FuzzedRecord>, u16),
    (Edits, Edits, Option<u16>, Option<i32>),
);

/// A sound batch and the edits to it before it is sealed again.
struct Fuzzed<'a> {
    codec: Compression,
    records: &'a [FuzzedRecord],
    step_bytes: usize,
    /// Applied to the records before they are compressed.
    plain_edits: &'a Edits,
    /// Applied to the finished batch, before its CRC is corrected.
    packed_edits: &'a Edits,
    cut: Option<u16>,
    count: Option<i32>,
}

impl<'a> Fuzzed<'a> {
    fn new(generated: &'a Generated) -> Self {
        let ((codec, records, step_bytes), (plain_edits, packed_edits, cut, count)) = generated;
        Self {
            codec: codec_of(*codec),
            records,
            step_bytes: usize::from(*step_bytes),
            plain_edits,
            packed_edits,
            cut: *cut,
            count: *count,
        }
    }

    fn sound(&self) -> Option<CheckedBatch> {
        let mut builder = BatchBuilder::new(0);
        for (timestamp, key, value, headers) in self.records {
            let headers: Vec<_> = headers
                .iter()
                .map(|(key, value)| (&key[..], value.as_deref()))
                .collect();
            let pushed = builder.push(&NewRecord {
                timestamp: *timestamp,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
            });
            // A timestamp may be too far from the first.
            assert!(matches!(pushed, Ok(()) | Err(BatchError::TooLarge)));
        }
        if builder.is_empty() {
            None
        } else {
            builder.build().ok()
        }
    }

    /// The batch with its edits, and a length and a CRC to match.
    fn edited(&self) -> Option<Bytes> {
        let sound = self.sound()?;
        let mut plain = sound.bytes[BATCH_HEADER_BYTES..].to_vec();
        edit(&mut plain, self.plain_edits);
        let packed = match self.codec {
            Compression::None => plain,
            codec => codec.compress(None, &plain).expect("a codec that works"),
        };
        let mut header = sound.header;
        header.attributes = header.attributes.with_compression(self.codec);
        if let Some(count) = self.count {
            header.record_count = count;
            header.last_offset_delta = count.wrapping_sub(1);
        }
        let mut bytes = BytesMut::from(&header.to_bytes()[..]);
        bytes.put_slice(&packed);
        edit(&mut bytes, self.packed_edits);
        if let Some(cut) = self.cut {
            bytes.truncate(BATCH_HEADER_BYTES.max(bytes.len().saturating_sub(cut.into())));
        }
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Some(bytes.freeze())
    }
}

fn codec_of(choice: u8) -> Compression {
    Compression::ALL[usize::from(choice) % Compression::ALL.len()]
}

fn edit(bytes: &mut [u8], edits: &[(u16, u8)]) {
    for (at, value) in edits {
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(*at) % length) {
            *byte = *value;
        }
    }
}

fn validate(batch: &CheckedBatch, step_bytes: usize) -> Result<RecordsSummary, BatchError> {
    let mut validator = RecordsValidator::new(batch, LIMITS)?;
    loop {
        if let ValidationProgress::Done(summary) = validator.step(step_bytes)? {
            return Ok(summary);
        }
    }
}

/// Demands that every reader of `bytes` ends, and that all agree.
fn read_all(bytes: &Bytes, step_bytes: usize) {
    let parsed = CheckedBatch::parse_first(bytes.clone());
    match (&parsed, scan(bytes)) {
        (Ok((batch, _)), Scan::Complete(header)) => assert_eq!(batch.header, header),
        (Ok((batch, _)), Scan::Corrupt(_)) => assert!(batch.header.base_offset < 0),
        (Ok(_), other) => panic!("a valid batch is scanned as {other:?}"),
        (Err(_), Scan::Complete(_)) => panic!("an invalid batch is scanned as complete"),
        (Err(_), _) => {}
    }
    let Ok((batch, rest)) = parsed else { return };
    assert_eq!(batch.bytes.len() + rest.len(), bytes.len());
    assert_eq!(
        BatchHeader::peek(&batch.header.to_bytes()),
        Ok(batch.header)
    );

    let whole = validate(&batch, usize::MAX);
    assert_eq!(
        whole,
        validate(&batch, step_bytes),
        "the size of the steps does not matter"
    );
    let mut batch = batch;
    if let Ok(summary) = &whole
        && summary.odd
    {
        let codec = batch.header.compression();
        batch = batch.renumbered(codec, None, &LIMITS).expect("valid");
        let again = validate(&batch, usize::MAX).expect("still valid");
        assert!(!again.odd, "{summary:?}");
    }
    let iterated: Result<Vec<_>, _> = batch.records(&LIMITS).and_then(Iterator::collect);
    if let Ok(summary) = whole {
        let records = iterated.expect("what is valid is readable");
        assert_eq!(summary.record_count as usize, records.len());
        assert!(summary.decompressed_bytes <= LIMIT);
        let max = records.iter().map(|it| it.timestamp).max().unwrap_or(-1);
        // The records' own times, also where the batch claims LogAppendTime.
        if batch.header.timestamp_type() == TimestampType::CreateTime {
            assert_eq!(summary.max_timestamp_ms, max.max(-1));
        }
        for record in records {
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
}

#[test]
fn batches_of_any_bytes() {
    check!()
        .with_test_time(fuzz_time())
        .for_each(|bytes: &[u8]| {
            read_all(&Bytes::copy_from_slice(bytes), 1);
        });
}

#[test]
fn batches_edited_and_sealed_again() {
    check!()
        .with_type::<Generated>()
        .with_test_time(fuzz_time())
        .for_each(|generated: &Generated| {
            let fuzzed = Fuzzed::new(generated);
            if let Some(bytes) = fuzzed.edited() {
                read_all(&bytes, fuzzed.step_bytes);
            }
        });
}

#[test]
fn what_is_built_comes_back() {
    check!()
        .with_type::<Generated>()
        .with_test_time(fuzz_time())
        .for_each(|generated: &Generated| {
            let fuzzed = Fuzzed::new(generated);
            let Some(sound) = fuzzed.sound() else { return };
            let packed = match sound.recompressed(fuzzed.codec, None, &LIMITS) {
                Ok(packed) => packed,
                Err(error) => {
                    assert!(sound.bytes.len() - BATCH_HEADER_BYTES > LIMIT, "{error}");
                    return;
                }
            };
            let packed = CheckedBatch::parse(packed.bytes).expect("valid");
            let summary = validate(&packed, fuzzed.step_bytes).expect("valid records");
            let records: Vec<_> = packed
                .records(&LIMITS)
                .expect("readable")
                .flatten()
                .collect();
            assert_eq!(records.len(), summary.record_count as usize);
            // The builder has refused records too far from the first.
            let mut put_in = fuzzed.records.iter();
            for found in records {
                assert!(
                    put_in.any(|it| is_same(it, &found)),
                    "{found:?} was not put in"
                );
            }
        });
}

fn is_same(made: &FuzzedRecord, found: &Record) -> bool {
    let (timestamp, key, value, headers) = made;
    let headers = headers
        .iter()
        .map(|(key, value)| (&key[..], value.as_deref()));
    let found_headers: Vec<_> = found.headers.iter().collect();
    *timestamp == found.timestamp
        && key.as_deref() == found.key.as_deref()
        && value.as_deref() == found.value.as_deref()
        && headers.eq(found_headers
            .iter()
            .map(|it| (&it.key[..], it.value.as_deref())))
}

#[test]
fn decompression_of_any_bytes() {
    check!()
        .with_type::<(u8, Vec<u8>)>()
        .with_test_time(fuzz_time())
        .for_each(|(codec, bytes): &(u8, Vec<u8>)| {
            let codec = codec_of(*codec);
            let input = Bytes::copy_from_slice(bytes);
            match codec.decompress_bounded(&input, LIMIT) {
                Ok(output) => assert!(output.len() <= LIMIT),
                Err(CompressionError::LimitExceeded { limit_bytes, .. }) => {
                    assert_eq!(limit_bytes, LIMIT);
                }
                Err(CompressionError::Malformed { .. }) => {}
            }
            let mut packed = codec.compress(None, &input).expect("a codec that works");
            let whole = Bytes::copy_from_slice(&packed);
            assert_eq!(
                codec.decompress_bounded(&whole, input.len()),
                Ok(input.clone())
            );
            // Codecs read furthest in almost sound input.
            let at = packed.len() / 2;
            packed[at..]
                .iter_mut()
                .take(1)
                .for_each(|byte| *byte ^= 0x10);
            if let Ok(output) = codec.decompress_bounded(&packed.into(), LIMIT) {
                assert!(output.len() <= LIMIT);
            }
        });
}
