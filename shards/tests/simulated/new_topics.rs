//! Topics of many partitions: the catalogue goes on while their logs are opened, whoever asks for one gets it
//! before the others, and a deletion, a stop, a kill or a power cut meanwhile leaves nothing behind and loses
//! nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use chronik_catalog::{ControllerReply, ControllerRequest, TopicRef};
use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, Random, Simulation};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, append, create, read};

const MANY: i32 = 200;

fn send(cluster: &Cluster, shard: usize, request: Request) -> Rc<RefCell<Option<Reply>>> {
    let reply = Rc::<RefCell<Option<Reply>>>::default();
    let (into, endpoint) = (Rc::clone(&reply), cluster.handles[0].endpoint().clone());
    cluster.simulation.world().spawn(async move {
        *into.borrow_mut() = endpoint.call(shard, request).await.ok();
    });
    reply
}

/// How many partitions of a topic have a directory.
fn opened(cluster: &mut Cluster, topic: &str) -> usize {
    let names = cluster.directories().into_iter();
    let of_topic = |name: &String| name.rsplit_once('-').is_some_and(|(of, _)| of == topic);
    names.filter(of_topic).count()
}

fn is_whole(cluster: &mut Cluster, topic: &str, count: i32) {
    for index in 0..count {
        let id = cluster.id(topic, index);
        let result = cluster.append(id, &[b"x"]);
        assert_eq!(result.error, ErrorCode::None, "{topic}-{index}");
    }
    assert_eq!(opened(cluster, topic), usize::try_from(count).unwrap());
}

#[test]
fn a_large_topic_stands_before_nobody() {
    let mut cluster = Cluster::start(Simulation::new(51), 2);
    cluster.create("old", 1).expect("created");
    cluster.create("many", MANY).expect("created");
    assert!(opened(&mut cluster, "many") < 100);
    let last = cluster.id("many", MANY - 1);
    assert_eq!(cluster.append(last, &[b"first"]).error, ErrorCode::None);
    assert_eq!(cluster.values(last, 0), [(0, b"first".to_vec())]);
    cluster.create("small", 1).expect("created");
    cluster.delete("old").expect("deleted");
    let small = cluster.id("small", 0);
    assert_eq!(cluster.append(small, &[b"x"]).error, ErrorCode::None);
    assert!(
        opened(&mut cluster, "many") < 150,
        "it is still being opened"
    );
    assert_eq!(opened(&mut cluster, "old"), 0);
    cluster.advance(600_000);
    assert_eq!(opened(&mut cluster, "many"), 200, "without being asked for");
    is_whole(&mut cluster, "many", MANY);
    cluster.stop();
}

/// Batches, and a read behind them, that come before the log is open are served in their order.
#[test]
fn who_comes_early_waits_in_order() {
    let mut cluster = Cluster::start(Simulation::new(52), 1);
    let created = send(&cluster, 0, Request::Control(create("many", MANY)));
    while created.borrow().is_none() {
        cluster.advance(1);
    }
    let (late, other) = (cluster.id("many", 150), cluster.id("many", 151));
    let both = |value: &[u8]| match (append(late, &[value]), append(other, &[value])) {
        (Request::Append(mut request), Request::Append(more)) => {
            request.parts.extend(more.parts);
            Request::Append(request)
        }
        _ => unreachable!(),
    };
    let requests = [
        append(late, &[b"1"]),
        both(b"2"),
        append(other, &[b"3"]),
        append(late, &[b"4"]),
        read(late, 0, None),
    ];
    let endpoint = cluster.handles[0].endpoint().clone();
    let replies = cluster.simulation.run(async move {
        let mut calls = Vec::new();
        for request in requests {
            calls.push(endpoint.send(0, request).await);
        }
        let mut replies = Vec::new();
        for call in calls {
            replies.push(call.await.expect("a reply"));
        }
        replies
    });
    for reply in replies {
        match reply {
            Reply::Append(results) => {
                assert!(results.iter().all(|result| result.error == ErrorCode::None));
            }
            Reply::Read(results) => assert_eq!(results[0].error, ErrorCode::None),
            other => panic!("{other:?}"),
        }
    }
    let values = |cluster: &mut Cluster, id| -> Vec<Vec<u8>> {
        cluster
            .values(id, 0)
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(values(&mut cluster, late), [b"1", b"2", b"4"]);
    assert_eq!(values(&mut cluster, other), [b"2", b"3"]);
}

/// Parts of one append: one for a log that is open, others for logs that are not.
fn mixed(open: PartitionId, new: &[PartitionId], value: &str) -> Request {
    let ids = std::iter::once(&open).chain(new);
    let parts = ids.flat_map(|id| match append(*id, &[value.as_bytes()]) {
        Request::Append(request) => request.parts,
        _ => unreachable!(),
    });
    Request::Append(AppendRequest {
        acks: Acks::All,
        timeout_ms: 30_000,
        parts: parts.collect(),
    })
}

fn with_open_and_new(seed: u64) -> (Cluster, PartitionId, Vec<PartitionId>) {
    let mut cluster = Cluster::start(Simulation::new(seed), 1);
    cluster.create("open", 1).expect("created");
    let open = cluster.id("open", 0);
    assert_eq!(cluster.append(open, &[b"open"]).error, ErrorCode::None);
    cluster.create("many", MANY).expect("created");
    let new = (0..MANY).map(|index| cluster.id("many", index)).collect();
    (cluster, open, new)
}

/// Nothing waits behind a part that waits, but the batches of the same partition.
#[test]
fn an_early_part_stands_before_nobody() {
    let (mut cluster, open, new) = with_open_and_new(58);
    let first = send(&cluster, 0, mixed(open, &new, "mixed"));
    let second = send(&cluster, 0, append(open, &[b"alone"]));
    while second.borrow().is_none() {
        cluster.advance(1);
    }
    assert!(first.borrow().is_none(), "its other parts wait");
    let values = cluster.values(open, 1);
    assert_eq!(values, [(1, b"mixed".to_vec()), (2, b"alone".to_vec())]);
    cluster.advance(2_000);
    assert!(first.borrow().is_some());
    cluster.stop();
}

/// More parts than may wait: those that find no room are refused, and none overtakes another.
#[test]
fn a_part_that_finds_no_room_behind_early_ones_is_refused_and_overtakes_none() {
    let (mut cluster, open, new) = with_open_and_new(57);
    type Told = Vec<(usize, Vec<AppendResult>)>;
    let told: Rc<RefCell<Told>> = Rc::default();
    let endpoint = cluster.handles[0].endpoint().clone();
    let (world, all) = (cluster.simulation.world(), Rc::clone(&told));
    cluster.simulation.world().spawn(async move {
        for number in 0..600 {
            // Ever fewer parts, so that there is room for the last ones where there was none before.
            let new = &new[if number < 150 { 0 } else { 199 }..];
            let request = mixed(open, new, &number.to_string());
            let call = endpoint.send(0, request).await;
            let told = Rc::clone(&all);
            world.spawn(async move {
                let Ok(Reply::Append(results)) = call.await else {
                    panic!("another answer");
                };
                told.borrow_mut().push((number, results));
            });
        }
    });
    cluster.advance(600_000);
    let mut told = told.take();
    assert_eq!(told.len(), 600);
    told.sort_by_key(|(number, _)| *number);
    let (mut last, mut last_of_new, mut refused) = (-1, -1, 0);
    for (number, results) in told {
        assert!(results[0].error == ErrorCode::None && results[0].base_offset > last);
        last = results[0].base_offset;
        let of_new = results.last().expect("a part");
        match of_new.error {
            ErrorCode::None => {
                assert!(of_new.base_offset > last_of_new, "{number} overtook others");
                last_of_new = of_new.base_offset;
            }
            ErrorCode::RequestTimedOut | ErrorCode::NotLeaderOrFollower => refused += 1,
            error => panic!("{number}: {error:?}"),
        }
    }
    assert!(refused > 0 && last_of_new > 0, "{refused}, {last_of_new}");
    cluster.stop();
}

/// A new topic of one partition is opened among the first, whatever others wait for.
#[test]
fn a_topic_that_all_wait_for_stands_before_no_other() {
    let (mut cluster, open, new) = with_open_and_new(59);
    let everything = send(&cluster, 0, mixed(open, &new, "x"));
    cluster.create("small", 1).expect("created");
    let small = cluster.id("small", 0);
    assert_eq!(cluster.append(small, &[b"x"]).error, ErrorCode::None);
    assert!(
        opened(&mut cluster, "many") < 150,
        "it is still being opened"
    );
    cluster.advance(10_000);
    assert!(everything.borrow().is_some());
    cluster.stop();
}

/// A log that opens too slowly is not waited for longer than a moment.
#[test]
fn who_waits_too_long_is_told_to_come_again() {
    let mut cluster = Cluster::start(Simulation::new(53), 1);
    cluster.create("many", MANY).expect("created");
    let everything: Vec<_> = (0..MANY).map(|index| cluster.id("many", index)).collect();
    let ids = everything.iter();
    let parts = ids.flat_map(|id| match append(*id, &[b"x"]) {
        Request::Append(request) => request.parts,
        _ => unreachable!(),
    });
    let request = AppendRequest {
        acks: Acks::All,
        timeout_ms: 30_000,
        parts: parts.collect(),
    };
    let reply = send(&cluster, 0, Request::Append(request));
    cluster.advance(1_200);
    match reply.borrow_mut().take() {
        Some(Reply::Append(results)) => {
            let fine = [ErrorCode::None, ErrorCode::NotLeaderOrFollower];
            assert!(results.iter().all(|result| fine.contains(&result.error)));
        }
        other => panic!("{other:?}"),
    }
    cluster.advance(600_000);
    is_whole(&mut cluster, "many", MANY);
}

/// Deleting it meanwhile leaves no directory, and the name is another topic's at once.
#[test]
fn what_is_deleted_before_it_is_open_leaves_nothing() {
    let mut cluster = Cluster::start(Simulation::new(54), 2);
    cluster.create("many", MANY).expect("created");
    let before = cluster.id("many", 7);
    let early = send(&cluster, cluster.owner(before), append(before, &[b"lost"]));
    cluster.delete("many").expect("deleted");
    assert!(early.borrow().is_some(), "whoever waits is told");
    assert_eq!(opened(&mut cluster, "many"), 0);
    cluster.create("many", 3).expect("created");
    cluster.advance(600_000);
    assert_eq!(opened(&mut cluster, "many"), 3);
    let (gone, after) = (before, cluster.id("many", 2));
    assert_eq!(
        cluster.append(gone, &[b"x"]).error,
        ErrorCode::UnknownTopicId
    );
    assert_eq!(cluster.append(after, &[b"x"]).error, ErrorCode::None);
    cluster = Cluster::start(cluster.stop(), 2);
    assert_eq!(cluster.directories().len(), 3);
}

/// A deletion is answered once the names are others; whatever comes while the files go, they go, and nothing
/// of the topic that has the name next.
#[test]
fn a_large_topics_files_go_behind_the_answer() {
    for seed in 70..78 {
        let mut cluster = Cluster::start(Simulation::new(seed), 2);
        cluster.create("many", MANY).expect("created");
        cluster.advance(600_000);
        assert_eq!(opened(&mut cluster, "many"), 200);
        cluster.delete("many").expect("deleted");
        assert_eq!(opened(&mut cluster, "many"), 0);
        let left = cluster.directories().len();
        assert!(left > 100, "{left} directories are left");
        cluster.create("many", 3).expect("created");
        let id = cluster.id("many", 2);
        assert_eq!(cluster.append(id, &[b"new"]).error, ErrorCode::None);
        let left = cluster.directories().len();
        assert!(left > 50, "{left} directories are left");
        cluster = match seed % 4 {
            0 => cluster,
            1 => Cluster::start(cluster.simulation.kill(), 2),
            2 => Cluster::start(cluster.simulation.crash(), 2),
            _ => Cluster::start(cluster.stop(), 2),
        };
        assert_eq!(cluster.values(id, 0), [(0, b"new".to_vec())]);
        cluster.advance(600_000);
        assert_eq!(cluster.directories(), ["many-0", "many-1", "many-2"]);
    }
}

/// A stop opens nothing more, is clean, and the next start has everything.
#[test]
fn a_stop_waits_for_no_log_that_is_not_open() {
    let mut cluster = Cluster::start(Simulation::new(55), 2);
    cluster.create("many", MANY).expect("created");
    let waiting: Vec<_> = (0..50)
        .map(|number| {
            let request = Request::Control(create(&format!("t{number}"), 1));
            send(&cluster, COORDINATOR_SHARD, request)
        })
        .collect();
    let handle = cluster.handles[0].clone();
    let in_order = cluster.simulation.run(async move { handle.stop().await });
    assert!(in_order.expect("a stop"), "in order");
    assert!(
        waiting.iter().all(|reply| reply.borrow().is_some()),
        "all are answered"
    );
    assert!(
        opened(&mut cluster, "many") < 150,
        "a stop does not open what is left"
    );
    cluster = Cluster::start(cluster.simulation.kill(), 2);
    is_whole(&mut cluster, "many", MANY);
}

/// Something is too short for each step of opening, for a while: everything opens by itself, and a stop in
/// the shortage ends.
#[test]
fn a_shortage_while_logs_are_opened_passes() {
    for (seed, operation) in (60..).zip([Operation::Directory, Operation::Open, Operation::Write]) {
        let mut cluster = Cluster::start(Simulation::new(seed), 2);
        cluster.create("many", 40).expect("created");
        let first = cluster.simulation.faults().met();
        let fault = match operation {
            Operation::Open => Fault::Descriptors,
            _ => Fault::NoSpace,
        };
        cluster
            .simulation
            .faults()
            .shortage(first + seed % 7, 60, fault);
        cluster.advance(600_000);
        is_whole(&mut cluster, "many", 40);
        cluster = Cluster::start(cluster.stop(), 1);
        is_whole(&mut cluster, "many", 40);
    }
}

/// What one client made of the topics, as it was told.
#[derive(Default)]
struct Told {
    /// How many partitions each topic has; a name that is missing may be there or not.
    topics: BTreeMap<&'static str, Option<i32>>,
    acknowledged: BTreeMap<PartitionId, i64>,
}

/// Creates, deletes, creates again and produces, until it is cut off.
async fn operate(
    handle: ShardHandle,
    (world, told, mut random): (impl World, Rc<RefCell<Told>>, Random),
) {
    loop {
        let name = ["a", "b"][random.index(2)];
        let known = told.borrow().topics.get(name).copied();
        let count = 1 + i32::try_from(random.below(40)).expect("small");
        let (request, after) = match known {
            Some(Some(_)) if random.below(2) == 0 => {
                let names = vec![TopicRef::Name(Str::from(name))];
                (ControllerRequest::DeleteTopics(names), None)
            }
            Some(Some(of)) => {
                let image = handle.image();
                let topic_id = image.topic(name).expect("it was created").id;
                let index = i32::try_from(random.below(of.unsigned_abs().into())).expect("small");
                let id = PartitionId { topic_id, index };
                let owner = handle.owner(id);
                let reply = handle.endpoint().call(owner, append(id, &[b"x"])).await;
                match reply.expect("a reply") {
                    Reply::Append(results) if results[0].error == ErrorCode::None => {
                        let next = results[0].base_offset + 1;
                        told.borrow_mut().acknowledged.insert(id, next);
                    }
                    Reply::Append(results) => {
                        assert_eq!(results[0].error, ErrorCode::NotLeaderOrFollower);
                    }
                    other => panic!("{other:?}"),
                }
                continue;
            }
            _ => (create(name, count), Some(count)),
        };
        told.borrow_mut().topics.remove(name);
        let reply = handle
            .endpoint()
            .call(COORDINATOR_SHARD, Request::Control(request));
        match reply.await.expect("a reply") {
            Reply::Control(ControllerReply::CreateTopics(made)) => {
                assert!(made[0].result.is_ok(), "{made:?}");
            }
            Reply::Control(ControllerReply::DeleteTopics(gone)) => {
                assert!(gone[0].2.is_ok(), "{gone:?}");
            }
            other => panic!("{other:?}"),
        }
        told.borrow_mut().topics.insert(name, after);
        if random.below(3) == 0 {
            let pause_ns = random.below(30) * 1_000_000;
            world.sleep_until(world.monotonic_ns() + pause_ns).await;
        }
    }
}

/// The broker ends at any step while topics come and go: the next start has what was created, whole, with
/// every acknowledged record, and nothing of what was deleted.
#[test]
fn an_end_at_any_step_loses_nothing() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut simulation = Simulation::new(seed);
        let told = Rc::new(RefCell::new(Told::default()));
        for _ in 0..2 {
            let mut cluster = Cluster::start(simulation, 2);
            look(&mut cluster, &told, seed);
            let world = cluster.simulation.world();
            let (handle, operator) = (cluster.handles[1].clone(), Random::new(random.next_u64()));
            let client = (world.clone(), Rc::clone(&told), operator);
            world.spawn(operate(handle, client));
            let steps = usize::try_from(random.below(6_000)).expect("small");
            cluster.simulation.run_steps(steps);
            simulation = match random.below(2) {
                0 => cluster.simulation.kill(),
                _ => cluster.simulation.crash(),
            };
        }
        let mut cluster = Cluster::start(simulation, 1);
        look(&mut cluster, &told, seed);
    }
}

/// Holds what there is against what was told.
fn look(cluster: &mut Cluster, told: &Rc<RefCell<Told>>, seed: u64) {
    let image = cluster.handles[0].image();
    let mut told = told.borrow_mut();
    for name in ["a", "b"] {
        let count = image.topic(name).map(|topic| topic.partitions.len());
        let count = count.map(|count| i32::try_from(count).expect("few"));
        if let Some(expected) = told.topics.get(name) {
            assert_eq!(count, *expected, "seed {seed}: {name}");
        }
        told.topics.insert(name, count);
        if let Some(count) = count {
            is_whole(cluster, name, count);
        }
        assert_eq!(
            opened(cluster, name),
            count.unwrap_or(0).unsigned_abs() as usize
        );
    }
    let strays = cluster.directories().into_iter();
    let strays: Vec<_> = strays.filter(|name| name.contains("stray")).collect();
    assert_eq!(strays, Vec::<String>::new(), "seed {seed}");
    let acknowledged = std::mem::take(&mut told.acknowledged);
    for (id, next) in acknowledged {
        let is_there = cluster.handles[0]
            .image()
            .topic_by_id(id.topic_id)
            .is_some();
        if is_there {
            let values = cluster.values(id, 0);
            assert!(
                values.len() as i64 > next,
                "seed {seed}: {id:?} lost records"
            );
        }
    }
}
