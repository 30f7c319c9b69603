//! What goes on while a log moves between log directories, or waits to: other logs move, its own is
//! written, read, cut and deleted, whatever is short at that moment.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use chronik_catalog::ConfigResource;
use chronik_io::World;
use chronik_io::simulated::{Fault, Operation};
use chronik_protocol::ErrorCode;
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, DATA, append};
use crate::moves::{
    Acknowledged, DELETED, OTHER, begin, check, described, dir_id, directories, elsewhere, finish,
    futures, go_on, move_to, prepare, start, steps_to_commit,
};

/// Writes that find no space, one after the other.
fn short(cluster: &mut Cluster, (operation, path): (Operation, &str), (first, count): (u32, u32)) {
    for number in first..first + count {
        let faults = &mut cluster.simulation.faults();
        faults.script(operation, path, number, Fault::NoSpace);
    }
}

#[test]
fn a_log_that_waits_for_space_is_served_and_holds_up_no_other_move_no_deletion_and_no_stop() {
    let cases = [
        (Operation::Write, "t-0."),
        (Operation::Open, "t-0."),
        (Operation::Directory, "t-0."),
        (Operation::Write, "recovery-point-offset-checkpoint"),
    ];
    for (operation, name) in cases {
        for end in ["deleted", "stopped", "given up", "space"] {
            let (mut cluster, mut values) = prepare(7000, "disk");
            cluster.create("u", 8).expect("created");
            let (id, target) = (cluster.id("t", 0), elsewhere(&mut cluster));
            let path = format!("{target}/{name}");
            short(&mut cluster, (operation, &path), (0, 400));
            let context = format!("{operation:?} {path}, {end}");
            assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
            cluster.advance(20_000);
            let taken = cluster.append(id, &[b"meanwhile"]);
            assert_eq!(taken.error, ErrorCode::None, "{context}");
            values.push(b"meanwhile".to_vec());
            let found = cluster.values(id, DELETED);
            assert_eq!(found.len(), values.len(), "{context}");
            let copies = futures(&mut cluster);
            assert_eq!(copies.len(), 1, "{context}: it is still wanted");
            if name == "t-0." {
                others_move(&mut cluster, target, &context);
            }
            match end {
                "deleted" => {
                    cluster.delete("t").expect("deleted");
                    cluster.create("t", 1).expect("created again");
                    let id = cluster.id("t", 0);
                    assert_eq!(cluster.append(id, &[b"new"]).error, ErrorCode::None);
                    cluster.simulation.faults().clear();
                    cluster.advance(61_000);
                    let mut cluster = start(cluster.simulation.kill(), 1);
                    let held = directories(&mut cluster);
                    assert_eq!(held.len(), 1, "{context}: {held:?}");
                    assert_eq!(cluster.values(id, 0).len(), 1, "{context}");
                    continue;
                }
                "given up" => {
                    let source = if target == DATA { OTHER } else { DATA };
                    assert_eq!(move_to(&mut cluster, source), ErrorCode::None);
                    cluster.simulation.faults().clear();
                    cluster.advance(61_000);
                    finish(&mut cluster, source);
                }
                "space" => {
                    cluster.simulation.faults().clear();
                    cluster.advance(31_000);
                    finish(&mut cluster, target);
                }
                _ => cluster.simulation.faults().clear(),
            }
            let simulation = cluster.stop();
            check(&mut start(simulation, 1), &values, &context);
        }
    }
}

/// Every partition of `u` goes to this directory.
fn others_move(cluster: &mut Cluster, target: &str, context: &str) {
    let dir = dir_id(cluster, target);
    let ids: Vec<PartitionId> = (0..8).map(|index| cluster.id("u", index)).collect();
    for id in &ids {
        let owner = cluster.owner(*id);
        cluster.ask(owner, Request::MoveLogs(vec![(*id, dir)]));
    }
    cluster.advance(5_000);
    let image = cluster.handles[0].image();
    let topic = image.topic("u").expect("a topic");
    for info in &topic.partitions {
        assert_eq!(info.directories, [dir], "{context}");
    }
}

/// Appends one record after the other, whatever happens; gives those that were acknowledged, and how
/// many were not.
fn insist(cluster: &mut Cluster) -> (Acknowledged, Rc<Cell<usize>>) {
    let (acknowledged, refused) = (Acknowledged::default(), Rc::new(Cell::new(0)));
    let id = cluster.id("t", 0);
    let (owner, endpoint) = (cluster.owner(id), cluster.handles[0].endpoint().clone());
    let (told, count, world) = (
        Rc::clone(&acknowledged),
        Rc::clone(&refused),
        cluster.simulation.world(),
    );
    cluster.simulation.world().spawn(async move {
        for number in 0u64.. {
            let value = format!("more {number:06}").into_bytes();
            let request = append(id, &[&value]);
            let Ok(Reply::Append(results)) = endpoint.call(owner, request).await else {
                return;
            };
            match results[0].error {
                ErrorCode::None => told.borrow_mut().push(value),
                _ => count.set(count.get() + 1),
            }
            world.sleep_for(Duration::from_millis(100)).await;
        }
    });
    (acknowledged, refused)
}

#[test]
fn whatever_is_short_during_a_move_and_whenever_it_comes_to_an_end_without_a_loss() {
    // A log whose own write or sync fails has failed: these are the copy's.
    let operations = [
        (Operation::Write, "t-0."),
        (Operation::Sync, "t-0."),
        (Operation::Open, "t-0"),
        (Operation::Read, "t-0"),
        (Operation::Directory, "t-0"),
    ];
    for (operation, path) in operations {
        for skip in 0..24 {
            let (mut cluster, mut values) = prepare(8000 + u64::from(skip), "disk");
            let target = elsewhere(&mut cluster);
            let context = format!("{operation:?} after {skip}");
            let (acknowledged, refused) = insist(&mut cluster);
            // Two in a row: the way back is short of it, too.
            short(&mut cluster, (operation, path), (skip, 2));
            assert_eq!(move_to(&mut cluster, target), ErrorCode::None, "{context}");
            cluster.advance(40_000);
            finish(&mut cluster, target);
            let logs = described(&mut cluster);
            assert!(logs.iter().all(|log| log.online), "{context}: {logs:?}");
            let before = acknowledged.borrow().len();
            cluster.advance(1_000);
            assert!(acknowledged.borrow().len() > before, "{context}");
            let simulation = cluster.simulation.kill();
            values.extend(acknowledged.borrow().iter().cloned());
            let context = format!("{context}, {} refused", refused.get());
            check(&mut start(simulation, 1), &values, &context);
        }
    }
}

#[test]
fn a_log_that_cannot_be_opened_where_it_moved_to_is_so_later_or_goes_with_its_topic() {
    for end in ["deleted", "stopped", "killed", "served"] {
        let (mut cluster, mut values) = prepare(9000, "disk");
        cluster.create("u", 8).expect("created");
        let (id, target) = (cluster.id("t", 0), elsewhere(&mut cluster));
        short(
            &mut cluster,
            (Operation::Read, &format!("{target}/t-0/")),
            (0, 400),
        );
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
        cluster.advance(5_000);
        let refused = cluster.append(id, &[b"too early"]);
        assert_eq!(refused.error, ErrorCode::KafkaStorageError, "{end}");
        others_move(&mut cluster, target, end);
        let simulation = match end {
            "deleted" => {
                cluster.delete("t").expect("deleted");
                cluster.simulation.faults().clear();
                cluster.advance(61_000);
                assert_eq!(directories(&mut cluster), [""; 0], "{end}");
                continue;
            }
            "stopped" => {
                cluster.simulation.faults().clear();
                cluster.stop()
            }
            "killed" => cluster.simulation.kill(),
            _ => {
                cluster.simulation.faults().clear();
                cluster.advance(31_000);
                assert_eq!(cluster.append(id, &[b"at length"]).error, ErrorCode::None);
                values.push(b"at length".to_vec());
                cluster.stop()
            }
        };
        simulation.faults().clear();
        check(&mut start(simulation, 1), &values, end);
    }
}

/// Deletes records, with retention and compaction beside it, until it is refused; the greatest start that
/// was acknowledged.
fn cut(cluster: &mut Cluster) -> Rc<RefCell<i64>> {
    let id = cluster.id("t", 0);
    let (owner, endpoint) = (cluster.owner(id), cluster.handles[0].endpoint().clone());
    let (world, start) = (cluster.simulation.world(), Rc::new(RefCell::new(DELETED)));
    let told = Rc::clone(&start);
    cluster.simulation.world().spawn(async move {
        for offset in DELETED + 1.. {
            let part = DeleteRecordsPart {
                partition: id,
                offset,
            };
            let request = Request::DeleteRecords(vec![part]);
            let Ok(Reply::DeleteRecords(results)) = endpoint.call(owner, request).await else {
                return;
            };
            if results[0].error == ErrorCode::None {
                *told.borrow_mut() = offset;
            }
            world.sleep_for(Duration::from_micros(700)).await;
        }
    });
    start
}

#[test]
fn records_deleted_during_a_move_stay_deleted_and_the_others_are_there() {
    let mut moved = 0;
    for round in 0..40_usize {
        let (mut cluster, mut values) = prepare(10_000 + round as u64, "disk");
        let (id, target) = (cluster.id("t", 0), elsewhere(&mut cluster));
        if round % 4 == 3 {
            let topic = ConfigResource::Topic("t".into());
            cluster.set(topic, "retention.bytes", "1500000");
        }
        let acknowledged = go_on(&mut cluster);
        let start_told = cut(&mut cluster);
        assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
        cluster.simulation.run_steps(150 * round);
        let simulation = match round % 2 {
            0 => cluster.simulation.kill(),
            _ => cluster.simulation.crash(),
        };
        values.extend(acknowledged.borrow().iter().cloned());
        let mut cluster = start(simulation, 1 + round % 3);
        moved += usize::from(elsewhere(&mut cluster) != target);
        let last = cluster.append(id, &[b"at last"]);
        let log_start = last.log_start_offset;
        let told = *start_told.borrow();
        assert!(log_start >= told, "{round}: {log_start}, {told}");
        if round % 4 != 3 {
            assert!(log_start <= told + 1, "{round}: {log_start}, {told}");
        }
        let found = cluster.values(id, log_start).into_iter();
        let found: Vec<Vec<u8>> = found.map(|(_, value)| value).collect();
        let gone = usize::try_from(log_start - DELETED).expect("not negative");
        let expected = values.get(gone..).unwrap_or_default();
        assert!(found.starts_with(expected), "{round}: from {log_start}");
        assert!(found.len() <= expected.len() + 2, "{round}");
        assert_eq!(directories(&mut cluster).len(), 1, "{round}");
    }
    assert!((5..40).contains(&moved), "{moved} of them moved");
}

/// Deletes the records below this offset; whether that was acknowledged.
fn cut_at(cluster: &mut Cluster, offset: i64) -> Rc<Cell<bool>> {
    let partition = cluster.id("t", 0);
    let (owner, endpoint) = (
        cluster.owner(partition),
        cluster.handles[0].endpoint().clone(),
    );
    let told = Rc::new(Cell::new(false));
    let is_told = Rc::clone(&told);
    cluster.simulation.world().spawn(async move {
        let part = DeleteRecordsPart { partition, offset };
        let request = Request::DeleteRecords(vec![part]);
        if let Ok(Reply::DeleteRecords(results)) = endpoint.call(owner, request).await {
            is_told.set(results[0].error == ErrorCode::None);
        }
    });
    told
}

#[test]
fn records_deleted_stay_so_when_the_new_directory_does_not_learn_it() {
    let (mut told, mut moved) = (0, 0);
    for round in 0..40_usize {
        let seed = 11_000 + round as u64;
        let steps = steps_to_commit(seed, "disk") * (round + 1) / 40;
        let (mut cluster, _, target, _) = begin(seed, "disk");
        cluster.simulation.run_steps(steps);
        let file = format!("{target}/log-start-offset-checkpoint");
        for number in 0..100 {
            let faults = &mut cluster.simulation.faults();
            faults.script(Operation::Write, &file, number, Fault::Broken);
        }
        let is_told = cut_at(&mut cluster, DELETED + 2);
        cluster.simulation.run_steps(4_000);
        let mut cluster = start(cluster.simulation.kill(), 1 + round % 3);
        let id = cluster.id("t", 0);
        let log_start = cluster.append(id, &[b"at last"]).log_start_offset;
        if is_told.get() {
            told += 1;
            assert_eq!(log_start, DELETED + 2, "{round}, after {steps} steps");
        }
        moved += usize::from(elsewhere(&mut cluster) != target);
    }
    assert!(told > 10 && moved > 0, "{told} acknowledged, {moved} moved");
}
