//! The steps of a move between log directories that wait for the disk or for another shard.
//!
//! Runs on the partition's shard, performed by its driver. Owns how each step leaves the disk, so that
//! after a crash at any moment the catalogue alone says which copy counts: a copy that is not whole, or
//! has fallen behind, is renamed away before its log is served. Which step comes next is
//! `shard/moves.rs`'s to say; what a start does with a move that was interrupted, `interrupted_moves.rs`'s.

use std::io;
use std::path::{Path, PathBuf};

use chronik_io::{Endpoint, World};
use chronik_protocol::Uuid;

use crate::catalog::{ControllerReply, ControllerRequest};
use crate::log::LogError;
use crate::log::cleaner::{Cancel, CleanError, Pace};
use crate::log::copying::{Copy, Settled, discard};
use crate::partition::{CloseReport, Partition, PartitionOptions};
use crate::placement::COORDINATOR_SHARD;
use crate::request::{PartitionId, Reply, Request};

/// One step.
pub(crate) enum MoveStep<W: World> {
    /// Copies what is settled of a log that is served.
    Look(Box<Look>),
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
    /// Puts the copy in its place, and opens it.
    Swap {
        from: PathBuf,
        /// `None` once it is there.
        future: Option<PathBuf>,
        live: PathBuf,
        options: Box<PartitionOptions>,
    },
    /// Opens the log again where it was, once no start can take the copy for it.
    GoBack {
        from: PathBuf,
        future: PathBuf,
        options: Box<PartitionOptions>,
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
    /// Nothing is there yet.
    pub(crate) begins: bool,
    /// It gives way to whoever serves clients.
    pub(crate) rests: bool,
    pub(crate) cancel: Cancel,
}

/// The result of a [`MoveStep`].
pub(crate) enum MoveDone<W: World> {
    /// So many bytes were new.
    Looked(Box<Copy>, Result<u64, CleanError>),
    /// Whether it was closed, and whether the copy is whole and durable.
    Finished(Result<CloseReport, LogError>, io::Result<()>),
    /// Whether the catalogue has said so. If not, nobody knows what the next start finds there.
    Committed(bool),
    Opened(Result<Box<Partition<W>>, NotOpened>),
    Discarded,
    Rested,
}

/// Why a log that moved, or did not, is not served again.
pub(crate) struct NotOpened {
    pub(crate) error: LogError,
    /// The copy has taken its place.
    pub(crate) is_swapped: bool,
}

impl NotOpened {
    fn where_it_was(error: LogError) -> NotOpened {
        NotOpened {
            error,
            is_swapped: false,
        }
    }
}

impl<W: World> MoveStep<W> {
    /// Performs it.
    pub(crate) async fn perform(
        self,
        world: &W,
        endpoint: &Endpoint<Request, Reply>,
    ) -> MoveDone<W> {
        match self {
            Self::Look(look) => {
                let mut look = *look;
                let looked = look.perform(world).await;
                MoveDone::Looked(Box::new(look.copy), looked)
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
            Self::Swap {
                from,
                future,
                live,
                options,
            } => MoveDone::Opened(swap(world, (&from, future.as_deref(), &live), *options).await),
            Self::GoBack {
                from,
                future,
                options,
            } => {
                let opened = go_back(world, (&from, &future), *options).await;
                MoveDone::Opened(opened.map_err(NotOpened::where_it_was))
            }
            Self::Discard(future) => {
                match discard(world, &future).await {
                    Ok(garbage) => remove_beside(world, garbage),
                    // The next move to there, or the next start, finds it.
                    Err(error) => {
                        tracing::warn!(directory = %future.display(), %error, "a copy was not removed");
                    }
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
        if self.begins {
            self.copy.begin(world, self.topic_id).await?;
        }
        let mut pace = Pace::new(world, self.cancel.clone(), u64::MAX);
        self.copy
            .take(world, self.settled, (&mut pace, self.rests))
            .await
    }
}

/// The catalogue says that the log is the copy's: the old one goes first, so that there are never two.
/// May be done again after an error.
async fn swap<W: World>(
    world: &W,
    (from, future, live): (&Path, Option<&Path>, &Path),
    options: PartitionOptions,
) -> Result<Box<Partition<W>>, NotOpened> {
    let mut garbage = None;
    let mut is_swapped = future.is_none();
    let opened = async {
        if let Some(future) = future {
            let discarded = discard(world, from).await;
            garbage = discarded.map_err(LogError::io("renaming", from))?;
            let renamed = world.rename(future, live).await;
            renamed.map_err(LogError::io("renaming", future))?;
            is_swapped = true;
        }
        Partition::open(world, live, options).await
    };
    let opened = opened.await;
    // Where something else is wrong with the copy the old log is left for somebody to look at.
    if opened.as_ref().err().is_none_or(LogError::is_not_now) {
        remove_beside(world, garbage);
    }
    match opened {
        Ok((partition, _)) => Ok(Box::new(partition)),
        Err(error) => Err(NotOpened { error, is_swapped }),
    }
}

async fn go_back<W: World>(
    world: &W,
    (from, future): (&Path, &Path),
    options: PartitionOptions,
) -> Result<Box<Partition<W>>, LogError> {
    let garbage = discard(world, future).await;
    let garbage = garbage.map_err(LogError::io("renaming", future))?;
    let synced = world.sync_file_system(from).await;
    synced.map_err(LogError::io("syncing", from))?;
    remove_beside(world, garbage);
    let (partition, _) = Partition::open(world, from, options).await?;
    Ok(Box::new(partition))
}

/// Nobody waits for it: the next start removes what is left.
fn remove_beside<W: World>(world: &W, garbage: Option<PathBuf>) {
    let Some(garbage) = garbage else { return };
    let world_of_task = world.clone();
    world.spawn(async move {
        if let Err(error) = world_of_task.remove_dir_all(&garbage).await {
            tracing::warn!(directory = %garbage.display(), %error, "not removed");
        }
    });
}
