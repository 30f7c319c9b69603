//! Offsets that are to be forgotten: their retention is over, or their topic was deleted.
//!
//! A sweep goes over a partition's groups in slices, so that nobody waits for it.

use chronik_catalog::Image;
use chronik_protocol::Str;

use super::offsets::{CommittedOffset, GroupOffsets};
use super::partition::GroupPartition;
use super::records::GroupRecord;
use super::settings::GroupSettings;
use super::step::DeletedTopics;
use crate::limits::{GROUPS_PER_SLICE, OFFSETS_PER_SLICE};

/// Why offsets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// `offsets.retention.minutes`; groups that nobody would miss go with them.
    Expired,
    /// These topics do not exist any more.
    Deleted(DeletedTopics),
    /// Topics that do not exist (any more), after the log was read.
    Orphaned,
}

/// A sweep over one partition.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    pub(crate) partition: i32,
    pub(crate) reason: Reason,
    /// How far it has come.
    pub(crate) after: Option<Place>,
}

/// How far a sweep has come: a group may have more offsets than one slice looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last group that was looked at.
    group: Str,
    /// The last of its offsets, where there are more.
    within: Option<(Str, i32)>,
    /// Something of it stays.
    stays: bool,
}

/// What one slice of a sweep found.
pub(crate) struct Swept {
    pub(crate) records: Vec<GroupRecord>,
    /// Where the next slice begins; `None` when every group was looked at.
    pub(crate) next: Option<Place>,
}

/// What a sweep goes by.
struct By<'a> {
    reason: &'a Reason,
    image: &'a Image,
    retention_ms: i64,
    now_ms: i64,
}

impl GroupPartition {
    /// Looks at some groups.
    pub(crate) fn sweep(
        &self,
        sweep: &Sweep,
        image: &Image,
        settings: &GroupSettings,
        now_ms: i64,
    ) -> Swept {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let by = By {
            reason: &sweep.reason,
            image,
            retention_ms: settings.offsets_retention_ms,
            now_ms,
        };
        let mut records = Vec::new();
        let mut last = sweep.after.clone();
        let from = match &sweep.after {
            None => Unbounded,
            Some(place) if place.within.is_some() => Included(&*place.group),
            Some(place) => Excluded(&*place.group),
        };
        let mut left = OFFSETS_PER_SLICE;
        let groups = self.groups.range::<str, _>((from, Unbounded));
        for (looked_at, (id, _)) in groups.enumerate() {
            if looked_at == GROUPS_PER_SLICE || left == 0 {
                return Swept {
                    records,
                    next: last,
                };
            }
            let place = match last.take() {
                Some(place) if place.group == *id && place.within.is_some() => place,
                _ => Place {
                    group: id.clone(),
                    within: None,
                    stays: false,
                },
            };
            let place = self.sweep_group(place, &by, &mut left, &mut records);
            if place.within.is_some() {
                return Swept {
                    records,
                    next: Some(place),
                };
            }
            last = Some(place);
        }
        Swept {
            records,
            next: None,
        }
    }

    /// Looks at the offsets of a group from `place` on, at most `left` of them; says how far it came.
    fn sweep_group(
        &self,
        mut place: Place,
        by: &By<'_>,
        left: &mut usize,
        records: &mut Vec<GroupRecord>,
    ) -> Place {
        let within = place.within.take();
        let Some(group) = self.groups.get(&place.group) else {
            return place;
        };
        let offsets = self.offsets.of(&place.group);
        for (topic, partition, offset) in offsets.into_iter().flat_map(|all| behind(all, &within)) {
            if *left == 0 {
                return place;
            }
            *left -= 1;
            place.within = Some((topic.clone(), partition));
            let goes = match by.reason {
                Reason::Expired => {
                    let is_due = || {
                        group
                            .offset_expiry()
                            .is_due(offset, by.now_ms, by.retention_ms)
                    };
                    !group.is_subscribed_to(topic) && is_due()
                }
                Reason::Deleted(topics) => topics.get(topic).is_some_and(|deleted| {
                    offset.topic_id.is_zero() || deleted.contains(&offset.topic_id)
                }),
                // Without an id it would pass for one of the next topic of the name.
                Reason::Orphaned => match offset.topic_id.is_zero() {
                    true => by.image.topic(topic).is_none(),
                    false => by.image.topic_by_id(offset.topic_id).is_none(),
                },
            };
            place.stays |= !goes;
            if goes {
                let id = &place.group;
                records.push(GroupRecord::offset_tombstone(id, topic, partition));
            }
        }
        place.within = None;
        if *by.reason == Reason::Expired && !place.stays && group.is_abandoned() {
            group.tombstones(&place.group, records);
        }
        place
    }
}

/// Offsets of a group behind the one of this name.
fn behind<'a>(
    offsets: &'a GroupOffsets,
    within: &'a Option<(Str, i32)>,
) -> impl Iterator<Item = (&'a Str, i32, &'a CommittedOffset)> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let from = within.as_ref();
    let topics = from.map_or(Unbounded, |(topic, _)| Included(topic.as_str()));
    let topics = offsets.range::<str, _>((topics, Unbounded));
    topics.flat_map(move |(topic, partitions)| {
        let from = from.filter(|(same, _)| same == topic);
        let from = from.map_or(Unbounded, |(_, partition)| Excluded(*partition));
        let found = partitions.range((from, Unbounded));
        found.map(move |(partition, offset)| (topic, *partition, offset))
    })
}
