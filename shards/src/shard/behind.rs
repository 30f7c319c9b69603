//! One shard's write-behind: when the ring is made, and when writes that waited start.
//!
//! State only. Owns the one timer for all partitions whose writes wait, so that they start together.

use std::io;

use chronik_io::World;
use chronik_terms::PartitionId;

use super::timers::Timer;
use super::{Effect, Ring, Shard, Slot};

impl<W: World, R> Shard<W, R> {
    /// Starts making the ring if an append has asked for it.
    pub(super) fn make_ring_if_wanted(&mut self) {
        if let Some(bytes) = self.write_behind.take_wanted() {
            self.out.effects.push(Effect::MakeRing { bytes });
        }
    }

    pub(super) fn ring_made(&mut self, result: io::Result<Ring<W::Mapping>>) {
        let now_ns = self.world.monotonic_ns();
        self.write_behind.made(result, now_ns);
        self.close_when_idle();
    }

    /// The partition's next write may wait for more.
    pub(super) fn linger(&mut self, id: PartitionId) {
        let now_ns = self.world.monotonic_ns();
        if let Some(due_ns) = self.write_behind.linger(id, now_ns) {
            self.waiting.timers.add(due_ns, Timer::WriteBehind);
        }
    }

    pub(super) fn write_what_lingers(&mut self) {
        for id in self.write_behind.take_lingering() {
            self.write_now(id);
        }
    }

    /// Starts the partition's next write, if it has anything to write.
    pub(super) fn write_now(&mut self, id: PartitionId) {
        if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
            partition.write_now();
            self.collect_jobs(id);
        }
    }
}
