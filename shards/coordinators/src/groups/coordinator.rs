//! The coordinator: partitions of `__consumer_offsets`, who waits for what in them, and when.
//!
//! Lives in the state of the designated shard. Requests, results of writes and reads, deadlines and
//! images go in; replies, appends and reads come out. Generic over the way back to a caller, so
//! that tests need no mesh. What a group may do is decided in its partition's state.

mod gather;
mod loading;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::record::CheckedBatch;
use chronik_protocol::{ErrorCode, Uuid};
use chronik_terms::Now;
use slab::Slab;

use super::caller::Token;
use super::consumer::regex::Programs;
use super::deadlines::{DeadlineWishes, Deadlines, GroupTimer, NO_PARTITION};
use super::load::Load;
use super::outcome::Outcome;
use super::partition::GroupPartition;
use super::placement::{OFFSETS_TOPIC, partition_for};
use super::request::{GroupReply, GroupRequest};
use super::settings::GroupSettings;
use super::step::{Step, TopicChanges};
use super::sweep::{Reason, Sweep};
use crate::limits::GROUP_CALLERS_MAX;
use crate::unfold::Unfolding;
use gather::Gather;
use writes::Write;

/// When a deadline whose records did not fit into the log comes again, ns.
const REFUSED_TIMER_RETRY_NS: u64 = 10_000_000_000;

/// What the shard has to do for the coordinator.
#[derive(Debug)]
pub enum CoordinatorEffect<R> {
    /// Answer who asked.
    Reply(R, GroupReply),
    /// Append to a partition of `__consumer_offsets`, as safe as the topic promises; the result
    /// goes to [`Coordinator::appended`] with `write`.
    Append {
        /// Its number within the topic.
        partition: i32,
        /// One batch of records.
        batch: CheckedBatch,
        /// Names the append; grows.
        write: u64,
    },
    /// Read a partition from `offset`; the batches go to [`Coordinator::read`] with the load's number.
    Read {
        /// Which load it is for.
        load: u64,
        /// Its number within the topic.
        partition: i32,
        /// The first offset wanted.
        offset: i64,
    },
    /// Make a step of this beside the shard; what it gives goes to [`Coordinator::unfolded`] with the
    /// number.
    Unfold(u64, Unfolding),
    /// Say again whether a partition can be used, by [`Coordinator::opened`] or
    /// [`Coordinator::unusable`].
    Reopen {
        /// Its number within the topic.
        partition: i32,
    },
    /// Let other work go on, then come back with [`Coordinator::rested`].
    Rest,
}

/// What goes in with everything.
pub struct Env<'a> {
    /// The clocks.
    pub now: Now,
    /// The catalogue of this moment.
    pub image: &'a Arc<Image>,
    /// Gives a random number, for ids of members.
    pub random: &'a mut dyn FnMut() -> u128,
}

/// Whether a partition's groups are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Its log is being read, or will be.
    Loading,
    Active,
    /// A write failed; those on their way are waited for.
    Draining,
    /// Its log is offline.
    Failed,
}

/// One partition of `__consumer_offsets`.
struct Entry {
    status: Status,
    state: GroupPartition,
    /// Appends that have not been confirmed, in order.
    writes: VecDeque<Write>,
    /// Appends whose result has not come, those of a dropped state included.
    outstanding: usize,
    /// Failed writes in a row.
    failures: u32,
    /// Writes before this one were for the partition of an earlier topic of the name.
    since: u64,
}

impl Entry {
    fn new(status: Status, since: u64) -> Self {
        Entry {
            status,
            state: GroupPartition::default(),
            writes: VecDeque::new(),
            outstanding: 0,
            failures: 0,
            since,
        }
    }
}

/// See the module's text.
pub struct Coordinator<R> {
    settings: GroupSettings,
    programs: Programs,
    /// The topic's id, and how many partitions it had when it was first seen: the number groups
    /// are spread by until the next start, as in Kafka.
    topic: Option<(Uuid, i32)>,
    entries: BTreeMap<i32, Entry>,
    deadlines: Deadlines,
    callers: Slab<R>,
    gathers: Slab<Gather>,
    next_write: u64,
    /// Partitions to be read, after the one that is.
    loads: VecDeque<(i32, i64, i64)>,
    load: Option<Load>,
    next_load: u64,
    /// Bytes or records for `load` are on their way.
    reading: bool,
    sweeps: VecDeque<Sweep>,
    resting: bool,
    stopped: bool,
    effects: Vec<CoordinatorEffect<R>>,
}

impl<R> Coordinator<R> {
    /// The broker's settings are these from now on; what waits keeps the deadline that it has.
    pub fn configure(&mut self, settings: GroupSettings) {
        self.settings = settings;
    }

    /// A coordinator that knows no partition yet.
    pub fn new(settings: GroupSettings) -> Self {
        Coordinator {
            settings,
            programs: Programs::default(),
            topic: None,
            entries: BTreeMap::new(),
            deadlines: Deadlines::default(),
            callers: Slab::new(),
            gathers: Slab::new(),
            next_write: 0,
            loads: VecDeque::new(),
            load: None,
            next_load: 0,
            reading: false,
            sweeps: VecDeque::new(),
            resting: false,
            stopped: false,
            effects: Vec::new(),
        }
    }

    /// Takes what came out, in order.
    pub fn take_effects(&mut self, out: &mut VecDeque<CoordinatorEffect<R>>) {
        out.extend(self.effects.drain(..));
    }

    /// When [`Coordinator::on_timer`] has something to do, on the monotonic clock, ns.
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.deadlines.next_ns()
    }

    /// A request; its reply comes out when what it changed is committed.
    pub fn request(&mut self, env: &mut Env<'_>, request: GroupRequest, responder: R) {
        if matches!(request, GroupRequest::Stop) {
            self.stop();
        }
        if self.stopped || self.callers.len() >= GROUP_CALLERS_MAX {
            let reply = request.refused(ErrorCode::CoordinatorNotAvailable);
            self.effects
                .push(CoordinatorEffect::Reply(responder, reply));
            return;
        }
        let token = Token(self.callers.insert(responder));
        let Some(group) = request.group() else {
            return self.request_over_groups(env, request, token);
        };
        let partition = self.partition_of(group);
        match self.usable(partition) {
            Ok(()) => {
                self.run(env, partition, |state, step| {
                    state.handle(step, request, token)
                });
            }
            Err(error) => self.answer(token, request.refused(error)),
        }
    }

    /// Where a group lives; no partition has number −1.
    pub fn partition_of(&self, group: &str) -> i32 {
        match self.topic {
            Some((_, count)) => partition_for(group, count),
            None => NO_PARTITION,
        }
    }

    fn usable(&self, partition: i32) -> Result<(), ErrorCode> {
        match self.entries.get(&partition).map(|entry| entry.status) {
            Some(Status::Active) => Ok(()),
            Some(Status::Loading | Status::Draining) => Err(ErrorCode::CoordinatorLoadInProgress),
            // The topic is there, so this partition opens in a moment.
            None if self.is_known(partition) => Err(ErrorCode::CoordinatorLoadInProgress),
            Some(Status::Failed) | None => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Whether the topic has a partition of this number, open or not.
    fn is_known(&self, partition: i32) -> bool {
        let count = self.topic.map_or(0, |(_, count)| count);
        (0..count).contains(&partition)
    }

    /// Whether a partition of the topic has not said yet how it is.
    fn awaits_partitions(&self) -> bool {
        let count = self.topic.map_or(0, |(_, count)| count);
        let known = self.entries.range(0..count).count();
        i32::try_from(known).is_ok_and(|known| known < count)
    }

    fn answer(&mut self, token: Token, reply: GroupReply) {
        match self.callers.try_remove(token.0) {
            Some(responder) => self
                .effects
                .push(CoordinatorEffect::Reply(responder, reply)),
            None => debug_assert!(false, "a caller was answered twice"),
        }
    }

    /// Changes the state of one partition, and writes what comes out; says whether that could be
    /// done. What does not fit into the log changes no state and no deadline.
    fn run(
        &mut self,
        env: &mut Env<'_>,
        partition: i32,
        change: impl FnOnce(&mut GroupPartition, &mut Step<'_>) -> Outcome,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&partition) else {
            return true;
        };
        let mut step = Step {
            now: env.now,
            settings: &self.settings,
            programs: &self.programs,
            image: env.image,
            random: &mut *env.random,
            timers: DeadlineWishes::at(env.now.mono_ns),
            batch_bytes_max: writes::batch_bytes_max(env.image),
            replies: Vec::new(),
        };
        let outcome = change(&mut entry.state, &mut step);
        let Step {
            timers, replies, ..
        } = step;
        for (token, reply) in replies {
            self.answer(token, reply);
        }
        self.write(env, partition, outcome, timers)
    }

    /// Does what is due.
    pub fn on_timer(&mut self, env: &mut Env<'_>) {
        while let Some((partition, timer)) = self.deadlines.pop(env.now.mono_ns) {
            match timer {
                GroupTimer::Reload => self.reopen(partition),
                GroupTimer::Expiry => {
                    for partition in self.active() {
                        self.begin_sweep(partition, Reason::Expired);
                    }
                    self.schedule_expiry(env);
                }
                timer => {
                    let again = timer.must_come_again().then(|| timer.clone());
                    let done = self.run(env, partition, |state, step| state.on_timer(step, timer));
                    if let Some(timer) = again.filter(|_| !done) {
                        let due_ns = env.now.mono_ns.saturating_add(REFUSED_TIMER_RETRY_NS);
                        self.deadlines.schedule(partition, timer, due_ns);
                    }
                }
            }
        }
        self.rest_if_there_is_work();
    }

    /// Asks for a partition that is not served, unless it is by now.
    fn reopen(&mut self, partition: i32) {
        let status = self.entries.get(&partition).map(|entry| entry.status);
        if matches!(status, Some(Status::Draining | Status::Failed)) {
            self.effects.push(CoordinatorEffect::Reopen { partition });
        }
    }

    fn schedule_expiry(&mut self, env: &Env<'_>) {
        let mut wishes = DeadlineWishes::at(env.now.mono_ns);
        wishes.schedule(GroupTimer::Expiry, self.settings.offsets_retention_check_ms);
        wishes.fulfil(NO_PARTITION, &mut self.deadlines);
    }

    fn active(&self) -> Vec<i32> {
        let active = self.entries.iter();
        active
            .filter(|(_, entry)| entry.status == Status::Active)
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// A new image.
    pub fn image_changed(&mut self, env: &mut Env<'_>, changes: &TopicChanges) {
        let topic = env.image.topic(OFFSETS_TOPIC);
        match (self.topic, topic) {
            (Some((id, _)), Some(topic)) if topic.id == id => {}
            (before, topic) => {
                if before.is_some() {
                    self.forget_partitions();
                }
                self.topic = topic.map(|topic| {
                    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    (topic.id, count)
                });
                if self.topic.is_some() {
                    self.schedule_expiry(env);
                }
            }
        }
        for partition in self.active() {
            self.run(env, partition, |state, step| {
                state.topics_changed(step, changes);
                Outcome::NOTHING
            });
            if !changes.gone.is_empty() {
                self.begin_sweep(partition, Reason::Deleted(changes.gone.clone()));
            }
        }
        self.rest_if_there_is_work();
    }

    /// The topic itself is gone.
    fn forget_partitions(&mut self) {
        let partitions: Vec<i32> = self.entries.keys().copied().collect();
        for partition in partitions {
            self.drop_state(partition, ErrorCode::NotCoordinator);
        }
        self.entries.clear();
        self.loads.clear();
        self.load = None;
        self.reading = false;
    }

    fn begin_sweep(&mut self, partition: i32, reason: Reason) {
        let sweep = Sweep {
            partition,
            reason,
            after: None,
        };
        let known = self.sweeps.iter().any(|other| {
            other.partition == sweep.partition
                && other.reason == sweep.reason
                && other.after.is_none()
        });
        if !known {
            self.sweeps.push_back(sweep);
        }
    }

    /// Goes on with work that is done in slices.
    pub fn rested(&mut self, env: &mut Env<'_>) {
        self.resting = false;
        if self.load.is_some() && !self.reading {
            self.load_slice(env);
        } else {
            self.sweep_slice(env);
        }
        self.rest_if_there_is_work();
    }

    fn rest_if_there_is_work(&mut self) {
        let loads = self.load.is_some() && !self.reading;
        if (loads || !self.sweeps.is_empty()) && !std::mem::replace(&mut self.resting, true) {
            self.effects.push(CoordinatorEffect::Rest);
        }
    }

    fn sweep_slice(&mut self, env: &mut Env<'_>) {
        let Some(mut sweep) = self.sweeps.pop_front() else {
            return;
        };
        if self.usable(sweep.partition).is_err() {
            return;
        }
        let mut next = None;
        self.run(env, sweep.partition, |state, step| {
            let swept = state.sweep(&sweep, step.image, step.settings, step.now.wall_ms);
            next = swept.next;
            Outcome {
                records: swept.records,
                replay: true,
                atomic: false,
                ..Outcome::NOTHING
            }
        });
        if next.is_some() {
            sweep.after = next;
            self.sweeps.push_front(sweep);
        }
    }

    /// Refuses everybody who is parked, now and from now on. Writes on their way are finished.
    pub fn stop(&mut self) {
        self.stopped = true;
        let refusals: Vec<_> = self
            .entries
            .values_mut()
            .flat_map(|entry| entry.state.refuse_waiting(ErrorCode::NotCoordinator))
            .collect();
        for (token, reply) in refusals {
            self.answer(token, reply);
        }
        self.sweeps.clear();
        for partition in self.entries.keys() {
            self.deadlines.cancel_all(*partition);
        }
        self.deadlines.cancel_all(NO_PARTITION);
    }
}

#[cfg(test)]
impl<R> Coordinator<R> {
    /// The state of every partition, for tests that look behind the replies.
    pub(crate) fn states(&self) -> impl Iterator<Item = (i32, &GroupPartition)> {
        self.entries
            .iter()
            .map(|(partition, entry)| (*partition, &entry.state))
    }
}
