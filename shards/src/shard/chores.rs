//! Work on old segments that nobody waits for: retention, a few partitions at a time.
//!
//! State only. Owns when a partition is looked at and how many are at once, so that thousands that
//! are due together neither open thousands of files nor keep requests waiting. Never polls: a
//! partition says when it has something to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_io::World;
use chronik_terms::PartitionId;

use super::timers::{Timer, TimerKey};
use super::{Effect, Shard, Sleeper, Slot};
use crate::limits::{CHORES_MAX, CHORES_PER_SLICE};

/// See the module's text.
#[derive(Default)]
pub(super) struct Chores {
    timed: BTreeMap<PartitionId, TimerKey>,
    waiting: VecDeque<PartitionId>,
    /// What they asked for is on its way.
    under_way: BTreeSet<PartitionId>,
    resting: bool,
}

impl Chores {
    /// Whether a partition waits for its next look.
    pub(super) fn are_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// The partitions that do.
    pub(super) fn timed(&self) -> impl Iterator<Item = PartitionId> {
        self.timed.keys().copied()
    }
}

impl<W: World, R> Shard<W, R> {
    /// Sets or moves a partition's next look.
    pub(super) fn time_chore(&mut self, id: PartitionId, due_ns: Option<u64>) {
        if self.upkeep.retention.waiting.contains(&id) {
            // It is looked at as soon as there is a place, and tells then when to come again.
            return;
        }
        let known = self.upkeep.retention.timed.get(&id).copied();
        if known.map(TimerKey::deadline_ns) == due_ns {
            return;
        }
        if let Some(key) = known {
            self.waiting.timers.cancel(key);
            self.upkeep.retention.timed.remove(&id);
        }
        if let Some(due_ns) = due_ns {
            let key = self.waiting.timers.add(due_ns, Timer::Chore(id));
            self.upkeep.retention.timed.insert(id, key);
            self.watch_clock();
        }
    }

    /// A partition's time has come.
    pub(super) fn chore_due(&mut self, id: PartitionId) {
        self.upkeep.retention.timed.remove(&id);
        self.upkeep.retention.waiting.push_back(id);
        self.run_chores();
    }

    /// Looks at the partitions that are due, as far as may be at once.
    fn run_chores(&mut self) {
        if self.upkeep.retention.resting || self.stopping.is_some() {
            return;
        }
        let now = self.now();
        for _ in 0..CHORES_PER_SLICE {
            if self.upkeep.retention.under_way.len() >= CHORES_MAX {
                return;
            }
            let Some(id) = self.upkeep.retention.waiting.pop_front() else {
                return;
            };
            let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
                continue;
            };
            let mut events = std::mem::take(&mut self.out.events);
            partition.retain(now, &mut events);
            if partition.has_chores() {
                self.upkeep.retention.under_way.insert(id);
            }
            for event in events.drain(..) {
                self.on_event(id, event);
            }
            self.out.events = events;
            self.collect_jobs(id);
            self.flush_notes();
        }
        if !self.upkeep.retention.waiting.is_empty() {
            self.upkeep.retention.resting = true;
            self.out.effects.push(Effect::Rest(Sleeper::Retention));
        }
    }

    /// Other tasks had their turn.
    pub(super) fn rested_from_chores(&mut self) {
        self.upkeep.retention.resting = false;
        self.run_chores();
    }

    /// A job of a partition has come back, or the partition is gone: another may have its turn.
    pub(super) fn chores_done(&mut self, id: PartitionId) {
        let busy = match self.partitions.get(&id) {
            Some(Slot::Online(partition)) => partition.has_chores(),
            _ => false,
        };
        if !busy && self.upkeep.retention.under_way.remove(&id) {
            self.run_chores();
        }
    }
}
