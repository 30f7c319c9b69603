//! The wall clock is corrected while logs wait to grow old.

use chronik_catalog::ConfigResource;
use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, read};

const MINUTE_MS: u64 = 60_000;

/// What a reader of the log's first offset is told.
fn first_read(cluster: &mut Cluster, id: PartitionId) -> ErrorCode {
    match cluster.ask(cluster.owner(id), read(id, 0, None)) {
        Reply::Read(results) => results[0].error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ages_count_by_the_corrected_clock() {
    let simulation = Simulation::new(70);
    let today_ms = simulation.world().now_ms();
    // A machine without a battery: it believes that it is 1970, when the records were made.
    simulation.correct_clock(1000 - today_ms);
    let mut cluster = Cluster::start(simulation, 2);
    cluster.create("t", 40).expect("created");
    let topic = ConfigResource::Topic(Str::from("t"));
    cluster.set(topic, "retention.ms", "604800000");
    let ids: Vec<_> = (0..40).map(|index| cluster.id("t", index)).collect();
    for id in &ids {
        assert_eq!(cluster.append(*id, &[b"old"]).error, ErrorCode::None);
    }
    cluster.advance(30 * MINUTE_MS);
    assert_eq!(first_read(&mut cluster, ids[0]), ErrorCode::None);
    cluster.simulation.correct_clock(today_ms);
    // A look at the clock, and one at the logs.
    cluster.advance(20 * MINUTE_MS);
    for id in &ids {
        assert_eq!(first_read(&mut cluster, *id), ErrorCode::OffsetOutOfRange);
    }
}
