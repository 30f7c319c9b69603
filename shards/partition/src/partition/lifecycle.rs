//! Opening, closing and deleting a partition.
//!
//! Runs on the partition's shard, and is all of it that awaits besides jobs. Never called while
//! jobs are in flight.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronik_io::{AppendError, File, World, is_not_now};
use chronik_log::checkpoint::{
    LEADER_EPOCH_FILE, PARTITION_METADATA_FILE, parse_partition_metadata, partition_metadata_bytes,
    read_small,
};
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::inventory::{Inventory, Listing};
use chronik_log::recovery::RecoveryHint;
use chronik_log::recovery::{Recovered, RecoveryReport, recover};
use chronik_log::remembered::RememberedLog;
use chronik_log::segment::{SealJob, SealedSegment, SideFileSync};
use chronik_log::{LogError, PartitionDir, PartitionDirState};
use chronik_protocol::Uuid;
use chronik_terms::topic_settings::Durability;
use tracing::{error, info, warn};

use super::behind::Behind;
use super::cleaning::Cleaning;
use super::jobs::{Flush, Rolling};
use super::removal::Removal;
use super::replay::first_offset;
use super::retention::Retention;
use super::sealing::NotSealed;
use super::{CloseReport, Closed, Partition, PartitionOptions};
use crate::patience::Patience;

impl<W: World> Partition<W> {
    /// Opens the partition in `dir`, which is created, with its `partition.metadata`, if missing.
    /// Mends what can be mended, puts back what an earlier process had not written yet, and says so
    /// in the log and the report.
    ///
    /// # Errors
    /// [`LogError::TopicIdMismatch`] when the directory belongs to another topic;
    /// [`LogError::Io`] and [`LogError::Failed`] when the disk refuses.
    pub async fn open(
        world: &W,
        dir: &Path,
        options: PartitionOptions,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let remembered = options
            .remembered
            .as_ref()
            .and_then(|(told, boot_id)| told.read(*boot_id));
        let listing = match Listing::take(world, dir).await? {
            Some(listing) => listing,
            None => {
                create(world, dir, &options.recovery).await?;
                Listing::default()
            }
        };
        let vouched_for = options.recovery.clean
            && listing.has_metadata
            && remembered
                .as_ref()
                .zip(listing.segments())
                .is_some_and(|(log, segments)| log.is_as_closed(&segments));
        if !vouched_for {
            claim(world, dir, options.id.topic_id).await?;
        }
        let log_start = options.recovery.log_start_offset;
        let left_behind = options.left_behind.clone();
        let mut hint = options.recovery;
        if let Some(first) = first_offset(&left_behind) {
            // Batches that are still to be put back may lie below the log's start.
            hint.log_start_offset = log_start.min(first);
        }
        let inventory = Inventory::settle(world, dir, listing).await?;
        let recovered = recover(world, dir, &options.config, (hint, remembered), inventory).await?;
        let (mut partition, mut report) = Self::recovered(world, dir, &options, recovered);
        report.put_back_batches = partition.replay(&left_behind).await?;
        if partition.log_end() < log_start && log_start > hint.log_start_offset {
            // What was to be put back does not reach the start either: the log alone has to tell.
            drop(partition);
            let listing = Listing::take(world, dir).await?.unwrap_or_default();
            let inventory = Inventory::settle(world, dir, listing).await?;
            let how = (options.recovery, None);
            let recovered = recover(world, dir, &options.config, how, inventory).await?;
            (partition, report) = Self::recovered(world, dir, &options, recovered);
        }
        partition.corrects_log_start = partition.log_end() < log_start;
        if !partition.corrects_log_start {
            partition.raise_log_start(log_start);
        }
        partition.judge_cleaned_offset();
        partition.begin_epoch();
        (report.log_start, report.log_end) = (partition.log_start, partition.log_end());
        Ok((partition, report))
    }

    /// The partition as its files say.
    fn recovered(
        world: &W,
        dir: &Path,
        options: &PartitionOptions,
        recovered: Recovered<W>,
    ) -> (Self, RecoveryReport) {
        let report = recovered.report.clone();
        let mut partition = Self {
            world: world.clone(),
            dir: dir.to_owned(),
            id: options.id,
            topic: options.topic.clone(),
            config: Arc::clone(&options.config),
            leader_epoch: options.leader_epoch,
            sealed: recovered.sealed.into_iter().collect(),
            closing: VecDeque::new(),
            seal_later: None,
            seal_failures: 0,
            active: recovered.active,
            rolling: Rolling::No,
            must_roll: false,
            producers: recovered.producers,
            aborted: recovered.aborted,
            epochs: recovered.epochs,
            epochs_to_save: recovered.epochs_changed,
            epochs_saving: false,
            log_start: report.log_start,
            corrects_log_start: false,
            high_watermark: report.log_end,
            recovery_point: report.log_end,
            parked_committed: VecDeque::new(),
            parked_written: VecDeque::new(),
            behind: Behind::new(report.log_end),
            admission: super::append::Admission::default(),
            flush: Flush::default(),
            retention: Retention::new(options.check_times),
            cleaning: Cleaning::new(options.cleaned_offset),
            layout: 0,
            to_learn: None,
            removal: Removal::default(),
            jobs_in_flight: 0,
            dirty: recovered.dirty,
            disk_full: false,
            failure: None,
        };
        if report.scanned_bytes > 0 && !report.clean {
            info!(
                partition = partition.name(),
                scanned_bytes = report.scanned_bytes,
                cut_bytes = report.cut_bytes,
                dropped_segments = report.dropped_segments,
                log_start = report.log_start,
                log_end = report.log_end,
                took_us = report.took_ns / 1000,
                "log recovered"
            );
        }
        partition.remove_below_log_start();
        (partition, report)
    }

    /// Leaves the files as a clean stop has them: exact length, indexes, snapshot, epochs. The log is
    /// durable then; what is beside it with the next [`World::sync_file_system`], before which nobody
    /// may say that the stop was clean. Also gives what a checkpoint of the logs is to remember;
    /// nothing if the directory cannot be listed.
    ///
    /// # Errors
    /// [`LogError::Failed`] for a log that is offline: its next start must not trust it;
    /// [`LogError::Io`] when the disk refuses now.
    ///
    /// # Panics
    /// If a job is still in flight or due: the driver performs them first.
    pub async fn close(self) -> Result<Closed, LogError> {
        self.close_with(Patience::NONE, |seal| seal).await
    }

    /// As [`Partition::close`] for a stop: waits for a while where something is short, and the exact length
    /// of a log whose bytes are durable is so with the sync of the file system, too.
    ///
    /// # Errors
    /// As [`Partition::close`].
    ///
    /// # Panics
    /// As [`Partition::close`].
    pub async fn close_at_stop(self, patience: Patience) -> Result<Closed, LogError> {
        self.close_with(patience, SealJob::cuts_unsynced).await
    }

    async fn close_with(
        mut self,
        patience: Patience,
        how: impl FnOnce(SealJob<W>) -> SealJob<W>,
    ) -> Result<Closed, LogError> {
        assert_eq!(self.jobs_in_flight, 0, "closed with jobs in flight");
        if let Some(error) = self.failure {
            return Err(LogError::Failed {
                dir: self.dir,
                why: error.to_string(),
            });
        }
        self.finish_what_waits(patience).await?;
        let idle = self.closing.is_empty() && !self.active.is_busy();
        assert!(idle, "closed with jobs due");
        let log_end = self.active.next_offset();
        let report = CloseReport {
            recovery_point: log_end,
            log_start: self.log_start,
            high_watermark: log_end,
        };
        let exact = self.active.file().len() == self.active.size_bytes();
        let remembered = self.remember();
        if !self.dirty && exact {
            // The files are as the last clean stop left them.
            let remembered = as_closed(&self.world, &self.dir, remembered).await;
            return Ok(Closed { report, remembered });
        }
        let (world, dir) = (&self.world, self.dir);
        seal_last(world, (&dir, patience), how(self.active.seal(&dir))).await?;
        let snapshot = segment_path(&dir, log_end, FileKind::Snapshot);
        let epochs = dir.join(LEADER_EPOCH_FILE);
        let files = [
            (snapshot, self.producers.to_snapshot()),
            (epochs, self.epochs.to_bytes()),
        ];
        for (path, bytes) in &files {
            let write = async || SideFileSync::Later.write(world, path, bytes).await;
            let written = patience.with(world, write).await;
            written.map_err(LogError::io("writing", path))?;
        }
        let remembered = as_closed(world, &dir, remembered).await;
        Ok(Closed { report, remembered })
    }

    /// Tries again what something was too short for.
    async fn finish_what_waits(&mut self, patience: Patience) -> Result<(), LogError> {
        let mut events = Vec::new();
        while let Some(mut seal) = self.seal_again().or_else(|| self.take_seal()) {
            let base = seal.base_offset();
            let sealed = loop {
                match seal.perform().await {
                    Err(NotSealed::Later(again, _)) if patience.waits(&self.world).await => {
                        seal = again;
                    }
                    done => break done,
                }
            };
            let sealed = sealed.map_err(|not| self.not_closed(not))?;
            self.sealed(base, Ok(sealed), &mut events);
        }
        if let Some(swap) = self.removal.take_waiting_swap() {
            while let Err(error) = swap.perform(&self.world, &self.dir).await {
                if !error.is_not_now() || !patience.waits(&self.world).await {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn not_closed(&self, not: NotSealed<W>) -> LogError {
        let dir = self.dir.clone();
        match not {
            NotSealed::Failed(failed) => LogError::Failed {
                dir,
                why: failed.to_string(),
            },
            NotSealed::Later(_, why) => LogError::NotNow {
                dir,
                why: why.to_string(),
            },
        }
    }

    /// What a checkpoint is to remember: everything appended so far, true once
    /// [`Partition::holds`] its end. `None` while a segment is being closed.
    pub fn remember(&self) -> Option<RememberedLog> {
        if !self.closing.is_empty() {
            return None;
        }
        let is_durable = self.durable_offset() == self.log_end();
        Some(RememberedLog {
            closed: false,
            durable: is_durable || self.config.durability == Durability::Disk,
            sealed: self.sealed.iter().map(SealedSegment::remember).collect(),
            active: self.active.remember(),
            producers: self.producers.remember(),
            epochs: self.epochs.remember(),
        })
    }

    /// Removes a partition's directory: renamed first, so that a crash on the way leaves something
    /// that is known to be garbage. Fine when it is missing. `unique` makes the name unique.
    ///
    /// # Errors
    /// [`LogError::Io`] when the disk refuses.
    pub async fn delete(world: &W, dir: &Path, unique: u128) -> Result<(), LogError> {
        let marked = marked_as_deleted(dir, unique);
        if marked != dir && !ignoring_missing(world.rename(dir, &marked).await, dir)? {
            return Ok(());
        }
        ignoring_missing(world.remove_dir_all(&marked).await, &marked).map(|_| ())
    }

    /// Gives the directory of a deleted topic's partition the name of a deleted one, unless it is gone
    /// or another topic's; [`Partition::remove_marked`] removes it. May be done again after an error.
    ///
    /// # Errors
    /// [`LogError::Io`] when the disk refuses.
    pub async fn mark_deleted(world: &W, dir: &Path, id: Uuid) -> Result<(), LogError> {
        Self::mark_deleted_unsynced(world, dir, id).await?;
        let parent = dir.parent().unwrap_or(dir);
        let synced = world.sync_dir(parent).await;
        synced.map_err(LogError::io("syncing", parent))
    }

    /// As [`Partition::mark_deleted`], but durable only once the directory above is synced: before that
    /// nothing may be removed, or a power cut could leave the rest under its former name.
    ///
    /// # Errors
    /// [`LogError::Io`] when the disk refuses.
    pub async fn mark_deleted_unsynced(world: &W, dir: &Path, id: Uuid) -> Result<(), LogError> {
        let path = dir.join(PARTITION_METADATA_FILE);
        match read_small(world, &path).await {
            Err(error) if is_not_now(&error) => return Err(LogError::io("reading", &path)(error)),
            Ok(Some(bytes)) if parse_partition_metadata(&bytes).is_ok_and(|found| found != id) => {
                return Ok(());
            }
            // Without an id it can be nobody else's: its name was this topic's.
            _ => {}
        }
        let marked = marked_as_deleted(dir, id.0);
        ignoring_missing(world.rename_unsynced(dir, &marked).await, dir).map(|_| ())
    }

    /// What [`Partition::mark_deleted`] calls a directory.
    pub fn name_when_deleted(dir: &Path, id: Uuid) -> PathBuf {
        marked_as_deleted(dir, id.0)
    }

    /// Removes what [`Partition::mark_deleted`] has renamed. May be done again after an error.
    ///
    /// # Errors
    /// [`LogError::Io`] when the disk refuses.
    pub async fn remove_marked(world: &W, dir: &Path, id: Uuid) -> Result<(), LogError> {
        let marked = Self::name_when_deleted(dir, id);
        ignoring_missing(world.remove_dir_all(&marked).await, &marked).map(|_| ())
    }
}

/// What a partition's directory is called before it is removed. With the topic's id, which is never
/// another's, for `unique` it is called the same at every try.
fn marked_as_deleted(dir: &Path, unique: u128) -> PathBuf {
    let name = dir
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    match PartitionDir::parse(name) {
        Some(live) if live.state == PartitionDirState::Live => {
            let (topic, index) = (&live.topic, live.index);
            let state = PartitionDirState::Deleted;
            dir.with_file_name(PartitionDir::marked_name(topic, index, unique, state))
        }
        _ => dir.to_owned(),
    }
}

/// Cuts the last segment to its length and writes its indexes.
async fn seal_last<W: World>(
    world: &W,
    (dir, patience): (&Path, Patience),
    mut job: SealJob<W>,
) -> Result<(), LogError> {
    loop {
        let why = match job.perform(world, SideFileSync::Later).await {
            Ok(sealed) => match sealed.indexes {
                Ok(()) => return Ok(()),
                Err(error) => LogError::io("writing the indexes in", dir)(error),
            },
            Err(AppendError::NoSpace(why)) => LogError::NotNow {
                dir: dir.to_owned(),
                why: why.to_string(),
            },
            Err(failed @ AppendError::Failed(_)) => LogError::Failed {
                dir: dir.to_owned(),
                why: failed.to_string(),
            },
        };
        if !why.is_not_now() || !patience.waits(world).await {
            return Err(why);
        }
    }
}

/// What a checkpoint remembers of a log that was closed: also when its files were changed last.
async fn as_closed<W: World>(world: &W, dir: &Path, log: Option<RememberedLog>) -> Option<Vec<u8>> {
    let mut log = log?;
    let segments = Listing::take(world, dir).await.ok()??.segments()?;
    let modified_ns = |base_offset: i64| {
        let found = segments
            .iter()
            .find(|found| found.base_offset == base_offset);
        found.map_or(0, |found| found.modified_ns)
    };
    (log.closed, log.durable) = (true, true);
    log.active.modified_ns = modified_ns(log.active.base_offset);
    for segment in &mut log.sealed {
        segment.modified_ns = modified_ns(segment.base_offset);
    }
    Some(log.to_bytes())
}

/// Makes a directory that is missing.
async fn create<W: World>(world: &W, dir: &Path, hint: &RecoveryHint) -> Result<(), LogError> {
    if hint.recovery_point > 0 || hint.log_start_offset > 0 {
        let directory = dir.display();
        error!(%directory, "the directory of a partition with records is gone; begun anew");
    }
    let created = world.create_dir_all(dir).await;
    created.map_err(LogError::io("creating", dir))
}

/// Whether there was something.
fn ignoring_missing(result: io::Result<()>, path: &Path) -> Result<bool, LogError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::io("removing", path)(error)),
    }
}

/// Checks that the directory is this topic's, or makes it so.
async fn claim<W: World>(world: &W, dir: &Path, topic_id: Uuid) -> Result<(), LogError> {
    let path = dir.join(PARTITION_METADATA_FILE);
    let bytes = read_small(world, &path)
        .await
        .map_err(LogError::io("reading", &path))?;
    match bytes.map(|bytes| parse_partition_metadata(&bytes)) {
        Some(Ok(found)) if found == topic_id => return Ok(()),
        Some(Ok(found)) => {
            return Err(LogError::TopicIdMismatch {
                dir: dir.to_owned(),
                expected: topic_id,
                found,
            });
        }
        Some(Err(error)) => warn!(file = %path.display(), %error, "garbled; writing it anew"),
        None => {}
    }
    let written = world
        .write_file_atomic(&path, &partition_metadata_bytes(topic_id))
        .await;
    written.map_err(LogError::io("writing", &path))
}
