//! The part of opening a log that takes a checkpoint's word for it, as far as the files bear it out.
//!
//! Runs on the partition's shard. After a clean stop the directory's list has to be the one that
//! stop left, to the byte and the nanosecond; then nothing is read at all. Otherwise the last batch
//! told of is read and compared, and the log is scanned from there. Never believes half of it.

use chronik_io::{OpenOptions, World};
use tracing::warn;

use super::{Recovery, Walked};
use crate::LogError;
use crate::directory::{FileKind, segment_path};
use crate::epochs::LeaderEpochs;
use crate::inventory::SegmentEntry;
use crate::producer_state::ProducerStates;
use crate::remembered::RememberedLog;
use crate::scan::{LogScan, ScanEnd, ScanStep};
use crate::segment::SealedSegment;

impl<W: World> Recovery<'_, W> {
    /// The last segment as a clean stop left it, if the checkpoint fits the directory.
    pub(super) fn closed_tail(&mut self, segments: &[SegmentEntry]) -> Option<Walked<W::File>> {
        let log = self.remembered.take_if(|log| log.is_as_closed(segments))?;
        let last = segments.last()?;
        let index = log.index()?;
        let path = segment_path(self.dir, last.base_offset, FileKind::Log);
        let file = self
            .world
            .resting_file(&path, self.append_mode(), last.log_bytes);
        self.adopt(&log)?;
        let tail = Walked {
            file,
            index,
            end: ScanEnd::Exact,
            valid_bytes: log.active.end,
            next_offset: log.active.next_offset,
            first_timestamp: log.active.rolling_timestamp,
            last_batch: log.active.last_batch,
        };
        self.report.remembered = true;
        self.remembered = Some(log);
        Some(tail)
    }

    /// Walks on from where the checkpoint ends; `None` if there is none, if it is older than what is
    /// known to be whole (`scan_from` on is not), or if the log is another one by now.
    pub(super) async fn resumed_tail(
        &mut self,
        segments: &[SegmentEntry],
        scan_from: usize,
    ) -> Result<Option<(usize, Walked<W::File>)>, LogError> {
        let Some(log) = self.remembered.take() else {
            return Ok(None);
        };
        let place = log.continues_in(segments);
        let resumed = match place.and_then(|at| Some((at, segments.get(at)?))) {
            Some((at, _)) if at < scan_from => return Ok(None),
            Some((at, segment)) => self.resume(&log, segment).await?.map(|walked| (at, walked)),
            None => None,
        };
        match resumed {
            Some(_) => {
                self.report.remembered = true;
                self.remembered = Some(log);
            }
            None => warn!(
                dir = %self.dir.display(),
                "the checkpoint of this log does not fit its files; reading them"
            ),
        }
        Ok(resumed)
    }

    async fn resume(
        &mut self,
        log: &RememberedLog,
        segment: &SegmentEntry,
    ) -> Result<Option<Walked<W::File>>, LogError> {
        let (active, base) = (&log.active, segment.base_offset);
        let Some(mut index) = log.index() else {
            return Ok(None);
        };
        let path = segment_path(self.dir, base, FileKind::Log);
        let file = self
            .world
            .resting_file(&path, self.append_mode(), segment.log_bytes);
        let from = active.last_batch.map_or(0, |last| last.position);
        let mut scan = LogScan::new(self.world, &file, base, (from, segment.log_bytes), base);
        if let Some(last) = active.last_batch {
            let step = scan.step().await.map_err(LogError::io("reading", &path))?;
            let ScanStep::Batch { header, .. } = step else {
                return Ok(None);
            };
            let told = (last.crc, active.next_offset, active.end);
            if (header.crc, header.next_offset(), scan.position()) != told {
                return Ok(None);
            }
        }
        if self.adopt(log).is_none() {
            return Ok(None);
        }
        let mut last_batch = active.last_batch;
        let mut first_timestamp = active.rolling_timestamp;
        let end = self
            .walk_on(
                &mut scan,
                (&mut index, &mut first_timestamp, &mut last_batch),
                i64::MAX,
            )
            .await
            .map_err(LogError::io("reading", &path))?;
        let (valid_bytes, next_offset) = (scan.position(), scan.next_offset());
        self.report.scanned_bytes += valid_bytes.saturating_sub(active.end);
        Ok(Some(Walked {
            file,
            index,
            end,
            valid_bytes,
            next_offset: next_offset.max(active.next_offset),
            first_timestamp,
            last_batch,
        }))
    }

    /// Takes over what the checkpoint says of producers and epochs.
    fn adopt(&mut self, log: &RememberedLog) -> Option<()> {
        self.producers = ProducerStates::remembered(&log.producers)?;
        self.epochs = LeaderEpochs::remembered(&log.epochs)?;
        self.producers_from = log.active.next_offset;
        self.epochs_from = log.active.next_offset;
        Some(())
    }

    /// The segments that are not scanned, their indexes mended where they cannot be right.
    pub(super) async fn trust_segments(
        &mut self,
        segments: &[SegmentEntry],
        count: usize,
    ) -> Result<Vec<SealedSegment<W>>, LogError> {
        let mut sealed = Vec::with_capacity(segments.len());
        for (at, segment) in segments.iter().take(count).enumerate() {
            self.mend_indexes(segment).await?;
            let next = segments
                .get(at + 1)
                .map_or(segment.base_offset, |next| next.base_offset);
            let remembered = self.remembered.as_ref();
            let max_timestamp = remembered.and_then(|log| log.max_timestamp(segment));
            sealed.push(SealedSegment {
                base_offset: segment.base_offset,
                next_offset: next,
                size_bytes: segment.log_bytes,
                max_timestamp,
                since_ms: self.now_ms,
                unsaved_snapshot: None,
                first_timestamp: None,
                pinned: None,
                file: None,
            });
        }
        Ok(sealed)
    }

    pub(super) fn append_mode(&self) -> OpenOptions {
        let mut options = OpenOptions::from(chronik_io::OpenMode::ReadWrite);
        options.write_through = super::append_options(self.config).writes_through();
        options
    }
}
