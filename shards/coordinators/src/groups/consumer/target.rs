//! The next target of a group, and a member's step towards it.
//!
//! Pure: reads the group as it is and makes the records of what comes next.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::Str;

use super::super::caller::Refusal;
use super::super::deadlines::GroupTimer;
use super::super::records::GroupRecord;
use super::super::step::Step;
use super::assignor::{Assignor, GroupSpec, MemberSpec, Partitions};
use super::group::{ConsumerGroup, decrease, increase};
use super::member::{Member, MemberState};
use super::reconcile::Reconciliation;
use super::records;
use super::subscription::{Draft, subscribed_topics};

/// A target as one member sees it.
pub(super) struct Target {
    pub(super) epoch: i32,
    pub(super) partitions: Arc<Partitions>,
}

/// Makes a new target when the group's epoch is ahead of the last one and enough time has passed
/// since (`consumer.assignment.interval.ms`); else the last one counts.
pub(super) fn update(
    group: &ConsumerGroup,
    draft: &Draft,
    group_epoch: i32,
    step: &Step<'_>,
    out: &mut Vec<GroupRecord>,
) -> Target {
    if group.assignment_epoch >= group_epoch || !is_due(group, step) {
        let of = draft.replaced.as_ref().unwrap_or(&draft.after.id);
        return Target {
            epoch: group.assignment_epoch,
            partitions: group.target_of(of),
        };
    }
    let assignor = preferred_assignor(group, draft, step);
    let spec = spec(group, draft, step.image);
    let mut target = assignor.assign(&spec);
    tracing::info!(
        group = %group.id,
        epoch = group_epoch,
        assignor = assignor.name(),
        members = spec.members.len(),
        "a new target assignment"
    );
    for (member, partitions) in &target {
        if group.targets.get(member) != Some(partitions) {
            out.push(records::target(&group.id, member, partitions));
        }
    }
    out.push(records::target_epoch(
        &group.id,
        group_epoch,
        step.now.wall_ms,
    ));
    Target {
        epoch: group_epoch,
        partitions: target.remove(&draft.after.id).unwrap_or_default(),
    }
}

fn is_due(group: &ConsumerGroup, step: &Step<'_>) -> bool {
    let timing = step.settings.consumer.timing(step.image, &group.id);
    let interval_ms = i64::from(timing.assignment_interval_ms);
    let last_ms = group.assignment_timestamp_ms;
    last_ms == 0 || interval_ms == 0 || step.now.wall_ms >= last_ms.saturating_add(interval_ms)
}

/// What most members ask for; the first of the broker's when nobody asks.
fn preferred_assignor(group: &ConsumerGroup, draft: &Draft, step: &Step<'_>) -> Assignor {
    let mut counts = group.assignors().clone();
    if let Some(old) = &draft.before.server_assignor {
        decrease(&mut counts, old);
    }
    if let Some(new) = &draft.after.server_assignor {
        increase(&mut counts, new);
    }
    preferred(&counts, &step.settings.consumer.assignors)
}

/// The assignor that most members ask for, of those the broker has.
pub(super) fn preferred(counts: &BTreeMap<Str, usize>, known: &[Assignor]) -> Assignor {
    let asked = counts.iter().filter_map(|(name, count)| {
        let assignor = Assignor::named(name).filter(|assignor| known.contains(assignor))?;
        Some((*count, assignor))
    });
    let asked = asked
        .max_by_key(|(count, _)| *count)
        .map(|(_, asked)| asked);
    asked
        .or_else(|| known.first().copied())
        .unwrap_or(Assignor::Uniform)
}

/// The group with the draft in it.
fn spec(group: &ConsumerGroup, draft: &Draft, image: &Image) -> GroupSpec {
    let mut spec = GroupSpec::default();
    // Most groups have few different subscriptions: their topics are looked up once.
    let mut known = BTreeMap::new();
    let others = group.members.values().map(|member| &**member);
    let others = others.filter(|member| {
        member.id != draft.after.id && draft.replaced.as_ref() != Some(&member.id)
    });
    for member in others.chain([&draft.after]) {
        let topics = known
            .entry((&member.topic_names, member.regex()))
            .or_insert_with(|| Arc::new(subscribed_topics(group, image, member)));
        let of = match &draft.replaced {
            Some(replaced) if member.id == draft.after.id => replaced,
            _ => &member.id,
        };
        let member_spec = MemberSpec {
            instance_id: member.instance_id.clone(),
            topics: Arc::clone(topics),
            current: group.target_of(of),
        };
        spec.members.insert(member.id.clone(), member_spec);
    }
    for topics in known.values() {
        for id in topics.iter() {
            let partitions = image
                .topic_by_id(*id)
                .map_or(0, |topic| topic.partitions.len());
            let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
            spec.partition_counts.insert(*id, partitions);
        }
    }
    spec
}

/// Moves the draft's member towards the target, with the record and the deadline of that.
///
/// # Errors
/// See [`Reconciliation::step`].
pub(super) fn reconcile(
    group: &ConsumerGroup,
    draft: &mut Draft,
    target: &Target,
    subscription_changed: bool,
    owned: Option<&Partitions>,
    step: &mut Step<'_>,
    out: &mut Vec<GroupRecord>,
) -> Result<(), Refusal> {
    let member = &draft.after;
    if !subscription_changed && member.is_reconciled_to(target.epoch) {
        return Ok(());
    }
    let reconciliation = Reconciliation {
        target_epoch: target.epoch,
        target: &target.partitions,
        subscribed: &subscribed_topics(group, step.image, member),
        subscription_changed,
        owned,
        is_taken: &|topic, partition| group.is_taken(topic, partition),
    };
    let next = reconciliation.step(member)?;
    if next == *member {
        return Ok(());
    }
    out.push(records::current(&group.id, &next));
    if next.classic.is_none() {
        time_rebalance(group, &next, step);
    }
    draft.after = next;
    Ok(())
}

/// A member that has to give something up must do so in time. Classic members have other
/// deadlines: to rejoin and to sync.
pub(super) fn time_rebalance(group: &ConsumerGroup, member: &Member, step: &mut Step<'_>) {
    let timer = GroupTimer::ConsumerRebalance {
        group: group.id.clone(),
        member: member.id.clone(),
    };
    if member.state == MemberState::UnrevokedPartitions {
        step.timers
            .schedule(timer, i64::from(member.rebalance_timeout_ms));
    } else {
        step.timers.cancel(timer);
    }
}
