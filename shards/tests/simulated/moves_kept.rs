//! What a move between log directories keeps beside the records: the last batches of producers, the writes
//! of the group coordinator, and its turn among the changes of the catalogue.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use chronik_catalog::{ControllerReply, ControllerRequest};
use chronik_coordinators::groups::{GroupReply, OFFSETS_TOPIC};
use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_protocol::ErrorCode;
use chronik_protocol::record::{BatchBuilder, NewRecord};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, DATA, create};
use crate::groups::{commit, commit_request, committed};
use crate::moves::{OTHER, dir_id, elsewhere, finish, move_to, prepare, start};

/// Appends a batch of two records of an idempotent producer.
fn produce(cluster: &mut Cluster, sequence: i32) -> AppendResult {
    let partition = cluster.id("t", 0);
    let mut builder = BatchBuilder::new(0).producer(77, 3, sequence);
    for _ in 0..2 {
        let record = NewRecord {
            timestamp: 1,
            value: Some(b"once"),
            ..NewRecord::default()
        };
        builder.push(&record).expect("a small record");
    }
    let batch = builder.build().expect("a small batch");
    let request = Request::Append(AppendRequest {
        acks: Acks::All,
        timeout_ms: 30_000,
        parts: vec![AppendPart { partition, batch }],
    });
    let owner = cluster.owner(partition);
    match cluster.ask(owner, request) {
        Reply::Append(mut results) => results.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_producer_s_last_five_batches_are_known_after_a_move_and_after_one_that_came_to_nothing() {
    // Nothing is short; a step of the move is, which step differs; the opening after it is.
    let mut cases = vec![None, Some((Operation::Read, "/t-0/", 0))];
    cases.extend((0..8).map(|first| Some((Operation::Sync, "/t-0.", first))));
    cases.extend((0..8).map(|first| Some((Operation::Directory, "/t-0", first))));
    for (seed, case) in (13_000..).zip(cases) {
        let (mut cluster, _) = prepare(seed, "disk");
        let target = elsewhere(&mut cluster);
        let offsets: Vec<i64> = (0..6)
            .map(|number| produce(&mut cluster, 2 * number).base_offset)
            .collect();
        if let Some((operation, path, first)) = case {
            let path = format!("{target}{path}");
            for number in first..first + 3 {
                let faults = &mut cluster.simulation.faults();
                faults.script(operation, &path, number, Fault::NoSpace);
            }
        }
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
        cluster.advance(40_000);
        finish(&mut cluster, target);
        for number in 1..6_u8 {
            let again = produce(&mut cluster, 2 * i32::from(number));
            let expected = (ErrorCode::None, offsets[usize::from(number)]);
            let context = format!("{case:?}, batch {number}: {again:?}");
            assert_eq!((again.error, again.base_offset), expected, "{context}");
        }
        let gone = produce(&mut cluster, 0);
        assert_eq!(gone.error, ErrorCode::OutOfOrderSequenceNumber, "{case:?}");
        let next = produce(&mut cluster, 12);
        assert_eq!(next.base_offset, offsets[5] + 2, "{case:?}: {next:?}");
    }
}

/// A machine with one partition of `__consumer_offsets`, its id, and where that does not lie.
fn with_groups(seed: u64) -> (Cluster, PartitionId, &'static str) {
    let mut cluster = start(Simulation::new(seed), 2);
    cluster.create("t", 1).expect("created");
    cluster.create(OFFSETS_TOPIC, 1).expect("created");
    let (t, id) = (cluster.id("t", 0), cluster.id(OFFSETS_TOPIC, 0));
    assert_eq!(commit(&mut cluster, "g", t, 0), ErrorCode::None);
    let target = match is_in(&cluster, DATA) {
        true => OTHER,
        false => DATA,
    };
    (cluster, id, target)
}

/// Whether the catalogue says that the coordinator's partition lies below this directory.
fn is_in(cluster: &Cluster, path: &str) -> bool {
    let image = cluster.handles[0].image();
    let topic = image.topic(OFFSETS_TOPIC).expect("a topic");
    topic.partitions[0].directories == [dir_id(cluster, path)]
}

fn move_offsets(cluster: &mut Cluster, id: PartitionId, path: &str) {
    let dir = dir_id(cluster, path);
    let asked = cluster.ask(COORDINATOR_SHARD, Request::MoveLogs(vec![(id, dir)]));
    assert!(matches!(asked, Reply::MoveLogs(codes) if codes == [ErrorCode::None]));
}

/// Commits ever greater offsets of a group, one after the other: the last that was acknowledged, and what
/// was refused.
fn keep_committing(cluster: &Cluster, pause: Duration) -> (Rc<Cell<i64>>, Rc<RefCell<Vec<i16>>>) {
    let (last, refused) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let (told, codes) = (Rc::clone(&last), Rc::clone(&refused));
    let (t, endpoint) = (cluster.id("t", 0), cluster.handles[0].endpoint().clone());
    let world = cluster.simulation.world();
    cluster.simulation.world().spawn(async move {
        for offset in 1.. {
            let request = Request::Group(Box::new(commit_request("g", t, offset)));
            let Ok(Reply::Group(reply)) = endpoint.call(COORDINATOR_SHARD, request).await else {
                return;
            };
            let GroupReply::CommitOffsets(reply) = *reply else {
                return;
            };
            match reply.topics[0].partitions[0].error_code {
                0 => told.set(offset),
                code => codes.borrow_mut().push(code),
            }
            world.sleep_for(pause).await;
        }
    });
    (last, refused)
}

#[test]
fn commits_go_on_while_the_partition_that_takes_them_moves() {
    let (mut cluster, id, mut target) = with_groups(14_000);
    let (last, refused) = keep_committing(&cluster, Duration::from_micros(50));
    for round in 0..6 {
        let before = last.get();
        move_offsets(&mut cluster, id, target);
        for _ in 0..2000 {
            if is_in(&cluster, target) {
                break;
            }
            cluster.simulation.run_steps(20);
        }
        assert!(is_in(&cluster, target), "{round}");
        cluster.simulation.run_steps(3000);
        assert!(last.get() > before, "{round}");
        assert_eq!(*refused.borrow(), [0_i16; 0], "{round}");
        target = if target == DATA { OTHER } else { DATA };
    }
    let simulation = cluster.simulation.kill();
    let told = last.get();
    let found = committed(&mut start(simulation, 1), "g", 0);
    assert!((told..=told + 1).contains(&found), "{found}, {told}");
}

#[test]
fn a_commit_that_waits_for_a_log_that_is_not_opened_again_is_refused_and_later_ones_are_taken() {
    let (mut cluster, id, target) = with_groups(14_100);
    let path = format!("{target}/{OFFSETS_TOPIC}-0/");
    for number in 0..400 {
        let faults = &mut cluster.simulation.faults();
        faults.script(Operation::Read, &path, number, Fault::NoSpace);
    }
    let (last, refused) = keep_committing(&cluster, Duration::from_millis(50));
    move_offsets(&mut cluster, id, target);
    cluster.advance(5_000);
    assert!(is_in(&cluster, target));
    assert!(!refused.borrow().is_empty());
    let before = last.get();
    cluster.simulation.faults().clear();
    cluster.advance(62_000);
    let after = last.get();
    assert!(after > before, "{before}, {after}");
    let found = committed(&mut start(cluster.simulation.kill(), 1), "g", 0);
    assert!(found >= after, "{found}, {after}");
}

#[test]
fn a_turn_comes_once_what_was_asked_for_before_is_made() {
    let (mut cluster, _) = prepare(15_000, "disk");
    let creates = cluster.handles[0].endpoint().clone();
    cluster.simulation.world().spawn(async move {
        let request = Request::Control(create("many", 100));
        assert!(creates.call(COORDINATOR_SHARD, request).await.is_ok());
    });
    cluster.simulation.run_steps(1);
    let turn = cluster.control(ControllerRequest::AwaitTurn);
    assert!(matches!(turn, ControllerReply::Turn(Ok(()))), "{turn:?}");
    assert!(cluster.handles[0].image().topic("many").is_some());
}
