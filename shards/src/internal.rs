//! What shards say to each other and nobody else may: opaque outside this package.
//!
//! Owns plain values only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_log::recovery::RecoveryHint;
use chronik_partition::CloseReport;
use chronik_partition::remembered_logs::{Remembered, RememberedLogs};
use chronik_partition::write_behind::LeftBehind;
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use crate::log_dirs::LogDirs;
use crate::placing::Placing;

/// A request between shards; see [`crate::Request::Internal`].
#[derive(Debug)]
pub struct InternalRequest(pub(crate) Internal);

/// A reply between shards.
#[derive(Debug)]
pub struct InternalReply(pub(crate) InternalAnswer);

#[derive(Debug)]
pub(crate) enum Internal {
    /// The first image and what the data directory said; to every shard, once.
    Load(Arc<Boot>),
    /// The designated shard could not start.
    Abandon(Arc<str>),
    /// Offsets worth a checkpoint; to the designated shard.
    Note(Vec<OffsetNote>),
    /// Close every partition.
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InternalAnswer {
    /// Every partition was opened, but these.
    Loaded {
        failed: Vec<PartitionId>,
    },
    /// Where the notes are durable.
    Noted(Durable),
    Closed(Vec<ClosedPartition>),
    /// The image is applied; these directories of deleted partitions could not be removed yet.
    LeftOver(Vec<Leftover>),
}

/// In which log directories noted offsets are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    Nowhere,
    /// In all but those that refused.
    AllBut {
        refused: Vec<Uuid>,
        /// Those of them that are too short of something, and are tried again.
        short: Vec<Uuid>,
    },
}

impl Durable {
    /// Whether they are in this one.
    pub(crate) fn is_in(&self, directory: Option<Uuid>) -> bool {
        match self {
            Self::Nowhere => false,
            Self::AllBut { refused, .. } => !directory.is_some_and(|id| refused.contains(&id)),
        }
    }

    /// Whether they are not in this one only because it is too short of something now.
    pub(crate) fn is_short(&self, directory: Option<Uuid>) -> bool {
        match self {
            Self::Nowhere => false,
            Self::AllBut { short, .. } => directory.is_some_and(|id| short.contains(&id)),
        }
    }
}

/// What every shard needs to open its partitions.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) image: Arc<Image>,
    pub(crate) dirs: Arc<LogDirs>,
    /// The log directories that hold each partition's own, by the name of that.
    pub(crate) found: BTreeMap<String, BTreeSet<Uuid>>,
    /// From the checkpoints of the last run.
    pub(crate) hints: BTreeMap<PartitionId, RecoveryHint>,
    /// Up to where logs have been compacted.
    pub(crate) cleaned: BTreeMap<PartitionId, i64>,
    /// The last run stopped cleanly, and this was its broker epoch.
    pub(crate) clean: Option<i64>,
    /// Everything in the data directories is durable,
    pub(crate) durable: bool,
    /// but in these.
    pub(crate) not_durable: BTreeSet<Uuid>,
    /// What is still to be done to the directories of logs whose moves the last run did not end.
    pub(crate) placings: BTreeMap<PartitionId, Placing>,
    /// What the checkpoints say of logs.
    pub(crate) remembered: RememberedLogs,
    /// The machine's start.
    pub(crate) boot_id: u128,
    /// What the last run had acknowledged and not written.
    pub(crate) left_behind: LeftBehind,
    /// Topics whose directories may be removed without asking.
    pub(crate) removed: BTreeSet<Uuid>,
}

impl Boot {
    /// What is known of a partition's directory.
    pub(crate) fn hint(&self, id: PartitionId) -> RecoveryHint {
        let unknown = RecoveryHint {
            clean: self.clean.is_some(),
            recovery_point: 0,
            log_start_offset: 0,
            durable: self.durable,
        };
        let mut hint = self.hints.get(&id).copied().unwrap_or(unknown);
        hint.durable &= !self.may_be_in_memory(id);
        hint
    }

    /// Whether a partition lies where not everything is durable.
    fn may_be_in_memory(&self, id: PartitionId) -> bool {
        if self.not_durable.is_empty() {
            return false;
        }
        let topic = self.image.topic_by_id(id.topic_id);
        let home = topic.and_then(|topic| self.dirs.home_of(&self.image, &topic.name, id.index));
        home.is_some_and(|home| self.not_durable.contains(&home))
    }

    /// Whether the last run did not come to make this partition's directory, nor had it anything to write
    /// there. One that is gone with its records is not new.
    pub(crate) fn is_new(&self, id: PartitionId, (topic, directory): (&str, Option<Uuid>)) -> bool {
        let found = self.found.get(&format!("{topic}-{}", id.index));
        let is_in = |directory| found.is_some_and(|found| found.contains(&directory));
        let is_found = directory.is_none_or(is_in);
        let hint = self.hint(id);
        !is_found
            && (hint.recovery_point, hint.log_start_offset) == (0, 0)
            && !self.cleaned.contains_key(&id)
            && self.remembered.of(id).is_none()
            && self.left_behind.of(id).is_empty()
    }

    /// What a checkpoint says of a log. After a clean stop only what that stop said counts: another
    /// one was before, and a real Kafka may have run since.
    pub(crate) fn remembered(&self, id: PartitionId) -> Option<(Remembered, u128)> {
        let told = self.remembered.of(id)?;
        if self.may_be_in_memory(id) {
            return None;
        }
        let counts = |epoch| told.writer.broker_epoch == epoch;
        self.clean
            .is_none_or(counts)
            .then(|| (told.clone(), self.boot_id))
    }
}

/// Offsets of one partition that the checkpoint files should hold. By the topic's id: notes of different
/// shards overtake each other, and the name may be another topic's by then.
#[derive(Clone, Debug)]
pub(crate) struct OffsetNote {
    pub(crate) partition: PartitionId,
    pub(crate) change: OffsetChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetChange {
    RecoveryPoint(i64),
    LogStart(i64),
    /// Records below have been compacted.
    Cleaned(i64),
    /// The log may soon lie in this log directory: its files are to have the numbers as well.
    Coming(Uuid),
    /// It does not go there after all.
    Staying(Uuid),
}

/// A partition after a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedPartition {
    pub(crate) id: PartitionId,
    /// `None` when it could not be closed as it should: the next start has to look at it.
    pub(crate) report: Option<CloseReport>,
}

/// A directory that a deleted partition has left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) id: PartitionId,
    /// As it was called while the partition was there.
    pub(crate) directory: PathBuf,
}
