//! Batches go both ways between this crate and `kafka-protocol` 0.18, an independent implementation.
//!
//! Explained differences: its headers are a map with UTF-8 keys, so a repeated or non-UTF-8 key does not survive
//! there; its base timestamp is the smallest, ours and Java's the first; its batches carry no size, maximum
//! timestamp or last offset delta to compare. Only uncompressed batches, since it compresses with the same
//! libraries; Java's batches in `golden/` cover codecs.

use bytes::{Bytes, BytesMut};
use chronik_protocol::record::{
    BatchBuilder, CheckedBatch, Compression, NewRecord, RecordLimits, Scan, scan,
};
use kafka_protocol_018::protocol::StrBytes;
use kafka_protocol_018::records as theirs;

/// Record `i` of a batch in their type, varied without randomness.
fn record(i: usize) -> theirs::Record {
    let bytes = |salt: usize| match (i + salt) % 4 {
        0 => None,
        1 => Some(Bytes::new()),
        2 => Some(Bytes::from(format!("{salt} of {i}"))),
        _ => Some(vec![(i * salt) as u8; 37 * i].into()),
    };
    let headers = (0..i % 5).map(|n| (StrBytes::from(format!("h{n} ü")), bytes(n + 7)));
    theirs::Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 11,
        producer_id: 4711,
        producer_epoch: 5,
        timestamp_type: theirs::TimestampType::Creation,
        offset: 1_000 + i as i64,
        sequence: 30 + i as i32,
        timestamp: 1_600_000_000_000 + (i as i64 * 7919) % 1000,
        key: bytes(1),
        value: bytes(2),
        headers: headers.collect(),
    }
}

fn assert_same(ours: &CheckedBatch, expected: &[theirs::Record]) {
    let found: Vec<_> = ours
        .records(&RecordLimits::default())
        .expect("readable records")
        .collect::<Result<_, _>>()
        .expect("sound records");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(
            (found.offset, found.timestamp),
            (expected.offset, expected.timestamp)
        );
        assert_eq!((&found.key, &found.value), (&expected.key, &expected.value));
        let headers: Vec<_> = found.headers.iter().map(|it| (it.key, it.value)).collect();
        let expected: Vec<_> = expected
            .headers
            .iter()
            .map(|(key, value)| (Bytes::copy_from_slice(key.as_bytes()), value.clone()))
            .collect();
        assert_eq!(headers, expected);
    }
}

#[test]
fn their_batches_are_read() {
    for count in [1, 2, 3, 5, 17, 60] {
        let records: Vec<_> = (0..count).map(record).collect();
        let mut bytes = BytesMut::new();
        let options = theirs::RecordEncodeOptions {
            version: 2,
            compression: theirs::Compression::None,
        };
        theirs::RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("encodes");

        let bytes = bytes.freeze();
        let batch = CheckedBatch::parse(bytes.clone()).expect("a valid batch");
        assert_eq!(scan(&bytes), Scan::Complete(batch.header));
        let it = &batch.header;
        assert_eq!(it.compression(), Compression::None);
        assert_eq!(
            (it.producer_id, it.producer_epoch, it.base_sequence),
            (4711, 5, 30)
        );
        assert_eq!((it.base_offset, it.partition_leader_epoch), (1_000, 11));
        assert!(it.is_transactional());
        let summary = batch
            .validate_records(&RecordLimits::default())
            .expect("valid records");
        assert_eq!(
            Some(summary.max_timestamp_ms),
            records.iter().map(|it| it.timestamp).max()
        );
        assert_eq!(summary.max_timestamp_ms, it.max_timestamp);
        assert_same(&batch, &records);
    }
}

#[test]
fn our_batches_are_read_by_them() {
    for count in [1, 2, 3, 5, 17, 60] {
        let expected: Vec<_> = (0..count).map(record).collect();
        let mut builder = BatchBuilder::new(1_000)
            .leader_epoch(11)
            .producer(4711, 5, 30)
            .transactional();
        for it in &expected {
            let headers: Vec<_> = it
                .headers
                .iter()
                .map(|(key, value)| (key.as_bytes(), value.as_deref()))
                .collect();
            let record = NewRecord {
                timestamp: it.timestamp,
                key: it.key.as_deref(),
                value: it.value.as_deref(),
                headers: &headers,
            };
            builder.push(&record).expect("a small record");
        }
        let batch = builder.build().expect("a small batch");
        assert_same(&batch, &expected);
        let found = theirs::RecordBatchDecoder::decode(&mut batch.bytes.clone()).expect("decodes");
        assert_eq!(found.compression, theirs::Compression::None);
        assert_eq!(found.records, expected);
    }
}
