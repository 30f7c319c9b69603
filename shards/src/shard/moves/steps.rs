//! The steps of a move under way, one after the other: what each result leads to.
//!
//! State only, beside `shard/moves.rs`, whose text says in which order they come and why.

use std::io;
use std::sync::Arc;

use chronik_io::World;

use super::super::timers::Timer;
use super::super::{Effect, Shard, Slot};
use super::{End, Move, Phase, Was};
use crate::backoff;
use crate::internal::{Durable, OffsetChange};
use crate::limits::{COPY_LOOKS_MAX, COPY_REST_BYTES_MAX, COPY_RESTS_BELOW_LOOKS};
use crate::log::LogError;
use crate::log::cleaner::CleanError;
use crate::log::copying::Copy;
use crate::moving::{Look, MoveDone, MoveStep, NotOpened};
use crate::partition::{CloseReport, Partition, PartitionOptions, RecoveryHint};
use crate::request::PartitionId;

impl<W: World, R> Shard<W, R> {
    /// Something of the partition was done: the move may have waited for it.
    pub(in crate::shard) fn move_goes_on(&mut self, id: PartitionId) {
        let phase = self.moves.current_of(id).map(|current| current.phase);
        let Some(Slot::Online(partition)) = self.partitions.get(&id) else {
            return;
        };
        match phase {
            Some(Phase::Preparing) if !partition.is_online() => self.end_move(),
            Some(Phase::Preparing) if !partition.is_cleaning() => self.look(),
            Some(Phase::Settling) if !partition.is_online() => self.discard_copy(),
            Some(Phase::Settling) if partition.is_at_rest() => self.close_moving(),
            _ => {}
        }
    }

    fn step(&mut self, phase: Phase, step: MoveStep<W>) {
        if let Some(current) = &mut self.moves.current {
            current.phase = phase;
            if let Some(key) = current.again.take() {
                self.timers.cancel(key);
            }
        }
        self.effects.push(Effect::Move(self.moves.serial, step));
    }

    /// Copies what is settled.
    fn look(&mut self) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        let partition = match self.partitions.get(&current.id) {
            Some(Slot::Online(partition)) => partition,
            _ => return,
        };
        let Some(copy) = current.copy.take() else {
            return;
        };
        let look = Look {
            copy: *copy,
            topic_id: current.id.topic_id,
            settled: partition.settled(),
            begins: current.looks == 0,
            rests: current.looks < COPY_RESTS_BELOW_LOOKS,
            cancel: current.cancel.clone(),
        };
        self.step(Phase::Looking, MoveStep::Look(Box::new(look)));
    }

    /// A step is done.
    pub(in crate::shard) fn move_done(&mut self, serial: u64, done: MoveDone<W>) {
        if let MoveDone::Rested = done {
            return self.release_some();
        }
        if serial != self.moves.serial || self.moves.current.is_none() {
            return;
        }
        match done {
            MoveDone::Looked(copy, result) => self.looked(copy, result),
            MoveDone::Finished(closed, copied) => self.finished(closed, copied),
            MoveDone::Committed(done) => self.committed(done),
            MoveDone::Opened(result) => self.opened_after_move(result),
            MoveDone::Discarded => self.end_move(),
            MoveDone::Rested => {}
        }
    }

    fn looked(&mut self, copy: Box<Copy>, result: Result<u64, CleanError>) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        current.copy = Some(copy);
        current.looks += 1;
        let (id, looks) = (current.id, current.looks);
        let is_online = matches!(
            self.partitions.get(&id), Some(Slot::Online(partition)) if partition.is_online()
        );
        match result {
            _ if current.end.is_some() || !is_online => self.discard_copy(),
            Err(error) => {
                self.move_failed(error);
                self.discard_copy();
            }
            Ok(bytes) if bytes > COPY_REST_BYTES_MAX && looks < COPY_LOOKS_MAX => self.look(),
            Ok(_) => {
                current.phase = Phase::Settling;
                self.moves.held.shut(id);
                if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
                    partition.write_now();
                }
                self.collect_jobs(id);
                self.move_goes_on(id);
            }
        }
    }

    /// Nothing is on its way any more.
    fn close_moving(&mut self) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        let (id, copy) = (current.id, current.copy.take());
        let slot = self.partitions.insert(id, Slot::Moving);
        let (Some(Slot::Online(partition)), Some(copy)) = (slot, copy) else {
            return;
        };
        let described = partition.describe();
        current.was = Some(Was {
            layout: partition.layout(),
            cleaned_offset: partition.cleaned_offset(),
            size_bytes: described.size_bytes,
            log_end: partition.log_end(),
        });
        self.time_chore(id, None);
        self.time_cleaning(id, None);
        self.step(Phase::Finishing, MoveStep::Finish { copy, partition });
    }

    fn finished(&mut self, closed: Result<CloseReport, LogError>, copied: io::Result<()>) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        let id = current.id;
        match closed {
            Ok(report) => current.report = Some(report),
            Err(error) => {
                self.offline(id, &error);
                return self.discard_copy();
            }
        }
        let (directory, end) = (current.target, current.end.is_some());
        if let Err(error) = copied {
            self.move_failed(CleanError::Io(error));
            return self.go_back();
        }
        if end {
            return self.go_back();
        }
        let partition = id;
        let step = MoveStep::Commit {
            partition,
            directory,
        };
        self.step(Phase::Committing, step);
    }

    fn go_back(&mut self) {
        let options = self.reopen_options();
        let Some(current) = &mut self.moves.current else {
            return;
        };
        current.goes_back = true;
        let Some(options) = options else {
            // The topic is deleted: the directory goes when the move is over.
            self.partitions.insert(current.id, Slot::Failed);
            return self.discard_copy();
        };
        let step = MoveStep::GoBack {
            from: current.from.clone(),
            future: current.future.clone(),
            options,
        };
        self.step(Phase::Opening, step);
    }

    fn committed(&mut self, done: bool) {
        let Some(current) = self.moves.current.as_ref().filter(|_| done) else {
            let to = self.moves.current.as_ref().map(|current| &current.live);
            tracing::error!(
                ?to,
                "the catalogue refused a move; the log stays where it was"
            );
            return self.go_back();
        };
        tracing::debug!(to = %current.live.display(), "the catalogue knows of a move");
        self.note_move();
    }

    /// Has the checkpoints of the new directory learn the log's numbers.
    fn note_move(&mut self) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        current.phase = Phase::Noting;
        let (id, report) = (current.id, current.report);
        let cleaned = current.was.map_or(0, |was| was.cleaned_offset);
        if let Some(report) = report {
            self.note(id, OffsetChange::RecoveryPoint(report.recovery_point));
            self.note(id, OffsetChange::LogStart(report.log_start));
        }
        if cleaned > 0 {
            self.note(id, OffsetChange::Cleaned(cleaned));
        }
        self.flush_notes();
    }

    /// The checkpoints were written: only when the new directory's know the log's start its old one goes.
    pub(in crate::shard) fn move_noted(&mut self, durable: &Durable) {
        let is_noting = |current: &&Move| current.phase == Phase::Noting;
        let Some(current) = self.moves.current.as_ref().filter(is_noting) else {
            return;
        };
        if !self.notes_are_out() || current.again.is_some() {
            return;
        }
        if !durable.is_in(Some(current.target)) {
            return match durable {
                Durable::NotYet(_) => self.step_later(&"its checkpoint is not written"),
                Durable::Nowhere | Durable::AllBut(_) => self.lost(),
            };
        }
        self.swap();
    }

    fn swap(&mut self) {
        let Some(current) = &self.moves.current else {
            return;
        };
        let future = (!current.is_swapped).then(|| current.future.clone());
        let (from, live) = (current.from.clone(), current.live.clone());
        let Some(options) = self.reopen_options() else {
            return self.lost();
        };
        let step = MoveStep::Swap {
            from,
            future,
            live,
            options,
        };
        self.step(Phase::Opening, step);
    }

    /// Something is too short for a step without which the log is not served: it is tried again, and
    /// requests are refused until then.
    fn step_later(&mut self, why: &dyn std::fmt::Display) {
        if self.stopping.is_some() {
            return self.lost();
        }
        let now_ns = self.now().mono_ns;
        let Some(current) = &mut self.moves.current else {
            return;
        };
        current.failures = current.failures.saturating_add(1);
        if current.failures == 1 {
            tracing::warn!(to = %current.live.display(), %why, "a move waits, and so does its log");
        }
        let due_ns = backoff::due_ns(now_ns, current.failures);
        current.again = Some(self.timers.add(due_ns, Timer::MoveStep));
        self.release_some();
    }

    /// Tries again what something was too short for.
    pub(in crate::shard) fn step_again(&mut self) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        current.again = None;
        match current.phase {
            Phase::Noting => self.note_move(),
            Phase::Opening if current.goes_back => self.go_back(),
            Phase::Opening => self.swap(),
            _ => {}
        }
    }

    /// The log is whole, but cannot be served: the next start goes on with the move.
    pub(super) fn lost(&mut self) {
        if let Some(current) = &self.moves.current {
            let (id, dir) = (current.id, current.live.clone());
            let why = "it could not be put in its place".to_owned();
            self.offline(id, &LogError::Failed { dir, why });
        }
        self.end_move();
    }

    /// How the log is opened again, as the catalogue is now.
    fn reopen_options(&self) -> Option<Box<PartitionOptions>> {
        let current = self.moves.current.as_ref()?;
        let (id, report, was) = (current.id, current.report?, current.was?);
        let topic = self.image.topic_by_id(id.topic_id)?;
        let info = topic.partitions.get(usize::try_from(id.index).ok()?)?;
        Some(Box::new(PartitionOptions {
            id,
            topic: topic.name.clone(),
            leader_epoch: info.leader_epoch,
            config: Arc::clone(&topic.config),
            recovery: RecoveryHint {
                clean: true,
                recovery_point: report.recovery_point,
                log_start_offset: report.log_start,
                durable: true,
            },
            remembered: None,
            left_behind: Vec::new(),
            check_times: self.check_times,
            cleaned_offset: was.cleaned_offset,
        }))
    }

    fn opened_after_move(&mut self, result: Result<Box<Partition<W>>, NotOpened>) {
        let Some(current) = &mut self.moves.current else {
            return;
        };
        let id = current.id;
        let layout = current.was.map_or(0, |was| was.layout);
        match result {
            Ok(mut partition) => {
                tracing::info!(log = %partition.dir().display(), "a log that moved is served again");
                partition.succeed(layout);
                self.partitions.insert(id, Slot::Online(partition));
                self.follow_missed(id);
            }
            Err(NotOpened { error, is_swapped })
                if error.is_not_now() && !matches!(current.end, Some(End::Deleted(_))) =>
            {
                current.is_swapped |= is_swapped;
                return self.step_later(&error);
            }
            Err(NotOpened { error, .. }) => {
                self.offline(id, &error);
                self.wake_all_readers(id);
            }
        }
        self.end_move();
    }

    /// What changed for a partition while it was away.
    fn follow_missed(&mut self, id: PartitionId) {
        let (image, now) = (Arc::clone(&self.image), self.now());
        let topic = image.topic_by_id(id.topic_id);
        let info = topic.zip(usize::try_from(id.index).ok());
        let info = info.and_then(|(topic, index)| Some((topic, topic.partitions.get(index)?)));
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
            return;
        };
        if let Some((topic, info)) = info {
            partition.set_config(Arc::clone(&topic.config));
            partition.set_leader_epoch(info.leader_epoch);
        }
        partition.plan_retention(now);
        self.collect_jobs(id);
        self.wake_readers(id);
    }

    /// The partition is served where it was; its copy goes.
    pub(super) fn discard_copy(&mut self) {
        let Some(current) = &self.moves.current else {
            return;
        };
        let future = current.future.clone();
        self.step(Phase::Discarding, MoveStep::Discard(future));
        self.release_some();
    }

    /// The move is over, however it ended.
    pub(super) fn end_move(&mut self) {
        let Some(current) = self.moves.current.take() else {
            return;
        };
        if let Some(key) = current.again {
            self.timers.cancel(key);
        }
        let (id, now) = (current.id, self.now());
        if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
            partition.resume_cleaning(now);
        }
        self.collect_jobs(id);
        self.group_partition_reopened(id);
        if let Some(End::Deleted(directory)) = current.end
            && !matches!(
                self.partitions.get(&id),
                None | Some(Slot::Draining(_) | Slot::Removing)
            )
        {
            self.remove(id, directory);
        }
        self.release_some();
        self.begin_move();
        self.close_when_idle();
    }

    /// Lets go of requests that were held, in order and some at a time.
    pub(super) fn release_some(&mut self) {
        let released = self.moves.held.take_some();
        for (request, responder) in released {
            self.serve(request, responder);
        }
        if !self.moves.held.is_empty() {
            self.effects
                .push(Effect::Move(self.moves.serial, MoveStep::Rest));
        } else if self.moves.current.is_none() {
            self.begin_move();
            self.close_when_idle();
        }
    }
}
