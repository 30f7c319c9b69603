//! Batches written by Kafka's own Java classes (`golden/batches`) are read as written.

use bytes::Bytes;
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchHeader, CheckedBatch, Compression,
    ControlRecord, ControlType, EndTransactionMarker, Header, NewRecord, Record, RecordLimits,
    Scan, TimestampType, scan,
};

const HOUR_ZERO: i64 = 1_600_000_000_000;

fn golden(name: &str) -> Bytes {
    let path = format!(
        "{}/tests/golden/batches/{name}.hex",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).expect(&path);
    let digits: Vec<u32> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::chars)
        .map(|digit| digit.to_digit(16).expect("a hexadecimal digit"))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

fn parse(name: &str) -> CheckedBatch {
    CheckedBatch::parse(golden(name)).expect(name)
}

fn records(batch: &CheckedBatch) -> Vec<Record> {
    let records = batch
        .records(&RecordLimits::default())
        .expect("readable records");
    records.collect::<Result<_, _>>().expect("sound records")
}

fn header(key: &str, value: Option<&'static [u8]>) -> Header {
    Header {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.map(Bytes::from_static),
    }
}

#[test]
fn four_varied_records_with_each_codec() {
    for codec in Compression::ALL {
        let batch = parse(codec.name());
        assert_eq!(batch.header.compression(), codec);
        assert_eq!(
            (batch.header.base_timestamp, batch.header.max_timestamp),
            (HOUR_ZERO, HOUR_ZERO + 500)
        );
        assert_eq!(
            (batch.header.last_offset_delta, batch.header.record_count),
            (3, 4)
        );
        assert!(!batch.header.has_producer());

        let summary = batch
            .validate_records(&RecordLimits::default())
            .expect("valid records");
        assert_eq!(summary.max_timestamp_ms, HOUR_ZERO + 500);
        assert_eq!(summary.max_timestamp_offset_delta, 1);

        let found = records(&batch);
        let facts: Vec<_> = found
            .iter()
            .map(|it| {
                (
                    it.offset,
                    it.timestamp - HOUR_ZERO,
                    it.key.as_deref(),
                    it.value.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            facts,
            [
                (0, 0, Some(&b"key"[..]), Some(&b"value"[..])),
                (1, 500, None, Some(b"no key")),
                (2, -1000, Some(b""), None),
                (3, 500, Some(&[0xff, 0, 0x80]), Some(b"")),
            ]
        );
        let headers: Vec<_> = found[1].headers.iter().collect();
        assert_eq!(
            headers,
            [
                header("h", Some(b"1")),
                header("h", Some(b"2")),
                header("", None),
                header("grüße", Some(b"")),
            ]
        );
    }
}

#[test]
fn many_blocks_with_each_codec() {
    for codec in &Compression::ALL[1..] {
        let batch = parse(&format!("{codec}-large"));
        let it = &batch.header;
        assert_eq!(
            (it.producer_id, it.producer_epoch, it.base_sequence),
            (4711, 3, 2_147_483_600)
        );
        // 47 sequence numbers up to 2^31 − 1, then 0 to 101.
        assert_eq!(it.last_sequence(), 101);
        assert!(it.is_transactional() && !it.is_control());

        let summary = batch
            .validate_records(&RecordLimits::default())
            .expect("valid records");
        assert!(summary.decompressed_bytes > 2 * 64 * 1024);
        let found = records(&batch);
        assert_eq!(found.len(), 150);
        for (i, record) in found.iter().enumerate() {
            assert_eq!(record.timestamp, HOUR_ZERO + i as i64);
            assert_eq!(record.key, Some(format!("key-{}", i % 7).into()));
            assert_eq!(record.value, Some(format!("line {i} ").repeat(150).into()));
        }
    }
}

#[test]
fn the_builder_writes_the_same_bytes() {
    let headers: [(&[u8], Option<&[u8]>); 4] = [
        (b"h", Some(b"1")),
        (b"h", Some(b"2")),
        (b"", None),
        ("grüße".as_bytes(), Some(b"")),
    ];
    let mut builder = BatchBuilder::new(0);
    for (after, key, value, headers) in [
        (0, Some(&b"key"[..]), Some(&b"value"[..]), &headers[..0]),
        (500, None, Some(b"no key"), &headers[..]),
        (-1000, Some(b""), None, &headers[..0]),
        (500, Some(&[0xff, 0, 0x80]), Some(b""), &headers[..0]),
    ] {
        let record = NewRecord {
            timestamp: HOUR_ZERO + after,
            key,
            value,
            headers,
        };
        builder.push(&record).expect("a small record");
    }
    assert_eq!(
        builder.build().expect("a small batch").bytes,
        golden("none")
    );
}

#[test]
fn append_time_replaces_the_records_own() {
    let batch = parse("log-append-time");
    assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(
        (
            batch.header.base_offset,
            batch.header.partition_leader_epoch
        ),
        (50, 2)
    );
    let times: Vec<_> = records(&batch).iter().map(|it| it.timestamp).collect();
    assert_eq!(times, [1_700_000_000_000; 2]);
}

#[test]
fn transaction_markers() {
    for (name, commit, offset) in [("commit", true, 900), ("abort", false, 901)] {
        let batch = parse(name);
        let it = &batch.header;
        assert!(it.is_control() && it.is_transactional());
        assert_eq!((it.base_offset, it.partition_leader_epoch), (offset, 5));
        assert_eq!(
            (it.producer_id, it.producer_epoch, it.last_sequence()),
            (4711, 3, -1)
        );
        let control = ControlRecord::from_record(0, &records(&batch)[0]).expect("a control record");
        let marker = EndTransactionMarker {
            commit,
            coordinator_epoch: 12,
        };
        assert_eq!(control.end_transaction(), Some(marker));

        let mut ours = BatchBuilder::new(offset)
            .leader_epoch(5)
            .producer(4711, 3, -1)
            .transactional()
            .control();
        ours.push_control(HOUR_ZERO, &marker.to_record())
            .expect("a small record");
        assert_eq!(
            ours.build().expect("a small batch"),
            batch,
            "our marker is Kafka's"
        );
    }
}

#[test]
fn quorum_control_records() {
    for (name, control_type, value) in [
        ("leader-change", ControlType::LeaderChange, None),
        ("snapshot-header", ControlType::SnapshotHeader, None),
        (
            "snapshot-footer",
            ControlType::SnapshotFooter,
            Some(&[0, 0, 0][..]),
        ),
        (
            "kraft-version",
            ControlType::KRaftVersion,
            Some(&[0, 0, 0, 1, 0]),
        ),
        ("voters", ControlType::KRaftVoters, Some(&[0, 0, 1, 0])),
    ] {
        let batch = parse(name);
        assert!(batch.header.is_control());
        assert_eq!(batch.header.partition_leader_epoch, 9);
        let limits = RecordLimits {
            control_allowed: true,
            ..RecordLimits::default()
        };
        batch.validate_records(&limits).expect("valid records");
        let control = ControlRecord::from_record(0, &records(&batch)[0]).expect("a control record");
        assert_eq!(control.control_type, control_type);
        assert_eq!(
            &control.value[..2],
            [0, 0],
            "every value begins with its version"
        );
        assert_eq!(control.end_transaction(), None);
        if let Some(value) = value {
            assert_eq!(control.value, value);
        }
    }
}

#[test]
fn older_formats_are_named() {
    for magic in [0, 1] {
        let bytes = golden(&format!("magic-{magic}"));
        assert_eq!(
            BatchHeader::peek(&bytes),
            Err(BatchError::LegacyMagic { magic })
        );
        assert_eq!(
            scan(&bytes),
            Scan::Corrupt(BatchError::LegacyMagic { magic })
        );
    }
}

#[test]
fn a_batch_that_compaction_emptied_is_valid_but_no_producers() {
    let batch = parse("emptied");
    assert_eq!(batch.bytes.len(), BATCH_HEADER_BYTES);
    assert_eq!(
        (batch.header.last_offset(), batch.header.record_count),
        (109, 0)
    );
    assert_eq!(batch.header.last_sequence(), 29);
    assert_eq!(records(&batch), []);
    assert_eq!(scan(&batch.bytes), Scan::Complete(batch.header));
    assert_eq!(
        batch.validate_records(&RecordLimits::default()),
        Err(BatchError::InvalidCount {
            record_count: 0,
            last_offset_delta: 9
        })
    );
}
