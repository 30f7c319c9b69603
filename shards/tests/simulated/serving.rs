//! What shards answer: appends, reads, waits, offsets, across restarts with any number of shards.

use std::cell::RefCell;
use std::rc::Rc;

use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::{ErrorCode, Uuid};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, append, batch, read};

#[test]
fn records_come_back_after_a_clean_stop_on_any_number_of_shards() {
    let mut cluster = Cluster::start(Simulation::new(1), 3);
    cluster.create("t", 5).expect("created");
    for index in 0..5 {
        let id = cluster.id("t", index);
        for number in 0..4u8 {
            let result = cluster.append(id, &[&[number], b"second"]);
            assert_eq!(
                (result.error, result.base_offset),
                (ErrorCode::None, i64::from(number) * 2)
            );
        }
    }
    let epoch = cluster.handles[0].image().topic("t").expect("t").partitions[0].leader_epoch;
    let mut simulation = cluster.stop();
    for count in [1, 4, 2] {
        let mut cluster = Cluster::start(simulation, count);
        for index in 0..5 {
            let values = cluster.values(cluster.id("t", index), 0);
            let wanted: Vec<_> = (0..4u8)
                .flat_map(|number| {
                    let offset = i64::from(number) * 2;
                    [(offset, vec![number]), (offset + 1, b"second".to_vec())]
                })
                .collect();
            assert_eq!(values, wanted);
        }
        let now = cluster.handles[0].image().topic("t").expect("t").partitions[0].leader_epoch;
        assert!(now > epoch, "the leader epoch grows with each start");
        simulation = cluster.stop();
    }
}

/// Sends a request whose reply is looked at later.
fn send(cluster: &Cluster, shard: usize, request: Request) -> Rc<RefCell<Option<Reply>>> {
    let reply = Rc::new(RefCell::new(None));
    let (endpoint, slot) = (cluster.handles[0].endpoint().clone(), Rc::clone(&reply));
    cluster.simulation.world().spawn(async move {
        *slot.borrow_mut() = endpoint.call(shard, request).await.ok();
    });
    reply
}

fn wait(cluster: &Cluster, min_bytes: usize, millis: u64, token: u64) -> Option<Wait> {
    let deadline_ns = cluster.simulation.world().monotonic_ns() + millis * 1_000_000;
    Some(Wait {
        min_bytes,
        deadline_ns,
        token: ParkToken(token),
    })
}

fn records_of(reply: &Rc<RefCell<Option<Reply>>>) -> Option<usize> {
    match reply.borrow_mut().take()? {
        Reply::Read(results) => {
            assert_eq!(results[0].error, ErrorCode::None);
            Some(results[0].records.len())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_parked_read_wakes_for_bytes_deadline_and_cancellation() {
    let mut cluster = Cluster::start(Simulation::new(2), 2);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    let owner = cluster.owner(id);
    let one = batch(&[b"x"]).bytes.len();

    let parked = send(
        &cluster,
        owner,
        read(id, 0, wait(&cluster, one + 1, 60_000, 1)),
    );
    cluster.advance(1000);
    cluster.append(id, &[b"x"]);
    cluster.advance(1000);
    assert!(parked.borrow().is_none(), "not enough bytes yet");
    cluster.append(id, &[b"y"]);
    cluster.advance(1);
    assert_eq!(records_of(&parked), Some(2 * one));

    let parked = send(&cluster, owner, read(id, 2, wait(&cluster, 1, 500, 2)));
    cluster.advance(499);
    assert!(parked.borrow().is_none());
    cluster.advance(2);
    assert_eq!(
        records_of(&parked),
        Some(0),
        "the deadline gives what is there"
    );

    let parked = send(&cluster, owner, read(id, 2, wait(&cluster, 1, 60_000, 3)));
    cluster.advance(10);
    assert!(parked.borrow().is_none());
    cluster.ask(owner, Request::Cancel(ParkToken(3)));
    cluster.advance(1);
    assert_eq!(records_of(&parked), Some(0));

    let beyond = send(&cluster, owner, read(id, 99, wait(&cluster, 1, 60_000, 4)));
    cluster.advance(1);
    match beyond.borrow_mut().take() {
        Some(Reply::Read(results)) => assert_eq!(results[0].error, ErrorCode::OffsetOutOfRange),
        other => panic!("an error is never parked: {other:?}"),
    }
}

#[test]
fn a_wait_ends_with_progress_deadline_or_cancellation() {
    let mut cluster = Cluster::start(Simulation::new(3), 2);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    let owner = cluster.owner(id);
    let ask = |cluster: &Cluster, offset, millis, token| {
        let wait = wait(cluster, 1, millis, token).expect("a wait");
        let isolation = Isolation::ReadUncommitted;
        let request = AwaitRequest {
            isolation,
            parts: vec![(id, offset)],
            wait,
        };
        send(cluster, owner, Request::Await(request))
    };
    let taken = |reply: &Rc<RefCell<Option<Reply>>>| match reply.borrow_mut().take() {
        Some(Reply::Await(wake)) => Some(wake),
        None => None,
        other => panic!("{other:?}"),
    };
    let progress = ask(&cluster, 0, 60_000, 1);
    cluster.advance(10);
    assert_eq!(taken(&progress), None);
    cluster.append(id, &[b"x"]);
    let (deadline, cancelled) = (ask(&cluster, 1, 50, 2), ask(&cluster, 1, 60_000, 3));
    cluster.advance(10);
    cluster.ask(owner, Request::Cancel(ParkToken(3)));
    cluster.ask(owner, Request::Cancel(ParkToken(77)));
    cluster.advance(50);
    assert_eq!(taken(&progress), Some(Wake::Progress));
    assert_eq!(taken(&deadline), Some(Wake::Deadline));
    assert_eq!(taken(&cancelled), Some(Wake::Cancelled));
    let unknown = ask(&cluster, 17, 60_000, 4);
    cluster.advance(1);
    assert_eq!(
        taken(&unknown),
        Some(Wake::Progress),
        "a read would be an error"
    );
}

#[test]
fn everybody_who_waits_for_a_partition_is_answered() {
    let mut cluster = Cluster::start(Simulation::new(9), 1);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    let parked: Vec<_> = (0..100)
        .map(|token| send(&cluster, 0, read(id, 0, wait(&cluster, 1, 60_000, token))))
        .collect();
    cluster.advance(10);
    cluster.append(id, &[b"x"]);
    cluster.advance(10);
    let size = batch(&[b"x"]).bytes.len();
    assert!(parked.iter().all(|reply| records_of(reply) == Some(size)));
}

#[test]
fn a_deleted_topic_answers_whoever_waits_for_it() {
    let mut cluster = Cluster::start(Simulation::new(4), 2);
    cluster.create("t", 2).expect("created");
    let id = cluster.id("t", 1);
    let owner = cluster.owner(id);
    let parked = send(&cluster, owner, read(id, 0, wait(&cluster, 1, 60_000, 1)));
    cluster.advance(5);
    cluster.delete("t").expect("deleted");
    cluster.advance(1);
    match parked.borrow_mut().take() {
        Some(Reply::Read(results)) => assert_eq!(results[0].error, ErrorCode::UnknownTopicId),
        other => panic!("{other:?}"),
    }
    assert_eq!(cluster.append(id, &[b"x"]).error, ErrorCode::UnknownTopicId);
    assert_eq!(cluster.directories(), Vec::<String>::new());
    // The name can be used again at once, and nothing of the old log is there.
    cluster.create("t", 2).expect("created again");
    let again = cluster.id("t", 1);
    assert_ne!(again, id);
    assert_eq!(cluster.append(again, &[b"x"]).base_offset, 0);
}

#[test]
fn reads_share_their_bytes_in_order() {
    let mut cluster = Cluster::start(Simulation::new(5), 1);
    cluster.create("t", 3).expect("created");
    let one = batch(&[b"abc"]).bytes.len();
    for index in 0..3 {
        let id = cluster.id("t", index);
        for _ in 0..3 {
            cluster.append(id, &[b"abc"]);
        }
    }
    let part = |partition, fetch_offset| ReadPart {
        partition,
        fetch_offset,
        max_bytes: 2 * one,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let parts = vec![
        part(cluster.id("t", 0), 3),
        part(cluster.id("t", 1), 0),
        part(cluster.id("t", 2), 0),
    ];
    let sizes = |cluster: &mut Cluster, max_bytes| {
        let isolation = Isolation::ReadUncommitted;
        let request = ReadRequest {
            isolation,
            max_bytes,
            parts: parts.clone(),
            wait: None,
            reader: None,
        };
        match cluster.ask(0, Request::Read(request)) {
            Reply::Read(results) => results
                .iter()
                .map(|result| result.records.len() / one)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sizes(&mut cluster, 100 * one), [0, 2, 2]);
    assert_eq!(sizes(&mut cluster, 3 * one), [0, 2, 1]);
    assert_eq!(
        sizes(&mut cluster, 0),
        [0, 1, 0],
        "the first that has anything gives one batch"
    );
}

#[test]
fn epochs_and_places_are_checked() {
    let mut cluster = Cluster::start(Simulation::new(6), 3);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    let owner = cluster.owner(id);
    let error = |cluster: &mut Cluster, shard, partition, epoch| {
        let Request::Read(mut request) = read(partition, 0, None) else {
            unreachable!()
        };
        request.parts[0].current_leader_epoch = epoch;
        match cluster.ask(shard, Request::Read(request)) {
            Reply::Read(results) => results[0].error,
            other => panic!("{other:?}"),
        }
    };
    let epoch = cluster.handles[0].image().topic("t").expect("t").partitions[0].leader_epoch;
    assert_eq!(error(&mut cluster, owner, id, epoch), ErrorCode::None);
    assert_eq!(
        error(&mut cluster, owner, id, epoch + 1),
        ErrorCode::UnknownLeaderEpoch
    );
    let elsewhere = (owner + 1) % 3;
    assert_eq!(
        error(&mut cluster, elsewhere, id, -1),
        ErrorCode::NotLeaderOrFollower
    );
    let unknown = PartitionId {
        topic_id: Uuid(5),
        index: 0,
    };
    assert_eq!(
        error(&mut cluster, owner, unknown, -1),
        ErrorCode::UnknownTopicId
    );
    let beyond = PartitionId { index: 9, ..id };
    assert_eq!(
        error(&mut cluster, owner, beyond, -1),
        ErrorCode::UnknownTopicOrPartition
    );
    let mut cluster = Cluster::start(cluster.stop(), 3);
    let owner = cluster.owner(id);
    assert_eq!(
        error(&mut cluster, owner, id, epoch),
        ErrorCode::FencedLeaderEpoch
    );
}

#[test]
fn deleted_records_stay_deleted_after_a_kill() {
    let mut cluster = Cluster::start(Simulation::new(7), 2);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    for value in [b"a", b"b", b"c"] {
        cluster.append(id, &[value]);
    }
    let owner = cluster.owner(id);
    let part = |offset| DeleteRecordsPart {
        partition: id,
        offset,
    };
    match cluster.ask(owner, Request::DeleteRecords(vec![part(9), part(2)])) {
        Reply::DeleteRecords(results) => {
            assert_eq!(results[0].error, ErrorCode::OffsetOutOfRange);
            assert_eq!(
                (results[1].error, results[1].low_watermark),
                (ErrorCode::None, 2)
            );
        }
        other => panic!("{other:?}"),
    }
    let mut cluster = Cluster::start(cluster.simulation.crash(), 1);
    assert_eq!(cluster.values(id, 2), [(2, b"c".to_vec())]);
    match cluster.ask(0, read(id, 1, None)) {
        Reply::Read(results) => assert_eq!(results[0].error, ErrorCode::OffsetOutOfRange),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_append_that_cannot_be_made_safe_in_time_says_so_and_stays() {
    use chronik_io::simulated::{Fault, Operation};
    let mut cluster = Cluster::start(Simulation::new(8), 1);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    cluster.append(id, &[b"a"]);
    cluster.simulation.faults().script(
        Operation::Write,
        "t-0/00000000000000000000.log",
        0,
        Fault::Broken,
    );
    let result = cluster.append(id, &[b"b"]);
    assert_eq!(result.error, ErrorCode::KafkaStorageError, "{result:?}");
    assert_eq!(
        cluster.append(id, &[b"c"]).error,
        ErrorCode::KafkaStorageError
    );
    match cluster.ask(0, Request::DescribeLogs(LogScope::All)) {
        Reply::DescribeLogs(logs) => assert!(!logs[0].online),
        other => panic!("{other:?}"),
    }
    // Another topic is not concerned.
    cluster.create("u", 1).expect("created");
    let other = cluster.id("u", 0);
    assert_eq!(cluster.append(other, &[b"x"]).error, ErrorCode::None);
    let Request::Append(mut both) = append(other, &[b"y"]) else {
        unreachable!()
    };
    both.parts.push(AppendPart {
        partition: id,
        batch: batch(&[b"z"]),
    });
    match cluster.ask(0, Request::Append(both)) {
        Reply::Append(results) => {
            assert_eq!(results[0].error, ErrorCode::None);
            assert_eq!(results[1].error, ErrorCode::KafkaStorageError);
        }
        other => panic!("{other:?}"),
    }
    let mut cluster = Cluster::start(cluster.simulation.kill(), 1);
    assert_eq!(cluster.values(id, 0)[0], (0, b"a".to_vec()));
    assert_eq!(cluster.append(id, &[b"d"]).error, ErrorCode::None);
}

#[test]
fn who_reads_straight_on_finds_the_next_block_and_nothing_is_read_twice() {
    const BATCHES: i64 = 40;
    let mut cluster = Cluster::start(Simulation::new(11), 1);
    cluster.create("t", 1).expect("created");
    let id = cluster.id("t", 0);
    let value = |number: i64| vec![u8::try_from(number).expect("small"); 200_000];
    for number in 0..BATCHES {
        assert_eq!(cluster.append(id, &[&value(number)]).base_offset, number);
    }
    // A fresh start has nothing in its cache.
    let mut cluster = Cluster::start(cluster.stop(), 1);
    let disk_reads = |cluster: &Cluster| cluster.handles[0].meters().disk_reads.get();
    let before = disk_reads(&cluster);
    let found = cluster.values(id, 0);
    assert_eq!(found.len() as i64, BATCHES);
    for (number, (offset, found)) in found.into_iter().enumerate() {
        assert_eq!((offset, found), (number as i64, value(offset)));
    }
    // Five batches fit into the 1 MiB that is read at once.
    let blocks = BATCHES.unsigned_abs() / 5;
    assert_eq!(disk_reads(&cluster) - before, blocks);

    let mut cluster = Cluster::start(cluster.stop(), 1);
    let before = disk_reads(&cluster);
    for offset in [0, 5] {
        cluster.ask(0, read(id, offset, None));
    }
    // The third block is on its way by now: both wait for it, and the fourth follows.
    let readers = [10, 10].map(|offset| send(&cluster, 0, read(id, offset, None)));
    cluster.advance(1_000);
    for reader in &readers {
        assert!(records_of(reader).is_some_and(|bytes| bytes > 1_000_000));
    }
    assert_eq!(disk_reads(&cluster) - before, 4);
}
