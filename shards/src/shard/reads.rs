//! Reads of one shard: fetches, what each part of them gives, and their parking.
//!
//! State only. Owns the parking of requests; what is read from disk has its turns elsewhere, and what a
//! part gives is the partition's to say.

use chronik_io::World;
use chronik_partition::{ReadJob, ReadPlan};
use chronik_protocol::ErrorCode;
use chronik_terms::{
    AwaitRequest, Isolation, PartitionId, ReadPart, ReadRequest, ReadResult, Wake,
};

use super::timers::Timer;
use super::{Effect, Shard, Sleeper, Slot};
use crate::limits::{PARKED_REQUESTS_MAX, WOKEN_PER_SLICE};
use crate::request::Reply;
use crate::shard::purgatory::Parked;

/// How one part of a read is to be had.
pub(super) enum PartPlan<W: World> {
    Ready(ReadResult),
    Disk(ReadJob<W>),
    /// It is being read already, or its log is closed for a moment; so many bytes may be given of it.
    Ahead {
        bytes_max: usize,
        at_least_one: bool,
    },
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn read_or_park(&mut self, request: ReadRequest, responder: R) {
        let Some(wait) = request.wait else {
            return self.read(request, responder);
        };
        let full = self.waiting.purgatory.len() >= PARKED_REQUESTS_MAX || self.stopping.is_some();
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
        let key = self.waiting.purgatory.next_key();
        let timer = self
            .waiting
            .timers
            .add(wait.deadline_ns, Timer::Parked(key));
        self.waiting
            .purgatory
            .park(Parked::Read(request), responder, timer, counted.into_iter());
        self.meters.parked.add(1);
    }

    pub(super) fn park_await(&mut self, request: AwaitRequest, responder: R) {
        let wait = request.wait;
        let mut enough =
            self.waiting.purgatory.len() >= PARKED_REQUESTS_MAX || self.stopping.is_some();
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
        let key = self.waiting.purgatory.next_key();
        let timer = self
            .waiting
            .timers
            .add(wait.deadline_ns, Timer::Parked(key));
        self.waiting.purgatory.park(
            Parked::Await(request),
            responder,
            timer,
            counted.into_iter(),
        );
        self.meters.parked.add(1);
    }

    pub(super) fn available(&self, id: PartitionId, offset: i64, isolation: Isolation) -> usize {
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

    /// Plans one part: so many bytes are left of its request, and it is the first to give something.
    pub(super) fn plan_part(
        &mut self,
        part: &ReadPart,
        isolation: Isolation,
        left: usize,
        first: bool,
    ) -> PartPlan<W> {
        if self.is_away(part.partition) {
            return PartPlan::Ahead {
                bytes_max: left,
                at_least_one: first,
            };
        }
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&part.partition) else {
            self.wanted(part.partition);
            return PartPlan::Ready(ReadResult::failed(self.absence(part.partition)));
        };
        match partition.plan_read(&mut self.cache, part, isolation, left, first) {
            ReadPlan::Ready(result) => PartPlan::Ready(result),
            ReadPlan::Disk(_)
                if self
                    .reading
                    .prefetches
                    .brings(part.partition, part.fetch_offset) =>
            {
                PartPlan::Ahead {
                    bytes_max: left,
                    at_least_one: first,
                }
            }
            ReadPlan::Disk(job) => PartPlan::Disk(job),
        }
    }

    pub(super) fn answer_results(&mut self, responder: R, results: Vec<Option<ReadResult>>) {
        let results: Vec<ReadResult> = results.into_iter().flatten().collect();
        self.meters.reads.add(1);
        let bytes: usize = results.iter().map(|result| result.records.len()).sum();
        self.meters.bytes_read.add(bytes as u64);
        self.reply(responder, Reply::Read(results));
    }

    /// Consumers can see more of a partition: whoever has enough now is answered.
    pub(super) fn wake_readers(&mut self, id: PartitionId) {
        let mut watches = std::mem::take(&mut self.out.watches);
        self.waiting.purgatory.watches(id, &mut watches);
        for watch in watches.drain(..) {
            let bytes = self.available(id, watch.offset, watch.isolation);
            if self.waiting.purgatory.update(watch, bytes) {
                self.wake(watch.key);
            }
        }
        self.out.watches = watches;
        self.end_woken();
    }

    /// A read of the partition is an error now, or will be: everybody who watches it is answered.
    pub(super) fn wake_all_readers(&mut self, id: PartitionId) {
        let mut watches = Vec::new();
        self.waiting.purgatory.watches(id, &mut watches);
        for watch in watches {
            self.wake(watch.key);
        }
        self.end_woken();
    }

    fn wake(&mut self, key: usize) {
        if let Some(timer) = self.waiting.purgatory.rouse(key) {
            self.waiting.woken.push_back((key, timer));
        }
    }

    /// Answers some of the requests that have what they waited for; the rest in another slice, for
    /// thousands may wait for one partition.
    pub(super) fn end_woken(&mut self) {
        for _ in 0..WOKEN_PER_SLICE {
            let Some((key, timer)) = self.waiting.woken.pop_front() else {
                return;
            };
            // The place may belong to another request by now; a timer belongs to one only.
            if self.waiting.purgatory.timer(key) == Some(timer) {
                self.end_parked(key, Wake::Progress);
            }
        }
        if !self.waiting.woken.is_empty() && !std::mem::replace(&mut self.waiting.resting, true) {
            self.out.effects.push(Effect::Rest(Sleeper::Requests));
        }
    }

    pub(super) fn rested(&mut self) {
        self.waiting.resting = false;
        self.end_woken();
    }

    /// Takes a request out of the purgatory and answers it.
    pub(super) fn end_parked(&mut self, key: usize, wake: Wake) {
        let Some(entry) = self.waiting.purgatory.take(key) else {
            return;
        };
        if wake == Wake::Deadline {
            self.meters.parked_expired.add(1);
        } else {
            self.waiting.timers.cancel(entry.timer);
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
                        .map(
                            |part| match self.plan_part(part, request.isolation, 0, false) {
                                PartPlan::Ready(result) => Some(result),
                                _ => Some(ReadResult::failed(ErrorCode::None)),
                            },
                        )
                        .collect();
                    return self.answer_results(entry.responder, planned);
                }
                self.read(request, entry.responder);
            }
        }
    }
}
