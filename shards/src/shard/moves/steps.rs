//! The steps of a move under way, one after the other: what each result leads to.
//!
//! State only, beside `shard/moves.rs`, whose text says in which order they come and why.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chronik_io::World;
use chronik_log::LogError;
use chronik_log::cleaner::CleanError;
use chronik_log::copying::Copy;
use chronik_log::recovery::RecoveryHint;
use chronik_partition::CloseReport;
use chronik_terms::PartitionId;

use super::super::apply::{OpenTask, Opened};
use super::super::{Effect, Shard, Slot};
use super::{End, Move, Phase, Was};
use crate::checkpoint_files::AlsoIn;
use crate::internal::{Durable, OffsetChange};
use crate::limits::{
    COPY_LOOKS_PER_STEP, COPY_REST_BYTES_MAX, COPY_RESTS_BELOW_LOOKS, COPY_STEPS_MAX,
    MOVE_SETTLING_MS_MAX, MOVE_TRIES_REFUSED_MAX,
};
use crate::moving::{Look, MoveDone, MoveStep};
use crate::placing::Placing;

impl<W: World, R> Shard<W, R> {
    /// Something of the partition was done: the move may have waited for it.
    pub(in crate::shard) fn move_goes_on(&mut self, id: PartitionId) {
        let phase = self
            .following
            .moves
            .current_of(id)
            .map(|current| current.phase);
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
        self.move_is_at(phase);
        self.out
            .effects
            .push(Effect::Move(self.following.moves.serial, step));
    }

    fn move_is_at(&mut self, phase: Phase) {
        if let Some(current) = &mut self.following.moves.current {
            current.phase = phase;
            if let Some(key) = current.late.take() {
                self.waiting.timers.cancel(key);
            }
        }
    }

    /// Copies what is settled.
    fn look(&mut self) {
        let Some(current) = &mut self.following.moves.current else {
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
            begins_with: (current.looks == 0).then(|| partition.size_bytes()),
            rests: current.looks < COPY_RESTS_BELOW_LOOKS,
            cancel: current.cancel.clone(),
        };
        self.step(Phase::Looking, MoveStep::Look(Box::new(look)));
    }

    /// A step is done.
    pub(in crate::shard) fn move_done(&mut self, serial: u64, done: MoveDone) {
        if let MoveDone::Rested = done {
            return self.release_some();
        }
        if serial != self.following.moves.serial || self.following.moves.current.is_none() {
            return;
        }
        match done {
            MoveDone::Looked(copy, result) => self.looked(copy, result),
            MoveDone::HasTurn(takes) => self.has_turn(takes),
            MoveDone::Finished(closed, copied) => self.finished(closed, copied),
            MoveDone::Committed(done) => self.committed(done),
            MoveDone::Discarded => self.end_move(),
            MoveDone::Rested => {}
        }
    }

    fn looked(&mut self, copy: Box<Copy>, result: Result<u64, CleanError>) {
        let Some(current) = &mut self.following.moves.current else {
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
                self.move_failed(&error);
                self.discard_copy();
            }
            Ok(bytes) if bytes > rest_bytes_max(looks) => self.look(),
            Ok(_) if !current.is_noted => self.note_move(),
            Ok(_) if !current.has_turn => self.step(Phase::Queueing, MoveStep::AwaitTurn),
            Ok(_) => self.settle(id),
        }
    }

    /// The catalogue has made the changes that would have been before this one, or takes none.
    fn has_turn(&mut self, takes: bool) {
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        if current.phase != Phase::Queueing {
            return;
        }
        if takes {
            current.has_turn = true;
            return self.look();
        }
        self.move_later(&"the catalogue takes no change");
        self.discard_copy();
    }

    /// Holds the appends, and waits for the end of what is on its way.
    fn settle(&mut self, id: PartitionId) {
        self.move_is_at(Phase::Settling);
        self.move_waits(MOVE_SETTLING_MS_MAX);
        self.following.moves.held.shut(id);
        if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
            partition.write_now();
        }
        self.collect_jobs(id);
        self.move_goes_on(id);
    }

    /// Has the checkpoints of the new directory learn the log's numbers.
    fn note_move(&mut self) {
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        current.is_noted = true;
        let (id, target) = (current.id, current.target);
        self.move_is_at(Phase::Noting);
        self.note(id, OffsetChange::Coming(target));
        self.flush_notes();
    }

    /// The checkpoints were written, with those of the partitions that may come.
    pub(in crate::shard) fn move_noted(&mut self, coming: &AlsoIn, durable: &Durable) {
        let is_noted = |current: &&Move| {
            current.phase == Phase::Noting && coming.contains(&(current.id, current.target))
        };
        let Some(current) = self.following.moves.current.as_ref().filter(is_noted) else {
            return;
        };
        if durable.is_in(Some(current.target)) {
            return self.look();
        }
        self.move_not_noted(durable);
        self.discard_copy();
    }

    /// The checkpoints of the new directory have not learned these starts: a log that went there would have
    /// its deleted records again after a kill.
    pub(in crate::shard) fn stay_with_starts(&mut self, starts: &[PartitionId], durable: &Durable) {
        let Some(current) = &self.following.moves.current else {
            return;
        };
        let (id, target) = (current.id, Some(current.target));
        let goes = matches!(
            current.phase,
            Phase::Looking | Phase::Queueing | Phase::Settling | Phase::Finishing
        );
        let is_meant = goes && current.is_noted && starts.contains(&id);
        if !is_meant || durable.is_in(target) {
            return;
        }
        self.move_not_noted(durable);
        self.cancel_move(id);
    }

    /// Whether the next start finds a log start that is in the files of these directories: also in that
    /// which the catalogue may name by now.
    pub(in crate::shard) fn is_kept(&self, id: PartitionId, durable: &Durable) -> bool {
        let current = self.following.moves.current_of(id);
        let goes = current.filter(|current| current.phase == Phase::Committing);
        durable.is_in(self.directory_of(id))
            && goes.is_none_or(|current| durable.is_in(Some(current.target)))
    }

    /// Says why, and has it tried again if something was only too short.
    fn move_not_noted(&mut self, durable: &Durable) {
        let target = self
            .following
            .moves
            .current
            .as_ref()
            .map(|current| current.target);
        if durable.is_short(target) {
            self.move_later(&"the offset checkpoints are not written");
        } else {
            let error = io::Error::other("the offset checkpoints were not written");
            self.move_failed(&CleanError::Io(error));
        }
    }

    /// The checkpoints of the directory that it does not go to can forget it.
    fn note_staying(&mut self) {
        if let Some(current) = self
            .following
            .moves
            .current
            .as_ref()
            .filter(|current| current.is_noted)
        {
            let (id, target) = (current.id, current.target);
            self.note(id, OffsetChange::Staying(target));
            self.flush_notes();
        }
    }

    /// Nothing is on its way any more.
    fn close_moving(&mut self) {
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        let (id, copy) = (current.id, current.copy.take());
        let slot = self.partitions.insert(id, Slot::Moving);
        let (Some(Slot::Online(partition)), Some(copy)) = (slot, copy) else {
            return;
        };
        let described = partition.describe();
        current.was = Some(Was {
            size_bytes: described.size_bytes,
            log_end: partition.log_end(),
            bequest: Some(partition.bequeath()),
            options: Box::new(partition.reopen_options()),
        });
        self.time_chore(id, None);
        self.time_cleaning(id, None);
        self.step(Phase::Finishing, MoveStep::Finish { copy, partition });
    }

    fn finished(&mut self, closed: Result<CloseReport, LogError>, copied: io::Result<()>) {
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        let (id, directory) = (current.id, current.target);
        match closed {
            Ok(report) => {
                if let Some(was) = &mut current.was {
                    was.options.recovery = RecoveryHint {
                        clean: true,
                        recovery_point: report.recovery_point,
                        log_start_offset: report.log_start,
                        durable: true,
                    };
                }
            }
            Err(error) if error.is_not_now() => {
                self.move_later(&error);
                return self.go_back();
            }
            Err(error) => {
                self.offline(id, &error);
                self.wake_all_readers(id);
                return self.discard_copy();
            }
        }
        let is_ended = current.end.is_some();
        if let Err(error) = copied {
            self.move_failed(&CleanError::Io(error));
            return self.go_back();
        }
        if is_ended {
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
        self.note_staying();
        if let Some(current) = &mut self.following.moves.current {
            current.goes_back = true;
        }
        self.open_again();
    }

    fn committed(&mut self, done: bool) {
        let to = self
            .following
            .moves
            .current
            .as_ref()
            .map(|current| current.live.display());
        if done {
            tracing::debug!(
                to = to.map(tracing::field::display),
                "the catalogue knows of a move"
            );
            return self.open_again();
        }
        // For want of space, or for good: nobody can tell, and each try copies everything.
        let tries = self
            .following
            .moves
            .current
            .as_ref()
            .map(|current| current.failures);
        match tries {
            Some(tries) if tries < MOVE_TRIES_REFUSED_MAX => {
                self.move_later(&"the catalogue refused it");
            }
            _ => tracing::error!("the catalogue refused a move; the log stays where it was"),
        }
        self.go_back();
    }

    /// Puts the log in its place, and opens it.
    fn open_again(&mut self) {
        self.move_is_at(Phase::Opening);
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        let Some(was) = &mut current.was else {
            return;
        };
        let Some(bequest) = was.bequest.take() else {
            return;
        };
        let dirs = (&*current.from, &*current.future, &*current.live);
        let mut placing = Placing::new(dirs, Some(bequest));
        placing.goes_back = current.goes_back;
        self.out.effects.push(Effect::Open(Box::new(OpenTask {
            directory: placing.opens().to_owned(),
            options: (*was.options).clone(),
            boot: None,
            placing: Some(placing),
        })));
    }

    /// The log of a move is open again, or not.
    pub(in crate::shard) fn opened_after_move(&mut self, result: Opened<W>) {
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        let id = current.id;
        match result {
            Ok(partition) => {
                tracing::info!(log = %partition.dir().display(), "a log that moved is served again");
                self.partitions.insert(id, Slot::Online(partition));
                self.follow_missed(id);
            }
            Err((error, task)) => {
                if let Some(End::Deleted(directory)) = &mut current.end {
                    let left = task.placing.as_ref().map(Placing::left);
                    *directory = left.map(|(left, _)| left.to_owned());
                    let future = left.and_then(|(_, future)| future.map(PathBuf::from));
                    future
                        .into_iter()
                        .for_each(|future| self.discard_future(future));
                    self.partitions.insert(id, Slot::Failed);
                } else if error.is_not_now() {
                    // From here on it is a log like any other that something is too short for.
                    self.open_later(id, (error, task), 1);
                } else {
                    self.offline(id, &error);
                }
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
        let Some(current) = &self.following.moves.current else {
            return;
        };
        let future = current.future.clone();
        self.note_staying();
        self.step(Phase::Discarding, MoveStep::Discard(future));
        self.release_some();
    }

    /// Removes a copy that is no move's any more.
    pub(in crate::shard) fn discard_future(&mut self, future: PathBuf) {
        // No move has this number.
        self.out
            .effects
            .push(Effect::Move(0, MoveStep::Discard(future)));
    }

    /// The move is over, however it ended.
    pub(super) fn end_move(&mut self) {
        let Some(current) = self.following.moves.current.take() else {
            return;
        };
        if let Some(key) = current.late {
            self.waiting.timers.cancel(key);
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
        self.ask_all_again();
        self.release_some();
        self.begin_move();
        self.close_when_idle();
    }

    /// Lets go of what was held, in order and some at a time.
    pub(super) fn release_some(&mut self) {
        if self.release_held() {
            self.out
                .effects
                .push(Effect::Move(self.following.moves.serial, MoveStep::Rest));
        } else if self.following.moves.current.is_none() {
            self.begin_move();
            self.close_when_idle();
        }
    }
}

/// How many new bytes may have been found by the last of so many looks at a log that is to be closed.
fn rest_bytes_max(looks: u32) -> u64 {
    COPY_REST_BYTES_MAX << (looks / COPY_LOOKS_PER_STEP).min(COPY_STEPS_MAX)
}
