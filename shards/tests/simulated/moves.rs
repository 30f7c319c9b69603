//! Logs that move to another log directory, while the broker serves, and what a kill or a power cut at
//! any moment leaves of that: every record that was acknowledged, in exactly one directory.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use chronik_catalog::ConfigResource;
use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_io::{Mesh, MeshOptions, World};
use chronik_protocol::{ErrorCode, Uuid};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, DATA, append, options};

pub(crate) const OTHER: &str = "/other";

pub(crate) fn start(simulation: Simulation, shards: usize) -> Cluster {
    let options = StartOptions {
        more_data: vec![PathBuf::from(OTHER)],
        ..options()
    };
    let (simulation, handles) = Cluster::try_start_with(simulation, shards, options);
    Cluster {
        simulation,
        handles: handles.expect("starts"),
    }
}

/// The directories of partition 0 below both log directories.
pub(crate) fn directories(cluster: &mut Cluster) -> Vec<String> {
    let mut found = Vec::new();
    for path in [DATA, OTHER] {
        let world = cluster.simulation.world();
        let listed = cluster.simulation.run(world.list_dir(path.as_ref()));
        for entry in listed.expect("listed") {
            let name = entry.name.into_string().expect("a name");
            if name.starts_with("t-0") {
                found.push(format!("{path}/{name}"));
            }
        }
    }
    found
}

pub(crate) fn dir_id(cluster: &Cluster, path: &str) -> Uuid {
    let dirs = cluster.handles[0].log_dirs().all();
    let found = dirs.iter().find(|dir| dir.path == *path);
    found.and_then(|dir| dir.id).expect("a directory")
}

/// The directory that does not hold partition 0.
pub(crate) fn elsewhere(cluster: &mut Cluster) -> &'static str {
    let held = directories(cluster);
    match held.iter().any(|dir| *dir == format!("{DATA}/t-0")) {
        true => OTHER,
        false => DATA,
    }
}

pub(crate) fn move_to(cluster: &mut Cluster, path: &str) -> ErrorCode {
    let (id, dir) = (cluster.id("t", 0), dir_id(cluster, path));
    let owner = cluster.owner(id);
    match cluster.ask(owner, Request::MoveLogs(vec![(id, dir)])) {
        Reply::MoveLogs(results) => results[0],
        other => panic!("{other:?}"),
    }
}

pub(crate) fn described(cluster: &mut Cluster) -> Vec<LogDescription> {
    let id = cluster.id("t", 0);
    let owner = cluster.owner(id);
    match cluster.ask(owner, Request::DescribeLogs(LogScope::Only(vec![id]))) {
        Reply::DescribeLogs(logs) => logs,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn futures(cluster: &mut Cluster) -> Vec<LogDescription> {
    let logs = described(cluster).into_iter();
    logs.filter(|log| log.future_in.is_some()).collect()
}

/// Records of the topic before it moves; three fit into a segment.
const RECORDS: usize = 7;
/// Records that were deleted.
pub(crate) const DELETED: i64 = 2;

/// A topic of three segments, some of whose records were deleted.
pub(crate) fn prepare(seed: u64, durability: &str) -> (Cluster, Vec<Vec<u8>>) {
    let mut cluster = start(Simulation::new(seed), 2);
    cluster.create("t", 1).expect("created");
    for (name, value) in [
        ("segment.bytes", "1048576"),
        ("chronik.durability", durability),
    ] {
        cluster.set(ConfigResource::Topic("t".into()), name, value);
    }
    let partition = cluster.id("t", 0);
    let mut values = Vec::new();
    for number in 0..RECORDS {
        let value = [format!("{number}").as_bytes(), &[b'.'; 300_000]].concat();
        assert_eq!(cluster.append(partition, &[&value]).error, ErrorCode::None);
        values.push(value);
    }
    let offset = DELETED;
    let part = DeleteRecordsPart { partition, offset };
    let owner = cluster.owner(partition);
    match cluster.ask(owner, Request::DeleteRecords(vec![part])) {
        Reply::DeleteRecords(results) => assert_eq!(results[0].low_watermark, DELETED),
        other => panic!("{other:?}"),
    }
    (cluster, values.split_off(DELETED as usize))
}

/// What was acknowledged while the machine ran.
pub(crate) type Acknowledged = Rc<RefCell<Vec<Vec<u8>>>>;

/// Appends one record after the other, as long as they are taken.
pub(crate) fn go_on(cluster: &mut Cluster) -> Acknowledged {
    let acknowledged = Acknowledged::default();
    let id = cluster.id("t", 0);
    let (owner, endpoint) = (cluster.owner(id), cluster.handles[0].endpoint().clone());
    let (told, world) = (Rc::clone(&acknowledged), cluster.simulation.world());
    cluster.simulation.world().spawn(async move {
        for number in 0u64.. {
            let value = format!("more {number:06}").into_bytes();
            let request = append(id, &[&value]);
            let Ok(Reply::Append(results)) = endpoint.call(owner, request).await else {
                return;
            };
            if results[0].error != ErrorCode::None {
                return told
                    .borrow_mut()
                    .push(format!("{:?}", results[0].error).into_bytes());
            }
            told.borrow_mut().push(value);
            world.sleep_for(Duration::from_micros(50)).await;
        }
    });
    acknowledged
}

/// What was acknowledged is there, in order; of the rest at most what was on its way. It lies in one
/// directory, and what was deleted stays so.
pub(crate) fn check(cluster: &mut Cluster, expected: &[Vec<u8>], context: &str) {
    let id = cluster.id("t", 0);
    let found = cluster.values(id, DELETED).into_iter();
    let found: Vec<Vec<u8>> = found.map(|(_, value)| value).collect();
    let counts = (found.len(), expected.len());
    assert!(found.starts_with(expected), "{context}: {counts:?}");
    assert!(found.len() <= expected.len() + 1, "{context}: {counts:?}");
    let held = directories(cluster);
    assert_eq!(held.len(), 1, "{context}: {held:?}");
    assert!(held[0].ends_with("/t-0"), "{context}: {held:?}");
    let last = cluster.append(id, &[b"at last"]);
    assert_eq!(last.error, ErrorCode::None, "{context}");
    assert_eq!(last.log_start_offset, DELETED, "{context}");
}

/// Runs until the log lies below this directory alone, and no move is under way.
pub(crate) fn finish(cluster: &mut Cluster, path: &str) {
    for _ in 0..2000 {
        if directories(cluster) == [format!("{path}/t-0")] && futures(cluster).is_empty() {
            return;
        }
        cluster.simulation.run_steps(20);
    }
    let found = (directories(cluster), described(cluster));
    panic!("not moved to {path}: {found:?}");
}

/// A move of a log that is written meanwhile has begun: where to, and what was acknowledged.
pub(crate) fn begin(
    seed: u64,
    durability: &str,
) -> (Cluster, Vec<Vec<u8>>, &'static str, Acknowledged) {
    let (mut cluster, values) = prepare(seed, durability);
    let target = elsewhere(&mut cluster);
    let acknowledged = go_on(&mut cluster);
    assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
    (cluster, values, target, acknowledged)
}

/// After how many steps of the same simulation, undisturbed, the shards know where the log lies.
pub(crate) fn steps_to_commit(seed: u64, durability: &str) -> usize {
    let (mut cluster, _, target, _) = begin(seed, durability);
    let target = dir_id(&cluster, target);
    for steps in 0..STEPS_MAX {
        let image = cluster.handles[0].image();
        if image.topic("t").expect("a topic").partitions[0].directories == [target] {
            return steps;
        }
        cluster.simulation.run_steps(1);
    }
    panic!("seed {seed}: a move does not end");
}

/// The steps of a round: over the whole move, and one by one around its commit, whose step is told, too.
fn moment(seed: u64, durability: &str, round: usize) -> (usize, usize) {
    let commit = steps_to_commit(seed, durability);
    let steps = match round % 2 {
        0 => commit * 9 / 8 * round / ROUNDS,
        _ => (commit + 4 * round).saturating_sub(2 * ROUNDS),
    };
    (steps, commit)
}

#[test]
fn a_log_moves_while_it_is_written_and_read_and_back_again() {
    for durability in ["disk", "process"] {
        let (mut cluster, mut values) = prepare(21, durability);
        let acknowledged = go_on(&mut cluster);
        for _ in 0..3 {
            let target = elsewhere(&mut cluster);
            let before = acknowledged.borrow().len();
            assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
            let copies = futures(&mut cluster);
            assert_eq!(copies[0].future_in, Some(dir_id(&cluster, target)));
            assert!(copies[0].offset_lag > 0);
            finish(&mut cluster, target);
            cluster.simulation.run_steps(2000);
            let after = acknowledged.borrow().len();
            assert!(after > before, "{durability}: {before}, {after}");
        }
        let simulation = cluster.simulation.kill();
        values.extend(acknowledged.borrow().iter().cloned());
        check(&mut start(simulation, 1), &values, durability);
    }
}

#[test]
fn a_power_cut_or_a_kill_at_any_moment_of_a_move_leaves_one_log_with_everything() {
    for (durability, ends) in [("disk", &[true, false][..]), ("process", &[false])] {
        let (mut there, mut stayed) = (0, 0);
        for round in 0..ROUNDS {
            let seed = 1000 + round as u64;
            let (steps, commit) = moment(seed, durability, round);
            for is_power_cut in ends {
                let (mut cluster, mut values, target, acknowledged) = begin(seed, durability);
                cluster.simulation.run_steps(steps);
                let simulation = match is_power_cut {
                    true => cluster.simulation.crash(),
                    false => cluster.simulation.kill(),
                };
                values.extend(acknowledged.borrow().iter().cloned());
                let context = format!(
                    "{durability}, {steps} of {commit} steps, power cut: {is_power_cut}, seed {seed}"
                );
                // The start that ends the move may be cut off, too.
                let cut = start_and_cut(simulation, steps);
                let mut cluster = start(cut, 1 + round % 3);
                check(&mut cluster, &values, &context);
                if elsewhere(&mut cluster) == target {
                    stayed += 1;
                    // What the shards know is durable.
                    assert!(steps < commit, "{context}: forgotten");
                } else {
                    there += 1;
                }
            }
        }
        assert!(there > 10 && stayed > 10, "{there} moved, {stayed} stayed");
    }
}

/// Moments of a move that are looked at.
const ROUNDS: usize = 60;
/// Within so many steps a move ends.
const STEPS_MAX: usize = 100_000;

/// Begins a start, and kills it on its way.
fn start_and_cut(mut simulation: Simulation, seed: usize) -> Simulation {
    let mesh = Mesh::new(1, MeshOptions::default());
    let (world, endpoint) = (simulation.world(), mesh.endpoint(0));
    let options = StartOptions {
        more_data: vec![PathBuf::from(OTHER)],
        ..options()
    };
    simulation.world().spawn(async move {
        drop(chronik_shards::start(world, endpoint, &options).await);
    });
    simulation.run_steps(seed % 397);
    simulation.kill()
}

#[test]
fn a_stop_or_a_deletion_at_any_moment_of_a_move_is_not_held_up() {
    for round in 0..ROUNDS {
        let seed = 3000 + round as u64;
        // Both ways of it at moments over the whole move and around its commit.
        let (steps, _) = moment(seed, "disk", round);
        let (mut cluster, mut values, _, acknowledged) = begin(seed, "disk");
        cluster.simulation.run_steps(steps);
        if round % 4 < 2 {
            let simulation = cluster.stop();
            values.extend(acknowledged.borrow().iter().cloned());
            values.retain(|value| value != b"NotLeaderOrFollower");
            check(
                &mut start(simulation, 2),
                &values,
                &format!("stopped at {round}"),
            );
            continue;
        }
        cluster.delete("t").expect("deleted");
        cluster.create("t", 1).expect("created again");
        let id = cluster.id("t", 0);
        assert_eq!(cluster.append(id, &[b"new"]).error, ErrorCode::None);
        cluster.advance(5_000);
        let held = directories(&mut cluster);
        assert_eq!(held.len(), 1, "{round}: {held:?}");
        let mut cluster = start(cluster.simulation.kill(), 1);
        assert_eq!(cluster.values(id, 0), [(0, b"new".to_vec())], "{round}");
        assert_eq!(directories(&mut cluster).len(), 1, "{round}");
    }
}

#[test]
fn a_move_that_the_disk_refuses_leaves_the_log_where_it_was() {
    let all = [
        Operation::Write,
        Operation::Open,
        Operation::Sync,
        Operation::Directory,
    ];
    for operation in all {
        for skip in 0..6 {
            let (mut cluster, mut values) = prepare(4000, "disk");
            let target = elsewhere(&mut cluster);
            let acknowledged = go_on(&mut cluster);
            cluster
                .simulation
                .faults()
                .script(operation, "-future", skip, Fault::Broken);
            assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
            cluster.simulation.run_steps(3000);
            let context = format!("{operation:?} after {skip}");
            let simulation = cluster.simulation.kill();
            values.extend(acknowledged.borrow().iter().cloned());
            values.retain(|value| value.len() > 30 || value.starts_with(b"more"));
            let mut cluster = start(simulation, 1);
            check(&mut cluster, &values, &context);
        }
    }
}

#[test]
fn a_move_waits_for_space_and_ends_when_another_is_wanted() {
    let (mut cluster, _) = prepare(5000, "disk");
    let target = elsewhere(&mut cluster);
    let source = [DATA, OTHER]
        .into_iter()
        .find(|dir| *dir != target)
        .expect("two");
    let script = (Operation::Write, "-future", 1, Fault::NoSpace);
    cluster
        .simulation
        .faults()
        .script(script.0, script.1, script.2, script.3);
    assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
    // Not so far that the time comes in which it is tried again.
    for has_begun in [true, false] {
        let mut steps = 0..2000;
        while (directories(&mut cluster) == [format!("{source}/t-0")]) == has_begun {
            steps.next().expect("the copy comes, and goes again");
            cluster.simulation.run_steps(2);
        }
    }
    assert_eq!(futures(&mut cluster).len(), 1, "it is still wanted");
    cluster.advance(61_000);
    finish(&mut cluster, target);
    let acknowledged = go_on(&mut cluster);
    // Back, and then not.
    for steps in [0, 10, 40, 100] {
        assert_eq!(move_to(&mut cluster, source), ErrorCode::None);
        cluster.simulation.run_steps(steps);
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
        finish(&mut cluster, target);
    }
    let all_taken = |value: &Vec<u8>| value.starts_with(b"more");
    assert!(
        acknowledged.borrow().iter().all(all_taken),
        "nothing was refused"
    );
    let unknown = Uuid(7777);
    let id = cluster.id("t", 0);
    let owner = cluster.owner(id);
    match cluster.ask(owner, Request::MoveLogs(vec![(id, unknown)])) {
        Reply::MoveLogs(results) => assert_eq!(results, [ErrorCode::LogDirNotFound]),
        other => panic!("{other:?}"),
    }
}

/// A path below this log directory.
type PathBelow = fn(&str) -> String;

#[test]
fn the_last_steps_of_a_move_wait_for_what_is_too_short_and_are_done_again() {
    let place: PathBelow = |target| format!("{target}/t-0/");
    let checkpoint: PathBelow = |target| format!("{target}/recovery-point-offset-checkpoint");
    let future: PathBelow = |_| "-future".to_owned();
    let mut cases: Vec<(Operation, PathBelow, u32, u32)> = Vec::new();
    cases.push((Operation::Write, checkpoint, 0, 6));
    cases.push((Operation::Open, checkpoint, 0, 6));
    for skip in 0..8 {
        cases.push((Operation::Directory, future, skip, 2));
        cases.push((Operation::Read, place, skip, 2));
        cases.push((Operation::Write, future, skip, 2));
    }
    for (operation, path, skip, count) in cases {
        let (mut cluster, values) = prepare(6000 + u64::from(skip), "disk");
        let target = elsewhere(&mut cluster);
        let path = path(target);
        let context = format!("{operation:?} {path} after {skip}");
        for number in 0..count {
            // One after the other: each counts every operation.
            let skip = skip + number;
            let faults = &mut cluster.simulation.faults();
            faults.script(operation, &path, skip, Fault::NoSpace);
        }
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None, "{context}");
        cluster.advance(61_000);
        finish(&mut cluster, target);
        let logs = described(&mut cluster);
        assert!(logs.iter().all(|log| log.online), "{context}: {logs:?}");
        let id = cluster.id("t", 0);
        let last = cluster.append(id, &[b"after it"]);
        assert_eq!(last.error, ErrorCode::None, "{context}");
        let mut expected = values;
        expected.push(b"after it".to_vec());
        let simulation = cluster.simulation.kill();
        check(&mut start(simulation, 1), &expected, &context);
    }
}
