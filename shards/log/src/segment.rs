//! Segments: the one that is appended to, and what it becomes.
//!
//! Owned by a partition on its shard. `ActiveSegment` → [`ActiveSegment::seal`] → [`SealJob`] →
//! `SealedSegment`: a sealed segment cannot be appended to, by type. State code never awaits; the
//! jobs do. Never decides about offsets or producers.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chronik_io::append::{
    AppendError, AppendFile, AppendOptions, JobResult, SyncJob, SyncMode, WriteJob, ZeroJob,
};
use chronik_io::{File, World};
use chronik_protocol::record::BatchHeader;

use super::directory::{FileKind, segment_path};
use super::index::{IndexBuilder, IndexedBatch};
use super::remembered::{LastBatch, RememberedActive, RememberedSegment};

use chronik_terms::topic_settings::{Durability, TopicConfig};

/// What the log needs to know of a batch besides its bytes; offsets are the assigned ones.
#[derive(Clone, Copy, Debug)]
pub struct BatchFacts {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Greatest timestamp in it, ms.
    pub max_timestamp: i64,
    /// Its whole length.
    pub size_bytes: u32,
    /// Its checksum.
    pub crc: u32,
}

/// A batch that was appended and is not yet written.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u64,
    next_offset: i64,
}

/// The segment that is appended to.
pub struct ActiveSegment<W: World> {
    base_offset: i64,
    file: AppendFile<W::File>,
    index: IndexBuilder,
    next_offset: i64,
    /// Timestamp of the first batch, from which `segment.ms` counts.
    rolling_timestamp: Option<i64>,
    /// From here it counts when the first batch has no timestamp.
    created_ms: i64,
    jitter_ms: u64,
    unwritten: VecDeque<Mark>,
    written: Mark,
    durable_offset: i64,
    /// The place a sync in flight will make durable.
    syncing: Option<Mark>,
    last_batch: Option<LastBatch>,
}

/// How a segment's file is opened under a topic's settings.
pub fn append_options(config: &TopicConfig) -> AppendOptions {
    AppendOptions {
        sync: match config.durability {
            Durability::Disk => SyncMode::Data,
            Durability::Process => SyncMode::None,
        },
        zero_until: u64::from(config.segment_bytes),
        ..AppendOptions::default()
    }
}

/// At most this much is taken off `segment.ms`, at random (`LogConfig#randomSegmentJitter`).
pub fn jitter_ms(config: &TopicConfig, random: u64) -> u64 {
    random
        .checked_rem(config.segment_jitter_ms.min(config.roll_ms()))
        .unwrap_or(0)
}

impl<W: World> ActiveSegment<W> {
    /// A segment whose file was just opened, with what its valid bytes say.
    pub fn new(file: AppendFile<W::File>, index: IndexBuilder, start: SegmentStart) -> Self {
        let written = Mark {
            end: file.end(),
            next_offset: start.next_offset,
        };
        Self {
            base_offset: start.base_offset,
            file,
            index,
            next_offset: start.next_offset,
            rolling_timestamp: start.rolling_timestamp,
            created_ms: start.created_ms,
            jitter_ms: start.jitter_ms,
            unwritten: VecDeque::new(),
            written,
            durable_offset: start.next_offset,
            syncing: None,
            last_batch: start.last_batch,
        }
    }

    /// Offset of its first record.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Offset the next record gets.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Length in bytes, appended ones included.
    pub fn size_bytes(&self) -> u64 {
        self.file.end()
    }

    /// Offsets below are written: they survive the process.
    pub fn written_offset(&self) -> i64 {
        self.written.next_offset
    }

    /// Offsets below are durable: they survive a power cut.
    pub fn durable_offset(&self) -> i64 {
        self.durable_offset
    }

    /// End in bytes of what is written, for reads.
    pub fn written_bytes(&self) -> u64 {
        self.written.end
    }

    /// Greatest timestamp in it, ms, −1 when it has none.
    pub fn max_timestamp(&self) -> i64 {
        self.index.max_timestamp()
    }

    /// Its indexes so far.
    pub fn index(&self) -> &IndexBuilder {
        &self.index
    }

    /// The file, for reading below [`ActiveSegment::written_bytes`].
    pub fn file(&self) -> &Rc<W::File> {
        self.file.file()
    }

    /// Wall clock of its creation, or of its opening.
    pub fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// Timestamp of its first batch, if it has one.
    pub fn first_timestamp(&self) -> Option<i64> {
        self.rolling_timestamp
    }

    /// Whether nothing was appended to it yet.
    pub fn is_empty(&self) -> bool {
        self.file.end() == 0
    }

    /// Bytes that can be appended at once.
    pub fn room(&self) -> u64 {
        self.file.room()
    }

    /// Asks for space; a [`ActiveSegment::take_zero`] may become due.
    pub fn reserve(&mut self, bytes: u64) {
        self.file.reserve(bytes);
    }

    /// Whether the batch has to go into a new segment (`LogSegment#shouldRoll`).
    pub fn should_roll(&self, batch: &BatchFacts, config: &TopicConfig, now_ms: i64) -> bool {
        if self.is_empty() {
            return false;
        }
        let full = self.file.end() + u64::from(batch.size_bytes) > u64::from(config.segment_bytes);
        let waited_ms = match self.rolling_timestamp {
            Some(first) => batch.max_timestamp.saturating_sub(first),
            None => now_ms.saturating_sub(self.created_ms),
        };
        let limit_ms = config.roll_ms().saturating_sub(self.jitter_ms);
        let old = u64::try_from(waited_ms).is_ok_and(|waited| waited > limit_ms);
        let far = batch.last_offset.saturating_sub(self.base_offset) > i64::from(i32::MAX);
        full || old || far || self.index.is_full(config.segment_index_bytes)
    }

    /// Appends a batch given as parts; the caller has asked [`ActiveSegment::room`].
    ///
    /// # Errors
    /// When the file has failed earlier.
    pub fn append(
        &mut self,
        parts: &[&[u8]],
        batch: &BatchFacts,
        interval_bytes: u32,
    ) -> Result<(), AppendError> {
        let position = self.file.end();
        let end = self.file.append(parts)?;
        let position =
            u32::try_from(position).expect("segment.bytes is at most 2 GiB and rolls before");
        let indexed = IndexedBatch {
            last_offset: batch.last_offset,
            max_timestamp: batch.max_timestamp,
            position,
            size_bytes: batch.size_bytes,
        };
        self.index.append(&indexed, interval_bytes);
        if position == 0 && batch.max_timestamp >= 0 {
            self.rolling_timestamp = Some(batch.max_timestamp);
        }
        self.last_batch = Some(LastBatch {
            position: u64::from(position),
            crc: batch.crc,
        });
        self.next_offset = batch.last_offset + 1;
        self.unwritten.push_back(Mark {
            end,
            next_offset: self.next_offset,
        });
        Ok(())
    }

    /// Everything appended meanwhile as one write, unless one is in flight.
    pub fn take_write(&mut self) -> Option<WriteJob<W::File>> {
        self.file.take_write()
    }

    /// The zeroing that is due.
    pub fn take_zero(&mut self) -> Option<ZeroJob<W::File>> {
        self.file.take_zero()
    }

    /// A sync of what is written and not durable yet.
    pub fn take_sync(&mut self) -> Option<SyncJob<W::File>> {
        let job = self.file.take_sync()?;
        self.syncing = Some(self.written);
        Some(job)
    }

    /// Takes a job's result in and moves the written and durable offsets.
    ///
    /// # Errors
    /// As [`AppendFile::complete`].
    pub fn complete(&mut self, result: JobResult) -> Result<(), AppendError> {
        let completed = self.file.complete(result)?;
        while let Some(mark) = self.unwritten.front().copied()
            && mark.end <= completed.written
        {
            self.written = mark;
            self.unwritten.pop_front();
        }
        if completed.durable == completed.written {
            self.durable_offset = self.written.next_offset;
            self.syncing = None;
        } else if let Some(mark) = self.syncing
            && mark.end <= completed.durable
        {
            self.durable_offset = self.durable_offset.max(mark.next_offset);
            self.syncing = None;
        }
        Ok(())
    }

    /// Bytes that no write has taken yet.
    pub fn pending_bytes(&self) -> u64 {
        self.file.pending_bytes()
    }

    /// Whether a write is on its way.
    pub fn is_writing(&self) -> bool {
        self.file.is_writing()
    }

    /// Whether something is appended and not written, or a job is in flight.
    pub fn is_busy(&self) -> bool {
        self.file.has_job_in_flight() || self.file.has_pending()
    }

    /// Bytes of this segment below `offset`, rounded down to an index entry.
    pub fn position_of(&self, offset: i64) -> u64 {
        if offset >= self.next_offset {
            return self.file.end();
        }
        if offset == self.written.next_offset {
            return self.written.end;
        }
        u64::from(self.index.offsets.lookup(offset))
    }

    /// What a checkpoint remembers of it, appended batches included.
    pub fn remember(&self) -> RememberedActive {
        RememberedActive {
            base_offset: self.base_offset,
            end: self.file.end(),
            next_offset: self.next_offset,
            modified_ns: 0,
            rolling_timestamp: self.rolling_timestamp,
            last_batch: self.last_batch,
            index: self.index.remember(),
        }
    }

    /// Ends appending: what is left is to cut the file and to write the indexes beside it.
    ///
    /// # Panics
    /// If it is busy: the caller waits for that.
    pub fn seal(mut self, dir: &Path) -> SealJob<W> {
        assert!(!self.is_busy(), "a segment is sealed after its last write");
        self.index.finish();
        SealJob {
            dir: dir.to_owned(),
            base_offset: self.base_offset,
            next_offset: self.next_offset,
            max_timestamp: self.index.max_timestamp(),
            first_timestamp: self.rolling_timestamp,
            index: Rc::new(self.index),
            file: self.file,
            cuts_unsynced: false,
        }
    }
}

/// Where an active segment starts from.
#[derive(Clone, Copy, Debug)]
pub struct SegmentStart {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset the next record gets.
    pub next_offset: i64,
    /// Timestamp of its first batch, if it has one.
    pub rolling_timestamp: Option<i64>,
    /// Wall clock of its creation, or of this opening.
    pub created_ms: i64,
    /// From [`jitter_ms`].
    pub jitter_ms: u64,
    /// Its last batch, if it has one.
    pub last_batch: Option<LastBatch>,
}

/// Cuts a segment's file to its exact length and writes its indexes.
pub struct SealJob<W: World> {
    dir: PathBuf,
    base_offset: i64,
    next_offset: i64,
    max_timestamp: i64,
    first_timestamp: Option<i64>,
    index: Rc<IndexBuilder>,
    file: AppendFile<W::File>,
    cuts_unsynced: bool,
}

/// A sealed segment, and whether its index files could be written; without them it can still be
/// read, for a missing index is rebuilt.
pub struct Sealed<W: World> {
    /// The segment, its file open.
    pub segment: SealedSegment<W>,
    /// Failure to write an index file.
    pub indexes: io::Result<()>,
}

impl<W: World> SealJob<W> {
    /// The finished indexes, for readers who come before their files.
    pub fn index(&self) -> &Rc<IndexBuilder> {
        &self.index
    }

    /// The exact length may be as late durable as what is beside the log: with the next
    /// [`World::sync_file_system`]. What follows the log until then is zeros, which a scan cuts.
    #[must_use]
    pub fn cuts_unsynced(mut self) -> Self {
        self.cuts_unsynced = true;
        self
    }

    /// Performs it. The log's bytes are durable and exactly as long as they should be before the
    /// indexes are written, so an index never speaks of bytes that are not there.
    ///
    /// # Errors
    /// When the log itself could not be cut or synced: it has failed; after
    /// [`AppendError::NoSpace`] the same job may be performed again.
    pub async fn perform(
        &mut self,
        world: &W,
        sync: SideFileSync,
    ) -> Result<Sealed<W>, AppendError> {
        let file = match self.cuts_unsynced {
            true => self.file.seal_unsynced().await?,
            false => self.file.seal().await?,
        };
        let (offsets, times) = (self.index.offsets.to_bytes(), self.index.times.to_bytes());
        let entries = (offsets.as_slice(), times.as_slice());
        let indexes = write_indexes(world, &self.dir, self.base_offset, entries, sync).await;
        let segment = SealedSegment {
            base_offset: self.base_offset,
            next_offset: self.next_offset,
            size_bytes: file.len(),
            max_timestamp: Some(self.max_timestamp),
            since_ms: world.now_ms(),
            unsaved_snapshot: None,
            first_timestamp: self.first_timestamp,
            pinned: None,
            file: Some(file),
        };
        Ok(Sealed { segment, indexes })
    }
}

/// When the files beside a log, which can be made anew, become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideFileSync {
    /// Each when it is written.
    Now,
    /// All with the next [`World::sync_file_system`]: at a stop there are four for every log.
    Later,
}

impl SideFileSync {
    /// Replaces a file.
    pub async fn write<W: World>(self, world: &W, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Now => world.write_file_atomic(path, bytes).await,
            Self::Later => world.replace_file(path, bytes).await,
        }
    }
}

/// Writes `.index` and `.timeindex`.
pub(crate) async fn write_indexes<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
    (offsets, times): (&[u8], &[u8]),
    sync: SideFileSync,
) -> io::Result<()> {
    let index = segment_path(dir, base_offset, FileKind::Index);
    sync.write(world, &index, offsets).await?;
    let times_path = segment_path(dir, base_offset, FileKind::TimeIndex);
    sync.write(world, &times_path, times).await
}

/// A segment that no longer changes.
pub struct SealedSegment<W: World> {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Base offset of the segment behind it.
    pub next_offset: i64,
    /// Length of its `.log` file.
    pub size_bytes: u64,
    /// Greatest timestamp in it, ms; `None` until somebody asked its time index.
    pub max_timestamp: Option<i64>,
    /// Wall clock when it was sealed or found: its age counts from here when no record has a
    /// timestamp.
    pub since_ms: i64,
    /// The producer snapshot that belongs at [`SealedSegment::next_offset`], where it could not be
    /// written: what this segment says of producers is nowhere else.
    pub unsaved_snapshot: Option<Vec<u8>>,
    /// Timestamp of its first batch, if it is known.
    pub first_timestamp: Option<i64>,
    /// Its indexes, while its files do not have their names yet: then it is read by its open file
    /// only.
    pub pinned: Option<Rc<IndexBuilder>>,
    /// The open file, while it is being read.
    pub file: Option<Rc<W::File>>,
}

/// The sealed segments of a log, in order, and how many bytes they are.
pub struct SealedSegments<W: World> {
    segments: VecDeque<SealedSegment<W>>,
    bytes: u64,
}

impl<W: World> SealedSegments<W> {
    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the newest.
    pub fn push_back(&mut self, segment: SealedSegment<W>) {
        self.bytes = self.bytes.saturating_add(segment.size_bytes);
        self.segments.push_back(segment);
    }

    /// Takes the oldest out.
    pub fn pop_front(&mut self) -> Option<SealedSegment<W>> {
        let segment = self.segments.pop_front()?;
        self.bytes = self.bytes.saturating_sub(segment.size_bytes);
        Some(segment)
    }

    /// Puts one in the place of those from `at` on, as many as it replaces.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn replace(&mut self, at: usize, count: usize, segment: SealedSegment<W>) {
        let mut tail = self.segments.split_off(at);
        let behind = tail.split_off(count);
        let gone: u64 = tail.iter().map(|segment| segment.size_bytes).sum();
        self.bytes = self.bytes.saturating_sub(gone);
        self.push_back(segment);
        self.segments.extend(behind);
    }

    /// To note what was learned of one; its size and offsets stay.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut SealedSegment<W>> {
        self.segments.iter_mut()
    }
}

impl<W: World> std::ops::Deref for SealedSegments<W> {
    type Target = VecDeque<SealedSegment<W>>;

    fn deref(&self) -> &Self::Target {
        &self.segments
    }
}

impl<'a, W: World> IntoIterator for &'a SealedSegments<W> {
    type Item = &'a SealedSegment<W>;
    type IntoIter = std::collections::vec_deque::Iter<'a, SealedSegment<W>>;

    fn into_iter(self) -> Self::IntoIter {
        self.segments.iter()
    }
}

impl<W: World> FromIterator<SealedSegment<W>> for SealedSegments<W> {
    fn from_iter<I: IntoIterator<Item = SealedSegment<W>>>(segments: I) -> Self {
        let mut sealed = Self {
            segments: VecDeque::new(),
            bytes: 0,
        };
        for segment in segments {
            sealed.push_back(segment);
        }
        sealed
    }
}

impl<W: World> SealedSegment<W> {
    /// What a checkpoint remembers of it.
    pub fn remember(&self) -> RememberedSegment {
        RememberedSegment {
            base_offset: self.base_offset,
            size_bytes: self.size_bytes,
            modified_ns: 0,
            max_timestamp: self.max_timestamp,
        }
    }
}

/// What indexes tell of a stored batch. One from which compaction took every record counts with the
/// time in its header, as in Kafka: a segment that holds nothing else is as old as its records were.
pub(crate) fn indexed(header: &BatchHeader, position: u64) -> IndexedBatch {
    IndexedBatch {
        last_offset: header.last_offset(),
        max_timestamp: header.max_timestamp,
        // The walk ends at 2 GiB, and a batch's size is an i32.
        position: u32::try_from(position).unwrap_or(u32::MAX),
        size_bytes: u32::try_from(header.size_bytes()).unwrap_or(u32::MAX),
    }
}
