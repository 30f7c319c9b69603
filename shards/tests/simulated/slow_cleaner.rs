//! A cleaner that may move next to nothing rests for days: neither the removal of a topic nor a stop
//! waits for it.

use chronik_catalog::ConfigResource;
use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::Str;

use crate::cluster::{Cluster, options};

/// Longest that a removal or a stop may take on the simulated machine, ns. The cleaner would rest for
/// hundred times as long.
const TAKES_NS_MAX: u64 = 60_000_000_000;

/// A cluster whose cleaner has begun to compact `k` and rests.
fn cleaning(seed: u64) -> Cluster {
    let mut options = options();
    let rate = Str::from("log.cleaner.io.max.bytes.per.second");
    options.static_configs.insert(rate, Str::from("100"));
    let (simulation, started) = Cluster::try_start_with(Simulation::new(seed), 2, options);
    let mut cluster = Cluster {
        simulation,
        handles: started.expect("starts"),
    };
    cluster.create("k", 1).expect("created");
    let topic = ConfigResource::Topic(Str::from("k"));
    for (name, value) in [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0"),
    ] {
        cluster.set(topic.clone(), name, value);
    }
    let id = cluster.id("k", 0);
    let value = vec![7; 600_000];
    for _ in 0..4 {
        cluster.append(id, &[&value]);
    }
    cluster.advance(60_000);
    cluster
}

#[test]
fn a_topic_is_removed_while_its_cleaner_rests() {
    let mut cluster = cleaning(1);
    let world = cluster.simulation.world();
    let before_ns = world.monotonic_ns();
    cluster.delete("k").expect("deleted");
    cluster.create("other", 3).expect("created");
    let took_ns = world.monotonic_ns() - before_ns;
    assert!(took_ns < TAKES_NS_MAX, "the removal took {took_ns} ns");
    drop(world);
    cluster.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_cleaner_that_rests() {
    let cluster = cleaning(2);
    let world = cluster.simulation.world();
    let before_ns = world.monotonic_ns();
    let simulation = cluster.stop();
    let took_ns = world.monotonic_ns() - before_ns;
    assert!(took_ns < TAKES_NS_MAX, "the stop took {took_ns} ns");
    drop(simulation);
}
