//! Members that speak the classic protocol inside a consumer group: JoinGroup, SyncGroup and
//! Heartbeat in terms of epochs.
//!
//! To such a member the group looks like a classic one led by somebody else: its generation is its
//! member epoch, SyncGroup gives it what the broker assigned, and REBALANCE_IN_PROGRESS tells it to
//! come again when there is a step to take.

use std::sync::Arc;

use bytes::Bytes;
use chronik_protocol::messages::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};
use chronik_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::super::caller::Refusal;
use super::super::classic::{CONSUMER_PROTOCOL_TYPE, Join};
use super::super::deadlines::GroupTimer;
use super::super::records::GroupRecord;
use super::super::step::Step;
use super::group::ConsumerGroup;
use super::heartbeat::{
    check_size, come_from, join_static, known_instance, schedule_session, subscribe, unknown_member,
};
use super::member::{Member, MemberState, detached_classic};
use super::subscription::{Draft, TopicVersions};
use super::{embedded, subscription, target};

/// What a join comes to.
pub(crate) enum Joined {
    /// The member has to come again with this id (KIP-394).
    IdRequired(Str),
    /// It is a member, and these are its records.
    Member(Vec<GroupRecord>, Box<JoinGroupResponse>),
    /// It takes the place of the last member of the new protocol, whose id this is.
    Last(Box<Member>, Str),
}

/// A classic member joins, or comes again. `may_be_last` says whether the group may become classic
/// by it.
///
/// # Errors
/// Kafka's refusals; then nothing has changed.
pub(crate) fn join(
    group: &mut ConsumerGroup,
    join: &Join,
    topics: TopicVersions,
    may_be_last: bool,
    step: &mut Step<'_>,
) -> Result<Joined, Refusal> {
    let request = &join.request;
    let instance = request.group_instance_id.as_ref();
    let is_new = request.member_id.is_empty();
    let member_id = if is_new {
        Str::from(step.random_uuid())
    } else {
        request.member_id.clone()
    };
    check_size(group, &member_id, instance, step)?;
    check_protocols(group, request)?;
    if join.known_member_id && is_new && instance.is_none() {
        return Ok(Joined::IdRequired(member_id));
    }
    let wishes = wishes(request)?;
    let owned = embedded::owned(&wishes, step.image);
    let mut out = Vec::new();
    let known = instance.and_then(|instance| group.static_member(instance));
    let last = known.filter(|known| may_be_last && is_last_of_its_kind(group, known, step));
    let last = last.map(|known| known.id.clone());
    let mut draft = match instance {
        Some(_) if is_new => join_static(group, known, member_id, &mut out),
        Some(instance) => Draft::of(known_instance(known, &member_id, instance)?),
        None => match group.members.get(&member_id) {
            Some(known) => Draft::of(known),
            None => Draft::of(&Arc::new(Member::new(member_id.detached()))),
        },
    };
    describe(&mut draft.after, join, &wishes);
    if let Some(last) = last {
        return Ok(Joined::Last(Box::new(draft.after), last));
    }
    let update = subscription::update(group, &draft, step, topics, &mut out)?;
    let next = target::update(group, &draft, update.epoch, step, &mut out);
    let changed = update.subscription_changed;
    target::reconcile(
        group,
        &mut draft,
        &next,
        changed,
        Some(&owned),
        step,
        &mut out,
    )?;
    if update.hash_holds {
        group.hashed_at = Some(topics.changed_at);
    }
    let member = &draft.after;
    step.timers.cancel(join_timer(group, member));
    schedule_session(group, member, step);
    let timeout_ms = i64::from(request.rebalance_timeout_ms);
    step.timers.schedule(sync_timer(group, member), timeout_ms);
    let response = joined(member, member.epoch);
    Ok(Joined::Member(out, Box::new(response)))
}

/// The answer to a join.
pub(super) fn joined(member: &Member, generation_id: i32) -> JoinGroupResponse {
    JoinGroupResponse {
        generation_id,
        protocol_type: Some(Str::from_static(CONSUMER_PROTOCOL_TYPE)),
        protocol_name: first_protocol(member).map(|protocol| protocol.name.clone()),
        member_id: member.id.clone(),
        ..JoinGroupResponse::default()
    }
}

fn first_protocol(member: &Member) -> Option<&ClassicProtocol> {
    member.classic.as_ref()?.supported_protocols.first()
}

/// All classic members of a group have some protocol in common.
fn check_protocols(group: &ConsumerGroup, request: &JoinGroupRequest) -> Result<(), Refusal> {
    let by_all = |name: &Str| {
        let count = group.classic_protocols().get(name).copied().unwrap_or(0);
        count == group.classic_members()
    };
    let mut names = request.protocols.iter().map(|protocol| &protocol.name);
    if request.protocol_type == CONSUMER_PROTOCOL_TYPE && names.any(by_all) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::InconsistentGroupProtocol,
        format!(
            "Member {}'s protocols are not supported.",
            request.member_id
        ),
    ))
}

/// All of a consumer's protocols carry the same subscription; the first one is read.
fn wishes(request: &JoinGroupRequest) -> Result<ConsumerProtocolSubscription, Refusal> {
    let first = request.protocols.first();
    let wishes = first.map(|protocol| embedded::subscription(&protocol.metadata));
    match wishes {
        Some(Ok(wishes)) => Ok(wishes),
        _ => Err(Refusal::new(
            ErrorCode::InconsistentGroupProtocol,
            "Malformed embedded consumer protocol in subscription deserialization.",
        )),
    }
}

/// Whether the group becomes classic when `member`'s place is taken by a classic one.
fn is_last_of_its_kind(group: &ConsumerGroup, member: &Member, step: &Step<'_>) -> bool {
    member.classic.is_none()
        && group.classic_members().saturating_add(1) == group.members.len()
        && step.settings.consumer.migration.downgrade
        && group.members.len() <= step.settings.max_size
}

fn describe(member: &mut Member, join: &Join, wishes: &ConsumerProtocolSubscription) {
    let request = &join.request;
    if request.group_instance_id.is_some() && member.instance_id != request.group_instance_id {
        member.instance_id = request.group_instance_id.as_ref().map(Str::detached);
    }
    if let Some(rack) = wishes.rack_id.as_ref().filter(|rack| !rack.is_empty()) {
        member.rack_id = Some(rack.detached());
    }
    if request.rebalance_timeout_ms != -1 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    subscribe(member, &wishes.topics);
    // Expressions are for members of the new protocol.
    member.topic_regex = Some(Str::default());
    come_from(member, &join.caller);
    let protocols = request.protocols.iter().map(|protocol| ClassicProtocol {
        name: protocol.name.clone(),
        metadata: protocol.metadata.clone(),
        ..ClassicProtocol::default()
    });
    let classic = ClassicMemberMetadata {
        session_timeout_ms: request.session_timeout_ms,
        supported_protocols: protocols.collect(),
        ..ClassicMemberMetadata::default()
    };
    if member.classic.as_deref() != Some(&classic) {
        member.classic = Some(Arc::new(detached_classic(&classic)));
    }
}

/// The member a classic request is from (`validateConsumerGroupMember` and what follows it).
fn classic_member<'a>(
    group: &'a ConsumerGroup,
    member_id: &str,
    instance: Option<&Str>,
    generation: i32,
) -> Result<&'a Arc<Member>, Refusal> {
    let member = match instance {
        Some(instance) => known_instance(group.static_member(instance), member_id, instance)?,
        None => group
            .members
            .get(member_id)
            .ok_or_else(|| unknown_member(group, member_id))?,
    };
    if member.classic.is_none() {
        return Err(Refusal::new(
            ErrorCode::UnknownMemberId,
            format!("Member {member_id} does not use the classic protocol."),
        ));
    }
    if member.epoch != generation {
        return Err(ErrorCode::IllegalGeneration.into());
    }
    Ok(member)
}

/// A classic member fetches what it was assigned.
///
/// # Errors
/// Kafka's refusals.
pub(crate) fn sync(
    group: &ConsumerGroup,
    request: &SyncGroupRequest,
    step: &mut Step<'_>,
) -> Result<SyncGroupResponse, Refusal> {
    let instance = request.group_instance_id.as_ref();
    let member = classic_member(group, &request.member_id, instance, request.generation_id)?;
    let protocol = first_protocol(member);
    let is_other = |given: &Option<Str>, own: &str| given.as_deref().is_some_and(|g| g != own);
    let name = protocol.map_or("", |protocol| &*protocol.name);
    if is_other(&request.protocol_type, CONSUMER_PROTOCOL_TYPE)
        || is_other(&request.protocol_name, name)
    {
        return Err(ErrorCode::InconsistentGroupProtocol.into());
    }
    if group.assignment_epoch > member.epoch && member.state != MemberState::UnrevokedPartitions {
        time_join(group, member, step);
        return Err(ErrorCode::RebalanceInProgress.into());
    }
    step.timers.cancel(sync_timer(group, member));
    schedule_session(group, member, step);
    let numbers = |(topic, partitions): (&_, &std::collections::BTreeMap<i32, i32>)| {
        (*topic, partitions.keys().copied().collect())
    };
    let assigned = member.assigned.iter().map(numbers).collect();
    let subscribed = protocol.map_or_else(Bytes::new, |protocol| protocol.metadata.clone());
    let assignment = embedded::assignment(&assigned, &subscribed, step.image)
        .map_err(|_| Refusal::from(ErrorCode::UnknownServerError))?;
    Ok(SyncGroupResponse {
        protocol_type: request.protocol_type.clone(),
        protocol_name: request.protocol_name.clone(),
        assignment,
        ..SyncGroupResponse::default()
    })
}

/// A classic member is alive; `REBALANCE_IN_PROGRESS` tells it that there is a step to take.
///
/// # Errors
/// That, and Kafka's refusals.
pub(crate) fn heartbeat(
    group: &ConsumerGroup,
    request: &HeartbeatRequest,
    step: &mut Step<'_>,
) -> Result<(), Refusal> {
    let instance = request.group_instance_id.as_ref();
    let member = classic_member(group, &request.member_id, instance, request.generation_id)?;
    schedule_session(group, member, step);
    let must_join = member.epoch < group.assignment_epoch
        || member.state == MemberState::UnrevokedPartitions
        || (member.state == MemberState::UnreleasedPartitions && !waits(group, member));
    if must_join {
        time_join(group, member, step);
        return Err(ErrorCode::RebalanceInProgress.into());
    }
    Ok(())
}

/// Whether something the target gives a member is still somebody else's.
fn waits(group: &ConsumerGroup, member: &Member) -> bool {
    let target = group.target_of(&member.id);
    target.iter().any(|(topic, partitions)| {
        let assigned = member.assigned.get(topic);
        partitions.iter().any(|partition| {
            let has = assigned.is_some_and(|assigned| assigned.contains_key(partition));
            !has && group.is_taken(*topic, *partition)
        })
    })
}

/// The member is told to come again, and has its rebalance timeout for it.
fn time_join(group: &ConsumerGroup, member: &Member, step: &mut Step<'_>) {
    let timeout_ms = i64::from(member.rebalance_timeout_ms);
    step.timers
        .schedule_if_absent(join_timer(group, member), timeout_ms);
}

fn join_timer(group: &ConsumerGroup, member: &Member) -> GroupTimer {
    GroupTimer::ConsumerJoin {
        group: group.id.clone(),
        member: member.id.clone(),
    }
}

fn sync_timer(group: &ConsumerGroup, member: &Member) -> GroupTimer {
    GroupTimer::ConsumerSync {
        group: group.id.clone(),
        member: member.id.clone(),
    }
}
