//! The state of the groups of one partition of `__consumer_offsets`.
//!
//! A replayed state machine: [`GroupPartition::replay`] is the only way in for what must survive,
//! and `classic` keeps beside it what need not (who is parked, who was heard of). Knows no other
//! partition, and nobody who waits but by token.

use std::collections::BTreeMap;

use chronik_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest,
};
use chronik_protocol::records_of::{GroupKey, GroupValue};
use chronik_protocol::{ErrorCode, Str};

use super::caller::Token;
use super::classic::{ClassicGroup, Join, join_refusal, nobody_left};
use super::consumer::{self, TopicVersions};
use super::deadlines::GroupTimer;
use super::group::Group;
use super::offsets::Offsets;
use super::outcome::{Outcome, Then};
use super::records::GroupRecord;
use super::refused::{join_refused, sync_refused};
use super::request::{GroupReply, GroupRequest};
use super::step::{Step, TopicChanges};
use crate::limits::GROUPS_PER_PARTITION_MAX;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupPartition {
    pub(crate) groups: BTreeMap<Str, Group>,
    pub(crate) offsets: Offsets,
    /// When topics changed last; for consumer groups.
    pub(crate) topics: TopicVersions,
    /// See [`GroupPartition::take_evicted`].
    evicted: Vec<(Token, GroupReply)>,
}

impl GroupPartition {
    /// A request of one group.
    pub(crate) fn handle(
        &mut self,
        step: &mut Step<'_>,
        request: GroupRequest,
        token: Token,
    ) -> Outcome {
        match request {
            GroupRequest::Join {
                request,
                caller,
                known_member_id,
                skip_assignment,
            } => {
                let join = Join {
                    request,
                    caller,
                    known_member_id,
                    skip_assignment,
                    token,
                };
                self.join(step, join)
            }
            GroupRequest::Sync(request) => match self.groups.get_mut(&request.group_id) {
                _ if request.group_id.is_empty() => {
                    step.reply(token, sync_refused(ErrorCode::InvalidGroupId));
                    Outcome::NOTHING
                }
                Some(Group::Classic(group)) => group.sync(step, &request, token),
                Some(Group::Consumer(group)) => {
                    Self::sync_consumer_group(group, step, &request, token)
                }
                None => {
                    step.reply(token, sync_refused(ErrorCode::UnknownMemberId));
                    Outcome::NOTHING
                }
            },
            GroupRequest::Heartbeat(request) => self.heartbeat(step, &request, token),
            GroupRequest::Leave(request) => self.leave(step, &request, token),
            GroupRequest::ConsumerHeartbeat {
                request,
                id_required,
                caller,
            } => self.consumer_heartbeat(step, &request, id_required, &caller, token),
            GroupRequest::CommitOffsets {
                request,
                knows_epochs,
            } => self.commit(step, &request, knows_epochs, token),
            GroupRequest::DeleteOffsets(request) => self.delete_offsets(&request, token),
            GroupRequest::Describe { .. }
            | GroupRequest::ConsumerDescribe(_)
            | GroupRequest::List { .. }
            | GroupRequest::Delete(_)
            | GroupRequest::FetchOffsets { .. }
            | GroupRequest::Committed(_)
            | GroupRequest::Stop => {
                unreachable!("requests over several groups are taken apart by the coordinator")
            }
        }
    }

    fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        request: &HeartbeatRequest,
        token: Token,
    ) -> Outcome {
        let result = match self.groups.get_mut(&request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Some(Group::Classic(group)) => group.heartbeat(step, request),
            Some(Group::Consumer(group)) => Self::classic_heartbeat(group, step, request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        let response = HeartbeatResponse {
            error_code: result.err().unwrap_or(ErrorCode::None).as_i16(),
            ..HeartbeatResponse::default()
        };
        Outcome::reply(token, GroupReply::Heartbeat(response))
    }

    fn join(&mut self, step: &mut Step<'_>, join: Join) -> Outcome {
        let JoinGroupRequest {
            group_id,
            member_id,
            ..
        } = &join.request;
        if let Some(error) = join_refusal(&join.request, step) {
            step.reply(join.token, join_refused(member_id.clone(), error));
            return Outcome::NOTHING;
        }
        let id = group_id.detached();
        let mut before = Vec::new();
        match self.groups.get_mut(&id) {
            Some(Group::Classic(group)) => return group.join(step, join),
            Some(Group::Consumer(group)) if !group.members.is_empty() => {
                return self.join_consumer_group(step, join);
            }
            // An empty group is of the type of whoever joins first.
            Some(Group::Consumer(group)) => consumer::tombstones(group, &mut before),
            None => {}
        }
        if !member_id.is_empty() {
            let reply = join_refused(member_id.clone(), ErrorCode::UnknownMemberId);
            step.reply(join.token, reply);
            return Outcome::NOTHING;
        }
        if before.is_empty() && self.groups.len() >= GROUPS_PER_PARTITION_MAX {
            let reply = join_refused(Str::default(), ErrorCode::GroupMaxSizeReached);
            step.reply(join.token, reply);
            return Outcome::NOTHING;
        }
        let mut group = ClassicGroup::new(id.clone(), step.now.wall_ms);
        let mut outcome = group.join(step, join);
        if outcome.records.is_empty() {
            // A group that exists is in the log.
            outcome.records.push(group.empty_record());
        }
        let group = Group::Classic(Box::new(group));
        let before_it = self.groups.insert(id.clone(), group).map(Box::new);
        outcome.records.splice(0..0, before);
        debug_assert!(matches!(outcome.then, Then::Nothing), "nothing to wait for");
        outcome.then = Then::Created {
            group: id,
            before: before_it,
        };
        outcome
    }

    fn leave(&mut self, step: &mut Step<'_>, request: &LeaveGroupRequest, token: Token) -> Outcome {
        let mut response = nobody_left(request, ErrorCode::UnknownMemberId);
        let mut outcome = Outcome::NOTHING;
        if request.group_id.is_empty() {
            response.members.clear();
            response.error_code = ErrorCode::InvalidGroupId.as_i16();
        } else {
            match self.groups.get_mut(&request.group_id) {
                Some(Group::Classic(group)) => (response, outcome) = group.leave(step, request),
                Some(Group::Consumer(group)) => {
                    (response, outcome) = Self::leave_consumer_group(group, step, request);
                }
                None => {}
            }
        }
        outcome.then = Then::Reply(token, GroupReply::Leave(response));
        outcome
    }

    /// A deadline has come.
    pub(crate) fn on_timer(&mut self, step: &mut Step<'_>, timer: GroupTimer) -> Outcome {
        match timer {
            GroupTimer::Session { group, member } => match self.groups.get_mut(&group) {
                Some(Group::Classic(group)) => group.session_expired(step, &member),
                _ => Outcome::NOTHING,
            },
            GroupTimer::Join { group } => match self.groups.get_mut(&group) {
                Some(Group::Classic(group)) => group.join_expired(step),
                _ => Outcome::NOTHING,
            },
            GroupTimer::Sync { group } => match self.groups.get_mut(&group) {
                Some(Group::Classic(group)) => group.sync_expired(step),
                _ => Outcome::NOTHING,
            },
            // The coordinator's own.
            GroupTimer::Reload | GroupTimer::Expiry => Outcome::NOTHING,
            timer => self.consumer_timer(step, &timer),
        }
    }

    /// The records of an outcome are committed (`Ok`), or were refused before anything was written.
    pub(crate) fn written(
        &mut self,
        step: &mut Step<'_>,
        then: Then,
        result: Result<(), ErrorCode>,
    ) -> Outcome {
        match then {
            Then::Nothing => Outcome::NOTHING,
            Then::Reply(token, reply) => {
                let reply = match result {
                    Ok(()) => reply,
                    Err(error) => reply.spoiled(error),
                };
                step.reply(token, reply);
                Outcome::NOTHING
            }
            Then::Assigned { group, generation } => match (self.groups.get_mut(&group), result) {
                (Some(Group::Classic(group)), Ok(())) => {
                    group.assigned(step, generation);
                    Outcome::NOTHING
                }
                (Some(Group::Classic(group)), Err(error)) => {
                    group.not_assigned(step, generation, error)
                }
                _ => Outcome::NOTHING,
            },
            Then::Replaced {
                group,
                member,
                leader_before,
                skip_assignment,
                before,
            } => {
                match (self.groups.get_mut(&group), result) {
                    (Some(Group::Classic(group)), Ok(())) => {
                        group.replaced(step, &member, leader_before, skip_assignment);
                    }
                    (Some(Group::Classic(group)), Err(error)) => {
                        group.not_replaced(step, &member, *before, error);
                    }
                    _ => {}
                }
                Outcome::NOTHING
            }
            Then::Created { group, before } => {
                if let Err(error) = result {
                    self.not_created(step, &group, before, error);
                }
                Outcome::NOTHING
            }
        }
    }

    /// A new group cannot be written: it was never there.
    fn not_created(
        &mut self,
        step: &mut Step<'_>,
        id: &Str,
        before: Option<Box<Group>>,
        error: ErrorCode,
    ) {
        if let Some(Group::Classic(mut group)) = self.groups.remove(id) {
            group.refuse_waiting(error, &mut step.replies);
            group.cancel_deadlines(step);
        }
        if let Some(before) = before {
            self.groups.insert(id.clone(), *before);
        }
    }

    /// Callers who were parked in groups that records have replaced since this was asked last, and
    /// have to come again.
    pub(crate) fn take_evicted(&mut self) -> Vec<(Token, GroupReply)> {
        std::mem::take(&mut self.evicted)
    }

    fn evict(&mut self, mut group: Group) {
        group.refuse_waiting(ErrorCode::RebalanceInProgress, &mut self.evicted);
    }

    /// Takes a record of the log in. Types that others write are passed over.
    pub(crate) fn replay(&mut self, record: &GroupRecord, now_ms: i64) {
        let value = record.value.as_ref().map(|(value, _)| value);
        match (&record.key, value) {
            (GroupKey::OffsetCommit(key), value) => {
                let value = match value {
                    Some(GroupValue::OffsetCommit(value)) => Some(value),
                    Some(_) => return,
                    None => None,
                };
                if value.is_some() && !self.groups.contains_key(&key.group) {
                    // Offsets without members: a simple group, which no record of its own tells of.
                    let group = ClassicGroup::new(key.group.clone(), now_ms);
                    self.groups
                        .insert(key.group.clone(), Group::Classic(Box::new(group)));
                }
                self.offsets
                    .replay(&key.group, &key.topic, key.partition, value);
            }
            (GroupKey::GroupMetadata(key), Some(GroupValue::GroupMetadata(value))) => {
                let group = ClassicGroup::replayed(key.group.clone(), value);
                let group = Group::Classic(Box::new(group));
                if let Some(before) = self.groups.insert(key.group.clone(), group) {
                    self.evict(before);
                }
            }
            (GroupKey::GroupMetadata(key), None) => {
                if let Some(before) = self.groups.remove(&key.group) {
                    self.evict(before);
                }
            }
            _ => self.replay_consumer(record),
        }
    }

    /// The log has been read: members that were loaded have to be heard of from now on. Returns
    /// what is to be written for each group.
    pub(crate) fn loaded(&mut self, step: &mut Step<'_>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.topics.created_at = step.image.offset;
        self.topics.changed_at = step.image.offset;
        for group in self.groups.values_mut() {
            match group {
                Group::Classic(group) => outcomes.push(group.loaded(step)),
                Group::Consumer(group) => group.loaded(step),
            }
        }
        outcomes
    }

    /// A new image. Consumer groups look at it with their members' next requests; classic ones do
    /// not care, for their leaders look at topics themselves.
    pub(crate) fn topics_changed(&mut self, step: &mut Step<'_>, changes: &TopicChanges) {
        self.topics.changed_at = step.image.offset;
        if changes.created {
            self.topics.created_at = step.image.offset;
        }
    }

    /// Refusals for everybody who is parked in a group; nobody is afterwards.
    pub(crate) fn refuse_waiting(&mut self, error: ErrorCode) -> Vec<(Token, GroupReply)> {
        let mut refusals = Vec::new();
        for group in self.groups.values_mut() {
            group.refuse_waiting(error, &mut refusals);
        }
        refusals
    }
}
