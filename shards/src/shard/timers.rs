//! Deadlines of one shard, in one ordered list; the driver sleeps until the nearest.
//!
//! Owns no clock. Never polls: a deadline that is not needed any more is taken out.

use std::collections::BTreeMap;

use chronik_terms::PartitionId;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// An `acks=all` append has waited long enough.
    Append(usize),
    /// A parked read or await has waited long enough.
    Parked(usize),
    /// A partition wants its [`chronik_partition::Partition::on_timer`].
    Partition(PartitionId),
    /// A partition may have old segments to let go.
    Chore(PartitionId),
    /// A partition's log may be dirty enough to be compacted.
    Clean(PartitionId),
    /// A log that could not be opened may be tried again.
    Reopen(PartitionId),
    /// Requests for partitions that are new have waited long enough.
    Early,
    /// Offset checkpoints that could not be written may be tried again.
    Checkpoints,
    /// What the checkpoints could not be corrected for may be tried again.
    Corrections,
    /// The catalogue's snapshot that could not be written may be tried again.
    Snapshot,
    /// Directories of deleted partitions that could not be removed may be tried again.
    Leftovers,
    /// Writes that waited for more have to start.
    WriteBehind,
    /// The clocks may have parted.
    Clock,
    /// Producers that were silent for long may be forgotten.
    ExpireProducers,
    /// The group coordinator's next deadline.
    Groups,
    /// A move that something was too short for may be tried again.
    MoveAgain(PartitionId),
    /// The move under way has waited long enough for its partition.
    MoveLate,
}

/// Names a deadline for [`Timers::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    deadline_ns: u64,
    sequence: u64,
}

impl TimerKey {
    /// When it is due.
    pub(crate) fn deadline_ns(self) -> u64 {
        self.deadline_ns
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Timer>,
    sequence: u64,
}

impl Timers {
    pub(crate) fn add(&mut self, deadline_ns: u64, timer: Timer) -> TimerKey {
        self.sequence = self.sequence.wrapping_add(1);
        let key = TimerKey {
            deadline_ns,
            sequence: self.sequence,
        };
        self.due.insert(key, timer);
        key
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.due.remove(&key);
    }

    /// The nearest deadline.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.due.first_key_value().map(|(key, _)| key.deadline_ns)
    }

    /// Takes out one timer that is due.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<Timer> {
        let first = self.due.first_entry()?;
        (first.key().deadline_ns <= now_ns).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_cancelled_ones_do_not() {
        let mut timers = Timers::default();
        timers.add(30, Timer::Append(3));
        let two = timers.add(20, Timer::Append(2));
        timers.add(10, Timer::Append(1));
        timers.add(10, Timer::Parked(9));
        timers.cancel(two);
        assert_eq!(timers.next_ns(), Some(10));
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(30), Some(Timer::Append(1)));
        assert_eq!(timers.pop(30), Some(Timer::Parked(9)));
        assert_eq!(timers.pop(30), Some(Timer::Append(3)));
        assert_eq!(timers.pop(u64::MAX), None);
        assert_eq!(timers.next_ns(), None);
    }
}
