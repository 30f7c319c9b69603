//! A start behind a kill, and one of two log directories without space, from each operation of the start
//! on: it goes on, serves what it can, and everything again without a restart once there is space.

use std::path::PathBuf;
use std::time::Duration;

use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_protocol::ErrorCode;
use chronik_shards::*;

use crate::cluster::{Cluster, DATA, options, read};
use crate::moves::{DELETED, OTHER, directories, start};
use crate::moves_lost::{assert_holds, interrupted};

const PARTITIONS: i32 = 4;

/// How a full file system shows.
const FULL: [Fault; 2] = [Fault::NoSpace, Fault::Quota];
/// What a start that is refused says of it.
const FULL_SAID: [&str; 3] = ["full disk", "space", "quota"];

fn try_start(simulation: Simulation) -> (Simulation, Result<Vec<ShardHandle>, String>) {
    let options = StartOptions {
        more_data: vec![PathBuf::from(OTHER)],
        ..options()
    };
    // Soon, for what was refused is tried again.
    Cluster::try_start_in_steps(simulation, 1, options, 50)
}

/// A broker that was killed with a record in each partition, and with directories of deleted topics in both
/// log directories: one that got its new name, one that did not.
fn killed(seed: u64) -> Simulation {
    let mut cluster = start(Simulation::new(seed), 1);
    cluster.create("t", PARTITIONS).expect("created");
    append_everywhere(&mut cluster, b"one");
    cluster.create("gone", 2).expect("created");
    cluster.create("named", 2).expect("created");
    // Their directories are made.
    cluster.advance(1_000);
    for (name, count) in [("-delete", 8), ("/named-", 8)] {
        for _ in 0..count {
            let mut faults = cluster.simulation.faults();
            faults.script(Operation::Directory, name, 0, Fault::Memory);
        }
    }
    cluster.delete("gone").expect("deleted");
    cluster.delete("named").expect("deleted");
    cluster.simulation.kill()
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

fn names_below(cluster: &mut Cluster, path: &str) -> Vec<String> {
    use chronik_io::World;
    let world = cluster.simulation.world();
    let listed = cluster.simulation.run(world.list_dir(path.as_ref()));
    let dirs = listed.expect("listed").into_iter();
    let dirs = dirs.filter(|entry| entry.is_dir && entry.name != "__cluster_metadata-0");
    dirs.map(|entry| entry.name.to_string_lossy().into_owned())
        .collect()
}

fn is_in(cluster: &mut Cluster, path: &str, index: i32) -> bool {
    names_below(cluster, path).contains(&format!("t-{index}"))
}

/// What became of the partitions in the directory without space.
#[derive(Default)]
struct Served {
    read: u32,
    not_read: u32,
}

/// While one is full: the partitions of the other are served.
fn check_while_full(cluster: &mut Cluster, full: &[i32], served: &mut Served, what: &str) {
    for index in 0..PARTITIONS {
        let id = cluster.id("t", index);
        let owner = cluster.owner(id);
        let found = match cluster.ask(owner, read(id, 0, None)) {
            Reply::Read(mut results) => results.remove(0).error,
            other => panic!("{other:?}"),
        };
        let is_full = full.contains(&index);
        match found {
            ErrorCode::None => served.read += u32::from(is_full),
            ErrorCode::KafkaStorageError if is_full => served.not_read += 1,
            error => panic!("{what}: reading {index}: {error:?}"),
        }
        let appended = cluster.append(id, &[b"two"]).error;
        let refused = is_full && appended == ErrorCode::KafkaStorageError;
        assert!(
            appended == ErrorCode::None || refused,
            "{what}: {appended:?}"
        );
    }
}

/// There is space: everything is served without a restart, and after one.
fn check_healed(mut cluster: Cluster, full: &[i32], what: &str) {
    cluster.advance(60_000);
    append_everywhere(&mut cluster, b"three");
    for starts in 0..2 {
        for index in 0..PARTITIONS {
            let mut found = values(&mut cluster, index);
            if full.contains(&index) {
                found.retain(|value| value != b"two");
                assert_eq!(found, [&b"one"[..], b"three"], "{what}, {starts}: {index}");
            } else {
                let expected = [&b"one"[..], b"two", b"three"];
                assert_eq!(found, expected, "{what}, {starts}: {index}");
            }
        }
        for path in [DATA, OTHER] {
            let names = names_below(&mut cluster, path);
            let is_garbage = |name: &String| !name.starts_with("t-") || name.contains('.');
            assert!(!names.iter().any(is_garbage), "{what}: {names:?}");
        }
        cluster = start(cluster.simulation.kill(), 1);
        cluster.advance(60_000);
    }
}

/// Starts with a directory that is full from an operation on; gives the next operation on it.
fn start_while_full(
    (path, fault, at): (&str, Fault, u64),
    served: &mut Served,
) -> (bool, Option<u64>) {
    let what = format!("{fault:?} in {path} from operation {at} on");
    let simulation = killed(31);
    let mut faults = simulation.faults();
    faults.begin_trace();
    faults.fail_below_from(path, at, fault);
    drop(faults);
    let (mut simulation, handles) = try_start(simulation);
    // What goes behind the start.
    simulation.advance(Duration::from_millis(100));
    let trace = simulation.faults().take_trace();
    let able = |(kind, on): &(Operation, String)| on.starts_with(path) && fault.hits(*kind, on);
    let next = trace.iter().skip(at as usize).position(able);
    let next = next.map(|next| at + next as u64 + 1);
    match handles {
        Ok(handles) => {
            let mut cluster = Cluster {
                simulation,
                handles,
            };
            let here = 0..PARTITIONS;
            let full: Vec<i32> = here
                .filter(|index| is_in(&mut cluster, path, *index))
                .collect();
            assert_eq!(full.len(), 2);
            check_while_full(&mut cluster, &full, served, &what);
            cluster.simulation.faults().clear();
            check_healed(cluster, &full, &what);
            (true, next)
        }
        Err(why) => {
            assert!(
                FULL_SAID.iter().any(|said| why.contains(said)),
                "{what}: {why}"
            );
            let mut cluster = start(simulation.kill(), 1);
            append_everywhere(&mut cluster, b"two");
            assert_eq!(values(&mut cluster, 0), [&b"one"[..], b"two"], "{what}");
            (false, next)
        }
    }
}

#[test]
fn a_full_second_directory_refuses_no_start_behind_a_kill() {
    let mut served = Served::default();
    for fault in FULL {
        let (mut at, mut tries) = (Some(0), 0);
        while let Some(from) = at {
            let (is_started, next) = start_while_full((OTHER, fault, from), &mut served);
            assert!(is_started, "{fault:?} from operation {from} on");
            (at, tries) = (next, tries + 1);
        }
        assert!(tries > 10, "{tries}");
    }
    let Served { read, not_read } = served;
    assert!(read > 20 && not_read > 0, "{read} read, {not_read} not");
}

/// The first directory holds the catalogue: a start has to write there, or ends with a sentence.
#[test]
fn a_full_first_directory_loses_nothing_whether_a_start_is_refused_or_not() {
    let (mut served, mut started, mut refused) = (Served::default(), 0, 0);
    for fault in FULL {
        let mut at = Some(0);
        while let Some(from) = at {
            let (is_started, next) = start_while_full((DATA, fault, from), &mut served);
            started += u32::from(is_started);
            refused += u32::from(!is_started);
            at = next;
        }
    }
    assert!(started > 5 && refused > 5, "{started}, {refused}");
}

/// A move that its kill interrupted around its commit is ended when there is space again, and the log is
/// served then without a restart.
#[test]
fn a_full_second_directory_refuses_no_start_after_an_interrupted_move() {
    let (mut served, mut late) = (0, 0);
    for is_back in [false, true] {
        let (_, _, commit) = interrupted(is_back, None);
        for after in [-1, 1, 6, 24] {
            let steps = commit.saturating_add_signed(after);
            let mut at = Some(0);
            while let Some(from) = at {
                let (cluster, values, _) = interrupted(is_back, Some(steps));
                let what = format!("back: {is_back}, {after} from the commit, full from {from}");
                let simulation = cluster.simulation.kill();
                let mut faults = simulation.faults();
                faults.begin_trace();
                faults.fail_below_from(OTHER, from, Fault::NoSpace);
                drop(faults);
                let (simulation, handles) = try_start(simulation);
                let trace = simulation.faults().take_trace();
                let handles = handles.unwrap_or_else(|why| panic!("{what}: {why}"));
                let mut cluster = Cluster {
                    simulation,
                    handles,
                };
                let id = cluster.id("t", 0);
                let owner = cluster.owner(id);
                match cluster.ask(owner, read(id, DELETED, None)) {
                    Reply::Read(results) if results[0].error == ErrorCode::None => served += 1,
                    Reply::Read(results) => {
                        assert_eq!(results[0].error, ErrorCode::KafkaStorageError, "{what}");
                        late += 1;
                    }
                    other => panic!("{other:?}"),
                }
                cluster.simulation.faults().clear();
                cluster.advance(60_000);
                assert_eq!(
                    cluster.append(id, &[b"last"]).error,
                    ErrorCode::None,
                    "{what}"
                );
                for _ in 0..2 {
                    assert_holds(&mut cluster, &values, &what);
                    let mut held = directories(&mut cluster);
                    // A start removes what was renamed while nobody could tell whether that lasts.
                    held.retain(|path| !path.ends_with("-delete"));
                    assert_eq!(held.len(), 1, "{what}: {held:?}");
                    let start_offset = cluster.append(id, &[b"again"]).log_start_offset;
                    assert_eq!(start_offset, DELETED, "{what}");
                    cluster = start(cluster.simulation.kill(), 1);
                    cluster.advance(60_000);
                }
                let able = |(kind, on): &(Operation, String)| {
                    on.starts_with(OTHER) && Fault::NoSpace.hits(*kind, on)
                };
                let next = trace.iter().skip(from as usize).position(able);
                at = next.map(|next| from + next as u64 + 1);
            }
        }
    }
    assert!(served > 20 && late > 5, "{served} served, {late} late");
}
