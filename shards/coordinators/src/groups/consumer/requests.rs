//! What requests, deadlines, images and the log do to the consumer groups of a partition.
//!
//! Finds the group a request is about, or makes it, or converts it; what happens inside is the
//! business of the files beside this one.

use std::collections::BTreeSet;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup;
use chronik_protocol::messages::leave_group_request::MemberIdentity;
use chronik_protocol::messages::leave_group_response::MemberResponse;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
};
use chronik_protocol::records_of::GroupKey;
use chronik_protocol::{ErrorCode, Str};

use super::super::caller::{Refusal, Token};
use super::super::classic::Join;
use super::super::deadlines::GroupTimer;
use super::super::group::Group;
use super::super::outcome::{Outcome, Then};
use super::super::partition::GroupPartition;
use super::super::records::GroupRecord;
use super::super::refused::heartbeat_refused;
use super::super::refused::{join_refused, sync_refused};
use super::super::request::{Caller, GroupReply};
use super::super::step::Step;
use super::assignor::Assignor;
use super::classic_members::{self, Joined};
use super::group::ConsumerGroup;
use super::heartbeat::{check_request, go_on, schedule_session, unknown_member};
use super::leave::{Goodbye, farewell, fence, say_goodbye};
use super::member::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Member, MemberState};
use super::regex::{Advance, Resolution};
use super::{convert, describe, resolve, target};
use crate::limits::GROUPS_PER_PARTITION_MAX;

/// Pause between two slices of a resolution, ms: other work goes on meanwhile.
const SLICE_PAUSE_MS: i64 = 1;
/// Pause of a group whose turn to resolve has not come, ms.
const CROWDED_PAUSE_MS: i64 = 200;

fn not_found(what: String) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, what)
}

impl GroupPartition {
    /// ConsumerGroupHeartbeat.
    pub(crate) fn consumer_heartbeat(
        &mut self,
        step: &mut Step<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        id_required: bool,
        caller: &Caller,
        token: Token,
    ) -> Outcome {
        let assignors = &step.settings.consumer.assignors;
        let result = check_request(request, id_required, assignors);
        let result = result.and_then(|()| match request.member_epoch {
            LEAVE_EPOCH | LEAVE_STATIC_EPOCH => self.consumer_leaves(step, request),
            _ => self.consumer_goes_on(step, request, caller),
        });
        match result {
            Ok((records, response)) => {
                let reply = GroupReply::ConsumerHeartbeat(response);
                Outcome::replayed(records, token, reply)
            }
            Err(refusal) => {
                step.reply(token, heartbeat_refused(refusal));
                Outcome::NOTHING
            }
        }
    }

    fn consumer_goes_on(
        &mut self,
        step: &mut Step<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        caller: &Caller,
    ) -> Result<(Vec<GroupRecord>, ConsumerGroupHeartbeatResponse), Refusal> {
        let topics = self.topics;
        let id = &request.group_id;
        let joins = request.member_epoch == 0;
        let is_full = self.groups.len() >= GROUPS_PER_PARTITION_MAX;
        match self.groups.get_mut(id) {
            Some(Group::Consumer(group)) => go_on(group, request, caller, topics, step),
            Some(Group::Classic(_)) if !joins => {
                Err(not_found(format!("Group {id} is not a consumer group.")))
            }
            Some(Group::Classic(classic)) if classic.is_empty() => {
                let mut group = ConsumerGroup::new(id.detached());
                let (records, response) = go_on(&mut group, request, caller, topics, step)?;
                let mut out = vec![GroupRecord::group_tombstone(&group.id)];
                out.extend(records);
                Ok((out, response))
            }
            Some(Group::Classic(classic)) => {
                let (mut group, mut out) = convert::upgrade(&id.detached(), classic, step)?;
                let (records, response) = go_on(&mut group, request, caller, topics, step)?;
                out.extend(records);
                for member in group.members.values() {
                    schedule_session(&group, member, step);
                }
                // Whoever waits for the group to settle is sent away when these records count.
                classic.cancel_deadlines(step);
                Ok((out, response))
            }
            None if !joins => Err(not_found(format!("Consumer group {id} not found."))),
            None if is_full => Err(ErrorCode::GroupMaxSizeReached.into()),
            None => {
                let mut group = ConsumerGroup::new(id.detached());
                go_on(&mut group, request, caller, topics, step)
            }
        }
    }

    fn consumer_leaves(
        &self,
        step: &mut Step<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<(Vec<GroupRecord>, ConsumerGroupHeartbeatResponse), Refusal> {
        let id = &request.group_id;
        let group = match self.groups.get(id) {
            Some(Group::Consumer(group)) => group,
            Some(_) => return Err(not_found(format!("Group {id} is not a consumer group."))),
            None => return Err(not_found(format!("Group {id} not found."))),
        };
        let records = match say_goodbye(group, request)? {
            Goodbye::Away(records) => records,
            Goodbye::Removed(member) => remove(group, &[member], step),
        };
        Ok((records, farewell(request)))
    }

    /// JoinGroup of a classic member, when the group is a consumer group with members.
    pub(crate) fn join_consumer_group(&mut self, step: &mut Step<'_>, join: Join) -> Outcome {
        let topics = self.topics;
        let Some(Group::Consumer(group)) = self.groups.get_mut(&join.request.group_id) else {
            return Outcome::NOTHING;
        };
        let member_id = join.request.member_id.clone();
        let refuse = |step: &mut Step<'_>, refusal: Refusal| {
            step.reply(join.token, join_refused(member_id, refusal.code));
            Outcome::NOTHING
        };
        if step.settings.consumer.migration.is_disabled() {
            return refuse(step, ErrorCode::InconsistentGroupProtocol.into());
        }
        let mut result = classic_members::join(group, &join, topics, true, step);
        if let Ok(Joined::Last(member, replaced)) = &result {
            match replace_last(group, member, replaced, step) {
                Ok(Some(records)) => {
                    let response = classic_members::joined(member, group.epoch);
                    return Outcome::replayed(records, join.token, GroupReply::Join(response));
                }
                // The classic group would not fit into a record: it comes in as any other.
                Ok(None) => result = classic_members::join(group, &join, topics, false, step),
                Err(refusal) => return refuse(step, refusal),
            }
        }
        match result {
            Err(refusal) => refuse(step, refusal),
            Ok(Joined::IdRequired(id)) => {
                step.reply(join.token, join_refused(id, ErrorCode::MemberIdRequired));
                Outcome::NOTHING
            }
            Ok(Joined::Member(records, response)) => {
                Outcome::replayed(records, join.token, GroupReply::Join(*response))
            }
            Ok(Joined::Last(..)) => refuse(step, ErrorCode::UnknownServerError.into()),
        }
    }

    /// SyncGroup of a classic member of a consumer group.
    pub(crate) fn sync_consumer_group(
        group: &ConsumerGroup,
        step: &mut Step<'_>,
        request: &SyncGroupRequest,
        token: Token,
    ) -> Outcome {
        match classic_members::sync(group, request, step) {
            Ok(response) => Outcome::reply(token, GroupReply::Sync(response)),
            Err(refusal) => {
                step.reply(token, sync_refused(refusal.code));
                Outcome::NOTHING
            }
        }
    }

    /// Heartbeat of a classic member of a consumer group.
    pub(crate) fn classic_heartbeat(
        group: &ConsumerGroup,
        step: &mut Step<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        classic_members::heartbeat(group, request, step).map_err(|refusal| refusal.code)
    }

    /// LeaveGroup from a consumer group, each member judged by itself.
    pub(crate) fn leave_consumer_group(
        group: &ConsumerGroup,
        step: &mut Step<'_>,
        request: &LeaveGroupRequest,
    ) -> (LeaveGroupResponse, Outcome) {
        let mut leaving: Vec<Arc<Member>> = Vec::new();
        let mut named = BTreeSet::new();
        let mut members = Vec::with_capacity(request.members.len());
        for identity in &request.members {
            let found = leaver(group, identity);
            members.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: found
                    .as_ref()
                    .err()
                    .map_or(ErrorCode::None, |r| r.code)
                    .as_i16(),
                ..MemberResponse::default()
            });
            if let Ok(member) = found
                && named.insert(&member.id)
            {
                leaving.push(Arc::clone(member));
            }
        }
        let records = if leaving.is_empty() {
            Vec::new()
        } else {
            remove(group, &leaving, step)
        };
        let outcome = Outcome {
            records,
            replay: true,
            ..Outcome::NOTHING
        };
        let response = LeaveGroupResponse {
            members,
            ..LeaveGroupResponse::default()
        };
        (response, outcome)
    }

    /// A deadline of a consumer group has come.
    pub(crate) fn consumer_timer(&mut self, step: &mut Step<'_>, timer: &GroupTimer) -> Outcome {
        let (id, member, why) = match timer {
            GroupTimer::ConsumerSession { group, member } => (group, member, "was silent"),
            GroupTimer::ConsumerRebalance { group, member } => (group, member, "gave nothing up"),
            GroupTimer::ConsumerJoin { group, member } => (group, member, "did not rejoin"),
            GroupTimer::ConsumerSync { group, member } => (group, member, "did not sync"),
            GroupTimer::ResolveRegexes { group } => return self.resolve_slice(step, group),
            GroupTimer::Rejoin { group } => {
                return match self.groups.get_mut(group) {
                    Some(Group::Classic(group)) if !group.is_empty() => {
                        group.prepare_rebalance(step)
                    }
                    _ => Outcome::NOTHING,
                };
            }
            _ => return Outcome::NOTHING,
        };
        let Some(Group::Consumer(group)) = self.groups.get(id) else {
            return Outcome::NOTHING;
        };
        let Some(member) = group.members.get(member) else {
            return Outcome::NOTHING;
        };
        let revokes = member.state == MemberState::UnrevokedPartitions;
        if matches!(timer, GroupTimer::ConsumerRebalance { .. }) && !revokes {
            return Outcome::NOTHING;
        }
        tracing::info!(group = %id, member = %member.id, why, "a member is fenced");
        Outcome {
            records: remove(group, &[Arc::clone(member)], step),
            replay: true,
            ..Outcome::NOTHING
        }
    }

    /// Resolves the expressions of a group a little further.
    fn resolve_slice(&mut self, step: &mut Step<'_>, id: &Str) -> Outcome {
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else {
            return Outcome::NOTHING;
        };
        let mut resolution = group.resolution.take().unwrap_or_else(|| {
            let patterns = group.regexes().keys().cloned().collect();
            let image = Arc::clone(step.image);
            Box::new(Resolution::new(patterns, image, step.now.wall_ms))
        });
        let pause_ms = match resolution.advance(step.programs) {
            Advance::More => Some(SLICE_PAUSE_MS),
            Advance::Crowded => Some(CROWDED_PAUSE_MS),
            Advance::Done => None,
        };
        if let Some(pause_ms) = pause_ms {
            group.resolution = Some(resolution);
            let timer = GroupTimer::ResolveRegexes { group: id.clone() };
            step.timers.schedule(timer, pause_ms);
            return Outcome::NOTHING;
        }
        Outcome {
            records: resolve::resolved(group, &resolution.finish(), step.image),
            replay: true,
            then: Then::Nothing,
            ..Outcome::NOTHING
        }
    }

    /// Takes a record of a consumer group in.
    pub(crate) fn replay_consumer(&mut self, record: &GroupRecord) {
        let Some(id) = group_of(&record.key) else {
            return;
        };
        match self.groups.get_mut(id) {
            Some(Group::Consumer(group)) => {
                let goes_on = group.replay(record);
                if !goes_on {
                    self.groups.remove(id);
                }
            }
            Some(Group::Classic(classic)) if !classic.is_empty() => {
                tracing::warn!(group = %id, "a record of a consumer group for a classic one");
            }
            // A classic group without members is only a place for offsets.
            _ if record.value.is_some() => {
                let mut group = ConsumerGroup::new(id.clone());
                group.replay(record);
                self.groups
                    .insert(id.clone(), Group::Consumer(Box::new(group)));
            }
            _ => {}
        }
    }

    /// Describes a consumer group.
    pub(crate) fn describe_consumer(
        &self,
        image: &Image,
        assignors: &[Assignor],
        id: &Str,
    ) -> DescribedGroup {
        let missing = |why: &str| {
            let message = format!("Group {id} {why}");
            describe::not_described(id, ErrorCode::GroupIdNotFound, Some(message))
        };
        match self.groups.get(id) {
            Some(Group::Consumer(group)) => describe::describe(group, image, assignors),
            Some(_) => missing("is not a consumer group."),
            None => missing("not found."),
        }
    }
}

impl ConsumerGroup {
    /// The log has been read: every member has a whole session to be heard of.
    pub(crate) fn loaded(&self, step: &mut Step<'_>) {
        for member in self.members.values() {
            schedule_session(self, member, step);
            if member.state == MemberState::UnrevokedPartitions && member.classic.is_none() {
                target::time_rebalance(self, member, step);
            }
        }
    }
}

/// The member that is to leave.
fn leaver<'a>(
    group: &'a ConsumerGroup,
    identity: &MemberIdentity,
) -> Result<&'a Arc<Member>, Refusal> {
    let id = &identity.member_id;
    let Some(instance) = &identity.group_instance_id else {
        let member = group.members.get(id);
        return member.ok_or_else(|| unknown_member(group, id));
    };
    match group.static_member(instance) {
        None => Err(ErrorCode::UnknownMemberId.into()),
        // An operator names the instance only.
        Some(member) if id.is_empty() || member.id == *id => Ok(member),
        Some(_) => Err(ErrorCode::FencedInstanceId.into()),
    }
}

/// Removes members. If only classic ones stay, the group becomes classic.
fn remove(group: &ConsumerGroup, leaving: &[Arc<Member>], step: &mut Step<'_>) -> Vec<GroupRecord> {
    if convert::leaves_only_classic(group, leaving, step) {
        let gone: BTreeSet<&Str> = leaving.iter().map(|member| &member.id).collect();
        let stays = |member: &&Arc<Member>| !gone.contains(&member.id);
        let staying = group.members.values().filter(stays);
        let staying: Vec<&Member> = staying.map(|member| &**member).collect();
        match convert::downgrade(group, &staying, None, step) {
            Ok(records) if step.has_room_for(&records) => {
                become_classic(group, &staying, true, step);
                return records;
            }
            Ok(_) => {
                let why = "its members do not fit into one record";
                tracing::warn!(group = %group.id, why, "the group stays a consumer group");
            }
            Err(refusal) => {
                tracing::warn!(group = %group.id, ?refusal, "the group stays a consumer group");
            }
        }
    }
    fence(group, leaving, step)
}

/// A classic member takes the place of the last one of the new protocol, and the group becomes
/// classic; `None` when that does not fit into the log.
fn replace_last(
    group: &ConsumerGroup,
    member: &Member,
    replaced: &Str,
    step: &mut Step<'_>,
) -> Result<Option<Vec<GroupRecord>>, Refusal> {
    let staying = group.members.values().filter(|other| other.id != *replaced);
    let staying: Vec<&Member> = staying.map(|member| &**member).collect();
    let records = convert::downgrade(group, &staying, Some((member, replaced)), step)?;
    if !step.has_room_for(&records) {
        return Ok(None);
    }
    let before = group.members.get(replaced);
    let changed = before
        .is_none_or(|before| before.topic_names != member.topic_names || before.regex().is_some());
    let rebalance = changed || group.assignment_epoch < group.epoch;
    let all: Vec<&Member> = staying.into_iter().chain([member]).collect();
    become_classic(group, &all, rebalance, step);
    Ok(Some(records))
}

/// Deadlines of members that are classic from now on.
fn become_classic(
    group: &ConsumerGroup,
    members: &[&Member],
    rebalance: bool,
    step: &mut Step<'_>,
) {
    tracing::info!(group = %group.id, "a consumer group becomes classic");
    for member in group.members.keys() {
        super::leave::cancel_timers(&group.id, member, step);
    }
    for member in members {
        let timeout_ms = member.classic.as_ref().map_or(0, |c| c.session_timeout_ms);
        let timer = GroupTimer::Session {
            group: group.id.clone(),
            member: member.id.clone(),
        };
        step.timers.schedule(timer, i64::from(timeout_ms));
    }
    if rebalance {
        let group = group.id.clone();
        step.timers.schedule(GroupTimer::Rejoin { group }, 0);
    }
}

/// The group a key of a consumer group's record is about.
fn group_of(key: &GroupKey) -> Option<&Str> {
    match key {
        GroupKey::ConsumerGroupMetadata(key) => Some(&key.group_id),
        GroupKey::ConsumerGroupPartitionMetadata(key) => Some(&key.group_id),
        GroupKey::ConsumerGroupMemberMetadata(key) => Some(&key.group_id),
        GroupKey::ConsumerGroupTargetAssignmentMetadata(key) => Some(&key.group_id),
        GroupKey::ConsumerGroupTargetAssignmentMember(key) => Some(&key.group_id),
        GroupKey::ConsumerGroupCurrentMemberAssignment(key) => Some(&key.group_id),
        GroupKey::ConsumerGroupRegularExpression(key) => Some(&key.group_id),
        _ => None,
    }
}
