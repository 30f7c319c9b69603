//! Reads from disk: what they hold, and that nobody waits for somebody else's many parts.

use std::cell::RefCell;
use std::rc::Rc;

use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::{ErrorCode, Uuid};
use chronik_shards::limits::{DISK_READ_BYTES_MAX, READ_GIVEN_BYTES_MAX};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::Cluster;

/// Sends a request; when its reply comes, `order` learns the number.
fn send(
    cluster: &Cluster,
    number: usize,
    request: Request,
    order: &Rc<RefCell<Vec<(usize, Reply)>>>,
) {
    let (endpoint, order) = (cluster.handles[0].endpoint().clone(), Rc::clone(order));
    cluster.simulation.world().spawn(async move {
        let reply = endpoint.call(0, request).await.expect("answered");
        order.borrow_mut().push((number, reply));
    });
}

fn part(partition: PartitionId, fetch_offset: i64, max_bytes: usize) -> ReadPart {
    ReadPart {
        partition,
        fetch_offset,
        max_bytes,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn read(parts: Vec<ReadPart>) -> Request {
    Request::Read(ReadRequest {
        isolation: Isolation::ReadUncommitted,
        max_bytes: 50 << 20,
        parts,
        wait: None,
        reader: None,
    })
}

fn offsets(reply: Reply) -> Vec<(ErrorCode, Option<i64>)> {
    let Reply::Read(results) = reply else {
        panic!("{reply:?}")
    };
    let first = |result: &ReadResult| result.records.batch_headers().next();
    let each = results.iter();
    each.map(|result| (result.error, first(result).map(|header| header.base_offset)))
        .collect()
}

/// A log of `count` batches, and one of a single batch; nothing of them is in memory.
fn cold(seed: u64, count: i64, value: &[u8]) -> (Cluster, PartitionId, PartitionId) {
    let mut cluster = Cluster::start(Simulation::new(seed), 1);
    cluster.create("many", 1).expect("created");
    cluster.create("other", 1).expect("created");
    let (many, other) = (cluster.id("many", 0), cluster.id("other", 0));
    for offset in 0..count {
        let result = cluster.append(many, &[value]);
        assert_eq!(
            (result.error, result.base_offset),
            (ErrorCode::None, offset)
        );
    }
    cluster.append(other, &[b"small"]);
    let cluster = Cluster::start(cluster.stop(), 1);
    (cluster, many, other)
}

#[test]
fn many_cold_parts_are_read_in_turns_with_others_in_between() {
    let count = 1500;
    let (mut cluster, many, other) = cold(31, count, &[7; 1000]);
    let order = Rc::new(RefCell::new(Vec::new()));
    let parts = (0..count).map(|offset| part(many, offset, 1200)).collect();
    send(&cluster, 0, read(parts), &order);
    send(&cluster, 1, read(vec![part(other, 0, 1200)]), &order);
    cluster.advance(600_000);
    let mut order = order.take();
    assert_eq!(order.len(), 2);
    assert_eq!(order[0].0, 1, "the small one is served in between");
    assert_eq!(offsets(order.remove(0).1), [(ErrorCode::None, Some(0))]);
    let given = offsets(order.remove(0).1);
    let expected: Vec<_> = (0..count).map(|at| (ErrorCode::None, Some(at))).collect();
    assert_eq!(given, expected);
    let peak = cluster.handles[0].meters().disk_reading_bytes_peak.get();
    assert!(peak > 1 << 20, "many were read at a time: {peak}");
    assert!(peak <= DISK_READ_BYTES_MAX as u64, "{peak}");
}

/// What is let in is bounded by what it may give, and everybody comes to an end.
#[test]
fn reads_that_may_give_much_wait_for_each_other() {
    let (mut cluster, many, _) = cold(32, 40, &[7; 300 << 10]);
    let order = Rc::new(RefCell::new(Vec::new()));
    let readers = 30;
    for number in 0..readers {
        let parts = (0..40).map(|offset| part(many, offset, 4 << 20)).collect();
        send(&cluster, number, read(parts), &order);
    }
    cluster.advance(600_000);
    let order = order.take();
    assert_eq!(order.len(), readers);
    for (number, reply) in order {
        let given = offsets(reply);
        let filled = given.iter().filter(|part| part.1.is_some()).count();
        assert!(given.iter().all(|part| part.0 == ErrorCode::None));
        assert!(filled > 10, "{number}: {filled} parts");
    }
    let peak = cluster.handles[0].meters().disk_reading_bytes_peak.get();
    assert!(
        peak <= DISK_READ_BYTES_MAX.max(READ_GIVEN_BYTES_MAX) as u64,
        "{peak}"
    );
}

/// Batches longer than a block, more of them than may be held at a time.
#[test]
fn long_batches_are_given_one_after_the_other() {
    let mut cluster = Cluster::start(Simulation::new(33), 1);
    cluster.create("long", 6).expect("created");
    let ids: Vec<_> = (0..6).map(|index| cluster.id("long", index)).collect();
    for id in &ids {
        let result = cluster.append(*id, &[&[9; 40 << 20]]);
        assert_eq!(result.error, ErrorCode::None);
        cluster.append(*id, &[b"behind"]);
    }
    let mut cluster = Cluster::start(cluster.stop(), 1);
    let order = Rc::new(RefCell::new(Vec::new()));
    for (number, id) in ids.iter().enumerate() {
        let next = ids[(number + 1) % ids.len()];
        // The long one is given whole, for it is the first; of the other only what fits.
        let parts = vec![part(*id, 0, 1000), part(next, 1, 1000)];
        send(&cluster, number, read(parts), &order);
    }
    cluster.advance(600_000);
    let order = order.take();
    assert_eq!(order.len(), ids.len());
    for (number, reply) in order {
        let expected = [(ErrorCode::None, Some(0)), (ErrorCode::None, Some(1))];
        assert_eq!(offsets(reply), expected, "{number}");
    }
    let peak = cluster.handles[0].meters().disk_reading_bytes_peak.get();
    assert!(peak <= DISK_READ_BYTES_MAX as u64, "{peak}");
}

/// A read that holds one long batch and wants another waits neither for itself nor for one like it.
#[test]
fn reads_of_several_long_batches_come_to_an_end() {
    let mut cluster = Cluster::start(Simulation::new(35), 1);
    cluster.create("long", 2).expect("created");
    let [longest, long] = [0, 1].map(|index| cluster.id("long", index));
    for (id, bytes) in [(longest, 70 << 20), (long, 5 << 20)] {
        let result = cluster.append(id, &[&vec![9; bytes]]);
        assert_eq!(result.error, ErrorCode::None);
    }
    for readers in [1, 3] {
        cluster = Cluster::start(cluster.stop(), 1);
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..readers {
            let parts = vec![part(longest, 0, 1000), part(long, 0, 6 << 20)];
            send(&cluster, number, read(parts), &order);
        }
        cluster.advance(600_000);
        let order = order.take();
        assert_eq!(order.len(), readers, "all of them are answered");
        for (number, reply) in order {
            let expected = [(ErrorCode::None, Some(0)), (ErrorCode::None, Some(0))];
            assert_eq!(offsets(reply), expected, "{number} of {readers}");
        }
    }
    cluster.stop();
}

/// Those who come again and again for a little leave room for one who wants much.
#[test]
fn a_large_read_is_not_passed_for_ever_by_small_ones() {
    let (mut cluster, many, _) = cold(36, 500, &[7; 300 << 10]);
    let order = Rc::new(RefCell::new(Vec::new()));
    let small = Rc::new(RefCell::new(0));
    for number in 0..6 {
        let endpoint = cluster.handles[0].endpoint().clone();
        let (order, small) = (Rc::clone(&order), Rc::clone(&small));
        cluster.simulation.world().spawn(async move {
            // Each another block, so that the cache has none of them.
            for step in 0.. {
                if !order.borrow().is_empty() || step == 200 {
                    break;
                }
                let offset = (number * 83 + step * 17) % 460;
                let request = read(vec![part(many, offset, 14 << 20)]);
                endpoint.call(0, request).await.expect("answered");
                *small.borrow_mut() += 1;
            }
        });
    }
    cluster.advance(20);
    let parts = (0..12).map(|at| part(many, at * 40, 5 << 20)).collect();
    let before = *small.borrow();
    send(&cluster, 6, read(parts), &order);
    cluster.advance(600_000);
    assert_eq!(order.borrow().len(), 1);
    let passed = *small.borrow() - before;
    assert!(passed < 100, "{passed} small ones went before");
}

/// Nothing is read any more for those who have gone, and they keep nobody waiting.
#[test]
fn what_nobody_wants_any_more_is_not_read() {
    let (mut cluster, many, other) = cold(37, 60, &[7; 300 << 10]);
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut readers = Vec::new();
    for number in 0..200 {
        let parts = (0..12).map(|at| part(many, at * 5, 4 << 20)).collect();
        let mut request = read(parts);
        if let Request::Read(request) = &mut request {
            readers.push(request.reader.insert(Reader::default()).clone());
        }
        send(&cluster, number, request, &order);
    }
    send(&cluster, 200, read(vec![part(other, 0, 1200)]), &order);
    let before = cluster.handles[0].meters().disk_reads.get();
    readers.iter().for_each(Reader::leave);
    cluster.advance(600_000);
    assert_eq!(order.borrow().len(), 201, "all of them are answered");
    let wanted = order.take().into_iter().find(|(number, _)| *number == 200);
    let (_, wanted) = wanted.expect("answered");
    assert_eq!(offsets(wanted), [(ErrorCode::None, Some(0))]);
    let reads = cluster.handles[0].meters().disk_reads.get() - before;
    assert!(reads < 30, "{reads} reads, though one was wanted");
}

/// More searches than may be under way, of logs in files and of such that are not there.
#[test]
fn searches_by_time_take_turns_and_all_are_answered() {
    let (mut cluster, many, other) = cold(34, 50, &[7; 1000]);
    let query = |partition, target| OffsetQuery {
        partition,
        current_leader_epoch: -1,
        isolation: Isolation::ReadUncommitted,
        target,
    };
    let nowhere = PartitionId {
        topic_id: Uuid(99),
        index: 0,
    };
    let mut queries = Vec::new();
    for _ in 0..20 {
        queries.push(query(many, OffsetTarget::Timestamp(0)));
        queries.push(query(nowhere, OffsetTarget::Timestamp(0)));
        queries.push(query(other, OffsetTarget::MaxTimestamp));
        queries.push(query(many, OffsetTarget::Latest));
    }
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        send(
            &cluster,
            number,
            Request::ListOffsets(queries.clone()),
            &order,
        );
    }
    cluster.advance(600_000);
    let order = order.take();
    assert_eq!(order.len(), 3);
    for (_, reply) in order {
        let Reply::ListOffsets(answers) = reply else {
            panic!("{reply:?}")
        };
        let found: Vec<_> = answers.iter().map(|answer| answer.offset).collect();
        assert_eq!(found, [0, -1, 0, 50].repeat(20));
    }
}
