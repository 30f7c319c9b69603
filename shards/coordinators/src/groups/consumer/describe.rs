//! ConsumerGroupDescribe: a group as operators see it.

use std::collections::{BTreeMap, BTreeSet};

use chronik_catalog::Image;
use chronik_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::assignor::Assignor;
use super::group::ConsumerGroup;
use super::member::Member;
use super::target::preferred;

/// A group that is not there, or of another type.
pub(crate) fn not_described(
    group: &Str,
    error: ErrorCode,
    message: Option<String>,
) -> DescribedGroup {
    DescribedGroup {
        error_code: error.as_i16(),
        error_message: message.map(Str::from),
        group_id: group.clone(),
        ..DescribedGroup::default()
    }
}

/// Describes a group.
pub(crate) fn describe(
    group: &ConsumerGroup,
    image: &Image,
    assignors: &[Assignor],
) -> DescribedGroup {
    let members = group.members.values();
    let members = members.map(|member| describe_member(group, member, image));
    DescribedGroup {
        group_id: group.id.clone(),
        group_state: Str::from_static(group.state().name()),
        group_epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        assignor_name: Str::from_static(preferred(group.assignors(), assignors).name()),
        members: members.collect(),
        ..DescribedGroup::default()
    }
}

fn describe_member(group: &ConsumerGroup, member: &Member, image: &Image) -> DescribedMember {
    // What is being given up is the member's until it has been.
    let mut assigned: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
    for (topic, partitions) in member.assigned.iter().chain(member.revoking.iter()) {
        let numbers = assigned.entry(*topic).or_default();
        numbers.extend(partitions.keys());
    }
    DescribedMember {
        member_id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: member.topic_names.iter().cloned().collect(),
        subscribed_topic_regex: member.topic_regex.clone(),
        assignment: assignment(&assigned, image),
        target_assignment: assignment(&group.target_of(&member.id), image),
        member_type: if member.classic.is_some() { 0 } else { 1 },
        ..DescribedMember::default()
    }
}

/// Of topics that still exist.
fn assignment(partitions: &BTreeMap<Uuid, BTreeSet<i32>>, image: &Image) -> Assignment {
    let topics = partitions.iter().filter_map(|(topic_id, numbers)| {
        Some(TopicPartitions {
            topic_id: *topic_id,
            topic_name: image.topic_by_id(*topic_id)?.name.clone(),
            partitions: numbers.iter().copied().collect(),
            ..TopicPartitions::default()
        })
    });
    Assignment {
        topic_partitions: topics.collect(),
        ..Assignment::default()
    }
}
