//! The extent of a comparison: full, quick, or a smoke test of the instrument.
//!
//! Never decides what is measured: `cells.rs` does.

use std::time::Duration;

use crate::compare::contestant::Contestant;
use crate::row::Limits;

/// How thorough a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Every measurement once; the figures mean nothing.
    Smoke,
    /// Three pairs of short loads.
    Quick,
    /// Five pairs.
    Full,
}

impl Effort {
    fn choose<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    /// The number of measured pairs.
    pub(crate) fn pairs(self) -> u32 {
        self.choose(1, 3, 5)
    }

    /// The limits of one load.
    pub(crate) fn limits(self) -> Limits {
        Limits {
            warm_up: Duration::from_millis(self.choose(50, 1_500, 3_000)),
            measured: Duration::from_millis(self.choose(200, 2_000, 5_000)),
            bytes_max: self.choose(20_000_000, 4_000_000_000, 4_000_000_000),
        }
    }

    /// The limits of the load beside a cold reader.
    pub(crate) fn long_limits(self) -> Limits {
        let limits = self.limits();
        Limits {
            measured: limits.measured * 2,
            ..limits
        }
    }

    /// Length of the warm-up: a JVM compiles its hot code only after a while, a compiled program needs its files and
    /// caches made.
    pub(crate) fn warm_up(self, contestant: Contestant) -> Duration {
        Duration::from_millis(match contestant {
            Contestant::Chronik => self.choose(150, 3_000, 3_000),
            Contestant::Kafka => self.choose(150, 12_000, 24_000),
        })
    }

    /// Bytes of the topic to read.
    pub(crate) fn stored_bytes(self) -> u64 {
        self.choose(8 << 20, 1 << 30, 5 << 30)
    }

    /// Bytes over a thousand partitions.
    pub(crate) fn spread_bytes(self) -> u64 {
        self.choose(8 << 20, 256 << 20, 1_280 << 20)
    }

    /// Length of the idle measurement, after `settle`.
    pub(crate) fn idle(self) -> Duration {
        Duration::from_millis(self.choose(200, 5_000, 20_000))
    }

    /// Time until the cost of start and connecting is over.
    pub(crate) fn settle(self) -> Duration {
        Duration::from_millis(self.choose(100, 2_000, 2_000))
    }

    /// Number of `kafka-producer-perf-test`'s records: 300 MB of the smallest, 600 MB of the others.
    pub(crate) fn perf_records(self, record_bytes: usize) -> usize {
        let records = (600_000_000 / record_bytes).min(3_000_000);
        records / self.choose(100, 3, 1)
    }
}
