//! What a request names again and again: answered as Kafka 4.3 answers it, and done once.

use bytes::Bytes;
use chronik_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use chronik_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use chronik_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use chronik_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::messages::*;
use chronik_protocol::{ErrorCode, Records, Str};

use super::apis::create;
use super::data::batch;
use super::{Client, TestBroker};

const INVALID: i16 = ErrorCode::InvalidRequest as i16;

fn name() -> Str {
    Str::from_static("t")
}

/// Runs a test against a broker of two shards with a topic `t` of three partitions.
fn with_topic<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    let mut broker = TestBroker::start(31, 2, &[]);
    let mut client = broker.connect(0);
    let client = broker.run(async move {
        create(&mut client, "t", 3).await;
        client
    });
    broker.run(test(client));
}

fn records(index: i32, values: &[&str]) -> PartitionProduceData {
    let batches = values.iter().map(|value| batch(value, 1));
    let bytes: Bytes = batches
        .map(|batch| batch.to_vec())
        .collect::<Vec<_>>()
        .concat()
        .into();
    PartitionProduceData {
        index,
        records: Some(Records::from(bytes)),
        ..PartitionProduceData::default()
    }
}

async fn produce(
    client: &mut Client,
    topics: Vec<Vec<PartitionProduceData>>,
) -> Vec<(i32, i16, i64)> {
    let topic_data = topics.into_iter().map(|partition_data| TopicProduceData {
        name: name(),
        partition_data,
        ..TopicProduceData::default()
    });
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: topic_data.collect(),
        ..ProduceRequest::default()
    };
    let response = client.ask(&request, 9).await;
    let parts = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    parts
        .map(|p| (p.index, p.error_code, p.base_offset))
        .collect()
}

#[test]
fn of_a_partition_that_is_produced_to_twice_the_last_counts() {
    with_topic(async |mut client| {
        let first = vec![records(0, &["a"]), records(1, &["b"]), records(0, &["c"])];
        let told = produce(&mut client, vec![first, vec![records(0, &["d"])]]).await;
        assert_eq!(told, [(0, 0, 0), (1, 0, 0)]);
        let told = produce(&mut client, vec![vec![records(0, &["e"])]]).await;
        assert_eq!(told, [(0, 0, 1)], "one batch was appended before");
    });
}

#[test]
fn of_a_partition_that_is_fetched_twice_the_last_counts_in_the_place_of_the_first() {
    with_topic(async |mut client| {
        produce(
            &mut client,
            vec![(0..3).map(|index| records(index, &["x"])).collect()],
        )
        .await;
        let part = |partition, fetch_offset| FetchPartition {
            partition,
            fetch_offset,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        let topic = |partitions| FetchTopic {
            topic: name(),
            partitions,
            ..FetchTopic::default()
        };
        for session in [(0, -1), (0, 0)] {
            let request = FetchRequest {
                max_bytes: 1 << 20,
                session_id: session.0,
                session_epoch: session.1,
                topics: vec![
                    topic(vec![part(2, 0), part(0, 0), part(1, 1), part(0, 0)]),
                    topic(vec![part(0, 1), part(1, 0)]),
                ],
                ..FetchRequest::default()
            };
            let response = client.ask(&request, 11).await;
            let parts = response
                .responses
                .iter()
                .flat_map(|topic| &topic.partitions);
            let told: Vec<_> = parts
                .map(|p| {
                    (
                        p.partition_index,
                        p.records.as_ref().is_some_and(|r| !r.is_empty()),
                    )
                })
                .collect();
            assert_eq!(told, [(2, true), (0, false), (1, true)], "{session:?}");
        }
    });
}

#[test]
fn offsets_asked_for_twice_are_refused_once() {
    with_topic(async |mut client| {
        let topic = |indexes: &[i32]| ListOffsetsTopic {
            name: name(),
            partitions: indexes
                .iter()
                .map(|index| ListOffsetsPartition {
                    partition_index: *index,
                    timestamp: -1,
                    max_num_offsets: 1,
                    ..ListOffsetsPartition::default()
                })
                .collect(),
            ..ListOffsetsTopic::default()
        };
        for version in [0, 1, 11] {
            let request = ListOffsetsRequest {
                topics: vec![topic(&[0, 1, 0, 0]), topic(&[0, 2])],
                ..ListOffsetsRequest::default()
            };
            let response = client.ask(&request, version).await;
            let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
            let told: Vec<_> = parts.map(|p| (p.partition_index, p.error_code)).collect();
            assert_eq!(told, [(0, INVALID), (1, 0), (2, 0)], "version {version}");
        }
    });
}

#[test]
fn records_deleted_twice_are_deleted_up_to_the_last() {
    with_topic(async |mut client| {
        for _ in 0..5 {
            produce(&mut client, vec![vec![records(0, &["x"])]]).await;
        }
        let topic = |offsets: &[i64]| DeleteRecordsTopic {
            name: name(),
            partitions: offsets
                .iter()
                .map(|offset| DeleteRecordsPartition {
                    partition_index: 0,
                    offset: *offset,
                    ..DeleteRecordsPartition::default()
                })
                .collect(),
            ..DeleteRecordsTopic::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![topic(&[1, 4, 3]), topic(&[2])],
            timeout_ms: 10_000,
            ..DeleteRecordsRequest::default()
        };
        let response = client.ask(&request, 2).await;
        let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
        let told: Vec<_> = parts
            .map(|p| (p.partition_index, p.error_code, p.low_watermark))
            .collect();
        assert_eq!(told, [(0, 0, 2)]);
    });
}

#[test]
fn logs_described_twice_are_told_once() {
    with_topic(async |mut client| {
        let topic = |partitions: &[i32]| DescribableLogDirTopic {
            topic: name(),
            partitions: partitions.to_vec(),
            ..DescribableLogDirTopic::default()
        };
        let request = DescribeLogDirsRequest {
            topics: Some(vec![topic(&[0, 1, 0]), topic(&[0]), topic(&[2])]),
            ..DescribeLogDirsRequest::default()
        };
        let response = client.ask(&request, 4).await;
        let parts = response
            .results
            .iter()
            .flat_map(|dir| &dir.topics)
            .flat_map(|t| &t.partitions);
        let told: Vec<_> = parts.map(|p| p.partition_index).collect();
        assert_eq!(told, [0, 1, 2]);
    });
}

#[test]
fn topics_created_twice_are_refused_once_and_of_a_setting_the_last_counts() {
    with_topic(async |mut client| {
        let config = |value: &str| CreatableTopicConfig {
            name: Str::from_static("retention.ms"),
            value: Some(Str::from(value)),
            ..CreatableTopicConfig::default()
        };
        let topic = |name: &str| CreatableTopic {
            name: Str::from(name),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![config("1000"), config("2000")],
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic("a"), topic("b"), topic("a"), topic("a")],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        let response = client.ask(&request, 5).await;
        let mut told: Vec<_> = response
            .topics
            .iter()
            .map(|topic| (topic.name.to_string(), topic.error_code))
            .collect();
        told.sort();
        assert_eq!(told, [("a".to_owned(), INVALID), ("b".to_owned(), 0)]);
        let settings = response
            .topics
            .iter()
            .flat_map(|topic| topic.configs.iter().flatten());
        let mut retention = settings.filter(|setting| setting.name == "retention.ms");
        assert_eq!(
            retention.next().and_then(|setting| setting.value.clone()),
            Some("2000".into())
        );
    });
}

#[test]
fn offsets_committed_twice_are_answered_each_and_the_last_counts() {
    with_topic(async |mut client| {
        let find = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..FindCoordinatorRequest::default()
        };
        client.ask(&find, 4).await;
        let topic = |name: &str, offsets: &[(i32, i64)]| OffsetCommitRequestTopic {
            name: Str::from(name),
            partitions: offsets
                .iter()
                .map(|(index, offset)| OffsetCommitRequestPartition {
                    partition_index: *index,
                    committed_offset: *offset,
                    ..OffsetCommitRequestPartition::default()
                })
                .collect(),
            ..OffsetCommitRequestTopic::default()
        };
        let commit = OffsetCommitRequest {
            group_id: "g".into(),
            topics: vec![
                topic("t", &[(0, 1), (1, 1), (0, 2)]),
                topic("no", &[(0, 1), (0, 1)]),
                topic("t", &[(0, 3), (9, 1), (9, 2)]),
                topic("no", &[(1, 1)]),
            ],
            ..OffsetCommitRequest::default()
        };
        let response = client.ask(&commit, 8).await;
        let told: Vec<_> = response
            .topics
            .iter()
            .map(|topic| {
                let parts = topic.partitions.iter();
                let parts: Vec<_> = parts.map(|p| (p.partition_index, p.error_code)).collect();
                (topic.name.to_string(), parts)
            })
            .collect();
        let no = ("no".to_owned(), vec![(0, 3), (0, 3), (1, 3)]);
        let known = vec![(9, 3), (9, 3), (0, 0), (1, 0), (0, 0), (0, 0)];
        assert_eq!(told, [no, ("t".to_owned(), known)]);
        let fetch = OffsetFetchRequest {
            group_id: "g".into(),
            ..OffsetFetchRequest::default()
        };
        let fetch = OffsetFetchRequest {
            topics: None,
            ..fetch
        };
        let response = client.ask(&fetch, 5).await;
        let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
        let told: Vec<_> = parts
            .map(|p| (p.partition_index, p.committed_offset))
            .collect();
        assert_eq!(told, [(0, 3), (1, 1)]);
    });
}

#[test]
fn a_protocol_that_is_named_twice_is_not_chosen() {
    with_topic(async |mut client| {
        let find = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..FindCoordinatorRequest::default()
        };
        client.ask(&find, 4).await;
        let protocol = |name: &'static str, metadata: &'static str| JoinGroupRequestProtocol {
            name: Str::from_static(name),
            metadata: Bytes::from_static(metadata.as_bytes()),
            ..JoinGroupRequestProtocol::default()
        };
        for (group, protocols, chosen) in [
            (
                "g",
                vec![protocol("a", "1"), protocol("b", "2"), protocol("a", "3")],
                "b",
            ),
            ("h", vec![protocol("a", "1"), protocol("a", "3")], "a"),
        ] {
            let join = JoinGroupRequest {
                group_id: group.into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 10_000,
                protocol_type: "consumer".into(),
                protocols,
                ..JoinGroupRequest::default()
            };
            let response = client.ask(&join, 3).await;
            assert_eq!(response.error_code, 0);
            assert_eq!(response.protocol_name.as_deref(), Some(chosen));
        }
    });
}
