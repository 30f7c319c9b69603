//! The part of opening a log that believes what a clean stop left, and checks that it can.
//!
//! Runs on the partition's shard. Reads the few batches behind the last index entry, and never
//! more unless an index is missing or wrong.

use std::path::Path;

use chronik_io::{File, World};
use chronik_protocol::record::{BATCH_HEADER_BYTES, BatchHeader};
use tracing::warn;

use super::reindex::rebuild_indexes;
use super::{Recovery, Walked};
use crate::LogError;
use crate::checkpoint::read_if_present;
use crate::directory::{FileKind, segment_path};
use crate::index::{IndexBuilder, OffsetIndex, TimeIndex};
use crate::inventory::SegmentEntry;
use crate::limits::SIDE_FILE_BYTES_MAX;
use crate::remembered::LastBatch;
use crate::scan::{LogScan, ScanEnd, ScanStep};
use crate::segment::indexed;

impl<W: World> Recovery<'_, W> {
    /// Opens the last segment as it was closed; `None` if it does not look as if it had been.
    pub(super) async fn trusted_tail(
        &mut self,
        segment: &SegmentEntry,
    ) -> Result<Option<Walked<W::File>>, LogError> {
        let path = segment_path(self.dir, segment.base_offset, FileKind::Log);
        let Some((offsets, times)) = self.read_indexes(segment).await? else {
            return Ok(None);
        };
        let mode = self.append_mode();
        let file = self.world.resting_file(&path, mode, segment.log_bytes);
        let (last_indexed, from) = offsets
            .last()
            .unwrap_or((segment.base_offset.saturating_sub(1), 0));
        let mut walked = Walked {
            file,
            index: IndexBuilder::from_files(offsets, times),
            end: ScanEnd::Exact,
            valid_bytes: u64::from(from),
            next_offset: segment.base_offset,
            first_timestamp: None,
            last_batch: None,
        };
        let range = (u64::from(from), segment.log_bytes);
        let failed = LogError::io("reading", &path);
        let base = segment.base_offset;
        let mut scan = LogScan::new(self.world, &walked.file, base, range, base);
        // The entry is that of a batch which stands where it points to, or not far behind, where an
        // old Kafka has appended several at once. Nothing else vouches for its offset.
        let mut is_borne_out = segment.log_bytes == 0 || last_indexed < segment.base_offset;
        let end = async {
            loop {
                match scan.step().await? {
                    ScanStep::Batch {
                        header, position, ..
                    } => {
                        is_borne_out |= header.last_offset() == last_indexed;
                        walked.index.resume(&indexed(&header, position));
                        let crc = header.crc;
                        walked.last_batch = Some(LastBatch { position, crc });
                        walked.next_offset = walked.next_offset.max(header.next_offset());
                    }
                    ScanStep::End(end) => break std::io::Result::Ok(end),
                }
            }
        };
        walked.end = end.await.map_err(failed)?;
        walked.valid_bytes = scan.position();
        self.report.scanned_bytes += walked.valid_bytes.saturating_sub(u64::from(from));
        if walked.end != ScanEnd::Exact {
            warn!(
                file = %path.display(), end = ?walked.end,
                "the log was closed cleanly, but its last segment does not end with a batch; \
                 scanning it"
            );
            return Ok(None);
        }
        if !is_borne_out {
            warn!(
                file = %path.display(), offset = last_indexed, position = from,
                "the segment's index ends with a batch that is not in it; scanning it"
            );
            return Ok(None);
        }
        walked.first_timestamp = self.first_timestamp(&walked.file, &path).await?;
        Ok(Some(walked))
    }

    async fn first_timestamp(&self, file: &W::File, path: &Path) -> Result<Option<i64>, LogError> {
        let bytes = file.read_at(0, BATCH_HEADER_BYTES).await;
        let bytes = bytes.map_err(LogError::io("reading", path))?;
        let timestamp = BatchHeader::peek(&bytes)
            .ok()
            .map(|header| header.max_timestamp);
        Ok(timestamp.filter(|timestamp| *timestamp >= 0))
    }

    /// Both index files of a segment, if they are there and sound.
    async fn read_indexes(
        &self,
        segment: &SegmentEntry,
    ) -> Result<Option<(OffsetIndex, TimeIndex)>, LogError> {
        let base = segment.base_offset;
        if segment.log_bytes == 0 {
            // Never appended to, so never sealed: there is nothing to index.
            return Ok(Some((OffsetIndex::new(base), TimeIndex::new(base))));
        }
        let mut read = Vec::with_capacity(2);
        for kind in [FileKind::Index, FileKind::TimeIndex] {
            let path = segment_path(self.dir, base, kind);
            let bytes = read_if_present(self.world, &path, SIDE_FILE_BYTES_MAX).await;
            read.push(bytes.map_err(LogError::io("reading", &path))?);
        }
        let (Some(times), Some(offsets)) = (read.pop().flatten(), read.pop().flatten()) else {
            warn!(dir = %self.dir.display(), base, "an index of the segment is missing");
            return Ok(None);
        };
        let parsed = OffsetIndex::parse(base, &offsets, segment.log_bytes)
            .and_then(|offsets| Ok((offsets, TimeIndex::parse(base, &times)?)));
        if let Err(fault) = &parsed {
            warn!(dir = %self.dir.display(), base, %fault, "an index of the segment is garbled");
        }
        Ok(parsed.ok())
    }

    /// Rebuilds the indexes of a segment that is not scanned, if their files cannot be right.
    pub(super) async fn mend_indexes(&mut self, segment: &SegmentEntry) -> Result<(), LogError> {
        if segment.has_sound_indexes() {
            return Ok(());
        }
        warn!(
            dir = %self.dir.display(), base = segment.base_offset,
            "an index of the segment is missing or cut off; rebuilding both"
        );
        rebuild_indexes(self.world, self.dir, segment.base_offset, self.config).await?;
        self.report.rebuilt_indexes += 1;
        self.report.scanned_bytes += segment.log_bytes;
        Ok(())
    }
}
