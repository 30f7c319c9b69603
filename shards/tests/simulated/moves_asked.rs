//! What is under way while a log changes its directory: cold reads and lookups are answered as if nothing
//! had moved, and no append overtakes those that wait.

use std::cell::RefCell;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, append, read};
use crate::moves::{DELETED, dir_id, elsewhere, finish, move_to, prepare, start};

/// Records of [`prepare`], with those that it deletes.
const RECORDS: i64 = 7;

/// Moves the log without anything else, and counts the steps until the catalogue says so.
fn steps_to_commit(cluster: &mut Cluster) -> usize {
    let target = elsewhere(cluster);
    let id = dir_id(cluster, target);
    assert_eq!(move_to(cluster, target), ErrorCode::None);
    for taken in 0.. {
        let image = cluster.handles[0].image();
        if image.topic("t").expect("a topic").partitions[0].directories == [id] {
            return taken;
        }
        cluster.simulation.run_steps(1);
    }
    unreachable!("it is committed")
}

/// A broker that has nothing of its log in memory.
fn cold(seed: u64) -> Cluster {
    let (cluster, _) = prepare(seed, "disk");
    start(cluster.simulation.kill(), 2)
}

/// Asks for every record and looks times up, all at once; gives the errors once all are answered.
fn ask(cluster: &mut Cluster, errors: &Rc<RefCell<Vec<ErrorCode>>>, id: PartitionId) {
    let owner = cluster.owner(id);
    let mut requests: Vec<Request> = (DELETED..RECORDS).map(|at| read(id, at, None)).collect();
    for timestamp in [0, 1] {
        let query = OffsetQuery {
            partition: id,
            current_leader_epoch: -1,
            target: OffsetTarget::Timestamp(timestamp),
            isolation: Isolation::ReadUncommitted,
        };
        requests.push(Request::ListOffsets(vec![query]));
    }
    for request in requests {
        let endpoint = cluster.handles[0].endpoint().clone();
        let errors = Rc::clone(errors);
        cluster.simulation.world().spawn(async move {
            let found = match endpoint.call(owner, request).await {
                Ok(Reply::Read(results)) => {
                    let is_empty = results[0].records.is_empty();
                    assert!(!is_empty || results[0].error != ErrorCode::None);
                    results[0].error
                }
                Ok(Reply::ListOffsets(answers)) => answers[0].error,
                other => panic!("{other:?}"),
            };
            errors.borrow_mut().push(found);
        });
    }
}

#[test]
fn reads_and_lookups_that_a_move_overtakes_are_answered_as_if_nothing_had_moved() {
    let commit = steps_to_commit(&mut cold(16_000));
    let mut overtaken = 0;
    for before in 0..90 {
        let mut cluster = cold(16_000);
        let (id, target) = (cluster.id("t", 0), elsewhere(&mut cluster));
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
        cluster.simulation.run_steps(commit.saturating_sub(before));
        let errors = Rc::default();
        ask(&mut cluster, &errors, id);
        finish(&mut cluster, target);
        cluster.advance(1_000);
        let count = usize::try_from(RECORDS - DELETED).expect("few") + 2;
        assert_eq!(*errors.borrow(), vec![ErrorCode::None; count], "{before}");
        overtaken += 1;
    }
    assert!(overtaken > 0);
}

/// Large appends one behind the other, more than may wait, then small ones.
#[test]
fn an_append_that_finds_no_room_to_wait_is_refused_and_overtakes_none() {
    let commit = steps_to_commit(&mut cold(17_000));
    let mut refused = 0;
    for before in (0..60).step_by(6) {
        let mut cluster = cold(17_000);
        let (id, target) = (cluster.id("t", 0), elsewhere(&mut cluster));
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
        cluster.simulation.run_steps(commit.saturating_sub(before));
        let told: Rc<RefCell<Vec<(usize, AppendResult)>>> = Rc::default();
        let owner = cluster.owner(id);
        let endpoint = cluster.handles[owner].endpoint().clone();
        let (world, all) = (cluster.simulation.world(), Rc::clone(&told));
        cluster.simulation.world().spawn(async move {
            for number in 0..17_000 {
                let request = append(id, &[format!("{number}").as_bytes()]);
                let call = endpoint.send(owner, request).await;
                let told = Rc::clone(&all);
                world.spawn(async move {
                    let Ok(Reply::Append(mut results)) = call.await else {
                        panic!("another answer");
                    };
                    told.borrow_mut().push((number, results.remove(0)));
                });
            }
        });
        finish(&mut cluster, target);
        cluster.advance(10_000);
        let mut told = told.take();
        assert_eq!(told.len(), 17_000);
        told.sort_by_key(|(number, _)| *number);
        let mut last = -1;
        for (number, result) in told {
            match result.error {
                ErrorCode::None => {
                    assert!(
                        result.base_offset > last,
                        "{before}: {number} overtook others"
                    );
                    last = result.base_offset;
                }
                ErrorCode::RequestTimedOut => refused += 1,
                error => panic!("{before}: {number}: {error:?}"),
            }
        }
    }
    assert!(refused > 0);
}
