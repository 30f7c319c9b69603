//! Reading from disk on behalf of a fetch: find the segment's position, read, check, answer.
//!
//! Runs on the partition's shard without borrowing the partition: a job owns all it needs. Every
//! batch is checked (length, CRC, offsets) before it leaves. Never holds more than it was charged for:
//! for a longer batch it says how much it needs. Changes nothing but an index file that turns out to
//! be missing or wrong.

use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chronik_io::{File, OpenMode, World};
use chronik_log::checkpoint::read_if_present;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::index::OffsetIndexView;
use chronik_log::limits::SIDE_FILE_BYTES_MAX;
use chronik_log::recovery::rebuild_indexes;
use chronik_log::scan::{HELD_BYTES_MAX, LogScan};
use chronik_protocol::record::{BatchHeader, Scan, scan};
use chronik_terms::topic_settings::TopicConfig;
use chronik_terms::{Isolation, PartitionId};
use tracing::error;

use crate::cache::{ColdBlock, ReadLimits, slice_or_copy};
use crate::limits::BATCH_BYTES_MAX;

/// Bytes read at once even if less was asked for: the next fetch finds the rest in the cache.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Bytes read at once even if more was asked for; a single longer batch is read whole.
const READ_BYTES_MAX: usize = HELD_BYTES_MAX;
/// Bytes read at once by a job that is one of many, if no more was asked for.
const SPARING_BYTES: usize = 64 << 10;
/// Bytes that are checked on the shard; more would keep its other tasks waiting.
const CHECKED_HERE_BYTES_MAX: usize = 128 << 10;

/// Where in a segment a read begins.
#[derive(Clone)]
pub(super) enum Start {
    At(u64),
    Index(Bytes),
    /// The index file has to be read first.
    LoadIndex,
}

/// A segment a read may find its batches in.
pub(super) struct Source<W: World> {
    pub(super) base_offset: i64,
    /// Behind its last record.
    pub(super) next_offset: i64,
    pub(super) end_bytes: u64,
    pub(super) file: Option<Rc<W::File>>,
    pub(super) start: Start,
}

/// A read from disk.
#[must_use = "a reader waits for it"]
pub struct ReadJob<W: World> {
    pub(super) partition: PartitionId,
    pub(super) world: W,
    pub(super) dir: PathBuf,
    pub(super) config: Arc<TopicConfig>,
    /// Which segments there were.
    pub(super) layout: u64,
    pub(super) sources: Vec<Source<W>>,
    pub(super) limits: ReadLimits,
    pub(super) isolation: Isolation,
    /// Bytes it reads, and holds, at once.
    pub(super) read_bytes: usize,
}

/// What a [`ReadJob`] found.
#[must_use = "a reader waits for it"]
pub struct ReadDone<W: World> {
    pub(super) partition: PartitionId,
    pub(super) layout: u64,
    pub(super) limits: ReadLimits,
    pub(super) isolation: Isolation,
    pub(super) read_bytes: usize,
    pub(super) opened: Vec<(i64, Rc<W::File>)>,
    pub(super) index: Option<(i64, Bytes)>,
    pub(super) block: Result<Option<ColdBlock>, ReadFailure>,
}

/// Why a read failed.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The batch that is wanted is longer than what the job may hold.
    TooLong {
        segment: i64,
        position: u64,
        bytes: usize,
    },
    Io(std::io::Error),
    Corrupt {
        segment: i64,
        position: u64,
        why: String,
    },
}

impl<W: World> ReadDone<W> {
    /// How many bytes were wanted, and whether one batch whatever its length.
    pub fn asked(&self) -> (usize, bool) {
        (self.limits.max_bytes, self.limits.at_least_one)
    }

    /// Whose read it was.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// As of its job.
    pub fn bytes_max(&self) -> usize {
        self.read_bytes
    }
}

impl<W: World> ReadJob<W> {
    /// Whose read it is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Memory the read takes at most, bytes.
    pub fn bytes_max(&self) -> usize {
        self.read_bytes
    }

    /// What is read at once for a reader with these limits.
    pub(super) fn read_bytes(limits: &ReadLimits) -> usize {
        limits.max_bytes.clamp(READ_AHEAD_BYTES, READ_BYTES_MAX)
    }

    /// The same read without what is read besides what was asked for: one of so many that no cache
    /// could keep it for the next.
    pub fn sparing(mut self) -> Self {
        let enough = self.limits.max_bytes.saturating_mul(2).max(SPARING_BYTES);
        self.read_bytes = self.read_bytes.min(enough);
        self
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
        let ReadJob {
            partition,
            layout,
            limits,
            isolation,
            read_bytes,
            ..
        } = self;
        ReadDone {
            partition,
            layout,
            limits,
            isolation,
            read_bytes,
            opened,
            index,
            block,
        }
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
        let from_index = by_index && position > 0;
        match self.walk(&file, source, position, from_index).await {
            Err(ReadFailure::Corrupt {
                position: at, why, ..
            }) if from_index && at == position => {
                // No batch where the index points to: build it anew. Where the log itself is
                // damaged the new one stops before that, so this happens once.
                error!(dir = %self.dir.display(), base, why, "an index leads nowhere; rebuilding it");
                let rebuilt = rebuild_indexes(&self.world, &self.dir, base, &self.config).await;
                let rebuilt = rebuilt.map_err(|e| ReadFailure::Io(std::io::Error::other(e)))?;
                *index = Some((base, Bytes::from(rebuilt.offsets.to_bytes())));
                let position = u64::from(rebuilt.offsets.lookup(self.limits.fetch_offset));
                self.walk(&file, source, position, false).await
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
        *index = Some((base, Bytes::from(rebuilt.offsets.to_bytes())));
        Ok(u64::from(rebuilt.offsets.lookup(self.limits.fetch_offset)))
    }

    /// Reads from `start` on (an index may have told it) until a chunk holds the batch with the wanted
    /// offset; the block begins with it and holds what else was read.
    async fn walk(
        &self,
        file: &W::File,
        source: &Source<W>,
        start: u64,
        from_index: bool,
    ) -> Result<Option<ColdBlock>, ReadFailure> {
        let mut position = start;
        loop {
            let left = source.end_bytes.saturating_sub(position);
            if left == 0 {
                return Ok(None);
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX);
            let length = length.min(self.read_bytes);
            let chunk = file
                .read_at(position, length)
                .await
                .map_err(ReadFailure::Io)?;
            if from_index && position == start && self.is_too_far(&chunk) {
                let why = "an index points behind the offset asked for".to_owned();
                return Err(corrupt(source, start, why));
            }
            let (found, end) = self.check(source, (position, chunk.clone())).await?;
            if let Some(block) = found {
                return Ok(Some(block));
            }
            if chunk.len() < length {
                let why = "the file is shorter than its segment".to_owned();
                return Err(corrupt(source, position + chunk.len() as u64, why));
            }
            match end {
                WalkEnd::NeedMore { at, bytes }
                    if bytes > self.read_bytes && bytes as u64 <= left - at as u64 =>
                {
                    let chunk = chunk.slice(at..);
                    match self
                        .long(file, source, (position + at as u64, &chunk))
                        .await?
                    {
                        Long::EndsAt(end) => position = end,
                        Long::NotGiven => return Ok(Some(ColdBlock::builder(source.base_offset))),
                    }
                }
                // Everything in the chunk lies before the wanted offset.
                WalkEnd::NeedMore { at, bytes } if bytes as u64 <= left - at as u64 => {
                    position += at as u64;
                }
                WalkEnd::NeedMore { at, .. } if at as u64 == left => return Ok(None),
                WalkEnd::NeedMore { at, bytes } => {
                    let why = format!("a batch of {bytes} bytes passes the segment's end");
                    position = self.pass(file, source, position + at as u64, why).await?;
                }
                WalkEnd::Corrupt { at, why } => {
                    if from_index && position + at as u64 == start {
                        return Err(corrupt(source, start, why));
                    }
                    position = self.pass(file, source, position + at as u64, why).await?;
                }
            }
        }
    }

    /// Looks at a batch longer than what is held, of which `front` was read: only if it is the wanted
    /// one and may be given, it has to be held.
    async fn long(
        &self,
        file: &W::File,
        source: &Source<W>,
        (position, front): (u64, &[u8]),
    ) -> Result<Long, ReadFailure> {
        let segment = source.base_offset;
        let header = match BatchHeader::peek(front) {
            Ok(header) => header,
            Err(fault) => return Err(corrupt(source, position, fault.to_string())),
        };
        let bytes = header.size_bytes();
        let mut fault = None;
        if bytes > HELD_BYTES_MAX {
            // So long on the word of a length field alone? All of it is checked first.
            let range = (position, source.end_bytes);
            let scan = LogScan::new(&self.world, file, segment, range, segment);
            let checked = scan.fault_of_long(position, &header).await;
            fault = checked.map_err(ReadFailure::Io)?;
        }
        if let Some(fault) = fault {
            let end = self.pass(file, source, position, fault.to_string()).await?;
            return Ok(Long::EndsAt(end));
        }
        if header.next_offset() <= self.limits.fetch_offset {
            return Ok(Long::EndsAt(position + bytes as u64));
        }
        if !self.limits.admits(header.next_offset(), bytes, 0) {
            return Ok(Long::NotGiven);
        }
        if bytes > BATCH_BYTES_MAX {
            let why = format!("a batch of {bytes} bytes fits into no answer");
            return Err(corrupt(source, position, why));
        }
        Err(ReadFailure::TooLong {
            segment,
            position,
            bytes,
        })
    }

    /// An index entry is that of a batch which ends at or before the offset asked for; one of another
    /// segment's index may not be.
    fn is_too_far(&self, chunk: &Bytes) -> bool {
        BatchHeader::peek(chunk).is_ok_and(|first| first.last_offset() > self.limits.fetch_offset)
    }

    /// Looks for the wanted batches in a chunk; a large one is checked off the shard's core.
    async fn check(
        &self,
        source: &Source<W>,
        (position, chunk): (u64, Bytes),
    ) -> Result<(Option<ColdBlock>, WalkEnd), ReadFailure> {
        let (offsets, wanted) = (
            source.base_offset..source.next_offset,
            self.limits.fetch_offset,
        );
        let is_small = chunk.len() <= CHECKED_HERE_BYTES_MAX;
        let walk = move || {
            let mut walk = Walk::new(offsets);
            let end = walk.over(&chunk, wanted);
            (walk.into_block(position, &chunk), end)
        };
        if is_small {
            return Ok(walk());
        }
        self.world.compute(walk).await.map_err(ReadFailure::Io)
    }

    /// Where to go on behind a damaged place, if the wanted offset is not in it.
    async fn pass(
        &self,
        file: &W::File,
        source: &Source<W>,
        position: u64,
        why: String,
    ) -> Result<u64, ReadFailure> {
        let (base, end) = (source.base_offset, source.end_bytes);
        let mut scan = LogScan::new(&self.world, file, base, (position, end), base);
        match scan.resync().await.map_err(ReadFailure::Io)? {
            Some((next, offset)) if offset <= self.limits.fetch_offset => Ok(next),
            _ => Err(corrupt(source, position, why)),
        }
    }
}

fn lookup(base: i64, bytes: &[u8], offset: i64) -> Option<u64> {
    let view = OffsetIndexView::new(base, bytes).ok()?;
    Some(u64::from(view.lookup(offset)))
}

fn corrupt<W: World>(source: &Source<W>, position: u64, why: String) -> ReadFailure {
    ReadFailure::Corrupt {
        segment: source.base_offset,
        position,
        why,
    }
}

/// What becomes of a batch that is longer than what is held.
enum Long {
    /// It lies before the wanted offset, or is damaged: what is wanted may follow here.
    EndsAt(u64),
    /// It is wanted and more than the reader takes.
    NotGiven,
}

/// Batches found in a chunk.
struct Walk {
    block: ColdBlock,
    /// What may follow: a batch's checksum does not cover its offset.
    offsets: Range<i64>,
    start: Option<usize>,
    end: usize,
}

enum WalkEnd {
    /// `bytes` from `at` on are needed for the next batch.
    NeedMore {
        at: usize,
        bytes: usize,
    },
    Corrupt {
        at: usize,
        why: String,
    },
}

impl Walk {
    /// In a segment that holds these offsets.
    fn new(offsets: Range<i64>) -> Self {
        Self {
            block: ColdBlock::builder(offsets.start),
            offsets,
            start: None,
            end: 0,
        }
    }

    /// Checks batch after batch; those from the wanted offset on form the block.
    fn over(&mut self, chunk: &[u8], fetch_offset: i64) -> WalkEnd {
        let mut at = 0;
        loop {
            let rest = chunk.get(at..).unwrap_or_default();
            match scan(rest) {
                Scan::Complete(header) if !self.fits(&header) => {
                    return WalkEnd::Corrupt {
                        at,
                        why: format!(
                            "offsets {} to {} cannot be here",
                            header.base_offset,
                            header.last_offset()
                        ),
                    };
                }
                Scan::Complete(header) => {
                    let size = header.size_bytes();
                    self.offsets.start = header.next_offset();
                    if self.start.is_some() || header.next_offset() > fetch_offset {
                        let start = *self.start.get_or_insert(at);
                        self.block.note(&header, at - start);
                        self.end = at + size;
                    }
                    at += size;
                }
                Scan::NeedMore(bytes) => return WalkEnd::NeedMore { at, bytes },
                Scan::End => {
                    return WalkEnd::Corrupt {
                        at,
                        why: "zeros".to_owned(),
                    };
                }
                Scan::Corrupt(error) => {
                    return WalkEnd::Corrupt {
                        at,
                        why: error.to_string(),
                    };
                }
            }
        }
    }

    fn fits(&self, header: &BatchHeader) -> bool {
        header.base_offset >= self.offsets.start && header.next_offset() <= self.offsets.end
    }

    fn into_block(self, position: u64, chunk: &Bytes) -> Option<ColdBlock> {
        let start = self.start?;
        let mut block = self.block;
        block.position = position + start as u64;
        block.bytes = slice_or_copy(chunk, start..self.end);
        Some(block)
    }
}
