//! Moves that a kill interrupted, and a start that meets a failing second log directory: it goes on
//! without that one, and serves the log whole or not at all.

use std::path::PathBuf;

use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_protocol::ErrorCode;
use chronik_shards::StartOptions;

use crate::cluster::{Cluster, options};
use crate::moves::{
    DELETED, OTHER, dir_id, directories, elsewhere, finish, go_on, move_to, prepare, start,
};

const SEED: u64 = 8000;

/// A move towards the second directory, or back from it, that was killed so many steps after it began; and
/// what was acknowledged. With `None` the steps until its commit are counted instead.
pub(crate) fn interrupted(is_back: bool, steps: Option<usize>) -> (Cluster, Vec<Vec<u8>>, usize) {
    let (mut cluster, mut values) = prepare(SEED, "disk");
    if is_back == (elsewhere(&mut cluster) == OTHER) {
        let there = elsewhere(&mut cluster);
        assert_eq!(move_to(&mut cluster, there), ErrorCode::None);
        finish(&mut cluster, there);
    }
    let target = elsewhere(&mut cluster);
    assert_eq!(target == OTHER, !is_back);
    let acknowledged = go_on(&mut cluster);
    assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
    let id = dir_id(&cluster, target);
    let mut taken = 0;
    let is_there = |cluster: &Cluster| {
        let image = cluster.handles[0].image();
        image.topic("t").expect("a topic").partitions[0].directories == [id]
    };
    while steps.map_or(!is_there(&cluster), |steps| taken < steps) {
        cluster.simulation.run_steps(1);
        taken += 1;
    }
    values.extend(acknowledged.borrow().iter().cloned());
    (cluster, values, taken)
}

/// Starts once while `spoil` is at work, and once without; says whether the log was served meanwhile, and
/// what the first start did on the disk.
fn start_twice(
    simulation: Simulation,
    mut values: Vec<Vec<u8>>,
    spoil: impl FnOnce(&Simulation),
    what: &str,
) -> (bool, Vec<(Operation, String)>) {
    simulation.faults().begin_trace();
    spoil(&simulation);
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
    let id = cluster.id("t", 0);
    let appended = cluster.append(id, &[b"between"]);
    let is_served = appended.error == ErrorCode::None;
    if is_served {
        assert_holds(&mut cluster, &values, what);
        // What was on its way at the kill may be there as well.
        values = cluster
            .values(id, DELETED)
            .into_iter()
            .map(|v| v.1)
            .collect();
    } else {
        assert_eq!(appended.error, ErrorCode::KafkaStorageError, "{what}");
    }
    let mut cluster = start(cluster.simulation.kill(), 1);
    assert_holds(&mut cluster, &values, what);
    let held = directories(&mut cluster);
    let live = held.iter().filter(|path| path.ends_with("/t-0")).count();
    assert_eq!(live, 1, "{what}: {held:?}");
    (is_served, trace)
}

pub(crate) fn assert_holds(cluster: &mut Cluster, expected: &[Vec<u8>], what: &str) {
    let id = cluster.id("t", 0);
    let found = cluster.values(id, DELETED).into_iter();
    let found: Vec<Vec<u8>> = found.map(|(_, value)| value).collect();
    let counts = (found.len(), expected.len());
    assert!(found.starts_with(expected), "{what}: {counts:?}");
}

#[test]
fn a_failing_directory_refuses_no_start_after_an_interrupted_move() {
    let (mut served, mut offline) = (0, 0);
    for is_back in [false, true] {
        let (_, _, commit) = interrupted(is_back, None);
        for after in [-1, 1, 6, 24] {
            let steps = commit.saturating_add_signed(after);
            // `None`: an undisturbed start, which tells what there is to fail.
            let mut from = vec![None];
            while let Some(at) = from.pop() {
                let (cluster, values, _) = interrupted(is_back, Some(steps));
                let what = format!("back: {is_back}, {after} from the commit, broken from {at:?}");
                let spoil = |simulation: &Simulation| {
                    if let Some(at) = at {
                        simulation.faults().break_below_from(OTHER, at);
                    }
                };
                let simulation = cluster.simulation.kill();
                let (is_served, trace) = start_twice(simulation, values, spoil, &what);
                if at.is_none() {
                    let noted = (0..).zip(trace);
                    let met = noted.filter(|(_, (_, path))| path.starts_with(OTHER));
                    from.extend(met.map(|(at, _)| Some(at)).step_by(4));
                    assert!(is_served && from.len() > 4, "{what}");
                } else {
                    served += u32::from(is_served);
                    offline += u32::from(!is_served);
                }
            }
        }
    }
    assert!(served > 20 && offline > 20, "{served}, {offline}");
}

#[test]
fn one_entry_that_cannot_be_changed_refuses_no_start_after_an_interrupted_move() {
    for is_back in [false, true] {
        let (_, _, commit) = interrupted(is_back, None);
        for after in [-40, -1, 0, 1, 3, 6] {
            for (operation, entry) in [
                (Operation::Directory, "/t-0"),
                (Operation::Write, "/recovery-point-offset-checkpoint"),
            ] {
                for skip in 0..4 {
                    let steps = commit.saturating_add_signed(after);
                    let (cluster, values, _) = interrupted(is_back, Some(steps));
                    let what = format!(
                        "back: {is_back}, {after} from the commit, {operation:?} {entry}, {skip}"
                    );
                    let path = format!("{OTHER}{entry}");
                    let spoil = |simulation: &Simulation| {
                        let faults = &mut simulation.faults();
                        faults.script(operation, &path, skip, Fault::Broken);
                    };
                    start_twice(cluster.simulation.kill(), values, spoil, &what);
                }
            }
        }
    }
}
