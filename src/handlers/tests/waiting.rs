//! Requests that wait, of every API that parks: beside any number of them others are served, and
//! nothing of the frames they came in is held.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use chronik_io::simulated::SimulatedWorld;
use chronik_io::{Stream, World};
use chronik_protocol::frame::encode_request;
use chronik_protocol::messages::describe_configs_request::DescribeConfigsResource;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::messages::*;
use chronik_protocol::{Records, Request, Str, Uuid};

use super::apis::create;
use super::data::batch;
use super::{Client, Door, TestBroker};

const BUDGET_BYTES: usize = 4 << 20;
/// Bytes behind a request, passed over by Kafka and by Chronik.
const PADDING_BYTES: usize = 900 << 10;

/// A request with bytes behind it that mean nothing.
fn padded<Q: Request>(request: &Q, version: i16, padding: usize) -> Vec<u8> {
    let client_id = Some(Str::from_static("a client that waits"));
    let parts = encode_request(1, client_id, request, version).expect("encodes");
    let mut frame = parts.concat();
    frame.resize(frame.len() + padding, 0);
    let length = u32::try_from(frame.len() - 4).expect("small");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Sends from a task of its own, for the broker may not be reading.
fn send_aside(world: &SimulatedWorld, client: &Client, frame: Vec<u8>) {
    let stream = Rc::clone(&client.stream);
    world.spawn(async move { drop(stream.write_all(vec![Bytes::from(frame)]).await) });
}

fn fetch(topic: Uuid) -> FetchRequest {
    let partition = FetchPartition {
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    FetchRequest {
        max_wait_ms: 600_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic_id: topic,
            partitions: vec![partition],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

fn join(group: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 600_000,
        rebalance_timeout_ms: 600_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"m"),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    }
}

/// A group whose leader never assigns: a member waits for its share, or with `joins` another one to
/// come in.
async fn waiting_group(door: &Door, group: &str, joins: bool) -> Vec<Client> {
    let world = &door.world;
    let (mut one, mut other, third) = (door.connect(0), door.connect(0), door.connect(0));
    let first = one.send(&join(group), 3).await;
    let second = other.send(&join(group), 3).await;
    let one_joined = one
        .receive::<JoinGroupRequest>(first, 3)
        .await
        .expect("joined");
    let other_joined = other
        .receive::<JoinGroupRequest>(second, 3)
        .await
        .expect("joined");
    assert_eq!((one_joined.error_code, other_joined.error_code), (0, 0));
    let (follower, joined) = if one_joined.leader == one_joined.member_id {
        (&other, other_joined)
    } else {
        (&one, one_joined)
    };
    let sync = SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id,
        ..SyncGroupRequest::default()
    };
    if joins {
        send_aside(world, &third, padded(&join(group), 3, PADDING_BYTES));
    } else {
        send_aside(world, follower, padded(&sync, 3, PADDING_BYTES));
    }
    vec![one, other, third]
}

async fn waiters(door: &Door, topic: Uuid) -> Vec<Client> {
    let world = &door.world;
    let mut clients = Vec::new();
    for number in 0..12 {
        let client = door.connect(0);
        send_aside(world, &client, padded(&fetch(topic), 17, PADDING_BYTES));
        clients.push(client);
        clients.extend(waiting_group(door, &format!("g{number}"), number % 2 == 0).await);
        let client = door.connect(0);
        let heartbeat = ConsumerGroupHeartbeatRequest {
            group_id: format!("c{number}").into(),
            rebalance_timeout_ms: 1000,
            subscribed_topic_names: Some(vec!["t".into()]),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        send_aside(world, &client, padded(&heartbeat, 0, PADDING_BYTES));
        clients.push(client);
        let client = door.connect(0);
        let describe = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: 4,
                resource_name: "1".into(),
                ..DescribeConfigsResource::default()
            }],
            ..DescribeConfigsRequest::default()
        };
        let frames = vec![padded(&describe, 4, PADDING_BYTES / 30); 60].concat();
        send_aside(world, &client, frames);
        clients.push(client);
        // A frame that never comes whole.
        let client = door.connect(0);
        let mut frame = padded(&describe, 4, PADDING_BYTES);
        frame.truncate(60 << 10);
        send_aside(world, &client, frame);
        clients.push(client);
    }
    clients
}

/// Closes connections that keep others waiting, as a broker does.
fn watch(door: &Door) {
    let server = &door.servers[0];
    let (connections, budget) = (Rc::clone(&server.connections), Rc::clone(&server.budget));
    let world = door.world.clone();
    world.spawn(connections.watch(world.clone(), budget, None));
}

#[test]
fn beside_all_that_waits_others_are_served() {
    let settings = [("group.initial.rebalance.delay.ms", "100")];
    let mut broker = TestBroker::with_budget(41, 1, &settings, Some(BUDGET_BYTES));
    let door = broker.door.clone();
    watch(&door);
    let (topic, mut producer, clients) = broker.run(async move {
        let mut producer = door.connect(0);
        let topic = create(&mut producer, "t", 1).await;
        let find = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..FindCoordinatorRequest::default()
        };
        producer.ask(&find, 4).await;
        let clients = waiters(&door, topic).await;
        (topic, producer, clients)
    });
    let budget = Rc::clone(&broker.contexts[0].budget);
    // Large frames come in one after the other; when a turn has gone to one that never comes whole, the
    // others have theirs once its connection was closed.
    for _ in (0..120).take_while(|_| budget.parked_held() < 12 * 1324) {
        broker.simulation.advance(std::time::Duration::from_secs(1));
    }
    let parked = budget.parked_held();
    assert!((12 * 1324..64 << 10).contains(&parked), "{parked}");
    let held = budget.requests_held();
    // Of a frame that has not come whole so much is held as there is room made for it.
    assert!(
        held <= 12 * (256 << 10),
        "{held} bytes are held by those who wait"
    );
    let door = broker.door.clone();
    broker.run(async move {
        let world = door.world.clone();
        let began_ns = world.monotonic_ns();
        let mut new = door.connect(0);
        assert_eq!(
            new.ask(&ApiVersionsRequest::default(), 0).await.error_code,
            0
        );
        let value = "x".repeat(2 << 20);
        for value in ["y", &value] {
            let produce = ProduceRequest {
                acks: -1,
                timeout_ms: 10_000,
                topic_data: vec![TopicProduceData {
                    topic_id: topic,
                    partition_data: vec![PartitionProduceData {
                        records: Some(Records::from(batch(value, 1))),
                        ..PartitionProduceData::default()
                    }],
                    ..TopicProduceData::default()
                }],
                ..ProduceRequest::default()
            };
            for client in [&mut new, &mut producer] {
                let told = client.ask(&produce, 13).await;
                assert_eq!(told.responses[0].partition_responses[0].error_code, 0);
            }
        }
        let waited_ns = world.monotonic_ns() - began_ns;
        assert!(waited_ns < 1_000_000_000, "{waited_ns}");
    });
    drop(clients);
    broker.simulation.advance(std::time::Duration::from_secs(5));
    assert_eq!(
        (budget.requests_held(), budget.parked_held()),
        (0, 0),
        "all was given back"
    );
}

/// Broker, its description that is a large answer, and the watch over who does not take one.
fn describing(seed: u64) -> (TestBroker, Door, DescribeConfigsRequest) {
    let broker = TestBroker::with_budget(seed, 1, &[], Some(2 << 20));
    let door = broker.door.clone();
    watch(&door);
    let resource = DescribeConfigsResource {
        resource_type: 4,
        resource_name: "1".into(),
        ..DescribeConfigsResource::default()
    };
    let describe = DescribeConfigsRequest {
        resources: vec![resource; 200],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    (broker, door, describe)
}

#[test]
fn who_does_not_take_a_large_answer_keeps_others_from_theirs_only_for_a_while() {
    let (mut broker, door, describe) = describing(42);
    broker.run(async move {
        let silent: Vec<Client> = (0..4).map(|_| door.connect(0)).collect();
        for client in &silent {
            client.send(&describe, 4).await;
        }
        let mut honest = door.connect(0);
        let began_ns = door.world.monotonic_ns();
        let answer = honest.ask(&describe, 4).await;
        assert_eq!(answer.results.len(), 200);
        assert!(
            answer
                .results
                .iter()
                .all(|result| result == &answer.results[0])
        );
        let waited_ns = door.world.monotonic_ns() - began_ns;
        assert!(waited_ns < 60_000_000_000, "{waited_ns}");
        // Small answers never wait.
        let began_ns = door.world.monotonic_ns();
        honest.ask(&ApiVersionsRequest::default(), 0).await;
        assert!(door.world.monotonic_ns() - began_ns < 1_000_000_000);
        drop(silent);
    });
}

#[test]
fn who_takes_a_large_answer_drop_by_drop_keeps_others_from_theirs_only_for_a_while() {
    let (mut broker, door, describe) = describing(43);
    broker.run(async move {
        for _ in 0..4 {
            let client = door.connect(0);
            client.send(&describe, 4).await;
            let world = door.world.clone();
            door.world.spawn(async move {
                // A little more than what shows that an answer is being taken, again and again.
                let mut taken = BytesMut::new();
                while taken.len() < 1 << 30 {
                    let wanted = taken.len() + (1_300 << 10);
                    while taken.len() < wanted {
                        if !matches!(client.stream.read_into(&mut taken).await, Ok(1..)) {
                            return;
                        }
                    }
                    world
                        .sleep_until(world.monotonic_ns() + 8_000_000_000)
                        .await;
                }
            });
        }
        let mut honest = door.connect(0);
        let began_ns = door.world.monotonic_ns();
        let answer = honest.ask(&describe, 4).await;
        assert_eq!(answer.results.len(), 200);
        let waited_ns = door.world.monotonic_ns() - began_ns;
        assert!(waited_ns < 60_000_000_000, "{waited_ns}");
    });
}
