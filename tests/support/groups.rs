//! Short calls of group consumers and operators.
//!
//! In the newest version without topic ids, unless a test asks for another.

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use chronik_protocol::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    SyncGroupResponse, join_group_request, leave_group_request, sync_group_request,
};

use super::calls::{code, text};
use super::client::Client;
use super::eventually;

/// OffsetCommit by topic name.
pub const COMMIT_BY_NAME: i16 = 9;
/// OffsetFetch by topic name, several groups.
pub const OFFSETS_BY_NAME: i16 = 9;
/// JoinGroup that requires a member id first.
pub const JOIN: i16 = 9;
/// SyncGroup.
pub const SYNC: i16 = 5;

/// Finds the coordinator, which also makes the broker create its topic. Apache Kafka answers that there is none until
/// it has.
///
/// # Panics
/// When there is none.
pub fn find_coordinator(client: &mut Client, group: &str) {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![text(group)],
        ..Default::default()
    };
    eventually("a coordinator", || {
        let response = client.call(&request, 4);
        match code(response.coordinators[0].error_code) {
            ErrorCode::None => Some(()),
            ErrorCode::CoordinatorNotAvailable => None,
            error => panic!("no coordinator for {group}: {error:?}"),
        }
    });
}

/// A joining member: one protocol, `range`, and metadata of its own.
pub fn join_request(group: &str, member: &str, metadata: &[u8]) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: text(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: text(member),
        protocol_type: "consumer".into(),
        protocols: vec![join_group_request::JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::copy_from_slice(metadata),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The id given to a new member.
///
/// # Panics
/// When it is not given one.
pub fn new_member(client: &mut Client, group: &str) -> String {
    let response = client.call(&join_request(group, "", b""), JOIN);
    assert_eq!(code(response.error_code), ErrorCode::MemberIdRequired);
    response.member_id.to_string()
}

/// Joins as the only member of a group, and waits for the answer.
///
/// # Panics
/// When it is refused.
pub fn join_alone(client: &mut Client, group: &str) -> JoinGroupResponse {
    let member = new_member(client, group);
    let response = client.call(&join_request(group, &member, b"alone"), JOIN);
    assert_eq!(code(response.error_code), ErrorCode::None, "{group}");
    response
}

/// A SyncGroup request; from the leader with all members' assignments.
pub fn sync_request(group: &str, joined: &JoinGroupResponse) -> SyncGroupRequest {
    let share =
        |member: &chronik_protocol::messages::join_group_response::JoinGroupResponseMember| {
            sync_group_request::SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: Bytes::from(format!("share of {}", member.member_id)),
                ..Default::default()
            }
        };
    SyncGroupRequest {
        group_id: text(group),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: joined.members.iter().map(share).collect(),
        ..Default::default()
    }
}

/// Syncs, and waits for the assignment.
pub fn sync(client: &mut Client, group: &str, joined: &JoinGroupResponse) -> SyncGroupResponse {
    client.call(&sync_request(group, joined), SYNC)
}

/// A new group with one member that has its assignment.
///
/// # Panics
/// When the broker refuses.
pub fn stable_group(client: &mut Client, group: &str) -> JoinGroupResponse {
    let joined = join_alone(client, group);
    let synced = sync(client, group, &joined);
    assert_eq!(code(synced.error_code), ErrorCode::None, "{group}");
    joined
}

/// Sends a heartbeat.
pub fn heartbeat(client: &mut Client, group: &str, member: &str, generation: i32) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: text(group),
        generation_id: generation,
        member_id: text(member),
        ..Default::default()
    };
    code(client.call(&request, 4).error_code)
}

/// Removes one member.
pub fn leave(client: &mut Client, group: &str, member: &str) -> ErrorCode {
    let request = LeaveGroupRequest {
        group_id: text(group),
        members: vec![leave_group_request::MemberIdentity {
            member_id: text(member),
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.call(&request, 5);
    match code(response.error_code) {
        ErrorCode::None => code(response.members[0].error_code),
        error => error,
    }
}

/// A commit of one offset without a member.
pub fn commit_request(
    group: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: text(group),
        topics: vec![OffsetCommitRequestTopic {
            name: text(topic),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_leader_epoch: 0,
                committed_metadata: Some(text(&format!("up to {offset}"))),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Commits one offset without a member.
pub fn commit(
    client: &mut Client,
    group: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) -> ErrorCode {
    let request = commit_request(group, topic, partition, offset);
    let response = client.call(&request, COMMIT_BY_NAME);
    code(response.topics[0].partitions[0].error_code)
}

/// Commits one offset as a member.
pub fn commit_as(
    client: &mut Client,
    member: (&str, i32),
    group: &str,
    topic: &str,
    offset: i64,
) -> ErrorCode {
    let mut request = commit_request(group, topic, 0, offset);
    request.member_id = text(member.0);
    request.generation_id_or_member_epoch = member.1;
    let response = client.call(&request, COMMIT_BY_NAME);
    code(response.topics[0].partitions[0].error_code)
}

/// One group's committed offsets for some partitions of a topic, or without a topic for all.
pub fn fetch_offsets(
    client: &mut Client,
    group: &str,
    topic: Option<(&str, &[i32])>,
) -> OffsetFetchResponseGroup {
    let topics = topic.map(|(name, partitions)| {
        vec![OffsetFetchRequestTopics {
            name: text(name),
            partition_indexes: partitions.to_vec(),
            ..Default::default()
        }]
    });
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: text(group),
            topics,
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut response = client.call(&request, OFFSETS_BY_NAME);
    response.groups.remove(0)
}

/// One committed offset; −1 when there is none.
///
/// # Panics
/// When the broker answers with an error.
pub fn committed(client: &mut Client, group: &str, topic: &str, partition: i32) -> i64 {
    // A coordinator that has just started may still be loading; clients retry.
    let found = eventually("the coordinator is loaded", || {
        let found = fetch_offsets(client, group, Some((topic, &[partition])));
        let is_loading = code(found.error_code) == ErrorCode::CoordinatorLoadInProgress;
        (!is_loading).then_some(found)
    });
    assert_eq!(code(found.error_code), ErrorCode::None, "{group}");
    let partition = &found.topics[0].partitions[0];
    assert_eq!(code(partition.error_code), ErrorCode::None, "{group}");
    partition.committed_offset
}
