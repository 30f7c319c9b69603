//! Batches of a lying or broken producer are refused with the right reason and at bounded cost.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, CheckedBatch, Compression, CompressionError,
    NewRecord, RecordFault, RecordLimits, RecordsValidator, ValidationProgress,
};

const CRC_START: usize = 21;

fn batch(codec: Compression, records: usize) -> CheckedBatch {
    let mut builder = BatchBuilder::new(0).compression(codec);
    for i in 0..records {
        let (key, value) = (format!("key {i}"), format!("value {i}").repeat(20));
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"x")), (b"n", None)];
        builder
            .push(&NewRecord {
                timestamp: 1_000 + i as i64,
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: &headers,
            })
            .unwrap();
    }
    builder.build().unwrap()
}

/// A batch with these bytes as its records, and a right CRC.
fn sealed(codec: Compression, record_count: i32, records: &[u8]) -> CheckedBatch {
    let mut header = batch(Compression::None, 1).header;
    header.attributes = header.attributes.with_compression(codec);
    header.record_count = record_count;
    header.last_offset_delta = record_count - 1;
    header.batch_length = (BATCH_HEADER_BYTES - 12 + records.len()) as i32;
    let mut bytes = BytesMut::from(&header.to_bytes()[..]);
    bytes.put_slice(records);
    CheckedBatch::parse(with_right_crc(bytes)).unwrap()
}

fn with_right_crc(mut bytes: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn validate(batch: &CheckedBatch) -> Result<(), BatchError> {
    batch.validate_records(&RecordLimits::default()).map(|_| ())
}

/// One record with these bytes as fields, its length in front.
fn record(fields: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(fields.len() * 2) as u8];
    bytes.extend_from_slice(fields);
    bytes
}

#[test]
fn every_single_bit_flip_is_noticed() {
    for codec in [Compression::None, Compression::Zstd] {
        let sound = batch(codec, 3);
        for bit in 8 * 8..sound.bytes.len() * 8 {
            // Base offset and leader epoch belong to the broker; no checksum covers them.
            if (12..16).contains(&(bit / 8)) {
                continue;
            }
            let mut flipped = BytesMut::from(&sound.bytes[..]);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                CheckedBatch::parse(flipped.freeze()).is_err(),
                "bit {bit} with {codec}"
            );
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    for codec in Compression::ALL {
        let sound = batch(codec, 3);
        for cut in 0..sound.bytes.len() {
            let needed = if cut < BATCH_HEADER_BYTES {
                BATCH_HEADER_BYTES
            } else {
                sound.bytes.len()
            };
            assert_eq!(
                CheckedBatch::parse(sound.bytes.slice(..cut)),
                Err(BatchError::Truncated {
                    needed,
                    available: cut
                })
            );
        }
        // The same with a length and a CRC to match: only the records show the cut.
        for cut in BATCH_HEADER_BYTES..sound.bytes.len() {
            let shorter = sealed(codec, 3, &sound.bytes[BATCH_HEADER_BYTES..cut]);
            assert!(validate(&shorter).is_err(), "{codec} cut at {cut}");
            let limits = RecordLimits::default();
            let records = shorter
                .records(&limits)
                .and_then(|mut it| it.try_for_each(|it| it.map(|_| ())));
            assert!(records.is_err(), "{codec} cut at {cut}");
        }
    }
}

#[test]
fn lies_about_the_count_are_noticed() {
    for codec in Compression::ALL {
        let sound = batch(codec, 3);
        let records = &sound.bytes[BATCH_HEADER_BYTES..];
        assert_eq!(
            validate(&sealed(codec, 2, records)),
            Err(BatchError::BytesAfterRecords { declared: 2 })
        );
        for declared in [4, i32::MAX] {
            assert_eq!(
                validate(&sealed(codec, declared, records)),
                Err(BatchError::RecordsMissing { declared, found: 3 })
            );
            let limits = RecordLimits::default();
            let last = sealed(codec, declared, records)
                .records(&limits)
                .unwrap()
                .last();
            assert_eq!(
                last,
                Some(Err(BatchError::RecordsMissing { declared, found: 3 }))
            );
        }
        let last = sealed(codec, 2, records)
            .records(&RecordLimits::default())
            .unwrap()
            .last();
        assert_eq!(
            last,
            Some(Err(BatchError::BytesAfterRecords { declared: 2 }))
        );
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let change = |change: fn(&mut chronik_protocol::record::BatchHeader)| {
        let sound = batch(Compression::None, 3);
        let mut header = sound.header;
        change(&mut header);
        let mut bytes = BytesMut::from(&header.to_bytes()[..]);
        bytes.put_slice(&sound.bytes[BATCH_HEADER_BYTES..]);
        CheckedBatch::parse(with_right_crc(bytes)).and_then(|it| validate(&it))
    };
    let count = |record_count, last_offset_delta| {
        Err(BatchError::InvalidCount {
            record_count,
            last_offset_delta,
        })
    };
    assert_eq!(change(|_| ()), Ok(()));
    assert_eq!(change(|it| it.record_count = -1), count(-1, 2));
    assert_eq!(change(|it| it.record_count = 0), count(0, 2));
    assert_eq!(change(|it| it.record_count = 4), count(4, 2));
    assert_eq!(change(|it| it.last_offset_delta = 9), count(3, 9));
    let offsets = change(|it| it.last_offset_delta = -1);
    assert!(matches!(
        offsets,
        Err(BatchError::InvalidOffsets {
            last_offset_delta: -1,
            ..
        })
    ));
    let offsets = change(|it| it.base_offset = i64::MAX - 1);
    assert!(matches!(offsets, Err(BatchError::InvalidOffsets { .. })));
    // Times wrap, as for every reader in Java.
    assert_eq!(change(|it| it.base_timestamp = i64::MAX), Ok(()));

    for length in [-1, 0, 48, i32::MIN] {
        let mut header = batch(Compression::None, 1).header;
        header.batch_length = length;
        let bytes = Bytes::copy_from_slice(&header.to_bytes());
        assert_eq!(
            CheckedBatch::parse(bytes),
            Err(BatchError::InvalidLength {
                batch_length: length
            })
        );
    }
    for id in [5, 6, 7] {
        let mut bytes = BytesMut::from(&batch(Compression::None, 1).bytes[..]);
        bytes[22] = id;
        let parsed = CheckedBatch::parse(with_right_crc(bytes));
        assert_eq!(parsed, Err(BatchError::UnknownCompression { id }));
    }
}

/// Attributes, timestamp delta and offset delta are 0 in each of these records.
fn malformed_records() -> Vec<(Vec<u8>, RecordFault)> {
    vec![
        (record(&[0, 0, 0, 1, 1]), RecordFault::Length(5)),
        (vec![1, 0, 0, 0, 1, 1, 0], RecordFault::Length(-1)),
        (record(&[0, 0, 0, 8, 1, 0]), RecordFault::FieldBeyondRecord),
        (record(&[0, 0, 0, 1, 8, 0]), RecordFault::FieldBeyondRecord),
        (
            vec![12, 0, 0, 0, 0, 0, 0x80, 0],
            RecordFault::FieldBeyondRecord,
        ),
        (record(&[0, 0, 0, 1, 1, 1]), RecordFault::HeaderCount(-1)),
        (record(&[0, 0, 0, 1, 1, 2]), RecordFault::HeaderCount(1)),
        (
            record(&[0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
            RecordFault::HeaderCount(i32::MAX),
        ),
        (
            record(&[0, 0, 0, 1, 1, 2, 1, 1]),
            RecordFault::HeaderKeyLength(-1),
        ),
        (
            record(&[0, 0, 0, 1, 1, 0, 9]),
            RecordFault::BytesAfterFields(1),
        ),
        (
            record(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 0]),
            RecordFault::Varint,
        ),
        (
            record(&[[0].as_slice(), &[0xff; 10], &[0, 1, 1, 0]].concat()),
            RecordFault::Varint,
        ),
    ]
}

#[test]
fn malformed_records_are_refused_alike_by_both_readers() {
    for (bytes, fault) in malformed_records() {
        let refused = Err(BatchError::Record { index: 0, fault });
        let lying = sealed(Compression::None, 1, &bytes);
        assert_eq!(validate(&lying), refused, "{bytes:x?}");
        let read = lying
            .records(&RecordLimits::default())
            .unwrap()
            .next()
            .unwrap()
            .map(|_| ());
        match fault {
            // The reader of stored records meets the missing field before it misses the length.
            RecordFault::Length(5) => assert!(read.is_err()),
            _ => assert_eq!(read, refused, "{bytes:x?}"),
        }
        for codec in &Compression::ALL[1..] {
            let packed = sealed(*codec, 1, &codec.compress(None, &bytes).unwrap());
            assert_eq!(validate(&packed), refused, "{codec} {bytes:x?}");
        }
    }
}

/// Kafka checks offset deltas of compressed batches only, and takes any negative length for null.
#[test]
fn odd_records_are_taken_and_written_anew() {
    let headers = |value: u8| [&[0, 0, 0, 1, 1, 4, 2, b'h', value][..], &[0, 1]].concat();
    let odd_null = record(&headers(3));
    let canonical = record(&headers(1));
    let deltas = |deltas: &[u8]| {
        let records = deltas.iter().map(|delta| record(&[0, 0, *delta, 1, 1, 0]));
        records.collect::<Vec<_>>().concat()
    };
    let limits = RecordLimits::default();
    for (count, odd, right) in [
        (2, deltas(&[0, 0]), deltas(&[0, 2])),
        (2, deltas(&[2, 0]), deltas(&[0, 2])),
        (2, deltas(&[1, 5]), deltas(&[0, 2])),
        (1, record(&[0, 0, 0, 3, 1, 0]), deltas(&[0])),
        (1, record(&[0, 0, 0, 1, 5, 0]), deltas(&[0])),
        (1, odd_null, canonical),
    ] {
        let batch = sealed(Compression::None, count, &odd);
        let summary = batch.validate_records(&limits).expect("taken");
        assert!(summary.odd, "{odd:x?}");
        for codec in Compression::ALL {
            let anew = batch.renumbered(codec, None, &limits).expect("sound");
            let read = CheckedBatch::parse(anew.bytes.clone()).expect("sound");
            assert_eq!(
                (read.header, codec),
                (anew.header, read.header.compression())
            );
            let summary = anew.validate_records(&limits).expect("taken");
            assert!(!summary.odd);
            let plain = codec.decompress_bounded(&anew.compressed_records(), 1000);
            let headers_as_they_were = plain.expect("just compressed").len();
            assert_eq!(headers_as_they_were, right.len(), "{odd:x?}");
        }
    }
    let packed = Compression::Gzip.compress(None, &deltas(&[0, 0])).unwrap();
    let fault = RecordFault::OffsetDelta {
        expected: 1,
        found: 0,
    };
    assert_eq!(
        validate(&sealed(Compression::Gzip, 2, &packed)),
        Err(BatchError::Record { index: 1, fault })
    );
}

/// The compressed form of `bytes` zeros, made without holding them.
fn bomb(codec: Compression, bytes: usize) -> Vec<u8> {
    static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
    let pieces = bytes / PIECE.len();
    match codec {
        Compression::None => vec![0; bytes],
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            (0..pieces).for_each(|_| encoder.write_all(&PIECE).unwrap());
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            (0..pieces).for_each(|_| encoder.write_all(&PIECE).unwrap());
            encoder.finish().unwrap()
        }
        Compression::Snappy => snap::raw::Encoder::new()
            .compress_vec(&vec![0; bytes])
            .unwrap(),
        Compression::Lz4 => Compression::Lz4.compress(None, &vec![0; bytes]).unwrap(),
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    const LIMIT: usize = 1 << 20;
    const BOMB: usize = 16 << 20;
    for codec in Compression::ALL {
        let packed = Bytes::from(bomb(codec, BOMB));
        let exceeded = CompressionError::LimitExceeded {
            codec,
            limit_bytes: LIMIT,
        };
        assert_eq!(
            codec.decompress_bounded(&packed, LIMIT),
            Err(exceeded.clone()),
            "{codec}"
        );
        assert_eq!(
            codec.decompress_bounded(&packed, BOMB).map(|it| it.len()),
            Ok(BOMB),
            "{codec}"
        );
        assert!(
            codec.decompress_bounded(&packed, BOMB - 1).is_err(),
            "{codec}"
        );

        if codec != Compression::None {
            // Zeros are records of length 0, refused at once. A record longer than the limit makes
            // the validator read on, and its length is refused.
            let lying = sealed(codec, 1, &packed);
            let length = BatchError::Record {
                index: 0,
                fault: RecordFault::Length(0),
            };
            assert_eq!(validate(&lying), Err(length), "{codec}");
        }
    }
}

#[test]
fn a_bomb_of_sound_records_stops_at_the_limit_in_small_steps() {
    // Records of one large value each, so that only the limit can stop the parser.
    let value = vec![0; 512 * 1024];
    for codec in &Compression::ALL[1..] {
        let mut builder = BatchBuilder::new(0).compression(*codec);
        for _ in 0..64 {
            builder
                .push(&NewRecord {
                    value: Some(&value),
                    ..NewRecord::default()
                })
                .unwrap();
        }
        let bomb = builder.build().unwrap();
        let limits = RecordLimits {
            decompressed_bytes_max: 4 << 20,
            ..RecordLimits::default()
        };
        let mut validator = RecordsValidator::new(&bomb, limits).unwrap();
        let mut steps = 0;
        let error = loop {
            match validator.step(64 * 1024) {
                Ok(ValidationProgress::More) => steps += 1,
                Ok(ValidationProgress::Done(summary)) => panic!("{codec}: {summary:?}"),
                Err(error) => break error,
            }
        };
        let limit_bytes = 4 << 20;
        let exceeded = CompressionError::LimitExceeded {
            codec: *codec,
            limit_bytes,
        };
        assert_eq!(error, BatchError::Compression(exceeded));
        assert!(
            steps <= limit_bytes / (64 * 1024),
            "{codec} took {steps} steps"
        );
        assert_eq!(
            bomb.recompressed(Compression::None, None, &limits),
            Err(error)
        );
    }
}

#[test]
fn claims_of_blocks_are_not_believed() {
    let refused = |codec: Compression, bytes: &[u8]| {
        codec
            .decompress_bounded(&Bytes::copy_from_slice(bytes), usize::MAX)
            .unwrap_err();
    };
    // A bare snappy block that claims 4 GiB − 1, and one of framed 2 GiB.
    refused(Compression::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    refused(
        Compression::Snappy,
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff\0",
    );
    refused(
        Compression::Snappy,
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff\0",
    );
    refused(Compression::Snappy, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0");
    // LZ4: another magic, a wrong header checksum, linked blocks, a block beyond the input, no end.
    let sound = Compression::Lz4.compress(None, &[7; 100]).unwrap();
    for (at, value) in [(0, 5), (6, !sound[6]), (4, sound[4] & !0x20), (9, 0x7f)] {
        let mut broken = sound.clone();
        broken[at] = value;
        refused(Compression::Lz4, &broken);
    }
    refused(Compression::Lz4, &sound[..sound.len() - 4]);
    refused(Compression::Lz4, &[&sound[..], b"x"].concat());
    for codec in &Compression::ALL[1..] {
        let sound = codec.compress(None, &[7; 1000]).unwrap();
        for cut in 1..sound.len() {
            // Snappy's header with no block behind it is an empty stream.
            if (*codec, cut) != (Compression::Snappy, 16) {
                refused(*codec, &sound[..cut]);
            }
        }
    }
}

#[test]
fn lz4_frames_of_other_writers_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let plain: Bytes = (0..300_000_u64).map(|i| ((i * i) >> 9) as u8).collect();
    for size in [
        BlockSize::Max64KB,
        BlockSize::Max256KB,
        BlockSize::Max1MB,
        BlockSize::Max4MB,
    ] {
        for checksums in [false, true] {
            let frame = FrameInfo::new()
                .block_size(size)
                .block_mode(BlockMode::Independent)
                .block_checksums(checksums)
                .content_checksum(checksums)
                .content_size(checksums.then_some(plain.len() as u64));
            let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(&plain).unwrap();
            let packed = Bytes::from(encoder.finish().unwrap());
            assert_eq!(
                Compression::Lz4.decompress_bounded(&packed, plain.len()),
                Ok(plain.clone())
            );
            if checksums {
                let mut broken = packed.to_vec();
                broken[1000] ^= 1;
                let broken = Bytes::from(broken);
                assert!(
                    Compression::Lz4
                        .decompress_bounded(&broken, plain.len())
                        .is_err()
                );
            }
        }
    }
}

#[test]
fn members_and_frames_may_follow_each_other() {
    for codec in [Compression::Gzip, Compression::Zstd] {
        let halves = [
            codec.compress(None, b"one ").unwrap(),
            codec.compress(None, b"two").unwrap(),
        ];
        let joined = codec.decompress_bounded(&Bytes::from(halves.concat()), 7);
        assert_eq!(joined, Ok(Bytes::from_static(b"one two")));
    }
    // librdkafka's snappy is one block without a frame.
    let bare = snap::raw::Encoder::new().compress_vec(b"bare").unwrap();
    let bare = Compression::Snappy.decompress_bounded(&Bytes::from(bare), 4);
    assert_eq!(bare, Ok(Bytes::from_static(b"bare")));
}

#[test]
fn a_batch_holds_no_more_than_its_format_can() {
    let mut builder = BatchBuilder::new(i64::MAX);
    builder.push(&NewRecord::default()).unwrap();
    assert_eq!(
        builder.push(&NewRecord::default()),
        Err(BatchError::TooLarge)
    );
    let mut builder = BatchBuilder::new(0);
    builder
        .push(&NewRecord {
            timestamp: i64::MIN,
            ..NewRecord::default()
        })
        .unwrap();
    let far = NewRecord {
        timestamp: i64::MAX,
        ..NewRecord::default()
    };
    assert_eq!(builder.push(&far), Err(BatchError::TooLarge));
    assert_eq!(builder.len(), 1);
    assert!(matches!(
        BatchBuilder::new(0).build(),
        Err(BatchError::InvalidCount { .. })
    ));
}
