//! Checkpoints of this shard's logs, so that the next start reads none of what they tell.
//!
//! State only. One is made whenever so much was appended that scanning it after a kill would take
//! long, and by a stop. Logs are told of one after the other, some in each slice; the file is written
//! when everything it tells of is where it says, so a kill can come at any moment. Never holds an
//! append up, and an idle shard makes none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_io::World;

use super::{Effect, Shard, Slot};
use crate::catalog::METADATA_PARTITION;
use crate::limits::{REMEMBER_LATER_MAX, REMEMBER_SHARE, REMEMBERED_PER_SLICE};
use crate::remembered_logs::Writer;
use crate::request::PartitionId;

/// See the module's text.
pub(super) struct Remembering {
    after_bytes: u64,
    /// Bytes appended since the last one was begun.
    appended_bytes: u64,
    /// Bytes of the last one.
    last_bytes: u64,
    writer: Option<Writer>,
    under_way: Option<UnderWay>,
    writing: bool,
}

#[derive(Default)]
struct UnderWay {
    /// Nobody has looked at these yet.
    left: VecDeque<PartitionId>,
    /// A segment of these is being closed.
    closing: BTreeSet<PartitionId>,
    /// These are told of up to here, and not yet written so far.
    unwritten: BTreeMap<PartitionId, i64>,
    told: BTreeMap<PartitionId, Vec<u8>>,
}

impl Remembering {
    pub(super) fn new(after_bytes: u64) -> Self {
        Remembering {
            after_bytes,
            appended_bytes: 0,
            last_bytes: 0,
            writer: None,
            under_way: None,
            writing: false,
        }
    }

    pub(super) fn begin_run(&mut self, writer: Writer) {
        self.writer = Some(writer);
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    fn is_due(&self) -> bool {
        // A large one is worth making when more has come, but not when a kill would cost seconds.
        let share = self.last_bytes.saturating_mul(REMEMBER_SHARE);
        let most = self.after_bytes.saturating_mul(REMEMBER_LATER_MAX);
        self.appended_bytes >= self.after_bytes.max(share.min(most))
    }
}

impl<W: World, R> Shard<W, R> {
    /// Begins a checkpoint when enough was appended.
    pub(super) fn appended(&mut self, bytes: u64) {
        let remembering = &mut self.remembering;
        remembering.appended_bytes = remembering.appended_bytes.saturating_add(bytes);
        if !remembering.is_due() || remembering.writing || remembering.writer.is_none() {
            return;
        }
        if remembering.under_way.is_some() || self.stopping.is_some() {
            return self.write_remembered();
        }
        remembering.appended_bytes = 0;
        let ids = self.partitions.keys().copied();
        remembering.under_way = Some(UnderWay {
            left: ids.filter(|id| *id != METADATA_PARTITION).collect(),
            ..UnderWay::default()
        });
        self.effects.push(Effect::RememberRest);
    }

    /// The next slice of logs.
    pub(super) fn remember_some(&mut self) {
        for _ in 0..REMEMBERED_PER_SLICE {
            let Some(under_way) = &mut self.remembering.under_way else {
                return;
            };
            let Some(id) = under_way.left.pop_front() else {
                return self.write_remembered();
            };
            self.tell(id);
        }
        self.effects.push(Effect::RememberRest);
    }

    fn tell(&mut self, id: PartitionId) {
        let (Some(under_way), Some(Slot::Online(partition))) =
            (&mut self.remembering.under_way, self.partitions.get(&id))
        else {
            return;
        };
        if !partition.is_online() {
            return;
        }
        let Some(log) = partition.remember() else {
            under_way.closing.insert(id);
            return;
        };
        under_way.told.insert(id, log.to_bytes());
        if !partition.holds(partition.log_end()) {
            under_way.unwritten.insert(id, partition.log_end());
        }
    }

    /// Something of this partition was written, sealed, or has failed.
    pub(super) fn remember_progress(&mut self, id: PartitionId) {
        let Some(under_way) = &mut self.remembering.under_way else {
            return;
        };
        let waited_for = under_way.closing.remove(&id);
        if waited_for {
            self.tell(id);
        } else if !under_way.unwritten.contains_key(&id) {
            return;
        }
        self.write_remembered();
    }

    /// Writes the file once all it tells of is in the logs' files.
    fn write_remembered(&mut self) {
        let (Some(under_way), Some(writer)) =
            (&mut self.remembering.under_way, self.remembering.writer)
        else {
            return;
        };
        let partitions = &self.partitions;
        let usable = |id: &PartitionId| match partitions.get(id) {
            Some(Slot::Online(partition)) if partition.is_online() => Some(partition),
            _ => None,
        };
        under_way.closing.retain(|id| usable(id).is_some());
        under_way
            .unwritten
            .retain(|id, end| usable(id).is_some_and(|partition| !partition.holds(*end)));
        let waits = !under_way.closing.is_empty() || !under_way.unwritten.is_empty();
        if waits || !under_way.left.is_empty() {
            return;
        }
        let told = std::mem::take(&mut under_way.told);
        let told = told.iter().filter(|(id, _)| usable(id).is_some());
        let bytes = writer.to_bytes(told.map(|(id, log)| (*id, log.as_slice())));
        self.remembering.under_way = None;
        self.write_checkpoint(writer, bytes);
    }

    fn write_checkpoint(&mut self, writer: Writer, bytes: Vec<u8>) {
        self.remembering.last_bytes = bytes.len() as u64;
        self.remembering.writing = true;
        let path = writer.path(self.dirs.first(), self.index);
        self.effects.push(Effect::WriteRemembered { path, bytes });
    }

    pub(super) fn remembered_written(&mut self, result: std::io::Result<()>) {
        self.remembering.writing = false;
        if let Err(error) = result {
            // The next start reads more.
            tracing::warn!(%error, "the checkpoint of the logs was not written");
        }
        self.close_when_idle();
    }

    /// Writes what the closed logs are to the file, if this run has one.
    pub(super) fn remember_closed(&mut self, logs: &[(PartitionId, Vec<u8>)]) {
        self.remembering.under_way = None;
        if let (Some(writer), false) = (self.remembering.writer, logs.is_empty()) {
            let bytes = writer.to_bytes(logs.iter().map(|(id, log)| (*id, log.as_slice())));
            self.write_checkpoint(writer, bytes);
        }
    }
}
