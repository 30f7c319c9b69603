//! Members that go: by saying so, by being silent for too long, or for holding others up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_protocol::Str;
use chronik_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::super::caller::Refusal;
use super::super::deadlines::GroupTimer;
use super::super::records::GroupRecord;
use super::super::step::Step;
use super::group::ConsumerGroup;
use super::hash::metadata_hash;
use super::heartbeat::{known_instance, unknown_member};
use super::member::{LEAVE_STATIC_EPOCH, Member};
use super::records;
use super::subscription::topics_with;

/// What a heartbeat that says goodbye comes to.
pub(crate) enum Goodbye {
    /// The member is to be removed (see [`fence`]).
    Removed(Arc<Member>),
    /// A static member will be back; its partitions stay with its instance.
    Away(Vec<GroupRecord>),
}

/// Judges a heartbeat with epoch −1 or −2.
///
/// # Errors
/// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`.
pub(crate) fn say_goodbye(
    group: &ConsumerGroup,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<Goodbye, Refusal> {
    let Some(instance) = &request.instance_id else {
        let member = group.members.get(&request.member_id);
        let member = member.ok_or_else(|| unknown_member(group, &request.member_id))?;
        return Ok(Goodbye::Removed(Arc::clone(member)));
    };
    let member = known_instance(group.static_member(instance), &request.member_id, instance)?;
    if request.member_epoch != LEAVE_STATIC_EPOCH {
        return Ok(Goodbye::Removed(Arc::clone(member)));
    }
    let mut away = Member::clone(member);
    away.epoch = LEAVE_STATIC_EPOCH;
    away.revoking = Arc::default();
    // Whoever comes back under this instance has had its partitions since ever.
    let assigned = Arc::make_mut(&mut away.assigned);
    for epoch in assigned.values_mut().flat_map(BTreeMap::values_mut) {
        *epoch = 0;
    }
    Ok(Goodbye::Away(vec![records::current(&group.id, &away)]))
}

/// The answer to a goodbye.
pub(crate) fn farewell(request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        member_id: Some(request.member_id.clone()),
        member_epoch: request.member_epoch,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

/// Removes members, which are the group's: their records, expressions nobody needs any more, and a
/// new epoch for those that stay.
pub(crate) fn fence(
    group: &ConsumerGroup,
    members: &[Arc<Member>],
    step: &mut Step<'_>,
) -> Vec<GroupRecord> {
    let mut out = Vec::new();
    let mut changes: BTreeMap<&Str, i64> = BTreeMap::new();
    let mut regexes: BTreeMap<&Str, usize> = BTreeMap::new();
    for member in members {
        records::remove_member(&mut out, &group.id, &member.id);
        for name in member.topic_names.iter() {
            *changes.entry(name).or_default() -= 1;
        }
        if let Some(regex) = member.regex() {
            *regexes.entry(regex).or_default() += 1;
        }
    }
    for (regex, leaving) in regexes {
        if group.regexes().get(regex) != Some(&leaving) {
            continue;
        }
        out.push(records::regex_tombstone(&group.id, regex));
        let resolved = group.resolved.get(regex);
        for name in resolved.iter().flat_map(|resolved| &resolved.topics) {
            *changes.entry(name).or_default() -= 1;
        }
    }
    let topics: BTreeSet<&Str> = topics_with(group, &changes);
    let hash = metadata_hash(step.image, topics.into_iter());
    out.push(records::epoch(
        &group.id,
        group.epoch.saturating_add(1),
        hash,
    ));
    for member in members {
        cancel_timers(&group.id, &member.id, step);
    }
    out
}

/// Takes every deadline of a member out.
pub(crate) fn cancel_timers(group: &Str, member: &Str, step: &mut Step<'_>) {
    let (group, member) = (group.clone(), member.clone());
    for timer in [
        GroupTimer::ConsumerSession {
            group: group.clone(),
            member: member.clone(),
        },
        GroupTimer::ConsumerRebalance {
            group: group.clone(),
            member: member.clone(),
        },
        GroupTimer::ConsumerJoin {
            group: group.clone(),
            member: member.clone(),
        },
        GroupTimer::ConsumerSync { group, member },
    ] {
        step.timers.cancel(timer);
    }
}
