//! `chronik-terms`: the words in which shards are asked and answer (a partition's name, the parts of
//! requests, their results), and the settings of a topic.
//!
//! Plain `Send` values, at the bottom of the shards' rooms: every other may speak them, on every core. No
//! wire version appears here; handlers translate. Knows no catalogue, no coordinator, no file and no clock.

pub mod group_settings;
pub mod topic_settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronik_protocol::record::CheckedBatch;
use chronik_protocol::{ErrorCode, Records, Str, Uuid};

/// A partition, by its topic's id: names can be used again, ids cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic's id, never zero.
    pub topic_id: Uuid,
    /// The partition's number within the topic, from 0.
    pub index: i32,
}

/// The metadata log as a partition; Kafka reserves the id (`Uuid#METADATA_TOPIC_ID`).
pub const METADATA_PARTITION: PartitionId = PartitionId {
    topic_id: Uuid::ONE,
    index: 0,
};

/// Clock readings handed in by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, ms since the epoch: for timestamps, segment age and producer expiry.
    pub wall_ms: i64,
    /// Monotonic clock, ns: for deadlines.
    pub mono_ns: u64,
}

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: the client expects no answer; ours comes as soon as the batch is accepted.
    None,
    /// `acks=1`: when the batch is written.
    Leader,
    /// `acks=-1`: when the batch is as safe as the topic's durability promises.
    All,
}

/// Who waits for an append, and is told when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Waiter {
    /// A part of one of the shard's pending appends.
    Produce {
        /// The pending append.
        append: usize,
        /// Its part.
        part: usize,
    },
    /// A write of the group coordinator.
    Groups(u64),
    /// The change of the catalogue that is under way.
    Catalogue,
}

/// Batches for partitions of one shard.
#[derive(Debug)]
pub struct AppendRequest {
    /// When to answer.
    pub acks: Acks,
    /// How long an `acks=all` reply may wait, ms; then `REQUEST_TIMED_OUT` (the records stay).
    /// Negative counts as zero.
    pub timeout_ms: i32,
    /// Answered in this order. A partition may appear more than once.
    pub parts: Vec<AppendPart>,
}

/// One checked batch for one partition. The handler has validated the records against the
/// topic's configuration; the shard checks sequence, size against the segment, and epoch.
#[derive(Debug)]
pub struct AppendPart {
    /// Where to.
    pub partition: PartitionId,
    /// Exactly one batch, CRC verified.
    pub batch: CheckedBatch,
}

/// What became of an [`AppendPart`].
#[derive(Clone, Debug)]
pub struct AppendResult {
    /// `None` when the batch is in the log.
    pub error: ErrorCode,
    /// For people, beside the code.
    pub message: Option<Str>,
    /// Offset of the batch's first record; −1 on error.
    pub base_offset: i64,
    /// −1 unless the topic uses LogAppendTime.
    pub log_append_time_ms: i64,
    /// −1 where it is not known.
    pub log_start_offset: i64,
}

impl AppendResult {
    /// A refusal.
    pub fn failed(error: ErrorCode, message: Option<Str>) -> AppendResult {
        AppendResult {
            error,
            message,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
        }
    }
}

/// Whether records of open transactions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// Names a parked request for `Request::Cancel`; chosen by the caller, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParkToken(pub u64);

/// Whether somebody still wants the answer to a read: shared by who asks and by the shards that read, which
/// leave out what nobody takes any more. Clones are the same reader.
#[derive(Clone, Debug, Default)]
pub struct Reader(Arc<AtomicBool>);

impl Reader {
    /// Nobody wants the answer any more.
    pub fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether nobody does.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A read over partitions of one shard.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Applies to every part.
    pub isolation: Isolation,
    /// Bytes over all parts; the first batch of the first non-empty part is sent even if larger
    /// (KIP-74).
    pub max_bytes: usize,
    /// Read and answered in this order.
    pub parts: Vec<ReadPart>,
    /// When set and less than `min_bytes` can be read without error, the shard parks the request.
    pub wait: Option<Wait>,
    /// When set, nothing is read from disk any more once it has left.
    pub reader: Option<Reader>,
}

/// How long, and for how much, a request waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Enough to be answered.
    pub min_bytes: usize,
    /// On the monotonic clock of `io`.
    pub deadline_ns: u64,
    /// For `Request::Cancel`.
    pub token: ParkToken,
}

/// One partition of a [`ReadRequest`].
#[derive(Clone, Debug)]
pub struct ReadPart {
    /// Where from.
    pub partition: PartitionId,
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Bytes of this part; exceeded only by a first batch that is larger (KIP-74).
    pub max_bytes: usize,
    /// −1: the client does not know it.
    pub current_leader_epoch: i32,
    /// −1: no divergence check (KIP-595).
    pub last_fetched_epoch: i32,
}

/// What was read of a [`ReadPart`].
#[derive(Debug)]
pub struct ReadResult {
    /// `None`, or why there are no records.
    pub error: ErrorCode,
    /// −1 on error.
    pub high_watermark: i64,
    /// −1 on error.
    pub last_stable_offset: i64,
    /// −1 on error.
    pub log_start_offset: i64,
    /// −1 on error.
    pub leader_epoch: i32,
    /// Epoch and end offset where the client's log diverges.
    pub diverging: Option<(i32, i64)>,
    /// Only for read-committed; producer id and first offset.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Whole batches, the first of which holds the offset asked for.
    pub records: Records,
}

impl ReadResult {
    /// A refusal.
    pub fn failed(error: ErrorCode) -> ReadResult {
        ReadResult {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: -1,
            diverging: None,
            aborted: None,
            records: Records::default(),
        }
    }
}

/// A wait without a read, for fetches that span shards.
#[derive(Clone, Debug)]
pub struct AwaitRequest {
    /// Decides which bytes count.
    pub isolation: Isolation,
    /// Where each reader stands.
    pub parts: Vec<(PartitionId, i64)>,
    /// For how much and how long.
    pub wait: Wait,
}

/// Why an [`AwaitRequest`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Enough bytes are there, or a read of some part would give an error now.
    Progress,
    /// The deadline was reached.
    Deadline,
    /// `Request::Cancel` was asked.
    Cancelled,
}

/// Which offset is asked for; the wire's negative timestamps by name (KIP-79, KIP-405, KIP-734,
/// KIP-1005, KIP-1023).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetTarget {
    /// Log start offset.
    Earliest,
    /// High watermark or last stable offset, by isolation.
    Latest,
    /// Offset of the record with the largest timestamp.
    MaxTimestamp,
    /// First offset on local disks.
    EarliestLocal,
    /// Last offset in remote storage.
    LatestTiered,
    /// First offset not yet in remote storage.
    EarliestPendingUpload,
    /// First record at or after this time, ms since the epoch.
    Timestamp(i64),
}

impl OffsetTarget {
    /// Whether the log itself has to be searched.
    #[must_use]
    pub fn is_searched(self) -> bool {
        matches!(self, Self::MaxTimestamp | Self::Timestamp(_))
    }
}

/// One question of ListOffsets.
#[derive(Clone, Debug)]
pub struct OffsetQuery {
    /// Where.
    pub partition: PartitionId,
    /// −1: the client does not know it.
    pub current_leader_epoch: i32,
    /// Bounds what may be answered.
    pub isolation: Isolation,
    /// What for.
    pub target: OffsetTarget,
}

/// The answer to an [`OffsetQuery`].
#[derive(Clone, Debug)]
pub struct OffsetAnswer {
    /// `None` also when nothing was found (then the offset is −1).
    pub error: ErrorCode,
    /// −1 when the target is not a record.
    pub timestamp_ms: i64,
    /// −1 when there is none.
    pub offset: i64,
    /// Epoch of the batch that holds the offset; −1 when unknown.
    pub leader_epoch: i32,
}

impl OffsetAnswer {
    /// A refusal.
    pub fn failed(error: ErrorCode) -> OffsetAnswer {
        OffsetAnswer {
            error,
            timestamp_ms: -1,
            offset: -1,
            leader_epoch: -1,
        }
    }
}

/// From where on segments are listed, towards older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentsBefore {
    /// The high watermark.
    End,
    /// Log start offset: nothing is older.
    Start,
    /// The newest segment that was not written to after this time, ms since the epoch.
    Time(i64),
}

/// One question of ListOffsets 0.
#[derive(Clone, Debug)]
pub struct SegmentOffsetsQuery {
    /// Where.
    pub partition: PartitionId,
    /// What for.
    pub before: SegmentsBefore,
    /// Most offsets wanted.
    pub count_max: usize,
    /// The present time, ms since the epoch: that of the end of a log.
    pub now_ms: i64,
}

/// The answer to a [`SegmentOffsetsQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOffsets {
    /// `None`, also when nothing was found.
    pub error: ErrorCode,
    /// Descending; the high watermark stands for what is beyond it.
    pub offsets: Vec<i64>,
}

impl SegmentOffsets {
    /// A refusal.
    pub fn failed(error: ErrorCode) -> SegmentOffsets {
        SegmentOffsets {
            error,
            offsets: Vec::new(),
        }
    }
}

/// One question of OffsetForLeaderEpoch.
#[derive(Clone, Debug)]
pub struct EpochQuery {
    /// Where.
    pub partition: PartitionId,
    /// −1: the client does not know it.
    pub current_leader_epoch: i32,
    /// The epoch whose end is asked for.
    pub leader_epoch: i32,
}

/// The answer to an [`EpochQuery`].
#[derive(Clone, Debug)]
pub struct EpochAnswer {
    /// `None`, or why there is no answer.
    pub error: ErrorCode,
    /// The largest known epoch not above the one asked for; −1 when undefined.
    pub leader_epoch: i32,
    /// Exclusive; −1 when undefined.
    pub end_offset: i64,
}

impl EpochAnswer {
    /// A refusal.
    pub fn failed(error: ErrorCode) -> EpochAnswer {
        EpochAnswer {
            error,
            leader_epoch: -1,
            end_offset: -1,
        }
    }
}

/// One partition of DeleteRecords.
#[derive(Clone, Debug)]
pub struct DeleteRecordsPart {
    /// Where.
    pub partition: PartitionId,
    /// The new log start offset; −1 means the high watermark.
    pub offset: i64,
}

/// What became of a [`DeleteRecordsPart`].
#[derive(Clone, Debug)]
pub struct DeleteRecordsResult {
    /// `None` when the log start moved (or already was there).
    pub error: ErrorCode,
    /// The log start offset; −1 on error.
    pub low_watermark: i64,
}

impl DeleteRecordsResult {
    /// A refusal.
    pub fn failed(error: ErrorCode) -> DeleteRecordsResult {
        DeleteRecordsResult {
            error,
            low_watermark: -1,
        }
    }
}

/// Which logs to describe.
#[derive(Clone, Debug)]
pub enum LogScope {
    /// Every partition of the shard.
    All,
    /// These, where they are on the shard.
    Only(Vec<PartitionId>),
}

/// The size of one log.
#[derive(Clone, Debug)]
pub struct LogDescription {
    /// Whose.
    pub partition: PartitionId,
    /// Bytes of the segments, without indexes.
    pub size_bytes: i64,
    /// Log end offset minus high watermark; for a copy, how far it is behind the log.
    pub offset_lag: i64,
    /// Set for the copy that is made in this log directory, and takes the log's place when it is whole.
    pub future_in: Option<Uuid>,
    /// False when the log failed and is offline until restart.
    pub online: bool,
}
