//! Reading the metadata log: batch by batch into an image; and all of it from its files, without opening
//! it, for whoever has to know what it says before anything is changed.
//!
//! Runs on the designated shard at start, or on a doctor's. Never writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chronik_catalog::Image;
use chronik_catalog::batches::{FramingError, read_batch, read_control};
use chronik_catalog::replay::Transactions;
use chronik_catalog::versions::METADATA_VERSION_FEATURE;
use chronik_io::{DirEntry, File, OpenMode, World};
use chronik_log::directory::{FileKind, SegmentFile};
use chronik_log::scan::{LogScan, ScanEnd, ScanStep};
use chronik_protocol::Uuid;
use chronik_protocol::record::CheckedBatch;
use chronik_protocol::records_of::MetadataRecord;

use super::{CatalogueError, metadata_directory, snapshots};

/// Beside the metadata log: what a log that begins is to begin with (`BootstrapDirectory`).
const BOOTSTRAP_FILE: &str = "bootstrap.checkpoint";

/// A log as far as it was read.
pub(crate) struct Reading {
    /// What it says.
    pub(crate) image: Image,
    /// Topics removed by records that are still in the log.
    pub(crate) removed: BTreeSet<Uuid>,
    transactions: Transactions,
    /// Records below are in the snapshot the image came from.
    snapshot_end: i64,
}

impl Reading {
    /// Begins with what a snapshot says of everything below `snapshot_end`.
    pub(super) fn new(image: Image, snapshot_end: i64) -> Reading {
        Reading {
            image,
            removed: BTreeSet::new(),
            transactions: Transactions::default(),
            snapshot_end,
        }
    }

    /// Takes the next batch.
    ///
    /// # Errors
    /// When it cannot be read, or contradicts what came before.
    pub(super) fn batch(&mut self, batch: &CheckedBatch) -> Result<(), CatalogueError> {
        for control in read_control(batch)? {
            self.image.apply_control(batch, &control)?;
        }
        for (offset, record) in read_batch(batch)? {
            if offset < self.snapshot_end {
                continue;
            }
            if let MetadataRecord::RemoveTopic(record) = &record {
                self.removed.insert(record.topic_id);
            }
            self.transactions.apply(&mut self.image, record)?;
        }
        self.image.offset = batch.header.last_offset();
        self.image.epoch = batch.header.partition_leader_epoch;
        self.image.timestamp_ms = batch.header.max_timestamp;
        Ok(())
    }

    /// Whether the log ends within a transaction of its last controller.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.transactions.is_open()
    }
}

/// Reads everything below `data` that the catalogue would be opened from into `empty`.
///
/// # Errors
/// When it could not be opened.
pub(crate) async fn read_only<W: World>(
    world: &W,
    data: &Path,
    empty: Image,
) -> Result<Reading, CatalogueError> {
    let directory = metadata_directory(data);
    let mut image = empty;
    let snapshot = snapshots::load_newest(world, &directory, &mut image).await?;
    let snapshot_end = snapshot.map_or(0, |id| id.end_offset);
    let mut reading = Reading::new(image, snapshot_end);
    let segments = segments(world, &directory).await?;
    if let Some((log_start, ..)) = segments.first().filter(|(start, ..)| *start > snapshot_end) {
        return Err(CatalogueError::Gap {
            log_start: *log_start,
            snapshot_end,
        });
    }
    let ends = segments.iter().skip(1).map(|(next, ..)| *next);
    let ends: Vec<i64> = ends.chain([i64::MAX]).collect();
    let count = segments.len();
    for (at, ((base_offset, path, len), end)) in segments.into_iter().zip(ends).enumerate() {
        if end > snapshot_end {
            let end = read_segment(world, (base_offset, &path, len), &mut reading).await?;
            match end {
                // The last one may end in what a crash left.
                ScanEnd::Torn(reason) if at + 1 < count => {
                    let message = format!("{}: {reason}", path.display());
                    return Err(
                        std::io::Error::new(std::io::ErrorKind::InvalidData, message).into(),
                    );
                }
                _ => {}
            }
        }
    }
    for record in bootstrap(world, data, &reading.image).await? {
        reading.image.apply(&record)?;
    }
    Ok(reading)
}

/// Base offset, path and bytes of each segment, in order.
async fn segments<W: World>(
    world: &W,
    directory: &Path,
) -> Result<Vec<(i64, PathBuf, u64)>, CatalogueError> {
    let entries = match world.list_dir(directory).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let parsed = entries.into_iter().filter_map(|entry: DirEntry| {
        let file = SegmentFile::parse(entry.name.to_str()?)?;
        let is_log = file.kind == FileKind::Log && file.leftover.is_none();
        is_log.then(|| (file.offset, directory.join(&entry.name), entry.len))
    });
    let mut segments: Vec<_> = parsed.collect();
    segments.sort();
    Ok(segments)
}

async fn read_segment<W: World>(
    world: &W,
    (base_offset, path, len): (i64, &Path, u64),
    reading: &mut Reading,
) -> Result<ScanEnd, CatalogueError> {
    let file = world.open_file(path, OpenMode::Read).await?;
    let mut scan = LogScan::new(world, &file, base_offset, (0, len), base_offset);
    let end = loop {
        match scan.step().await? {
            ScanStep::Batch { .. } => {
                let bytes = scan.batch_bytes().await?;
                let (batch, _) = CheckedBatch::parse_first(bytes).map_err(FramingError::from)?;
                if batch.header.next_offset() > reading.snapshot_end {
                    reading.batch(&batch)?;
                }
            }
            ScanStep::End(end) => break end,
        }
    };
    file.close().await?;
    Ok(end)
}

/// What a log that has not begun is to begin with, as its directory was formatted; nothing for one
/// that has.
///
/// # Errors
/// When the file is there and cannot be read.
pub(super) async fn bootstrap<W: World>(
    world: &W,
    data: &Path,
    image: &Image,
) -> Result<Vec<MetadataRecord>, CatalogueError> {
    if image.features.contains_key(METADATA_VERSION_FEATURE) {
        return Ok(Vec::new());
    }
    let path = data.join(BOOTSTRAP_FILE);
    let max = crate::limits::METADATA_SNAPSHOT_BYTES_MAX;
    let mut rest = match world.read_file(&path, max).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        content => content?,
    };
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (batch, after) = CheckedBatch::parse_first(rest).map_err(FramingError::from)?;
        rest = after;
        records.extend(read_batch(&batch)?.into_iter().map(|(_, record)| record));
    }
    Ok(records)
}
