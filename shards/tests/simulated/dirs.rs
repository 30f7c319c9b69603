//! Several log directories: where new partitions go, and what one that fails takes with it.

use std::path::PathBuf;

use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_protocol::ErrorCode;
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, options};

const OTHER: &str = "/other";
const THIRD: &str = "/third";
const PARTITIONS: i32 = 6;

fn start(simulation: Simulation, shards: usize) -> Cluster {
    start_on(simulation, shards, &[OTHER])
}

fn start_on(simulation: Simulation, shards: usize, more: &[&str]) -> Cluster {
    let options = StartOptions {
        more_data: more.iter().map(PathBuf::from).collect(),
        ..options()
    };
    let (simulation, handles) = Cluster::try_start_with(simulation, shards, options);
    Cluster {
        simulation,
        handles: handles.expect("starts"),
    }
}

/// The partitions whose directories are below this path.
fn below(cluster: &mut Cluster, path: &str) -> Vec<i32> {
    let world = cluster.simulation.world();
    let listed = cluster.simulation.run(world.list_dir(path.as_ref()));
    let names = listed.expect("listed").into_iter();
    let indexes = names.filter_map(|entry| {
        let name = entry.name.into_string().ok()?;
        name.strip_prefix("t-")?.parse().ok()
    });
    indexes.collect()
}

fn append_everywhere(cluster: &mut Cluster, value: &[u8]) {
    for index in 0..PARTITIONS {
        let id = cluster.id("t", index);
        assert_eq!(cluster.append(id, &[value]).error, ErrorCode::None);
    }
}

fn values(cluster: &mut Cluster, index: i32) -> Vec<Vec<u8>> {
    let id = cluster.id("t", index);
    let found = cluster.values(id, 0).into_iter();
    found.map(|(_, value)| value).collect()
}

#[test]
fn new_partitions_go_where_the_fewest_are_and_are_found_there_again() {
    let mut cluster = start(Simulation::new(11), 2);
    cluster.create("t", PARTITIONS).expect("created");
    append_everywhere(&mut cluster, b"one");
    for path in [crate::cluster::DATA, OTHER] {
        assert_eq!(below(&mut cluster, path).len(), 3, "{path}");
    }
    let ids: Vec<_> = cluster.handles[0].log_dirs().all().to_vec();
    assert!(ids[0].id.is_some() && ids[1].id.is_some() && ids[0].id != ids[1].id);

    // Stopped, then killed, each time with another number of shards.
    let simulation = cluster.stop();
    let mut cluster = start(simulation, 3);
    append_everywhere(&mut cluster, b"two");
    let mut cluster = start(cluster.simulation.kill(), 1);
    assert_eq!(cluster.handles[0].log_dirs().all(), ids);
    for index in 0..PARTITIONS {
        assert_eq!(values(&mut cluster, index), [b"one", b"two"], "{index}");
    }
    for path in [crate::cluster::DATA, OTHER] {
        assert_eq!(below(&mut cluster, path).len(), 3, "{path}");
    }
}

#[test]
fn a_directory_that_fails_takes_its_partitions_offline_and_no_others() {
    let mut cluster = start(Simulation::new(12), 2);
    cluster.create("t", PARTITIONS).expect("created");
    append_everywhere(&mut cluster, b"one");
    let lost = below(&mut cluster, OTHER);

    // While it serves: whoever writes there learns it.
    cluster.simulation.faults().break_below(OTHER);
    check(&mut cluster, &lost, b"two");

    // From the start on: nothing of it is begun anew elsewhere.
    let simulation = cluster.simulation.kill();
    simulation.faults().break_below(OTHER);
    let mut cluster = start(simulation, 2);
    assert_eq!(cluster.handles[0].log_dirs().all()[1].id, None);
    check(&mut cluster, &lost, b"three");
    assert_eq!(below(&mut cluster, crate::cluster::DATA).len(), 3);

    // Repaired.
    let mut cluster = start(cluster.simulation.kill(), 2);
    append_everywhere(&mut cluster, b"four");
    for index in 0..PARTITIONS {
        let mut found = values(&mut cluster, index);
        let mut expected: Vec<&[u8]> = vec![b"one", b"two", b"three", b"four"];
        if lost.contains(&index) {
            // The device may have done what it reported as failed.
            found.retain(|value| value != b"two");
            expected = vec![b"one", b"four"];
        }
        assert_eq!(found, expected, "{index}");
    }
}

#[test]
fn a_stop_says_whether_the_directories_were_left_in_order() {
    for breaks in [false, true] {
        let mut cluster = start(Simulation::new(18), 2);
        cluster.create("t", PARTITIONS).expect("created");
        append_everywhere(&mut cluster, b"one");
        if breaks {
            cluster.simulation.faults().break_below(OTHER);
        }
        let handle = cluster.handles[0].clone();
        let stop = async move { handle.stop().await };
        let in_order = cluster.simulation.run(stop).expect("an answer");
        assert_eq!(in_order, !breaks);
    }
}

#[test]
fn records_are_deleted_beside_a_directory_that_fails() {
    let mut cluster = start(Simulation::new(13), 2);
    cluster.create("t", PARTITIONS).expect("created");
    append_everywhere(&mut cluster, b"one");
    append_everywhere(&mut cluster, b"two");
    let lost = below(&mut cluster, OTHER);
    cluster.simulation.faults().break_below(OTHER);
    for index in 0..PARTITIONS {
        let partition = cluster.id("t", index);
        let part = DeleteRecordsPart {
            partition,
            offset: 1,
        };
        let owner = cluster.owner(partition);
        let reply = cluster.ask(owner, Request::DeleteRecords(vec![part]));
        let Reply::DeleteRecords(results) = reply else {
            panic!("{reply:?}");
        };
        let expected = match lost.contains(&index) {
            true => ErrorCode::KafkaStorageError,
            false => ErrorCode::None,
        };
        assert_eq!(results[0].error, expected, "{index}");
    }
}

#[test]
fn a_disk_that_comes_back_brings_nothing_of_a_topic_that_was_deleted_meanwhile() {
    let more = [OTHER, THIRD];
    let mut cluster = start_on(Simulation::new(14), 2, &more);
    cluster.create("t", PARTITIONS).expect("created");
    append_everywhere(&mut cluster, b"old");
    append_everywhere(&mut cluster, b"old");
    for index in 0..PARTITIONS {
        let partition = cluster.id("t", index);
        let part = DeleteRecordsPart {
            partition,
            offset: 2,
        };
        let owner = cluster.owner(partition);
        let reply = cluster.ask(owner, Request::DeleteRecords(vec![part]));
        assert!(
            matches!(&reply, Reply::DeleteRecords(results) if results[0].error == ErrorCode::None)
        );
    }
    let simulation = cluster.simulation.kill();
    simulation.faults().break_below(OTHER);
    let mut cluster = start_on(simulation, 2, &more);
    cluster.delete("t").expect("deleted");
    cluster.create("t", PARTITIONS).expect("created again");
    append_everywhere(&mut cluster, b"new");
    assert!(!below(&mut cluster, THIRD).is_empty());

    // The disk is back, with directories and checkpoints of the old topic.
    for _ in 0..2 {
        cluster = start_on(cluster.simulation.kill(), 3, &more);
        for index in 0..PARTITIONS {
            assert_eq!(values(&mut cluster, index), [b"new"], "{index}");
        }
        assert_eq!(below(&mut cluster, OTHER), Vec::<i32>::new());
    }
}

/// From each operation of a start on, in turn, one of two directories fails: that one is offline, or some
/// of its partitions, and the other is served. Nothing is lost when it is sound again.
#[test]
fn a_directory_that_fails_during_a_start_takes_its_partitions_and_no_others() {
    for is_clean in [true, false] {
        let mut at = 0;
        loop {
            let mut cluster = start(Simulation::new(15), 1);
            cluster.create("t", PARTITIONS).expect("created");
            append_everywhere(&mut cluster, b"one");
            cluster.create("gone", 2).expect("created");
            if !is_clean {
                // Its directories are swept out by the start.
                let mut faults = cluster.simulation.faults();
                faults.script(Operation::Directory, "-delete", 0, Fault::Broken);
                faults.script(Operation::Directory, "-delete", 0, Fault::Broken);
                drop(faults);
                cluster.delete("gone").expect("deleted");
            }
            let lost = below(&mut cluster, OTHER);
            let simulation = match is_clean {
                true => cluster.stop(),
                false => cluster.simulation.kill(),
            };
            let mut faults = simulation.faults();
            faults.begin_trace();
            faults.break_below_from(OTHER, at);
            drop(faults);
            let what = format!("clean: {is_clean}, from operation {at} on");
            let options = StartOptions {
                more_data: vec![PathBuf::from(OTHER)],
                ..options()
            };
            let (simulation, handles) = Cluster::try_start_with(simulation, 1, options);
            let trace = simulation.faults().take_trace();
            let handles = handles.unwrap_or_else(|why| panic!("{what}: {why}"));
            let mut cluster = Cluster {
                simulation,
                handles,
            };
            for index in (0..PARTITIONS).filter(|index| !lost.contains(index)) {
                let id = cluster.id("t", index);
                let appended = cluster.append(id, &[b"two"]);
                assert_eq!(appended.error, ErrorCode::None, "{what}");
            }
            let mut cluster = start(cluster.simulation.kill(), 1);
            for index in 0..PARTITIONS {
                let expected: &[&[u8]] = match lost.contains(&index) {
                    true => &[b"one"],
                    false => &[b"one", b"two"],
                };
                assert_eq!(values(&mut cluster, index), expected, "{what}");
            }
            append_everywhere(&mut cluster, b"three");
            let met = |(_, path): &(Operation, String)| path.starts_with(OTHER);
            at = match trace.iter().skip(at as usize).position(met) {
                Some(next) => at + next as u64 + 1,
                None => break,
            };
        }
        assert!(at > 10, "{at}");
    }
}

/// What is only too short is no failure of a directory: the start says so, and the next one serves all.
#[test]
fn no_directory_is_offline_because_a_start_met_a_shortage() {
    for fault in [Fault::NoSpace, Fault::Descriptors, Fault::Memory] {
        for at in 0.. {
            let mut cluster = start(Simulation::new(16), 1);
            cluster.create("t", PARTITIONS).expect("created");
            append_everywhere(&mut cluster, b"one");
            let simulation = cluster.simulation.kill();
            simulation.faults().shortage(at, 1, fault);
            let options = StartOptions {
                more_data: vec![PathBuf::from(OTHER)],
                ..options()
            };
            let (simulation, handles) = Cluster::try_start_with(simulation, 1, options);
            let met = simulation.faults().met();
            if let Ok(handles) = handles {
                let what = format!("{fault:?} at operation {at}");
                let mut cluster = Cluster {
                    simulation,
                    handles,
                };
                let dirs = cluster.handles[0].log_dirs().all().to_vec();
                assert!(dirs.iter().all(|dir| dir.id.is_some()), "{what}");
                cluster.advance(60_000);
                for index in 0..PARTITIONS {
                    assert_eq!(values(&mut cluster, index), [b"one"], "{what}");
                }
                append_everywhere(&mut cluster, b"two");
            } else {
                let mut cluster = start(simulation.kill(), 1);
                append_everywhere(&mut cluster, b"two");
                assert_eq!(values(&mut cluster, 0), [b"one", b"two"]);
            }
            if met == 0 {
                break;
            }
        }
    }
}

/// What cannot be looked at is not taken over: a directory of a cluster with other controllers, and a
/// failure or a shortage at each operation of a start in turn.
#[test]
fn no_failure_hides_why_a_directory_is_not_taken_over() {
    for fault in [Fault::Broken, Fault::Descriptors] {
        for at in 0.. {
            let mut cluster = start(Simulation::new(17), 1);
            cluster.create("t", PARTITIONS).expect("created");
            let mut simulation = cluster.stop();
            let file = format!("{}/__cluster_metadata-0/quorum-state", crate::cluster::DATA);
            let another = |bytes: &mut Vec<u8>| {
                let ours = String::from_utf8(bytes.clone()).expect("JSON");
                let voters = "\"currentVoters\":[{\"voterId\":7},";
                *bytes = ours.replace("\"currentVoters\":[", voters).into_bytes();
            };
            assert!(simulation.damage(file.as_ref(), another));
            simulation.faults().shortage(at, 1, fault);
            let (simulation, handles) = Cluster::try_start(simulation, 1);
            assert!(handles.is_err(), "{fault:?} at operation {at}");
            let met = simulation.faults().met();
            let why = handles.err().unwrap_or_default();
            if met == 0 {
                assert!(why.contains("other controllers (node 7)"), "{why}");
                break;
            }
        }
    }
}

fn check(cluster: &mut Cluster, lost: &[i32], value: &[u8]) {
    for index in 0..PARTITIONS {
        let expected = match lost.contains(&index) {
            true => ErrorCode::KafkaStorageError,
            false => ErrorCode::None,
        };
        let id = cluster.id("t", index);
        assert_eq!(cluster.append(id, &[value]).error, expected, "{index}");
    }
}
