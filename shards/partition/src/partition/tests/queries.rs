//! Offsets by timestamp, leader epochs, deleting records, limits of reads.

use std::path::Path;

use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::TimestampType;
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TimestampKind};
use chronik_terms::{Acks, AppendPart, EpochQuery, Isolation, Now, OffsetTarget, ReadPart};

use super::rig::{ID, Rig, batch, clean, produced_batch, small_config, timed_batch};
use crate::partition::ReadPlan;

const DIR: &str = "/data/orders-0";

async fn open(world: &SimulatedWorld, hint: RecoveryHint, epoch: i32) -> Rig<SimulatedWorld> {
    let config = small_config(Durability::Disk);
    Rig::open(world, Path::new(DIR), &config, hint, epoch)
        .await
        .expect("opens")
        .0
}

fn run(test: impl AsyncFnOnce(&SimulatedWorld)) {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    simulation.run(test(&world));
}

#[test]
fn timestamps_find_the_first_record_that_is_not_older() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 0).await;
        let empty = rig.list(OffsetTarget::MaxTimestamp).await;
        assert_eq!(
            (empty.error, empty.offset, empty.timestamp_ms),
            (ErrorCode::None, -1, -1)
        );
        // Three records a batch, 10 ms apart between batches, over several segments.
        let mut records = Vec::new();
        for n in 0..80_i64 {
            let timestamp = 1000 + 10 * n;
            let base = rig
                .must_append(&timed_batch(&[&[1; 700], b"b", b"c"], timestamp))
                .await;
            records.extend((0..3).map(|at| (timestamp + at, base + at)));
        }
        let check = async |rig: &Rig<SimulatedWorld>| {
            for wanted in (990..1810).step_by(7) {
                let answer = rig.list(OffsetTarget::Timestamp(wanted)).await;
                let expected = records.iter().find(|record| record.0 >= wanted);
                let expected = expected.copied().unwrap_or((-1, -1));
                assert_eq!((answer.timestamp_ms, answer.offset), expected, "{wanted}");
            }
            let max = rig.list(OffsetTarget::MaxTimestamp).await;
            assert_eq!((max.timestamp_ms, max.offset), (1792, 239));
        };
        check(&rig).await;
        let hint = clean(&rig.close().await.expect("closes"));
        check(&open(world, hint, 0).await).await;
    });
}

#[test]
fn positions_answer_without_reading() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 2).await;
        let empty = rig.list(OffsetTarget::Earliest).await;
        assert_eq!((empty.offset, empty.leader_epoch), (0, 2));
        for _ in 0..4 {
            rig.must_append(&batch(&[b"x"])).await;
        }
        rig.delete_records(1);
        let offset = async |target| {
            let answer = rig.list(target).await;
            (answer.offset, answer.leader_epoch)
        };
        assert_eq!(offset(OffsetTarget::Earliest).await, (1, 2));
        assert_eq!(offset(OffsetTarget::EarliestLocal).await, (1, 2));
        assert_eq!(offset(OffsetTarget::Latest).await, (4, 2));
        assert_eq!(offset(OffsetTarget::LatestTiered).await, (-1, -1));
    });
}

#[test]
fn leader_epochs_end_where_the_next_one_began() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 2).await;
        rig.must_append(&batch(&[b"x"])).await;
        rig.with(|partition, _| partition.set_leader_epoch(4));
        rig.must_append(&batch(&[b"x", b"y"])).await;
        rig.with(|partition, _| partition.set_leader_epoch(6));
        let end = |current_leader_epoch, leader_epoch| {
            let query = EpochQuery {
                partition: ID,
                current_leader_epoch,
                leader_epoch,
            };
            let answer = rig.with(|partition, _| partition.epoch_end(&query));
            (answer.error, answer.leader_epoch, answer.end_offset)
        };
        assert_eq!(end(-1, 2), (ErrorCode::None, 2, 1));
        assert_eq!(end(-1, 3), (ErrorCode::None, 2, 1));
        assert_eq!(end(6, 4), (ErrorCode::None, 4, 3));
        assert_eq!(end(-1, 6), (ErrorCode::None, 6, 3));
        assert_eq!(end(-1, 7), (ErrorCode::None, -1, -1));
        assert_eq!(end(5, 4).0, ErrorCode::FencedLeaderEpoch);
        assert_eq!(end(7, 4).0, ErrorCode::UnknownLeaderEpoch);
    });
}

/// Several starts in a row, with and without a record in between, after clean stops and kills.
#[test]
fn the_leaders_epoch_is_known_before_its_first_record() {
    for stops in [true, false] {
        let mut simulation = Simulation::new(1);
        let mut hint = RecoveryHint::default();
        let mut log_end = 0;
        for epoch in 3..12 {
            let world = simulation.world();
            let rig = simulation.run(open(&world, hint, epoch));
            let read = |fetch_offset, last_fetched_epoch| {
                let part = ReadPart {
                    partition: ID,
                    fetch_offset,
                    max_bytes: 1 << 20,
                    current_leader_epoch: epoch,
                    last_fetched_epoch,
                };
                let isolation = Isolation::ReadUncommitted;
                let plan = rig.with(|partition, cache| {
                    partition.plan_read(cache, &part, isolation, 0, false)
                });
                match plan {
                    ReadPlan::Ready(result) => (result.error, result.diverging),
                    ReadPlan::Disk(_) => panic!("nothing is read"),
                }
            };
            assert_eq!(read(log_end, epoch), (ErrorCode::None, None));
            assert_eq!(read(log_end, epoch + 1).0, ErrorCode::OffsetOutOfRange);
            let query = EpochQuery {
                partition: ID,
                current_leader_epoch: epoch,
                leader_epoch: epoch,
            };
            let answer = rig.with(|partition, _| partition.epoch_end(&query));
            assert_eq!((answer.leader_epoch, answer.end_offset), (epoch, log_end));
            let older = EpochQuery {
                leader_epoch: epoch - 1,
                ..query
            };
            let answer = rig.with(|partition, _| partition.epoch_end(&older));
            // Every other epoch has a record; those without one have vanished.
            let known = match (epoch - 1) % 2 {
                _ if log_end == 0 => epoch - 1,
                1 => epoch - 2,
                _ => epoch - 1,
            };
            assert_eq!(
                (answer.leader_epoch, answer.end_offset),
                (known, log_end),
                "{epoch}"
            );
            let earliest = simulation.run(rig.list(OffsetTarget::Earliest));
            let first = if log_end == 0 { epoch } else { 4 };
            assert_eq!(earliest.leader_epoch, first, "{epoch}");
            if epoch % 2 == 0 {
                simulation.run(rig.must_append(&batch(&[b"x"])));
                log_end += 1;
            }
            simulation.run(rig.quiet());
            if stops {
                hint = clean(&simulation.run(rig.close()).expect("closes"));
            } else {
                simulation = simulation.kill();
            }
        }
    }
}

/// As a Kafka answers: what is in the segments counts, deleted or not.
#[test]
fn the_greatest_timestamp_is_that_of_a_deleted_record_too() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 0).await;
        for timestamp in [1900, 1500, 1700] {
            rig.must_append(&timed_batch(&[b"x"], timestamp)).await;
        }
        for log_start in [0, 1, 3] {
            rig.delete_records(log_start);
            let max = rig.list(OffsetTarget::MaxTimestamp).await;
            assert_eq!((max.timestamp_ms, max.offset), (1900, 0), "{log_start}");
        }
        let later = rig.list(OffsetTarget::Timestamp(1600)).await;
        assert_eq!((later.timestamp_ms, later.offset), (-1, -1));
    });
}

#[test]
fn reads_outside_the_log_and_with_the_wrong_epoch_are_refused() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 2).await;
        for _ in 0..3 {
            rig.must_append(&batch(&[b"x"])).await;
        }
        rig.delete_records(1);
        let read = |fetch_offset, current_leader_epoch, last_fetched_epoch| {
            let part = ReadPart {
                partition: ID,
                fetch_offset,
                max_bytes: 1 << 20,
                current_leader_epoch,
                last_fetched_epoch,
            };
            let plan = rig.with(|partition, cache| {
                partition.plan_read(cache, &part, Isolation::ReadCommitted, usize::MAX, true)
            });
            match plan {
                crate::partition::ReadPlan::Ready(result) => result,
                crate::partition::ReadPlan::Disk(_) => panic!("the tail is cached"),
            }
        };
        assert_eq!(read(0, -1, -1).error, ErrorCode::OffsetOutOfRange);
        assert_eq!(read(4, -1, -1).error, ErrorCode::OffsetOutOfRange);
        assert_eq!(read(1, 1, -1).error, ErrorCode::FencedLeaderEpoch);
        assert_eq!(read(1, 3, -1).error, ErrorCode::UnknownLeaderEpoch);
        let end = read(3, 2, 2);
        assert_eq!(
            (end.error, end.records.len(), end.high_watermark),
            (ErrorCode::None, 0, 3)
        );
        let all = read(1, 2, 2);
        assert_eq!(all.aborted, Some(Vec::new()));
        assert_eq!((all.log_start_offset, all.diverging), (1, None));
        assert!(!all.records.is_empty());
        assert_eq!(read(1, 2, 1).diverging, None);
        assert_eq!(
            read(2, 2, 1).diverging,
            Some((1, 1)),
            "epoch 1 ended where epoch 2 began"
        );
        assert_eq!(read(1, 2, 9).error, ErrorCode::OffsetOutOfRange);
    });
}

#[test]
fn deleting_records_moves_the_start_and_removes_whole_segments() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 0).await;
        for _ in 0..30 {
            rig.must_append(&batch(&[&[1; 5000]])).await;
        }
        let size = |rig: &Rig<SimulatedWorld>| rig.with(|p, _| p.describe().size_bytes);
        let before = size(&rig);
        for (offset, error, low) in [
            (31, ErrorCode::OffsetOutOfRange, -1),
            (-2, ErrorCode::OffsetOutOfRange, -1),
            (13, ErrorCode::None, 13),
            (5, ErrorCode::None, 13),
        ] {
            let result = rig.delete_records(offset);
            assert_eq!(
                (result.error, result.low_watermark),
                (error, low),
                "{offset}"
            );
        }
        rig.quiet().await;
        assert!(size(&rig) < before * 2 / 3);
        assert_eq!(rig.read(12, 100).await.error, ErrorCode::OffsetOutOfRange);
        assert_eq!(rig.read_all(13).await.len(), 17);
        assert_eq!(rig.delete_records(-1).low_watermark, 30);
        assert_eq!(rig.must_append(&batch(&[b"x"])).await, 30);
        let hint = clean(&rig.close().await.expect("closes"));
        let rig = open(world, hint, 0).await;
        assert_eq!(rig.read_all(30).await.len(), 1);
        let mut compacted = small_config(Durability::Disk);
        compacted.cleanup_policy = CleanupPolicy {
            delete: false,
            compact: true,
        };
        rig.with(|partition, _| partition.set_config(std::sync::Arc::new(compacted)));
        assert_eq!(rig.delete_records(31).error, ErrorCode::PolicyViolation);
    });
}

#[test]
fn append_time_replaces_the_producers_timestamps() {
    run(async |world| {
        let mut config = small_config(Durability::Disk);
        config.timestamp_kind = TimestampKind::LogAppendTime;
        let hint = RecoveryHint::default();
        let opened = Rig::open(world, Path::new(DIR), &config, hint, 0).await;
        let (rig, _) = opened.expect("opens");
        let sent = produced_batch((1, 0, 0), &[b"x"]);
        let first = rig.append(&sent, Acks::All).await;
        let again = rig.append(&sent, Acks::All).await;
        assert_eq!(first.log_append_time_ms, again.log_append_time_ms);
        let stored = rig.read_all(0).await;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].header.max_timestamp, first.log_append_time_ms);
        assert_eq!(
            stored[0].header.timestamp_type(),
            TimestampType::LogAppendTime
        );
    });
}

#[test]
fn a_batch_beyond_the_segments_size_is_refused_as_kafka_does() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 0).await;
        let result = rig.append(&batch(&[&[1; 25 << 10]]), Acks::All).await;
        assert_eq!(result.error, ErrorCode::RecordListTooLarge);
        let message = result.message.expect("says why").to_string();
        assert!(message.ends_with("exceeds the maximum configured segment size of 24576."));
    });
}

#[test]
fn what_needs_no_acknowledgement_waits_for_its_place_and_not_for_the_disk() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    let rig = simulation.run(open(&world, RecoveryHint::default(), 0));
    let now = Now {
        wall_ms: 0,
        mono_ns: 0,
    };
    let unanswered = |tag| {
        let part = AppendPart {
            partition: ID,
            batch: batch(&[b"x"]),
        };
        rig.change(|p, shared| {
            p.append(
                shared,
                part,
                Acks::None,
                now,
                chronik_terms::Waiter::Groups(tag),
            )
        })
    };
    let outcome = unanswered(900);
    assert!(
        matches!(outcome, crate::partition::AppendOutcome::Parked),
        "answered while there is no room, its client could send without end"
    );
    let all = rig.send(&batch(&[b"y"]), Acks::All);
    assert!(rig.result(all).is_none());
    simulation.run_until_idle();
    assert_eq!(rig.result(900).map(|result| result.base_offset), Some(0));
    assert_eq!(rig.result(all).map(|result| result.base_offset), Some(1));
    let crate::partition::AppendOutcome::Done(result) = unanswered(901) else {
        panic!("there is room, and the disk is not waited for")
    };
    assert_eq!((result.error, result.base_offset), (ErrorCode::None, 2));
}

#[test]
fn reads_estimate_what_is_available() {
    run(async |world| {
        let rig = open(world, RecoveryHint::default(), 0).await;
        let one = batch(&[&[1; 5000]]);
        for _ in 0..20 {
            rig.must_append(&one).await;
        }
        let available =
            |offset| rig.with(|p, _| p.bytes_available(offset, Isolation::ReadUncommitted));
        let size = one.bytes.len();
        for offset in 0..20 {
            let exact = size * (20 - offset as usize);
            let near = available(offset).abs_diff(exact) <= size;
            assert!(near, "{} instead of {exact} at {offset}", available(offset));
        }
        assert_eq!((available(20), available(-1), available(21)), (0, 0, 0));
    });
}
