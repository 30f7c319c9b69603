//! Logs whose start the checkpoint files name wrongly: they are served once those are corrected.
//!
//! State only. Such a log ends before the start that the files name, and was opened with the records it
//! has. Were it served before the files say otherwise, and killed when it had grown beyond that number,
//! the next start would hide everything below. What is too short for the correction passes: it is tried
//! again by a deadline, ever more rarely, while everything else is served; a directory that fails takes
//! the log with it.

use std::collections::BTreeSet;

use chronik_io::World;
use chronik_log::LogError;
use chronik_partition::Partition;
use chronik_partition::backoff;
use chronik_terms::PartitionId;

use super::timers::Timer;
use super::{Shard, Slot};
use crate::internal::{Durable, OffsetChange};

/// See the module's text.
#[derive(Default)]
pub(super) struct Corrections {
    /// Nobody has answered yet: the image in which they are opened is not applied before that.
    asked: BTreeSet<PartitionId>,
    /// Something was too short.
    later: BTreeSet<PartitionId>,
    /// Tries in a row after which something was left for later.
    failures: u32,
    is_timed: bool,
}

impl Corrections {
    /// Whether an answer is on its way.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }
}

impl<W: World, R> Shard<W, R> {
    /// A log is there, and the files have to be corrected before it is served.
    pub(super) fn correct(&mut self, id: PartitionId, partition: Box<Partition<W>>) {
        self.note(id, OffsetChange::LogStart(partition.log_start()));
        self.partitions.insert(id, Slot::Correcting(partition));
        self.upkeep.corrections.asked.insert(id);
    }

    /// The files were written, where they could be, with the starts of these logs.
    pub(super) fn corrected(&mut self, starts: &[PartitionId], durable: &Durable) {
        let mut any = false;
        for id in starts {
            let was_asked = self.upkeep.corrections.asked.remove(id);
            let was_late = self.upkeep.corrections.later.remove(id);
            any |= was_asked;
            if was_asked || was_late {
                self.correction_noted(*id, durable, was_late);
            }
        }
        self.time_corrections();
        if any && !self.upkeep.corrections.are_asked() {
            self.applied_so_far();
        }
    }

    fn correction_noted(&mut self, id: PartitionId, durable: &Durable, was_late: bool) {
        let home = self.directory_of(id);
        let partition = match self.partitions.get(&id) {
            Some(Slot::Correcting(partition)) => partition,
            // Its topic is gone, or a stop has closed it.
            _ => return,
        };
        let name = format!("{}-{}", partition.topic(), id.index);
        if durable.is_in(home) {
            if was_late {
                tracing::info!(partition = name, "log served after all");
            }
            if let Some(Slot::Correcting(partition)) = self.partitions.remove(&id) {
                self.serve_log(id, partition);
            }
            self.collect_jobs(id);
            self.group_partition_opened(id);
        } else if durable.is_short(home) {
            if !was_late {
                tracing::warn!(
                    partition = name,
                    "log not served yet: its log start's checkpoint cannot be corrected now"
                );
            }
            self.upkeep.corrections.later.insert(id);
        } else {
            let dir = self.dirs.first().to_owned();
            let why = "its log start's checkpoint could not be corrected".to_owned();
            self.offline(id, &LogError::Failed { dir, why });
            self.group_partition_opened(id);
        }
    }

    fn time_corrections(&mut self) {
        let now_ns = self.now().mono_ns;
        let corrections = &mut self.upkeep.corrections;
        if corrections.later.is_empty() {
            corrections.failures = 0;
        } else if !std::mem::replace(&mut corrections.is_timed, true) {
            corrections.failures = corrections.failures.saturating_add(1);
            let due_ns = backoff::due_ns(now_ns, corrections.failures);
            self.waiting.timers.add(due_ns, Timer::Corrections);
        }
    }

    /// The deadline has come.
    pub(super) fn correct_again(&mut self) {
        self.upkeep.corrections.is_timed = false;
        if self.stopping.is_some() {
            return;
        }
        for id in self.upkeep.corrections.later.clone() {
            match self.partitions.get(&id) {
                Some(Slot::Correcting(partition)) => {
                    let start = partition.log_start();
                    self.note(id, OffsetChange::LogStart(start));
                }
                _ => {
                    self.upkeep.corrections.later.remove(&id);
                }
            }
        }
        self.flush_notes();
    }
}
