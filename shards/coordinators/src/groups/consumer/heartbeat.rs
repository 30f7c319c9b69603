//! ConsumerGroupHeartbeat: a member joins, goes on, or leaves (KIP-848).
//!
//! A heartbeat does three things: it brings the member up to date, which may move the group to a new
//! epoch; it makes a new target if the epoch has none; and it takes the member one step towards its
//! part of the target. Decisions read the group and make records; the group changes when those are
//! replayed.

use std::collections::BTreeSet;
use std::sync::Arc;

use chronik_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedTopic;
use chronik_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use chronik_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use chronik_protocol::{ErrorCode, Str};

use super::super::caller::Refusal;
use super::super::deadlines::GroupTimer;
use super::super::records::GroupRecord;
use super::super::request::Caller;
use super::super::step::Step;
use super::assignor::{Assignor, Partitions};
use super::group::ConsumerGroup;
use super::member::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Member, Owned};
use super::subscription::{Draft, TopicVersions};
use super::{records, subscription, target};
use crate::limits::{GROUP_MEMBER_PARTITIONS_MAX, GROUP_MEMBER_TOPICS_MAX};

/// Judges what can be judged without the group (`throwIfConsumerGroupHeartbeatRequestIsInvalid`).
/// `id_required`: the client makes its own member id, as it must from version 1 on.
///
/// # Errors
/// `INVALID_REQUEST`, `UNSUPPORTED_ASSIGNOR`.
pub(crate) fn check_request(
    request: &ConsumerGroupHeartbeatRequest,
    id_required: bool,
    assignors: &[Assignor],
) -> Result<(), Refusal> {
    let invalid = |what: &str| Err(Refusal::new(ErrorCode::InvalidRequest, what));
    let epoch = request.member_epoch;
    let is_blank = |text: &str| text.trim().is_empty();
    if (id_required || epoch > 0 || epoch == LEAVE_EPOCH) && is_blank(&request.member_id) {
        return invalid("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if request.instance_id.as_deref().is_some_and(is_blank) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(is_blank) {
        return invalid("RackId can't be empty.");
    }
    let names = request.subscribed_topic_names.as_ref().map_or(0, Vec::len);
    let owned = request.topic_partitions.iter().flatten();
    let owned: usize = owned.map(|topic| topic.partitions.len() + 1).sum();
    if names > GROUP_MEMBER_TOPICS_MAX || owned > GROUP_MEMBER_PARTITIONS_MAX {
        return invalid("More topics or partitions than one member may have.");
    }
    match epoch {
        0 if request.rebalance_timeout_ms == -1 => {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        0 if request
            .topic_partitions
            .as_ref()
            .is_none_or(|owned| !owned.is_empty()) =>
        {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        0 if request.subscribed_topic_names.is_none()
            && request.subscribed_topic_regex.is_none() =>
        {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                 (re-)joining.",
            );
        }
        LEAVE_STATIC_EPOCH if request.instance_id.is_none() => {
            return invalid("InstanceId can't be null.");
        }
        i32::MIN..LEAVE_STATIC_EPOCH => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    check_assignor(request, assignors)
}

fn check_assignor(
    request: &ConsumerGroupHeartbeatRequest,
    assignors: &[Assignor],
) -> Result<(), Refusal> {
    let Some(asked) = &request.server_assignor else {
        return Ok(());
    };
    let mut names = assignors.iter().map(|assignor| assignor.name());
    if names.any(|name| *asked == name) {
        return Ok(());
    }
    let known: Vec<&str> = assignors.iter().map(|assignor| assignor.name()).collect();
    Err(Refusal::new(
        ErrorCode::UnsupportedAssignor,
        format!(
            "ServerAssignor {asked} is not supported. Supported assignors: {}.",
            known.join(", ")
        ),
    ))
}

/// Takes a member one step on. The group may be one that does not exist yet.
///
/// # Errors
/// Kafka's refusals; then nothing has changed.
pub(crate) fn go_on(
    group: &mut ConsumerGroup,
    request: &ConsumerGroupHeartbeatRequest,
    caller: &Caller,
    topics: TopicVersions,
    step: &mut Step<'_>,
) -> Result<(Vec<GroupRecord>, ConsumerGroupHeartbeatResponse), Refusal> {
    let member_id = if request.member_id.is_empty() {
        Str::from(step.random_uuid())
    } else {
        request.member_id.clone()
    };
    check_size(group, &member_id, request.instance_id.as_ref(), step)?;
    let owned = request.topic_partitions.as_deref().map(partitions);
    let mut out = Vec::new();
    let mut draft = draft(group, request, member_id, owned.as_ref(), &mut out)?;
    describe(&mut draft.after, request, caller);
    let update = subscription::update(group, &draft, step, topics, &mut out)?;
    let target = target::update(group, &draft, update.epoch, step, &mut out);
    target::reconcile(
        group,
        &mut draft,
        &target,
        update.subscription_changed,
        owned.as_ref(),
        step,
        &mut out,
    )?;
    if update.hash_holds {
        group.hashed_at = Some(topics.changed_at);
    }
    let member = &draft.after;
    schedule_session(group, member, step);
    let timing = step.settings.consumer.timing(step.image, &group.id);
    let is_full = request.rebalance_timeout_ms != -1
        && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
        && request.topic_partitions.is_some();
    let told = request.member_epoch == 0 || is_full || draft.before.assigned != member.assigned;
    let response = ConsumerGroupHeartbeatResponse {
        member_id: Some(member.id.clone()),
        member_epoch: member.epoch,
        heartbeat_interval_ms: timing.heartbeat_interval_ms,
        assignment: told.then(|| assignment(&member.assigned)),
        ..ConsumerGroupHeartbeatResponse::default()
    };
    Ok((out, response))
}

/// A group that is full takes nobody in but those that it knows.
pub(super) fn check_size(
    group: &ConsumerGroup,
    member_id: &Str,
    instance: Option<&Str>,
    step: &Step<'_>,
) -> Result<(), Refusal> {
    let max_size = step.settings.consumer.max_size;
    let known = instance.is_some_and(|instance| group.static_member(instance).is_some())
        || group.members.contains_key(member_id);
    if known || group.members.len() < max_size {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::GroupMaxSizeReached,
        format!("The consumer group has reached its maximum capacity of {max_size} members."),
    ))
}

/// The member a request is about, new when it joins.
fn draft(
    group: &ConsumerGroup,
    request: &ConsumerGroupHeartbeatRequest,
    member_id: Str,
    owned: Option<&Partitions>,
    out: &mut Vec<GroupRecord>,
) -> Result<Draft, Refusal> {
    let joins = request.member_epoch == 0;
    if let Some(instance) = &request.instance_id {
        let known = group.static_member(instance);
        if joins {
            if let Some(known) = known {
                check_released(known, &member_id, instance)?;
            }
            return Ok(join_static(group, known, member_id, out));
        }
        let known = known_instance(known, &member_id, instance)?;
        check_epoch(known, request.member_epoch, owned)?;
        return Ok(Draft::of(known));
    }
    let known = group.members.get(&member_id);
    match known {
        Some(known) => {
            check_epoch(known, request.member_epoch, owned)?;
            Ok(Draft::of(known))
        }
        None if joins => Ok(Draft::of(&Arc::new(Member::new(member_id.detached())))),
        None => Err(unknown_member(group, &member_id)),
    }
}

impl Draft {
    /// Nothing changed yet.
    pub(super) fn of(member: &Arc<Member>) -> Draft {
        Draft {
            before: Arc::clone(member),
            after: Member::clone(member),
            replaced: None,
        }
    }
}

/// A static member (re)joins. It takes over from the one of the same instance, with its assignment.
pub(super) fn join_static(
    group: &ConsumerGroup,
    known: Option<&Arc<Member>>,
    member_id: Str,
    out: &mut Vec<GroupRecord>,
) -> Draft {
    let Some(known) = known else {
        return Draft::of(&Arc::new(Member::new(member_id.detached())));
    };
    let mut member = Member::clone(known);
    member.id = member_id.detached();
    member.epoch = 0;
    member.previous_epoch = 0;
    records::remove_member(out, &group.id, &known.id);
    out.push(records::member(&group.id, &member));
    let target = group.target_of(&known.id);
    out.push(records::target(&group.id, &member.id, &target));
    out.push(records::current(&group.id, &member));
    let mut draft = Draft::of(&Arc::new(member));
    draft.replaced = Some(known.id.clone());
    draft
}

/// The one before must have said that it goes.
fn check_released(known: &Member, member_id: &str, instance: &str) -> Result<(), Refusal> {
    if known.classic.is_some() || known.epoch == LEAVE_STATIC_EPOCH {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::UnreleasedInstanceId,
        format!(
            "Static member {member_id} with instance id {instance} cannot join the group because \
             the instance id is owned by {} member.",
            known.id
        ),
    ))
}

/// The member of an instance, if the caller is that member.
pub(super) fn known_instance<'a>(
    known: Option<&'a Arc<Member>>,
    member_id: &str,
    instance: &str,
) -> Result<&'a Arc<Member>, Refusal> {
    let Some(known) = known else {
        return Err(Refusal::new(
            ErrorCode::UnknownMemberId,
            format!("Instance id {instance} is unknown."),
        ));
    };
    if known.id == *member_id {
        return Ok(known);
    }
    Err(Refusal::new(
        ErrorCode::FencedInstanceId,
        format!(
            "Static member {member_id} with instance id {instance} was fenced by member {}.",
            known.id
        ),
    ))
}

pub(super) fn unknown_member(group: &ConsumerGroup, member_id: &str) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownMemberId,
        format!("Member {member_id} is not a member of group {}.", group.id),
    )
}

/// A member speaks from its epoch, or from the one before if the answer that moved it on may have
/// been lost: then it owns nothing but what it was assigned.
fn check_epoch(member: &Member, epoch: i32, owned: Option<&Partitions>) -> Result<(), Refusal> {
    if epoch == 0 || epoch == member.epoch {
        return Ok(());
    }
    let is_subset = |owned: &Partitions| {
        owned.iter().all(|(topic, numbers)| {
            let assigned = member.assigned.get(topic);
            assigned.is_some_and(|a| numbers.iter().all(|number| a.contains_key(number)))
        })
    };
    let is_repeated = epoch == member.previous_epoch && owned.is_some_and(is_subset);
    if epoch < member.epoch && is_repeated {
        return Ok(());
    }
    let relation = if epoch > member.epoch {
        "greater"
    } else {
        "smaller"
    };
    Err(Refusal::new(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The consumer group member has a {relation} member epoch ({epoch}) than the one known \
             by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            member.epoch
        ),
    ))
}

/// Takes over what the request says; what it does not say stays.
fn describe(member: &mut Member, request: &ConsumerGroupHeartbeatRequest, caller: &Caller) {
    let replace = |old: &mut Option<Str>, new: &Option<Str>| {
        if new.is_some() && old != new {
            *old = new.as_ref().map(Str::detached);
        }
    };
    replace(&mut member.instance_id, &request.instance_id);
    replace(&mut member.rack_id, &request.rack_id);
    replace(&mut member.server_assignor, &request.server_assignor);
    replace(&mut member.topic_regex, &request.subscribed_topic_regex);
    if request.rebalance_timeout_ms != -1 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        subscribe(member, names);
    }
    come_from(member, caller);
    member.classic = None;
}

/// Subscribes to these topics by name.
pub(super) fn subscribe(member: &mut Member, names: &[Str]) {
    let is_same = names.len() >= member.topic_names.len()
        && names.iter().all(|name| member.topic_names.contains(name))
        && names.iter().collect::<BTreeSet<_>>().len() == member.topic_names.len();
    if !is_same {
        member.topic_names = Arc::new(names.iter().map(Str::detached).collect());
    }
}

/// Notes where the member's requests come from.
pub(super) fn come_from(member: &mut Member, caller: &Caller) {
    if member.client_id != caller.client_id {
        member.client_id = caller.client_id.detached();
    }
    if member.client_host != caller.client_host {
        member.client_host = caller.client_host.detached();
    }
}

/// The member must be heard of again in time.
pub(super) fn schedule_session(group: &ConsumerGroup, member: &Member, step: &mut Step<'_>) {
    let own = member
        .classic
        .as_ref()
        .map(|classic| classic.session_timeout_ms);
    let timing = step.settings.consumer.timing(step.image, &group.id);
    let timer = GroupTimer::ConsumerSession {
        group: group.id.clone(),
        member: member.id.clone(),
    };
    let timeout_ms = own.unwrap_or(timing.session_timeout_ms);
    step.timers.schedule(timer, i64::from(timeout_ms));
}

fn partitions(owned: &[OwnedTopic]) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in owned {
        let numbers = partitions.entry(topic.topic_id).or_default();
        numbers.extend(topic.partitions.iter().copied());
    }
    partitions
}

fn assignment(assigned: &Owned) -> Assignment {
    let topics = assigned
        .iter()
        .map(|(topic_id, partitions)| TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.keys().copied().collect(),
            ..TopicPartitions::default()
        });
    Assignment {
        topic_partitions: topics.collect(),
        ..Assignment::default()
    }
}
