//! Reading: what a fetch may see, out of the cache or off the disk.
//!
//! Plan and act: [`Partition::plan_read`] captures all it needs under the borrow; [`ReadJob`] reads
//! on the partition's shard without it; [`Partition::complete_read`] keeps what was read and
//! answers. Only whole, checked batches leave, and none at or above the isolation's limit.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chronik_io::World;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::epochs::{UNDEFINED_EPOCH, UNDEFINED_OFFSET};
use chronik_protocol::{ErrorCode, Records};
use chronik_terms::{Isolation, ReadPart, ReadResult};
use tracing::error;

use super::read_job::{ReadFailure, Source, Start};
use super::{Closing, Partition, ReadDone, ReadJob};
use crate::cache::{BatchCache, ReadLimits};

/// Sealed segments of one partition whose files stay open between reads.
const OPEN_FILES_MAX: usize = 2;
/// Segments a read looks through for its first batch: more than one only where compaction removed
/// the batches behind an offset up to the segment's end. The next one that is not empty has it.
const SEGMENTS_PER_READ_MAX: usize = 4;

/// How a read is answered.
pub enum ReadPlan<W: World> {
    /// At once.
    Ready(ReadResult),
    /// After the job; see [`Partition::complete_read`].
    Disk(ReadJob<W>),
}

impl<W: World> Partition<W> {
    /// Plans a read. Rejections are `Ready`: FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
    /// OFFSET_OUT_OF_RANGE. `max_bytes` is what is left of the request, and bounds the part's own.
    pub fn plan_read(
        &mut self,
        cache: &mut BatchCache,
        part: &ReadPart,
        isolation: Isolation,
        max_bytes: usize,
        at_least_one: bool,
    ) -> ReadPlan<W> {
        if let Err(code) = self.check_epoch(part.current_leader_epoch) {
            return ReadPlan::Ready(self.read_error(code));
        }
        let offset = part.fetch_offset;
        if offset < self.log_start || offset > self.log_end() {
            return ReadPlan::Ready(self.read_error(ErrorCode::OffsetOutOfRange));
        }
        match self.divergence(part) {
            Ok(None) => {}
            Ok(diverging) => {
                let mut result = self.read_result(isolation, Records::default());
                result.diverging = diverging;
                return ReadPlan::Ready(result);
            }
            Err(code) => return ReadPlan::Ready(self.read_error(code)),
        }
        let limits = ReadLimits {
            fetch_offset: offset,
            end_offset: self.readable_end(isolation),
            max_bytes: max_bytes.min(part.max_bytes),
            at_least_one,
        };
        let nothing = offset >= limits.end_offset || (limits.max_bytes == 0 && !at_least_one);
        let cached = if nothing {
            Some(Records::default())
        } else {
            cache
                .read_tail(self.id, &limits)
                .or_else(|| cache.read_cold(self.id, &limits))
        };
        if let Some(records) = cached {
            return ReadPlan::Ready(self.read_found(isolation, offset, records));
        }
        ReadPlan::Disk(self.read_job(cache, limits, isolation))
    }

    fn read_job(
        &self,
        cache: &mut BatchCache,
        limits: ReadLimits,
        isolation: Isolation,
    ) -> ReadJob<W> {
        ReadJob {
            partition: self.id,
            world: self.world.clone(),
            dir: self.dir.clone(),
            config: Arc::clone(&self.config),
            layout: self.layout,
            sources: self.sources(cache, limits.fetch_offset),
            read_bytes: ReadJob::<W>::read_bytes(&limits),
            limits,
            isolation,
        }
    }

    /// Keeps what was read and answers the reader; or reads once more, if segments were replaced
    /// or removed meanwhile: what was found by their names may be of either.
    pub fn complete_read(&mut self, cache: &mut BatchCache, done: ReadDone<W>) -> ReadPlan<W> {
        assert_eq!(done.partition, self.id, "a read of another partition");
        if done.layout != self.layout && done.limits.fetch_offset >= self.log_start {
            return ReadPlan::Disk(self.read_job(cache, done.limits, done.isolation));
        }
        let (segment, position, bytes) = match done.block {
            Err(ReadFailure::TooLong {
                segment,
                position,
                bytes,
            }) if done.limits.fetch_offset >= self.log_start => (segment, position, bytes),
            _ => return ReadPlan::Ready(self.take_read(cache, done)),
        };
        let mut job = self.read_job(cache, done.limits, done.isolation);
        job.read_bytes = bytes;
        job.sources.retain(|source| source.base_offset >= segment);
        if let Some(first) = job.sources.first_mut()
            && first.base_offset == segment
        {
            first.start = Start::At(position);
        }
        self.take_tools(cache, done.opened, done.index);
        ReadPlan::Disk(job)
    }

    /// Keeps what a read has opened and loaded, for the next.
    fn take_tools(
        &mut self,
        cache: &mut BatchCache,
        opened: Vec<(i64, Rc<W::File>)>,
        index: Option<(i64, Bytes)>,
    ) {
        for (base, file) in opened {
            if let Some(segment) = self.sealed.iter_mut().find(|s| s.base_offset == base) {
                segment.file.get_or_insert(file);
            }
        }
        self.close_surplus_files();
        if let Some((base, bytes)) = index {
            cache.push_index(self.id, base, bytes);
        }
    }

    fn take_read(&mut self, cache: &mut BatchCache, done: ReadDone<W>) -> ReadResult {
        if done.layout == self.layout {
            self.take_tools(cache, done.opened, done.index);
        }
        if done.limits.fetch_offset < self.log_start {
            // Deleted while it was being read.
            return self.read_error(ErrorCode::OffsetOutOfRange);
        }
        match done.block {
            Ok(None) => self.read_result(done.isolation, Records::default()),
            Ok(Some(mut block)) => {
                block.goes_on = cache.cold_end(self.id, done.limits.fetch_offset).is_some();
                let records = Records::from(block.select(&done.limits));
                cache.push_cold(self.id, block);
                self.read_found(done.isolation, done.limits.fetch_offset, records)
            }
            Err(ReadFailure::Corrupt {
                segment,
                position,
                why,
            }) => {
                error!(
                    partition = self.name(),
                    file = %segment_path(&self.dir, segment, FileKind::Log).display(),
                    offset = done.limits.fetch_offset, position, why,
                    "the log is damaged here; what it holds is not served"
                );
                self.read_error(ErrorCode::CorruptMessage)
            }
            Err(ReadFailure::Io(source)) => {
                error!(partition = self.name(), %source, "read failed");
                self.read_error(ErrorCode::KafkaStorageError)
            }
            // The log's start has passed it meanwhile, which was told above.
            Err(ReadFailure::TooLong { .. }) => self.read_error(ErrorCode::OffsetOutOfRange),
        }
    }

    /// Bytes a reader could get from `from_offset` on; 0 outside the log. Within 4 KiB in the
    /// active segment, an estimate by offsets in older ones.
    pub fn bytes_available(&self, from_offset: i64, isolation: Isolation) -> usize {
        let end_offset = self.readable_end(isolation);
        if from_offset < self.log_start || from_offset >= end_offset {
            return 0;
        }
        let active = self.active.base_offset();
        let mut bytes = 0_u64;
        if end_offset > active {
            let from = self.active.position_of(from_offset.max(active));
            // Both may lie behind one entry of the index.
            bytes += self
                .active
                .position_of(end_offset)
                .saturating_sub(from)
                .max(1);
        }
        if from_offset < active {
            for closing in &self.closing {
                let (base, next) = (closing.base_offset(), closing.next_offset());
                bytes += share(from_offset, end_offset, base, next, closing.size_bytes()).max(1);
            }
            let first = self
                .sealed
                .partition_point(|s| s.next_offset <= from_offset);
            for segment in self.sealed.range(first..).filter(|s| s.size_bytes > 0) {
                let (base, next) = (segment.base_offset, segment.next_offset);
                // A share that is rounded to nothing may still be a batch.
                bytes += share(from_offset, end_offset, base, next, segment.size_bytes).max(1);
            }
        }
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    /// `Partition#checkCurrentLeaderEpoch`.
    pub(super) fn check_epoch(&self, current: i32) -> Result<(), ErrorCode> {
        match current {
            UNDEFINED_EPOCH => Ok(()),
            known if known < self.leader_epoch => Err(ErrorCode::FencedLeaderEpoch),
            known if known > self.leader_epoch => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Whether the reader's log has parted from this one (KIP-595).
    fn divergence(&self, part: &ReadPart) -> Result<Option<(i32, i64)>, ErrorCode> {
        let epoch = part.last_fetched_epoch;
        if epoch == UNDEFINED_EPOCH {
            return Ok(None);
        }
        let (known, end) = self.epochs.end_offset_for(epoch, self.log_end());
        if known == UNDEFINED_EPOCH || end == UNDEFINED_OFFSET {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        Ok((known < epoch || end < part.fetch_offset).then_some((known, end)))
    }

    fn sources(&self, cache: &mut BatchCache, offset: i64) -> Vec<Source<W>> {
        let mut sources = Vec::with_capacity(2);
        let first = self
            .sealed
            .partition_point(|segment| segment.next_offset <= offset);
        // Kafka's cleaner leaves segments without a byte, any number of them in a row.
        let filled = self.sealed.range(first..).filter(|s| s.size_bytes > 0);
        for segment in filled.take(SEGMENTS_PER_READ_MAX) {
            let base = segment.base_offset;
            let pinned = segment.pinned.as_ref();
            let start = match cache.cold_end(self.id, offset) {
                Some((block_segment, position)) if block_segment == base => Start::At(position),
                _ if offset <= base => Start::At(0),
                _ if pinned.is_some() => {
                    Start::At(pinned.map_or(0, |index| u64::from(index.offsets.lookup(offset))))
                }
                _ => cache
                    .index(self.id, base)
                    .map_or(Start::LoadIndex, Start::Index),
            };
            let (end_bytes, file) = (segment.size_bytes, segment.file.clone());
            sources.push(Source {
                base_offset: base,
                next_offset: segment.next_offset,
                end_bytes,
                file,
                start,
            });
        }
        for closing in &self.closing {
            if closing.next_offset() > offset && sources.len() < SEGMENTS_PER_READ_MAX {
                sources.push(closing_source(closing, offset));
            }
        }
        if sources.len() < SEGMENTS_PER_READ_MAX {
            sources.push(Source {
                base_offset: self.active.base_offset(),
                next_offset: self.active.written_offset(),
                end_bytes: self.active.written_bytes(),
                file: Some(Rc::clone(self.active.file())),
                start: Start::At(u64::from(self.active.index().offsets.lookup(offset))),
            });
        }
        sources
    }

    /// Closes files of sealed segments beyond the few that readers keep busy; the newest stay.
    pub(super) fn close_surplus_files(&mut self) {
        let open = self
            .sealed
            .iter_mut()
            .rev()
            .filter(|segment| segment.file.is_some() && segment.pinned.is_none());
        for surplus in open.skip(OPEN_FILES_MAX) {
            surplus.file = None;
        }
    }

    fn read_result(&self, isolation: Isolation, records: Records) -> ReadResult {
        ReadResult {
            error: ErrorCode::None,
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log_start,
            leader_epoch: self.leader_epoch,
            diverging: None,
            aborted: (isolation == Isolation::ReadCommitted).then(Vec::new),
            records,
        }
    }

    /// Besides the records, a reader of committed ones learns which transactions among them, from
    /// this offset on, were aborted.
    fn read_found(&self, isolation: Isolation, from: i64, records: Records) -> ReadResult {
        let mut result = self.read_result(isolation, records);
        if let Some(aborted) = &mut result.aborted
            && self.aborted.any_from(from)
            && let Some(last) = result.records.batch_headers().last()
        {
            *aborted = self.aborted.within(from..last.next_offset());
        }
        result
    }

    fn read_error(&self, error: ErrorCode) -> ReadResult {
        ReadResult {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: self.leader_epoch,
            diverging: None,
            aborted: None,
            records: Records::default(),
        }
    }
}

fn closing_source<W: World>(closing: &Closing<W>, offset: i64) -> Source<W> {
    match closing {
        Closing::Draining { segment, .. } => Source {
            base_offset: segment.base_offset(),
            next_offset: segment.written_offset(),
            end_bytes: segment.written_bytes(),
            file: Some(Rc::clone(segment.file())),
            start: Start::At(u64::from(segment.index().offsets.lookup(offset))),
        },
        Closing::Sealing(sealing) => Source {
            base_offset: sealing.segment.base_offset,
            next_offset: sealing.segment.next_offset,
            end_bytes: sealing.segment.size_bytes,
            file: sealing.segment.file.clone(),
            start: Start::At(u64::from(sealing.index.offsets.lookup(offset))),
        },
    }
}

/// The part of a segment's bytes that lies between two offsets, if batches are equally spread.
fn share(from: i64, end: i64, base: i64, next: i64, size_bytes: u64) -> u64 {
    let (from, end) = (from.max(base), end.min(next));
    let (Some(part), Some(whole)) = (end.checked_sub(from), next.checked_sub(base)) else {
        return size_bytes;
    };
    if part <= 0 || whole <= 0 {
        return 0;
    }
    let bytes = u128::from(size_bytes) * part.unsigned_abs() as u128 / whole.unsigned_abs() as u128;
    u64::try_from(bytes).unwrap_or(size_bytes)
}
