//! The group coordinator's place on the designated shard: what it wants done with the partitions
//! of `__consumer_offsets`, which are all here.
//!
//! State only. Owns the one timer for the coordinator's nearest deadline; groups are its own.

use std::collections::VecDeque;
use std::sync::Arc;

use chronik_coordinators::groups::{
    Coordinator, CoordinatorEffect, Env, GroupRequest, GroupSettings, OFFSETS_TOPIC, TopicChanges,
};
use chronik_coordinators::unfold::Unfolded;
use chronik_io::World;
use chronik_partition::{AppendOutcome, PartitionEvent, ReadDone, ReadPlan};
use chronik_protocol::ErrorCode;
use chronik_terms::{
    Acks, AppendPart, AppendResult, Isolation, PartitionId, ReadPart, ReadResult, Waiter,
};

use super::timers::{Timer, TimerKey};
use super::{Effect, ReadFor, Shard, Sleeper, Slot};
use crate::limits::GROUP_LOAD_READ_BYTES;
use crate::request::Reply;

/// The coordinator and the deadline that is set for it.
pub(super) struct Groups<R> {
    coordinator: Coordinator<R>,
    timer: Option<(u64, TimerKey)>,
}

impl<R> Groups<R> {
    pub(super) fn new(settings: GroupSettings) -> Self {
        Groups {
            coordinator: Coordinator::new(settings),
            timer: None,
        }
    }

    /// The broker's settings are these from now on.
    pub(super) fn configure(&mut self, settings: GroupSettings) {
        self.coordinator.configure(settings);
    }
}

impl<W: World, R> Shard<W, R> {
    /// A request for the coordinator.
    pub(super) fn group(&mut self, request: GroupRequest, responder: R) {
        if self.designated.groups.is_none() {
            let reply = request.refused(ErrorCode::NotCoordinator);
            return self.reply(responder, Reply::Group(Box::new(reply)));
        }
        self.with_groups(|groups, env| groups.request(env, request, responder));
    }

    /// Puts something into the coordinator and performs what comes out.
    pub(super) fn with_groups(&mut self, change: impl FnOnce(&mut Coordinator<R>, &mut Env<'_>)) {
        let Some(mut groups) = self.designated.groups.take() else {
            return;
        };
        let (now, image, world) = (self.now(), Arc::clone(&self.image), self.world.clone());
        let mut random = || world.random_u128();
        let mut env = Env {
            now,
            image: &image,
            random: &mut random,
        };
        change(&mut groups.coordinator, &mut env);
        let mut effects = VecDeque::new();
        loop {
            groups.coordinator.take_effects(&mut effects);
            let Some(effect) = effects.pop_front() else {
                break;
            };
            self.perform_group(&mut groups.coordinator, &mut env, effect);
        }
        self.arm_groups(&mut groups);
        self.designated.groups = Some(groups);
    }

    fn perform_group(
        &mut self,
        coordinator: &mut Coordinator<R>,
        env: &mut Env<'_>,
        effect: CoordinatorEffect<R>,
    ) {
        match effect {
            CoordinatorEffect::Reply(responder, reply) => {
                self.reply(responder, Reply::Group(Box::new(reply)));
            }
            CoordinatorEffect::Append {
                partition,
                batch,
                write,
            } => {
                let outcome = match self.offsets_partition(partition) {
                    Some(id) => {
                        let part = AppendPart {
                            partition: id,
                            batch,
                        };
                        self.append_or_hold(part, write)
                    }
                    None => refused_append(),
                };
                if let AppendOutcome::Done(result) = outcome {
                    coordinator.appended(env, partition, write, outcome_of(&result));
                }
            }
            CoordinatorEffect::Read {
                load,
                partition,
                offset,
            } => {
                if let Some(result) = self.read_for_groups(load, partition, offset) {
                    coordinator.read(env, load, batches_of(result));
                }
            }
            CoordinatorEffect::Unfold(load, unfolding) => {
                self.out.effects.push(Effect::GroupUnfold(load, unfolding));
            }
            CoordinatorEffect::Reopen { partition } => {
                self.show_partition(coordinator, env, partition);
            }
            CoordinatorEffect::Rest => self.out.effects.push(Effect::Rest(Sleeper::Groups)),
        }
    }

    /// The partitions that a request is for: its group's, or all where it is over groups.
    pub(super) fn places_of_group(
        &self,
        request: &GroupRequest,
    ) -> impl Iterator<Item = PartitionId> {
        let topic = self.image.topic(OFFSETS_TOPIC);
        let count = topic.map_or(0, |topic| topic.partitions.len());
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let indexes = match (&self.designated.groups, request, request.group()) {
            (None, _, _) | (_, GroupRequest::Stop, _) => 0..0,
            (Some(groups), _, Some(group)) => {
                let index = groups.coordinator.partition_of(group);
                index..index.saturating_add(1)
            }
            (Some(_), _, None) => 0..count,
        };
        let topic_id = topic.map(|topic| topic.id);
        indexes.filter_map(move |index| {
            let topic_id = topic_id?;
            Some(PartitionId { topic_id, index })
        })
    }

    /// A partition of the topic, as the current image knows it.
    fn offsets_partition(&self, index: i32) -> Option<PartitionId> {
        let topic_id = self.image.topic(OFFSETS_TOPIC)?.id;
        Some(PartitionId { topic_id, index })
    }

    /// A batch for a log that is closed for a moment waits until it is open again.
    fn append_or_hold(&mut self, part: AppendPart, write: u64) -> AppendOutcome {
        match self.holds(part.partition) {
            true => self.hold_for_groups(part, write),
            false => self.append_for_groups(part, write),
        }
    }

    /// A batch that was held goes to its log, or is refused if that is not there.
    pub(super) fn append_held(&mut self, part: AppendPart, write: u64) {
        let id = part.partition;
        if let AppendOutcome::Done(result) = self.append_for_groups(part, write) {
            self.group_appended(id, write, &result);
        }
    }

    fn append_for_groups(&mut self, part: AppendPart, write: u64) -> AppendOutcome {
        let (id, now) = (part.partition, self.now());
        if !matches!(self.partitions.get(&id), Some(Slot::Online(_))) {
            return refused_append();
        }
        let mut happened = Vec::new();
        let outcome =
            self.append_part(part, (Acks::All, now), Waiter::Groups(write), &mut happened);
        self.collect_jobs(id);
        self.make_ring_if_wanted();
        for (id, event) in happened {
            // Earlier appends are decided by jobs; this one has its outcome.
            debug_assert!(!matches!(event, PartitionEvent::Acked { .. }));
            self.on_event(id, event);
        }
        outcome
    }

    /// Reads for a load of the coordinator; `None` when the result comes later.
    fn read_for_groups(&mut self, load: u64, partition: i32, offset: i64) -> Option<ReadResult> {
        let refused = Some(ReadResult::failed(ErrorCode::NotLeaderOrFollower));
        let Some(id) = self.offsets_partition(partition) else {
            return refused;
        };
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
            return refused;
        };
        let part = ReadPart {
            partition: id,
            fetch_offset: offset,
            max_bytes: GROUP_LOAD_READ_BYTES,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        let isolation = Isolation::ReadUncommitted;
        let bytes = GROUP_LOAD_READ_BYTES;
        match partition.plan_read(&mut self.cache, &part, isolation, bytes, true) {
            ReadPlan::Ready(result) => Some(result),
            ReadPlan::Disk(job) => {
                self.meters.disk_reads.add(1);
                self.out
                    .effects
                    .push(Effect::Read(job, ReadFor::Groups(load)));
                None
            }
        }
    }

    /// What was read for a load of the coordinator.
    pub(super) fn group_read(&mut self, load: u64, done: ReadDone<W>) {
        let id = done.partition();
        if self.offsets_partition(id.index) != Some(id) {
            // Of an earlier topic of the name.
            return;
        }
        let plan = match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => partition.complete_read(&mut self.cache, done),
            _ => ReadPlan::Ready(ReadResult::failed(ErrorCode::NotLeaderOrFollower)),
        };
        let result = match plan {
            ReadPlan::Ready(result) => result,
            ReadPlan::Disk(job) => {
                self.meters.disk_reads.add(1);
                return self
                    .out
                    .effects
                    .push(Effect::Read(job, ReadFor::Groups(load)));
            }
        };
        self.with_groups(|groups, env| groups.read(env, load, batches_of(result)));
    }

    /// A step of unfolding what was read; none when there was no thread for it.
    pub(super) fn group_unfolded(&mut self, load: u64, unfolded: Option<Unfolded>) {
        self.with_groups(|groups, env| groups.unfolded(env, load, unfolded));
    }

    /// An append of the coordinator is decided.
    pub(super) fn group_appended(&mut self, id: PartitionId, write: u64, result: &AppendResult) {
        let outcome = outcome_of(result);
        self.with_groups(|groups, env| groups.appended(env, id.index, write, outcome));
    }

    /// Shows the coordinator a partition that was opened, if it is one of its own.
    pub(super) fn group_partition_opened(&mut self, id: PartitionId) {
        if self.offsets_partition(id.index) != Some(id) {
            return;
        }
        let usable = self.usable_range(id);
        self.with_groups(|groups, env| match usable {
            Some((start, end)) => groups.opened(env, id.index, start, end),
            None => groups.unusable(id.index),
        });
    }

    /// Shows the coordinator a partition that was away for a moment.
    pub(super) fn group_partition_reopened(&mut self, id: PartitionId) {
        if self.offsets_partition(id.index) != Some(id) {
            return;
        }
        let usable = self.usable_range(id);
        self.with_groups(|groups, env| match usable {
            Some(range) => groups.reopened(env, id.index, range),
            None => groups.unusable(id.index),
        });
    }

    fn show_partition(
        &mut self,
        coordinator: &mut Coordinator<R>,
        env: &mut Env<'_>,
        partition: i32,
    ) {
        let id = self.offsets_partition(partition);
        match id.and_then(|id| self.usable_range(id)) {
            Some((start, end)) => coordinator.opened(env, partition, start, end),
            None => coordinator.unusable(partition),
        }
    }

    /// First and next offset of a partition that can be read and appended to.
    fn usable_range(&self, id: PartitionId) -> Option<(i64, i64)> {
        match self.partitions.get(&id) {
            Some(Slot::Online(partition)) if partition.is_online() => {
                Some((partition.log_start(), partition.log_end()))
            }
            _ => None,
        }
    }

    /// The shard follows a new image.
    pub(super) fn groups_see_image(&mut self, changes: &TopicChanges) {
        self.with_groups(|groups, env| groups.image_changed(env, changes));
    }

    /// The coordinator's deadline has come.
    pub(super) fn groups_due(&mut self) {
        if let Some(groups) = &mut self.designated.groups {
            groups.timer = None;
        }
        self.with_groups(Coordinator::on_timer);
    }

    fn arm_groups(&mut self, groups: &mut Groups<R>) {
        let next_ns = groups.coordinator.next_timer_ns();
        if groups.timer.map(|(at_ns, _)| at_ns) == next_ns {
            return;
        }
        if let Some((_, key)) = groups.timer.take() {
            self.waiting.timers.cancel(key);
        }
        groups.timer = next_ns.map(|at_ns| (at_ns, self.waiting.timers.add(at_ns, Timer::Groups)));
    }
}

fn refused_append() -> AppendOutcome {
    AppendOutcome::Done(AppendResult::failed(ErrorCode::NotLeaderOrFollower, None))
}

fn outcome_of(result: &AppendResult) -> Result<(), ErrorCode> {
    match result.error {
        ErrorCode::None => Ok(()),
        error => Err(error),
    }
}

fn batches_of(result: ReadResult) -> Option<bytes::Bytes> {
    (result.error == ErrorCode::None).then(|| result.records.into_bytes())
}
