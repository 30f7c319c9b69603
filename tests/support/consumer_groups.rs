//! Calls of consumer group members (KIP-848), and the records of a group.

use bytes::Bytes;
use chronik_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    IncrementalAlterConfigsRequest, consumer_group_describe_response::DescribedGroup,
    consumer_group_heartbeat_request::TopicPartitions, incremental_alter_configs_request,
};
use chronik_protocol::record::{BatchHeader, CheckedBatch, RecordLimits};
use chronik_protocol::records_of::{GroupKey, GroupValue, RecordSet, decode_key, decode_value};
use chronik_protocol::{ErrorCode, Uuid};

use super::calls::{code, fetch, fetched_bytes, text};
use super::client::Client;
use super::eventually;
use super::groups::find_coordinator;

/// ConsumerGroupHeartbeat with client-generated member ids.
pub const HEARTBEAT: i16 = 1;
const GROUP_RESOURCE: i8 = 32;
/// The default number of `__consumer_offsets`'s partitions.
const OFFSETS_PARTITIONS: i32 = 50;

/// A heartbeat without a change.
pub fn beat(group: &str, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: text(group),
        member_id: text(member),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// A heartbeat that joins.
pub fn joining(group: &str, member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(topics.iter().map(|name| text(name)).collect()),
        topic_partitions: Some(Vec::new()),
        ..beat(group, member, 0)
    }
}

/// A joining heartbeat that owns these partitions of one topic.
pub fn owning(
    mut request: ConsumerGroupHeartbeatRequest,
    topic: Uuid,
    partitions: &[i32],
) -> ConsumerGroupHeartbeatRequest {
    request.topic_partitions = Some(vec![TopicPartitions {
        topic_id: topic,
        partitions: partitions.to_vec(),
        ..TopicPartitions::default()
    }]);
    request
}

/// Sends a heartbeat that must be accepted.
///
/// # Panics
/// When it is refused.
pub fn accepted(
    client: &mut Client,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let response = client.call(request, HEARTBEAT);
    let error = code(response.error_code);
    assert_eq!(error, ErrorCode::None, "{:?}", response.error_message);
    response
}

/// Sends a heartbeat that must be refused.
pub fn refusal(
    client: &mut Client,
    request: &ConsumerGroupHeartbeatRequest,
) -> (ErrorCode, String) {
    let response = client.call(request, HEARTBEAT);
    let message = response.error_message.map(|message| message.to_string());
    (code(response.error_code), message.unwrap_or_default())
}

/// The assignment of a response: topic and partitions, ascending; `None` without one.
pub fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<(Uuid, Vec<i32>)>> {
    let topics = &response.assignment.as_ref()?.topic_partitions;
    let mut topics: Vec<(Uuid, Vec<i32>)> = topics
        .iter()
        .map(|topic| {
            let mut partitions = topic.partitions.clone();
            partitions.sort_unstable();
            (topic.topic_id, partitions)
        })
        .collect();
    topics.sort_unstable();
    Some(topics)
}

/// Describes one group.
pub fn describe(client: &mut Client, group: &str) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![text(group)],
        ..ConsumerGroupDescribeRequest::default()
    };
    client.call(&request, 1).groups.remove(0)
}

/// Makes the broker coordinate the group, and waits until it does.
///
/// # Panics
/// When it never does.
pub fn coordinated(client: &mut Client, group: &str) {
    eventually(&format!("a coordinator of {group}"), || {
        find_coordinator_or_wait(client, group).then_some(())
    });
}

fn find_coordinator_or_wait(client: &mut Client, group: &str) -> bool {
    // Another broker creates the topic after the answer.
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_none() {
        find_coordinator(client, group);
    } else {
        let request = chronik_protocol::messages::FindCoordinatorRequest {
            coordinator_keys: vec![text(group)],
            ..Default::default()
        };
        client.call(&request, 4);
    }
    let error = code(describe(client, group).error_code);
    error == ErrorCode::GroupIdNotFound
}

/// Changes one config of a group.
pub fn configure(client: &mut Client, group: &str, name: &str, value: &str) -> (ErrorCode, String) {
    let config = incremental_alter_configs_request::AlterableConfig {
        name: text(name),
        config_operation: 0,
        value: Some(text(value)),
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::AlterConfigsResource {
            resource_type: GROUP_RESOURCE,
            resource_name: text(group),
            configs: vec![config],
            ..Default::default()
        }],
        ..Default::default()
    };
    let result = client.call(&request, 1).responses.remove(0);
    let message = result.error_message.map(|message| message.to_string());
    (code(result.error_code), message.unwrap_or_default())
}

/// The group's partition of `__consumer_offsets`: Java's hash of its name.
fn partition_of(group: &str) -> i32 {
    let units = group.encode_utf16();
    let hash = units.fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) % OFFSETS_PARTITIONS
}

/// A record of a group in its log.
#[derive(Debug)]
pub struct LoggedRecord {
    /// Its batch's header.
    pub batch: BatchHeader,
    /// The decoded key.
    pub key: GroupKey,
    /// The key's bytes.
    pub key_bytes: Bytes,
    /// The value's bytes; `None` for a tombstone.
    pub value_bytes: Option<Bytes>,
}

/// All records of a group, offsets included, in order.
///
/// # Panics
/// When the log holds an unknown record.
pub fn logged(client: &mut Client, group: &str) -> Vec<LoggedRecord> {
    let partition = partition_of(group);
    let mut records = Vec::new();
    let mut offset = 0;
    loop {
        let data = fetch(client, "__consumer_offsets", partition, offset);
        assert_eq!(code(data.error_code), ErrorCode::None, "at {offset}");
        let mut rest = Bytes::from(fetched_bytes(&data));
        if rest.is_empty() {
            return records;
        }
        while !rest.is_empty() {
            let (batch, after) = CheckedBatch::parse_first(rest).expect("a batch");
            rest = after;
            offset = batch.header.next_offset();
            for record in batch.records(&RecordLimits::default()).expect("records") {
                let record = record.expect("a record");
                let key_bytes = record.key.expect("a key");
                let key: GroupKey = decode_key(key_bytes.clone()).expect("a known key");
                if is_of(&key, group) {
                    records.push(LoggedRecord {
                        batch: batch.header,
                        key,
                        key_bytes,
                        value_bytes: record.value,
                    });
                }
            }
        }
    }
}

/// The records of a group without offsets, in order.
///
/// # Panics
/// When the log holds an unknown record.
pub fn written(client: &mut Client, group: &str) -> Vec<(GroupKey, Option<GroupValue>)> {
    let mut records = logged(client, group);
    records.retain(|record| !matches!(record.key, GroupKey::OffsetCommit(_)));
    let decoded = |record: LoggedRecord| {
        let value = record.value_bytes.map(|value| {
            let value = decode_value::<GroupValue>(record.key.record_type(), value);
            value.expect("a known value").0
        });
        (record.key, value)
    };
    records.into_iter().map(decoded).collect()
}

fn is_of(key: &GroupKey, group: &str) -> bool {
    let own = match key {
        GroupKey::ConsumerGroupMetadata(key) => &key.group_id,
        GroupKey::ConsumerGroupPartitionMetadata(key) => &key.group_id,
        GroupKey::ConsumerGroupMemberMetadata(key) => &key.group_id,
        GroupKey::ConsumerGroupTargetAssignmentMetadata(key) => &key.group_id,
        GroupKey::ConsumerGroupTargetAssignmentMember(key) => &key.group_id,
        GroupKey::ConsumerGroupCurrentMemberAssignment(key) => &key.group_id,
        GroupKey::ConsumerGroupRegularExpression(key) => &key.group_id,
        GroupKey::GroupMetadata(key) => &key.group,
        GroupKey::OffsetCommit(key) => &key.group,
        _ => return false,
    };
    *own == group
}

/// Names of record types, `-` in front of tombstones.
pub fn names(records: &[(GroupKey, Option<GroupValue>)]) -> Vec<String> {
    let name = |(key, value): &(GroupKey, Option<GroupValue>)| {
        let text = format!("{key:?}");
        let name = text.split('(').next().unwrap_or_default();
        let sign = if value.is_some() { "" } else { "-" };
        format!("{sign}{}", name.replace("ConsumerGroup", ""))
    };
    records.iter().map(name).collect()
}
