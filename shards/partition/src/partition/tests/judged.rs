//! What is on disk is judged by what it is, never by the topic's settings of today.

use std::path::Path;

use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_io::{File, OpenMode, World};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::{BatchHeader, CheckedBatch, Compression, RecordLimits};
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TopicConfig};
use chronik_terms::{Isolation, OffsetTarget, ReadPart};

use super::compaction::{clean_up, keyed};
use super::rig::{ID, Rig, batch, clean, small_config, timed_batch};
use crate::partition::ReadPlan;

const DIR: &str = "/data/orders-0";

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

async fn open(world: &SimulatedWorld, config: &TopicConfig) -> (Rig<SimulatedWorld>, bool) {
    let hint = RecoveryHint::default();
    let opened = Rig::open(world, Path::new(DIR), config, hint, 3).await;
    let (rig, report) = opened.expect("opens");
    (rig, report.dropped_segments > 0 || report.cut_bytes > 0)
}

/// Names of the segments' logs, in order.
async fn logs(world: &SimulatedWorld) -> Vec<String> {
    let entries = world.list_dir(Path::new(DIR)).await.expect("lists");
    let names = entries.iter().filter_map(|entry| entry.name.to_str());
    let mut names: Vec<_> = names
        .filter(|name| name.ends_with(".log"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// As Kafka's cleaner leaves a segment: its last batch is gone, and the next one begins where it did.
async fn take_last_batch(world: &SimulatedWorld, name: &str) -> i64 {
    let bytes = world.read_file(&path(name), 1 << 20).await.expect("there");
    let mut at = 0;
    let mut last = 0;
    while let Ok(header) = BatchHeader::peek(&bytes[at..]) {
        last = at;
        at += header.size_bytes();
        if at == bytes.len() {
            break;
        }
    }
    let gone = BatchHeader::peek(&bytes[last..]).expect("a batch");
    let file = world.open_file(&path(name), OpenMode::ReadWrite).await;
    let file = file.expect("opens");
    file.set_len(last as u64).await.expect("cut");
    file.sync_data().await.expect("synced");
    gone.base_offset
}

/// A topic that a Kafka has compacted, and that was killed; its policy is another one since.
#[test]
fn gaps_that_compaction_left_are_kept_whatever_the_policy_is_by_now() {
    for (with_indexes, policy) in [(true, "delete"), (false, "delete"), (true, "compact")] {
        let mut simulation = Simulation::new(1);
        let world = simulation.world();
        simulation.run(async {
            let mut config = small_config(Durability::Disk);
            config.cleanup_policy = CleanupPolicy {
                compact: policy == "compact",
                delete: policy == "delete",
            };
            let (rig, _) = open(&world, &config).await;
            for _ in 0..60 {
                rig.must_append(&batch(&[&[7; 1500]])).await;
            }
            clean(&rig.close().await.expect("closes"));
            let names = logs(&world).await;
            assert!(names.len() > 3, "{names:?}");
            let mut gone = Vec::new();
            for name in &names[..names.len() - 1] {
                gone.push(take_last_batch(&world, name).await);
                if !with_indexes {
                    for kind in ["index", "timeindex"] {
                        let file = path(name).with_extension(kind);
                        world.remove_file(&file).await.expect("removed");
                    }
                }
            }
            let (rig, took) = open(&world, &config).await;
            assert!(!took, "nothing is cut or dropped");
            let found = rig.read_all(0).await;
            let offsets: Vec<i64> = found.iter().map(|b| b.header.base_offset).collect();
            let expected: Vec<i64> = (0..60).filter(|offset| !gone.contains(offset)).collect();
            assert_eq!(offsets, expected);
            assert_eq!(rig.log_end(), 60);
        });
    }
}

/// One batch in the middle or at the end of a log is damaged and the recovery point is lost, with it the
/// word that the segment had been whole: its snapshot says so, and nothing else is lost.
#[test]
fn a_tear_in_an_older_segment_costs_its_own_records_and_no_others() {
    for (victim, at_end) in (0..3).flat_map(|victim| [(victim, false), (victim, true)]) {
        let mut simulation = Simulation::new(3);
        let world = simulation.world();
        let config = small_config(Durability::Disk);
        let name = simulation.run(async {
            let (rig, _) = open(&world, &config).await;
            for _ in 0..60 {
                rig.must_append(&batch(&[&[7; 1500]])).await;
            }
            let names = logs(&world).await;
            assert!(names.len() > 3, "{names:?}");
            // So that all but the last are finished.
            clean(&rig.close().await.expect("closes"));
            names[victim].clone()
        });
        let mut simulation = simulation.kill();
        let mut lost = 0;
        let found = simulation.damage(&path(&name), |bytes| lost = spoil(bytes, at_end));
        assert!(found);
        for _ in 0..2 {
            let world = simulation.world();
            let config = config.clone();
            simulation.run(async move {
                let (rig, _) = open(&world, &config).await;
                let context = format!("segment {victim}, at its end: {at_end}, {lost} is lost");
                assert_eq!(rig.log_end(), 60, "{context}");
                for offset in (0..60).filter(|offset| *offset != lost) {
                    let read = rig.read(offset, 1).await;
                    assert_eq!(read.error, ErrorCode::None, "{context}: {offset}");
                    let (found, _) =
                        CheckedBatch::parse_first(read.records.into_bytes()).expect("whole");
                    assert_eq!(found.header.base_offset, offset, "{context}");
                }
            });
            simulation = simulation.kill();
        }
    }
}

/// Changes a byte of a segment's second batch, or of its last; gives its offset.
fn spoil(bytes: &mut [u8], at_end: bool) -> i64 {
    let (mut at, mut number, mut found) = (0, 0, (0, 0));
    while at < bytes.len()
        && let Ok(header) = BatchHeader::peek(&bytes[at..])
    {
        if at_end || number <= 1 {
            found = (at, header.base_offset);
        }
        number += 1;
        at += header.size_bytes();
    }
    bytes[found.0 + 100] ^= 0x55;
    found.1
}

fn long(bytes: usize, timestamp: i64) -> CheckedBatch {
    timed_batch(&[&vec![b'l'; bytes]], timestamp)
}

/// Longer than any setting allows by now, and than what is held to be checked; the last one, too.
#[test]
fn long_batches_outlive_kills_and_settings_that_became_smaller() {
    let mut simulation = Simulation::new(2);
    let world = simulation.world();
    let sizes = [10, 5 << 20, 100, 101 << 20, 3 << 20, 20, 9 << 20];
    simulation.run(async {
        let config = TopicConfig {
            segment_bytes: i32::MAX.unsigned_abs(),
            max_message_bytes: i32::MAX.unsigned_abs(),
            ..small_config(Durability::Disk)
        };
        let (rig, _) = open(&world, &config).await;
        for (n, bytes) in sizes.into_iter().enumerate() {
            rig.must_append(&long(bytes, 1000 + n as i64)).await;
        }
        let read = rig.read(3, 1 << 20).await;
        assert_eq!(read.error, ErrorCode::None);
        assert!(read.records.len() > 101 << 20, "readable at once");
    });
    let mut simulation = simulation.kill();
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            max_message_bytes: 1000,
            ..small_config(Durability::Disk)
        };
        let (rig, took) = open(&world, &config).await;
        assert!(!took, "nothing is cut or dropped");
        assert_eq!(rig.log_end(), 7);
        for (n, bytes) in (0..).zip(sizes) {
            let read = rig.read(n, 1 << 10).await;
            assert_eq!(read.error, ErrorCode::None, "{n}");
            let (first, _) = CheckedBatch::parse_first(read.records.into_bytes()).expect("whole");
            assert_eq!(first.header.base_offset, n);
            assert!(first.bytes.len() > bytes);
            let found = rig.list(OffsetTarget::Timestamp(1000 + n)).await;
            assert_eq!((found.error, found.offset), (ErrorCode::None, n));
            // What is not given, for the reader takes no more, is no error either.
            if bytes > 1 << 20 {
                let read = rig.read_with(n, 1 << 10, false).await;
                assert_eq!((read.error, read.records.len()), (ErrorCode::None, 0));
            }
        }
        let end = rig.must_append(&batch(&[b"goes on"])).await;
        assert_eq!(end, 7);
    });
}

/// A length field alone makes nobody hold that many bytes, and neighbours stay readable.
#[test]
fn a_long_batch_that_is_damaged_is_refused_and_its_neighbours_are_not() {
    let mut simulation = Simulation::new(3);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            segment_bytes: 64 << 20,
            ..small_config(Durability::Disk)
        };
        let (rig, _) = open(&world, &config).await;
        rig.must_append(&batch(&[b"before"])).await;
        let first = batch(&[b"before"]).bytes.len() as u64;
        rig.must_append(&long(6 << 20, 2000)).await;
        rig.must_append(&batch(&[b"after"])).await;
        let hint = clean(&rig.close().await.expect("closes"));
        let log = path(&logs(&world).await[0]);
        let mut bytes = world
            .read_file(&log, 64 << 20)
            .await
            .expect("there")
            .to_vec();
        bytes[usize::try_from(first).expect("small") + (5 << 20)] ^= 1;
        world
            .write_file_atomic(&log, &bytes)
            .await
            .expect("written");
        let opened = Rig::open(&world, Path::new(DIR), &config, hint, 4).await;
        let (rig, _) = opened.expect("opens");
        for (offset, error) in [
            (0, ErrorCode::None),
            (1, ErrorCode::CorruptMessage),
            (2, ErrorCode::None),
        ] {
            assert_eq!(rig.read(offset, 1 << 10).await.error, error, "{offset}");
        }
    });
}

/// A batch that unfolds to far more than it is can be searched by time, and the first record counts.
#[test]
fn batches_that_unfold_are_searched_by_time() {
    let mut simulation = Simulation::new(4);
    let world = simulation.world();
    simulation.run(async {
        let (rig, _) = open(&world, &small_config(Durability::Disk)).await;
        for (n, codec) in (0..).zip([
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ]) {
            let plain = timed_batch(&[&vec![0; 3 << 20], &[1; 100], &[2; 100]], 1000 * (n + 1));
            let limits = RecordLimits::default();
            let folded = plain
                .recompressed(codec, None, &limits)
                .expect("compresses");
            // Snappy folds least; all fit into a segment.
            if folded.bytes.len() < 20 << 10 {
                rig.must_append(&folded).await;
                let at = rig.log_end() - 3;
                for record in 0..3 {
                    let wanted = 1000 * (n + 1) + record;
                    let found = rig.list(OffsetTarget::Timestamp(wanted)).await;
                    assert_eq!((found.timestamp_ms, found.offset), (wanted, at + record));
                }
            }
        }
        assert!(rig.log_end() >= 6, "most codecs were tried");
    });
}

/// What a read has opened under the names of segments that others have taken is not kept for these,
/// also where its offset was deleted meanwhile and it is not done again.
#[test]
fn a_read_that_was_overtaken_leaves_nothing_of_the_old_segments() {
    let mut simulation = Simulation::new(5);
    let world = simulation.world();
    simulation.run(async {
        let mut config = super::compaction::config();
        config.cleanup_policy.delete = true;
        config.retention_ms = None;
        let (rig, _) = open(&world, &config).await;
        for n in 0..100 {
            let key = ["a", "b", "c"][n % 3];
            keyed(&rig, key, Some(&[7; 900]), 1000).await;
        }
        let hint = clean(&rig.close().await.expect("closes"));
        let opened = Rig::open(&world, Path::new(DIR), &config, hint, 4).await;
        let (rig, _) = opened.expect("opens");
        let part = ReadPart {
            partition: ID,
            fetch_offset: 1,
            max_bytes: 1000,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        let isolation = Isolation::ReadUncommitted;
        let plan =
            rig.with(|partition, cache| partition.plan_read(cache, &part, isolation, 1000, true));
        let ReadPlan::Disk(job) = plan else {
            panic!("nothing is cached");
        };
        let done = job.perform().await;
        let read_in = done.index.as_ref().map(|(base, _)| *base);
        assert_eq!(read_in, Some(0), "an index was read");
        clean_up(&world, &rig).await;
        assert!(rig.cleaned().is_some(), "segments were replaced");
        rig.delete_records(2);
        let plan = rig.with(|partition, cache| partition.complete_read(cache, done));
        let ReadPlan::Ready(result) = plan else {
            panic!("deleted records are not read again");
        };
        assert_eq!(result.error, ErrorCode::OffsetOutOfRange);
        let kept = rig.with(|_, cache| cache.index(ID, 0));
        assert!(kept.is_none(), "the index of a segment that is gone");
        let found = rig.read_all(2).await;
        rig.with(|_, cache| cache.forget(ID));
        assert_eq!(found, rig.read_all(2).await);
        assert!(found.len() < 99, "{} batches", found.len());
        // Nor is there more than in the files that have these names now.
        let hint = clean(&rig.close().await.expect("closes"));
        let opened = Rig::open(&world, Path::new(DIR), &config, hint, 5).await;
        let (rig, _) = opened.expect("opens");
        assert_eq!(found, rig.read_all(2).await);
    });
}
