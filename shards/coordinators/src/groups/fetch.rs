//! OffsetFetch: what a group has committed.

use std::collections::BTreeMap;

use chronik_catalog::Image;
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::group::Group;
use super::offsets::{CommittedOffset, GroupOffsets};
use super::partition::GroupPartition;

/// A group whose offsets cannot be told.
pub(crate) fn fetch_refused(group: &Str, error: ErrorCode) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup {
        group_id: group.clone(),
        error_code: error.as_i16(),
        ..OffsetFetchResponseGroup::default()
    }
}

fn told(partition_index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset.map_or(-1, |offset| offset.offset),
        committed_leader_epoch: offset.map_or(-1, |offset| offset.leader_epoch),
        metadata: Some(
            offset
                .map(|offset| offset.metadata.clone())
                .unwrap_or_default(),
        ),
        ..OffsetFetchResponsePartitions::default()
    }
}

/// Whether an offset was committed for the topic that has this id now: a topic that was deleted
/// and created again begins without offsets.
fn is_of(offset: &CommittedOffset, topic_id: Uuid) -> bool {
    offset.topic_id.is_zero() || topic_id.is_zero() || offset.topic_id == topic_id
}

impl GroupPartition {
    /// Offsets of one group.
    pub(crate) fn fetch_offsets(
        &self,
        image: &Image,
        request: &OffsetFetchRequestGroup,
    ) -> OffsetFetchResponseGroup {
        if let Some(Group::Consumer(group)) = self.groups.get(&request.group_id)
            && let Err(error) = group.check_fetch(request.member_id.as_ref(), request.member_epoch)
        {
            return fetch_refused(&request.group_id, error);
        }
        let known = self.groups.contains_key(&request.group_id);
        let offsets = self.offsets.of(&request.group_id).filter(|_| known);
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| fetch_topic(image, offsets, topic))
                .collect(),
            None => fetch_all(image, offsets),
        };
        OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            topics,
            ..OffsetFetchResponseGroup::default()
        }
    }
}

/// The id a topic of this name has now; zero when there is none.
fn current_id(image: &Image, name: &str) -> Uuid {
    image.topic(name).map_or(Uuid::ZERO, |topic| topic.id)
}

fn fetch_topic(
    image: &Image,
    offsets: Option<&GroupOffsets>,
    topic: &OffsetFetchRequestTopics,
) -> OffsetFetchResponseTopics {
    let partitions = offsets.and_then(|offsets| offsets.get(&topic.name));
    let current = current_id(image, &topic.name);
    let find = |index: &i32| {
        let offset = partitions.and_then(|partitions| partitions.get(index));
        let offset = offset.filter(|found| is_of(found, topic.topic_id) && is_of(found, current));
        told(*index, offset)
    };
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(find).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

fn fetch_all(image: &Image, offsets: Option<&GroupOffsets>) -> Vec<OffsetFetchResponseTopics> {
    let mut topics = Vec::new();
    for (name, partitions) in offsets.into_iter().flatten() {
        let current = current_id(image, name);
        let current_ones = |partitions: &BTreeMap<i32, CommittedOffset>| {
            let kept = partitions
                .iter()
                .filter(|(_, offset)| is_of(offset, current));
            kept.map(|(index, offset)| told(*index, Some(offset)))
                .collect::<Vec<_>>()
        };
        let partitions = current_ones(partitions);
        if !partitions.is_empty() {
            topics.push(OffsetFetchResponseTopics {
                name: name.clone(),
                topic_id: current,
                partitions,
                ..OffsetFetchResponseTopics::default()
            });
        }
    }
    topics
}
