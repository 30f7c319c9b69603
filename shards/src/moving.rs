//! The steps of a move between log directories that wait for the disk or for another shard.
//!
//! Runs on the partition's shard, performed by its driver. Owns how each step leaves the disk, so that
//! after a crash at any moment the catalogue alone says which copy counts: a copy that is not whole, or
//! has fallen behind, is renamed away before its log is served. Which step comes next is
//! `shard/moves.rs`'s to say; what a start does with a move that was interrupted, `interrupted_moves.rs`'s.

use std::io;
use std::path::{Path, PathBuf};

use chronik_catalog::{ControllerReply, ControllerRequest};
use chronik_io::{Endpoint, World, is_not_now};
use chronik_log::LogError;
use chronik_log::cleaner::{Cancel, CleanError, Pace};
use chronik_log::copying::{Copy, Settled, discard};
use chronik_partition::{CloseReport, Partition};
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use crate::placement::COORDINATOR_SHARD;
use crate::placing::{not_removed, remove_beside};
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
