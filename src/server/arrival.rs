//! How what a client sends comes and what it is sent goes, and who must give back what it holds when others wait.
//!
//! Lives on one shard. Knows no clock: times are the world's monotonic ones, ns. Time that
//! a client waits for the broker is never its own.

/// How fast the bytes of a request come at least while others wait for room, bytes per second: half a
/// megabit. What comes faster saves nothing up.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// The same for who holds more than a mebibyte, times the root of the bytes held: 1 MiB is done within 16 s, 4 MiB
/// within 32 s and 100 MiB within 160 s, or a few that are slow would keep what all need.
const BYTES_PER_SECOND_OF_ROOT_MIN: u64 = 64;
/// How long a client may be behind that while a few wait, ns: longer than two lost packets.
const PATIENCE_NS_MAX: u64 = 1_000_000_000;
/// The same while very many wait, ns: longer than the way there and back across the world. The patience with each
/// is shorter then, for their lots come one after the other.
const PATIENCE_NS_MIN: u64 = 250_000_000;
/// Bytes that lie in a socket where the broker is late to read them: who sends a byte now and then never has so many
/// there.
const UNREAD_BYTES_MIN: usize = 4 << 10;

/// How far a client is with what it sends or takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Progress {
    /// The time until which it would have taken at the least speed.
    until_ns: u64,
}

impl Progress {
    /// Patience begins anew.
    pub(crate) fn anew(now_ns: u64) -> Self {
        Self { until_ns: now_ns }
    }

    /// `lasted_ns` of the time until now were not its client's.
    fn excuse(&mut self, lasted_ns: u64, now_ns: u64) {
        self.until_ns = self.until_ns.saturating_add(lasted_ns).min(now_ns);
    }

    /// `bytes` more for somebody who holds `held`.
    pub(crate) fn more(self, bytes: usize, held: usize, now_ns: u64) -> Self {
        let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let speed = BYTES_PER_SECOND_OF_ROOT_MIN.saturating_mul(count(held).isqrt());
        let speed = speed.max(BYTES_PER_SECOND_MIN);
        let worth_ns = count(bytes).saturating_mul(1_000_000_000) / speed;
        Self {
            until_ns: self.until_ns.saturating_add(worth_ns).min(now_ns),
        }
    }
}

/// A long request that is coming.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Bytes of the budget that it holds.
    pub(crate) held: usize,
    /// Bytes of it that have not come.
    pub(crate) missing: usize,
    /// How it comes.
    progress: Progress,
    /// Since when it waits for the broker, if it does: that time is not its client's.
    waits_since_ns: Option<u64>,
}

impl Arrival {
    /// One that has just been given its first bytes of the budget.
    pub(crate) fn begun(now_ns: u64) -> Self {
        Self {
            held: 0,
            missing: 0,
            progress: Progress::anew(now_ns),
            waits_since_ns: None,
        }
    }

    /// How it comes; `None` while it waits for the broker.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.waits_since_ns.is_none().then_some(self.progress)
    }

    /// `bytes` of it have come.
    pub(crate) fn more(&mut self, bytes: usize, now_ns: u64) {
        self.missing = self.missing.saturating_sub(bytes);
        self.progress = self.progress.more(bytes, self.held, now_ns);
    }

    /// It waits for the broker from now on.
    pub(crate) fn wait(&mut self, now_ns: u64) {
        self.waits_since_ns.get_or_insert(now_ns);
    }

    /// It waits for its client again, whose patience goes on where it was.
    pub(crate) fn go_on(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.waits_since_ns.take() {
            self.progress
                .excuse(now_ns.saturating_sub(since_ns), now_ns);
        }
    }

    /// The broker was late to read what had come.
    pub(crate) fn was_unread(&mut self, now_ns: u64) {
        self.progress = Progress::anew(now_ns);
    }

    /// Whether `unread` bytes in the socket show that the broker is late, and not the client: more than
    /// a byte now and then, or all that is missing.
    pub(crate) fn shows_late_broker(&self, unread: usize) -> bool {
        unread > 0 && unread >= self.missing.min(UNREAD_BYTES_MIN)
    }
}

/// A client that holds room, and could do so for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    /// Bytes of the budget.
    pub(crate) held: usize,
    /// Of what it sends or does not take.
    pub(crate) progress: Progress,
}

/// What a look at all that is held has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Who is closed, by its place in what was looked at.
    pub(crate) closed: Vec<usize>,
    /// When to look again at the latest, ns from now.
    pub(crate) again_ns: u64,
}

/// How long somebody may be behind when so many hold room and so many wait for it, ns: by the square of the
/// share that holds, because those who wait come in one lot after the other.
fn patience_ns(holders: usize, waiting: usize) -> u64 {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (holders, all) = (count(holders), count(holders.saturating_add(waiting)));
    let share = |of_ns: u64| of_ns.saturating_mul(holders) / all.max(1);
    share(share(PATIENCE_NS_MAX)).clamp(PATIENCE_NS_MIN, PATIENCE_NS_MAX)
}

/// Looks at those that hold room while `waiting` others want `bytes` together: closes those that are behind
/// the most, as many as are needed. Nobody is closed for whom the broker `is_late` itself: a shard that was held
/// up has not yet taken what has come.
pub(crate) fn look(
    holders: &[Holder],
    (waiting, bytes): (usize, usize),
    now_ns: u64,
    mut is_late: impl FnMut(usize) -> bool,
) -> Look {
    let mut holders: Vec<(usize, &Holder)> = holders.iter().enumerate().collect();
    holders.sort_by_key(|(_, holder)| holder.progress.until_ns);
    let patience_ns = patience_ns(holders.len(), waiting);
    let mut found = Look {
        again_ns: patience_ns / 4,
        ..Look::default()
    };
    let mut freed = 0;
    for (at, holder) in holders {
        let behind_ns = now_ns.saturating_sub(holder.progress.until_ns);
        if behind_ns < patience_ns || freed >= bytes {
            let due_ns = patience_ns.saturating_sub(behind_ns);
            found.again_ns = found.again_ns.min(due_ns);
            break;
        }
        if !is_late(at) {
            freed += holder.held;
            found.closed.push(at);
        }
    }
    found.again_ns = found.again_ns.max(PATIENCE_NS_MIN / 25);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn holder(held: usize, since_ns: u64) -> Holder {
        Holder {
            held,
            progress: Progress::anew(since_ns),
        }
    }

    fn never(_: usize) -> bool {
        false
    }

    #[test]
    fn who_is_behind_the_most_goes_first_and_no_more_than_are_needed() {
        let holders = [
            holder(100, 3 * SECOND_NS),
            holder(100, SECOND_NS),
            holder(100, 2 * SECOND_NS),
            holder(100, SECOND_NS / 2),
        ];
        let now_ns = 5 * SECOND_NS;
        let found = look(&holders, (1, 150), now_ns, |at| at == 3);
        assert_eq!(found.closed, [1, 2], "the broker is late to read the last");
        let early = look(&holders, (1, 1), SECOND_NS / 2, never);
        assert!(early.closed.is_empty());
    }

    #[test]
    fn patience_goes_on_after_a_wait_for_the_broker_and_counts_what_is_unread() {
        let mut arrival = Arrival::begun(0);
        arrival.missing = 100;
        arrival.wait(SECOND_NS);
        assert_eq!(arrival.progress(), None);
        arrival.go_on(9 * SECOND_NS);
        assert_eq!(arrival.progress(), Some(Progress::anew(8 * SECOND_NS)));
        assert!(arrival.shows_late_broker(100) && !arrival.shows_late_broker(99));
        arrival.missing = 1 << 20;
        assert!(arrival.shows_late_broker(UNREAD_BYTES_MIN) && !arrival.shows_late_broker(100));
    }

    #[test]
    fn silence_and_dribble_are_behind_and_a_slow_line_is_not() {
        for (bytes, each_ns, held, is_behind) in [
            (0, SECOND_NS / 10, 1, true),
            (1, SECOND_NS / 10, 1, true),
            (12_500, SECOND_NS / 10, 1, false),
            (60_000, SECOND_NS * 9 / 10, 1, true),
            (60_000, SECOND_NS / 5, 1, false),
            // One megabit does for a mebibyte, ten do for a hundred.
            (12_500, SECOND_NS / 10, 1 << 20, false),
            (12_500, SECOND_NS / 10, 100 << 20, true),
            (125_000, SECOND_NS / 10, 100 << 20, false),
        ] {
            // However much came at once before.
            let mut progress = Progress::anew(0).more(50 << 20, 1, 0);
            let mut now_ns = 0;
            let mut was_behind = false;
            while now_ns < 10 * SECOND_NS {
                now_ns += each_ns;
                let holder = Holder { held: 1, progress };
                was_behind |= !look(&[holder], (1, 1), now_ns, never).closed.is_empty();
                progress = progress.more(bytes, held, now_ns);
            }
            assert_eq!(was_behind, is_behind, "{bytes} bytes each {each_ns} ns");
        }
    }

    #[test]
    fn patience_is_shared_among_those_who_wait() {
        let holders = [holder(10, 0); 4];
        assert!(patience_ns(100, 1) > PATIENCE_NS_MAX * 9 / 10);
        assert_eq!(patience_ns(1, 100_000), PATIENCE_NS_MIN);
        for waiting in [1, 4, 16, 100_000] {
            let patience_ns = patience_ns(holders.len(), waiting);
            let found = |now_ns| look(&holders, (waiting, 1000), now_ns, never).closed.len();
            assert_eq!(found(patience_ns - 1), 0);
            assert_eq!(found(patience_ns), 4);
        }
    }
}
