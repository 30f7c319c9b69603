//! Produce where records become longer than they came: topics of another codec, and what bounds them.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::messages::produce_response::PartitionProduceResponse;
use chronik_protocol::messages::{ProduceRequest, ProduceResponse};
use chronik_protocol::record::{BatchBuilder, Compression, NewRecord};
use chronik_protocol::{ErrorCode, Records, Uuid};

use super::TestBroker;
use super::apis::create;

const UNFOLDED: (&str, &str) = ("compression.type", "uncompressed");

/// A record of `value_bytes` zeros, which take a hundredth of that.
fn packed(value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(0).compression(Compression::Zstd);
    let record = NewRecord {
        timestamp: -1,
        value: Some(&vec![0; value_bytes]),
        ..NewRecord::default()
    };
    builder.push(&record).expect("small");
    builder.build().expect("small").bytes
}

fn produce(topic: Uuid, batches: impl IntoIterator<Item = (i32, Bytes)>) -> ProduceRequest {
    let partition_data = batches
        .into_iter()
        .map(|(index, batch)| PartitionProduceData {
            index,
            records: Some(Records::from(batch)),
            ..PartitionProduceData::default()
        });
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            topic_id: topic,
            partition_data: partition_data.collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// Partition, error and base offset of each part.
fn told(response: &ProduceResponse) -> Vec<(i32, ErrorCode, i64)> {
    let parts = response.responses[0].partition_responses.iter();
    let one = |part: &PartitionProduceResponse| {
        let error = ErrorCode::try_from(part.error_code).expect("known");
        (part.index, error, part.base_offset)
    };
    parts.map(one).collect()
}

#[test]
fn of_a_partition_named_again_the_last_counts() {
    let mut broker = TestBroker::start(30, 2, &[]);
    let mut client = broker.connect(0);
    broker.run(async move {
        let topic = create(&mut client, "t", 2).await;
        let named = [0, 1, 0, 7, 0, 7].map(|index| (index, packed(10)));
        let response = client.ask(&produce(topic, named), 13).await;
        let none = ErrorCode::None;
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let expected = [(0, none, 0), (1, none, 0), (7, unknown, -1)];
        assert_eq!(told(&response), expected);
        let response = client.ask(&produce(topic, [(0, packed(10))]), 13).await;
        assert_eq!(told(&response), [(0, none, 1)], "one was appended");
    });
}

#[test]
fn a_batch_that_unfolds_to_more_than_the_topic_takes_is_refused() {
    let sizes = [("message.max.bytes", "100000"), UNFOLDED];
    let mut broker = TestBroker::start(31, 1, &sizes);
    let mut client = broker.connect(0);
    broker.run(async move {
        let topic = create(&mut client, "t", 2).await;
        let batches = [(0, packed(100_000)), (1, packed(99_000))];
        let response = client.ask(&produce(topic, batches), 13).await;
        let expected = [(0, ErrorCode::MessageTooLarge, -1), (1, ErrorCode::None, 0)];
        assert_eq!(told(&response), expected);
    });
}

#[test]
fn a_request_unfolds_to_no_more_than_one_may_have() {
    const PARTITIONS: i32 = 24;
    const EACH: usize = 900_000;
    let sizes = [("socket.request.max.bytes", "10000000"), UNFOLDED];
    let mut broker = TestBroker::start(32, 2, &sizes);
    let clients: Vec<_> = (0..3).map(|_| broker.connect(0)).collect();
    let context = Rc::clone(&broker.contexts[0]);
    broker.run(async move {
        let mut clients = clients;
        let topic = create(&mut clients[0], "t", PARTITIONS).await;
        let mut numbers = Vec::new();
        for client in &clients {
            let batches = (0..PARTITIONS).map(|index| (index, packed(EACH)));
            numbers.push(client.send(&produce(topic, batches), 13).await);
        }
        for (client, number) in clients.iter_mut().zip(numbers) {
            let response = client.receive::<ProduceRequest>(number, 13).await;
            let told = told(&response.expect("a reply"));
            let taken = told.iter().filter(|part| part.1 == ErrorCode::None);
            assert_eq!(taken.count(), 10_000_000 / EACH);
            let refused = told.iter().skip(10_000_000 / EACH);
            for part in refused {
                assert_eq!(part.1, ErrorCode::MessageTooLarge);
            }
        }
        assert_eq!(
            context.budget.requests_held(),
            0,
            "everything is given back"
        );
    });
}

#[test]
fn what_a_request_unfolds_to_is_counted_until_it_is_answered() {
    let mut broker = TestBroker::start(33, 1, &[UNFOLDED]);
    let mut client = broker.connect(0);
    let context = Rc::clone(&broker.contexts[0]);
    broker.run(async move {
        let topic = create(&mut client, "t", 4).await;
        let batches = (0..4).map(|index| (index, packed(900_000)));
        let number = client.send(&produce(topic, batches), 13).await;
        let (world, most) = (context.world.clone(), Rc::new(Cell::new(0)));
        let seen = Rc::clone(&most);
        world.clone().spawn(async move {
            for _ in 0..100_000 {
                seen.set(seen.get().max(context.budget.requests_held()));
                world.pause().await;
            }
        });
        let response = client.receive::<ProduceRequest>(number, 13).await;
        assert!(response.is_some());
        assert!(most.get() > 3_600_000, "{} bytes were counted", most.get());
    });
}
