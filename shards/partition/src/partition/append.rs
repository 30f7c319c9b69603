//! Appending: sequence checks, offsets, and who is answered when.
//!
//! Part of the partition's state, on its shard. A batch is copied into the file's aligned buffer and,
//! where it has to survive the process before it is written, into the write-behind ring; the cache
//! keeps the arrived bytes. Where there is no room (zeroed space, a new segment
//! on its way, a backlog) appends wait unassigned and in order, and are assigned when a job's result
//! makes room: offsets and sequence checks always follow the order of arrival.

use std::collections::VecDeque;

use chronik_io::World;
use chronik_log::producer_state::{ProducedBatch, Verdict};
use chronik_log::segment::BatchFacts;
use chronik_protocol::record::{BATCH_PREFIX_BYTES, BatchHeader, CheckedBatch};
use chronik_protocol::{ErrorCode, Str};
use chronik_terms::topic_settings::TimestampKind;
use chronik_terms::{Acks, AppendPart, AppendResult, Waiter};

use super::{AppendOutcome, Now, Parked, Partition, PartitionEvent, Shared};
use crate::limits::BATCH_BYTES_MAX;

/// Appends that wait for room, in order of arrival. Their bytes are bounded by the budgets of the
/// connections they came from, and those of a shard by
/// [`UNDECIDED_APPEND_BYTES_MAX`](crate::limits::UNDECIDED_APPEND_BYTES_MAX).
#[derive(Default)]
pub(super) struct Admission {
    queue: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    batch: CheckedBatch,
    acks: Acks,
    now: Now,
    waiter: Waiter,
}

impl Admission {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn first_bytes(&self) -> Option<u64> {
        self.queue
            .front()
            .map(|waiting| waiting.batch.bytes.len() as u64)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.batch.bytes.len();
        self.queue.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.bytes -= waiting.batch.bytes.len();
        Some(waiting)
    }
}

/// What became of a batch at the end of the log.
enum Placed {
    /// It is appended, or was before; the answer holds once the log has got this far.
    At {
        next_offset: i64,
        result: AppendResult,
    },
    Rejected(AppendResult),
    /// There is no room yet; something was started that will make some.
    NoRoom,
}

impl<W: World> Partition<W> {
    /// Appends a batch. `Acks::None` is answered as soon as it has its place, everything else as
    /// the topic's promise demands. LogAppendTime is applied here. Call [`Partition::take_jobs`] afterwards.
    ///
    /// Codes: RECORD_LIST_TOO_LARGE, INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER,
    /// KAFKA_STORAGE_ERROR (log offline, disk full).
    pub fn append(
        &mut self,
        shared: &mut Shared<'_, W>,
        part: AppendPart,
        acks: Acks,
        now: Now,
        waiter: Waiter,
    ) -> AppendOutcome {
        let batch = part.batch;
        if let Some(result) = self.refusal(&batch) {
            return AppendOutcome::Done(result);
        }
        if self.admission.is_empty() && !self.rolling.is_under_way() {
            match self.place(shared, &batch, acks, now) {
                Placed::At {
                    next_offset,
                    result,
                } => {
                    self.advance(shared.events);
                    return self.settle(acks, next_offset, result, waiter);
                }
                Placed::Rejected(result) => return AppendOutcome::Done(result),
                Placed::NoRoom => {}
            }
        }
        self.admission.push(Waiting {
            batch,
            acks,
            now,
            waiter,
        });
        // Also with `Acks::None`: its client gets no answer, but its connection is not read on without one.
        AppendOutcome::Parked
    }

    fn refusal(&self, batch: &CheckedBatch) -> Option<AppendResult> {
        if let Some(error) = &self.failure {
            return Some(self.storage_error(error));
        }
        let limit = usize::try_from(self.config.segment_bytes).unwrap_or(usize::MAX);
        // What is taken can be given: this is the only door to a log.
        let (size, limit) = (batch.bytes.len(), limit.min(BATCH_BYTES_MAX));
        if size <= limit {
            return None;
        }
        let why = format!(
            "Message batch size is {size} bytes in append to partition {}, which exceeds the \
             maximum configured segment size of {limit}.",
            self.name()
        );
        Some(self.append_error(ErrorCode::RecordListTooLarge, &why))
    }

    fn accepted(&self, base_offset: i64, log_append_time_ms: i64) -> AppendResult {
        AppendResult {
            error: ErrorCode::None,
            message: None,
            base_offset,
            log_append_time_ms,
            log_start_offset: self.log_start,
        }
    }

    /// Judges a batch, gives it its offsets and puts it into the active segment.
    fn place(
        &mut self,
        shared: &mut Shared<'_, W>,
        batch: &CheckedBatch,
        acks: Acks,
        now: Now,
    ) -> Placed {
        let base_offset = self.log_end();
        match self.producers.check(&batch.header) {
            Ok(Verdict::Fresh) => {}
            Ok(Verdict::Duplicate(original)) => return self.repeated(&original),
            Err(error) => {
                let id = batch.header.producer_id;
                let message = error.message(id, base_offset, &self.name());
                return Placed::Rejected(self.append_error(error.code(), &message));
            }
        }
        let stamps = self.config.timestamp_kind == TimestampKind::LogAppendTime;
        let stamped;
        let batch = if stamps {
            stamped = batch.with_log_append_time(now.wall_ms);
            &stamped
        } else {
            batch
        };
        let mut header = batch.header;
        header.base_offset = base_offset;
        header.partition_leader_epoch = self.leader_epoch;
        let facts = BatchFacts {
            base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            size_bytes: u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX),
            crc: header.crc,
        };
        if self.must_roll || self.active.should_roll(&facts, &self.config, now.wall_ms) {
            self.rolling.begin(base_offset);
            return Placed::NoRoom;
        }
        if self.active.room() < u64::from(facts.size_bytes) {
            self.active.reserve(u64::from(facts.size_bytes));
            return Placed::NoRoom;
        }
        let prefix = batch.prefix(base_offset, self.leader_epoch);
        let body = batch.body();
        if let Err(error) = self.put(&header, &facts, (&prefix, &body), now) {
            return Placed::Rejected(self.storage_error(&error.to_string()));
        }
        self.keep(shared.write_behind, &facts, (&prefix, &body), acks, now);
        let offsets = (base_offset, header.next_offset());
        shared.cache.push_tail(self.id, offsets, &prefix, &body);
        let next_offset = header.next_offset();
        let records = u64::from(header.last_offset_delta.unsigned_abs()) + 1;
        self.flush.note(&self.config, records, next_offset, now);
        let append_time = if stamps { now.wall_ms } else { -1 };
        Placed::At {
            next_offset,
            result: self.accepted(base_offset, append_time),
        }
    }

    /// Puts a batch with its offsets into the active segment, and takes note of it.
    pub(super) fn put(
        &mut self,
        header: &BatchHeader,
        facts: &BatchFacts,
        (prefix, body): (&[u8; BATCH_PREFIX_BYTES], &[u8]),
        now: Now,
    ) -> Result<(), chronik_io::AppendError> {
        let interval_bytes = self.config.index_interval_bytes;
        self.active.append(&[prefix, body], facts, interval_bytes)?;
        self.dirty = true;
        let epoch = header.partition_leader_epoch;
        // Their file follows when the segment is sealed: until then a start finds them in the batches.
        self.epochs.assign(epoch, facts.base_offset);
        self.producers.note(header, now.wall_ms);
        self.watch_growth(now);
        Ok(())
    }

    /// A repetition is answered with the original's offset, and not before the original would be.
    fn repeated(&self, original: &ProducedBatch) -> Placed {
        let append_time = match self.config.timestamp_kind {
            TimestampKind::LogAppendTime => original.timestamp,
            TimestampKind::CreateTime => -1,
        };
        Placed::At {
            next_offset: original.last_offset.saturating_add(1),
            result: self.accepted(original.first_offset(), append_time),
        }
    }

    /// Answers, or parks until the log has got as far as the acknowledgement promises.
    fn settle(
        &mut self,
        acks: Acks,
        next_offset: i64,
        result: AppendResult,
        waiter: Waiter,
    ) -> AppendOutcome {
        let surviving = self.surviving_offset();
        let (reached, queue) = match acks {
            Acks::None => return AppendOutcome::Done(result),
            Acks::Leader => (surviving, &mut self.parked_written),
            Acks::All => (self.high_watermark, &mut self.parked_committed),
        };
        if next_offset <= reached {
            return AppendOutcome::Done(result);
        }
        let parked = Parked {
            next_offset,
            waiter,
            result,
        };
        // A repetition waits for an offset that others behind it in the queue have passed.
        let at = queue.partition_point(|other| other.next_offset <= next_offset);
        queue.insert(at, parked);
        AppendOutcome::Parked
    }

    /// Assigns what waits, as far as there is room now.
    pub(super) fn admit(&mut self, shared: &mut Shared<'_, W>) {
        while !self.rolling.is_under_way() && self.failure.is_none() {
            let Some(waiting) = self.admission.pop() else {
                return;
            };
            match self.place(shared, &waiting.batch, waiting.acks, waiting.now) {
                Placed::At {
                    next_offset,
                    result,
                } => {
                    self.advance(shared.events);
                    let outcome = self.settle(waiting.acks, next_offset, result, waiting.waiter);
                    answer(shared.events, waiting.waiter, outcome);
                }
                Placed::Rejected(result) => {
                    let outcome = AppendOutcome::Done(result);
                    answer(shared.events, waiting.waiter, outcome);
                }
                Placed::NoRoom => {
                    let bytes = waiting.batch.bytes.len();
                    self.admission.bytes += bytes;
                    self.admission.queue.push_front(waiting);
                    return;
                }
            }
        }
    }

    /// Refuses everything that waits for room.
    pub(super) fn refuse_admission(&mut self, why: &str, events: &mut Vec<PartitionEvent>) {
        while let Some(waiting) = self.admission.pop() {
            let result = self.storage_error(why);
            answer(events, waiting.waiter, AppendOutcome::Done(result));
        }
    }

    /// Gives up all who wait for an append, each once: the partition is deleted.
    pub fn take_waiters(&mut self) -> Vec<Waiter> {
        let parked = std::mem::take(&mut self.parked_committed).into_iter();
        let parked = parked.chain(std::mem::take(&mut self.parked_written));
        let mut waiters: Vec<Waiter> = parked.map(|parked| parked.waiter).collect();
        while let Some(waiting) = self.admission.pop() {
            waiters.push(waiting.waiter);
        }
        waiters
    }

    /// Moves the high watermark and answers those who waited for it or for survival.
    pub(super) fn advance(&mut self, events: &mut Vec<PartitionEvent>) {
        if self.failure.is_some() {
            return;
        }
        let old = self.high_watermark;
        let new = self.committed_offset();
        if new > old {
            self.high_watermark = new;
            events.push(PartitionEvent::HighWatermark { old, new });
        }
        release(&mut self.parked_committed, self.high_watermark, events);
        let surviving = self.surviving_offset();
        release(&mut self.parked_written, surviving, events);
    }

    /// Takes the log offline: nothing that waits can be promised any more.
    pub(super) fn fail(&mut self, why: &str, events: &mut Vec<PartitionEvent>) {
        if self.failure.is_some() {
            return;
        }
        let error = Str::from(format!("the log of {} is offline: {why}", self.name()));
        tracing::error!(partition = self.name(), why, "log offline until restart");
        self.failure = Some(error.clone());
        let parked = std::mem::take(&mut self.parked_committed).into_iter();
        for parked in parked.chain(std::mem::take(&mut self.parked_written)) {
            let result = self.storage_error(&error);
            events.push(PartitionEvent::Acked {
                waiter: parked.waiter,
                result,
            });
        }
        self.refuse_admission(&error, events);
        events.push(PartitionEvent::Failed { error });
    }
}

fn answer(events: &mut Vec<PartitionEvent>, waiter: Waiter, outcome: AppendOutcome) {
    match outcome {
        AppendOutcome::Done(result) => events.push(PartitionEvent::Acked { waiter, result }),
        AppendOutcome::Parked => {}
    }
}

fn release(queue: &mut VecDeque<Parked>, reached: i64, events: &mut Vec<PartitionEvent>) {
    while queue
        .front()
        .is_some_and(|parked| parked.next_offset <= reached)
    {
        if let Some(Parked { waiter, result, .. }) = queue.pop_front() {
            events.push(PartitionEvent::Acked { waiter, result });
        }
    }
}
