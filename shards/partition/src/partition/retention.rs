//! What retention lets go: old segments by age and by size.
//!
//! Part of the partition's state, on its shard. Says when the oldest segment next becomes due, so
//! that nobody looks at a log which has nothing to give, and moves the log's start. Never removes
//! a file: see `removal`. The rules are `UnifiedLog#deleteOldSegments`; the check interval of
//! `LogManager` is the grid on which deadlines fall, so that partitions come together.

use chronik_io::World;
use tracing::info;

use super::{Now, Partition, PartitionEvent};

/// The times at which retention looks at logs, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct CheckTimes {
    /// Where the grid begins, ns: the start of the broker.
    pub origin_ns: u64,
    /// `log.retention.check.interval.ms`; 0 counts as 1.
    pub interval_ms: u64,
}

impl CheckTimes {
    /// The first at or after a time. A broker that has just begun waits a whole interval.
    fn at_or_after(&self, due_ns: u64) -> u64 {
        let interval_ns = self.interval_ms.max(1).saturating_mul(1_000_000);
        let since_ns = due_ns.saturating_sub(self.origin_ns);
        let intervals = since_ns.div_ceil(interval_ns).max(1);
        self.origin_ns
            .saturating_add(intervals.saturating_mul(interval_ns))
    }
}

/// When a partition's oldest segment is looked at.
pub(super) struct Retention {
    pub(super) check_times: CheckTimes,
    /// On the monotonic clock.
    due_ns: Option<u64>,
    /// The greatest timestamp of the oldest segment is being read.
    learning: bool,
    /// The active segment is being closed because all of it is due.
    closing_all: bool,
}

/// What a rule says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Delete,
    /// Its greatest timestamp has to be read first.
    Unknown,
}

/// A segment, as far as the rules care.
#[derive(Clone, Copy)]
struct Candidate {
    size_bytes: u64,
    /// `None`: not known.
    max_timestamp: Option<i64>,
    /// Its age counts from here when no record has a timestamp.
    since_ms: i64,
}

impl Candidate {
    /// From when its age counts, ms since the epoch (`LogSegment#largestTimestamp`).
    fn timestamp(&self) -> Option<i64> {
        let known = self.max_timestamp?;
        Some(if known >= 0 { known } else { self.since_ms })
    }
}

impl Retention {
    /// Nothing is due.
    pub(super) fn new(check_times: CheckTimes) -> Self {
        Self {
            check_times,
            due_ns: None,
            learning: false,
            closing_all: false,
        }
    }

    /// The first look at or after a time, but never at once: somebody has just looked.
    fn on_grid(&self, now: Now, due_ms: i64) -> u64 {
        let wait_ms = u64::try_from(due_ms.saturating_sub(now.wall_ms)).unwrap_or(0);
        let due_ns = now
            .mono_ns
            .saturating_add(wait_ms.saturating_mul(1_000_000))
            .max(now.mono_ns.saturating_add(1));
        self.check_times.at_or_after(due_ns)
    }
}

impl<W: World> Partition<W> {
    /// When [`Partition::retain`] has something to do, on the monotonic clock, ns.
    pub fn next_retention_ns(&self) -> Option<u64> {
        self.retention.due_ns.filter(|_| self.failure.is_none())
    }

    /// Works out anew when the oldest segment is due: after opening, and whenever settings change.
    pub fn plan_retention(&mut self, now: Now) {
        let due_ms = self.retention_due_ms(now);
        self.retention.due_ns = due_ms.map(|due_ms| self.retention.on_grid(now, due_ms));
    }

    /// Something was appended: a log that had nothing may have something to lose now, and one that
    /// is bounded in size may be too long.
    pub(super) fn watch_growth(&mut self, now: Now) {
        let config = &self.config;
        let limited = config.retention_ms.is_some() || config.retention_bytes.is_some();
        if !config.cleanup_policy.delete || !limited {
            return;
        }
        if self.retention.due_ns.is_none() || config.retention_bytes.is_some() {
            self.plan_retention(now);
        }
    }

    fn retention_due_ms(&self, now: Now) -> Option<i64> {
        if !self.config.cleanup_policy.delete {
            return None;
        }
        let oldest = self.oldest()?;
        let excess = self.excess_bytes();
        if excess.is_some_and(|excess| excess >= oldest.size_bytes) {
            return Some(now.wall_ms);
        }
        let retention_ms = i64::try_from(self.config.retention_ms?).unwrap_or(i64::MAX);
        let due_ms = oldest.timestamp().map(|timestamp| {
            let last = timestamp.saturating_add(retention_ms);
            last.saturating_add(1)
        });
        Some(due_ms.unwrap_or(now.wall_ms)).filter(|due_ms| *due_ms < i64::MAX)
    }

    /// The oldest segment that can go; one that is being sealed cannot yet.
    fn oldest(&self) -> Option<Candidate> {
        match self.sealed.front() {
            Some(segment) => Some(Candidate {
                size_bytes: segment.size_bytes,
                max_timestamp: segment.max_timestamp,
                since_ms: segment.since_ms,
            }),
            None if self.closing.is_empty() => self.active_candidate(),
            None => None,
        }
    }

    fn active_candidate(&self) -> Option<Candidate> {
        (!self.active.is_empty()).then(|| Candidate {
            size_bytes: self.active.size_bytes(),
            max_timestamp: Some(self.active.max_timestamp()),
            since_ms: self.active.created_ms(),
        })
    }

    /// Bytes beyond `retention.bytes`.
    fn excess_bytes(&self) -> Option<u64> {
        self.size_bytes().checked_sub(self.config.retention_bytes?)
    }

    /// Lets go what is due, and works out when that is the case next. Call
    /// [`Partition::take_jobs`] afterwards.
    pub fn retain(&mut self, now: Now, events: &mut Vec<PartitionEvent>) {
        self.retention.due_ns = None;
        let idle = !self.retention.learning && !self.retention.closing_all;
        if !idle || self.failure.is_some() || !self.config.cleanup_policy.delete {
            return;
        }
        let mut excess = self.excess_bytes();
        let mut log_start = None;
        let mut all = true;
        for segment in &self.sealed {
            let candidate = Candidate {
                size_bytes: segment.size_bytes,
                max_timestamp: segment.max_timestamp,
                since_ms: segment.since_ms,
            };
            let verdict = match segment.next_offset <= self.high_watermark {
                true => self.judge(&candidate, &mut excess, now),
                false => Verdict::Keep,
            };
            if verdict == Verdict::Delete {
                log_start = Some(segment.next_offset);
                continue;
            }
            self.retention.learning = verdict == Verdict::Unknown;
            self.to_learn = (verdict == Verdict::Unknown).then_some(segment.base_offset);
            all = false;
            break;
        }
        if all && let Some(active) = self.active_candidate() {
            self.close_what_is_due(&active, excess, now);
        }
        if let Some(log_start) = log_start {
            info!(partition = self.name(), log_start, "old segments deleted");
            self.move_log_start(log_start, events);
        }
        if !self.retention.learning && !self.retention.closing_all {
            self.plan_retention(now);
        }
    }

    /// A log all of which is due goes on in a new segment, so that the last one can go too.
    fn close_what_is_due(&mut self, active: &Candidate, mut excess: Option<u64>, now: Now) {
        let committed = self.high_watermark >= self.log_end();
        let can_roll = committed && self.closing.is_empty() && !self.rolling.is_under_way();
        if can_roll && self.judge(active, &mut excess, now) == Verdict::Delete {
            self.rolling.begin(self.log_end());
            self.retention.closing_all = true;
        }
    }

    fn judge(&self, candidate: &Candidate, excess: &mut Option<u64>, now: Now) -> Verdict {
        let left = excess.and_then(|excess| excess.checked_sub(candidate.size_bytes));
        if left.is_some() {
            *excess = left;
            return Verdict::Delete;
        }
        let Some(retention_ms) = self.config.retention_ms else {
            return Verdict::Keep;
        };
        match candidate.timestamp() {
            None => Verdict::Unknown,
            Some(timestamp) => {
                let age_ms = now.wall_ms.saturating_sub(timestamp);
                if u64::try_from(age_ms).is_ok_and(|age_ms| age_ms > retention_ms) {
                    // It is larger than the excess, so there is none without it.
                    *excess = None;
                    Verdict::Delete
                } else {
                    Verdict::Keep
                }
            }
        }
    }

    /// Whether it works on its old segments. A log that has failed will not any more.
    pub fn has_chores(&self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        self.retention.learning || self.retention.closing_all || self.removal.is_under_way()
    }

    /// A segment was sealed: it may be the one that only waited for that.
    pub(super) fn retain_sealed(&mut self, now: Now, events: &mut Vec<PartitionEvent>) {
        if std::mem::take(&mut self.retention.closing_all) {
            self.retain(now, events);
        } else {
            self.watch_growth(now);
        }
    }

    /// The next segment could not be made: the old one stays until it is looked at again.
    pub(super) fn retention_roll_failed(&mut self, now: Now) {
        if std::mem::take(&mut self.retention.closing_all) {
            self.plan_retention(now);
        }
    }

    /// The greatest timestamp of a sealed segment was read, or could not be.
    pub(super) fn learned(
        &mut self,
        base_offset: i64,
        max_timestamp: Option<i64>,
        now: Now,
        events: &mut Vec<PartitionEvent>,
    ) {
        self.retention.learning = false;
        let Some(max_timestamp) = max_timestamp else {
            // Asked again by the next look.
            self.retention.due_ns = Some(self.retention.on_grid(now, now.wall_ms));
            return;
        };
        let found = self
            .sealed
            .iter_mut()
            .find(|s| s.base_offset == base_offset);
        if let Some(segment) = found {
            segment.max_timestamp = Some(max_timestamp);
        }
        self.retain(now, events);
    }
}
