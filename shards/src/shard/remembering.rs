//! Checkpoints of this shard's logs, so that the next start reads none of what they tell.
//!
//! State only. One is made whenever so much was appended that scanning it after a kill would take
//! long, and by a stop. Logs are told of one after the other, some in each slice; the file is written
//! when everything it tells of is where it says, so a kill can come at any moment. Never holds an
//! append up, and an idle shard makes none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_io::World;
use chronik_partition::Partition;
use chronik_partition::remembered_logs::{ENTRY_BYTES, Writer};
use chronik_terms::{METADATA_PARTITION, PartitionId};

use super::{Effect, Shard, Sleeper, Slot};
use crate::limits::{
    CONFIRMED_PER_SLICE, REMEMBER_LATER_MAX, REMEMBER_SHARE, REMEMBERED_PER_SLICE,
};

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
    told: BTreeMap<PartitionId, Told>,
    /// Everything is told of and written: `told` moves to `confirmed`.
    confirming: bool,
    confirmed: Vec<(PartitionId, Vec<u8>)>,
}

/// What is told of a log.
struct Told {
    /// Up to where, and whether as durable.
    end: (i64, bool),
    log: Vec<u8>,
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
        let remembering = &mut self.upkeep.remembering;
        remembering.appended_bytes = remembering.appended_bytes.saturating_add(bytes);
        if !remembering.is_due() || remembering.writing || remembering.writer.is_none() {
            return;
        }
        if remembering.under_way.is_some() || self.stopping.is_some() {
            return self.give_up_waiting();
        }
        remembering.appended_bytes = 0;
        let ids = self.partitions.keys().copied();
        remembering.under_way = Some(UnderWay {
            left: ids.filter(|id| *id != METADATA_PARTITION).collect(),
            ..UnderWay::default()
        });
        self.out.effects.push(Effect::Rest(Sleeper::LogCheckpoint));
    }

    /// The next slice of logs.
    pub(super) fn remember_some(&mut self) {
        for _ in 0..REMEMBERED_PER_SLICE {
            let Some(under_way) = &mut self.upkeep.remembering.under_way else {
                return;
            };
            if under_way.confirming {
                return self.confirm_some();
            }
            let Some(id) = under_way.left.pop_front() else {
                return self.give_up_waiting();
            };
            self.tell(id);
        }
        self.out.effects.push(Effect::Rest(Sleeper::LogCheckpoint));
    }

    fn tell(&mut self, id: PartitionId) {
        let (Some(under_way), Some(Slot::Online(partition))) = (
            &mut self.upkeep.remembering.under_way,
            self.partitions.get(&id),
        ) else {
            return;
        };
        if !partition.is_online() {
            return;
        }
        let Some(log) = partition.remember() else {
            under_way.closing.insert(id);
            return;
        };
        let end = (partition.log_end(), log.durable);
        let log = log.to_bytes();
        under_way.told.insert(id, Told { end, log });
        if !partition.holds(partition.log_end()) {
            under_way.unwritten.insert(id, partition.log_end());
        }
    }

    /// Something of this partition was written, sealed, or has failed.
    pub(super) fn remember_progress(&mut self, id: PartitionId) {
        let Some(under_way) = &mut self.upkeep.remembering.under_way else {
            return;
        };
        if under_way.closing.remove(&id) {
            self.tell(id);
        } else {
            let Some(end) = under_way.unwritten.get(&id).copied() else {
                return;
            };
            let partition = online(&self.partitions, id);
            if partition.is_some_and(|partition| !partition.holds(end)) {
                return;
            }
            under_way.unwritten.remove(&id);
        }
        self.confirm_if_written();
    }

    /// What goes or fails is not waited for.
    fn give_up_waiting(&mut self) {
        let Some(under_way) = &mut self.upkeep.remembering.under_way else {
            return;
        };
        let partitions = &self.partitions;
        under_way
            .closing
            .retain(|id| online(partitions, *id).is_some());
        under_way.unwritten.retain(|id, end| {
            online(partitions, *id).is_some_and(|partition| !partition.holds(*end))
        });
        self.confirm_if_written();
    }

    /// Once all logs are told of and in their files: what is told is looked up once more, and written.
    fn confirm_if_written(&mut self) {
        let Some(under_way) = &mut self.upkeep.remembering.under_way else {
            return;
        };
        let waits = !under_way.closing.is_empty() || !under_way.unwritten.is_empty();
        if !waits && under_way.left.is_empty() && !under_way.confirming {
            under_way.confirming = true;
            self.out.effects.push(Effect::Rest(Sleeper::LogCheckpoint));
        }
    }

    /// The next slice of what is told: logs are left out that failed meanwhile, or were told of as
    /// durable under a promise that they no longer make. The file is written behind the last.
    fn confirm_some(&mut self) {
        let (Some(under_way), Some(writer)) = (
            &mut self.upkeep.remembering.under_way,
            self.upkeep.remembering.writer,
        ) else {
            return;
        };
        for _ in 0..CONFIRMED_PER_SLICE {
            let Some((id, told)) = under_way.told.pop_first() else {
                let logs = std::mem::take(&mut under_way.confirmed);
                self.upkeep.remembering.under_way = None;
                return self.write_checkpoint(writer, logs);
            };
            let holds = |partition: &Partition<W>| partition.holds_as_told(told.end);
            if online(&self.partitions, id).is_some_and(holds) {
                under_way.confirmed.push((id, told.log));
            }
        }
        self.out.effects.push(Effect::Rest(Sleeper::LogCheckpoint));
    }

    fn write_checkpoint(&mut self, writer: Writer, logs: Vec<(PartitionId, Vec<u8>)>) {
        let sizes = logs.iter().map(|(_, log)| log.len() + ENTRY_BYTES);
        self.upkeep.remembering.last_bytes = sizes.sum::<usize>() as u64;
        self.upkeep.remembering.writing = true;
        let path = writer.path(self.dirs.first(), self.index);
        self.out
            .effects
            .push(Effect::WriteRemembered { path, writer, logs });
    }

    pub(super) fn remembered_written(&mut self, result: std::io::Result<()>) {
        self.upkeep.remembering.writing = false;
        if let Err(error) = result {
            // The next start reads more.
            tracing::warn!(%error, "the checkpoint of the logs was not written");
        }
        self.close_when_idle();
    }

    /// Writes what the closed logs are to the file, if this run has one.
    pub(super) fn remember_closed(&mut self, logs: Vec<(PartitionId, Vec<u8>)>) {
        self.upkeep.remembering.under_way = None;
        if let (Some(writer), false) = (self.upkeep.remembering.writer, logs.is_empty()) {
            self.write_checkpoint(writer, logs);
        }
    }
}

/// A partition whose log goes on.
fn online<W: World>(
    partitions: &BTreeMap<PartitionId, Slot<W>>,
    id: PartitionId,
) -> Option<&Partition<W>> {
    match partitions.get(&id) {
        Some(Slot::Online(partition)) if partition.is_online() => Some(partition),
        _ => None,
    }
}
