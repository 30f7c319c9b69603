//! Reading: what a fetch may see, out of the cache or off the disk.
//!
//! Plan and act: [`Partition::plan_read`] captures all it needs under the borrow; [`ReadJob`] reads
//! on the partition's shard without it; [`Partition::complete_read`] keeps what was read and
//! answers. Only whole, checked batches leave, and none at or above the isolation's limit.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chronik_io::{File, OpenMode, World};
use chronik_protocol::record::{Scan, scan};
use chronik_protocol::{ErrorCode, Records};
use tracing::error;

use super::{Closing, Partition};
use crate::cache::{BatchCache, ColdBlock, ReadLimits};
use crate::catalog::TopicConfig;
use crate::log::checkpoint::read_if_present;
use crate::log::directory::{FileKind, segment_path};
use crate::log::epochs::{UNDEFINED_EPOCH, UNDEFINED_OFFSET};
use crate::log::index::OffsetIndexView;
use crate::log::recovery::{SIDE_FILE_BYTES_MAX, rebuild_indexes};
use crate::request::{Isolation, PartitionId, ReadPart, ReadResult};

/// Bytes read at once even if less was asked for: the next fetch finds the rest in the cache.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Bytes read at once even if more was asked for; a single longer batch is read whole.
const READ_BYTES_MAX: usize = 4 << 20;
/// Bytes checked before other tasks get their turn.
const SLICE_BYTES: usize = 256 << 10;
/// Sealed segments of one partition whose files stay open between reads.
const OPEN_FILES_MAX: usize = 2;
/// Segments a read looks through for its first batch: more than one only where compaction removed
/// the batches behind an offset up to the segment's end.
const SEGMENTS_PER_READ_MAX: usize = 4;

/// How a read is answered.
pub enum ReadPlan<W: World> {
    /// At once.
    Ready(ReadResult),
    /// After the job; see [`Partition::complete_read`].
    Disk(ReadJob<W>),
}

/// Where in a segment a read begins.
#[derive(Clone)]
enum Start {
    At(u64),
    Index(Bytes),
    /// The index file has to be read first.
    LoadIndex,
}

/// A segment a read may find its batches in.
struct Source<W: World> {
    base_offset: i64,
    end_bytes: u64,
    file: Option<Rc<W::File>>,
    start: Start,
}

/// A read from disk.
#[must_use = "a reader waits for it"]
pub struct ReadJob<W: World> {
    partition: PartitionId,
    world: W,
    dir: PathBuf,
    config: Arc<TopicConfig>,
    sources: Vec<Source<W>>,
    limits: ReadLimits,
    isolation: Isolation,
}

/// What a [`ReadJob`] found.
#[must_use = "a reader waits for it"]
pub struct ReadDone<W: World> {
    partition: PartitionId,
    limits: ReadLimits,
    isolation: Isolation,
    opened: Vec<(i64, Rc<W::File>)>,
    index: Option<(i64, Bytes)>,
    block: Result<Option<ColdBlock>, ReadFailure>,
}

/// Why a read failed.
#[derive(Debug)]
enum ReadFailure {
    Io(std::io::Error),
    Corrupt { segment: i64, position: u64, why: String },
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
            cache.read_tail(self.id, &limits).or_else(|| cache.read_cold(self.id, &limits))
        };
        if let Some(records) = cached {
            return ReadPlan::Ready(self.read_result(isolation, records));
        }
        ReadPlan::Disk(ReadJob {
            partition: self.id,
            world: self.world.clone(),
            dir: self.dir.clone(),
            config: Arc::clone(&self.config),
            sources: self.sources(cache, offset),
            limits,
            isolation,
        })
    }

    /// Keeps what was read and answers the reader.
    pub fn complete_read(&mut self, cache: &mut BatchCache, done: ReadDone<W>) -> ReadResult {
        assert_eq!(done.partition, self.id, "a read of another partition");
        for (base, file) in done.opened {
            if let Some(segment) = self.sealed.iter_mut().find(|s| s.base_offset == base) {
                segment.file.get_or_insert(file);
            }
        }
        self.close_surplus_files();
        if let Some((base, bytes)) = done.index {
            cache.push_index(self.id, base, bytes);
        }
        if done.limits.fetch_offset < self.log_start {
            // Deleted while it was being read.
            return self.read_error(ErrorCode::OffsetOutOfRange);
        }
        match done.block {
            Ok(None) => self.read_result(done.isolation, Records::default()),
            Ok(Some(block)) => {
                let records = Records::from(block.select(&done.limits));
                cache.push_cold(self.id, block);
                self.read_result(done.isolation, records)
            }
            Err(ReadFailure::Corrupt { segment, position, why }) => {
                error!(
                    partition = self.name(), segment, position, why,
                    "the log holds something else than a batch"
                );
                self.read_error(ErrorCode::CorruptMessage)
            }
            Err(ReadFailure::Io(source)) => {
                error!(partition = self.name(), %source, "read failed");
                self.read_error(ErrorCode::KafkaStorageError)
            }
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
            bytes += self.active.position_of(end_offset).saturating_sub(from);
        }
        if from_offset < active {
            for closing in &self.closing {
                let (base, next) = (closing.base_offset(), closing.next_offset());
                bytes += share(from_offset, end_offset, base, next, closing.size_bytes());
            }
            let first = self.sealed.partition_point(|s| s.next_offset <= from_offset);
            for segment in self.sealed.range(first..) {
                let (base, next) = (segment.base_offset, segment.next_offset);
                bytes += share(from_offset, end_offset, base, next, segment.size_bytes);
            }
        }
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
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
        let first = self.sealed.partition_point(|segment| segment.next_offset <= offset);
        for segment in self.sealed.range(first..).take(SEGMENTS_PER_READ_MAX) {
            let base = segment.base_offset;
            let start = match cache.cold_end(self.id, offset) {
                Some((block_segment, position)) if block_segment == base => Start::At(position),
                _ if offset <= base => Start::At(0),
                _ => cache.index(self.id, base).map_or(Start::LoadIndex, Start::Index),
            };
            let (end_bytes, file) = (segment.size_bytes, segment.file.clone());
            sources.push(Source { base_offset: base, end_bytes, file, start });
        }
        for closing in &self.closing {
            if closing.next_offset() > offset && sources.len() < SEGMENTS_PER_READ_MAX {
                sources.push(closing_source(closing, offset));
            }
        }
        if sources.len() < SEGMENTS_PER_READ_MAX {
            sources.push(Source {
                base_offset: self.active.base_offset(),
                end_bytes: self.active.written_bytes(),
                file: Some(Rc::clone(self.active.file())),
                start: Start::At(u64::from(self.active.index().offsets.lookup(offset))),
            });
        }
        sources
    }

    /// Closes files of sealed segments beyond the few that readers keep busy; the newest stay.
    pub(super) fn close_surplus_files(&mut self) {
        let open = self.sealed.iter_mut().rev().filter(|segment| segment.file.is_some());
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
            end_bytes: segment.written_bytes(),
            file: Some(Rc::clone(segment.file())),
            start: Start::At(u64::from(segment.index().offsets.lookup(offset))),
        },
        // Its index is on its way to the disk; the walk from the start is rare and short-lived.
        Closing::Sealing(sealing) => Source {
            base_offset: sealing.segment.base_offset,
            end_bytes: sealing.segment.size_bytes,
            file: sealing.segment.file.clone(),
            start: Start::At(0),
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

impl<W: World> ReadDone<W> {
    /// Whose read it was.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl<W: World> ReadJob<W> {
    /// Whose read it is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Memory the read may take, bytes; a single longer batch may exceed it.
    pub fn bytes_max(&self) -> usize {
        self.chunk_bytes()
    }

    fn chunk_bytes(&self) -> usize {
        self.limits.max_bytes.clamp(READ_AHEAD_BYTES, READ_BYTES_MAX)
    }

    /// Performs it, on the partition's shard.
    pub async fn perform(mut self) -> ReadDone<W> {
        let mut opened = Vec::new();
        let mut index = None;
        let mut block = Ok(None);
        for mut source in std::mem::take(&mut self.sources) {
            block = self.read_source(&mut source, &mut opened, &mut index).await;
            if !matches!(block, Ok(None)) {
                break;
            }
        }
        let ReadJob { partition, limits, isolation, .. } = self;
        ReadDone { partition, limits, isolation, opened, index, block }
    }

    async fn read_source(
        &self,
        source: &mut Source<W>,
        opened: &mut Vec<(i64, Rc<W::File>)>,
        index: &mut Option<(i64, Bytes)>,
    ) -> Result<Option<ColdBlock>, ReadFailure> {
        let base = source.base_offset;
        let file = match &source.file {
            Some(file) => Rc::clone(file),
            None => {
                let path = segment_path(&self.dir, base, FileKind::Log);
                let file = self.world.open_file(&path, OpenMode::Read).await;
                let file = Rc::new(file.map_err(ReadFailure::Io)?);
                opened.push((base, Rc::clone(&file)));
                file
            }
        };
        let by_index = !matches!(source.start, Start::At(_));
        let position = match &source.start {
            Start::At(position) => *position,
            Start::Index(bytes) => lookup(base, bytes, self.limits.fetch_offset).unwrap_or(0),
            Start::LoadIndex => self.load_index(base, index).await?,
        };
        match self.walk(&file, source, position).await {
            Err(ReadFailure::Corrupt { why, .. }) if by_index && position > 0 => {
                // Perhaps only the index is wrong: build it anew, once.
                error!(dir = %self.dir.display(), base, why, "an index leads nowhere; rebuilding it");
                let rebuilt = rebuild_indexes(&self.world, &self.dir, base, &self.config).await;
                let rebuilt = rebuilt.map_err(|e| ReadFailure::Io(std::io::Error::other(e)))?;
                *index = Some((base, Bytes::from(rebuilt.to_bytes())));
                let position = u64::from(rebuilt.lookup(self.limits.fetch_offset));
                self.walk(&file, source, position).await
            }
            read => read,
        }
    }

    /// Reads a sealed segment's index file; makes it anew if it cannot be used.
    async fn load_index(
        &self,
        base: i64,
        index: &mut Option<(i64, Bytes)>,
    ) -> Result<u64, ReadFailure> {
        let path = segment_path(&self.dir, base, FileKind::Index);
        let read = read_if_present(&self.world, &path, SIDE_FILE_BYTES_MAX).await;
        let found = read.map_err(ReadFailure::Io)?.and_then(|bytes| {
            let position = lookup(base, &bytes, self.limits.fetch_offset)?;
            Some((bytes, position))
        });
        if let Some((bytes, position)) = found {
            *index = Some((base, bytes));
            return Ok(position);
        }
        error!(file = %path.display(), "the index is missing or garbled; rebuilding it");
        let rebuilt = rebuild_indexes(&self.world, &self.dir, base, &self.config).await;
        let rebuilt = rebuilt.map_err(|e| ReadFailure::Io(std::io::Error::other(e)))?;
        *index = Some((base, Bytes::from(rebuilt.to_bytes())));
        Ok(u64::from(rebuilt.lookup(self.limits.fetch_offset)))
    }

    /// Reads from `position` on until a chunk holds the batch with the wanted offset; the block
    /// begins with it and holds what else was read.
    async fn walk(
        &self,
        file: &W::File,
        source: &Source<W>,
        mut position: u64,
    ) -> Result<Option<ColdBlock>, ReadFailure> {
        let mut wanted = self.chunk_bytes();
        loop {
            let left = source.end_bytes.saturating_sub(position);
            if left == 0 {
                return Ok(None);
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
            let chunk = file.read_at(position, length).await.map_err(ReadFailure::Io)?;
            let mut found = Walk::new(source.base_offset);
            let end = found.over(&self.world, &chunk, self.limits.fetch_offset).await;
            if let Some(block) = found.into_block(position, &chunk) {
                return Ok(Some(block));
            }
            match end {
                // Everything in the chunk lies before the wanted offset.
                WalkEnd::NeedMore { at, bytes } if bytes as u64 <= left - at as u64 => {
                    position += at as u64;
                    wanted = self.chunk_bytes().max(bytes);
                }
                WalkEnd::NeedMore { at, .. } if at as u64 == left => return Ok(None),
                WalkEnd::NeedMore { at, bytes } => {
                    let why = format!("a batch of {bytes} bytes passes the segment's end");
                    return Err(corrupt(source, position + at as u64, why));
                }
                WalkEnd::Corrupt { at, why } => {
                    return Err(corrupt(source, position + at as u64, why));
                }
            }
        }
    }
}

fn lookup(base: i64, bytes: &[u8], offset: i64) -> Option<u64> {
    let view = OffsetIndexView::new(base, bytes).ok()?;
    Some(u64::from(view.lookup(offset)))
}

fn corrupt<W: World>(source: &Source<W>, position: u64, why: String) -> ReadFailure {
    ReadFailure::Corrupt { segment: source.base_offset, position, why }
}

/// Batches found in a chunk.
struct Walk {
    block: ColdBlock,
    start: Option<usize>,
    end: usize,
}

enum WalkEnd {
    /// `bytes` from `at` on are needed for the next batch.
    NeedMore { at: usize, bytes: usize },
    Corrupt { at: usize, why: String },
}

impl Walk {
    fn new(segment: i64) -> Self {
        Self { block: ColdBlock::builder(segment), start: None, end: 0 }
    }

    /// Checks batch after batch; those from the wanted offset on form the block.
    async fn over<W: World>(&mut self, world: &W, chunk: &[u8], fetch_offset: i64) -> WalkEnd {
        let (mut at, mut slice) = (0, 0);
        loop {
            let rest = chunk.get(at..).unwrap_or_default();
            match scan(rest) {
                Scan::Complete(header) => {
                    let size = header.size_bytes();
                    if self.start.is_some() || header.next_offset() > fetch_offset {
                        let start = *self.start.get_or_insert(at);
                        self.block.note(&header, at - start);
                        self.end = at + size;
                    }
                    at += size;
                    slice += size;
                    if slice > SLICE_BYTES {
                        slice = 0;
                        world.pause().await;
                    }
                }
                Scan::NeedMore(bytes) => return WalkEnd::NeedMore { at, bytes },
                Scan::End => return WalkEnd::Corrupt { at, why: "zeros".to_owned() },
                Scan::Corrupt(error) => return WalkEnd::Corrupt { at, why: error.to_string() },
            }
        }
    }

    fn into_block(self, position: u64, chunk: &Bytes) -> Option<ColdBlock> {
        let start = self.start?;
        let mut block = self.block;
        block.position = position + start as u64;
        block.bytes = chunk.slice(start..self.end);
        Some(block)
    }
}
