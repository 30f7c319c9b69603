//! The files: exact bytes, rolls, indexes, and mending what is missing or garbled.

use std::path::Path;

use chronik_io::World;
use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_log::LogError;
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::CheckedBatch;
use chronik_terms::topic_settings::Durability;

use super::rig::{Rig, batch, clean, produced_batch, small_config, timed_batch};
use crate::partition::Partition;

const DIR: &str = "/data/orders-0";

fn first(extension: &str) -> String {
    format!("{:020}{extension}", 0)
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

async fn open(world: &SimulatedWorld, hint: RecoveryHint) -> Rig<SimulatedWorld> {
    let config = small_config(Durability::Disk);
    Rig::open(world, Path::new(DIR), &config, hint, 3)
        .await
        .expect("opens")
        .0
}

/// About 60 batches over some segments, closed cleanly.
async fn fill(world: &SimulatedWorld) -> (Vec<CheckedBatch>, RecoveryHint) {
    let rig = open(world, RecoveryHint::default()).await;
    let mut appended = Vec::new();
    let mut sequence = 0;
    for n in 0..60_usize {
        let value = vec![n as u8; 200 + 37 * n % 1900];
        let sent = produced_batch((4, 0, sequence), &[&value, b"second"]);
        sequence += 2;
        let offset = rig.must_append(&sent).await;
        appended.push(sent.with_offsets(offset, 3));
    }
    let hint = clean(&rig.close().await.expect("closes"));
    (appended, hint)
}

#[test]
fn the_log_holds_the_batches_as_sent_but_for_offset_and_epoch() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    simulation.run(async {
        let (appended, hint) = fill(&world).await;
        let entries = world.list_dir(Path::new(DIR)).await.expect("lists");
        let mut bytes = Vec::new();
        for entry in &entries {
            let name = entry.name.to_str().expect("UTF-8");
            if name.ends_with(".log") {
                assert!(
                    entry.len <= 24 << 10,
                    "{name} is cut and below segment.bytes"
                );
                bytes.extend_from_slice(&world.read_file(&path(name), 1 << 20).await.expect("ok"));
            }
            assert!(!name.ends_with(".tmp"), "{name}");
        }
        let expected: Vec<u8> = appended
            .iter()
            .flat_map(|batch| batch.bytes.to_vec())
            .collect();
        assert!(bytes == expected);
        let rig = open(&world, hint).await;
        let read = rig.read_all(0).await;
        assert_eq!(read, appended);
        for batch in &appended {
            // Any offset inside a batch finds the batch.
            let at = batch.header.last_offset();
            let found = rig.read(at, 1).await.records.into_bytes();
            assert!(found == batch.bytes, "{at}");
        }
        assert!(rig.recovery_point().is_none(), "nothing changed");
    });
}

#[test]
fn missing_and_garbled_files_are_rebuilt_to_the_same_bytes() {
    let kinds = [
        ".index",
        ".timeindex",
        ".snapshot",
        "leader-epoch-checkpoint",
    ];
    for kind in kinds {
        for garble in [false, true] {
            let mut simulation = Simulation::new(2);
            let world = simulation.world();
            simulation.run(async {
                let (appended, hint) = fill(&world).await;
                let mut damaged = Vec::new();
                for entry in world.list_dir(Path::new(DIR)).await.expect("lists") {
                    let name = entry.name.into_string().expect("UTF-8");
                    if !name.ends_with(kind) {
                        continue;
                    }
                    let good = world.read_file(&path(&name), 1 << 20).await.expect("reads");
                    if garble {
                        let junk = b"\xff\xffgarbage, and no multiple of anything";
                        world
                            .write_file_atomic(&path(&name), junk)
                            .await
                            .expect("writes");
                    } else {
                        world.remove_file(&path(&name)).await.expect("removes");
                    }
                    damaged.push((name, good));
                }
                assert!(!damaged.is_empty());
                let rig = open(&world, hint).await;
                assert_eq!(rig.read_all(0).await, appended);
                // The producer's state is whole again: its next batch follows, its last repeats.
                let next = produced_batch((4, 0, 120), &[b"next"]);
                assert_eq!(rig.must_append(&next).await, 120);
                assert_eq!(rig.must_append(&next).await, 120);
                let epochs = rig.with(|partition, _| partition.epochs.to_bytes());
                assert_eq!(epochs, b"0\n1\n3 0\n");
                rig.close().await.expect("closes");
                let active = world
                    .list_dir(Path::new(DIR))
                    .await
                    .expect("lists")
                    .into_iter()
                    .filter_map(|entry| entry.name.into_string().ok())
                    .filter(|name| name.ends_with(".log"))
                    .max()
                    .expect("a segment")
                    .replace(".log", "");
                for (name, good) in damaged {
                    let changes = name.starts_with(&active) || name.ends_with(".snapshot");
                    if !changes {
                        let now = world
                            .read_file(&path(&name), 1 << 20)
                            .await
                            .expect("is back");
                        assert!(now == good, "{name}");
                    }
                }
            });
        }
    }
}

#[test]
fn a_sealed_segments_index_that_lies_is_noticed_by_the_read_and_rebuilt() {
    let mut simulation = Simulation::new(4);
    let world = simulation.world();
    simulation.run(async {
        let (appended, hint) = fill(&world).await;
        let index = path(&first(".index"));
        let good = world.read_file(&index, 1 << 20).await.expect("reads");
        let mut lie = good.to_vec();
        for entry in lie.chunks_exact_mut(8) {
            entry[7] = entry[7].wrapping_add(13);
        }
        world.write_file_atomic(&index, &lie).await.expect("writes");
        let rig = open(&world, hint).await;
        // From the segment's end, for a read brings the rest of the segment with it.
        let end = rig.with(|partition, _| partition.sealed[0].next_offset);
        let inside = appended
            .iter()
            .filter(|batch| batch.header.next_offset() <= end);
        for batch in inside.rev() {
            let found = rig
                .read(batch.header.base_offset, 1)
                .await
                .records
                .into_bytes();
            assert!(found == batch.bytes, "{}", batch.header.base_offset);
        }
        assert!(world.read_file(&index, 1 << 20).await.expect("reads") == good);
    });
}

/// Not even that of the last segment, which a clean stop has left: nothing but batches says where the
/// log ends.
#[test]
fn a_flipped_bit_in_an_index_does_not_move_the_logs_end() {
    let mut simulation = Simulation::new(21);
    let world = simulation.world();
    simulation.run(async {
        let (appended, hint) = fill(&world).await;
        let log_end = hint.recovery_point;
        let entries = world.list_dir(Path::new(DIR)).await.expect("lists");
        let names = entries.iter().filter_map(|entry| entry.name.to_str());
        let last = names.filter(|name| name.ends_with(".index")).max();
        let index = path(last.expect("an index"));
        let sound = world.read_file(&index, 1 << 20).await.expect("there");
        assert!(sound.len() >= 8, "the last segment has entries");
        for bit in 0..64 {
            let mut flipped = sound.to_vec();
            let at = sound.len() - 8 + bit / 8;
            flipped[at] ^= 1 << (bit % 8);
            world
                .write_file_atomic(&index, &flipped)
                .await
                .expect("written");
            let rig = open(&world, hint).await;
            assert_eq!(rig.log_end(), log_end, "bit {bit}");
            assert_eq!(rig.read_all(0).await, appended, "bit {bit}");
        }
    });
}

#[test]
fn a_damaged_batch_in_a_trusted_segment_is_refused_and_its_neighbours_are_not() {
    let mut simulation = Simulation::new(16);
    let world = simulation.world();
    simulation.run(async {
        let (appended, hint) = fill(&world).await;
        let log = path(&first(".log"));
        let mut bytes = world
            .read_file(&log, 1 << 20)
            .await
            .expect("reads")
            .to_vec();
        let at: usize = appended.iter().take(7).map(|batch| batch.bytes.len()).sum();
        bytes[at + 100] ^= 1;
        world.write_file_atomic(&log, &bytes).await.expect("writes");
        let rig = open(&world, hint).await;
        for batch in appended.iter().rev().chain(&appended) {
            let offset = batch.header.base_offset;
            let result = rig.read(offset, 1).await;
            if offset == appended[7].header.base_offset {
                assert_eq!(result.error, ErrorCode::CorruptMessage);
            } else if result.error == ErrorCode::None {
                assert!(result.records.into_bytes() == batch.bytes, "{offset}");
            } else {
                // Between the damage and the next segment nothing says where a batch begins.
                let end = rig.with(|partition, _| partition.sealed[0].next_offset);
                assert!(
                    (appended[7].header.base_offset..end).contains(&offset),
                    "{offset}"
                );
                assert_eq!(result.error, ErrorCode::CorruptMessage);
            }
        }
    });
}

#[test]
fn garbage_behind_the_last_batch_is_cut_and_never_comes_back() {
    let mut simulation = Simulation::new(5);
    let world = simulation.world();
    simulation.run(async {
        let rig = open(&world, RecoveryHint::default()).await;
        let kept = produced_batch((4, 0, 0), &[b"kept"]);
        rig.must_append(&kept).await;
        rig.close().await.expect("closes");
        // A whole batch with the right offset, then half of one.
        let log = path(&first(".log"));
        let mut bytes = world
            .read_file(&log, 1 << 20)
            .await
            .expect("reads")
            .to_vec();
        let whole = batch(&[b"written, never answered"]).with_offsets(1, 3);
        bytes.extend_from_slice(&whole.bytes);
        let valid = bytes.len() as u64;
        let torn = batch(&[&[9; 3000]]).with_offsets(2, 3);
        bytes.extend_from_slice(&torn.bytes[..1000]);
        world.write_file_atomic(&log, &bytes).await.expect("writes");
        let config = small_config(Durability::Disk);
        let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 4).await;
        let (rig, report) = opened.expect("opens");
        assert_eq!((report.log_end, report.cut_bytes), (2, 1000));
        assert_eq!(report.scanned_bytes, valid);
        let next = batch(&[b"n"]);
        assert_eq!(rig.must_append(&next).await, 2);
        let end = valid as usize + next.bytes.len();
        rig.quiet().await;
        let file = rig.file(&first(".log")).await;
        assert!(
            file[end..].iter().all(|byte| *byte == 0),
            "zeros follow, nothing stale"
        );
    });
}

#[test]
fn a_log_of_the_time_before_kafka_0_11_is_refused_and_not_touched() {
    // Offset 0, 33 bytes, CRC-32, magic 0, attributes 0, key null, value "hello, legacy world".
    let mut message = [0_u8; 8].to_vec();
    message.extend_from_slice(&33_i32.to_be_bytes());
    message.extend_from_slice(&0x52f0_a530_u32.to_be_bytes());
    message.extend_from_slice(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 19]);
    message.extend_from_slice(b"hello, legacy world");
    let mut simulation = Simulation::new(13);
    let world = simulation.world();
    simulation.run(async {
        drop(open(&world, RecoveryHint::default()).await);
        let log = path(&first(".log"));
        world
            .write_file_atomic(&log, &message)
            .await
            .expect("writes");
        let config = small_config(Durability::Disk);
        let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0).await;
        let error = opened.err().expect("refused").to_string();
        assert!(error.contains("before Kafka 0.11 at 0"), "{error}");
        assert!(world.read_file(&log, 1 << 20).await.expect("reads") == message);
    });
}

#[test]
fn another_topics_directory_is_refused() {
    let mut simulation = Simulation::new(6);
    let world = simulation.world();
    simulation.run(async {
        fill(&world).await;
        let metadata = world
            .read_file(&path("partition.metadata"), 100)
            .await
            .expect("reads");
        assert_eq!(
            &metadata[..],
            b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAEjRWeA"
        );
        let other = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
        world
            .write_file_atomic(&path("partition.metadata"), other)
            .await
            .expect("writes");
        let config = small_config(Durability::Disk);
        let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0).await;
        assert!(matches!(
            opened.err(),
            Some(LogError::TopicIdMismatch { .. })
        ));
    });
}

#[test]
fn leftovers_of_unfinished_changes_are_settled() {
    let mut simulation = Simulation::new(7);
    let world = simulation.world();
    simulation.run(async {
        let (appended, hint) = fill(&world).await;
        let log = world
            .read_file(&path(&first(".log")), 1 << 20)
            .await
            .expect("reads");
        // A finished replacement of the first segment, a half one, and things to be removed.
        world
            .write_file_atomic(&path(&first(".log.swap")), &log)
            .await
            .expect("writes");
        let half = format!("{:020}.log.cleaned", 999_999);
        let gone = format!("{:020}.log.deleted", 17);
        for name in [half.as_str(), gone.as_str(), "leader-epoch-checkpoint.tmp"] {
            world
                .write_file_atomic(&path(name), b"x")
                .await
                .expect("writes");
        }
        let rig = open(&world, hint).await;
        assert_eq!(rig.read_all(0).await, appended);
        for entry in world.list_dir(Path::new(DIR)).await.expect("lists") {
            let name = entry.name.into_string().expect("UTF-8");
            let left = [".swap", ".cleaned", ".deleted", ".tmp"]
                .iter()
                .any(|s| name.ends_with(s));
            assert!(!left, "{name}");
        }
    });
}

#[test]
fn clean_stops_leave_one_snapshot_besides_those_of_the_segments() {
    let mut simulation = Simulation::new(10);
    let world = simulation.world();
    simulation.run(async {
        let mut hint = RecoveryHint::default();
        for _ in 0..4 {
            let rig = open(&world, hint).await;
            rig.must_append(&batch(&[b"x"])).await;
            hint = clean(&rig.close().await.expect("closes"));
        }
        drop(open(&world, hint).await);
        let names = world
            .list_dir(Path::new(DIR))
            .await
            .expect("lists")
            .into_iter();
        let names = names.filter_map(|entry| entry.name.into_string().ok());
        let snapshots: Vec<String> = names.filter(|name| name.ends_with(".snapshot")).collect();
        assert_eq!(snapshots, [format!("{:020}.snapshot", 4)]);
    });
}

#[test]
fn segments_roll_by_the_age_of_their_first_record() {
    let mut simulation = Simulation::new(8);
    let world = simulation.world();
    simulation.run(async {
        let mut config = small_config(Durability::Disk);
        config.segment_ms = 1000;
        let hint = RecoveryHint::default();
        let opened = Rig::open(&world, Path::new(DIR), &config, hint, 0).await;
        let (rig, _) = opened.expect("opens");
        for (timestamp, base) in [(5000, 0), (6000, 1), (6001, 2), (7000, 3), (7002, 4)] {
            assert_eq!(
                rig.must_append(&timed_batch(&[b"x"], timestamp)).await,
                base
            );
        }
        rig.quiet().await;
        let bases: Vec<i64> = rig.with(|partition, _| {
            partition
                .sealed
                .iter()
                .map(|segment| segment.base_offset)
                .collect()
        });
        assert_eq!(
            bases,
            [0, 2],
            "6001 and 7002 are more than a second behind the first"
        );
        assert_eq!(rig.recovery_point(), Some(4));
    });
}

#[test]
fn deletion_renames_first_and_forgives_what_is_missing() {
    let mut simulation = Simulation::new(9);
    let world = simulation.world();
    simulation.run(async {
        fill(&world).await;
        for _ in 0..2 {
            Partition::delete(&world, Path::new(DIR), 77)
                .await
                .expect("deletes");
            assert!(
                world
                    .list_dir(Path::new("/data"))
                    .await
                    .expect("lists")
                    .is_empty()
            );
        }
    });
}
