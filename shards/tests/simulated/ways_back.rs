//! The way back from one refusal each: what was put off for a shortage is done when it has passed,
//! without a restart, and hits nothing that came in between.

use chronik_catalog::ConfigResource;
use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_protocol::ErrorCode;
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, create, options};

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
    assert_clean(cluster.stop());
}

/// The directory says that the stop was clean.
fn assert_clean(mut simulation: Simulation) {
    let world = simulation.world();
    let marker = format!("{}/.kafka_cleanshutdown", crate::cluster::DATA);
    let found = simulation.run(async move { world.read_file(marker.as_ref(), 1_000).await });
    assert!(found.is_ok(), "it says that it was clean: {found:?}");
}

#[test]
fn a_log_that_was_never_opened_does_not_spoil_a_stop() {
    let mut cluster = Cluster::start(Simulation::new(9), 2);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    assert_eq!(cluster.append(id, &[b"x"]).error, ErrorCode::None);
    for _ in 0..1_000 {
        let mut faults = cluster.simulation.faults();
        faults.script(Operation::Directory, "/late-0", 0, Fault::NoSpace);
    }
    cluster.create("late", 1).expect("created");
    cluster.advance(5_000);
    let late = cluster.id("late", 0);
    let refused = cluster.append(late, &[b"x"]).error;
    assert_eq!(refused, ErrorCode::KafkaStorageError);
    assert_clean(cluster.stop());
}

/// The checkpoint of log starts names an offset behind the end of `t-0`.
fn misled(seed: u64) -> Simulation {
    let mut cluster = Cluster::start(Simulation::new(seed), 2);
    cluster.create("t", 1).expect("created");
    cluster.create("u", 1).expect("created");
    for name in ["t", "u"] {
        let id = cluster.id(name, 0);
        assert_eq!(cluster.append(id, &[b"old"]).error, ErrorCode::None);
    }
    let mut simulation = cluster.stop();
    let file = format!("{}/{STARTS}", crate::cluster::DATA);
    assert!(simulation.damage(file.as_ref(), |bytes| *bytes = b"0\n1\nt 0 3\n".to_vec()));
    simulation
}

const STARTS: &str = "log-start-offset-checkpoint";

/// The checkpoint can be written no more.
fn refuse_starts(simulation: &Simulation) {
    for _ in 0..1_000 {
        let mut faults = simulation.faults();
        faults.script(Operation::Write, STARTS, 0, Fault::NoSpace);
    }
}

/// Looks at the shards as soon as they have started.
fn start_soon(simulation: Simulation) -> Cluster {
    let (simulation, handles) = Cluster::try_start_in_steps(simulation, 2, options(), 50);
    Cluster {
        simulation,
        handles: handles.expect("starts"),
    }
}

#[test]
fn a_log_is_served_when_the_checkpoint_that_hides_its_records_is_corrected() {
    // It is opened by the start, or later, for want of a descriptor.
    for is_late in [false, true] {
        let simulation = misled(7);
        refuse_starts(&simulation);
        if is_late {
            let mut faults = simulation.faults();
            faults.script(Operation::Read, "/t-0", 0, Fault::Descriptors);
        }
        simulation.faults().begin_trace();
        let mut cluster = start_soon(simulation);
        let (t, u) = (cluster.id("t", 0), cluster.id("u", 0));
        cluster.advance(600_000);
        let trace = cluster.simulation.faults().take_trace();
        let tries = trace.iter().filter(|(_, path)| path.contains(STARTS));
        let tries = tries.count();
        assert!(tries < 200, "late: {is_late}: tried again {tries} times");
        for _ in 0..4 {
            assert_eq!(cluster.append(u, &[b"new"]).error, ErrorCode::None);
            // Were it acknowledged, the next start would hide it.
            let refused = cluster.append(t, &[b"lost"]).error;
            assert_eq!(refused, ErrorCode::KafkaStorageError, "late: {is_late}");
        }
        cluster.simulation.faults().clear();
        cluster.advance(60_000);
        for value in [b"a", b"b", b"c", b"d"] {
            assert_eq!(cluster.append(t, &[value]).error, ErrorCode::None);
        }
        let mut cluster = Cluster::start(cluster.simulation.crash(), 1);
        let found: Vec<Vec<u8>> = cluster
            .values(t, 0)
            .into_iter()
            .map(|found| found.1)
            .collect();
        assert_eq!(
            found,
            [&b"old"[..], b"a", b"b", b"c", b"d"],
            "late: {is_late}"
        );
    }
}

#[test]
fn a_topic_whose_log_waits_for_its_correction_can_be_deleted_and_a_stop_is_clean() {
    let simulation = misled(8);
    refuse_starts(&simulation);
    let mut cluster = start_soon(simulation);
    cluster.simulation.faults().clear();
    cluster.delete("t").expect("deleted");
    cluster.advance(60_000);
    assert_eq!(cluster.directories(), ["u-0"]);

    let simulation = misled(9);
    refuse_starts(&simulation);
    let cluster = start_soon(simulation);
    cluster.simulation.faults().clear();
    let mut cluster = Cluster::start(cluster.stop(), 1);
    let id = cluster.id("t", 0);
    assert_eq!(cluster.values(id, 0), [(0, b"old".to_vec())]);
}

/// Minutes of a shortage, second by second: those in which anything was done with a file.
fn busy_seconds(cluster: &mut Cluster, seconds: u32) -> u32 {
    let mut busy = 0;
    for _ in 0..seconds {
        cluster.simulation.faults().begin_trace();
        cluster.advance(1_000);
        busy += u32::from(cluster.simulation.faults().noted() > 0);
    }
    busy
}

#[test]
fn a_broker_that_nobody_asks_rests_while_something_is_short() {
    // Each waits for the end of the shortage: checkpoints, a deleted directory, a log that was not
    // opened, a snapshot, the groups of a partition.
    for fault in [Fault::NoSpace, Fault::Descriptors, Fault::Memory] {
        let mut cluster = deleted_but_there(10, 1);
        for name in ["a", "__consumer_offsets"] {
            cluster.create(name, 2).expect("created");
            for index in 0..2 {
                let id = cluster.id(name, index);
                assert_eq!(cluster.append(id, &[b"x"]).error, ErrorCode::None);
            }
        }
        let id = cluster.id("a", 0);
        cluster.simulation.faults().shortage(0, u64::MAX, fault);
        let _ = delete_records(&mut cluster, id, 1);
        let _ = cluster.create("b", 2);
        let _ = cluster.delete("a");
        for index in 0..2 {
            let id = cluster.id("__consumer_offsets", index);
            cluster.append(id, &[&[7; 70_000]]);
        }
        cluster.advance(600_000);
        let busy = busy_seconds(&mut cluster, 1_200);
        // Every 30 s each of the few things that wait for it.
        assert!(busy <= 4 * 40, "{fault:?}: {busy} of 1200 s");
        assert!(cluster.simulation.faults().met() > 0, "{fault:?}");
        cluster.simulation.faults().clear();
        cluster.advance(60_000);
        cluster.create("c", 1).expect("created");
        let busy = busy_seconds(&mut cluster, 1_200);
        assert!(busy <= 20, "nothing is short: {busy} of 1200 s");
    }
}
