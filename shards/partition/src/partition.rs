//! One partition: offsets, producers, segments, and who waits for what.
//!
//! Lives on the shard that owns it. A synchronous state machine (state code never awaits): methods
//! take `&mut self` and return plans and jobs, which the driver performs on the shard and whose
//! results it brings back. The rule everything here serves: an acknowledgement and the high
//! watermark never run ahead of what the topic's promise (`chronik.durability`) covers.
//!
//! ```text
//!  log start ≤ last stable = high watermark ≤ log end
//!              disk: durable on all segments     process: written, or kept in the write-behind ring
//! ```

mod append;
mod behind;
mod cleaning;
mod fetch;
mod jobs;
mod lifecycle;
mod moving;
mod offsets;
mod read_job;
mod removal;
mod replay;
mod retention;
mod sealing;
mod segment_offsets;
mod timestamps;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chronik_io::World;
use chronik_log::aborted::AbortedTransactions;
use chronik_log::epochs::LeaderEpochs;
use chronik_log::index::IndexBuilder;
use chronik_log::producer_state::ProducerStates;
use chronik_log::recovery::RecoveryHint;
use chronik_log::segment::{ActiveSegment, SealedSegment, SealedSegments};
use chronik_protocol::{ErrorCode, Str};
use chronik_terms::topic_settings::{Durability, TopicConfig};
use chronik_terms::{AppendResult, LogDescription, Now, PartitionId, Waiter};

pub use cleaning::CleanSettings;
pub use fetch::ReadPlan;
pub use jobs::{Job, JobDone};
pub use moving::Bequest;
pub use read_job::{ReadDone, ReadJob};
pub use retention::CheckTimes;
pub use timestamps::{OffsetDone, OffsetJob, OffsetPlan};

use crate::cache::BatchCache;
use crate::remembered_logs::Remembered;
use crate::write_behind::WriteBehind;

/// What the partitions of a shard share, lent to one of them for a change.
pub struct Shared<'a, W: World> {
    /// What the shard keeps in memory of logs.
    pub cache: &'a mut BatchCache,
    /// Where batches survive the process before they are written.
    pub write_behind: &'a mut WriteBehind<W>,
    /// What happened goes here.
    pub events: &'a mut Vec<PartitionEvent>,
}

/// What a partition is opened with.
#[derive(Clone, Debug)]
pub struct PartitionOptions {
    /// Its topic id and index.
    pub id: PartitionId,
    /// Its topic's name.
    pub topic: Str,
    /// The epoch in which this broker leads it.
    pub leader_epoch: i32,
    /// Its topic's effective settings.
    pub config: Arc<TopicConfig>,
    /// From the data directory's checkpoints.
    pub recovery: RecoveryHint,
    /// What a checkpoint remembers of the log, to be held against its files, and the machine's
    /// start in which it is read.
    pub remembered: Option<(Remembered, u128)>,
    /// Batches an earlier process had acknowledged and not written yet, with their offsets, ascending.
    pub left_behind: Vec<Bytes>,
    /// When retention looks at the log.
    pub check_times: CheckTimes,
    /// Records below have been compacted, as the data directory's checkpoint says; 0 when it does not.
    pub cleaned_offset: i64,
}

/// What becomes of an append.
#[derive(Debug)]
pub enum AppendOutcome {
    /// An [`PartitionEvent::Acked`] with the waiter will come, exactly once.
    Parked,
    /// Answered: a rejection, a repetition, or nothing to wait for.
    Done(AppendResult),
}

impl AppendOutcome {
    /// The result, if the append is decided.
    pub fn decided(self) -> Option<AppendResult> {
        match self {
            AppendOutcome::Done(result) => Some(result),
            AppendOutcome::Parked => None,
        }
    }
}

/// What happened inside a partition that somebody outside has to know.
#[derive(Debug)]
pub enum PartitionEvent {
    /// A parked append is decided.
    Acked {
        /// As given to [`Partition::append`].
        waiter: Waiter,
        /// What to answer.
        result: AppendResult,
    },
    /// Consumers can see more.
    HighWatermark {
        /// Before.
        old: i64,
        /// Now.
        new: i64,
    },
    /// Everything below is on disk and whole: worth a checkpoint.
    RecoveryPoint(i64),
    /// Records below are gone; durable once it is in the log start checkpoint.
    LogStart(i64),
    /// Records below have been compacted: worth a checkpoint.
    Cleaned(i64),
    /// The log went offline until restart.
    Failed {
        /// The first failure.
        error: Str,
    },
}

/// Where a cleanly closed partition stands, for the checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReport {
    /// Equal to the log end.
    pub recovery_point: i64,
    /// First offset that can be read.
    pub log_start: i64,
    /// Equal to the log end, for there is no other replica.
    pub high_watermark: i64,
}

/// A cleanly closed partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Where it stands.
    pub report: CloseReport,
    /// What a checkpoint of the logs is to remember of it, if its directory could be listed.
    pub remembered: Option<Vec<u8>>,
}

/// An append that waits for an offset to be reached.
struct Parked {
    next_offset: i64,
    waiter: Waiter,
    result: AppendResult,
}

/// A segment that is no longer appended to and not yet sealed.
enum Closing<W: World> {
    /// Writes are still on their way.
    Draining {
        segment: Box<ActiveSegment<W>>,
        /// Producer state at its end, for the snapshot at the next segment's base.
        snapshot: Vec<u8>,
    },
    /// Its seal is on its way.
    Sealing(SealingSegment<W>),
}

/// What is known of a segment while its seal is performed.
struct SealingSegment<W: World> {
    /// As it will be; readable already.
    segment: SealedSegment<W>,
    /// Its indexes, on their way to the disk.
    index: Rc<IndexBuilder>,
    durable_offset: i64,
}

/// One partition of a topic; see the module's text.
pub struct Partition<W: World> {
    world: W,
    dir: PathBuf,
    id: PartitionId,
    topic: Str,
    config: Arc<TopicConfig>,
    leader_epoch: i32,
    sealed: SealedSegments<W>,
    closing: VecDeque<Closing<W>>,
    /// The seal of its first, which something is too short for now.
    seal_later: Option<sealing::SealLater<W>>,
    /// How often it was tried.
    seal_failures: u32,
    active: ActiveSegment<W>,
    rolling: jobs::Rolling,
    /// The next segment could not be created, but its file may be there: nothing may be appended to
    /// this one any more, or it would reach past the base of the next.
    must_roll: bool,
    producers: ProducerStates,
    /// From the life of a Kafka before.
    aborted: AbortedTransactions,
    epochs: LeaderEpochs,
    epochs_to_save: bool,
    /// They are being saved.
    epochs_saving: bool,
    log_start: i64,
    /// The checkpoint of log starts does not fit the log, and has to be corrected.
    corrects_log_start: bool,
    high_watermark: i64,
    recovery_point: i64,
    /// Wait for the high watermark (`acks=all`); by offset.
    parked_committed: VecDeque<Parked>,
    /// Wait until the process's end cannot take them (`acks=1`); by offset.
    parked_written: VecDeque<Parked>,
    behind: behind::Behind,
    admission: append::Admission,
    flush: jobs::Flush,
    retention: retention::Retention,
    cleaning: cleaning::Cleaning<W>,
    /// Grows whenever sealed segments are replaced or removed: what was found by their names before
    /// is not to be believed.
    layout: u64,
    /// The greatest timestamp of this segment is to be read.
    to_learn: Option<i64>,
    removal: removal::Removal,
    jobs_in_flight: usize,
    /// Something was appended or scanned since the files were last as a clean stop leaves them.
    dirty: bool,
    /// The last space asked for was not there, and the log has said so.
    disk_full: bool,
    failure: Option<Str>,
}

impl<W: World> Partition<W> {
    /// Topic id and index.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The topic's name.
    pub fn topic(&self) -> &Str {
        &self.topic
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// First offset that can be read.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// Whether the checkpoint has to learn [`Partition::log_start`] before anything is appended: it names
    /// one behind the log's end, and would be believed once the log has grown.
    pub fn corrects_log_start(&self) -> bool {
        self.corrects_log_start
    }

    /// Consumers that read committed records see what lies below. There are no transactions yet,
    /// so it is the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.high_watermark
    }

    /// Consumers see what lies below.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Offset the next record gets.
    pub fn log_end(&self) -> i64 {
        self.active.next_offset()
    }

    /// Everything below is on disk and whole, and need not be scanned after a crash.
    pub fn recovery_point(&self) -> i64 {
        self.recovery_point
    }

    /// The epoch in which this broker leads it.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Whether it takes appends; a failed log does not until restart.
    pub fn is_online(&self) -> bool {
        self.failure.is_none()
    }

    /// Jobs taken whose results have not come back.
    pub fn jobs_in_flight(&self) -> usize {
        self.jobs_in_flight
    }

    /// Size and state, for DescribeLogDirs.
    pub fn describe(&self) -> LogDescription {
        LogDescription {
            partition: self.id,
            size_bytes: i64::try_from(self.size_bytes()).unwrap_or(i64::MAX),
            offset_lag: 0,
            future_in: None,
            online: self.is_online(),
        }
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        let closing: u64 = self.closing.iter().map(Closing::size_bytes).sum();
        self.sealed.bytes() + closing + self.active.size_bytes()
    }

    /// New settings of the topic. What concerns the open file (its sync mode) holds from the next
    /// segment on; until then a stronger promise is kept by explicit syncs.
    pub fn set_config(&mut self, config: Arc<TopicConfig>) {
        self.config = config;
    }

    /// This broker leads in a newer epoch now; older ones are ignored.
    pub fn set_leader_epoch(&mut self, epoch: i32) {
        self.leader_epoch = self.leader_epoch.max(epoch);
        self.begin_epoch();
    }

    /// The leader's epoch is known from the moment it leads, at the log's end, also without a record;
    /// those without one vanish (`Partition#makeLeader`). Their file need not say so: the next leader's
    /// begins at the same place.
    fn begin_epoch(&mut self) {
        self.epochs.assign(self.leader_epoch, self.log_end());
    }

    /// Forgets producers silent for `expiration_ms` (`producer.id.expiration.ms`). Returns how many.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        self.producers.expire(now_ms, expiration_ms)
    }

    /// When [`Partition::expire_producers`] next has something to forget, ms since the epoch.
    pub fn next_producer_expiry_ms(&self, expiration_ms: i64) -> Option<i64> {
        self.producers.next_expiry_ms(expiration_ms)
    }

    /// Offsets below are written in every segment.
    fn written_offset(&self) -> i64 {
        let closing = self.closing.iter().find_map(|closing| match closing {
            Closing::Draining { segment, .. } => unfinished(segment, segment.written_offset()),
            Closing::Sealing(_) => None,
        });
        closing.unwrap_or_else(|| self.active.written_offset())
    }

    /// Offsets below are durable in every segment.
    fn durable_offset(&self) -> i64 {
        let closing = self.closing.iter().find_map(|closing| match closing {
            Closing::Draining { segment, .. } => unfinished(segment, segment.durable_offset()),
            Closing::Sealing(sealing) => (sealing.durable_offset < sealing.segment.next_offset)
                .then_some(sealing.durable_offset),
        });
        closing.unwrap_or_else(|| self.active.durable_offset())
    }

    fn committed_offset(&self) -> i64 {
        match self.config.durability {
            Durability::Disk => self.durable_offset(),
            Durability::Process => self.surviving_offset(),
        }
    }

    /// Whether everything below is where it survives what the topic's promise covers, the ring aside.
    pub fn holds(&self, offset: i64) -> bool {
        offset
            <= match self.config.durability {
                Durability::Disk => self.durable_offset(),
                Durability::Process => self.written_offset(),
            }
    }

    /// As [`Partition::holds`]; durably where a checkpoint was told so, whatever is promised since.
    pub fn holds_as_told(&self, (offset, durably): (i64, bool)) -> bool {
        self.holds(offset) && (!durably || offset <= self.durable_offset())
    }

    /// `<topic>-<index>`, as messages name it.
    fn name(&self) -> String {
        format!("{}-{}", &*self.topic, self.id.index)
    }

    fn storage_error(&self, why: &str) -> AppendResult {
        self.append_error(ErrorCode::KafkaStorageError, why)
    }

    fn append_error(&self, error: ErrorCode, message: &str) -> AppendResult {
        AppendResult {
            error,
            message: Some(Str::from(message.to_owned())),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: self.log_start,
        }
    }
}

fn unfinished<W: World>(segment: &ActiveSegment<W>, reached: i64) -> Option<i64> {
    (reached < segment.next_offset()).then_some(reached)
}

impl<W: World> Closing<W> {
    fn base_offset(&self) -> i64 {
        match self {
            Self::Draining { segment, .. } => segment.base_offset(),
            Self::Sealing(sealing) => sealing.segment.base_offset,
        }
    }

    fn next_offset(&self) -> i64 {
        match self {
            Self::Draining { segment, .. } => segment.next_offset(),
            Self::Sealing(sealing) => sealing.segment.next_offset,
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Draining { segment, .. } => segment.size_bytes(),
            Self::Sealing(sealing) => sealing.segment.size_bytes,
        }
    }
}
