//! Opens a partition's log: trusts what is known to be whole, scans the rest, mends what can be
//! rebuilt, and reports what it did.
//!
//! Runs on the shard that will own the partition, before anything is served from it. After a clean
//! stop only the few batches behind the last index entry are read. Otherwise every segment from
//! the recovery point on is scanned (`LogLoader`), cut at the first batch that is not valid, and
//! synced, so that nothing served afterwards can be taken back by a power cut. Never guesses: what
//! is cut was never acknowledged as durable, and what cannot be rebuilt from batches is an error.

mod anew;
mod quarantine;
mod recall;
mod reindex;
mod trusted;

use std::path::Path;

use chronik_io::append::AppendFile;
use chronik_io::{File, World};
use chronik_protocol::record::BatchHeader;
use chronik_terms::topic_settings::TopicConfig;
use tracing::{info, warn};

use super::LogError;
use super::aborted::AbortedTransactions;
use super::checkpoint::{LEADER_EPOCH_FILE, read_if_present};
use super::directory::{FileKind, segment_path};
use super::epochs::LeaderEpochs;
use super::index::IndexBuilder;
use super::inventory::{Inventory, SegmentEntry};
use super::remembered::{LastBatch, RememberedLog};
use super::scan::{LogScan, ScanEnd, ScanStep};
use super::segment::{
    ActiveSegment, SealedSegment, SegmentStart, SideFileSync, append_options, jitter_ms,
    write_indexes,
};
use crate::limits::SIDE_FILE_BYTES_MAX;
use crate::producer_state::ProducerStates;

pub(crate) use crate::segment::indexed;
pub use reindex::{max_timestamp, rebuild_indexes};

/// What the data directory's checkpoints say about a partition; 0 where they say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryHint {
    /// The last stop was a clean one, and the marker said so.
    pub clean: bool,
    /// Everything below this offset is on disk and whole.
    pub recovery_point: i64,
    /// First offset that may be read.
    pub log_start_offset: i64,
    /// Everything the files hold is durable: the file system was synced at this start.
    pub durable: bool,
}

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The log was opened as cleanly closed.
    pub clean: bool,
    /// A checkpoint was believed: nothing that it tells of was read.
    pub remembered: bool,
    /// Bytes of batches that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes behind the last valid batch that held something else than zeros, and were cut.
    pub cut_bytes: u64,
    /// Places where the log is damaged and goes on behind: their records cannot be read.
    pub quarantined: u32,
    /// Segments behind a cut, removed.
    pub dropped_segments: u32,
    /// Segments whose indexes were written anew.
    pub rebuilt_indexes: u32,
    /// Producer state had to be read from batches because no usable snapshot was there.
    pub rebuilt_producers: bool,
    /// Leader epochs had to be read from batches because their file was not usable.
    pub rebuilt_epochs: bool,
    /// Batches an earlier process had acknowledged and not written, put back behind the log's end.
    pub put_back_batches: u64,
    /// First offset that can be read.
    pub log_start: i64,
    /// Offset the next record gets.
    pub log_end: i64,
    /// How long it took.
    pub took_ns: u64,
}

/// An opened log.
pub struct Recovered<W: World> {
    /// All segments but the last, ascending.
    pub sealed: Vec<SealedSegment<W>>,
    /// The last.
    pub active: ActiveSegment<W>,
    /// Who wrote, and what comes next of each.
    pub producers: ProducerStates,
    /// Where each leader epoch begins.
    pub epochs: LeaderEpochs,
    /// Transactions that were aborted, by segment.
    pub aborted: AbortedTransactions,
    /// The epoch file could not be used.
    pub epochs_changed: bool,
    /// The files beside the log are not as a clean stop leaves them.
    pub dirty: bool,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// Opens the log in `dir`, which exists.
pub async fn recover<W: World>(
    world: &W,
    dir: &Path,
    config: &TopicConfig,
    (hint, remembered): (RecoveryHint, Option<RememberedLog>),
    inventory: Inventory,
) -> Result<Recovered<W>, LogError> {
    let started_ns = world.monotonic_ns();
    let mut recovery = Recovery {
        world,
        dir,
        config,
        inventory,
        report: RecoveryReport {
            clean: hint.clean,
            ..RecoveryReport::default()
        },
        producers: ProducerStates::default(),
        producers_from: i64::MAX,
        epochs: LeaderEpochs::default(),
        epochs_from: i64::MAX,
        certain: match hint.clean {
            true => i64::MAX,
            false => hint.recovery_point,
        },
        remembered,
        now_ms: world.now_ms(),
    };
    let mut opened = recovery.run(hint).await?;
    let (indexes, log_end) = (
        &recovery.inventory.transaction_indexes,
        opened.report.log_end,
    );
    opened.aborted = AbortedTransactions::read(world, dir, indexes, log_end).await?;
    opened.report.took_ns = world.monotonic_ns().saturating_sub(started_ns);
    Ok(opened)
}

struct Recovery<'a, W: World> {
    world: &'a W,
    dir: &'a Path,
    config: &'a TopicConfig,
    inventory: Inventory,
    report: RecoveryReport,
    producers: ProducerStates,
    /// Batches from here on are not in `producers` yet.
    producers_from: i64,
    epochs: LeaderEpochs,
    /// Batches from here on are not in `epochs` yet.
    epochs_from: i64,
    remembered: Option<RememberedLog>,
    /// Everything below was written as a whole once: what is not a batch there is damage, no tear.
    certain: i64,
    now_ms: i64,
}

/// A segment after its batches were walked.
struct Walked<F> {
    file: F,
    index: IndexBuilder,
    end: ScanEnd,
    valid_bytes: u64,
    next_offset: i64,
    first_timestamp: Option<i64>,
    last_batch: Option<LastBatch>,
}

impl<W: World> Recovery<'_, W> {
    async fn run(&mut self, hint: RecoveryHint) -> Result<Recovered<W>, LogError> {
        self.drop_below(hint.log_start_offset).await?;
        let first = self.inventory.segments.first().map_or(0, |s| s.base_offset);
        let segments = self.inventory.segments.clone();
        let Some(last) = segments.last().copied() else {
            return self.begin(hint).await;
        };
        let mut tail = None;
        if hint.clean {
            tail = self.closed_tail(&segments);
            if tail.is_none() {
                tail = self.trusted_tail(&last).await?;
            }
        }
        let (mut scan_from, mut resumed) = (segments.len() - 1, None);
        if tail.is_none() {
            self.report.clean = false;
            let above = segments.partition_point(|s| s.base_offset <= hint.recovery_point);
            scan_from = above.saturating_sub(1);
            if let Some((at, walked)) = self.resumed_tail(&segments, scan_from).await? {
                (scan_from, resumed) = (at, Some(walked));
            }
        }
        if !self.report.remembered {
            let trusted_end = match (&tail, segments.get(scan_from)) {
                (Some(tail), _) => tail.next_offset,
                (None, segment) => segment.map_or(0, |segment| segment.base_offset),
            };
            self.load_state(&segments, trusted_end).await?;
        }
        let mut sealed = self.trust_segments(&segments, scan_from).await?;
        let (base_offset, tail) = match tail {
            Some(tail) => (last.base_offset, tail),
            None => {
                self.scan_segments(&segments, (scan_from, resumed), &mut sealed)
                    .await?
            }
        };
        if tail.next_offset < hint.log_start_offset && tail.next_offset <= first {
            return self.restart_at(hint).await;
        }
        let hint = self.believed(hint, first, tail.next_offset);
        self.finish(hint, base_offset, sealed, tail).await
    }

    /// Removes segments that lie below the log's start as a whole. One without a snapshot behind it
    /// is scanned first: what it says of producers is nowhere else. So is a log whose last segment
    /// begins below: it may end before that start, and then keeps what it has.
    async fn drop_below(&mut self, log_start: i64) -> Result<(), LogError> {
        let last = self.inventory.segments.last();
        if last.is_none_or(|last| last.base_offset < log_start) {
            return Ok(());
        }
        while let [first, next, ..] = self.inventory.segments.as_slice()
            && next.base_offset <= log_start
            && self.inventory.has_snapshot(next.base_offset)
        {
            let base = first.base_offset;
            self.inventory
                .remove_segment(self.world, self.dir, base)
                .await?;
        }
        Ok(())
    }

    /// Producer state and leader epochs of everything below `trusted_end`; what the files do not
    /// tell is read from batches.
    async fn load_state(
        &mut self,
        segments: &[SegmentEntry],
        trusted_end: i64,
    ) -> Result<(), LogError> {
        let first = segments.first().map_or(0, |segment| segment.base_offset);
        let (producers, from) = self
            .inventory
            .newest_snapshot(self.world, self.dir, trusted_end, self.now_ms)
            .await?;
        self.producers = producers;
        self.producers_from = from.unwrap_or(first);
        self.load_epochs(trusted_end, first).await?;
        if self.producers_from < trusted_end && first < trusted_end {
            self.report.rebuilt_producers = true;
        }
        if self.epochs_from < trusted_end {
            self.report.rebuilt_epochs = true;
        }
        let from = self.producers_from.min(self.epochs_from);
        if from >= trusted_end {
            return Ok(());
        }
        info!(
            dir = %self.dir.display(), from, to = trusted_end,
            "rebuilding producer state or leader epochs from batches"
        );
        let start = segments.partition_point(|segment| segment.base_offset <= from);
        for segment in segments.iter().skip(start.saturating_sub(1)) {
            if segment.base_offset >= trusted_end {
                break;
            }
            let walked = self.walk(segment, trusted_end).await?;
            self.report.scanned_bytes += walked.valid_bytes;
        }
        Ok(())
    }

    async fn load_epochs(&mut self, trusted_end: i64, first: i64) -> Result<(), LogError> {
        let path = self.dir.join(LEADER_EPOCH_FILE);
        let bytes = read_if_present(self.world, &path, SIDE_FILE_BYTES_MAX).await;
        let bytes = bytes.map_err(LogError::io("reading", &path))?;
        self.epochs_from = match bytes.map(|bytes| LeaderEpochs::parse(&bytes)) {
            Some(Ok(mut epochs)) => {
                epochs.truncate_from_end(trusted_end);
                self.epochs = epochs;
                trusted_end
            }
            Some(Err(error)) => {
                warn!(file = %path.display(), %error, "garbled; rebuilding it from the log");
                first
            }
            None => first,
        };
        Ok(())
    }

    fn note(&mut self, header: &BatchHeader) {
        if header.base_offset >= self.producers_from {
            self.producers.note(header, self.now_ms);
            self.producers_from = header.next_offset();
        }
        if header.base_offset >= self.epochs_from {
            self.epochs
                .assign(header.partition_leader_epoch, header.base_offset);
            self.epochs_from = header.next_offset();
        }
    }

    /// Walks a segment's batches below `until` and takes note of their producers and epochs.
    async fn walk(
        &mut self,
        segment: &SegmentEntry,
        until: i64,
    ) -> Result<Walked<W::File>, LogError> {
        let base = segment.base_offset;
        let path = segment_path(self.dir, base, FileKind::Log);
        let mode = self.append_mode();
        let file = self.world.resting_file(&path, mode, segment.log_bytes);
        let mut index = IndexBuilder::new(base);
        let (mut first_timestamp, mut last_batch) = (None, None);
        let mut scan = LogScan::new(self.world, &file, base, (0, segment.log_bytes), base);
        let into = (&mut index, &mut first_timestamp, &mut last_batch);
        let end = self.walk_on(&mut scan, into, until).await;
        let end = end.map_err(LogError::io("reading", &path))?;
        let (valid_bytes, next_offset) = (scan.position(), scan.next_offset());
        Ok(Walked {
            file,
            index,
            end,
            valid_bytes,
            next_offset,
            first_timestamp,
            last_batch,
        })
    }

    async fn walk_on(
        &mut self,
        scan: &mut LogScan<'_, W>,
        (index, first_timestamp, last_batch): (
            &mut IndexBuilder,
            &mut Option<i64>,
            &mut Option<LastBatch>,
        ),
        until: i64,
    ) -> std::io::Result<ScanEnd> {
        loop {
            match scan.step().await? {
                ScanStep::Batch { header, .. } if header.base_offset >= until => {
                    return Ok(ScanEnd::Exact);
                }
                ScanStep::Batch {
                    header, position, ..
                } => {
                    if position == 0 && header.max_timestamp >= 0 {
                        *first_timestamp = Some(header.max_timestamp);
                    }
                    index.append(
                        &indexed(&header, position),
                        self.config.index_interval_bytes,
                    );
                    let crc = header.crc;
                    *last_batch = Some(LastBatch { position, crc });
                    self.note(&header);
                }
                ScanStep::End(end) => {
                    if !self.quarantine(scan, &end).await? {
                        return Ok(end);
                    }
                    index.index_next();
                }
            }
        }
    }

    /// Scans the segments from the recovery point on. The last one that stays becomes the active
    /// one; what lies behind a tear is dropped, for it was appended later and cannot have been
    /// acknowledged as durable (`LogLoader#recoverLog`). Damage is no tear (`quarantine`).
    async fn scan_segments(
        &mut self,
        segments: &[SegmentEntry],
        (scan_from, mut resumed): (usize, Option<Walked<W::File>>),
        sealed: &mut Vec<SealedSegment<W>>,
    ) -> Result<(i64, Walked<W::File>), LogError> {
        let mut last: Option<(i64, Walked<W::File>)> = None;
        for (at, segment) in segments.iter().enumerate().skip(scan_from) {
            let walked = match resumed.take() {
                Some(walked) => walked,
                None => self.scan_one(segment).await?,
            };
            self.tell_torn(segment, &walked);
            let behind = segments.get(at + 1..).unwrap_or_default();
            let next_base = behind.first().map(|next| next.base_offset);
            let follows = next_base == Some(walked.next_offset);
            let whole = match &walked.end {
                // Compaction leaves gaps, and the topic may have been compacted once: valid batches
                // to the last byte are whole, whatever its settings are by now (`LogLoader#recoverLog`).
                ScanEnd::Exact => follows || self.is_gap(walked.next_offset, behind),
                ScanEnd::Zeros => follows,
                ScanEnd::Torn(_) => false,
            };
            if whole && !follows {
                self.tell_gap(&walked, next_base);
            }
            let whole = whole || self.misses_records(&walked, behind);
            match next_base {
                Some(next_base) if whole => {
                    let base = segment.base_offset;
                    sealed.push(self.seal_scanned(base, next_base, walked).await?);
                }
                _ => {
                    last = Some((segment.base_offset, walked));
                    self.drop_behind(behind).await?;
                    break;
                }
            }
        }
        Ok(last.expect("the last segment, or one before it, ends the loop"))
    }

    async fn scan_one(&mut self, segment: &SegmentEntry) -> Result<Walked<W::File>, LogError> {
        let walked = self.walk(segment, i64::MAX).await?;
        self.report.scanned_bytes += walked.valid_bytes;
        Ok(walked)
    }

    fn tell_torn(&mut self, segment: &SegmentEntry, walked: &Walked<W::File>) {
        if let ScanEnd::Torn(why) = &walked.end {
            let cut = segment.log_bytes.saturating_sub(walked.valid_bytes);
            self.report.cut_bytes += cut;
            warn!(
                dir = %self.dir.display(), base = segment.base_offset, at = walked.valid_bytes,
                cut, why, "cutting the segment behind its last valid batch"
            );
        }
    }

    async fn seal_scanned(
        &mut self,
        base: i64,
        next_offset: i64,
        mut walked: Walked<W::File>,
    ) -> Result<SealedSegment<W>, LogError> {
        let path = segment_path(self.dir, base, FileKind::Log);
        let cut = match walked.file.len() > walked.valid_bytes {
            true => walked.file.set_len(walked.valid_bytes).await,
            false => Ok(()),
        };
        cut.map_err(LogError::io("cutting", &path))?;
        walked
            .file
            .sync_data()
            .await
            .map_err(LogError::io("syncing", &path))?;
        walked.index.finish();
        let (offsets, times) = (
            walked.index.offsets.to_bytes(),
            walked.index.times.to_bytes(),
        );
        if let Err(error) = write_indexes(
            self.world,
            self.dir,
            base,
            (&offsets, &times),
            SideFileSync::Now,
        )
        .await
        {
            // A full disk must not stop a start; who needs the files makes them again.
            warn!(file = %path.display(), %error, "the indexes were rebuilt but not written");
        }
        self.report.rebuilt_indexes += 1;
        Ok(SealedSegment {
            base_offset: base,
            next_offset,
            size_bytes: walked.valid_bytes,
            max_timestamp: Some(walked.index.max_timestamp()),
            since_ms: self.now_ms,
            unsaved_snapshot: self.save_producers(next_offset).await,
            first_timestamp: walked.first_timestamp,
            pinned: None,
            file: None,
        })
    }

    /// Writes the snapshot that belongs behind a segment which was just scanned: it may be removed
    /// before the next start. Gives back what could not be written.
    async fn save_producers(&mut self, offset: i64) -> Option<Vec<u8>> {
        let path = segment_path(self.dir, offset, FileKind::Snapshot);
        let bytes = self.producers.to_snapshot();
        match self.world.write_file_atomic(&path, &bytes).await {
            Ok(()) => {
                self.inventory.note_snapshot(offset);
                None
            }
            Err(error) => {
                warn!(file = %path.display(), %error, "producer snapshot not written");
                Some(bytes)
            }
        }
    }

    async fn drop_behind(&mut self, segments: &[SegmentEntry]) -> Result<(), LogError> {
        // From the end, so that a crash on the way leaves no gap.
        for segment in segments.iter().rev() {
            warn!(
                dir = %self.dir.display(), base = segment.base_offset,
                "removing a segment behind the log's valid end"
            );
            self.inventory
                .remove_segment(self.world, self.dir, segment.base_offset)
                .await?;
            self.report.dropped_segments += 1;
        }
        Ok(())
    }

    async fn finish(
        &mut self,
        hint: RecoveryHint,
        base_offset: i64,
        sealed: Vec<SealedSegment<W>>,
        tail: Walked<W::File>,
    ) -> Result<Recovered<W>, LogError> {
        let path = segment_path(self.dir, base_offset, FileKind::Log);
        if !self.report.clean && tail.valid_bytes > 0 && !hint.durable {
            // What a killed process wrote may sit in the device's cache: consumers may read it
            // from now on, so it has to be where a power cut cannot take it back.
            tail.file
                .sync_data()
                .await
                .map_err(LogError::io("syncing", &path))?;
        }
        let log_end = tail.next_offset;
        let options = append_options(self.config);
        let closed = self.report.clean && self.report.remembered;
        let file = match closed || hint.durable {
            true => Ok(AppendFile::resting(tail.file, tail.valid_bytes, options)),
            false => AppendFile::over(tail.file, tail.valid_bytes, options).await,
        };
        let file = file.map_err(LogError::io("cutting", &path))?;
        self.inventory
            .remove_stray_snapshots(self.world, self.dir, log_end)
            .await?;
        let first = sealed
            .first()
            .map_or(base_offset, |segment| segment.base_offset);
        let log_start = hint.log_start_offset.max(first).min(log_end);
        self.epochs.truncate_from_end(log_end);
        self.epochs.truncate_from_start(log_start);
        let epochs_changed = self.report.rebuilt_epochs && !self.epochs.is_empty();
        let start = SegmentStart {
            base_offset,
            next_offset: log_end,
            rolling_timestamp: tail.first_timestamp,
            created_ms: self.now_ms,
            jitter_ms: jitter_ms(self.config, self.world.random_u64()),
            last_batch: tail.last_batch,
        };
        let mut report = std::mem::take(&mut self.report);
        let untouched = self
            .remembered
            .as_ref()
            .is_some_and(|log| (log.closed, log.active.next_offset) == (true, log_end));
        // A killed Kafka leaves indexes of many zeros even beside a log without a batch.
        let dirty = !(report.clean || report.remembered && untouched);
        (report.log_start, report.log_end) = (log_start, log_end);
        Ok(Recovered {
            sealed,
            active: ActiveSegment::new(file, tail.index, start),
            producers: std::mem::take(&mut self.producers),
            epochs: std::mem::take(&mut self.epochs),
            aborted: AbortedTransactions::default(),
            epochs_changed,
            dirty,
            report,
        })
    }
}
