//! ListOffsets: earliest, latest, and offsets by timestamp.
//!
//! Plan and act like a fetch: what the state knows is answered at once, a search by timestamp reads
//! time indexes and batches in a job on the partition's shard (`UnifiedLog#fetchOffsetByTimestamp`).

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use chronik_io::{File, OpenMode, World};
use chronik_log::LogError;
use chronik_log::checkpoint::read_if_present;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::epochs::UNDEFINED_EPOCH;
use chronik_log::index::{IndexBuilder, NO_TIMESTAMP, OffsetIndex, TimeIndex};
use chronik_log::limits::SIDE_FILE_BYTES_MAX;
use chronik_log::recovery::rebuild_indexes;
use chronik_log::scan::{LogScan, ScanStep};
use chronik_log::segment::ActiveSegment;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::{
    BatchError, CheckedBatch, Compression, STEP_BYTES, SearchProgress, TimestampSearch,
};
use chronik_terms::topic_settings::TopicConfig;
use chronik_terms::{Isolation, OffsetAnswer, OffsetQuery, OffsetTarget, PartitionId};
use tracing::error;

use super::{Closing, Partition};

/// Compressed bytes of a batch of which a first step is made on the shard.
const COMPRESSED_BYTES_HERE_MAX: usize = 4 << 10;
/// Bytes of records, decompressed, that one step beside the shard looks at: others want the thread.
const STEP_BYTES_BESIDE: usize = 1 << 20;

/// How a query is answered.
pub enum OffsetPlan<W: World> {
    /// At once.
    Ready(OffsetAnswer),
    /// After the job; see [`Partition::complete_list_offset`].
    Disk(OffsetJob<W>),
}

#[derive(Clone, Copy)]
enum Search {
    First(i64),
    Max,
}

impl Search {
    /// Records below are not found. The greatest timestamp is that of what the segments hold, deleted
    /// records included (`UnifiedLog#fetchOffsetByTimestamp`).
    fn offset_min(self, log_start: i64) -> i64 {
        match self {
            Self::First(_) => log_start,
            Self::Max => 0,
        }
    }
}

/// A segment that may hold the answer.
struct Candidate<W: World> {
    base_offset: i64,
    end_bytes: u64,
    max_timestamp: Option<i64>,
    file: Option<Rc<W::File>>,
    /// Where to begin, for segments whose indexes are in memory.
    start: Option<u64>,
}

/// A search by timestamp.
#[must_use = "a client waits for it"]
pub struct OffsetJob<W: World> {
    partition: PartitionId,
    world: W,
    dir: PathBuf,
    config: Arc<TopicConfig>,
    search: Search,
    /// Which segments there were.
    layout: u64,
    candidates: Vec<Candidate<W>>,
    log_start: i64,
    end_offset: i64,
}

/// What an [`OffsetJob`] found.
#[must_use = "a client waits for it"]
pub struct OffsetDone<W: World> {
    partition: PartitionId,
    search: Search,
    layout: u64,
    end_offset: i64,
    max_timestamps: Vec<(i64, i64)>,
    found: Result<Option<Found>, LogError>,
    world: std::marker::PhantomData<W>,
}

#[derive(Clone, Copy)]
struct Found {
    timestamp_ms: i64,
    offset: i64,
    leader_epoch: i32,
}

impl<W: World> Partition<W> {
    /// Plans the answer to a query. Codes: FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH.
    pub fn list_offset(&mut self, query: &OffsetQuery) -> OffsetPlan<W> {
        if let Err(code) = self.check_epoch(query.current_leader_epoch) {
            return OffsetPlan::Ready(nothing(code));
        }
        let end_offset = match query.isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset(),
        };
        let at = |offset, leader_epoch| {
            OffsetPlan::Ready(OffsetAnswer {
                error: ErrorCode::None,
                timestamp_ms: NO_TIMESTAMP,
                offset,
                leader_epoch,
            })
        };
        let search = match query.target {
            OffsetTarget::Earliest | OffsetTarget::EarliestLocal => {
                let epoch = self.epochs.epoch_of(self.log_start);
                return at(self.log_start, epoch.unwrap_or(UNDEFINED_EPOCH));
            }
            OffsetTarget::Latest => return at(end_offset, self.leader_epoch),
            // There is no tiered storage.
            OffsetTarget::LatestTiered | OffsetTarget::EarliestPendingUpload => {
                return at(-1, UNDEFINED_EPOCH);
            }
            OffsetTarget::MaxTimestamp => Search::Max,
            OffsetTarget::Timestamp(timestamp) => Search::First(timestamp),
        };
        OffsetPlan::Disk(self.offset_job(search, end_offset))
    }

    fn offset_job(&self, search: Search, end_offset: i64) -> OffsetJob<W> {
        OffsetJob {
            partition: self.id,
            world: self.world.clone(),
            dir: self.dir.clone(),
            config: Arc::clone(&self.config),
            search,
            layout: self.layout,
            candidates: self.candidates(search),
            log_start: self.log_start,
            end_offset,
        }
    }

    fn candidates(&self, search: Search) -> Vec<Candidate<W>> {
        let mut candidates = Vec::with_capacity(self.sealed.len() + 2);
        for segment in &self.sealed {
            candidates.push(Candidate {
                base_offset: segment.base_offset,
                end_bytes: segment.size_bytes,
                max_timestamp: segment.max_timestamp,
                file: segment.file.clone(),
                start: segment
                    .pinned
                    .as_ref()
                    .map(|index| start_position(&index.offsets, &index.times, search)),
            });
        }
        for closing in &self.closing {
            candidates.push(match closing {
                Closing::Draining { segment, .. } => live_candidate(segment, search),
                Closing::Sealing(sealing) => Candidate {
                    base_offset: sealing.segment.base_offset,
                    end_bytes: sealing.segment.size_bytes,
                    max_timestamp: sealing.segment.max_timestamp,
                    file: sealing.segment.file.clone(),
                    start: Some(start_position(
                        &sealing.index.offsets,
                        &sealing.index.times,
                        search,
                    )),
                },
            });
        }
        candidates.push(live_candidate(&self.active, search));
        candidates
    }

    /// Keeps what was learned and answers the client; or searches once more, if segments were
    /// replaced or removed meanwhile.
    pub fn complete_list_offset(&mut self, done: OffsetDone<W>) -> OffsetPlan<W> {
        assert_eq!(done.partition, self.id, "a query of another partition");
        if done.layout != self.layout {
            return OffsetPlan::Disk(self.offset_job(done.search, done.end_offset));
        }
        OffsetPlan::Ready(self.take_list_offset(done))
    }

    fn take_list_offset(&mut self, done: OffsetDone<W>) -> OffsetAnswer {
        for (base, timestamp) in done.max_timestamps {
            if let Some(segment) = self.sealed.iter_mut().find(|s| s.base_offset == base) {
                segment.max_timestamp = Some(timestamp);
            }
        }
        match done.found {
            Ok(Some(found))
                if found.offset < done.end_offset
                    && found.offset >= done.search.offset_min(self.log_start) =>
            {
                OffsetAnswer {
                    error: ErrorCode::None,
                    timestamp_ms: found.timestamp_ms,
                    offset: found.offset,
                    leader_epoch: found.leader_epoch,
                }
            }
            Ok(_) => nothing(ErrorCode::None),
            Err(failure) => {
                error!(partition = self.name(), %failure, "offset search failed");
                nothing(ErrorCode::KafkaStorageError)
            }
        }
    }
}

fn nothing(error: ErrorCode) -> OffsetAnswer {
    OffsetAnswer {
        error,
        timestamp_ms: NO_TIMESTAMP,
        offset: -1,
        leader_epoch: UNDEFINED_EPOCH,
    }
}

fn live_candidate<W: World>(segment: &ActiveSegment<W>, search: Search) -> Candidate<W> {
    let index: &IndexBuilder = segment.index();
    Candidate {
        base_offset: segment.base_offset(),
        end_bytes: segment.written_bytes(),
        max_timestamp: Some(segment.max_timestamp()),
        file: Some(Rc::clone(segment.file())),
        start: Some(start_position(&index.offsets, &index.times, search)),
    }
}

/// Where the batch that is searched for cannot be before.
fn start_position(offsets: &OffsetIndex, times: &TimeIndex, search: Search) -> u64 {
    let offset = match search {
        // Entries say "the greatest so far": one below the wanted time lies before every answer.
        Search::First(timestamp) => times.lookup(timestamp.saturating_sub(1)),
        Search::Max => match times.last() {
            Some((_, offset)) => offset.saturating_sub(1),
            None => return 0,
        },
    };
    u64::from(offsets.lookup(offset))
}

impl<W: World> OffsetDone<W> {
    /// Whose query it was.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl<W: World> OffsetJob<W> {
    /// Whose query it is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Performs it, on the partition's shard.
    pub async fn perform(mut self) -> OffsetDone<W> {
        let mut max_timestamps = Vec::new();
        let found = self.find(&mut max_timestamps).await;
        OffsetDone {
            partition: self.partition,
            search: self.search,
            layout: self.layout,
            end_offset: self.end_offset,
            max_timestamps,
            found,
            world: std::marker::PhantomData,
        }
    }

    async fn find(&mut self, learned: &mut Vec<(i64, i64)>) -> Result<Option<Found>, LogError> {
        let mut candidates = std::mem::take(&mut self.candidates);
        let mut max: Option<(i64, usize)> = None;
        for at in 0..candidates.len() {
            let Some(candidate) = candidates.get_mut(at) else {
                break;
            };
            let timestamp = match candidate.max_timestamp {
                Some(timestamp) => timestamp,
                None => {
                    let timestamp = self.learn_max_timestamp(candidate).await?;
                    learned.push((candidate.base_offset, timestamp));
                    timestamp
                }
            };
            match self.search {
                Search::First(wanted) if timestamp >= wanted => {
                    let found = self.search_segment(candidate, wanted).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Search::First(_) => {}
                Search::Max if max.is_none_or(|max| timestamp > max.0) => {
                    max = Some((timestamp, at));
                }
                Search::Max => {}
            }
        }
        let Some((timestamp, at)) = max.filter(|max| max.0 > NO_TIMESTAMP) else {
            return Ok(None);
        };
        match candidates.get_mut(at) {
            Some(candidate) => self.search_segment(candidate, timestamp).await,
            None => Ok(None),
        }
    }

    /// The end of a sealed segment's time index is its maximum.
    async fn learn_max_timestamp(&self, candidate: &Candidate<W>) -> Result<i64, LogError> {
        let times = self.time_index(candidate).await?;
        Ok(times.last().map_or(NO_TIMESTAMP, |last| last.0))
    }

    async fn time_index(&self, candidate: &Candidate<W>) -> Result<TimeIndex, LogError> {
        let base = candidate.base_offset;
        let path = segment_path(&self.dir, base, FileKind::TimeIndex);
        let read = read_if_present(&self.world, &path, SIDE_FILE_BYTES_MAX).await;
        let bytes = read.map_err(LogError::io("reading", &path))?;
        if let Some(times) = bytes.and_then(|bytes| TimeIndex::parse(base, &bytes).ok()) {
            return Ok(times);
        }
        error!(file = %path.display(), "the time index is missing or garbled; rebuilding it");
        let rebuilt = rebuild_indexes(&self.world, &self.dir, base, &self.config).await?;
        Ok(rebuilt.times)
    }

    async fn first_position(&self, candidate: &Candidate<W>) -> Result<u64, LogError> {
        if let Some(start) = candidate.start {
            return Ok(start);
        }
        let times = self.time_index(candidate).await?;
        let base = candidate.base_offset;
        let path = segment_path(&self.dir, base, FileKind::Index);
        let read = read_if_present(&self.world, &path, SIDE_FILE_BYTES_MAX).await;
        let bytes = read.map_err(LogError::io("reading", &path))?;
        let parsed = bytes.map(|bytes| OffsetIndex::parse(base, &bytes, candidate.end_bytes));
        let offsets = match parsed {
            Some(Ok(offsets)) => offsets,
            _ => {
                let rebuilt = rebuild_indexes(&self.world, &self.dir, base, &self.config).await?;
                rebuilt.offsets
            }
        };
        Ok(start_position(&offsets, &times, self.search))
    }

    /// The first record at or behind the log's start whose timestamp is at least `wanted`.
    async fn search_segment(
        &self,
        candidate: &mut Candidate<W>,
        wanted: i64,
    ) -> Result<Option<Found>, LogError> {
        let base = candidate.base_offset;
        let path = segment_path(&self.dir, base, FileKind::Log);
        let position = self.first_position(candidate).await?;
        let file = match candidate.file.take() {
            Some(file) => file,
            None => {
                let file = self.world.open_file(&path, OpenMode::Read).await;
                Rc::new(file.map_err(LogError::io("opening", &path))?)
            }
        };
        let end = candidate.end_bytes.min(file.len());
        let offset_min = self.search.offset_min(self.log_start);
        let mut scan = LogScan::new(&self.world, &*file, base, (position, end), base);
        loop {
            let step = scan.step().await.map_err(LogError::io("reading", &path))?;
            let ScanStep::Batch { header, .. } = step else {
                return Ok(None);
            };
            if header.max_timestamp < wanted || header.last_offset() < offset_min {
                continue;
            }
            let bytes = scan.batch_bytes().await;
            let bytes = bytes.map_err(LogError::io("reading", &path))?;
            let batch = CheckedBatch { header, bytes };
            let searched = self.search_batch(&batch, wanted).await;
            let found = match searched.map_err(LogError::io("searching", &path))? {
                Ok(SearchProgress::Found {
                    timestamp_ms,
                    offset,
                }) => Found {
                    timestamp_ms,
                    offset,
                    leader_epoch: header.partition_leader_epoch,
                },
                Ok(_) => continue,
                Err(failure) => {
                    // A batch nobody can decode has no record to be found.
                    let base = header.base_offset;
                    error!(dir = %self.dir.display(), base, %failure, "undecodable batch");
                    continue;
                }
            };
            return Ok(Some(found));
        }
    }

    /// The first step of a small batch is made here; what unfolds to more is searched beside the shard.
    ///
    /// # Errors
    /// The outer one when there is no thread beside the shard.
    async fn search_batch(
        &self,
        batch: &CheckedBatch,
        wanted: i64,
    ) -> std::io::Result<Result<SearchProgress, BatchError>> {
        let offset_min = self.search.offset_min(self.log_start);
        let mut search = match TimestampSearch::new(batch, wanted, offset_min) {
            Ok(search) => search,
            Err(failure) => return Ok(Err(failure)),
        };
        // A block of snappy or LZ4 is unfolded whole, however small a step is.
        let is_plain = batch.header.compression() == Compression::None;
        let mut stepped = match is_plain || batch.bytes.len() <= COMPRESSED_BYTES_HERE_MAX {
            true => search.step(STEP_BYTES),
            false => Ok(SearchProgress::More),
        };
        while matches!(stepped, Ok(SearchProgress::More)) {
            let beside = move || {
                let stepped = search.step(STEP_BYTES_BESIDE);
                (search, stepped)
            };
            (search, stepped) = self.world.compute(beside).await?;
        }
        Ok(stepped)
    }
}
