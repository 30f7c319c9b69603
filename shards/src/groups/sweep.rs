//! Offsets that are to be forgotten: their retention is over, or their topic was deleted.
//!
//! A sweep goes over a partition's groups in slices, so that nobody waits for it.

use chronik_protocol::{Str, Uuid};

use super::partition::GroupPartition;
use super::records::GroupRecord;
use super::settings::GroupSettings;
use crate::catalog::Image;
use crate::limits::GROUPS_PER_SLICE;

/// Why offsets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// `offsets.retention.minutes`; groups that nobody would miss go with them.
    Expired,
    /// These topics do not exist any more.
    Deleted(Vec<(Str, Uuid)>),
    /// Topics that do not exist (any more), after the log was read.
    Orphaned,
}

/// A sweep over one partition.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    pub(crate) partition: i32,
    pub(crate) reason: Reason,
    /// The last group that was looked at.
    pub(crate) after: Option<Str>,
}

/// What one slice of a sweep found.
pub(crate) struct Swept {
    pub(crate) records: Vec<GroupRecord>,
    /// Where the next slice begins; `None` when every group was looked at.
    pub(crate) next: Option<Str>,
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
        use std::ops::Bound::{Excluded, Unbounded};
        let from = sweep.after.as_deref().map_or(Unbounded, Excluded);
        let mut records = Vec::new();
        let mut last = None;
        let groups = self.groups.range::<str, _>((from, Unbounded));
        for (looked_at, (id, _)) in groups.enumerate() {
            if looked_at == GROUPS_PER_SLICE {
                return Swept {
                    records,
                    next: last,
                };
            }
            last = Some(id.clone());
            match &sweep.reason {
                Reason::Expired => self.expire(id, settings, now_ms, &mut records),
                Reason::Deleted(topics) => self.forget_topics(id, topics, &mut records),
                Reason::Orphaned => self.forget_orphans(id, image, &mut records),
            }
        }
        Swept {
            records,
            next: None,
        }
    }

    fn expire(
        &self,
        id: &Str,
        settings: &GroupSettings,
        now_ms: i64,
        records: &mut Vec<GroupRecord>,
    ) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        let expiry = group.offset_expiry();
        let mut all = true;
        for (topic, partitions) in self.offsets.of(id).into_iter().flatten() {
            if group.is_subscribed_to(topic) {
                all = false;
                continue;
            }
            for (partition, offset) in partitions {
                if expiry.is_due(offset, now_ms, settings.offsets_retention_ms) {
                    records.push(GroupRecord::offset_tombstone(id, topic, *partition));
                } else {
                    all = false;
                }
            }
        }
        if all && group.is_abandoned() {
            group.tombstones(id, records);
        }
    }

    fn forget_topics(&self, id: &Str, topics: &[(Str, Uuid)], records: &mut Vec<GroupRecord>) {
        let Some(offsets) = self.offsets.of(id) else {
            return;
        };
        for (topic, deleted_id) in topics {
            for (partition, offset) in offsets.get(topic).into_iter().flatten() {
                if offset.topic_id.is_zero() || offset.topic_id == *deleted_id {
                    records.push(GroupRecord::offset_tombstone(id, topic, *partition));
                }
            }
        }
    }

    fn forget_orphans(&self, id: &Str, image: &Image, records: &mut Vec<GroupRecord>) {
        for (topic, partitions) in self.offsets.of(id).into_iter().flatten() {
            for (partition, offset) in partitions {
                // Without an id it would pass for one of the next topic of the name.
                let known = match offset.topic_id.is_zero() {
                    true => image.topic(topic).is_some(),
                    false => image.topic_by_id(offset.topic_id).is_some(),
                };
                if !known {
                    records.push(GroupRecord::offset_tombstone(id, topic, *partition));
                }
            }
        }
    }
}
