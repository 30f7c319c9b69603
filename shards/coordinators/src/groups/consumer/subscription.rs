//! What a change of one member does to the group's subscription: topics, expressions, epoch.
//!
//! Pure: reads the group as it is and makes the records of what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::super::caller::Refusal;
use super::super::deadlines::GroupTimer;
use super::super::records::GroupRecord;
use super::super::step::Step;
use super::group::ConsumerGroup;
use super::hash::metadata_hash;
use super::member::Member;
use super::records;
use super::regex::check_pattern;
use crate::limits::GROUP_TOPICS_MAX;

/// Expressions of a group are resolved at most so often (`REGEX_BATCH_REFRESH_MIN_INTERVAL_MS`).
const RESOLVE_INTERVAL_MS: i64 = 10_000;

/// Offsets of the images in which topics changed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicVersions {
    /// Some topic came: expressions may match it.
    pub(crate) created_at: i64,
    /// Some topic came, went or grew: metadata hashes may be others.
    pub(crate) changed_at: i64,
}

/// A member before and after a request.
pub(super) struct Draft {
    /// As the group has it, under its new id when it takes a static member's place; the default
    /// when the group has none.
    pub(super) before: Arc<Member>,
    /// As the request makes it.
    pub(super) after: Member,
    /// Id of the static member whose place it takes.
    pub(super) replaced: Option<Str>,
}

/// What became of the expression a member subscribes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegexChange {
    None,
    /// It is another one; what it matches is not known yet.
    Updated,
    /// It is another one and the group knows what it matches.
    Resolved,
}

/// What [`update`] found.
pub(super) struct Update {
    /// The group's epoch from now on.
    pub(super) epoch: i32,
    /// The member subscribes to something else than before.
    pub(super) subscription_changed: bool,
    /// The group's metadata hash is that of the newest topics.
    pub(super) hash_holds: bool,
}

/// Records that the member changed, and the group's new epoch if that makes one necessary.
///
/// # Errors
/// `INVALID_REGULAR_EXPRESSION`.
pub(super) fn update(
    group: &ConsumerGroup,
    draft: &Draft,
    step: &mut Step<'_>,
    topics: TopicVersions,
    out: &mut Vec<GroupRecord>,
) -> Result<Update, Refusal> {
    let names_changed = draft.before.topic_names != draft.after.topic_names;
    if names_changed {
        check_names(group, draft)?;
    }
    if *draft.before != draft.after {
        out.push(records::member(&group.id, &draft.after));
    }
    let regex = update_regex(group, draft, step, topics, out)?;
    let bump = names_changed || regex == RegexChange::Resolved;
    let mut update = Update {
        epoch: group.epoch,
        subscription_changed: names_changed || regex != RegexChange::None,
        hash_holds: true,
    };
    if bump || group.hashed_at != Some(topics.changed_at) {
        let names = topics_after(group, draft);
        let hash = metadata_hash(step.image, names.into_iter());
        if bump || hash != group.metadata_hash {
            update.epoch = group.epoch.saturating_add(1);
            // The next request looks again, in case this one does not fit into the log.
            update.hash_holds = false;
            out.push(records::epoch(&group.id, update.epoch, hash));
        }
        if group.has_partition_metadata {
            out.push(records::partition_metadata_tombstone(&group.id));
        }
    }
    Ok(update)
}

/// Checks that the group does not come to name more topics than it may.
///
/// # Errors
/// `INVALID_REQUEST`; Kafka has no such bound.
fn check_names(group: &ConsumerGroup, draft: &Draft) -> Result<(), Refusal> {
    let names = draft.after.topic_names.iter();
    let new = names.filter(|name| !group.topics().contains_key(*name));
    // What expressions match is not counted.
    let resolved: usize = group
        .resolved
        .values()
        .map(|found| found.topics.len())
        .sum();
    let count = group.topics().len().saturating_sub(resolved) + new.count();
    if count <= GROUP_TOPICS_MAX {
        return Ok(());
    }
    let message = format!(
        "the members of group {} would name {count} topics, at most {GROUP_TOPICS_MAX} are taken: \
         subscribe by an expression",
        group.id
    );
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

/// Names the group subscribes to once the draft holds, ascending.
fn topics_after<'a>(group: &'a ConsumerGroup, draft: &'a Draft) -> BTreeSet<&'a Str> {
    let mut changes: BTreeMap<&Str, i64> = BTreeMap::new();
    for name in draft.before.topic_names.iter() {
        *changes.entry(name).or_default() -= 1;
    }
    for name in draft.after.topic_names.iter() {
        *changes.entry(name).or_default() += 1;
    }
    if let Some(old) = draft.before.regex()
        && draft.after.regex() != Some(old)
        && group.regexes().get(old) == Some(&1)
        && let Some(resolved) = group.resolved.get(old)
    {
        for name in &resolved.topics {
            *changes.entry(name).or_default() -= 1;
        }
    }
    topics_with(group, &changes)
}

/// Names whose count is above zero after `changes`.
pub(super) fn topics_with<'a>(
    group: &'a ConsumerGroup,
    changes: &BTreeMap<&'a Str, i64>,
) -> BTreeSet<&'a Str> {
    let count = |name: &Str| group.topics().get(name).copied().unwrap_or(0);
    let after = |name: &Str, change: i64| {
        i64::try_from(count(name))
            .unwrap_or(i64::MAX)
            .saturating_add(change)
    };
    let untouched = group.topics().keys();
    let untouched = untouched.filter(|name| !changes.contains_key(*name));
    let changed = changes
        .iter()
        .filter(|(name, change)| after(name, **change) > 0);
    untouched.chain(changed.map(|(name, _)| *name)).collect()
}

/// Follows the member's expression: removes one nobody needs, checks one nobody had, and has all
/// of them resolved anew when it is time (`maybeUpdateRegularExpressions`).
fn update_regex(
    group: &ConsumerGroup,
    draft: &Draft,
    step: &mut Step<'_>,
    topics: TopicVersions,
    out: &mut Vec<GroupRecord>,
) -> Result<RegexChange, Refusal> {
    let (old, new) = (draft.before.regex(), draft.after.regex());
    let subscribers = |regex: &Str| group.regexes().get(regex).copied().unwrap_or(0);
    let mut change = RegexChange::None;
    let mut is_first = false;
    if draft.before.topic_regex != draft.after.topic_regex {
        change = RegexChange::Updated;
        if let Some(old) = old.filter(|old| subscribers(old) == 1) {
            out.push(records::regex_tombstone(&group.id, old));
        }
        match new {
            Some(new) if subscribers(new) == 0 => {
                check_pattern(new)?;
                is_first = true;
            }
            Some(new) if group.resolved.contains_key(new) => change = RegexChange::Resolved,
            None if old.is_some() => change = RegexChange::Resolved,
            _ => {}
        }
    }
    if (is_first || !group.regexes().is_empty())
        && group.resolution.is_none()
        && must_resolve(group, draft, step, topics, is_first)
    {
        let group = group.id.clone();
        step.timers
            .schedule(GroupTimer::ResolveRegexes { group }, 0);
    }
    Ok(change)
}

/// Whether the group's expressions are to be resolved now.
fn must_resolve(
    group: &ConsumerGroup,
    draft: &Draft,
    step: &Step<'_>,
    topics: TopicVersions,
    is_first: bool,
) -> bool {
    let now_ms = step.now.wall_ms;
    // All expressions of a group are resolved together, so any of them tells when.
    let last = group.resolved.values().next();
    let since_ms = last.map(|last| now_ms.saturating_sub(last.timestamp_ms));
    if since_ms.is_some_and(|since_ms| since_ms <= RESOLVE_INTERVAL_MS) {
        return false;
    }
    let (old, new) = (draft.before.regex(), draft.after.regex());
    let mut patterns: BTreeSet<&Str> = group.regexes().keys().collect();
    if let Some(old) = old
        && old_is_gone(group, old, new)
    {
        patterns.remove(old);
    }
    patterns.extend(new);
    if patterns.is_empty() {
        return false;
    }
    let refresh_ms = step.settings.consumer.regex_refresh_ms;
    is_first
        || patterns.len() != group.resolved.len()
        || last.map_or(0, |last| last.version) < topics.created_at
        || since_ms.is_none_or(|since_ms| since_ms > refresh_ms)
}

fn old_is_gone(group: &ConsumerGroup, old: &Str, new: Option<&Str>) -> bool {
    new != Some(old) && group.regexes().get(old) == Some(&1)
}

/// Topics that exist and a member subscribes to, by name or by expression.
pub(super) fn subscribed_topics(
    group: &ConsumerGroup,
    image: &Image,
    member: &Member,
) -> BTreeSet<Uuid> {
    let matched = member.regex().and_then(|regex| group.resolved.get(regex));
    let matched = matched.into_iter().flat_map(|resolved| &resolved.topics);
    let names = member.topic_names.iter().chain(matched);
    names
        .filter_map(|name| image.topic(name))
        .map(|topic| topic.id)
        .collect()
}
