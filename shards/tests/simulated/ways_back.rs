//! The way back from one refusal each: what was put off for a shortage is done when it has passed,
//! without a restart, and hits nothing that came in between.

use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_protocol::ErrorCode;
use chronik_shards::catalog::ConfigResource;
use chronik_shards::*;

use crate::cluster::{Cluster, create};

fn delete_records(cluster: &mut Cluster, partition: PartitionId, offset: i64) -> ErrorCode {
    let part = DeleteRecordsPart { partition, offset };
    let owner = cluster.owner(partition);
    match cluster.ask(owner, Request::DeleteRecords(vec![part])) {
        Reply::DeleteRecords(mut results) => results.remove(0).error,
        other => panic!("{other:?}"),
    }
}

/// A topic with a record is deleted while its directory cannot be renamed, so many times.
fn deleted_but_there(seed: u64, refusals: u32) -> Cluster {
    let mut cluster = Cluster::start(Simulation::new(seed), 2);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    assert_eq!(cluster.append(id, &[b"old"]).error, ErrorCode::None);
    for _ in 0..refusals {
        let mut faults = cluster.simulation.faults();
        faults.script(Operation::Directory, "/t-0", 0, Fault::NoSpace);
    }
    cluster.delete("t").expect("deleted");
    assert_eq!(cluster.directories(), ["t-0"], "seed {seed}");
    cluster
}

#[test]
fn a_directory_that_could_not_be_removed_goes_later() {
    let mut cluster = deleted_but_there(1, 3);
    cluster.advance(60_000);
    assert_eq!(cluster.directories(), Vec::<String>::new());
}

#[test]
fn a_directory_that_got_its_new_name_only_is_removed_later() {
    let mut cluster = Cluster::start(Simulation::new(2), 2);
    cluster.create("t", 1).expect("created");
    let mut faults = cluster.simulation.faults();
    faults.script(Operation::Directory, "-delete", 0, Fault::Memory);
    drop(faults);
    cluster.delete("t").expect("deleted");
    assert_eq!(cluster.directories().len(), 1);
    // It stands in nobody's way.
    cluster.create("t", 1).expect("created again");
    let id = cluster.id("t", 0);
    assert_eq!(cluster.append(id, &[b"new"]).error, ErrorCode::None);
    cluster.advance(60_000);
    assert_eq!(cluster.directories(), ["t-0"]);
    assert_eq!(cluster.values(id, 0), [(0, b"new".to_vec())]);
}

#[test]
fn a_topic_that_is_created_again_is_never_taken_for_the_one_that_was_deleted() {
    for seed in 0..40 {
        // None, one or all of the tries before its creation fail.
        let mut cluster = deleted_but_there(seed, 1 + seed as u32 % 4);
        let mut refused = 0;
        while let Err(error) = cluster.create("t", 1) {
            assert_eq!(error.code, ErrorCode::KafkaStorageError, "seed {seed}");
            refused += 1;
            assert!(refused < 4, "seed {seed}: it is never created");
        }
        let id = cluster.id("t", 0);
        assert_eq!(
            cluster.append(id, &[b"new"]).error,
            ErrorCode::None,
            "seed {seed}"
        );
        cluster.advance(120_000);
        assert_eq!(cluster.directories(), ["t-0"], "seed {seed}");
        assert_eq!(cluster.values(id, 0), [(0, b"new".to_vec())], "seed {seed}");
        let mut cluster = Cluster::start(cluster.simulation.crash(), 1);
        assert_eq!(cluster.values(id, 0), [(0, b"new".to_vec())], "seed {seed}");
    }
}

#[test]
fn a_stop_tries_once_more_what_is_left_of_a_deleted_topic() {
    let cluster = deleted_but_there(3, 1);
    let mut cluster = Cluster::start(cluster.stop(), 1);
    assert_eq!(cluster.directories(), Vec::<String>::new());
}

#[test]
fn a_snapshot_that_could_not_be_written_is_written_later() {
    let mut cluster = Cluster::start(Simulation::new(4), 1);
    cluster.create("a", 1).expect("created");
    let mut faults = cluster.simulation.faults();
    for _ in 0..2 {
        faults.script(Operation::Write, ".checkpoint", 0, Fault::NoSpace);
    }
    drop(faults);
    let long = "0:1,".repeat(8_000);
    for change in 0..135 {
        let value = format!("{long}{change}:1");
        let topic = ConfigResource::Topic("a".into());
        cluster.set(topic, "leader.replication.throttled.replicas", &value);
    }
    assert_eq!(snapshots(&mut cluster), 0, "it was refused");
    cluster.advance(10_000);
    assert_eq!(snapshots(&mut cluster), 1);
}

fn snapshots(cluster: &mut Cluster) -> usize {
    let world = cluster.simulation.world();
    let directory = format!("{}/__cluster_metadata-0", crate::cluster::DATA);
    let entries = async move { world.list_dir(directory.as_ref()).await };
    let entries = cluster.simulation.run(entries).expect("lists");
    let names = entries.iter().map(|entry| entry.name.to_string_lossy());
    names.filter(|name| name.ends_with(".checkpoint")).count()
}

#[test]
fn records_that_are_deleted_in_memory_only_are_not_told_to_be_deleted() {
    let mut cluster = Cluster::start(Simulation::new(5), 2);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    for value in [b"a", b"b", b"c"] {
        cluster.append(id, &[value]);
    }
    let refuse = |cluster: &Cluster, count| {
        let mut faults = cluster.simulation.faults();
        for _ in 0..count {
            faults.script(
                Operation::Write,
                "log-start-offset-checkpoint",
                0,
                Fault::NoSpace,
            );
        }
    };
    // The checkpoint is refused for longer than somebody waits for it, again and again.
    refuse(&cluster, 1_000);
    for offset in [2, 2, 1, 2] {
        let answer = delete_records(&mut cluster, id, offset);
        assert_eq!(answer, ErrorCode::RequestTimedOut, "up to {offset}");
    }
    cluster.simulation.faults().clear();
    assert_eq!(delete_records(&mut cluster, id, 2), ErrorCode::None);
    let mut cluster = Cluster::start(cluster.simulation.crash(), 1);
    assert_eq!(cluster.values(id, 2), [(2, b"c".to_vec())]);
    // What does not pass is told so as often as it is asked for.
    let mut faults = cluster.simulation.faults();
    for _ in 0..2 {
        faults.script(
            Operation::Write,
            "log-start-offset-checkpoint",
            0,
            Fault::Broken,
        );
    }
    drop(faults);
    for _ in 0..2 {
        let answer = delete_records(&mut cluster, id, 3);
        assert_eq!(answer, ErrorCode::KafkaStorageError);
    }
    assert_eq!(delete_records(&mut cluster, id, 3), ErrorCode::None);
}

#[test]
fn a_stop_during_a_shortage_that_ends_soon_is_clean() {
    let mut cluster = Cluster::start(Simulation::new(6), 2);
    let reply = cluster.control(create("t", 3));
    drop(reply);
    for index in 0..3 {
        let id = cluster.id("t", index);
        assert_eq!(cluster.append(id, &[b"x"]).error, ErrorCode::None);
    }
    let mut faults = cluster.simulation.faults();
    faults.shortage(0, 12, Fault::NoSpace);
    drop(faults);
    let mut simulation = cluster.stop();
    let world = simulation.world();
    let marker = format!("{}/.kafka_cleanshutdown", crate::cluster::DATA);
    let found = simulation.run(async move { world.read_file(marker.as_ref(), 1_000).await });
    assert!(found.is_ok(), "it says that it was clean: {found:?}");
}
