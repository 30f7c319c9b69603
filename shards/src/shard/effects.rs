//! What a shard's state wants done, and the results that come back.
//!
//! Plain values between the state, which never awaits, and the driver, which performs them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chronik_catalog::snapshot::SnapshotId;
use chronik_catalog::{Image, Judged, Judging};
use chronik_coordinators::unfold::{Unfolded, Unfolding};
use chronik_io::World;
use chronik_log::LogError;
use chronik_partition::patience::Patience;
use chronik_partition::remembered_logs::Writer;
use chronik_partition::write_behind::Ring;
use chronik_partition::{
    Closed, Job, JobDone, OffsetDone, OffsetJob, Partition, ReadDone, ReadJob,
};
use chronik_terms::PartitionId;

use super::apply::{OpenTask, Opened};
use crate::checkpoint_files::{AlsoIn, CheckpointOffsets, CheckpointsWritten};
use crate::internal::{Durable, Leftover, OffsetNote};
use crate::metadata_log::SnapshotError;
use crate::moving::{MoveDone, MoveStep};
use crate::request::Reply;

/// What the driver has to do. It brings the result back as a [`Done`] where there is one.
pub(crate) enum Effect<W: World, R> {
    Reply(R, Reply),
    Job(Job<W>),
    Read(ReadJob<W>, ReadFor),
    Offsets {
        query: usize,
        part: usize,
        job: OffsetJob<W>,
    },
    Open(Box<OpenTask>),
    /// Gives a partition's directory the name of a deleted one.
    Remove {
        id: PartitionId,
        directory: PathBuf,
    },
    /// Makes these names durable; the directories go behind it.
    RemoveBehind(Vec<Leftover>),
    Close(Box<Partition<W>>, Patience),
    /// What only the designated shard wants.
    Catalogue(CatalogueEffect<R>),
    /// Sends notes to the designated shard.
    Note(Vec<OffsetNote>),
    /// A step of the move with this number.
    Move(u64, MoveStep<W>),
    /// Makes this shard's write-behind ring.
    MakeRing {
        bytes: usize,
    },
    /// Lets other tasks of the shard run, then comes back.
    Rest(Sleeper),
    /// Writes the checkpoint of this shard's logs.
    WriteRemembered {
        path: PathBuf,
        writer: Writer,
        logs: Vec<(PartitionId, Vec<u8>)>,
    },
    /// A step of what the coordinator has read, beside the shard.
    GroupUnfold(u64, Unfolding),
    /// The first image has been applied, or will never be.
    Loaded(Result<(), Arc<str>>),
}

/// What only the state of the designated shard wants done.
pub(crate) enum CatalogueEffect<R> {
    /// Judges a change of the catalogue, beside the shard.
    Judge(Box<Judging>),
    /// Sends the image to every shard, this one included.
    PublishToAll(Arc<Image>),
    WriteSnapshot(Arc<Image>),
    RemoveSnapshotsBelow(SnapshotId),
    /// Tries again to remove directories of deleted partitions.
    RemoveLeftovers(Vec<Leftover>),
    /// With the image that names the partitions.
    WriteCheckpoints(CheckpointOffsets, (Arc<Image>, AlsoIn)),
    /// Stops all shards, this one included, and marks the directory as clean.
    StopAll(R, Arc<Image>),
}

/// What a block is read for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadFor {
    /// A part of a read request.
    Request { read: usize, part: usize },
    /// The cache, before somebody asks.
    Prefetch,
    /// A load of the group coordinator, by its number: it reads a partition of `__consumer_offsets`.
    Groups(u64),
}

/// Whose work goes on after a rest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sleeper {
    /// Parked requests that have what they waited for.
    Requests,
    /// Partitions that follow an image.
    Image,
    /// New partitions that are opened, and who waits for them.
    Openings,
    /// Reads from disk.
    Reads,
    /// Retention and deletion of old segments.
    Retention,
    /// The checkpoint of the logs.
    LogCheckpoint,
    /// The group coordinator.
    Groups,
}

/// The result of an [`Effect`].
pub(crate) enum Done<W: World> {
    Job(JobDone<W>),
    Read(ReadDone<W>, ReadFor),
    Offsets {
        query: usize,
        part: usize,
        done: OffsetDone<W>,
    },
    Opened {
        id: PartitionId,
        result: Opened<W>,
    },
    Removed {
        id: PartitionId,
        result: Result<Option<Leftover>, (LogError, Leftover)>,
    },
    /// The names of deleted directories are durable, but these.
    RemovedBehind(Vec<Leftover>),
    Closed {
        id: PartitionId,
        result: Result<Closed, LogError>,
    },
    Judged(Box<Judged>),
    /// Every shard has applied the image; what of deleted partitions could not be removed.
    Published(Vec<Leftover>),
    /// All but these have other names; so many are being removed.
    LeftoversRenamed(Vec<Leftover>, usize),
    /// All of so many but these are removed.
    LeftoversRemoved(Vec<Leftover>, usize),
    Snapshot(Result<SnapshotId, SnapshotError>),
    /// The designated shard has written the notes down, or could not.
    Noted(Durable),
    /// Which directories refused.
    CheckpointsWritten(CheckpointsWritten),
    Moved(u64, MoveDone),
    RingMade(io::Result<Ring<W::Mapping>>),
    Rested(Sleeper),
    RememberedWritten(io::Result<()>),
    /// None when there was no thread for it.
    GroupUnfolded(u64, Option<Unfolded>),
}
