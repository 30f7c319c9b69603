//! Appends of one shard: handed to partitions, answered when every part is decided or time is up.
//!
//! State only. Owns who waits; when a batch counts is the partition's to say.

use chronik_io::World;
use chronik_partition::{AppendOutcome, PartitionEvent, Shared};
use chronik_protocol::{ErrorCode, Str};
use chronik_terms::{
    Acks, AppendPart, AppendRequest, AppendResult, METADATA_PARTITION, Now, PartitionId, Waiter,
};

use super::early::Fate;
use super::timers::{Timer, TimerKey};
use super::{Shard, Slot};
use crate::limits::{PENDING_APPENDS_MAX, UNDECIDED_APPEND_BYTES_MAX};
use crate::request::Reply;

/// An append whose parts are not all decided.
pub(super) struct PendingAppend<R> {
    /// Gone once it is answered; then the entry only waits for its events.
    responder: Option<R>,
    parts: Vec<(PartitionId, Option<AppendResult>)>,
    undecided: usize,
    bytes: usize,
    timer: Option<TimerKey>,
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn append(&mut self, request: AppendRequest, responder: R) {
        let AppendRequest {
            acks,
            timeout_ms,
            parts,
        } = request;
        let is_full = self.appending.appends.len() >= PENDING_APPENDS_MAX
            || self.appending.undecided_bytes >= UNDECIDED_APPEND_BYTES_MAX;
        if is_full || self.stopping.is_some() {
            let error = match self.stopping {
                Some(_) => ErrorCode::NotLeaderOrFollower,
                None => ErrorCode::RequestTimedOut,
            };
            let results = parts
                .iter()
                .map(|_| AppendResult::failed(error, None))
                .collect();
            return self.reply(responder, Reply::Append(results));
        }
        let now = self.now();
        let key = self.appending.appends.vacant_key();
        let mut happened = Vec::new();
        let bytes = parts.iter().map(|part| part.batch.bytes.len()).sum();
        let decided = self.append_parts(parts, acks, now, key, &mut happened);
        let undecided = decided
            .iter()
            .filter(|(_, result)| result.is_none())
            .count();
        self.time_producers(now);
        if undecided == 0 {
            let results = decided.into_iter().filter_map(|(_, result)| result);
            self.reply(responder, Reply::Append(results.collect()));
        } else {
            let timer = (acks == Acks::All).then(|| {
                let wait_ns = u64::from(timeout_ms.max(0).unsigned_abs()).saturating_mul(1_000_000);
                self.waiting
                    .timers
                    .add(now.mono_ns.saturating_add(wait_ns), Timer::Append(key))
            });
            self.appending.undecided_bytes += bytes;
            self.appending.appends.insert(PendingAppend {
                responder: Some(responder),
                parts: decided,
                undecided,
                bytes,
                timer,
            });
        }
        // Only now: a part may decide another one of the same request.
        for (id, event) in happened {
            self.on_event(id, event);
        }
    }

    /// Hands each part to its partition, and starts the writes.
    fn append_parts(
        &mut self,
        parts: Vec<AppendPart>,
        acks: Acks,
        now: Now,
        key: usize,
        happened: &mut Vec<(PartitionId, PartitionEvent)>,
    ) -> Vec<(PartitionId, Option<AppendResult>)> {
        let mut decided = Vec::with_capacity(parts.len());
        let is_calm = self.is_calm();
        for (place, part) in parts.into_iter().enumerate() {
            let id = part.partition;
            let waiter = Waiter::Produce {
                append: key,
                part: place,
            };
            let outcome = match id {
                METADATA_PARTITION => self.absent(id),
                _ if is_calm => self.append_part(part, (acks, now), waiter, happened),
                _ => match self.fate_of_part(id) {
                    Fate::Now => self.append_part(part, (acks, now), waiter, happened),
                    Fate::Waits => {
                        self.hold_early_part(part, (acks, now), waiter);
                        AppendOutcome::Parked
                    }
                    Fate::Refused => {
                        let refused = AppendResult::failed(ErrorCode::RequestTimedOut, None);
                        AppendOutcome::Done(refused)
                    }
                },
            };
            decided.push((id, outcome.decided()));
        }
        let mut previous = None;
        for (id, _) in &decided {
            // Parts of one partition mostly stand together.
            if previous != Some(*id) {
                self.collect_jobs(*id);
                previous = Some(*id);
            }
        }
        self.make_ring_if_wanted();
        decided
    }

    /// Hands one batch to its partition: the one way for producers, coordinators and the catalogue. The
    /// caller starts the writes (`collect_jobs`), and then handles what happened.
    pub(super) fn append_part(
        &mut self,
        part: AppendPart,
        (acks, now): (Acks, Now),
        waiter: Waiter,
        happened: &mut Vec<(PartitionId, PartitionEvent)>,
    ) -> AppendOutcome {
        let id = part.partition;
        let bytes = part.batch.bytes.len() as u64;
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
            return self.absent(id);
        };
        let mut shared = Shared {
            cache: &mut self.cache,
            write_behind: &mut self.write_behind,
            events: &mut self.out.events,
        };
        let outcome = partition.append(&mut shared, part, acks, now, waiter);
        happened.extend(self.out.events.drain(..).map(|event| (id, event)));
        if waiter != Waiter::Catalogue {
            self.count_append(&outcome, bytes);
        }
        outcome
    }

    /// The outcome of an append to a partition that cannot be used now.
    fn absent(&mut self, id: PartitionId) -> AppendOutcome {
        self.wanted(id);
        self.meters.appends_refused.add(1);
        AppendOutcome::Done(AppendResult::failed(self.absence(id), None))
    }

    fn count_append(&mut self, outcome: &AppendOutcome, bytes: u64) {
        match outcome {
            AppendOutcome::Done(result) if result.error != ErrorCode::None => {
                self.meters.appends_refused.add(1);
            }
            _ => {
                self.meters.batches_appended.add(1);
                self.meters.bytes_appended.add(bytes);
                self.appended(bytes);
            }
        }
    }

    /// The first append since the last look sets the timer that forgets silent producers.
    fn time_producers(&mut self, now: Now) {
        let at_ms = now
            .wall_ms
            .saturating_add(self.upkeep.producer_expiration_ms);
        self.watch_producer(now, at_ms);
    }

    /// A parked append is decided.
    pub(super) fn acked(&mut self, id: PartitionId, waiter: Waiter, result: AppendResult) {
        let (key, place) = match waiter {
            Waiter::Produce { append, part } => (append, part),
            Waiter::Groups(write) => return self.group_appended(id, write, &result),
            Waiter::Catalogue => return self.control_acked(result),
        };
        let Some(pending) = self.appending.appends.get_mut(key) else {
            debug_assert!(false, "an event for no append");
            return;
        };
        if let Some((_, decided @ None)) = pending.parts.get_mut(place) {
            *decided = Some(result);
            pending.undecided -= 1;
        }
        if pending.undecided == 0 {
            self.answer_append(key);
            self.close_when_idle();
        }
    }

    fn answer_append(&mut self, key: usize) {
        let pending = self.appending.appends.remove(key);
        self.appending.undecided_bytes -= pending.bytes;
        if let Some(timer) = pending.timer {
            self.waiting.timers.cancel(timer);
        }
        if let Some(responder) = pending.responder {
            let results = pending
                .parts
                .into_iter()
                .filter_map(|(_, result)| result)
                .collect();
            self.reply(responder, Reply::Append(results));
        }
    }

    /// Time is up: what is decided is told, the rest timed out. The records stay.
    pub(super) fn append_expired(&mut self, key: usize) {
        let Some(pending) = self.appending.appends.get_mut(key) else {
            return;
        };
        pending.timer = None;
        let Some(responder) = pending.responder.take() else {
            return;
        };
        let results = pending
            .parts
            .iter()
            .map(|(_, result)| {
                result
                    .clone()
                    .unwrap_or_else(|| AppendResult::failed(ErrorCode::RequestTimedOut, None))
            })
            .collect();
        self.meters.appends_timed_out.add(1);
        self.reply(responder, Reply::Append(results));
    }

    /// The partition is deleted, and so are the events that these producers wait for.
    pub(super) fn refuse_waiters(&mut self, id: PartitionId, waiters: Vec<Waiter>) {
        let why = Str::from("the topic was deleted");
        for waiter in waiters {
            // Coordinators and the catalogue know of the deletion.
            if let Waiter::Produce { .. } = waiter {
                let error = ErrorCode::UnknownTopicOrPartition;
                self.acked(id, waiter, AppendResult::failed(error, Some(why.clone())));
            }
        }
    }
}
