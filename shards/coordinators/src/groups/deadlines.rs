//! Deadlines of groups, by name: a session, a rebalance, a sync.
//!
//! State without a clock. A heartbeat moves its session's deadline, mostly to later: that is one
//! lookup, for the entry in the ordered list is only moved when it comes up.

use std::collections::{BTreeMap, HashMap};

use chronik_protocol::Str;

/// What is due, within one partition of `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum GroupTimer {
    /// A classic member (or one that was only given an id) was not heard of for long enough.
    Session { group: Str, member: Str },
    /// The time to (re)join a classic group is over.
    Join { group: Str },
    /// The time to fetch an assignment of a classic group is over.
    Sync { group: Str },
    /// A member of a consumer group was not heard of for long enough.
    ConsumerSession { group: Str, member: Str },
    /// A member of a consumer group has had its time to give partitions up.
    ConsumerRebalance { group: Str, member: Str },
    /// A classic member of a consumer group has had its time to rejoin.
    ConsumerJoin { group: Str, member: Str },
    /// A classic member of a consumer group has had its time to fetch its assignment.
    ConsumerSync { group: Str, member: Str },
    /// The expressions a consumer group subscribes by are to be resolved, or resolved further.
    ResolveRegexes { group: Str },
    /// A consumer group has become classic: its members have to join again.
    Rejoin { group: Str },
    /// The partition's log is to be read again after a failed write.
    Reload,
    /// Offsets are to be looked through for those that may be forgotten; of no partition.
    Expiry,
}

impl GroupTimer {
    /// Whether nothing else leads to what a deadline does, should that not fit into the log. A
    /// classic group changes before its records are made, so it needs no second try.
    pub(crate) fn must_come_again(&self) -> bool {
        match self {
            GroupTimer::ConsumerSession { .. }
            | GroupTimer::ConsumerRebalance { .. }
            | GroupTimer::ConsumerJoin { .. }
            | GroupTimer::ConsumerSync { .. }
            | GroupTimer::ResolveRegexes { .. } => true,
            GroupTimer::Session { .. }
            | GroupTimer::Join { .. }
            | GroupTimer::Sync { .. }
            | GroupTimer::Rejoin { .. }
            | GroupTimer::Reload
            | GroupTimer::Expiry => false,
        }
    }
}

/// The partition of deadlines that belong to none.
pub(crate) const NO_PARTITION: i32 = -1;

#[derive(Clone, Copy, Debug)]
struct Deadline {
    due_ns: u64,
    /// Where it stands in the ordered list; never later than `due_ns`.
    queued_ns: u64,
    sequence: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_name: HashMap<(i32, GroupTimer), Deadline>,
    queue: BTreeMap<(u64, u64), (i32, GroupTimer)>,
    sequence: u64,
}

impl Deadlines {
    /// Sets or moves a deadline of partition `partition`.
    pub(crate) fn schedule(&mut self, partition: i32, timer: GroupTimer, due_ns: u64) {
        let name = (partition, timer);
        if let Some(deadline) = self.by_name.get_mut(&name) {
            deadline.due_ns = due_ns;
            if due_ns >= deadline.queued_ns {
                return;
            }
            let queued = (deadline.queued_ns, deadline.sequence);
            self.queue.remove(&queued);
        }
        self.enqueue(name, due_ns);
    }

    fn enqueue(&mut self, name: (i32, GroupTimer), due_ns: u64) {
        self.sequence = self.sequence.wrapping_add(1);
        let deadline = Deadline {
            due_ns,
            queued_ns: due_ns,
            sequence: self.sequence,
        };
        self.by_name.insert(name.clone(), deadline);
        self.queue.insert((due_ns, self.sequence), name);
    }

    /// Takes a deadline out; unknown ones are fine.
    pub(crate) fn cancel(&mut self, partition: i32, timer: GroupTimer) {
        if let Some(deadline) = self.by_name.remove(&(partition, timer)) {
            self.queue.remove(&(deadline.queued_ns, deadline.sequence));
        }
    }

    /// Takes every deadline of a partition out.
    pub(crate) fn cancel_all(&mut self, partition: i32) {
        self.by_name.retain(|(of, _), _| *of != partition);
        self.queue.retain(|_, (of, _)| *of != partition);
    }

    /// When [`Deadlines::pop`] should be asked next. It may find that nothing is due then.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((due_ns, _), _)| *due_ns)
    }

    /// Takes out one deadline that is due.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<(i32, GroupTimer)> {
        loop {
            let first = self.queue.first_entry()?;
            if first.key().0 > now_ns {
                return None;
            }
            let name = first.remove();
            let deadline = self.by_name.remove(&name)?;
            if deadline.due_ns <= now_ns {
                return Some(name);
            }
            self.enqueue(name, deadline.due_ns);
        }
    }
}

/// What a step wants done with the deadlines of its partition. Nothing of it is done before it is
/// known that the step's records can be written: a step that comes to nothing moves no deadline.
#[derive(Debug)]
pub(crate) struct DeadlineWishes {
    now_ns: u64,
    wishes: Vec<Wish>,
}

#[derive(Debug)]
enum Wish {
    Schedule(GroupTimer, u64),
    ScheduleIfAbsent(GroupTimer, u64),
    Cancel(GroupTimer),
}

impl DeadlineWishes {
    /// None yet; the monotonic clock shows `now_ns`.
    pub(crate) fn at(now_ns: u64) -> DeadlineWishes {
        DeadlineWishes {
            now_ns,
            wishes: Vec::new(),
        }
    }

    fn due_ns(&self, delay_ms: i64) -> u64 {
        let delay_ns = u64::try_from(delay_ms)
            .unwrap_or(0)
            .saturating_mul(1_000_000);
        self.now_ns.saturating_add(delay_ns)
    }

    /// Sets or moves a deadline to `delay_ms` from now; below zero counts as zero.
    pub(crate) fn schedule(&mut self, timer: GroupTimer, delay_ms: i64) {
        let due_ns = self.due_ns(delay_ms);
        self.wishes.push(Wish::Schedule(timer, due_ns));
    }

    /// Sets a deadline to `delay_ms` from now; one that is set stays.
    pub(crate) fn schedule_if_absent(&mut self, timer: GroupTimer, delay_ms: i64) {
        let due_ns = self.due_ns(delay_ms);
        self.wishes.push(Wish::ScheduleIfAbsent(timer, due_ns));
    }

    /// Takes a deadline out; unknown ones are fine.
    pub(crate) fn cancel(&mut self, timer: GroupTimer) {
        self.wishes.push(Wish::Cancel(timer));
    }

    /// Does what was wished for, in order, with the deadlines of `partition`.
    pub(crate) fn fulfil(self, partition: i32, deadlines: &mut Deadlines) {
        for wish in self.wishes {
            match wish {
                Wish::Schedule(timer, due_ns) => deadlines.schedule(partition, timer, due_ns),
                Wish::ScheduleIfAbsent(timer, due_ns) => {
                    let name = (partition, timer);
                    if !deadlines.by_name.contains_key(&name) {
                        deadlines.schedule(partition, name.1, due_ns);
                    }
                }
                Wish::Cancel(timer) => deadlines.cancel(partition, timer),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(group: &'static str) -> GroupTimer {
        GroupTimer::Join {
            group: Str::from_static(group),
        }
    }

    #[test]
    fn deadlines_come_when_they_were_last_set_for() {
        let mut deadlines = Deadlines::default();
        deadlines.schedule(0, join("a"), 10);
        deadlines.schedule(0, join("b"), 30);
        deadlines.schedule(1, join("a"), 20);
        deadlines.schedule(0, join("a"), 40);
        deadlines.schedule(0, join("b"), 15);
        assert_eq!(deadlines.pop(14), None);
        assert_eq!(deadlines.pop(15), Some((0, join("b"))));
        assert_eq!(deadlines.pop(39), Some((1, join("a"))));
        assert_eq!(deadlines.pop(39), None, "moved to 40");
        deadlines.cancel(0, join("a"));
        assert_eq!(deadlines.pop(u64::MAX), None);
        assert_eq!(deadlines.next_ns(), None);
        assert!(deadlines.by_name.is_empty());
    }

    #[test]
    fn a_partition_can_be_forgotten() {
        let mut deadlines = Deadlines::default();
        deadlines.schedule(0, join("a"), 10);
        deadlines.schedule(1, join("a"), 20);
        deadlines.cancel_all(0);
        assert_eq!(deadlines.pop(100), Some((1, join("a"))));
        assert_eq!(deadlines.pop(100), None);
    }
}
