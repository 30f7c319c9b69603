//! Closing one shard: what was accepted is finished, parked requests are answered, every partition
//! is sealed.
//!
//! State only. What the data directory says afterwards is written by the designated shard's driver
//! when every shard has closed.

use std::collections::VecDeque;

use chronik_io::World;
use chronik_log::LogError;
use chronik_partition::Closed;
use chronik_partition::patience::Patience;
use chronik_terms::{METADATA_PARTITION, PartitionId, Wake};

use super::{Effect, Shard, Slot};
use crate::internal::{ClosedPartition, InternalAnswer};
use crate::limits::PARTITION_TASKS_MAX;

/// A stop under way. From its beginning on nothing new is accepted.
pub(super) struct Stopping<R> {
    /// Where something is short.
    patience: Patience,
    waiting: Vec<R>,
    /// Filled when everything is idle.
    to_close: Option<VecDeque<PartitionId>>,
    in_flight: usize,
    closed: Vec<ClosedPartition>,
    /// What a checkpoint is to remember of the closed logs.
    remembered: Vec<(PartitionId, Vec<u8>)>,
    is_remembered: bool,
    done: bool,
}

impl<W: World, R> Shard<W, R> {
    /// Begins to close; answered when every partition is closed.
    pub(super) fn close_all(&mut self, responder: R) {
        match &mut self.stopping {
            Some(stopping) => stopping.waiting.push(responder),
            None => {
                self.stopping = Some(Stopping {
                    patience: Patience::begin(&self.world),
                    waiting: vec![responder],
                    to_close: None,
                    in_flight: 0,
                    closed: Vec::new(),
                    remembered: Vec::new(),
                    is_remembered: false,
                    done: false,
                });
                for key in self.waiting.purgatory.keys() {
                    self.end_parked(key, Wake::Progress);
                }
                for slot in self.partitions.values_mut() {
                    if let Slot::Online(partition) = slot {
                        partition.stop_cleaning();
                    }
                }
                self.let_early_in();
                self.stop_moves();
                self.with_groups(|groups, _| groups.stop());
                self.write_what_lingers();
            }
        }
        self.close_when_idle();
        self.answer_closed();
    }

    /// Goes on closing when nothing is on its way any more.
    pub(super) fn close_when_idle(&mut self) {
        let Some(stopping) = &self.stopping else {
            return;
        };
        if stopping.to_close.is_none() {
            if !self.is_idle() {
                return;
            }
            let ids = self.partitions.keys().copied().collect();
            if let Some(stopping) = &mut self.stopping {
                stopping.to_close = Some(ids);
            }
        }
        self.close_some();
        self.answer_closed();
    }

    fn is_idle(&self) -> bool {
        let quiet = |slot: &Slot<W>| match slot {
            Slot::Online(partition) => partition.is_quiet(),
            Slot::Unopened { .. } | Slot::Failed | Slot::Waiting(_) | Slot::Correcting(_) => true,
            _ => false,
        };
        self.appending.appends.is_empty()
            && self.reading.reads.is_empty()
            && self.reading.prefetches.is_empty()
            && self.reading.disk.is_empty()
            && self.reading.offset_queries.is_empty()
            && self.reading.unwritten.is_empty()
            && !self.write_behind.is_coming()
            && self.following.applying.is_idle()
            && self.following.moves.is_idle()
            && !self.upkeep.remembering.is_writing()
            && self.notes_are_out()
            && !self.is_writing_checkpoints()
            && self.partitions.values().all(quiet)
    }

    fn close_some(&mut self) {
        loop {
            let Some(stopping) = &mut self.stopping else {
                return;
            };
            if stopping.in_flight >= PARTITION_TASKS_MAX {
                return;
            }
            let Some(id) = stopping.to_close.as_mut().and_then(VecDeque::pop_front) else {
                return;
            };
            match self.partitions.insert(id, Slot::Closing) {
                Some(Slot::Online(partition) | Slot::Correcting(partition)) => {
                    stopping.in_flight += 1;
                    let patience = stopping.patience;
                    self.out.effects.push(Effect::Close(partition, patience));
                }
                // The next start makes it.
                Some(Slot::Unopened { .. }) => {
                    self.partitions.remove(&id);
                }
                Some(Slot::Waiting(waiting)) if waiting.is_new() => {
                    self.partitions.remove(&id);
                }
                _ => stopping.closed.push(ClosedPartition { id, report: None }),
            }
        }
    }

    pub(super) fn closed(&mut self, id: PartitionId, result: Result<Closed, LogError>) {
        if let Err(error) = &result {
            tracing::error!(topic = %id.topic_id, partition = id.index, %error, "not closed");
        }
        self.partitions.remove(&id);
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        stopping.in_flight -= 1;
        let closed = result.ok();
        let report = closed.as_ref().map(|closed| closed.report);
        stopping.closed.push(ClosedPartition { id, report });
        let log = closed.and_then(|closed| closed.remembered);
        if let (Some(log), true) = (log, id != METADATA_PARTITION) {
            stopping.remembered.push((id, log));
        }
        self.close_some();
        self.answer_closed();
    }

    fn answer_closed(&mut self) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        let finished = stopping.to_close.as_ref().is_some_and(VecDeque::is_empty);
        if !finished || stopping.in_flight > 0 {
            return;
        }
        if !std::mem::replace(&mut stopping.is_remembered, true) {
            let logs = std::mem::take(&mut stopping.remembered);
            self.remember_closed(logs);
        }
        let Some(stopping) = self
            .stopping
            .as_mut()
            .filter(|_| !self.upkeep.remembering.is_writing())
        else {
            return;
        };
        let first = !std::mem::replace(&mut stopping.done, true);
        let mut closed = if first {
            std::mem::take(&mut stopping.closed)
        } else {
            Vec::new()
        };
        for responder in std::mem::take(&mut stopping.waiting) {
            self.answer(
                responder,
                InternalAnswer::Closed(std::mem::take(&mut closed)),
            );
        }
    }
}
