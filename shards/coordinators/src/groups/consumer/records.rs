//! The records a consumer group writes (Kafka's `GroupCoordinatorRecordHelpers`), all in version 0.
//!
//! Pure. Topics, members and partitions stand in ascending order, so that equal states give equal
//! bytes.

use chronik_protocol::Str;
use chronik_protocol::messages::consumer_group_target_assignment_member_value::TopicPartition;
use chronik_protocol::messages::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupMemberMetadataKey,
    ConsumerGroupMetadataKey, ConsumerGroupMetadataValue, ConsumerGroupPartitionMetadataKey,
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue,
};
use chronik_protocol::records_of::{GroupKey, GroupValue};

use super::super::records::GroupRecord;
use super::assignor::Partitions;
use super::member::Member;
use super::regex::Resolved;

/// The version every value here is written in.
const VERSION: i16 = 0;

fn record(key: GroupKey, value: GroupValue) -> GroupRecord {
    GroupRecord {
        key,
        value: Some((value, VERSION)),
    }
}

/// The group's epoch and what it was computed from.
pub(crate) fn epoch(group: &Str, epoch: i32, metadata_hash: i64) -> GroupRecord {
    let value = ConsumerGroupMetadataValue {
        epoch,
        metadata_hash,
        ..ConsumerGroupMetadataValue::default()
    };
    record(epoch_key(group), GroupValue::ConsumerGroupMetadata(value))
}

/// The group is gone.
pub(crate) fn epoch_tombstone(group: &Str) -> GroupRecord {
    GroupRecord::tombstone(epoch_key(group))
}

fn epoch_key(group: &Str) -> GroupKey {
    GroupKey::ConsumerGroupMetadata(ConsumerGroupMetadataKey {
        group_id: group.clone(),
    })
}

/// Removes what Kafka 4.0 kept instead of the metadata hash.
pub(crate) fn partition_metadata_tombstone(group: &Str) -> GroupRecord {
    GroupRecord::tombstone(GroupKey::ConsumerGroupPartitionMetadata(
        ConsumerGroupPartitionMetadataKey {
            group_id: group.clone(),
        },
    ))
}

/// Who a member is and what it subscribes to.
pub(crate) fn member(group: &Str, member: &Member) -> GroupRecord {
    record(
        member_key(group, &member.id),
        GroupValue::ConsumerGroupMemberMetadata(member.description()),
    )
}

fn member_key(group: &Str, member: &Str) -> GroupKey {
    GroupKey::ConsumerGroupMemberMetadata(ConsumerGroupMemberMetadataKey {
        group_id: group.clone(),
        member_id: member.clone(),
    })
}

/// A member is gone.
pub(crate) fn member_tombstone(group: &Str, member: &Str) -> GroupRecord {
    GroupRecord::tombstone(member_key(group, member))
}

/// Epoch of the target, and when it was made, ms since the epoch.
pub(crate) fn target_epoch(
    group: &Str,
    assignment_epoch: i32,
    assignment_timestamp: i64,
) -> GroupRecord {
    let value = ConsumerGroupTargetAssignmentMetadataValue {
        assignment_epoch,
        assignment_timestamp,
        ..ConsumerGroupTargetAssignmentMetadataValue::default()
    };
    record(
        target_epoch_key(group),
        GroupValue::ConsumerGroupTargetAssignmentMetadata(value),
    )
}

/// There is no target.
pub(crate) fn target_epoch_tombstone(group: &Str) -> GroupRecord {
    GroupRecord::tombstone(target_epoch_key(group))
}

fn target_epoch_key(group: &Str) -> GroupKey {
    GroupKey::ConsumerGroupTargetAssignmentMetadata(ConsumerGroupTargetAssignmentMetadataKey {
        group_id: group.clone(),
    })
}

/// A member's part of the target.
pub(crate) fn target(group: &Str, member: &Str, partitions: &Partitions) -> GroupRecord {
    let topic_partitions = partitions.iter().map(|(topic_id, numbers)| TopicPartition {
        topic_id: *topic_id,
        partitions: numbers.iter().copied().collect(),
        ..TopicPartition::default()
    });
    let value = ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: topic_partitions.collect(),
        ..ConsumerGroupTargetAssignmentMemberValue::default()
    };
    record(
        target_key(group, member),
        GroupValue::ConsumerGroupTargetAssignmentMember(value),
    )
}

/// A member has no part of the target.
pub(crate) fn target_tombstone(group: &Str, member: &Str) -> GroupRecord {
    GroupRecord::tombstone(target_key(group, member))
}

fn target_key(group: &Str, member: &Str) -> GroupKey {
    GroupKey::ConsumerGroupTargetAssignmentMember(ConsumerGroupTargetAssignmentMemberKey {
        group_id: group.clone(),
        member_id: member.clone(),
    })
}

/// What a member has and where it stands.
pub(crate) fn current(group: &Str, member: &Member) -> GroupRecord {
    record(
        current_key(group, &member.id),
        GroupValue::ConsumerGroupCurrentMemberAssignment(member.placement()),
    )
}

/// A member has nothing.
pub(crate) fn current_tombstone(group: &Str, member: &Str) -> GroupRecord {
    GroupRecord::tombstone(current_key(group, member))
}

fn current_key(group: &Str, member: &Str) -> GroupKey {
    GroupKey::ConsumerGroupCurrentMemberAssignment(ConsumerGroupCurrentMemberAssignmentKey {
        group_id: group.clone(),
        member_id: member.clone(),
    })
}

/// What an expression matches.
pub(crate) fn regex(group: &Str, pattern: &Str, resolved: &Resolved) -> GroupRecord {
    let value = ConsumerGroupRegularExpressionValue {
        topics: resolved.topics.iter().cloned().collect(),
        version: resolved.version,
        timestamp: resolved.timestamp_ms,
        ..ConsumerGroupRegularExpressionValue::default()
    };
    record(
        regex_key(group, pattern),
        GroupValue::ConsumerGroupRegularExpression(value),
    )
}

/// Nobody subscribes by the expression any more.
pub(crate) fn regex_tombstone(group: &Str, pattern: &Str) -> GroupRecord {
    GroupRecord::tombstone(regex_key(group, pattern))
}

fn regex_key(group: &Str, pattern: &Str) -> GroupKey {
    GroupKey::ConsumerGroupRegularExpression(ConsumerGroupRegularExpressionKey {
        group_id: group.clone(),
        regular_expression: pattern.clone(),
    })
}

/// Removes everything about a member. The order matters to Kafka, which refuses to load others.
pub(crate) fn remove_member(records: &mut Vec<GroupRecord>, group: &Str, member: &Str) {
    records.push(current_tombstone(group, member));
    records.push(target_tombstone(group, member));
    records.push(member_tombstone(group, member));
}
