//! Verdicts of Apache Kafka 3.9.1 on message sets, good and bad, and our limits.

use chronik_protocol::record::legacy::{MessageError, UpRules};
use chronik_protocol::record::{BatchError, Compression, RecordFault, RecordLimits, TimestampType};

use super::{
    NOW_MS, convert, field, gzip, message, one, records, refusing, rules, sealed, two, up, wrapped,
};

/// Name of the case, the set, and a check of the error.
type Refused = (&'static str, Vec<u8>, fn(&MessageError) -> bool);

/// Demands one record for each message, offsets from 0 on.
fn accept(sets: Vec<(&str, Vec<u8>, usize)>) {
    for (name, set, count) in sets {
        let batch = up(&set).unwrap_or_else(|error| panic!("{name}: {error}"));
        let offsets: Vec<i64> = records(&batch).iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (0..count as i64).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn what_kafka_accepts_is_accepted() {
    accept(vec![
        ("magic 0", one(0), 1),
        ("magic 1", one(1), 1),
        ("no timestamp", message(0, 1, -1, 0, None, None), 1),
        ("several", [one(1), one(1), one(1)].concat(), 3),
        (
            "half a message behind",
            [&one(1)[..], &one(1)[..20]].concat(),
            1,
        ),
        ("half a prefix behind", [&one(1)[..], &[0; 9]].concat(), 1),
        (
            "bytes behind the value",
            sealed(0, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 7, 7]),
            1,
        ),
        (
            "a key of length -2",
            sealed(
                0,
                0,
                0,
                &[&(-2_i32).to_be_bytes()[..], &field(None)].concat(),
            ),
            1,
        ),
        (
            "unknown attribute bits",
            message(0, 1, NOW_MS, 0x40, None, None),
            1,
        ),
        (
            "append time claimed beside a time",
            message(0, 1, NOW_MS, 8, None, None),
            1,
        ),
        (
            "the append's bit in magic 0",
            message(0, 0, 0, 8, None, None),
            1,
        ),
    ]);
    let nothing: [&[u8]; 4] = [&[], &[0; 9], &one(1)[..20], &one(0)[..one(0).len() - 1]];
    for set in nothing {
        assert_eq!(
            convert(set, rules(Compression::None), 1),
            Ok(None),
            "{set:?}"
        );
    }
}

#[test]
fn wrappers_that_kafka_accepts_are_accepted() {
    accept(vec![
        ("wrapper", wrapped(1, &two(1)), 2),
        ("wrapper at 0", wrapped(0, &two(1)), 2),
        ("wrapper at 100", wrapped(100, &two(1)), 2),
        (
            "wrapper of magic 0",
            message(1, 0, 0, 1, None, Some(&gzip(&two(0)))),
            2,
        ),
        (
            "wrapper with a key",
            message(1, 1, 0, 1, Some(b"k"), Some(&gzip(&two(1)))),
            2,
        ),
        (
            "wrong offsets inside",
            wrapped(
                5,
                &[
                    message(3, 1, NOW_MS, 0, None, None),
                    message(3, 1, NOW_MS, 0, None, None),
                ]
                .concat(),
            ),
            2,
        ),
        (
            "append time claimed inside",
            wrapped(0, &message(0, 1, NOW_MS, 8, None, None)),
            1,
        ),
    ]);
}

#[test]
fn a_wrappers_append_time_counts_for_all_in_it() {
    let set = message(1, 1, NOW_MS + 77, 1 | 8, None, Some(&gzip(&two(1))));
    let batch = up(&set).expect("accepted, as by Kafka");
    assert!(
        records(&batch)
            .iter()
            .all(|record| record.timestamp == NOW_MS + 77)
    );
    assert_eq!(batch.header.timestamp_type(), TimestampType::CreateTime);
}

fn refuse(sets: Vec<Refused>) {
    for (name, set, expected) in sets {
        let error = up(&set).expect_err(name);
        assert!(expected(&error), "{name}: {error}");
    }
}

fn fields(error: &MessageError) -> bool {
    *error == MessageError::Fields
}

#[test]
fn what_kafka_refuses_is_refused() {
    let mut bad_crc = one(1);
    bad_crc[12] ^= 1;
    let mut small = one(1);
    small[8..12].copy_from_slice(&13_i32.to_be_bytes());
    let mut negative = one(1);
    negative[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
    let time = NOW_MS.to_be_bytes();
    let far = 99_i32.to_be_bytes();
    let too_far = sealed(0, 1, 0, &[&time[..], &far, b"k"].concat());
    let value_too_far = sealed(0, 1, 0, &[&time[..], &field(None), &far].concat());
    let codec = |id| message(0, 1, NOW_MS, id, None, Some(b"xx"));
    refuse(vec![
        ("bad crc", bad_crc.clone(), |e| {
            matches!(e, MessageError::CrcMismatch { .. })
        }),
        ("second crc", [one(1), bad_crc].concat(), |e| {
            matches!(e, MessageError::CrcMismatch { .. })
        }),
        ("size 13", small, |e| *e == MessageError::Size(13)),
        ("size -1", negative, |e| *e == MessageError::Size(-1)),
        ("zeros", vec![0; 26], |e| *e == MessageError::Size(0)),
        ("magic 3", one(3), |e| *e == MessageError::Magic(3)),
        ("magic -1", one(-1), |e| *e == MessageError::Magic(-1)),
        ("both formats", [one(0), one(1)].concat(), |e| {
            *e == MessageError::MixedFormats
        }),
        ("key too long", too_far, fields),
        ("value too long", value_too_far, fields),
        ("no fields", sealed(0, 1, 0, &[0; 8]), fields),
        ("zstd", codec(4), |e| *e == MessageError::Codec(4)),
        ("codec 5", codec(5), |e| *e == MessageError::Codec(5)),
        ("garbage", codec(1), |e| {
            matches!(e, MessageError::Batch(BatchError::Compression(_)))
        }),
    ]);
}

#[test]
fn wrappers_that_kafka_refuses_are_refused() {
    let mut inner_crc = two(1);
    inner_crc[13] ^= 1;
    refuse(vec![
        (
            "two wrappers",
            [wrapped(1, &two(1)), wrapped(1, &two(1))].concat(),
            |e| *e == MessageError::WrapperNotAlone,
        ),
        (
            "wrapper behind",
            [one(1), wrapped(1, &two(1))].concat(),
            |e| *e == MessageError::WrapperNotAlone,
        ),
        ("null wrapper", message(0, 1, 0, 1, None, None), |e| {
            *e == MessageError::WrapperEmpty
        }),
        ("empty wrapper", wrapped(0, b""), |e| {
            *e == MessageError::WrapperEmpty
        }),
        (
            "offset too small",
            wrapped(1, &[two(1), message(2, 1, 0, 0, None, None)].concat()),
            |e| {
                matches!(
                    e,
                    MessageError::WrapperOffset {
                        offset: 1,
                        last_inner_offset: 2
                    }
                )
            },
        ),
        ("magic 0 inside", wrapped(1, &two(0)), |e| {
            *e == MessageError::MixedFormats
        }),
        ("magic 5 inside", wrapped(0, &one(5)), |e| {
            *e == MessageError::MixedFormats
        }),
        ("nested", wrapped(0, &wrapped(0, &two(1))), |e| {
            *e == MessageError::Nested
        }),
        ("crc inside", wrapped(1, &inner_crc), |e| {
            matches!(e, MessageError::CrcMismatch { .. })
        }),
        // Kafka skips these, and would acknowledge a message that it drops.
        (
            "half a message inside",
            wrapped(1, &two(1)[..two(1).len() - 3]),
            |e| *e == MessageError::InnerIncomplete,
        ),
        ("timestamp -5", message(0, 1, -5, 0, None, None), |e| {
            *e == refusing(&[(0, RecordFault::TimestampOutOfRange(-5))])
        }),
    ]);
}

#[test]
fn limits_hold_for_messages_batches_and_what_wrappers_unfold_to() {
    let tight = UpRules {
        batch_bytes_max: 200,
        ..rules(Compression::None)
    };
    let too_large = Err(MessageError::TooLarge { limit_bytes: 200 });
    let large = message(0, 1, NOW_MS, 0, None, Some(&[b'v'; 200]));
    assert_eq!(convert(&large, tight, 64), too_large);
    let many = one(1).repeat(40);
    assert_eq!(convert(&many, tight, 64), too_large);
    let unfolding = wrapped(0, &message(0, 1, NOW_MS, 0, None, Some(&[b'v'; 5000])));
    assert_eq!(convert(&unfolding, tight, 64), too_large);
    let packed = UpRules {
        compression: Compression::Gzip,
        ..tight
    };
    assert!(convert(&unfolding, packed, 64).is_ok());
    let bounded = UpRules {
        limits: RecordLimits {
            decompressed_bytes_max: 4000,
            ..RecordLimits::default()
        },
        ..packed
    };
    assert!(matches!(
        convert(&unfolding, bounded, 64),
        Err(MessageError::Batch(BatchError::Compression(_)))
    ));
    let keyed = UpRules {
        limits: RecordLimits {
            keys_required: true,
            timestamp_ms_max: NOW_MS,
            ..RecordLimits::default()
        },
        ..rules(Compression::None)
    };
    let refused = |set: &[u8]| convert(set, keyed, 64).expect_err("a broken rule");
    let without_key = message(0, 1, NOW_MS, 0, None, None);
    let no_key = refusing(&[(0, RecordFault::NullKey)]);
    assert_eq!(refused(&without_key), no_key);
    let late = RecordFault::TimestampOutOfRange(NOW_MS + 5);
    assert_eq!(refused(&wrapped(1, &two(1))), refusing(&[(1, late)]));
    let both = [&without_key[..], &two(1)].concat();
    assert_eq!(
        refused(&both),
        refusing(&[(0, RecordFault::NullKey), (2, late)]),
        "all of them are looked at"
    );
}
