//! Compaction of old segments: reads which keys are where, and writes what stays into new segments.
//!
//! Runs on the partition's shard in short slices, without borrowing the partition: a job owns all it
//! needs and changes nothing that is read; what it wrote becomes part of the log when the partition
//! says so, and by [`swap`]. The rules are Kafka's `Cleaner`'s. Besides, the last batch of every
//! segment stays, if need be empty, so that a segment always reaches to the next one: a gap could not
//! be told from a loss.
//!
//! A partition says by a deadline when it is dirty enough; the shard bounds how many are worked on. A round maps
//! the keys of the dirty segments to their last offsets, then writes what stays of all segments up to there into
//! `.cleaned` files, group by group. A finished segment takes the place of its group in memory first, where it is
//! read by its open file, and on the disk after that ([`swap`]); a read that was under way is done again. After
//! each transfer compaction rests twice as long as it took ([`pace`]).

mod filter;
mod offset_map;
mod pace;
mod swap;
mod transactions;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chronik_io::{OpenMode, World};
use chronik_protocol::record::{CheckedBatch, Compression, Record, RecordLimits};

use super::aborted::{Aborted, ENTRY_BYTES};
use super::checkpoint::read_if_present;
use super::directory::{FileKind, Leftover, SegmentFile, leftover_path, segment_path};
use super::index::IndexBuilder;
use super::scan::{LogScan, ScanEnd, ScanStep};
use crate::limits::SIDE_FILE_BYTES_MAX;
use crate::segment::indexed;
use filter::{DECOMPRESSED_BYTES_MAX, Outcome, control_type};
use writer::SegmentWriter;

pub use filter::Rules;
pub use offset_map::OffsetMap;
pub use pace::{Cancel, Pace};
pub use swap::{Progress as SwapProgress, Swap, remove_cleaned};
pub use transactions::Transactions;

/// Longest batch that is decoded or encoded on the shard, bytes: some 50 µs of work.
const PLAIN_BYTES_HERE_MAX: usize = 256 << 10;
const COMPRESSED_BYTES_HERE_MAX: usize = 4 << 10;
/// Records looked at between two looks at the clock.
const RECORDS_PER_LOOK: usize = 32;

/// Why cleaning did not come to its end.
#[derive(Debug)]
pub enum CleanError {
    /// The partition goes, or the broker does.
    Cancelled,
    /// The disk refused.
    Io(io::Error),
    /// The log holds something that cannot be read; it stays as it is.
    Corrupt(String),
}

impl From<io::Error> for CleanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A segment that is read.
#[derive(Clone)]
pub struct Source<W: World> {
    /// Its name.
    pub base_offset: i64,
    /// Behind its last record.
    pub next_offset: i64,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Where it is open already.
    pub file: Option<Rc<W::File>>,
}

/// Finds the last offset of every key in the dirty part of a log.
pub struct MapJob<W: World> {
    /// Whose disk and clock.
    pub world: W,
    /// The partition's directory.
    pub dir: PathBuf,
    /// The dirty segments.
    pub sources: Vec<Source<W>>,
    /// Records below have been cleaned before.
    pub first_dirty: i64,
    /// Empty, and as large as it may be.
    pub map: OffsetMap,
    /// How fast it may go on.
    pub pace: Pace<W>,
}

/// What a [`MapJob`] found.
pub struct Mapped<W: World> {
    /// The last offset of each key, up to where it was full.
    pub map: OffsetMap,
    /// Those that began below the dirty part.
    pub transactions: Transactions,
    /// That of the job.
    pub pace: Pace<W>,
}

impl<W: World> MapJob<W> {
    /// Performs it.
    pub async fn perform(mut self) -> Result<Mapped<W>, CleanError> {
        while self.map.grow() {
            self.pace.rest().await?;
        }
        let aborted = read_aborted(&self.world, &self.dir).await?;
        let mut transactions = Transactions::new(aborted.clone());
        for source in std::mem::take(&mut self.sources) {
            if !self.map_segment(&source, &mut transactions).await? {
                break;
            }
            // Also where its last batches are gone.
            self.map.advance(source.next_offset.saturating_sub(1));
        }
        Ok(Mapped {
            map: self.map,
            transactions: Transactions::new(aborted),
            pace: self.pace,
        })
    }

    /// False when the map is full.
    async fn map_segment(
        &mut self,
        source: &Source<W>,
        transactions: &mut Transactions,
    ) -> Result<bool, CleanError> {
        let file = open(&self.world, &self.dir, source).await?;
        let mut walk = Walk::new(&self.world, &file, source);
        while let Some(batch) = walk.next(&mut self.pace).await? {
            let header = batch.header;
            if header.is_control() {
                if let Some(kind) = control_type(&batch) {
                    transactions.ends_nothing(&header, kind);
                }
            } else if !transactions.is_aborted(&header) && header.last_offset() >= self.first_dirty
            {
                let mut records = Records::of(&self.world, &batch).await?;
                while let Some(record) = records.next(&mut self.pace).await? {
                    let Some(key) = record.key.filter(|_| record.offset >= self.first_dirty) else {
                        continue;
                    };
                    if self.map.is_full() {
                        return Ok(false);
                    }
                    self.map.put(&key, record.offset);
                }
            }
            if header.last_offset() >= self.first_dirty {
                self.map.advance(header.last_offset());
            }
        }
        Ok(true)
    }
}

/// Writes what stays of some segments into one.
pub struct GroupJob<W: World> {
    /// Whose disk and clock.
    pub world: W,
    /// The partition's directory.
    pub dir: PathBuf,
    /// In order, without a gap.
    pub sources: Vec<Source<W>>,
    /// What stays.
    pub rules: Rules,
    /// About one index entry for so many bytes.
    pub index_interval_bytes: u32,
    /// Those seen so far in this round.
    pub transactions: Transactions,
    /// How fast it may go on.
    pub pace: Pace<W>,
}

/// A segment that a [`GroupJob`] has written; its files are durable and carry the suffix `.cleaned`.
pub struct CleanedSegment<W: World> {
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Open for reading.
    pub file: Rc<W::File>,
    /// Of its offsets and times.
    pub index: Rc<IndexBuilder>,
    /// What its `.txnindex` says; without an entry there is no file.
    pub aborted: Vec<Aborted>,
    /// Nothing was removed: it is not needed.
    pub is_same: bool,
}

/// What a [`GroupJob`] gives back.
pub struct Grouped<W: World> {
    /// What was written.
    pub segment: CleanedSegment<W>,
    /// Those of the job, for the next one.
    pub rules: Rules,
    /// Those seen so far in this round.
    pub transactions: Transactions,
    /// That of the job.
    pub pace: Pace<W>,
}

/// What is being written.
struct Output<W: World> {
    writer: SegmentWriter<W>,
    index: IndexBuilder,
    interval_bytes: u32,
    is_same: bool,
}

impl<W: World> GroupJob<W> {
    /// Performs it. What was written is removed again when it fails.
    pub async fn perform(mut self) -> Result<Grouped<W>, CleanError> {
        let base_offset = self.sources.first().map_or(0, |source| source.base_offset);
        match self.write(base_offset).await {
            Ok(segment) => Ok(Grouped {
                segment,
                rules: self.rules,
                transactions: self.transactions,
                pace: self.pace,
            }),
            Err(error) => {
                remove_cleaned(&self.world, &self.dir, base_offset).await;
                Err(error)
            }
        }
    }

    async fn write(&mut self, base_offset: i64) -> Result<CleanedSegment<W>, CleanError> {
        let path = leftover_path(&self.dir, base_offset, FileKind::Log, Leftover::Cleaned);
        let mut output = Output {
            writer: SegmentWriter::create(&self.world, &path).await?,
            index: IndexBuilder::new(base_offset),
            interval_bytes: self.index_interval_bytes,
            is_same: self.sources.len() == 1,
        };
        let (world, sources) = (self.world.clone(), std::mem::take(&mut self.sources));
        for (at, source) in sources.iter().enumerate() {
            let is_last_source = at + 1 == sources.len();
            let file = open(&world, &self.dir, source).await?;
            let mut walk = Walk::new(&world, &file, source);
            while let Some(batch) = walk.next(&mut self.pace).await? {
                let is_last = is_last_source && walk.is_at_end();
                self.clean(&batch, is_last, &mut output).await?;
            }
        }
        let aborted = self.transactions.take_kept();
        if !aborted.is_empty() {
            let kind = FileKind::TransactionIndex;
            let path = leftover_path(&self.dir, base_offset, kind, Leftover::Cleaned);
            let mut bytes = Vec::with_capacity(aborted.len() * ENTRY_BYTES);
            aborted.iter().for_each(|entry| entry.write(&mut bytes));
            self.world.write_file_atomic(&path, &bytes).await?;
        }
        output.index.finish();
        let size_bytes = output.writer.end();
        Ok(CleanedSegment {
            size_bytes,
            file: output.writer.finish().await?,
            index: Rc::new(output.index),
            aborted,
            is_same: output.is_same,
        })
    }

    async fn clean(
        &mut self,
        batch: &CheckedBatch,
        is_last: bool,
        output: &mut Output<W>,
    ) -> Result<(), CleanError> {
        let judgement = self.rules.judge(batch, &mut self.transactions, is_last);
        let mut kept: Vec<Record> = Vec::new();
        if !judgement.drops_records {
            let mut records = Records::of(&self.world, batch).await?;
            while let Some(record) = records.next(&mut self.pace).await? {
                if self.rules.keeps(&batch.header, &record) {
                    kept.push(record);
                }
            }
        }
        let outcome = self.rules.outcome(&batch.header, judgement, &kept);
        output.is_same &= outcome == Outcome::Whole;
        let written = match outcome {
            Outcome::Whole => output.append(batch).await?,
            Outcome::Less { delete_horizon_ms } => {
                let less = {
                    let batch = batch.clone();
                    move || batch.with_records(&kept, delete_horizon_ms)
                };
                let less = compute(&self.world, batch, less).await?;
                let less = less.map_err(|error| corrupt(batch, &error))?;
                output.append(&less).await?
            }
            Outcome::Empty => output.append(&batch.without_records()).await?,
            Outcome::Gone => 0,
        };
        if written > 0 {
            self.pace.moved(written).await?;
        }
        self.pace.breathe().await
    }
}

impl<W: World> Output<W> {
    /// Says how many bytes went to the disk.
    async fn append(&mut self, batch: &CheckedBatch) -> Result<usize, CleanError> {
        let size = batch.bytes.len() as u64;
        let position = i32::try_from(self.writer.end().saturating_add(size));
        let position = position.map_err(|_| {
            // Delete horizons make records longer by a few bytes.
            CleanError::Corrupt("what stays is longer than 2 GiB".to_owned())
        })?;
        let at = u64::from(position.unsigned_abs()).saturating_sub(size);
        let indexed = indexed(&batch.header, at);
        self.index.append(&indexed, self.interval_bytes);
        Ok(self.writer.append(&batch.bytes).await?)
    }
}

/// The batches of a segment.
struct Walk<'a, W: World> {
    scan: LogScan<'a, W>,
    size_bytes: u64,
    read_bytes: u64,
}

impl<'a, W: World> Walk<'a, W> {
    fn new(world: &'a W, file: &'a W::File, source: &Source<W>) -> Self {
        let (base, size_bytes) = (source.base_offset, source.size_bytes);
        Self {
            scan: LogScan::new(world, file, base, (0, size_bytes), base),
            size_bytes,
            read_bytes: 0,
        }
    }

    /// Whether the batch given last ends the segment.
    fn is_at_end(&self) -> bool {
        self.scan.position() >= self.size_bytes
    }

    async fn next(&mut self, pace: &mut Pace<W>) -> Result<Option<CheckedBatch>, CleanError> {
        match self.scan.step().await? {
            ScanStep::Batch { header, .. } => {
                let bytes = self.scan.batch_bytes().await?;
                self.read_bytes += bytes.len() as u64;
                if self.read_bytes >= 256 << 10 {
                    let read = usize::try_from(std::mem::take(&mut self.read_bytes));
                    pace.moved(read.unwrap_or(usize::MAX)).await?;
                }
                Ok(Some(CheckedBatch { header, bytes }))
            }
            ScanStep::End(ScanEnd::Exact) => Ok(None),
            ScanStep::End(end) => {
                let at = self.scan.position();
                Err(CleanError::Corrupt(format!("no batch at {at}: {end:?}")))
            }
        }
    }
}

/// The records of a batch, in slices.
struct Records<'a> {
    batch: &'a CheckedBatch,
    records: chronik_protocol::record::RecordIter,
    since_look: usize,
}

impl<'a> Records<'a> {
    async fn of<W: World>(world: &W, batch: &'a CheckedBatch) -> Result<Self, CleanError> {
        let limits = RecordLimits {
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            ..RecordLimits::default()
        };
        let records = {
            let batch = batch.clone();
            move || batch.records(&limits)
        };
        let records = compute(world, batch, records).await?;
        let records = records.map_err(|error| corrupt(batch, &error))?;
        Ok(Self {
            batch,
            records,
            since_look: 0,
        })
    }

    async fn next<W: World>(&mut self, pace: &mut Pace<W>) -> Result<Option<Record>, CleanError> {
        self.since_look += 1;
        if self.since_look >= RECORDS_PER_LOOK {
            self.since_look = 0;
            pace.breathe().await?;
        }
        let record = self.records.next().transpose();
        record.map_err(|error| corrupt(self.batch, &error))
    }
}

/// Works on a batch, beside the shard where that takes long: a codec at work knows no slices.
async fn compute<W: World, T: Send + 'static>(
    world: &W,
    batch: &CheckedBatch,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let is_plain = batch.header.compression() == Compression::None;
    let here_max = match is_plain {
        true => PLAIN_BYTES_HERE_MAX,
        false => COMPRESSED_BYTES_HERE_MAX,
    };
    match batch.bytes.len() <= here_max {
        true => Ok(work()),
        false => world.compute_long(work).await,
    }
}

fn corrupt(batch: &CheckedBatch, error: &chronik_protocol::record::BatchError) -> CleanError {
    let base = batch.header.base_offset;
    CleanError::Corrupt(format!("the batch at offset {base}: {error}"))
}

async fn open<W: World>(world: &W, dir: &Path, source: &Source<W>) -> io::Result<Rc<W::File>> {
    match &source.file {
        Some(file) => Ok(Rc::clone(file)),
        None => {
            let path = segment_path(dir, source.base_offset, FileKind::Log);
            world.open_file(&path, OpenMode::Read).await.map(Rc::new)
        }
    }
}

/// The aborted transactions that the log's indexes tell of.
async fn read_aborted<W: World>(world: &W, dir: &Path) -> Result<Vec<Aborted>, CleanError> {
    let mut aborted = Vec::new();
    for entry in world.list_dir(dir).await? {
        let file = entry.name.to_str().and_then(SegmentFile::parse);
        let is_index =
            |file: &SegmentFile| file.kind == FileKind::TransactionIndex && file.leftover.is_none();
        if let Some(file) = file.filter(is_index) {
            let path = segment_path(dir, file.offset, file.kind);
            if let Some(bytes) = read_if_present(world, &path, SIDE_FILE_BYTES_MAX).await? {
                aborted.extend(Aborted::parse_all(&bytes));
            }
        }
    }
    Ok(aborted)
}
