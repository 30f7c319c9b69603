//! Moves of logs between the log directories of this broker (KIP-113), one at a time on each shard.
//!
//! State only. While the log is served its copy grows beside it. What is missing at last is copied with
//! the log closed: requests for it are held meanwhile, in order, not refused. The offset checkpoints of the
//! new directory have learned the log's numbers by then, and the catalogue has made the changes that were asked
//! for before, so that it is only to say where the log lies; after that the copy takes the log's place. Where something is too short for a step the
//! copy is given up, the log is served on where it was, others have their turn, and the move is tried
//! again by a deadline. Never in a hurry: a move gives way to clients until they outrun it.
//!
//! ```text
//!  Preparing ─► Looking (again and again) ─► Noting ─► Looking ─► Queueing ─► Looking ─► Settling
//!      └──────────────┴────── Discarding ◄─────┴──────────┴──────────┴───────────┴───────────┤
//!                                                 Opening ◄─ Committing ◄─ Finishing ◄───────┘
//!                                     Opening, where it was ◄─────┴────────────┘
//! ```

mod steps;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::rc::Rc;

use chronik_catalog::versions::MetadataVersion;
use chronik_io::{World, is_not_now};
use chronik_log::cleaner::{Cancel, CleanError};
use chronik_log::copying::{Copy, Progress};
use chronik_log::directory::{PartitionDir, PartitionDirState};
use chronik_partition::backoff;
use chronik_partition::{Bequest, PartitionOptions};
use chronik_protocol::{ErrorCode, Uuid};
use chronik_terms::PartitionId;

use super::timers::{Timer, TimerKey, Timers};
use super::{Shard, Slot};
use crate::limits::{MOVE_PREPARING_MS_MAX, MOVES_MAX};
use crate::request::Reply;

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the end of a compaction.
    Preparing,
    /// A look is on its way.
    Looking,
    /// The checkpoints of the new directory learn the log's numbers.
    Noting,
    /// The catalogue makes the changes that were asked for before.
    Queueing,
    /// Appends are held; waits for the end of what is on its way.
    Settling,
    /// From here on the partition is closed.
    Finishing,
    Committing,
    Opening,
    /// It is served again; the copy goes.
    Discarding,
}

/// Why a move does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Somebody wants it elsewhere, or the broker stops.
    Cancelled,
    /// Its topic was deleted; its directory, if it can be reached.
    Deleted(Option<PathBuf>),
}

struct Move {
    id: PartitionId,
    target: Uuid,
    phase: Phase,
    end: Option<End>,
    from: PathBuf,
    future: PathBuf,
    live: PathBuf,
    /// Not there while a step has it.
    copy: Option<Box<Copy>>,
    progress: Rc<Cell<Progress>>,
    cancel: Cancel,
    looks: u32,
    /// The checkpoints of the new directory have been told to have the log's numbers.
    is_noted: bool,
    /// The catalogue has made the changes that would have been before this one.
    has_turn: bool,
    /// What the partition was before it was closed.
    was: Option<Was>,
    /// It opens where it was.
    goes_back: bool,
    /// When it has waited for its partition long enough.
    late: Option<TimerKey>,
    /// Tries in a row that something was too short for.
    failures: u32,
}

/// What is known of a partition that is closed.
struct Was {
    size_bytes: i64,
    log_end: i64,
    /// For whoever is opened in its place.
    bequest: Option<Bequest>,
    /// How it is opened again.
    options: Box<PartitionOptions>,
}

/// A move that is to be begun.
#[derive(Clone, Copy)]
struct Wish {
    target: Uuid,
    /// Tries in a row that something was too short for.
    failures: u32,
}

/// See the module's text.
pub(super) struct Moves<R> {
    /// Which are still to be begun, and where to.
    wanted: BTreeMap<PartitionId, Wish>,
    /// Something was too short for them.
    retried: BTreeMap<PartitionId, (Wish, TimerKey)>,
    current: Option<Move>,
    /// Of the current move; results of others are not for it.
    serial: u64,
    pub(super) held: super::holding::Held<R>,
}

impl<R> Default for Moves<R> {
    fn default() -> Self {
        Moves {
            wanted: BTreeMap::new(),
            retried: BTreeMap::new(),
            current: None,
            serial: 0,
            held: Default::default(),
        }
    }
}

impl<R> Moves<R> {
    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none() && self.held.is_empty()
    }

    /// Whether this partition's log is being copied, and is not to be compacted.
    fn current_of(&self, id: PartitionId) -> Option<&Move> {
        self.current.as_ref().filter(|current| current.id == id)
    }

    /// The partition that is closed for a moment.
    pub(super) fn away(&self) -> Option<PartitionId> {
        let current = self.current.as_ref()?;
        let away = matches!(
            current.phase,
            Phase::Finishing | Phase::Committing | Phase::Opening
        );
        away.then_some(current.id)
    }

    /// A copy of this partition that is made, or will be: where, its bytes, and where it ends.
    pub(super) fn future_of(&self, id: PartitionId) -> Option<(Uuid, Progress)> {
        if let Some(current) = self.current_of(id) {
            let is_there = current.phase == Phase::Opening && !current.goes_back;
            return (!is_there).then(|| (current.target, current.progress.get()));
        }
        let retried = || self.retried.get(&id).map(|(wish, _)| wish);
        let wish = self.wanted.get(&id).or_else(retried)?;
        Some((wish.target, Progress::default()))
    }

    /// Nobody wants this partition elsewhere any more.
    fn forget(&mut self, id: PartitionId, timers: &mut Timers) {
        self.wanted.remove(&id);
        if let Some((_, key)) = self.retried.remove(&id) {
            timers.cancel(key);
        }
    }

    /// Bytes and end of a partition that is away.
    pub(super) fn size_of(&self, id: PartitionId) -> Option<(i64, i64)> {
        let was = self.current_of(id)?.was.as_ref()?;
        Some((was.size_bytes, was.log_end))
    }
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn move_logs(&mut self, wishes: &[(PartitionId, Uuid)], responder: R) {
        let judged = wishes.iter().map(|(id, target)| {
            let agreed = self.want_move(*id, *target);
            agreed.err().unwrap_or(ErrorCode::None)
        });
        let judged = judged.collect();
        self.reply(responder, Reply::MoveLogs(judged));
        self.begin_move();
    }

    fn want_move(&mut self, id: PartitionId, target: Uuid) -> Result<(), ErrorCode> {
        if self.stopping.is_some() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if self.dirs.path_of(target).is_none() {
            return Err(ErrorCode::LogDirNotFound);
        }
        let is_coming = self.following.moves.away() == Some(id) || self.is_new(id);
        if !is_coming && !self.online(id)?.is_online() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let current = self.following.moves.current_of(id);
        let is_under_way = current.is_some_and(|current| current.end.is_none());
        if is_under_way && current.is_some_and(|current| current.target == target) {
            self.following.moves.wanted.remove(&id);
            return Ok(());
        }
        if self.directory_of(id) == Some(target)
            && self.following.moves.away().is_none_or(|away| away != id)
        {
            self.following.moves.forget(id, &mut self.waiting.timers);
            self.cancel_move(id);
            return Ok(());
        }
        if !MetadataVersion::of(&self.image.features).has_directories() {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let (wanted, retried) = (&self.following.moves.wanted, &self.following.moves.retried);
        let is_known = wanted.contains_key(&id) || retried.contains_key(&id);
        if wanted.len() + retried.len() >= MOVES_MAX && !is_known {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        // Whoever asks again for what is tried again has it tried now.
        let failures = match retried.get(&id) {
            Some((wish, _)) if wish.target == target => wish.failures,
            _ => 0,
        };
        self.following.moves.forget(id, &mut self.waiting.timers);
        self.following
            .moves
            .wanted
            .insert(id, Wish { target, failures });
        self.cancel_move(id);
        Ok(())
    }

    /// Ends the move of a partition, unless the catalogue may know of it already.
    fn cancel_move(&mut self, id: PartitionId) {
        let Some(current) = self
            .following
            .moves
            .current
            .as_mut()
            .filter(|found| found.id == id)
        else {
            return;
        };
        current.end.get_or_insert(End::Cancelled);
        current.cancel.cancel();
        match current.phase {
            Phase::Preparing => self.end_move(),
            Phase::Noting | Phase::Queueing | Phase::Settling => self.discard_copy(),
            _ => {}
        }
    }

    /// Ends every move; the broker stops.
    pub(super) fn stop_moves(&mut self) {
        self.following.moves.wanted.clear();
        for (_, key) in std::mem::take(&mut self.following.moves.retried).into_values() {
            self.waiting.timers.cancel(key);
        }
        if let Some(id) = self
            .following
            .moves
            .current
            .as_ref()
            .map(|current| current.id)
        {
            self.cancel_move(id);
        }
    }

    /// Begins with the next move, if none is under way.
    pub(super) fn begin_move(&mut self) {
        while self.following.moves.is_idle() && self.stopping.is_none() {
            let Some((id, wish)) = self.following.moves.wanted.pop_first() else {
                return;
            };
            let Wish { target, failures } = wish;
            let is_there = self.directory_of(id) == Some(target);
            let unique = self.world.random_u128();
            let parent = self.dirs.path_of(target).map(PathBuf::from);
            let partition = match self.partitions.get_mut(&id) {
                Some(Slot::Online(partition)) => partition,
                Some(
                    Slot::Unopened { .. }
                    | Slot::Waiting(_)
                    | Slot::Reopening(_)
                    | Slot::Correcting(_),
                ) => {
                    self.open_sooner(id);
                    self.wish_later(id, wish);
                    continue;
                }
                _ => continue,
            };
            let Some(parent) = parent.filter(|_| !is_there && partition.is_online()) else {
                continue;
            };
            let state = PartitionDirState::Future;
            let future = PartitionDir::marked_name(partition.topic(), id.index, unique, state);
            let future = parent.join(future);
            let live = parent.join(PartitionDir::name(partition.topic(), id.index));
            let copy = Copy::new(partition.dir(), &future);
            if failures == 0 {
                tracing::info!(
                    topic = &**partition.topic(), partition = id.index, to = %parent.display(),
                    "a log moves to another directory"
                );
            }
            partition.stop_cleaning();
            self.following.moves.serial += 1;
            self.following.moves.current = Some(Move {
                id,
                target,
                phase: Phase::Preparing,
                end: None,
                from: partition.dir().to_owned(),
                future,
                live,
                progress: copy.progress(),
                copy: Some(Box::new(copy)),
                cancel: Cancel::default(),
                looks: 0,
                is_noted: false,
                has_turn: false,
                was: None,
                goes_back: false,
                late: None,
                failures,
            });
            self.move_waits(MOVE_PREPARING_MS_MAX);
            self.move_goes_on(id);
        }
    }

    /// The move under way waits for its partition, so long at most.
    fn move_waits(&mut self, wait_ms: u64) {
        let due_ns = self.now().mono_ns.saturating_add(wait_ms * 1_000_000);
        let key = self.waiting.timers.add(due_ns, Timer::MoveLate);
        if let Some(current) = &mut self.following.moves.current
            && let Some(before) = current.late.replace(key)
        {
            self.waiting.timers.cancel(before);
        }
    }

    /// It has waited long enough: its partition goes on, and others have their turn.
    pub(super) fn move_is_late(&mut self) {
        let Some(current) = &mut self.following.moves.current else {
            return;
        };
        current.late = None;
        match current.phase {
            Phase::Preparing => {
                self.move_later(&"its log is being compacted");
                self.end_move();
            }
            Phase::Settling => {
                self.move_later(&"what is on its way for its log does not end");
                self.discard_copy();
            }
            _ => {}
        }
    }

    /// Says why it does not go on; it is tried again while something is too short.
    fn move_failed(&mut self, error: &CleanError) {
        let Some(current) = &self.following.moves.current else {
            return;
        };
        match error {
            CleanError::Io(error) if is_not_now(error) => self.move_later(error),
            error => {
                let to = current.live.display();
                tracing::error!(%to, ?error, "a log was not moved and stays where it was");
            }
        }
    }

    /// The move under way ends, and is tried again.
    fn move_later(&mut self, why: &dyn Display) {
        let Some(current) = &self.following.moves.current else {
            return;
        };
        let (id, target) = (current.id, current.target);
        let is_wanted = current.end.is_none() && self.stopping.is_none();
        if !is_wanted || self.following.moves.wanted.contains_key(&id) {
            return;
        }
        if current.failures == 0 {
            let to = current.live.display();
            tracing::warn!(%to, %why, "a log is not moved yet");
        }
        let failures = current.failures;
        self.wish_later(id, Wish { target, failures });
    }

    fn wish_later(&mut self, id: PartitionId, wish: Wish) {
        let failures = wish.failures.saturating_add(1);
        let due_ns = backoff::due_ns(self.now().mono_ns, failures);
        let key = self.waiting.timers.add(due_ns, Timer::MoveAgain(id));
        let wish = Wish { failures, ..wish };
        self.following.moves.retried.insert(id, (wish, key));
    }

    /// What was too short may not be so any more.
    pub(super) fn move_again(&mut self, id: PartitionId) {
        if let Some((wish, _)) = self.following.moves.retried.remove(&id) {
            self.following.moves.wanted.entry(id).or_insert(wish);
        }
        self.begin_move();
    }

    /// The topic of a partition is deleted. Gives its directory back if that can go at once; else it
    /// goes when the step is done that works on it.
    pub(super) fn remove_after_move(
        &mut self,
        id: PartitionId,
        directory: Option<PathBuf>,
    ) -> Option<Option<PathBuf>> {
        self.following.moves.forget(id, &mut self.waiting.timers);
        let Some(current) = self
            .following
            .moves
            .current
            .as_mut()
            .filter(|found| found.id == id)
        else {
            return Some(directory);
        };
        match current.phase {
            Phase::Finishing | Phase::Opening => {
                current.end = Some(End::Deleted(directory));
                None
            }
            // No step is at the directories, and the catalogue would wait for itself.
            Phase::Committing => {
                let from = current.from.clone();
                self.following.moves.serial += 1;
                self.partitions.insert(id, Slot::Failed);
                self.discard_copy();
                Some(Some(from))
            }
            _ => {
                self.cancel_move(id);
                Some(directory)
            }
        }
    }
}
