//! Transactions in logs that a Kafka has left: what compaction leaves of them, and what readers of
//! committed records are told.

use std::path::Path;

use chronik_io::World;
use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::{BatchBuilder, CheckedBatch, EndTransactionMarker, NewRecord};
use chronik_terms::topic_settings::TopicConfig;
use chronik_terms::{Isolation, ReadPart, ReadResult};

use super::compaction::{clean_up, config, keyed};
use super::rig::{ID, Rig, clean};
use crate::partition::ReadPlan;

const DIR: &str = "/data/orders-0";

async fn open(
    world: &SimulatedWorld,
    config: &TopicConfig,
    hint: RecoveryHint,
) -> Rig<SimulatedWorld> {
    let opened = Rig::open(world, Path::new(DIR), config, hint, 0).await;
    opened.expect("opens").0
}

async fn transactional(rig: &Rig<SimulatedWorld>, id: i64, sequence: i32, key: &[u8]) -> i64 {
    let mut builder = BatchBuilder::new(0)
        .producer(id, 0, sequence)
        .transactional();
    let record = NewRecord {
        timestamp: 5,
        key: Some(key),
        value: Some(b"in a transaction"),
        ..NewRecord::default()
    };
    builder.push(&record).expect("small");
    rig.must_append(&builder.build().expect("valid")).await
}

/// A marker. Kafka's have no sequence; an append wants the next one, and does not count it.
async fn end(rig: &Rig<SimulatedWorld>, id: i64, sequence: i32, commit: bool) -> i64 {
    let mut builder = BatchBuilder::new(0)
        .producer(id, 0, sequence)
        .transactional()
        .control();
    let marker = EndTransactionMarker {
        commit,
        coordinator_epoch: 0,
    };
    builder.push_control(5, &marker.to_record()).expect("small");
    rig.must_append(&builder.build().expect("valid")).await
}

async fn fill(rig: &Rig<SimulatedWorld>) {
    for n in 0..5 {
        keyed(rig, "filler", Some(&[b'f'; 6000]), 20 + n).await;
    }
    rig.quiet().await;
}

/// Writes the index of aborted transactions beside the first segment, as Kafka would have.
async fn write_index(world: &SimulatedWorld, entries: &[[i64; 4]]) {
    let entry = |fields: &[i64; 4]| {
        let fields = fields.iter().flat_map(|field| field.to_be_bytes());
        [0, 0].into_iter().chain(fields).collect::<Vec<u8>>()
    };
    let bytes: Vec<u8> = entries.iter().flat_map(entry).collect();
    let written = world.write_file_atomic(&index_path(), &bytes).await;
    written.expect("written");
}

fn index_path() -> std::path::PathBuf {
    Path::new(DIR).join(format!("{:020}.txnindex", 0))
}

async fn read_committed(rig: &Rig<SimulatedWorld>, fetch_offset: i64, max: usize) -> ReadResult {
    let part = ReadPart {
        partition: ID,
        fetch_offset,
        max_bytes: max,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let committed = Isolation::ReadCommitted;
    let mut plan = rig.with(|p, cache| p.plan_read(cache, &part, committed, usize::MAX, true));
    loop {
        match plan {
            ReadPlan::Ready(result) => {
                assert_eq!(result.error, ErrorCode::None);
                return result;
            }
            ReadPlan::Disk(job) => {
                let done = job.perform().await;
                plan = rig.with(|partition, cache| partition.complete_read(cache, done));
            }
        }
    }
}

/// The batches with records in them, read from disk.
async fn left(rig: &Rig<SimulatedWorld>) -> Vec<CheckedBatch> {
    rig.with(|_, cache| cache.forget(ID));
    let all = rig.read_all(0).await.into_iter();
    all.filter(|batch| batch.header.record_count > 0).collect()
}

fn at(batches: &[CheckedBatch], offset: i64) -> Option<&CheckedBatch> {
    let mut found = batches.iter();
    found.find(|batch| batch.header.base_offset == offset)
}

#[test]
fn records_of_aborted_transactions_go_and_markers_follow() {
    let mut simulation = Simulation::new(3);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            min_cleanable_dirty_ratio: 0.0,
            delete_retention_ms: 0,
            ..config()
        };
        let rig = open(&world, &config, RecoveryHint::default()).await;
        keyed(&rig, "kept", Some(b"before"), 4).await;
        assert_eq!(transactional(&rig, 7, 0, b"kept").await, 1);
        assert_eq!(transactional(&rig, 8, 0, b"committed").await, 2);
        assert_eq!(end(&rig, 7, 1, false).await, 3);
        assert_eq!(end(&rig, 8, 1, true).await, 4);
        assert_eq!(transactional(&rig, 7, 1, b"later").await, 5);
        assert_eq!(end(&rig, 7, 2, true).await, 6);
        fill(&rig).await;
        let hint = clean(&rig.close().await.expect("closes"));
        write_index(&world, &[[7, 1, 3, 2]]).await;

        let rig = open(&world, &config, hint).await;
        let told = read_committed(&rig, 0, 1 << 20).await.aborted;
        assert_eq!(told, Some(vec![(7, 1)]));
        clean_up(&world, &rig).await;
        let batches = left(&rig).await;
        assert!(
            at(&batches, 0).is_some(),
            "what an aborted record would have replaced"
        );
        assert!(at(&batches, 1).is_none(), "an aborted record");
        assert!(at(&batches, 2).is_some() && at(&batches, 5).is_some());
        let marker = at(&batches, 3).expect("it ended what was there a moment ago");
        assert_eq!(marker.header.delete_horizon_ms(), None);
        let told = read_committed(&rig, 0, 1 << 20).await.aborted;
        assert_eq!(told, Some(vec![(7, 1)]), "as long as its marker counts");
        let index = world.read_file(&index_path(), 1000).await;
        assert_eq!(index.expect("it is there").len(), 34);

        fill(&rig).await;
        clean_up(&world, &rig).await;
        let batches = left(&rig).await;
        let marker = at(&batches, 3).expect("it waits for its time");
        assert!(marker.header.delete_horizon_ms().is_some());
        // Its producer has committed since: who took this for the end of nothing would drop that.
        let told = read_committed(&rig, 0, 1 << 20).await.aborted;
        assert_eq!(told, Some(vec![]));
        assert!(world.read_file(&index_path(), 1000).await.is_err());

        fill(&rig).await;
        clean_up(&world, &rig).await;
        let batches = left(&rig).await;
        assert!(
            at(&batches, 3).is_none(),
            "the marker of a transaction that is gone"
        );
        for committed in [4, 6] {
            let marker = at(&batches, committed).expect("its records are there");
            assert_eq!(marker.header.delete_horizon_ms(), None);
        }
        let hint = clean(&rig.close().await.expect("closes"));
        let rig = open(&world, &config, hint).await;
        let told = read_committed(&rig, 0, 1 << 20).await.aborted;
        assert_eq!(told, Some(vec![]));
    });
}

#[test]
fn readers_learn_of_the_aborted_transactions_in_what_they_read() {
    let mut simulation = Simulation::new(4);
    let world = simulation.world();
    simulation.run(async {
        let config = config();
        let rig = open(&world, &config, RecoveryHint::default()).await;
        let mut entries = Vec::new();
        for round in 0..4_i32 {
            let first = transactional(&rig, 7, round, b"a").await;
            let last = end(&rig, 7, round + 1, round % 2 == 0).await;
            if round % 2 == 1 {
                entries.push([7, first, last, last]);
            }
        }
        let log_end = rig.log_end();
        let hint = clean(&rig.close().await.expect("closes"));
        // One that lies behind the log's end is of a log that was cut.
        entries.push([9, log_end, log_end + 1, log_end]);
        write_index(&world, &entries).await;
        let rig = open(&world, &config, hint).await;
        let aborted = async |from, max| read_committed(&rig, from, max).await.aborted;
        assert_eq!(aborted(0, 1 << 20).await, Some(vec![(7, 2), (7, 6)]));
        // A batch at a time.
        assert_eq!(aborted(0, 1).await, Some(vec![]));
        assert_eq!(aborted(2, 1).await, Some(vec![(7, 2)]));
        assert_eq!(aborted(3, 1).await, Some(vec![(7, 2)]));
        assert_eq!(aborted(4, 1).await, Some(vec![]));
        assert_eq!(aborted(4, 1 << 20).await, Some(vec![(7, 6)]));
        let uncommitted = rig.read(0, 1 << 20).await;
        assert_eq!(uncommitted.aborted, None);
    });
}
