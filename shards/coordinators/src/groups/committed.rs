//! How far groups have come, for whoever compares it with the ends of the logs (`crate::group_lag`),
//! which are on other shards.

use chronik_protocol::Str;

use super::offsets::GroupOffsets;
use super::partition::GroupPartition;
use super::request::{CommittedPartition, GroupCommitted};

impl GroupPartition {
    /// Offsets of the groups after `after` by name, at most `groups_max` of them.
    pub(crate) fn committed(&self, after: Option<&str>, groups_max: usize) -> Vec<GroupCommitted> {
        let groups = self.offsets.groups_after(after).take(groups_max);
        groups
            .map(|(id, offsets)| self.committed_of(id, offsets))
            .collect()
    }

    fn committed_of(&self, id: &Str, offsets: &GroupOffsets) -> GroupCommitted {
        let group = self.groups.get(id);
        let mut partitions = Vec::new();
        for (topic, committed) in offsets {
            for (partition, offset) in committed {
                partitions.push(CommittedPartition {
                    topic: topic.clone(),
                    topic_id: offset.topic_id,
                    partition: *partition,
                    committed_offset: offset.offset,
                    commit_timestamp_ms: offset.commit_timestamp_ms,
                });
            }
        }
        GroupCommitted {
            group: id.clone(),
            state: Str::from_static(group.map_or("Empty", super::group::Group::state_name)),
            members: group.map_or(0, super::group::Group::member_count),
            partitions,
        }
    }
}
