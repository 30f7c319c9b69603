//! The usual requests of tests: one topic, one partition, one answer.
//!
//! Never interprets an error: the code is returned as received.

use std::io;

use chronik_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ProduceRequest, create_topics_request,
    create_topics_response::CreatableTopicResult, fetch_request, fetch_response::PartitionData,
    list_offsets_request, list_offsets_response::ListOffsetsPartitionResponse, produce_request,
    produce_response::PartitionProduceResponse,
};
use chronik_protocol::{ErrorCode, Records, Str, Uuid};

use super::batch::ReadBatch;
use super::client::Client;

/// The newest Produce version that names topics.
pub const PRODUCE_BY_NAME: i16 = 12;
/// The newest Fetch version that names topics.
pub const FETCH_BY_NAME: i16 = 12;

/// Special timestamps of ListOffsets.
pub const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;
pub const MAX_TIMESTAMP: i64 = -3;

/// The error of a reply.
///
/// # Panics
/// When Kafka knows no such error.
pub fn code(error_code: i16) -> ErrorCode {
    ErrorCode::try_from(error_code).unwrap_or_else(|_| panic!("unknown error code {error_code}"))
}

/// A string for a message.
pub fn text(text: &str) -> Str {
    Str::from(text.to_owned())
}

/// A topic to create: one replica, these configs.
pub fn creatable(
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> create_topics_request::CreatableTopic {
    let configs = configs.iter().map(
        |(name, value)| create_topics_request::CreatableTopicConfig {
            name: text(name),
            value: Some(text(value)),
            ..Default::default()
        },
    );
    create_topics_request::CreatableTopic {
        name: text(name),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs.collect(),
        ..Default::default()
    }
}

/// Creates topics and returns the result of each.
pub fn create_topics(
    client: &mut Client,
    topics: Vec<create_topics_request::CreatableTopic>,
) -> io::Result<Vec<CreatableTopicResult>> {
    let request = CreateTopicsRequest {
        topics,
        timeout_ms: 30_000,
        ..Default::default()
    };
    Ok(client.try_call(&request, 7)?.topics)
}

/// Creates one topic and returns its id.
///
/// # Panics
/// When the broker refuses.
pub fn create_topic(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Uuid {
    let results = create_topics(client, vec![creatable(name, partitions, configs)]);
    let result = results.expect("an answer").remove(0);
    assert_eq!(
        code(result.error_code),
        ErrorCode::None,
        "{name}: {:?}",
        result.error_message
    );
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        wait_until_led(client, name, partitions);
    }
    result.topic_id
}

/// Kafka answers before the partitions have a leader; Chronik makes requests for one wait a moment.
fn wait_until_led(client: &mut Client, name: &str, partitions: i32) {
    for partition in 0..partitions {
        let answers = (0..2_000).map(|_| list_offset(client, name, partition, LATEST));
        let led = answers
            .map(|answer| code(answer.error_code))
            .find(|error| error.is_none());
        assert!(led.is_some(), "{name}-{partition} has no leader");
    }
}

/// Deletes one topic by name.
///
/// # Errors
/// When the connection ends.
pub fn delete_topic(client: &mut Client, name: &str) -> io::Result<ErrorCode> {
    let request = DeleteTopicsRequest {
        topic_names: vec![text(name)],
        timeout_ms: 30_000,
        ..Default::default()
    };
    Ok(code(client.try_call(&request, 5)?.responses[0].error_code))
}

/// A produce request for one partition, by name.
pub fn produce_request(
    topic: &str,
    partition: i32,
    acks: i16,
    records: impl Into<Vec<u8>>,
) -> ProduceRequest {
    let records: Vec<u8> = records.into();
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: text(topic),
            partition_data: vec![produce_request::PartitionProduceData {
                index: partition,
                records: Some(Records::from(bytes::Bytes::from(records))),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Produces with acks=all and returns the partition's answer.
///
/// # Panics
/// When the connection ends.
pub fn produce(
    client: &mut Client,
    topic: &str,
    partition: i32,
    records: impl Into<Vec<u8>>,
) -> PartitionProduceResponse {
    let request = produce_request(topic, partition, -1, records);
    only_partition(client.call(&request, PRODUCE_BY_NAME))
}

/// The one answer of a produce request for one partition.
pub fn only_partition(
    mut response: chronik_protocol::messages::ProduceResponse,
) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1, "one topic asked, one answered");
    let mut topic = response.responses.remove(0);
    assert_eq!(
        topic.partition_responses.len(),
        1,
        "one partition asked, one answered"
    );
    topic.partition_responses.remove(0)
}

/// Produces and expects success; returns the base offset.
///
/// # Panics
/// When the broker refuses.
pub fn produce_ok(
    client: &mut Client,
    topic: &str,
    partition: i32,
    records: impl Into<Vec<u8>>,
) -> i64 {
    let answer = produce(client, topic, partition, records);
    assert_eq!(
        code(answer.error_code),
        ErrorCode::None,
        "{:?}",
        answer.error_message
    );
    answer.base_offset
}

/// A fetch without a session for one partition, by name.
pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 16 << 20,
        topics: vec![fetch_request::FetchTopic {
            topic: text(topic),
            partitions: vec![fetch_partition(partition, offset)],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A consumer's request for one partition.
pub fn fetch_partition(partition: i32, offset: i64) -> fetch_request::FetchPartition {
    fetch_request::FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: 16 << 20,
        ..Default::default()
    }
}

/// Fetches once, without waiting, and returns the partition's answer.
///
/// # Errors
/// When the connection ends.
pub fn try_fetch(
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> io::Result<PartitionData> {
    let mut response = client.try_call(&fetch_request(topic, partition, offset), FETCH_BY_NAME)?;
    assert_eq!(code(response.error_code), ErrorCode::None);
    Ok(response.responses.remove(0).partitions.remove(0))
}

/// As [`try_fetch`].
///
/// # Panics
/// When the connection ends.
pub fn fetch(client: &mut Client, topic: &str, partition: i32, offset: i64) -> PartitionData {
    try_fetch(client, topic, partition, offset).expect("an answer")
}

/// The record bytes of a partition's answer.
pub fn fetched_bytes(partition: &PartitionData) -> Vec<u8> {
    partition
        .records
        .clone()
        .map(|records| records.into_bytes().to_vec())
        .unwrap_or_default()
}

/// Reads a partition from `offset` to its high watermark, in stored batches. Includes earlier records of the first
/// batch, as the protocol sends them.
///
/// # Panics
/// When the broker answers with an error, or makes no progress.
pub fn read_batches(
    client: &mut Client,
    topic: &str,
    partition: i32,
    mut offset: i64,
) -> Vec<ReadBatch> {
    let mut batches = Vec::new();
    loop {
        let answer = fetch(client, topic, partition, offset);
        assert_eq!(
            code(answer.error_code),
            ErrorCode::None,
            "fetch at {offset}"
        );
        if offset >= answer.high_watermark {
            return batches;
        }
        let more = ReadBatch::all(&fetched_bytes(&answer));
        let last = more
            .last()
            .unwrap_or_else(|| panic!("nothing at {offset} below the watermark"));
        offset = last.base_offset + i64::from(last.last_offset_delta) + 1;
        batches.extend(more);
    }
}

/// Offset and value of every record of a partition from `offset` on (uncompressed batches).
///
/// # Panics
/// As [`read_batches`].
pub fn read_values(
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Vec<(i64, Vec<u8>)> {
    let batches = read_batches(client, topic, partition, offset);
    let values = batches.iter().flat_map(ReadBatch::values);
    values.filter(|(found, _)| *found >= offset).collect()
}

/// Asks for one offset (by timestamp or a special one).
///
/// # Panics
/// When the connection ends.
pub fn list_offset(
    client: &mut Client,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> ListOffsetsPartitionResponse {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: text(topic),
            partitions: vec![list_offsets_request::ListOffsetsPartition {
                partition_index: partition,
                timestamp,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    client
        .call(&request, 9)
        .topics
        .remove(0)
        .partitions
        .remove(0)
}

/// The log end a consumer sees.
///
/// # Panics
/// When the broker answers with an error.
pub fn latest(client: &mut Client, topic: &str, partition: i32) -> i64 {
    let answer = list_offset(client, topic, partition, LATEST);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    answer.offset
}

/// Asks for a producer id without a transaction.
///
/// # Errors
/// When the connection ends.
pub fn try_init_producer(client: &mut Client) -> io::Result<InitProducerIdResponse> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    client.try_call(&request, 4)
}

/// As [`try_init_producer`]; the id.
///
/// # Panics
/// When the broker refuses.
pub fn init_producer(client: &mut Client) -> i64 {
    let response = try_init_producer(client).expect("an answer");
    assert_eq!(code(response.error_code), ErrorCode::None);
    response.producer_id
}
