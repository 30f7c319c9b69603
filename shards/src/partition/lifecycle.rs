//! Opening, closing and deleting a partition.
//!
//! Runs on the partition's shard, and is all of it that awaits besides jobs. Never called while
//! jobs are in flight.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use chronik_io::{File, World};
use chronik_protocol::Uuid;
use tracing::{info, warn};

use super::behind::Behind;
use super::jobs::{Flush, Rolling};
use super::removal::Removal;
use super::replay::first_offset;
use super::retention::Retention;
use super::{CloseReport, Partition, PartitionOptions, RecoveryHint};
use crate::log::checkpoint::{
    LEADER_EPOCH_FILE, PARTITION_METADATA_FILE, parse_partition_metadata, partition_metadata_bytes,
    read_small,
};
use crate::log::directory::{FileKind, segment_path};
use crate::log::recovery::{RecoveryReport, recover};
use crate::log::{LogError, PartitionDir, PartitionDirState};

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
        world
            .create_dir_all(dir)
            .await
            .map_err(LogError::io("creating", dir))?;
        claim(world, dir, options.id.topic_id).await?;
        let log_start = options.recovery.log_start_offset;
        let left_behind = options.left_behind.clone();
        let mut hint = options.recovery;
        if let Some(first) = first_offset(&left_behind) {
            // Batches that are still to be put back may lie below the log's start.
            hint.log_start_offset = log_start.min(first);
        }
        let (mut partition, mut report) = Self::recovered(world, dir, &options, hint).await?;
        report.put_back_batches = partition.replay(&left_behind).await?;
        if partition.log_end() < log_start && log_start > hint.log_start_offset {
            drop(partition);
            return Self::recovered(world, dir, &options, options.recovery).await;
        }
        partition.raise_log_start(log_start);
        (report.log_start, report.log_end) = (partition.log_start, partition.log_end());
        Ok((partition, report))
    }

    /// The partition as its files say.
    async fn recovered(
        world: &W,
        dir: &Path,
        options: &PartitionOptions,
        hint: RecoveryHint,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let recovered = recover(world, dir, &options.config, hint).await?;
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
            active: recovered.active,
            rolling: Rolling::No,
            producers: recovered.producers,
            epochs: recovered.epochs,
            epochs_to_save: recovered.epochs_changed,
            log_start: report.log_start,
            high_watermark: report.log_end,
            recovery_point: report.log_end,
            parked_committed: VecDeque::new(),
            parked_written: VecDeque::new(),
            behind: Behind::new(report.log_end),
            admission: super::append::Admission::default(),
            flush: Flush::default(),
            retention: Retention::new(options.check_times),
            to_learn: None,
            removal: Removal::default(),
            jobs_in_flight: 0,
            dirty: !report.clean && report.scanned_bytes > 0,
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
        Ok((partition, report))
    }

    /// Leaves the files as a clean stop has them: exact length, indexes, snapshot, epochs.
    ///
    /// # Errors
    /// [`LogError::Failed`] for a log that is offline: its next start must not trust it;
    /// [`LogError::Io`] when the disk refuses now.
    ///
    /// # Panics
    /// If a job is still in flight or due: the driver performs them first.
    pub async fn close(self) -> Result<CloseReport, LogError> {
        assert_eq!(self.jobs_in_flight, 0, "closed with jobs in flight");
        let dir = self.dir;
        if let Some(error) = self.failure {
            return Err(LogError::Failed {
                dir,
                why: error.to_string(),
            });
        }
        let idle = self.closing.is_empty() && !self.active.is_busy();
        assert!(idle, "closed with jobs due");
        let log_end = self.active.next_offset();
        let report = CloseReport {
            recovery_point: log_end,
            log_start: self.log_start,
            high_watermark: log_end,
        };
        let exact = self.active.file().len() == self.active.size_bytes();
        if !self.dirty && exact {
            // The files are as the last clean stop left them.
            return Ok(report);
        }
        let sealed = self
            .active
            .seal(&dir)
            .perform(&self.world)
            .await
            .map_err(|failed| LogError::Failed {
                dir: dir.clone(),
                why: failed.to_string(),
            })?;
        sealed
            .indexes
            .map_err(LogError::io("writing the indexes in", &dir))?;
        let snapshot = segment_path(&dir, log_end, FileKind::Snapshot);
        let written = self
            .world
            .write_file_atomic(&snapshot, &self.producers.to_snapshot())
            .await;
        written.map_err(LogError::io("writing", &snapshot))?;
        let epochs = dir.join(LEADER_EPOCH_FILE);
        let written = self
            .world
            .write_file_atomic(&epochs, &self.epochs.to_bytes())
            .await;
        written.map_err(LogError::io("writing", &epochs))?;
        Ok(report)
    }

    /// Removes a partition's directory: renamed first, so that a crash on the way leaves something
    /// that is known to be garbage. Fine when it is missing. `unique` makes the name unique.
    ///
    /// # Errors
    /// [`LogError::Io`] when the disk refuses.
    pub async fn delete(world: &W, dir: &Path, unique: u128) -> Result<(), LogError> {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let marked = match PartitionDir::parse(name) {
            Some(live) if live.state == PartitionDirState::Live => {
                let (topic, index) = (&live.topic, live.index);
                let state = PartitionDirState::Deleted;
                dir.with_file_name(PartitionDir::marked_name(topic, index, unique, state))
            }
            _ => dir.to_owned(),
        };
        if marked != dir && !ignoring_missing(world.rename(dir, &marked).await, dir)? {
            return Ok(());
        }
        ignoring_missing(world.remove_dir_all(&marked).await, &marked).map(|_| ())
    }
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
