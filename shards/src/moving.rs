//! The steps of a move between log directories that wait for the disk or for another shard.
//!
//! Runs on the partition's shard, performed by its driver. Owns how each step leaves the disk, so that
//! after a crash at any moment the catalogue alone says which copy counts: a copy that is not whole, or
//! has fallen behind, is renamed away before its log is served. Which step comes next is
//! `shard/moves.rs`'s to say; what a start does with a move that was interrupted, `interrupted_moves.rs`'s.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chronik_catalog::{ControllerReply, ControllerRequest};
use chronik_io::{Endpoint, World, is_not_now};
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use crate::backoff;
use crate::limits::REMOVAL_TRIES_MAX;
use crate::log::LogError;
use crate::log::cleaner::{Cancel, CleanError, Pace};
use crate::log::copying::{Copy, Settled, discard, is_garbage};
use crate::partition::{Bequest, CloseReport, Partition};
use crate::placement::COORDINATOR_SHARD;
use crate::request::{Reply, Request};

/// One step.
pub(crate) enum MoveStep<W: World> {
    /// Copies what is settled of a log that is served.
    Look(Box<Look>),
    /// Waits until the catalogue has made every change that was asked for before.
    AwaitTurn,
    /// Closes the log and copies the rest.
    Finish {
        copy: Box<Copy>,
        partition: Box<Partition<W>>,
    },
    /// Has the catalogue say where the log lies from now on.
    Commit {
        partition: PartitionId,
        directory: Uuid,
    },
    /// Removes a copy that is not wanted any more.
    Discard(PathBuf),
    /// Lets other tasks run.
    Rest,
}

/// What [`MoveStep::Look`] needs.
pub(crate) struct Look {
    pub(crate) copy: Copy,
    pub(crate) topic_id: Uuid,
    pub(crate) settled: Settled,
    /// The log's bytes, when nothing is there yet.
    pub(crate) begins_with: Option<u64>,
    /// It gives way to whoever serves clients.
    pub(crate) rests: bool,
    pub(crate) cancel: Cancel,
}

/// The result of a [`MoveStep`].
pub(crate) enum MoveDone {
    /// So many bytes were new.
    Looked(Box<Copy>, Result<u64, CleanError>),
    /// Whether the catalogue takes changes now.
    HasTurn(bool),
    /// Whether it was closed, and whether the copy is whole and durable.
    Finished(Result<CloseReport, LogError>, io::Result<()>),
    /// Whether the catalogue has said so. If not, nobody knows what the next start finds there.
    Committed(bool),
    Discarded,
    Rested,
}

impl<W: World> MoveStep<W> {
    /// Performs it.
    pub(crate) async fn perform(self, world: &W, endpoint: &Endpoint<Request, Reply>) -> MoveDone {
        match self {
            Self::Look(look) => {
                let mut look = *look;
                let looked = look.perform(world).await;
                MoveDone::Looked(Box::new(look.copy), looked)
            }
            Self::AwaitTurn => {
                let request = Request::Control(ControllerRequest::AwaitTurn);
                let reply = endpoint.call(COORDINATOR_SHARD, request).await;
                MoveDone::HasTurn(matches!(
                    reply,
                    Ok(Reply::Control(ControllerReply::Turn(Ok(()))))
                ))
            }
            Self::Finish {
                mut copy,
                partition,
            } => {
                let closed = partition.close().await.map(|closed| closed.report);
                let copied = match &closed {
                    Ok(_) => copy.finish(world).await,
                    Err(_) => Ok(()),
                };
                MoveDone::Finished(closed, copied)
            }
            Self::Commit {
                partition,
                directory,
            } => {
                let request = Request::Control(ControllerRequest::MovePartition {
                    partition,
                    directory,
                });
                let reply = endpoint.call(COORDINATOR_SHARD, request).await;
                MoveDone::Committed(matches!(
                    reply,
                    Ok(Reply::Control(ControllerReply::MovePartition(Ok(()))))
                ))
            }
            Self::Discard(future) => {
                match discard(world, &future).await {
                    Ok(garbage) => remove_beside(world, garbage),
                    Err(error) if is_not_now(&error) => remove_beside(world, Some(future)),
                    // The next move to there, or the next start, finds it.
                    Err(error) => not_removed(&future, &error),
                }
                MoveDone::Discarded
            }
            Self::Rest => {
                world.pause().await;
                MoveDone::Rested
            }
        }
    }
}

impl Look {
    async fn perform<W: World>(&mut self, world: &W) -> Result<u64, CleanError> {
        if let Some(size_bytes) = self.begins_with {
            self.copy.begin(world, self.topic_id).await?;
            // Full to the last byte the directory would fail the others that lie there.
            let there = self.copy.to.parent().unwrap_or(Path::new(""));
            if world.free_bytes(there).await? <= size_bytes {
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            }
        }
        let mut pace = Pace::new(world, self.cancel.clone(), u64::MAX);
        self.copy
            .take(world, self.settled, (&mut pace, self.rests))
            .await
    }
}

/// What is done to the directories before a log is opened again whose move came to its last step. May be
/// done again after an error.
#[derive(Clone, Debug)]
pub(crate) struct Placing {
    pub(crate) from: PathBuf,
    pub(crate) future: PathBuf,
    pub(crate) live: PathBuf,
    /// The log stays where it was. Else the catalogue says that it is the copy's.
    pub(crate) goes_back: bool,
    /// Of the partition that was closed.
    bequest: Bequest,
    /// Only the opening is to be done.
    is_done: bool,
    garbage: Option<PathBuf>,
}

impl Placing {
    /// Nothing done yet.
    pub(crate) fn new((from, future, live): (&Path, &Path, &Path), bequest: Bequest) -> Placing {
        Placing {
            from: from.to_owned(),
            future: future.to_owned(),
            live: live.to_owned(),
            goes_back: false,
            bequest,
            is_done: false,
            garbage: None,
        }
    }

    /// Where the log is opened.
    pub(crate) fn opens(&self) -> &Path {
        match self.goes_back {
            true => &self.from,
            false => &self.live,
        }
    }

    /// Which directories are to go if the log is not wanted any more; the second may be there or not.
    pub(crate) fn left(&self) -> (&Path, Option<&Path>) {
        match (self.goes_back, self.is_done) {
            (true, true) => (&self.from, None),
            (false, true) => (&self.live, None),
            (_, false) => (&self.from, Some(&self.future)),
        }
    }

    /// Puts the copy in the log's place, or away. The other of the two goes first and durably: there are
    /// never two that a start could take for the log.
    pub(crate) async fn perform<W: World>(&mut self, world: &W) -> Result<(), LogError> {
        if self.is_done {
            return Ok(());
        }
        let goes = match self.goes_back {
            true => &self.future,
            false => &self.from,
        };
        let discarded = discard(world, goes).await;
        match discarded.map_err(LogError::io("renaming", goes))? {
            Some(garbage) => self.garbage = Some(garbage),
            // An earlier try may have renamed it, and not known whether that lasts.
            None => sync_parent(world, goes).await?,
        }
        if self.goes_back {
            let synced = world.sync_file_system(&self.from).await;
            synced.map_err(LogError::io("syncing", &self.from))?;
        } else {
            match world.rename(&self.future, &self.live).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let found = world.list_dir(&self.live).await;
                    found.map_err(LogError::io("looking for", &self.live))?;
                    sync_parent(world, &self.live).await?;
                }
                renamed => renamed.map_err(LogError::io("renaming", &self.future))?,
            }
        }
        self.is_done = true;
        Ok(())
    }

    /// The log is open, or not wanted any more: what was renamed away goes. Gives what the partition that
    /// was closed has left to the one that is open.
    pub(crate) fn clear<W: World>(self, world: &W) -> Bequest {
        remove_beside(world, self.garbage);
        self.bequest
    }
}

async fn sync_parent<W: World>(world: &W, path: &Path) -> Result<(), LogError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let synced = world.sync_dir(parent).await;
    synced.map_err(LogError::io("syncing", parent))
}

/// Removes a partition's directory that is not wanted any more. Nobody waits for it: it is tried again for
/// some minutes while something is too short, and the next start removes what is left.
fn remove_beside<W: World>(world: &W, directory: Option<PathBuf>) {
    let Some(mut directory) = directory else {
        return;
    };
    let world_of_task = world.clone();
    world.spawn(async move {
        for failures in 1..=REMOVAL_TRIES_MAX {
            match remove(&world_of_task, &mut directory).await {
                Err(error) if is_not_now(&error) && failures < REMOVAL_TRIES_MAX => {
                    let wait = Duration::from_nanos(backoff::due_ns(0, failures));
                    world_of_task.sleep_for(wait).await;
                }
                Err(error) => return not_removed(&directory, &error),
                Ok(()) => return,
            }
        }
    });
}

/// May be done again after an error; `directory` is its name by then.
async fn remove<W: World>(world: &W, directory: &mut PathBuf) -> io::Result<()> {
    if !is_garbage(directory) {
        match discard(world, directory).await? {
            Some(garbage) => *directory = garbage,
            None => return Ok(()),
        }
    }
    match world.remove_dir_all(directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn not_removed(directory: &Path, error: &io::Error) {
    tracing::warn!(directory = %directory.display(), %error, "what a move has left was not removed");
}
