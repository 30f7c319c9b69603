//! Moves of logs between the log directories of this broker (KIP-113), one at a time on each shard.
//!
//! State only. While the log is served its copy grows beside it. What is missing at last is copied with
//! the log closed: requests for it are held meanwhile, in order, not refused. Then the catalogue says
//! where the log lies, the offset checkpoints of that directory learn its numbers, and only after that
//! the copy takes the log's place. A log is served again where it was only when no start can take the
//! copy for it any more. Never in a hurry: a move gives way to clients until they outrun it.
//!
//! ```text
//!  Preparing ─► Looking (again and again) ─► Settling ─► Finishing ─► Committing ─► Noting ─► Opening
//!      └──────────────┴── Discarding ◄──────────┘           └── Opening, where it was ◄┘
//! ```

mod steps;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::{ErrorCode, Uuid};

use super::timers::{Timer, TimerKey};
use super::{Shard, Slot};
use crate::catalog::MetadataVersion;
use crate::limits::{MOVE_RETRY_MS, MOVES_MAX};
use crate::log::cleaner::{Cancel, CleanError};
use crate::log::copying::{Copy, Progress};
use crate::log::directory::{PartitionDir, PartitionDirState};
use crate::partition::CloseReport;
use crate::request::{PartitionId, Reply};

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the end of a compaction.
    Preparing,
    /// A look is on its way.
    Looking,
    /// Appends are held; waits for the end of what is on its way.
    Settling,
    /// From here on the partition is closed.
    Finishing,
    Committing,
    Noting,
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
    /// What the partition was before it was closed.
    was: Option<Was>,
    report: Option<CloseReport>,
    /// It opens where it was.
    goes_back: bool,
    /// The copy has taken the log's place.
    is_swapped: bool,
    /// Something is too short for the step; when it is tried again.
    again: Option<TimerKey>,
    /// Tries in a row that something was too short for.
    failures: u32,
}

/// What is known of a partition that is closed.
#[derive(Clone, Copy)]
struct Was {
    layout: u64,
    cleaned_offset: i64,
    size_bytes: i64,
    log_end: i64,
}

/// See the module's text.
pub(super) struct Moves<R> {
    /// Which are still to be begun, and where to.
    wanted: BTreeMap<PartitionId, Uuid>,
    /// Their directories were full.
    retried: BTreeMap<PartitionId, Uuid>,
    retry_timer: Option<TimerKey>,
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
            retry_timer: None,
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

    /// The partition that is closed for a moment; none while nobody knows for how long.
    pub(super) fn away(&self) -> Option<PartitionId> {
        let current = self.current.as_ref()?;
        let away = matches!(
            current.phase,
            Phase::Finishing | Phase::Committing | Phase::Noting | Phase::Opening
        );
        (away && current.again.is_none()).then_some(current.id)
    }

    /// A copy of this partition that is made, or will be: where, its bytes, and where it ends.
    pub(super) fn future_of(&self, id: PartitionId) -> Option<(Uuid, Progress)> {
        if let Some(current) = self.current_of(id) {
            let is_there = matches!(current.phase, Phase::Noting | Phase::Opening);
            return (!is_there).then(|| (current.target, current.progress.get()));
        }
        let wanted = self.wanted.get(&id).or_else(|| self.retried.get(&id))?;
        Some((*wanted, Progress::default()))
    }

    /// Bytes and end of a partition that is away.
    pub(super) fn size_of(&self, id: PartitionId) -> Option<(i64, i64)> {
        let was = self.current_of(id)?.was?;
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
        if self.moves.away() != Some(id) && !self.online(id)?.is_online() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let current = self.moves.current_of(id);
        let is_under_way = current.is_some_and(|current| current.end.is_none());
        if is_under_way && current.is_some_and(|current| current.target == target) {
            self.moves.wanted.remove(&id);
            return Ok(());
        }
        if self.directory_of(id) == Some(target) && self.moves.away().is_none_or(|away| away != id)
        {
            self.moves.wanted.remove(&id);
            self.moves.retried.remove(&id);
            self.cancel_move(id);
            return Ok(());
        }
        if !MetadataVersion::of(&self.image).has_directories() {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if self.moves.wanted.len() >= MOVES_MAX && !self.moves.wanted.contains_key(&id) {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        self.moves.retried.remove(&id);
        self.moves.wanted.insert(id, target);
        self.cancel_move(id);
        Ok(())
    }

    /// Ends the move of a partition, unless the catalogue may know of it already.
    fn cancel_move(&mut self, id: PartitionId) {
        let Some(current) = self.moves.current.as_mut().filter(|found| found.id == id) else {
            return;
        };
        current.end.get_or_insert(End::Cancelled);
        current.cancel.cancel();
        match current.phase {
            Phase::Preparing => self.end_move(),
            Phase::Settling => self.discard_copy(),
            _ => {}
        }
    }

    /// Ends every move; the broker stops.
    pub(super) fn stop_moves(&mut self) {
        self.moves.wanted.clear();
        self.moves.retried.clear();
        if let Some(key) = self.moves.retry_timer.take() {
            self.timers.cancel(key);
        }
        if let Some(id) = self.moves.current.as_ref().map(|current| current.id) {
            self.cancel_move(id);
        }
        let is_waiting = |current: &Move| current.again.is_some();
        if self.moves.current.as_ref().is_some_and(is_waiting) {
            self.lost();
        }
    }

    /// Begins with the next move, if none is under way.
    pub(super) fn begin_move(&mut self) {
        while self.moves.is_idle() && self.stopping.is_none() {
            let Some((id, target)) = self.moves.wanted.pop_first() else {
                return;
            };
            let is_there = self.directory_of(id) == Some(target);
            let unique = self.world.random_u128();
            let parent = self.dirs.path_of(target).map(PathBuf::from);
            let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
                continue;
            };
            let Some(parent) = parent.filter(|_| !is_there && partition.is_online()) else {
                continue;
            };
            let state = PartitionDirState::Future;
            let future = PartitionDir::marked_name(partition.topic(), id.index, unique, state);
            let future = parent.join(future);
            let live = parent.join(PartitionDir::name(partition.topic(), id.index));
            let copy = Copy::new(partition.dir(), &future);
            tracing::info!(
                topic = &**partition.topic(), partition = id.index, to = %parent.display(),
                "a log moves to another directory"
            );
            partition.stop_cleaning();
            self.moves.serial += 1;
            self.moves.current = Some(Move {
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
                was: None,
                report: None,
                goes_back: false,
                is_swapped: false,
                again: None,
                failures: 0,
            });
            self.move_goes_on(id);
        }
    }

    /// Says why, and whether it is tried again: only while there is no space.
    pub(super) fn move_failed(&mut self, error: CleanError) {
        let Some(current) = &self.moves.current else {
            return;
        };
        let (id, target, to) = (current.id, current.target, current.live.display());
        match error {
            CleanError::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%to, %error, "no space to move a log to; it is tried again");
                self.moves.retried.insert(id, target);
                let wait_ns = MOVE_RETRY_MS * 1_000_000;
                let due_ns = self.now().mono_ns.saturating_add(wait_ns);
                if self.moves.retry_timer.is_none() {
                    self.moves.retry_timer = Some(self.timers.add(due_ns, Timer::Moves));
                }
            }
            error => tracing::error!(%to, ?error, "a log was not moved and stays where it was"),
        }
    }

    /// There may be space by now.
    pub(super) fn retry_moves(&mut self) {
        self.moves.retry_timer = None;
        for (id, target) in std::mem::take(&mut self.moves.retried) {
            self.moves.wanted.entry(id).or_insert(target);
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
        self.moves.wanted.remove(&id);
        self.moves.retried.remove(&id);
        let Some(current) = self.moves.current.as_mut().filter(|found| found.id == id) else {
            return Some(directory);
        };
        match current.phase {
            // Neither is a step at the directories while one is waited for.
            Phase::Opening if current.again.is_some() => {
                let place = match current.is_swapped {
                    true => current.live.clone(),
                    false => current.from.clone(),
                };
                self.partitions.insert(id, Slot::Failed);
                self.discard_copy();
                Some(Some(place))
            }
            Phase::Finishing | Phase::Opening => {
                current.end = Some(End::Deleted(directory));
                None
            }
            // No step is at the directories, and the catalogue would wait for itself.
            Phase::Committing | Phase::Noting => {
                let from = current.from.clone();
                self.moves.serial += 1;
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
