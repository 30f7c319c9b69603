//! Partitions of `__consumer_offsets` as they open, and the reading of their groups, one partition
//! after the other.

use bytes::Bytes;
use chronik_protocol::ErrorCode;

use super::super::deadlines::DeadlineWishes;
use super::super::load::{Load, Progress};
use super::super::outcome::Outcome;
use super::super::partition::GroupPartition;
use super::super::sweep::Reason;
use super::{Coordinator, CoordinatorEffect, Entry, Env, Status};
use crate::unfold::Unfolded;

impl<R> Coordinator<R> {
    /// A partition can be read and appended to.
    pub fn opened(&mut self, env: &mut Env<'_>, partition: i32, start: i64, end: i64) {
        let since = self.next_write;
        let entries = self.entries.entry(partition);
        let entry = entries.or_insert_with(|| Entry::new(Status::Loading, since));
        if entry.status == Status::Active {
            // Whoever is parked in the state that goes has to be told.
            self.drop_state(partition, ErrorCode::NotCoordinator);
        }
        if let Some(entry) = self.entries.get_mut(&partition) {
            entry.status = Status::Loading;
        }
        // What was being read, or was to be, is only what was there before.
        self.loads.retain(|(other, ..)| *other != partition);
        if self
            .load
            .as_ref()
            .is_some_and(|load| load.partition == partition)
        {
            self.load = None;
            self.reading = false;
        }
        if start >= end {
            self.activate(env, partition, GroupPartition::default());
        } else {
            self.loads.push_back((partition, start, end));
        }
        self.load_next();
        self.rest_if_there_is_work();
    }

    /// A partition that was away for a moment is there again, as it was: what is loaded stays loaded, and
    /// what is still to be appended comes first.
    pub fn reopened(&mut self, env: &mut Env<'_>, partition: i32, (start, end): (i64, i64)) {
        let stays = |entry: &Entry| match entry.status {
            Status::Active => true,
            Status::Draining => entry.outstanding > 0,
            _ => false,
        };
        if !self.entries.get(&partition).is_some_and(stays) {
            self.opened(env, partition, start, end);
        }
    }

    /// A partition cannot be used until it is opened again.
    pub fn unusable(&mut self, partition: i32) {
        let since = self.next_write;
        let entries = self.entries.entry(partition);
        let entry = entries.or_insert_with(|| Entry::new(Status::Failed, since));
        entry.status = Status::Failed;
    }

    fn load_next(&mut self) {
        while self.load.is_none() {
            let Some((partition, start, end)) = self.loads.pop_front() else {
                return;
            };
            let waits = self.entries.get(&partition);
            if waits.is_some_and(|entry| entry.status == Status::Loading) {
                self.next_load += 1;
                let load = Load::new(partition, self.next_load, (start, end));
                self.load = Some(load);
                self.read_more();
            }
        }
    }

    fn read_more(&mut self) {
        if let Some(load) = &self.load {
            self.reading = true;
            self.effects.push(CoordinatorEffect::Read {
                load: load.number,
                partition: load.partition,
                offset: load.next_offset,
            });
        }
    }

    /// Batches of load `number`, or `None` when they could not be read. Those of an earlier one come to nothing.
    pub fn read(&mut self, env: &Env<'_>, number: u64, batches: Option<Bytes>) {
        let Some(load) = self.load.as_mut().filter(|load| load.number == number) else {
            return;
        };
        self.reading = false;
        match batches {
            Some(batches) => load.feed(batches),
            None => {
                let partition = load.partition;
                self.load_later(env, partition);
            }
        }
        self.rest_if_there_is_work();
    }

    /// A step of load `number` beside the shard, or `None` when there was no thread for it.
    pub fn unfolded(&mut self, env: &Env<'_>, number: u64, unfolded: Option<Unfolded>) {
        let Some(load) = self.load.as_mut().filter(|load| load.number == number) else {
            return;
        };
        self.reading = false;
        match unfolded.map(|unfolded| load.unfolded(unfolded)) {
            Some(Ok(())) => {}
            Some(Err(why)) => self.not_loaded(&why),
            None => {
                let partition = load.partition;
                self.load_later(env, partition);
            }
        }
        self.rest_if_there_is_work();
    }

    fn load_later(&mut self, env: &Env<'_>, partition: i32) {
        self.not_loaded("its log cannot be read");
        // The disk or the process may be short of something only now.
        if let Some(entry) = self.entries.get_mut(&partition) {
            entry.failures = entry.failures.saturating_add(1).max(2);
        }
        self.reopen_later(env, partition);
    }

    fn not_loaded(&mut self, why: &str) {
        if let Some(load) = self.load.take() {
            let partition = load.partition;
            tracing::error!(partition, why, "the groups of a partition are not served");
            self.unusable(partition);
        }
        self.load_next();
    }

    pub(super) fn load_slice(&mut self, env: &mut Env<'_>) {
        let Some(load) = &mut self.load else {
            return;
        };
        let (partition, load_number) = (load.partition, load.number);
        match load.slice(env.now.wall_ms) {
            Progress::Unfold(unfolding) => {
                self.reading = true;
                let effect = CoordinatorEffect::Unfold(load_number, unfolding);
                self.effects.push(effect);
            }
            Progress::More => {}
            Progress::Read => self.read_more(),
            Progress::Failed(why) => self.not_loaded(&why),
            Progress::Done(state) => {
                self.load = None;
                self.activate(env, partition, state);
                self.load_next();
            }
        }
    }

    /// The groups of a partition are as its log says: from now on they are served.
    fn activate(&mut self, env: &mut Env<'_>, partition: i32, state: GroupPartition) {
        let Some(entry) = self.entries.get_mut(&partition) else {
            return;
        };
        let any = !state.groups.is_empty();
        if any {
            tracing::info!(partition, groups = state.groups.len(), "groups loaded");
        }
        entry.state = state;
        entry.status = Status::Active;
        let mut outcomes = Vec::new();
        self.run(env, partition, |state, step| {
            outcomes = state.loaded(step);
            Outcome::NOTHING
        });
        for outcome in outcomes {
            let timers = DeadlineWishes::at(env.now.mono_ns);
            self.write(env, partition, outcome, timers);
        }
        if any {
            self.begin_sweep(partition, Reason::Orphaned);
        }
    }
}
