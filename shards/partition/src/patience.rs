//! Trying again, at a stop and for a bounded time, what the world is too short for.
//!
//! Runs where a stop awaits its files. Decides nothing but when it is enough: what is not done by then
//! is left to the next start, which looks through the logs.

use std::io;
use std::time::Duration;

use chronik_io::{World, is_not_now};

/// So long a stop waits for space, descriptors or memory before it goes on without, ns; twice, for the
/// logs and for what is written behind them. Service managers kill after 10 s at the earliest.
const PATIENCE_NS: u64 = 3_000_000_000;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// When it ends, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    until_ns: u64,
}

impl Patience {
    /// It fails at once.
    pub(crate) const NONE: Patience = Patience { until_ns: 0 };

    /// From now on.
    pub fn begin<W: World>(world: &W) -> Patience {
        Patience {
            until_ns: world.monotonic_ns().saturating_add(PATIENCE_NS),
        }
    }

    /// Waits a little; says whether to try again.
    pub async fn waits<W: World>(self, world: &W) -> bool {
        if world.monotonic_ns() >= self.until_ns {
            return false;
        }
        world.sleep_for(PAUSE).await;
        true
    }

    /// Tries until it succeeds, fails for good or takes too long.
    pub async fn with<W: World, T>(
        self,
        world: &W,
        mut attempt: impl AsyncFnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt().await {
                Err(error) if is_not_now(&error) && self.waits(world).await => {}
                done => return done,
            }
        }
    }
}
