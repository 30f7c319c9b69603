//! Reads of one shard: fetches, their parking, and lookups of offsets.
//!
//! State only. Owns the limits over the parts of a request (KIP-74) and the bytes being read from
//! disk; what a part gives is the partition's to say.

use chronik_io::World;
use chronik_protocol::ErrorCode;

use super::ahead::AheadWaiter;
use super::timers::Timer;
use super::{Effect, Shard, Slot};
use crate::limits::{
    DISK_READ_BYTES_MAX, DISK_READ_QUEUE_LEN_MAX, PARKED_REQUESTS_MAX, READ_REQUEST_BYTES_MAX,
    WOKEN_PER_SLICE,
};
use crate::partition::{OffsetDone, OffsetPlan, ReadDone, ReadJob, ReadPlan};
use crate::purgatory::Parked;
use crate::request::{
    AwaitRequest, Isolation, OffsetAnswer, OffsetQuery, PartitionId, ReadPart, ReadRequest,
    ReadResult, Reply, SegmentOffsets, SegmentOffsetsQuery, Wake,
};

/// A read some of whose parts come from disk.
pub(super) struct PendingRead<R> {
    responder: R,
    /// What was asked, for reading ahead.
    parts: Vec<ReadPart>,
    isolation: Isolation,
    results: Vec<Option<ReadResult>>,
    missing: usize,
    /// What it counts for among the bytes being read.
    disk_bytes: usize,
}

/// A lookup some of whose answers come from disk.
pub(super) struct PendingOffsets<R> {
    responder: R,
    answers: Vec<Option<OffsetAnswer>>,
    missing: usize,
}

/// Lookups by timestamp, which search the files: what could be seen when they came has to be there.
pub(super) struct UnwrittenQueries<R> {
    queries: Vec<OffsetQuery>,
    responder: R,
    /// Who has to have written up to where.
    waits_for: Vec<(PartitionId, i64)>,
}

/// How one part of a read is to be had.
enum PartPlan<W: World> {
    Ready(ReadResult),
    Disk(ReadJob<W>),
    /// It is being read already; so many bytes may be given of it.
    Ahead {
        bytes_max: usize,
        at_least_one: bool,
    },
}

/// How the parts of one read are to be had.
struct Planned<W: World> {
    plans: Vec<PartPlan<W>>,
    disk_bytes: usize,
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn read_or_park(&mut self, request: ReadRequest, responder: R) {
        let Some(wait) = request.wait else {
            return self.read(request, responder);
        };
        let full = self.purgatory.len() >= PARKED_REQUESTS_MAX || self.stopping.is_some();
        if full || wait.deadline_ns <= self.now().mono_ns || self.has_enough(&request) {
            return self.read(request, responder);
        }
        let counted: Vec<_> = request
            .parts
            .iter()
            .map(|part| {
                let bytes = self.available(part.partition, part.fetch_offset, request.isolation);
                (part.partition, part.fetch_offset, part.max_bytes, bytes)
            })
            .collect();
        let key = self.purgatory.next_key();
        let timer = self.timers.add(wait.deadline_ns, Timer::Parked(key));
        self.purgatory
            .park(Parked::Read(request), responder, timer, counted.into_iter());
        self.counters.parked += 1;
    }

    pub(super) fn park_await(&mut self, request: AwaitRequest, responder: R) {
        let wait = request.wait;
        let mut enough = self.purgatory.len() >= PARKED_REQUESTS_MAX || self.stopping.is_some();
        let mut counted = Vec::with_capacity(request.parts.len());
        let mut total = 0usize;
        for (id, offset) in &request.parts {
            let bytes = self.available(*id, *offset, request.isolation);
            total = total.saturating_add(bytes);
            // A partition that is not here, or an offset out of its range, ends the wait at once:
            // the read that follows tells.
            enough |= match self.partitions.get(id) {
                Some(Slot::Online(partition)) => {
                    *offset < partition.log_start() || *offset > partition.log_end()
                }
                _ => true,
            };
            counted.push((*id, *offset, usize::MAX, bytes));
        }
        if enough || total >= wait.min_bytes {
            return self.reply(responder, Reply::Await(Wake::Progress));
        }
        if wait.deadline_ns <= self.now().mono_ns {
            return self.reply(responder, Reply::Await(Wake::Deadline));
        }
        let key = self.purgatory.next_key();
        let timer = self.timers.add(wait.deadline_ns, Timer::Parked(key));
        self.purgatory.park(
            Parked::Await(request),
            responder,
            timer,
            counted.into_iter(),
        );
        self.counters.parked += 1;
    }

    fn available(
        &self,
        id: PartitionId,
        offset: i64,
        isolation: crate::request::Isolation,
    ) -> usize {
        match self.partitions.get(&id) {
            Some(Slot::Online(partition)) => partition.bytes_available(offset, isolation),
            _ => 0,
        }
    }

    /// Whether a read is to be answered now: enough bytes, or a part that would be an error
    /// (`DelayedFetch#tryComplete`).
    fn has_enough(&mut self, request: &ReadRequest) -> bool {
        let min_bytes = request.wait.map_or(0, |wait| wait.min_bytes);
        let mut total = 0usize;
        for part in &request.parts {
            let Some(Slot::Online(partition)) = self.partitions.get_mut(&part.partition) else {
                return true;
            };
            let bytes = partition.bytes_available(part.fetch_offset, request.isolation);
            total = total.saturating_add(bytes.min(part.max_bytes));
            if total >= min_bytes {
                return true;
            }
            // A read of no bytes tells errors and a log that has parted ways.
            let plan = partition.plan_read(&mut self.cache, part, request.isolation, 0, false);
            if let ReadPlan::Ready(result) = plan
                && (result.error != ErrorCode::None || result.diverging.is_some())
            {
                return true;
            }
        }
        false
    }

    /// Reads now.
    pub(super) fn read(&mut self, request: ReadRequest, responder: R) {
        let planned = self.plan(&request);
        let fits = self.disk_read_bytes.saturating_add(planned.disk_bytes) <= DISK_READ_BYTES_MAX;
        if planned.disk_bytes > 0 && self.disk_read_bytes > 0 && !fits {
            if self.read_queue.len() < DISK_READ_QUEUE_LEN_MAX {
                return self.read_queue.push_back((request, responder));
            }
            let refused = |_| ReadResult::failed(ErrorCode::ThrottlingQuotaExceeded);
            let results = request.parts.iter().map(refused).collect();
            return self.reply(responder, Reply::Read(results));
        }
        let key = self.reads.vacant_key();
        let mut missing = 0;
        let mut results = Vec::with_capacity(planned.plans.len());
        for (place, plan) in planned.plans.into_iter().enumerate() {
            results.push(match plan {
                PartPlan::Ready(result) => Some(result),
                PartPlan::Disk(job) => {
                    missing += 1;
                    self.counters.disk_reads += 1;
                    self.effects.push(Effect::Read {
                        read: key,
                        part: place,
                        job,
                    });
                    None
                }
                PartPlan::Ahead {
                    bytes_max,
                    at_least_one,
                } => {
                    missing += 1;
                    self.aheads.wait(AheadWaiter {
                        read: key,
                        place,
                        part: request.parts[place].clone(),
                        isolation: request.isolation,
                        bytes_max,
                        at_least_one,
                    });
                    None
                }
            });
        }
        for (part, result) in request.parts.iter().zip(&results) {
            if result
                .as_ref()
                .is_some_and(|result| !result.records.is_empty())
            {
                self.read_ahead(part, request.isolation);
            }
        }
        if missing == 0 {
            return self.answer_read(responder, results);
        }
        self.disk_read_bytes = self.disk_read_bytes.saturating_add(planned.disk_bytes);
        let disk_bytes = planned.disk_bytes;
        self.reads.insert(PendingRead {
            responder,
            parts: request.parts,
            isolation: request.isolation,
            results,
            missing,
            disk_bytes,
        });
    }

    /// Plans every part, in order. What is left of the request's bytes bounds each part; the first
    /// part that has anything gives at least one batch. A part that comes from disk counts for
    /// all that it may give, for how much it does give is not known yet.
    fn plan(&mut self, request: &ReadRequest) -> Planned<W> {
        let mut left = request.max_bytes.min(READ_REQUEST_BYTES_MAX);
        let mut first = true;
        let mut planned = Planned {
            plans: Vec::with_capacity(request.parts.len()),
            disk_bytes: 0,
        };
        for part in &request.parts {
            let plan = self.plan_part(part, request, left, first);
            let used = match &plan {
                PartPlan::Ready(result) => result.records.len(),
                PartPlan::Disk(_) | PartPlan::Ahead { .. } => {
                    let there =
                        self.available(part.partition, part.fetch_offset, request.isolation);
                    there.min(part.max_bytes).min(left).max(1)
                }
            };
            if let PartPlan::Disk(job) = &plan {
                planned.disk_bytes = planned.disk_bytes.saturating_add(memory_of(job));
            }
            first &= used == 0;
            left = left.saturating_sub(used);
            planned.plans.push(plan);
        }
        planned
    }

    fn plan_part(
        &mut self,
        part: &ReadPart,
        request: &ReadRequest,
        left: usize,
        first: bool,
    ) -> PartPlan<W> {
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&part.partition) else {
            return PartPlan::Ready(ReadResult::failed(self.absence(part.partition)));
        };
        match partition.plan_read(&mut self.cache, part, request.isolation, left, first) {
            ReadPlan::Ready(result) => PartPlan::Ready(result),
            ReadPlan::Disk(_) if self.aheads.brings(part.partition, part.fetch_offset) => {
                PartPlan::Ahead {
                    bytes_max: left,
                    at_least_one: first,
                }
            }
            ReadPlan::Disk(job) => PartPlan::Disk(job),
        }
    }

    pub(super) fn read_done(&mut self, key: usize, part: usize, done: ReadDone<W>) {
        let id = done.partition();
        let plan = match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => partition.complete_read(&mut self.cache, done),
            _ => ReadPlan::Ready(ReadResult::failed(self.absence(id))),
        };
        let result = match plan {
            ReadPlan::Ready(result) => result,
            ReadPlan::Disk(job) => {
                self.counters.disk_reads += 1;
                let read = key;
                return self.effects.push(Effect::Read { read, part, job });
            }
        };
        if let Some(pending) = self.reads.get(key)
            && let Some(asked) = pending.parts.get(part)
        {
            let (asked, isolation) = (asked.clone(), pending.isolation);
            self.read_ahead(&asked, isolation);
        }
        self.place_read(key, part, result);
        self.read_what_waits();
        self.close_when_idle();
    }

    /// Takes in what one part of a read has come to, and answers the read when it was the last.
    pub(super) fn place_read(&mut self, key: usize, part: usize, result: ReadResult) {
        let Some(pending) = self.reads.get_mut(key) else {
            debug_assert!(false, "a result for no read");
            return;
        };
        if let Some(place @ None) = pending.results.get_mut(part) {
            *place = Some(result);
            pending.missing -= 1;
        }
        if pending.missing > 0 {
            return;
        }
        let pending = self.reads.remove(key);
        self.disk_read_bytes = self.disk_read_bytes.saturating_sub(pending.disk_bytes);
        self.answer_read(pending.responder, pending.results);
    }

    /// A read takes more of the disk than was planned.
    pub(super) fn charge_read(&mut self, key: usize, bytes: usize) {
        if let Some(pending) = self.reads.get_mut(key) {
            pending.disk_bytes = pending.disk_bytes.saturating_add(bytes);
            self.disk_read_bytes = self.disk_read_bytes.saturating_add(bytes);
        }
    }

    /// What waited longest for others to be read is planned anew: the cache may have it by now.
    pub(super) fn read_what_waits(&mut self) {
        let waiting = self.read_queue.len();
        for _ in 0..waiting {
            if self.disk_read_bytes >= DISK_READ_BYTES_MAX {
                break;
            }
            let Some((request, responder)) = self.read_queue.pop_front() else {
                break;
            };
            self.read(request, responder);
        }
    }

    fn answer_read(&mut self, responder: R, results: Vec<Option<ReadResult>>) {
        let results: Vec<ReadResult> = results.into_iter().flatten().collect();
        self.counters.reads += 1;
        let bytes: usize = results.iter().map(|result| result.records.len()).sum();
        self.counters.bytes_read += bytes as u64;
        self.reply(responder, Reply::Read(results));
    }

    /// Consumers can see more of a partition: whoever has enough now is answered.
    pub(super) fn wake_readers(&mut self, id: PartitionId) {
        let mut watches = std::mem::take(&mut self.watches);
        self.purgatory.watches(id, &mut watches);
        for watch in watches.drain(..) {
            let bytes = self.available(id, watch.offset, watch.isolation);
            if self.purgatory.update(watch, bytes) {
                self.wake(watch.key);
            }
        }
        self.watches = watches;
        self.end_woken();
    }

    /// A read of the partition is an error now, or will be: everybody who watches it is answered.
    pub(super) fn wake_all_readers(&mut self, id: PartitionId) {
        let mut watches = Vec::new();
        self.purgatory.watches(id, &mut watches);
        for watch in watches {
            self.wake(watch.key);
        }
        self.end_woken();
    }

    fn wake(&mut self, key: usize) {
        if let Some(timer) = self.purgatory.rouse(key) {
            self.woken.push_back((key, timer));
        }
    }

    /// Answers some of the requests that have what they waited for; the rest in another slice, for
    /// thousands may wait for one partition.
    pub(super) fn end_woken(&mut self) {
        for _ in 0..WOKEN_PER_SLICE {
            let Some((key, timer)) = self.woken.pop_front() else {
                return;
            };
            // The place may belong to another request by now; a timer belongs to one only.
            if self.purgatory.timer(key) == Some(timer) {
                self.end_parked(key, Wake::Progress);
            }
        }
        if !self.woken.is_empty() && !std::mem::replace(&mut self.resting, true) {
            self.effects.push(Effect::Rest);
        }
    }

    pub(super) fn rested(&mut self) {
        self.resting = false;
        self.end_woken();
    }

    /// Takes a request out of the purgatory and answers it.
    pub(super) fn end_parked(&mut self, key: usize, wake: Wake) {
        let Some(entry) = self.purgatory.take(key) else {
            return;
        };
        if wake == Wake::Deadline {
            self.counters.parked_expired += 1;
        } else {
            self.timers.cancel(entry.timer);
        }
        match entry.parked {
            Parked::Await(_) => self.reply(entry.responder, Reply::Await(wake)),
            Parked::Read(mut request) => {
                if wake == Wake::Cancelled {
                    // Nobody is there to take records; offsets and errors cost nothing.
                    request.max_bytes = 0;
                    for part in &mut request.parts {
                        part.max_bytes = 0;
                    }
                    let planned: Vec<_> = request
                        .parts
                        .iter()
                        .map(|part| match self.plan_part(part, &request, 0, false) {
                            PartPlan::Ready(result) => Some(result),
                            _ => Some(ReadResult::failed(ErrorCode::None)),
                        })
                        .collect();
                    return self.answer_read(entry.responder, planned);
                }
                self.read(request, entry.responder);
            }
        }
    }

    pub(super) fn segment_offsets(&mut self, query: &SegmentOffsetsQuery) -> SegmentOffsets {
        match self.online(query.partition) {
            Ok(partition) => partition.segment_offsets(query),
            Err(error) => SegmentOffsets::failed(error),
        }
    }

    pub(super) fn list_offsets(&mut self, queries: Vec<OffsetQuery>, responder: R) {
        let mut waits_for = Vec::new();
        for query in queries.iter().filter(|query| query.target.is_searched()) {
            if let Some(Slot::Online(partition)) = self.partitions.get(&query.partition)
                && partition.is_online()
                && !partition.is_written_up_to(partition.high_watermark())
            {
                waits_for.push((query.partition, partition.high_watermark()));
            }
        }
        if waits_for.is_empty() {
            return self.look_up_offsets(&queries, responder);
        }
        let written_now: Vec<PartitionId> = waits_for.iter().map(|(id, _)| *id).collect();
        self.unwritten_queries.push(UnwrittenQueries {
            queries,
            responder,
            waits_for,
        });
        written_now.into_iter().for_each(|id| self.write_now(id));
    }

    /// Something of the partition was written, or never will be.
    pub(super) fn search_what_is_written(&mut self, id: PartitionId) {
        let partitions = &self.partitions;
        let still = |(of, offset): &mut (PartitionId, i64)| match partitions.get(of) {
            Some(Slot::Online(partition)) if partition.is_online() => {
                !partition.is_written_up_to(*offset)
            }
            _ => false,
        };
        let concerned = self.unwritten_queries.iter_mut();
        let concerned = concerned.filter(|waiting| waiting.waits_for.iter().any(|w| w.0 == id));
        concerned.for_each(|waiting| waiting.waits_for.retain_mut(still));
        let ready: Vec<_> = self
            .unwritten_queries
            .extract_if(.., |waiting| waiting.waits_for.is_empty())
            .collect();
        for waiting in ready {
            self.look_up_offsets(&waiting.queries, waiting.responder);
        }
    }

    fn look_up_offsets(&mut self, queries: &[OffsetQuery], responder: R) {
        let key = self.offset_queries.vacant_key();
        let mut missing = 0;
        let mut answers = Vec::with_capacity(queries.len());
        for (part, query) in queries.iter().enumerate() {
            let plan = match self.online(query.partition) {
                Ok(partition) => partition.list_offset(query),
                Err(error) => OffsetPlan::Ready(OffsetAnswer::failed(error)),
            };
            answers.push(match plan {
                OffsetPlan::Ready(answer) => Some(answer),
                OffsetPlan::Disk(job) => {
                    missing += 1;
                    self.effects.push(Effect::Offsets {
                        query: key,
                        part,
                        job,
                    });
                    None
                }
            });
        }
        if missing == 0 {
            let answers = answers.into_iter().flatten().collect();
            return self.reply(responder, Reply::ListOffsets(answers));
        }
        self.offset_queries.insert(PendingOffsets {
            responder,
            answers,
            missing,
        });
    }

    pub(super) fn offsets_done(&mut self, key: usize, part: usize, done: OffsetDone<W>) {
        let id = done.partition();
        let plan = match self.online(id) {
            Ok(partition) => partition.complete_list_offset(done),
            Err(error) => OffsetPlan::Ready(OffsetAnswer::failed(error)),
        };
        let answer = match plan {
            OffsetPlan::Ready(answer) => answer,
            OffsetPlan::Disk(job) => {
                let query = key;
                return self.effects.push(Effect::Offsets { query, part, job });
            }
        };
        let Some(pending) = self.offset_queries.get_mut(key) else {
            debug_assert!(false, "a result for no query");
            return;
        };
        if let Some(place @ None) = pending.answers.get_mut(part) {
            *place = Some(answer);
            pending.missing -= 1;
        }
        if pending.missing == 0 {
            let pending = self.offset_queries.remove(key);
            let answers = pending.answers.into_iter().flatten().collect();
            self.reply(pending.responder, Reply::ListOffsets(answers));
            self.close_when_idle();
        }
    }
}

/// Memory a read from disk may take.
pub(super) fn memory_of<W: World>(job: &ReadJob<W>) -> usize {
    job.bytes_max().max(1)
}
