//! OffsetCommit and OffsetDelete.
//!
//! What is committed becomes records first, and state by their replay.

use std::collections::{HashMap, HashSet};

use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use chronik_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use chronik_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::caller::Token;
use super::classic::{ClassicGroup, ClassicState};
use super::consumer::CommitRight;
use super::group::Group;
use super::offsets::CommittedOffset;
use super::outcome::Outcome;
use super::partition::GroupPartition;
use super::records::GroupRecord;
use super::request::GroupReply;
use super::step::Step;
use crate::limits::GROUPS_PER_PARTITION_MAX;

/// The same refusal for everything a commit asks for.
pub(crate) fn commit_refused(
    request: &OffsetCommitRequest,
    error: ErrorCode,
) -> OffsetCommitResponse {
    let topic = |topic: &OffsetCommitRequestTopic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| committed(partition.partition_index, error))
            .collect(),
        ..OffsetCommitResponseTopic::default()
    };
    OffsetCommitResponse {
        topics: request.topics.iter().map(topic).collect(),
        ..OffsetCommitResponse::default()
    }
}

fn committed(partition_index: i32, error: ErrorCode) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition {
        partition_index,
        error_code: error.as_i16(),
        ..OffsetCommitResponsePartition::default()
    }
}

impl GroupPartition {
    /// Remembers offsets, if the caller may speak for the group.
    pub(crate) fn commit(
        &mut self,
        step: &mut Step<'_>,
        request: &OffsetCommitRequest,
        knows_epochs: bool,
        token: Token,
    ) -> Outcome {
        let right = match self.check_commit(step, request, knows_epochs) {
            Ok(right) => right,
            Err(error) => {
                let response = commit_refused(request, error);
                return Outcome::reply(token, GroupReply::CommitOffsets(response));
            }
        };
        let group = request.group_id.detached();
        // Each is answered; of a partition that is named again the last counts.
        let mut records = Vec::new();
        let mut places: HashMap<(&str, i32), usize> = HashMap::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let name = topic.name.detached();
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                if metadata.encode_utf16().count() > step.settings.offset_metadata_max {
                    partitions.push(committed(index, ErrorCode::OffsetMetadataTooLarge));
                    continue;
                }
                if let Err(error) = right.check(topic.topic_id, index) {
                    partitions.push(committed(index, error));
                    continue;
                }
                let offset = wanted_offset(step, request, topic, partition);
                let record = offset.record(&group, &name, index);
                let free = records.len();
                match records.get_mut(*places.entry((&topic.name, index)).or_insert(free)) {
                    Some(earlier) => *earlier = record,
                    None => records.push(record),
                }
                partitions.push(committed(index, ErrorCode::None));
            }
            topics.push(OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions,
                ..OffsetCommitResponseTopic::default()
            });
        }
        let response = OffsetCommitResponse {
            topics,
            ..OffsetCommitResponse::default()
        };
        Outcome::replayed(records, token, GroupReply::CommitOffsets(response))
    }

    fn check_commit(
        &mut self,
        step: &mut Step<'_>,
        request: &OffsetCommitRequest,
        knows_epochs: bool,
    ) -> Result<CommitRight, ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) => {
                group.check_commit(request)?;
                // A commit is a sign of life.
                if matches!(
                    group.state(),
                    ClassicState::Stable | ClassicState::PreparingRebalance
                ) {
                    group.renew_session(step, &request.member_id);
                }
                Ok(CommitRight::All)
            }
            Some(Group::Consumer(group)) => {
                group.commit_right(&request.member_id, generation, knows_epochs)
            }
            None if generation >= 0 && knows_epochs => Err(ErrorCode::GroupIdNotFound),
            None if generation >= 0 => Err(ErrorCode::IllegalGeneration),
            None if self.groups.len() >= GROUPS_PER_PARTITION_MAX => {
                Err(ErrorCode::GroupMaxSizeReached)
            }
            // A consumer that assigns itself, or an operator: the group comes into being by the
            // record.
            None => Ok(CommitRight::All),
        }
    }

    /// Forgets offsets of topics nobody in the group wants.
    pub(crate) fn delete_offsets(
        &mut self,
        request: &OffsetDeleteRequest,
        token: Token,
    ) -> Outcome {
        let refused = |error: ErrorCode| {
            let response = OffsetDeleteResponse {
                error_code: error.as_i16(),
                ..OffsetDeleteResponse::default()
            };
            Outcome::reply(token, GroupReply::DeleteOffsets(response))
        };
        if request.group_id.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        let Some((id, group)) = self.groups.get_key_value(&request.group_id) else {
            return refused(ErrorCode::GroupIdNotFound);
        };
        match group {
            Group::Classic(group) if !group.is_empty() && !group.uses_consumer_protocol() => {
                return refused(ErrorCode::NonEmptyGroup);
            }
            Group::Classic(_) | Group::Consumer(_) => {}
        }
        let mut records = Vec::new();
        let mut named: HashSet<(&str, i32)> = HashSet::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let error = if group.is_subscribed_to(&topic.name) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: error.as_i16(),
                });
                let known = self.offsets.get(id, &topic.name, index).is_some();
                if error == ErrorCode::None && known && named.insert((&topic.name, index)) {
                    let name: Str = topic.name.detached();
                    records.push(GroupRecord::offset_tombstone(id, &name, index));
                }
            }
            topics.push(OffsetDeleteResponseTopic {
                name: topic.name.clone(),
                partitions,
            });
        }
        let response = OffsetDeleteResponse {
            topics,
            ..OffsetDeleteResponse::default()
        };
        Outcome::replayed(records, token, GroupReply::DeleteOffsets(response))
    }
}

fn wanted_offset(
    step: &Step<'_>,
    request: &OffsetCommitRequest,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
) -> CommittedOffset {
    let now_ms = step.now.wall_ms;
    let retention_ms = Some(request.retention_time_ms).filter(|ms| *ms != -1);
    CommittedOffset {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch.max(-1),
        metadata: partition
            .committed_metadata
            .as_ref()
            .map(Str::detached)
            .unwrap_or_default(),
        // Version 1 could say when.
        commit_timestamp_ms: match partition.commit_timestamp {
            -1 => now_ms,
            given_ms => given_ms,
        },
        // −1 means that there is none, also in the record.
        expire_timestamp_ms: retention_ms
            .map(|ms| now_ms.saturating_add(ms))
            .filter(|ms| *ms != -1),
        topic_id: topic.topic_id,
    }
}

impl ClassicGroup {
    /// Whether a commit may be taken: from a member of this generation that has its share, or from
    /// anybody while the group has no members.
    fn check_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        let instance = request.group_instance_id.as_ref();
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && instance.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&request.member_id, instance)?;
        if generation != self.generation() {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state() == ClassicState::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }
}
