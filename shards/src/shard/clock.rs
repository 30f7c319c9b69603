//! What of a shard goes by the wall clock: ages become deadlines of the monotonic clock, which stay
//! where they are when the wall clock is corrected, or went on while the machine slept.
//!
//! State only. Owns the look at the clock: as long as something waits for an age, one timer compares
//! the two clocks, and when they have parted everybody who waits works out his deadline anew, some
//! in each slice. An idle shard whose partitions wait for nothing has no such timer.

use std::collections::BTreeSet;

use chronik_io::World;
use chronik_protocol::configs::keys::broker;
use chronik_terms::{Now, PartitionId};

use super::timers::{Timer, TimerKey};
use super::{GroupSettings, Image, Shard, Slot, cleaner};
use crate::limits::CHORES_PER_SLICE;

/// Between two looks at the clock.
const LOOK_NS: u64 = 10 * 60 * 1_000_000_000;
/// How far the clocks may part before it counts: deadlines by age are minutes apart anyway
/// (`log.retention.check.interval.ms`).
const PARTED_MS_MAX: u64 = 60_000;

/// See the module's text.
#[derive(Default)]
pub(super) struct ClockWatch {
    /// The wall clock less the monotonic one, ms, while somebody looks.
    apart_ms: Option<i64>,
    /// Still to be planned anew.
    to_plan: BTreeSet<PartitionId>,
    /// When producers are looked at.
    producers: Option<TimerKey>,
}

/// The wall clock less the monotonic one, ms.
fn apart_ms(now: Now) -> i64 {
    let mono_ms = i64::try_from(now.mono_ns / 1_000_000).unwrap_or(i64::MAX);
    now.wall_ms.saturating_sub(mono_ms)
}

impl<W: World, R> Shard<W, R> {
    /// Somebody waits for an age from now on.
    pub(super) fn watch_clock(&mut self) {
        if self.upkeep.clock.apart_ms.is_some() {
            return;
        }
        let now = self.now();
        self.upkeep.clock.apart_ms = Some(apart_ms(now));
        self.waiting
            .timers
            .add(now.mono_ns.saturating_add(LOOK_NS), Timer::Clock);
    }

    /// Compares the clocks, or goes on with what the last look has found.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        if self.upkeep.clock.to_plan.is_empty() {
            self.compare_clocks(now);
        }
        for _ in 0..CHORES_PER_SLICE {
            let Some(id) = self.upkeep.clock.to_plan.pop_first() else {
                break;
            };
            if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
                partition.plan_retention(now);
                partition.plan_cleaning(now);
                self.collect_jobs(id);
            }
        }
        if !self.upkeep.clock.to_plan.is_empty() {
            // Others have their turn first.
            self.waiting
                .timers
                .add(now.mono_ns.saturating_add(1), Timer::Clock);
        } else if self.upkeep.retention.are_timed() || self.upkeep.cleaner.is_timed() {
            self.waiting
                .timers
                .add(now.mono_ns.saturating_add(LOOK_NS), Timer::Clock);
        } else {
            self.upkeep.clock.apart_ms = None;
        }
    }

    fn compare_clocks(&mut self, now: Now) {
        let is_ms = apart_ms(now);
        let was_ms = self.upkeep.clock.apart_ms.replace(is_ms);
        let parted_ms = was_ms.map_or(0, |was_ms| was_ms.abs_diff(is_ms));
        if parted_ms <= PARTED_MS_MAX {
            // Small steps add up.
            self.upkeep.clock.apart_ms = was_ms.or(Some(is_ms));
            return;
        }
        tracing::info!(
            parted_ms,
            "the wall clock was corrected; deadlines by age are worked out anew"
        );
        let waiting = self
            .upkeep
            .retention
            .timed()
            .chain(self.upkeep.cleaner.timed());
        self.upkeep.clock.to_plan = waiting.collect();
        if self.upkeep.clock.producers.is_some() {
            self.expire_producers(now);
        }
    }

    /// Settings of the broker that are kept in parsed form.
    pub(super) fn settings_changed(&mut self) {
        let expiration_ms = producer_expiration_ms(&self.image);
        if self.upkeep.producer_expiration_ms != expiration_ms {
            self.upkeep.producer_expiration_ms = expiration_ms;
            self.expire_producers(self.now());
        }
        let cleaning = cleaner::clean_settings(&self.image, self.count);
        self.upkeep.cleaner.configure(cleaning);
        if let Some(groups) = &mut self.designated.groups {
            groups.configure(GroupSettings::of(&self.image.broker_settings()));
        }
    }

    /// Forgets silent producers, then sets the timer for the next that may be forgotten.
    pub(super) fn expire_producers(&mut self, now: Now) {
        let mut next_ms: Option<i64> = None;
        for slot in self.partitions.values_mut() {
            let Slot::Online(partition) = slot else {
                continue;
            };
            partition.expire_producers(now.wall_ms, self.upkeep.producer_expiration_ms);
            let expiry = partition.next_producer_expiry_ms(self.upkeep.producer_expiration_ms);
            next_ms = next_ms.into_iter().chain(expiry).min();
        }
        if let Some(set) = self.upkeep.clock.producers.take() {
            self.waiting.timers.cancel(set);
        }
        if let Some(next_ms) = next_ms {
            self.set_producer_timer(now, next_ms);
        }
    }

    /// A producer may be forgotten at this time: somebody looks then, or does already.
    pub(super) fn watch_producer(&mut self, now: Now, expiry_ms: i64) {
        if self.upkeep.clock.producers.is_none() {
            self.set_producer_timer(now, expiry_ms);
        }
    }

    fn set_producer_timer(&mut self, now: Now, at_ms: i64) {
        // At least a minute apart: expiry is housekeeping, and a look at every partition is dear.
        let wait_ms = at_ms.saturating_sub(now.wall_ms).max(60_000).unsigned_abs();
        let deadline_ns = now
            .mono_ns
            .saturating_add(wait_ms.saturating_mul(1_000_000));
        self.upkeep.clock.producers =
            Some(self.waiting.timers.add(deadline_ns, Timer::ExpireProducers));
    }
}

/// How long a silent idempotent producer is remembered, ms.
pub(super) fn producer_expiration_ms(image: &Image) -> i64 {
    let configs = &image.broker_configs;
    i64::from(configs.get(image.node_id, broker::PRODUCER_ID_EXPIRATION_MS))
}
