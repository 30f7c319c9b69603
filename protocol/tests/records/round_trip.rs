//! Batches made by the builder come back the same through every reader of the record module.

use bytes::Bytes;
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchHeader, CheckedBatch, Compression,
    ControlRecord, ControlType, EndTransactionMarker, NO_TIMESTAMP, NewRecord, RecordFault,
    RecordLimits, RecordsValidator, RefusedRecords, Scan, TimestampType, ValidationProgress,
    increment_sequence, scan,
};

/// Keys and values null and empty, repeated and null headers, timestamps that go back.
fn varied(codec: Compression) -> CheckedBatch {
    let long = [7_u8; 100_000];
    let mut batch = BatchBuilder::new(42)
        .leader_epoch(3)
        .compression(codec)
        .producer(9, 1, 5);
    let headers: [(&[u8], Option<&[u8]>); 4] = [
        (b"k", Some(b"1")),
        (b"k", Some(b"2")),
        (b"", None),
        (b"\xff", Some(b"")),
    ];
    for record in [
        NewRecord {
            timestamp: 1_000,
            key: Some(b"key"),
            value: Some(b"value"),
            headers: &[],
        },
        NewRecord {
            timestamp: 1_500,
            key: None,
            value: Some(&long),
            headers: &headers,
        },
        NewRecord {
            timestamp: 900,
            key: Some(b""),
            value: None,
            headers: &headers[..1],
        },
        NewRecord {
            timestamp: 1_500,
            key: Some(&long[..300]),
            value: Some(b""),
            headers: &[],
        },
    ] {
        batch.push(&record).unwrap();
    }
    batch.build().unwrap()
}

#[test]
fn every_codec_gives_the_same_records() {
    let limits = RecordLimits::default();
    let expected: Vec<_> = varied(Compression::None)
        .records(&limits)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        expected.iter().map(|it| it.offset).collect::<Vec<_>>(),
        [42, 43, 44, 45]
    );
    assert_eq!(
        expected.iter().map(|it| it.timestamp).collect::<Vec<_>>(),
        [1000, 1500, 900, 1500]
    );
    let headers: Vec<_> = expected[1].headers.iter().collect();
    assert_eq!(headers.len(), 4);
    assert_eq!(
        (&headers[0].key[..], &headers[1].key[..]),
        (&b"k"[..], &b"k"[..])
    );
    assert_eq!(headers[2].value, None);
    assert_eq!(headers[3].value, Some(Bytes::new()));
    assert_eq!(
        (&expected[2].key, &expected[2].value),
        (&Some(Bytes::new()), &None)
    );

    for codec in Compression::ALL {
        let made = varied(codec);
        assert_eq!(made.header.compression(), codec);
        let batch = CheckedBatch::parse(made.bytes.clone()).unwrap();
        assert_eq!(batch, made);
        let records: Vec<_> = batch
            .records(&limits)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(records, expected, "{codec}");
        let summary = batch.validate_records(&limits).unwrap();
        assert_eq!(summary.record_count, 4);
        assert_eq!(
            (summary.max_timestamp_ms, summary.max_timestamp_offset_delta),
            (1500, 1)
        );
        let plain = varied(Compression::None).bytes.len() - BATCH_HEADER_BYTES;
        assert_eq!(summary.decompressed_bytes, plain);
        for other in Compression::ALL {
            let recompressed = batch.recompressed(other, None, &limits).unwrap();
            let recompressed = CheckedBatch::parse(recompressed.bytes).unwrap();
            assert_eq!(recompressed.header.compression(), other);
            let records: Vec<_> = recompressed
                .records(&limits)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(records, expected, "{codec} to {other}");
        }
    }
}

#[test]
fn steps_of_any_size_come_to_the_same() {
    for codec in Compression::ALL {
        let batch = varied(codec);
        let expected = batch.validate_records(&RecordLimits::default()).unwrap();
        for budget in [0, 1, 2, 3, 17, 1000, 40_000] {
            let mut validator = RecordsValidator::new(&batch, RecordLimits::default()).unwrap();
            let mut steps = 0;
            let summary = loop {
                match validator.step(budget).unwrap() {
                    ValidationProgress::More => steps += 1,
                    ValidationProgress::Done(summary) => break summary,
                }
            };
            assert_eq!(summary, expected);
            assert!(
                steps >= 1,
                "{codec}: a budget of {budget} bytes does not end with the first piece"
            );
        }
    }
}

#[test]
fn rewrites_leave_valid_batches() {
    let batch = varied(Compression::Zstd);
    let mut stored = batch.prefix(7_000_000_000, 12).to_vec();
    stored.extend_from_slice(&batch.body());
    let stored = CheckedBatch::parse(stored.into()).unwrap();
    assert_eq!(
        (
            stored.header.base_offset,
            stored.header.partition_leader_epoch
        ),
        (7_000_000_000, 12)
    );
    assert_eq!(stored.header.next_offset(), 7_000_000_004);
    assert_eq!(stored, batch.with_offsets(7_000_000_000, 12));

    let appended = CheckedBatch::parse(stored.with_log_append_time(555).bytes).unwrap();
    assert_eq!(
        appended.header.timestamp_type(),
        TimestampType::LogAppendTime
    );
    let limits = RecordLimits::default();
    let times: Vec<_> = appended
        .records(&limits)
        .unwrap()
        .map(|it| it.unwrap().timestamp)
        .collect();
    assert_eq!(times, [555; 4]);
    // In a topic with producers' times, LogAppendTime of a producer is judged like CreateTime.
    let taken = appended.validate_records(&limits).unwrap();
    assert_eq!(taken.max_timestamp_ms, 1500, "the records' own times");
    let late = RecordLimits {
        timestamp_ms_max: 554,
        ..limits
    };
    let replaced = RecordLimits {
        timestamps_replaced: true,
        ..limits
    };
    for (limits, fault) in [
        (late, RecordFault::TimestampOutOfRange(555)),
        (replaced, RecordFault::TimestampType),
    ] {
        let refused = RefusedRecords {
            listed: (0..4).map(|index| (index, fault)).collect(),
            count: 4,
            by_timestamp: true,
        };
        let found = appended.validate_records(&limits);
        assert_eq!(found, Err(BatchError::Refused(refused)));
    }

    let corrected = CheckedBatch::parse(appended.with_max_timestamp(1500).bytes).unwrap();
    assert_eq!(corrected.header.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(corrected, stored, "the rewrites cancel out");
}

#[test]
fn rules_of_the_topic_are_kept() {
    let batch = varied(Compression::Lz4);
    let check = |limits: RecordLimits| batch.validate_records(&limits);
    let fault = |index, fault| {
        Err(BatchError::Refused(RefusedRecords {
            listed: vec![(index, fault)],
            count: 1,
            by_timestamp: fault != RecordFault::NullKey,
        }))
    };
    assert_eq!(
        check(RecordLimits {
            keys_required: true,
            ..RecordLimits::default()
        }),
        fault(1, RecordFault::NullKey)
    );
    let all = RecordLimits {
        keys_required: true,
        refused_listed_max: 1,
        timestamp_ms_max: 899,
        ..RecordLimits::default()
    };
    let refused = RefusedRecords {
        listed: vec![(0, RecordFault::TimestampOutOfRange(1000))],
        count: 4,
        by_timestamp: true,
    };
    assert_eq!(check(all), Err(BatchError::Refused(refused)));
    assert_eq!(
        check(RecordLimits {
            timestamp_ms_min: 901,
            ..RecordLimits::default()
        }),
        fault(2, RecordFault::TimestampOutOfRange(900))
    );
    assert_eq!(
        check(RecordLimits {
            timestamp_ms_max: 1499,
            ..RecordLimits::default()
        }),
        Err(BatchError::Refused(RefusedRecords {
            listed: [1, 3]
                .map(|index| (index, RecordFault::TimestampOutOfRange(1500)))
                .to_vec(),
            count: 2,
            by_timestamp: true,
        }))
    );
    let mut bare = BatchBuilder::new(0);
    bare.push(&NewRecord {
        timestamp: NO_TIMESTAMP,
        ..NewRecord::default()
    })
    .unwrap();
    let summary = bare
        .build()
        .unwrap()
        .validate_records(&RecordLimits {
            timestamp_ms_min: 5,
            ..RecordLimits::default()
        })
        .unwrap();
    assert_eq!(summary.max_timestamp_ms, NO_TIMESTAMP);
}

#[test]
fn producers_need_sequences_and_transactions_need_producers() {
    let limits = RecordLimits::default();
    let one = NewRecord::default();
    let mut without_sequence = BatchBuilder::new(0).producer(5, 0, -1);
    without_sequence.push(&one).unwrap();
    let without_sequence = without_sequence.build().unwrap();
    assert!(matches!(
        without_sequence.validate_records(&limits),
        Err(BatchError::InvalidProducer { producer_id: 5, .. })
    ));
    let mut without_producer = BatchBuilder::new(0).transactional();
    without_producer.push(&one).unwrap();
    let without_producer = without_producer.build().unwrap();
    assert!(matches!(
        without_producer.validate_records(&limits),
        Err(BatchError::InvalidProducer {
            producer_id: -1,
            ..
        })
    ));
}

#[test]
fn sequences_wrap_as_kafkas_do() {
    assert_eq!(increment_sequence(0, 5), 5);
    assert_eq!(increment_sequence(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(increment_sequence(i32::MAX, 1), 0);
    assert_eq!(increment_sequence(i32::MAX - 2, 5), 2);
    assert_eq!(varied(Compression::None).header.last_sequence(), 8);
}

#[test]
fn control_records_keep_their_type_and_value() {
    let marker = EndTransactionMarker {
        commit: true,
        coordinator_epoch: 77,
    };
    let leader = ControlRecord {
        control_type: ControlType::LeaderChange,
        value: Bytes::from_static(b"\0\0message"),
    };
    let mut batch = BatchBuilder::new(10)
        .producer(4, 2, -1)
        .transactional()
        .control();
    batch.push_control(1, &marker.to_record()).unwrap();
    batch.push_control(1, &leader).unwrap();
    let batch = batch.build().unwrap();

    assert_eq!(
        batch.validate_records(&RecordLimits::default()),
        Err(BatchError::ControlNotAllowed)
    );
    let limits = RecordLimits {
        control_allowed: true,
        ..RecordLimits::default()
    };
    assert!(batch.validate_records(&limits).is_ok());
    let records: Vec<_> = batch
        .records(&limits)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let first = ControlRecord::from_record(0, &records[0]).unwrap();
    assert_eq!(first.end_transaction(), Some(marker));
    let second = ControlRecord::from_record(1, &records[1]).unwrap();
    assert_eq!((&second, second.end_transaction()), (&leader, None));
    let mut keyless = records[0].clone();
    keyless.key = None;
    assert_eq!(
        ControlRecord::from_record(0, &keyless),
        Err(BatchError::Record {
            index: 0,
            fault: RecordFault::Control
        })
    );
}

#[test]
fn a_log_is_scanned_to_its_end() {
    let first = varied(Compression::None);
    let second = varied(Compression::Gzip).with_offsets(46, 3);
    let mut log = [&first.bytes[..], &second.bytes[..]].concat();
    let end = log.len();
    log.resize(end + 4096, 0);

    let mut at = 0;
    let mut found = Vec::new();
    while let Scan::Complete(header) = scan(&log[at..]) {
        at += header.size_bytes();
        found.push(header);
    }
    assert_eq!((at, scan(&log[at..])), (end, Scan::End));
    assert_eq!(found, [first.header, second.header]);

    let size = second.bytes.len();
    assert_eq!(scan(&second.bytes[..0]), Scan::NeedMore(BATCH_HEADER_BYTES));
    for cut in 1..size {
        let needed = if cut < BATCH_HEADER_BYTES {
            BATCH_HEADER_BYTES
        } else {
            size
        };
        assert_eq!(
            scan(&second.bytes[..cut]),
            Scan::NeedMore(needed),
            "cut at {cut}"
        );
    }
    let mut torn = second.bytes.to_vec();
    torn[size - 40..].fill(0);
    assert!(matches!(
        scan(&torn),
        Scan::Corrupt(BatchError::CrcMismatch { .. })
    ));
    let negative = first.with_offsets(-1, 0);
    assert!(matches!(
        scan(&negative.bytes),
        Scan::Corrupt(BatchError::InvalidOffsets { .. })
    ));
}

#[test]
fn one_batch_is_not_two() {
    let batch = varied(Compression::Snappy);
    let twice = Bytes::from([&batch.bytes[..], &batch.bytes[..]].concat());
    let count = batch.bytes.len();
    assert_eq!(
        CheckedBatch::parse(twice.clone()),
        Err(BatchError::BytesAfterBatch { count })
    );
    let (first, rest) = CheckedBatch::parse_first(twice).unwrap();
    assert_eq!((first, rest), (batch.clone(), batch.bytes.clone()));
    assert_eq!(BatchHeader::peek(&batch.bytes), Ok(batch.header));
}
