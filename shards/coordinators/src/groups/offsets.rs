//! Committed offsets of one partition's groups, and when they may be forgotten.
//!
//! State only. Records change it by being replayed, nothing else does.

use std::collections::BTreeMap;

use chronik_protocol::messages::OffsetCommitValue;
use chronik_protocol::records_of::GroupValue;
use chronik_protocol::{Str, Uuid};

use super::records::{GroupRecord, offset_key};

/// The version of the value that is written, but for those with an expiry of their own.
const VALUE_VERSION: i16 = 4;

/// The only version with `expireTimestamp`, for clients that ask for a retention (before
/// OffsetCommit 5).
const EXPIRING_VALUE_VERSION: i16 = 1;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The next record wanted.
    pub(crate) offset: i64,
    /// Epoch of the last record consumed; −1 when the client did not say.
    pub(crate) leader_epoch: i32,
    /// Whatever the client wanted remembered.
    pub(crate) metadata: Str,
    pub(crate) commit_timestamp_ms: i64,
    pub(crate) expire_timestamp_ms: Option<i64>,
    /// Zero when it was committed before ids were recorded.
    pub(crate) topic_id: Uuid,
}

impl CommittedOffset {
    fn replayed(value: &OffsetCommitValue) -> CommittedOffset {
        CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.clone(),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: Some(value.expire_timestamp).filter(|ms| *ms != -1),
            topic_id: value.topic_id,
        }
    }

    /// The record that remembers it.
    pub(crate) fn record(&self, group: &Str, topic: &Str, partition: i32) -> GroupRecord {
        let version = match self.expire_timestamp_ms {
            Some(_) => EXPIRING_VALUE_VERSION,
            None => VALUE_VERSION,
        };
        let value = OffsetCommitValue {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            commit_timestamp: self.commit_timestamp_ms,
            expire_timestamp: self.expire_timestamp_ms.unwrap_or(-1),
            topic_id: self.topic_id,
            ..OffsetCommitValue::default()
        };
        GroupRecord {
            key: offset_key(group, topic, partition),
            value: Some((GroupValue::OffsetCommit(value), version)),
        }
    }
}

/// When a group's offsets may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetExpiry {
    /// Not now.
    Never,
    /// `offsets.retention.minutes` after they were committed.
    SinceCommit,
    /// So long after the group became empty.
    Since(i64),
}

impl OffsetExpiry {
    /// Whether an offset is to be forgotten.
    pub(crate) fn is_due(self, offset: &CommittedOffset, now_ms: i64, retention_ms: i64) -> bool {
        let since_ms = match self {
            OffsetExpiry::Never => return false,
            OffsetExpiry::SinceCommit => offset.commit_timestamp_ms,
            OffsetExpiry::Since(ms) => ms,
        };
        match offset.expire_timestamp_ms {
            Some(expire_ms) => now_ms >= expire_ms,
            None => now_ms.saturating_sub(since_ms) >= retention_ms,
        }
    }
}

/// A group's offsets by topic and partition.
pub(crate) type GroupOffsets = BTreeMap<Str, BTreeMap<i32, CommittedOffset>>;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    by_group: BTreeMap<Str, GroupOffsets>,
}

impl Offsets {
    /// Everything a group has committed.
    pub(crate) fn of(&self, group: &str) -> Option<&GroupOffsets> {
        self.by_group.get(group)
    }

    /// One offset.
    pub(crate) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_group.get(group)?.get(topic)?.get(&partition)
    }

    /// Groups with offsets, by name, from the one after `after`.
    pub(crate) fn groups_after<'a>(
        &'a self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Str, &'a GroupOffsets)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_group.range::<str, _>((from, Unbounded))
    }

    /// Takes a record's word for an offset; without a value it is forgotten.
    pub(crate) fn replay(
        &mut self,
        group: &Str,
        topic: &Str,
        partition: i32,
        value: Option<&OffsetCommitValue>,
    ) {
        if let Some(value) = value {
            let offset = CommittedOffset::replayed(value);
            let topics = self.by_group.entry(group.clone()).or_default();
            let partitions = topics.entry(topic.clone()).or_default();
            partitions.insert(partition, offset);
            return;
        }
        let Some(topics) = self.by_group.get_mut(group) else {
            return;
        };
        if let Some(partitions) = topics.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                topics.remove(topic);
            }
        }
        if topics.is_empty() {
            self.by_group.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(commit_ms: i64, expire_ms: Option<i64>) -> CommittedOffset {
        CommittedOffset {
            offset: 1,
            leader_epoch: -1,
            metadata: Str::default(),
            commit_timestamp_ms: commit_ms,
            expire_timestamp_ms: expire_ms,
            topic_id: Uuid::ZERO,
        }
    }

    #[test]
    fn offsets_expire_by_what_the_group_is() {
        let due = |expiry: OffsetExpiry, offset: &CommittedOffset| expiry.is_due(offset, 100, 10);
        assert!(!due(OffsetExpiry::Never, &offset(0, Some(1))));
        assert!(due(OffsetExpiry::SinceCommit, &offset(90, None)));
        assert!(!due(OffsetExpiry::SinceCommit, &offset(91, None)));
        assert!(due(OffsetExpiry::Since(90), &offset(99, None)));
        assert!(!due(OffsetExpiry::Since(95), &offset(0, None)));
        assert!(
            due(OffsetExpiry::Since(99), &offset(99, Some(100))),
            "its own expiry"
        );
        assert!(
            !due(OffsetExpiry::Since(0), &offset(0, Some(101))),
            "its own expiry"
        );
    }

    #[test]
    fn nothing_is_left_of_forgotten_offsets() {
        let mut offsets = Offsets::default();
        let (group, topic) = (Str::from("g"), Str::from("t"));
        let value = OffsetCommitValue {
            offset: 7,
            ..OffsetCommitValue::default()
        };
        offsets.replay(&group, &topic, 0, Some(&value));
        offsets.replay(&group, &topic, 1, Some(&value));
        assert_eq!(offsets.get("g", "t", 1).map(|found| found.offset), Some(7));
        offsets.replay(&group, &topic, 0, None);
        assert_eq!(offsets.of("g").map(BTreeMap::len), Some(1));
        offsets.replay(&group, &topic, 1, None);
        assert_eq!(offsets, Offsets::default());
    }
}
