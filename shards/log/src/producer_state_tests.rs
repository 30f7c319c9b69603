//! Tables for the producer sequence rules and the snapshot's bytes.

use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};

use super::*;

fn batch(id: i64, epoch: i16, sequence: i32, records: i32, base_offset: i64) -> BatchHeader {
    let mut builder = BatchBuilder::new(base_offset).producer(id, epoch, sequence);
    for n in 0..records {
        let record = NewRecord {
            timestamp: 1000 + i64::from(n),
            value: Some(b"v"),
            ..NewRecord::default()
        };
        builder.push(&record).expect("small");
    }
    let batch: CheckedBatch = builder.build().expect("valid");
    batch.header
}

/// Appends in order, each must be fresh, at offsets from 0 on.
fn appended(batches: &[(i64, i16, i32, i32)]) -> (ProducerStates, i64) {
    let mut states = ProducerStates::default();
    let mut offset = 0;
    for &(id, epoch, sequence, records) in batches {
        let header = batch(id, epoch, sequence, records, offset);
        assert_eq!(
            states.check(&header),
            Ok(Verdict::Fresh),
            "{id} {epoch} {sequence}"
        );
        states.note(&header, 5000);
        offset += i64::from(records);
    }
    (states, offset)
}

fn original(verdict: Result<Verdict, SequenceError>) -> Option<i64> {
    match verdict {
        Ok(Verdict::Duplicate(batch)) => Some(batch.first_offset()),
        _ => None,
    }
}

#[test]
fn the_last_five_batches_are_recognised_and_older_ones_are_out_of_order() {
    let sent: Vec<_> = (0..7).map(|n| (9, 0, n * 10, 10)).collect();
    let (states, end) = appended(&sent);
    for n in 0..7 {
        let verdict = states.check(&batch(9, 0, n * 10, 10, end));
        if n < 2 {
            assert_eq!(
                verdict,
                Err(SequenceError::Gap {
                    sequence: n * 10,
                    last: 69
                })
            );
        } else {
            assert_eq!(original(verdict), Some(i64::from(n) * 10));
        }
    }
    // Same start, another length: not the same batch.
    let verdict = states.check(&batch(9, 0, 60, 9, end));
    assert_eq!(
        verdict,
        Err(SequenceError::Gap {
            sequence: 60,
            last: 69
        })
    );
}

#[test]
fn sequences_must_follow_within_an_epoch_and_begin_at_zero_in_a_new_one() {
    let (states, end) = appended(&[(9, 3, 0, 2)]);
    let check = |epoch, sequence| states.check(&batch(9, epoch, sequence, 1, end));
    assert_eq!(check(3, 2), Ok(Verdict::Fresh));
    assert_eq!(
        check(3, 3),
        Err(SequenceError::Gap {
            sequence: 3,
            last: 1
        })
    );
    assert_eq!(
        check(2, 2),
        Err(SequenceError::OldEpoch {
            epoch: 2,
            current: 3
        })
    );
    assert_eq!(check(4, 0), Ok(Verdict::Fresh));
    assert_eq!(
        check(4, 2),
        Err(SequenceError::NewEpochNotAtZero {
            epoch: 4,
            sequence: 2,
            current: 3
        })
    );
    let code = |epoch, sequence| check(epoch, sequence).err().map(SequenceError::code);
    assert_eq!(code(3, 3), Some(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(code(2, 2), Some(ErrorCode::InvalidProducerEpoch));
    assert_eq!(code(4, 2), Some(ErrorCode::OutOfOrderSequenceNumber));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let states = ProducerStates::default();
    assert_eq!(states.check(&batch(1, 0, 77, 1, 0)), Ok(Verdict::Fresh));
    assert_eq!(states.check(&batch(1, 5, 0, 1, 0)), Ok(Verdict::Fresh));
}

#[test]
fn a_new_epoch_forgets_the_batches_of_the_old_one() {
    let (states, end) = appended(&[(9, 0, 0, 1), (9, 1, 0, 1)]);
    assert_eq!(original(states.check(&batch(9, 1, 0, 1, end))), Some(1));
    assert_eq!(
        states.check(&batch(9, 0, 0, 1, end)),
        Err(SequenceError::OldEpoch {
            epoch: 0,
            current: 1
        })
    );
}

#[test]
fn sequences_wrap_to_zero_after_the_largest() {
    let max = i32::MAX;
    let (states, end) = appended(&[(9, 0, max - 4, 3), (9, 0, max - 1, 4), (9, 0, 2, 1)]);
    assert_eq!(
        original(states.check(&batch(9, 0, max - 1, 4, end))),
        Some(3)
    );
    assert_eq!(states.check(&batch(9, 0, 3, 1, end)), Ok(Verdict::Fresh));
    let (states, end) = appended(&[(9, 0, max, 1)]);
    assert_eq!(states.check(&batch(9, 0, 0, 1, end)), Ok(Verdict::Fresh));
    assert_eq!(
        states.check(&batch(9, 0, 1, 1, end)),
        Err(SequenceError::Gap {
            sequence: 1,
            last: max
        })
    );
}

#[test]
fn silent_producers_expire_and_may_come_back_with_any_sequence() {
    let (mut states, end) = appended(&[(9, 0, 0, 1)]);
    assert_eq!(states.next_expiry_ms(100), Some(5100));
    assert_eq!(states.expire(5099, 100), 0);
    assert_eq!(states.expire(5100, 100), 1);
    assert!(states.is_empty());
    assert_eq!(states.check(&batch(9, 0, 50, 1, end)), Ok(Verdict::Fresh));
    assert_eq!(states.next_expiry_ms(100), None);
}

#[test]
fn snapshots_keep_the_last_batch_of_each_producer() {
    let (states, end) = appended(&[(9, 0, 0, 3), (9, 0, 3, 2), (-1, -1, -1, 1), (4, 2, 8, 1)]);
    let bytes = states.to_snapshot();
    assert_eq!(
        bytes.len(),
        SNAPSHOT_HEADER_BYTES + 2 * SNAPSHOT_ENTRY_BYTES
    );
    let loaded = ProducerStates::from_snapshot(&bytes, 7000).expect("own bytes");
    assert_eq!(loaded.to_snapshot(), bytes);
    assert_eq!(original(loaded.check(&batch(9, 0, 3, 2, end))), Some(3));
    assert_eq!(loaded.check(&batch(9, 0, 5, 1, end)), Ok(Verdict::Fresh));
    assert_eq!(
        loaded.check(&batch(9, 0, 0, 3, end)),
        Err(SequenceError::Gap {
            sequence: 0,
            last: 4
        })
    );
    // Expiry counts from loading, whatever the records' own timestamps say.
    assert_eq!(loaded.next_expiry_ms(100), Some(7100));
}

#[test]
fn garbled_snapshots_are_refused() {
    let (states, _) = appended(&[(9, 0, 0, 3)]);
    let good = states.to_snapshot();
    let fault = |bytes: &[u8]| ProducerStates::from_snapshot(bytes, 0).err();
    assert_eq!(fault(&good), None);
    assert_eq!(fault(&[]), Some(SnapshotFault::Length));
    assert_eq!(
        fault(&good[..good.len() - 1]),
        Some(SnapshotFault::Checksum)
    );
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    assert_eq!(fault(&flipped), Some(SnapshotFault::Checksum));
    let mut versioned = good.clone();
    versioned[1] = 2;
    assert_eq!(fault(&versioned), Some(SnapshotFault::Version(2)));
    let entries = (-1_i32).to_be_bytes();
    let mut negative = good[..2].to_vec();
    negative.extend_from_slice(&crc32c(&entries).to_be_bytes());
    negative.extend_from_slice(&entries);
    assert_eq!(fault(&negative), Some(SnapshotFault::Length));
}

#[test]
fn the_longest_silent_producers_give_way_at_the_bound() {
    let mut states = ProducerStates::default();
    let template = batch(1, 0, 0, 1, 0);
    for id in 0..=i64::try_from(PRODUCERS_MAX).expect("small") {
        states.note(
            &BatchHeader {
                producer_id: id,
                ..template
            },
            id,
        );
    }
    assert_eq!(states.len(), PRODUCERS_MAX - PRODUCERS_MAX / 16 + 1);
    assert!(!states.producers.contains_key(&0));
    assert!(states.producers.contains_key(&65_536));
}
