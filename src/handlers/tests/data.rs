//! Produce, Fetch and what stands around them, on one shard and over several.

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use chronik_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::messages::*;
use chronik_protocol::record::{BatchBuilder, Compression, NewRecord};
use chronik_protocol::{ErrorCode, Records, Str, Uuid};
use std::time::Duration;

use super::TestBroker;
use super::apis::create;

pub(super) fn batch(value: &str, timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new(0).compression(Compression::Lz4);
    let record = NewRecord {
        timestamp,
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    };
    builder.push(&record).expect("small");
    builder.build().expect("small").bytes
}

fn produce(topic: Uuid, acks: i16, batches: &[(i32, Bytes)]) -> ProduceRequest {
    let partition_data = batches.iter().map(|(index, batch)| PartitionProduceData {
        index: *index,
        records: Some(Records::from(batch.clone())),
        ..PartitionProduceData::default()
    });
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            topic_id: topic,
            partition_data: partition_data.collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// One read of partitions from offsets; `session` is the session's id and epoch.
fn fetch(topic: Uuid, session: (i32, i32), from: &[(i32, i64)], min_bytes: i32) -> FetchRequest {
    let partitions = from.iter().map(|(partition, fetch_offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    let partitions: Vec<_> = partitions.collect();
    let topics = FetchTopic {
        topic_id: topic,
        partitions,
        ..FetchTopic::default()
    };
    FetchRequest {
        max_wait_ms: 10_000,
        min_bytes,
        max_bytes: 1 << 20,
        session_id: session.0,
        session_epoch: session.1,
        topics: if from.is_empty() {
            Vec::new()
        } else {
            vec![topics]
        },
        ..FetchRequest::default()
    }
}

/// Partition, error and whether there are records, of everything in a response.
fn told(response: &FetchResponse) -> Vec<(i32, i16, bool)> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .map(|data| {
            let has_records = data
                .records
                .as_ref()
                .is_some_and(|records| !records.is_empty());
            (data.partition_index, data.error_code, has_records)
        })
        .collect()
}

#[test]
fn what_is_produced_in_a_row_is_fetched_in_a_row() {
    for shards in 1..4 {
        let mut broker = TestBroker::start(10, shards, &[]);
        let mut client = broker.connect(0);
        let now_ms = broker.simulation.world().now_ms();
        broker.run(async move {
            let topic = create(&mut client, "t", 4).await;
            let mut numbers = Vec::new();
            for round in 0..10 {
                let batches: Vec<_> = (0..4)
                    .map(|index| (index, batch(&format!("{round}"), now_ms)))
                    .collect();
                numbers.push(client.send(&produce(topic, -1, &batches), 13).await);
            }
            for (round, number) in numbers.into_iter().enumerate() {
                let response = client
                    .receive::<ProduceRequest>(number, 13)
                    .await
                    .expect("a reply");
                for (index, partition) in
                    response.responses[0].partition_responses.iter().enumerate()
                {
                    assert_eq!(usize::try_from(partition.index), Ok(index));
                    assert_eq!(
                        (partition.error_code, partition.base_offset),
                        (0, round as i64)
                    );
                }
            }
            let all: Vec<_> = (0..4).map(|index| (index, 3)).collect();
            let fetched = client.ask(&fetch(topic, (0, -1), &all, 1), 17).await;
            assert_eq!(told(&fetched), [0, 1, 2, 3].map(|index| (index, 0, true)));
            assert!(
                fetched.responses[0]
                    .partitions
                    .iter()
                    .all(|data| data.high_watermark == 10)
            );
        });
    }
}

#[test]
fn a_fetch_waits_for_data_and_only_news_are_told_in_a_session() {
    for shards in 1..4 {
        let mut broker = TestBroker::start(11, shards, &[]);
        let (mut reader, mut writer) = (broker.connect(0), broker.connect(shards - 1));
        let world = broker.simulation.world();
        broker.run(async move {
            let topic = create(&mut writer, "t", 3).await;
            let all = [(0, 0), (1, 0), (2, 0)];
            let first = reader.ask(&fetch(topic, (0, 0), &all, 0), 17).await;
            assert_ne!(first.session_id, 0);
            assert_eq!(told(&first).len(), 3, "everything is told once");
            let began_ns = world.monotonic_ns();
            let number = reader
                .send(&fetch(topic, (first.session_id, 1), &[], 1), 17)
                .await;
            world.sleep_for(Duration::from_millis(500)).await;
            let written = [(1, batch("x", world.now_ms()))];
            let acknowledged = writer.ask(&produce(topic, -1, &written), 13).await;
            assert_eq!(
                acknowledged.responses[0].partition_responses[0].error_code,
                0
            );
            let news = reader
                .receive::<FetchRequest>(number, 17)
                .await
                .expect("a reply");
            assert_eq!(told(&news), [(1, 0, true)], "with {shards} shards");
            let waited_ms = (world.monotonic_ns() - began_ns) / 1_000_000;
            assert!((500..2_000).contains(&waited_ms), "{waited_ms} ms");
            let moved = fetch(topic, (first.session_id, 2), &[(1, 1)], 1);
            let nothing = reader.ask(&moved, 17).await;
            assert_eq!(told(&nothing), [], "its time is up, and nothing happened");
            let stale = reader.ask(&moved, 17).await;
            assert_eq!(
                stale.error_code,
                ErrorCode::InvalidFetchSessionEpoch.as_i16()
            );
        });
    }
}

#[test]
fn a_reader_that_leaves_is_not_waited_for() {
    let mut broker = TestBroker::start(12, 2, &[]);
    let mut client = broker.connect(0);
    let context = std::rc::Rc::clone(&broker.contexts[0]);
    broker.run(async move {
        let topic = create(&mut client, "t", 2).await;
        client
            .send(&fetch(topic, (0, -1), &[(0, 0), (1, 0)], 1), 17)
            .await;
        context.world.sleep_for(Duration::from_millis(100)).await;
        assert_eq!(context.parked.len(), 1);
        client.stream.reset();
        context.world.sleep_for(Duration::from_millis(100)).await;
        assert_eq!(context.parked.len(), 0);
    });
}

#[test]
fn records_that_cannot_be_taken_say_why() {
    let mut broker = TestBroker::start(13, 2, &[]);
    let mut client = broker.connect(0);
    let world = broker.simulation.world();
    broker.run(async move {
        let topic = create(&mut client, "t", 1).await;
        let good = batch("x", world.now_ms());
        let mut corrupt = good.to_vec();
        *corrupt.last_mut().expect("not empty") ^= 1;
        let old = {
            let mut old = good.to_vec();
            old[16] = 1;
            Bytes::from(old)
        };
        let late = batch("x", world.now_ms() + 2 * 3_600_000);
        let two = Bytes::from([&good[..], &good[..]].concat());
        let cases = [
            (Bytes::new(), ErrorCode::InvalidRecord),
            (Bytes::from(corrupt), ErrorCode::CorruptMessage),
            (old, ErrorCode::InvalidRecord),
            (two, ErrorCode::InvalidRecord),
            (late, ErrorCode::InvalidTimestamp),
            (good.clone(), ErrorCode::None),
        ];
        for (records, error) in cases {
            let response = client.ask(&produce(topic, 1, &[(0, records)]), 13).await;
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(
                partition.error_code,
                error.as_i16(),
                "{:?}",
                partition.error_message
            );
            assert_eq!(
                partition.record_errors.len(),
                usize::from(error == ErrorCode::InvalidTimestamp)
            );
        }
    });
}

#[test]
fn partitions_that_cannot_be_read_or_written_say_why() {
    let mut broker = TestBroker::start(15, 2, &[]);
    let mut client = broker.connect(0);
    let world = broker.simulation.world();
    broker.run(async move {
        let topic = create(&mut client, "t", 1).await;
        let good = batch("x", world.now_ms());
        let error_of =
            |response: ProduceResponse| response.responses[0].partition_responses[0].error_code;
        let bad_acks = client
            .ask(&produce(topic, 2, &[(0, good.clone())]), 13)
            .await;
        assert_eq!(error_of(bad_acks), ErrorCode::InvalidRequiredAcks.as_i16());
        let nowhere = client
            .ask(&produce(topic, 1, &[(9, good.clone())]), 13)
            .await;
        assert_eq!(
            error_of(nowhere),
            ErrorCode::UnknownTopicOrPartition.as_i16()
        );
        let unknown = client
            .ask(&produce(Uuid(5), 1, &[(0, good.clone())]), 13)
            .await;
        assert_eq!(error_of(unknown), ErrorCode::UnknownTopicId.as_i16());
        let mut transactional = produce(topic, -1, &[(0, good)]);
        transactional.transactional_id = Some(Str::from_static("t"));
        // A transactional id without a transactional batch is no obstacle.
        let taken = client.ask(&transactional, 13).await;
        assert_eq!(error_of(taken), ErrorCode::None.as_i16());

        let beyond = client.ask(&fetch(topic, (0, -1), &[(0, 5)], 1), 17).await;
        assert_eq!(
            told(&beyond),
            [(0, ErrorCode::OffsetOutOfRange.as_i16(), false)]
        );
        let unknown = client.ask(&fetch(Uuid(5), (0, -1), &[(0, 0)], 1), 17).await;
        assert_eq!(
            told(&unknown),
            [(0, ErrorCode::UnknownTopicId.as_i16(), false)]
        );
    });
}

#[test]
fn without_acknowledgements_an_error_ends_the_connection() {
    let mut broker = TestBroker::start(14, 1, &[]);
    let (mut client, mut other) = (broker.connect(0), broker.connect(0));
    let world = broker.simulation.world();
    broker.run(async move {
        let topic = create(&mut client, "t", 1).await;
        let good = batch("x", world.now_ms());
        client
            .send(&produce(topic, 0, &[(0, good.clone())]), 13)
            .await;
        let partition = ListOffsetsPartition {
            timestamp: -1,
            ..ListOffsetsPartition::default()
        };
        let name = Str::from_static("t");
        let partitions = vec![partition];
        let topics = vec![ListOffsetsTopic {
            name,
            partitions,
            ..ListOffsetsTopic::default()
        }];
        let request = ListOffsetsRequest {
            topics,
            ..ListOffsetsRequest::default()
        };
        loop {
            let response = other.ask(&request, 9).await;
            if response.topics[0].partitions[0].offset == 1 {
                break;
            }
        }
        let number = client.send(&produce(topic, 0, &[(7, good)]), 13).await;
        assert!(client.receive::<ProduceRequest>(number, 13).await.is_none());
    });
}
