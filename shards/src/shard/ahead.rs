//! Reading ahead: whoever reads a log straight through finds its next block in the cache.
//!
//! State only. One block ahead for each partition, begun when a reader has reached the block before it,
//! so that the disk works while that is sent. A reader that comes for a block on its way waits for it
//! instead of reading it again. Bounded by what the cache of old blocks holds.

use std::collections::BTreeMap;

use chronik_io::World;
use chronik_partition::{ReadDone, ReadPlan};
use chronik_terms::{Isolation, PartitionId, ReadPart, ReadResult};

use super::charge::charge;
use super::{Effect, ReadFor, Shard, Slot};
use crate::limits::{CACHE_COLD_BYTES, DISK_READ_BYTES_MAX};

/// A part of a read that waits for a block on its way, or for its log.
#[derive(Clone)]
pub(super) struct AheadWaiter {
    pub(super) read: usize,
    pub(super) place: usize,
    pub(super) part: ReadPart,
    pub(super) isolation: Isolation,
    pub(super) bytes_max: usize,
    pub(super) at_least_one: bool,
}

struct Ahead {
    from: i64,
    bytes: usize,
    waiting: Vec<AheadWaiter>,
}

/// Blocks on their way into the cache.
#[derive(Default)]
pub(super) struct Aheads {
    by_partition: BTreeMap<PartitionId, Ahead>,
    bytes: usize,
}

impl Aheads {
    pub(super) fn is_empty(&self) -> bool {
        self.by_partition.is_empty()
    }

    /// Whether a block that begins with `offset` is on its way.
    pub(super) fn brings(&self, id: PartitionId, offset: i64) -> bool {
        self.by_partition
            .get(&id)
            .is_some_and(|ahead| ahead.from == offset)
    }

    pub(super) fn wait(&mut self, waiter: AheadWaiter) {
        let ahead = self.by_partition.get_mut(&waiter.part.partition);
        ahead
            .expect("only a block on its way is waited for")
            .waiting
            .push(waiter);
    }
}

impl<W: World, R> Shard<W, R> {
    /// Begins to read the block behind the one that answered `part`, if its reader goes straight on.
    pub(super) fn read_ahead(&mut self, part: &ReadPart, isolation: Isolation) {
        let id = part.partition;
        let Some(from) = self.cache.ahead_of(id, part.fetch_offset) else {
            return;
        };
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
            return;
        };
        if self.stopping.is_some() || self.reading.prefetches.by_partition.contains_key(&id) {
            return;
        }
        let next = ReadPart {
            fetch_offset: from,
            last_fetched_epoch: -1,
            ..part.clone()
        };
        let plan = partition.plan_read(&mut self.cache, &next, isolation, part.max_bytes, true);
        // What is in the cache or not there yet needs no disk.
        let ReadPlan::Disk(job) = plan else { return };
        let bytes = charge(job.bytes_max());
        // Nor before what waits for the disk to have room.
        let fits = !self.reading.disk.is_kept_free()
            && self.reading.prefetches.bytes.saturating_add(bytes) <= CACHE_COLD_BYTES / 2
            && self.reading.disk.reading.saturating_add(bytes) <= DISK_READ_BYTES_MAX / 2;
        if !fits {
            return;
        }
        self.reading.prefetches.bytes += bytes;
        self.reading.disk.reading += bytes;
        self.meters.disk_reads.add(1);
        self.reading.prefetches.by_partition.insert(
            id,
            Ahead {
                from,
                bytes,
                waiting: Vec::new(),
            },
        );
        self.out.effects.push(Effect::Read(job, ReadFor::Prefetch));
    }

    /// A block has come: keeps it, and answers who waits for it.
    pub(super) fn ahead_done(&mut self, done: ReadDone<W>) {
        let id = done.partition();
        let Some(ahead) = self.reading.prefetches.by_partition.remove(&id) else {
            debug_assert!(false, "a block nobody asked for");
            return;
        };
        self.reading.prefetches.bytes -= ahead.bytes;
        self.reading.disk.reading = self.reading.disk.reading.saturating_sub(ahead.bytes);
        if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
            // Only for the cache; what went wrong is told to those who wait, by a read of their own.
            drop(partition.complete_read(&mut self.cache, done));
        }
        for waiter in ahead.waiting {
            self.plan_again(waiter);
        }
        self.read_what_waits();
        self.close_when_idle();
    }

    /// Plans a part of a read that has waited.
    pub(super) fn plan_again(&mut self, waiter: AheadWaiter) {
        let id = waiter.part.partition;
        if self.is_away(id) {
            return self.ask_again(waiter);
        }
        let plan = match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => partition.plan_read(
                &mut self.cache,
                &waiter.part,
                waiter.isolation,
                waiter.bytes_max,
                waiter.at_least_one,
            ),
            _ => ReadPlan::Ready(ReadResult::failed(self.absence(id))),
        };
        match plan {
            ReadPlan::Ready(result) => {
                self.read_ahead(&waiter.part, waiter.isolation);
                self.place_read(waiter.read, waiter.place, result);
            }
            ReadPlan::Disk(job) => self.read_again(waiter.read, waiter.place, job),
        }
    }
}
