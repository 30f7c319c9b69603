//! Which partition of the shard is compacted, one at a time: the memory for keys is for one.
//!
//! State only. Owns the order; when a log is dirty enough is the partition's to say, and it says so
//! by a deadline, so that nobody looks for one.

use std::collections::{BTreeMap, BTreeSet};

use chronik_catalog::Image;
use chronik_io::World;
use chronik_partition::CleanSettings;
use chronik_protocol::configs::keys::broker;
use chronik_terms::PartitionId;

use super::timers::{Timer, TimerKey};
use super::{Shard, Slot};

/// See the module's text.
#[derive(Default)]
pub(super) struct Cleaner {
    /// What holds since the settings last changed; without any nothing is compacted.
    settings: Option<CleanSettings>,
    timed: BTreeMap<PartitionId, TimerKey>,
    waiting: BTreeSet<PartitionId>,
    current: Option<PartitionId>,
}

impl Cleaner {
    /// Nothing waits yet.
    pub(super) fn new(settings: Option<CleanSettings>) -> Cleaner {
        Cleaner {
            settings,
            ..Cleaner::default()
        }
    }

    /// Whether a partition waits for its time.
    pub(super) fn is_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// What holds from now on.
    pub(super) fn configure(&mut self, settings: Option<CleanSettings>) {
        self.settings = settings;
    }

    /// The partitions that do.
    pub(super) fn timed(&self) -> impl Iterator<Item = PartitionId> {
        self.timed.keys().copied()
    }
}

impl<W: World, R> Shard<W, R> {
    /// Sets or moves the time at which a partition's log is dirty enough.
    pub(super) fn time_cleaning(&mut self, id: PartitionId, due_ns: Option<u64>) {
        let known = self.upkeep.cleaner.timed.get(&id).copied();
        if known.map(TimerKey::deadline_ns) == due_ns {
            return;
        }
        if let Some(key) = known {
            self.waiting.timers.cancel(key);
            self.upkeep.cleaner.timed.remove(&id);
        }
        if let Some(due_ns) = due_ns.filter(|_| !self.upkeep.cleaner.waiting.contains(&id)) {
            let key = self.waiting.timers.add(due_ns, Timer::Clean(id));
            self.upkeep.cleaner.timed.insert(id, key);
            self.watch_clock();
        }
    }

    /// A partition's log is dirty enough.
    pub(super) fn cleaning_due(&mut self, id: PartitionId) {
        self.upkeep.cleaner.timed.remove(&id);
        self.upkeep.cleaner.waiting.insert(id);
        self.clean_next();
    }

    /// A job of a partition has come back, or the partition is gone: another may have its turn.
    pub(super) fn cleaning_done(&mut self, id: PartitionId) {
        if self.upkeep.cleaner.current != Some(id) {
            return;
        }
        let cleaning = match self.partitions.get(&id) {
            Some(Slot::Online(partition) | Slot::Draining(partition)) => partition.is_cleaning(),
            _ => false,
        };
        if !cleaning {
            self.upkeep.cleaner.current = None;
            self.clean_next();
        }
    }

    fn clean_next(&mut self) {
        let settings = self.upkeep.cleaner.settings;
        while self.upkeep.cleaner.current.is_none() && self.stopping.is_none() {
            let Some(id) = self.upkeep.cleaner.waiting.pop_first() else {
                return;
            };
            let now = self.now();
            let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
                continue;
            };
            if let Some(settings) = settings {
                partition.begin_cleaning(now, settings);
                if partition.is_cleaning() {
                    self.upkeep.cleaner.current = Some(id);
                }
                self.collect_jobs(id);
            }
        }
    }
}

/// A shard's share of `log.cleaner.*`, of `count`; `None` when `log.cleaner.enable` is false.
pub(super) fn clean_settings(image: &Image, count: usize) -> Option<CleanSettings> {
    let (configs, node_id) = (&image.broker_configs, image.node_id);
    if !configs.get(node_id, broker::LOG_CLEANER_ENABLE) {
        return None;
    }
    let bytes = configs.get(node_id, broker::LOG_CLEANER_DEDUPE_BUFFER_SIZE);
    let rate = configs.get(node_id, broker::LOG_CLEANER_IO_MAX_BYTES_PER_SECOND);
    let backoff_ms = configs.get(node_id, broker::LOG_CLEANER_BACKOFF_MS);
    let count = count.max(1);
    Some(CleanSettings {
        map_bytes_max: usize::try_from(bytes).unwrap_or(0) / count,
        // A float beyond the range of u64 becomes its greatest value.
        bytes_per_second_max: (rate / count as f64) as u64,
        backoff_ms: u64::try_from(backoff_ms).unwrap_or(0),
    })
}
