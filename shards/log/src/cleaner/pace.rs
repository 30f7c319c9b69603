//! How fast cleaning goes, and when it gives way.
//!
//! Runs on the partition's shard. Ends a slice of work before it lasts long, rests after it so that
//! whoever serves clients comes first, keeps to `log.cleaner.io.max.bytes.per.second`, and notices
//! when the partition goes. Decides nothing about the log.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use chronik_io::World;

use super::CleanError;

/// Longest slice, ns.
const SLICE_NS_MAX: u64 = 60_000;

/// After bytes were moved cleaning rests so many times as long as that took, work in between included:
/// producers beside it would otherwise wait for the disk and the shard. Over 2 GiB p99 at 5,000
/// requests/s was 2.2 times the undisturbed one without, and is 1.13 times with it. On a busy shard the
/// work takes longer, and the rest is longer, too.
const RESTS: u64 = 2;
/// Longest such rest, ns.
const REST_NS_MAX: u64 = 100_000_000;

/// Told to whoever cleans that it is to stop.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Rc<Told>);

#[derive(Debug, Default)]
struct Told {
    stops: Cell<bool>,
    /// The one who cleans, asleep.
    sleeper: RefCell<Option<Waker>>,
}

impl Cancel {
    /// Stops it at the end of the slice, or of its sleep, which ends now.
    pub fn cancel(&self) {
        self.0.stops.set(true);
        if let Some(sleeper) = self.0.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Whether it is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.stops.get()
    }

    /// Sleeps until `sleep` ends, or it is to stop: at a small rate a sleep lasts for hours, and whoever
    /// deletes a topic or stops the broker waits for its end.
    async fn sleep(&self, mut sleep: impl Future<Output = ()> + Unpin) {
        poll_fn(|context| {
            if self.is_cancelled() {
                return Poll::Ready(());
            }
            self.0.sleeper.replace(Some(context.waker().clone()));
            Pin::new(&mut sleep).poll(context)
        })
        .await;
        self.0.sleeper.take();
    }
}

/// See the module's text.
pub struct Pace<W: World> {
    world: W,
    cancel: Cancel,
    /// `log.cleaner.io.max.bytes.per.second`, this shard's share.
    bytes_per_second_max: u64,
    slice_began_ns: u64,
    /// Before this the next bytes are not to be moved.
    free_ns: u64,
    /// When bytes were last free to be moved.
    went_on_ns: u64,
}

impl<W: World> Pace<W> {
    /// At most so many bytes in a second, until `cancel`.
    pub fn new(world: &W, cancel: Cancel, bytes_per_second_max: u64) -> Self {
        let now_ns = world.monotonic_ns();
        Self {
            world: world.clone(),
            cancel,
            bytes_per_second_max: bytes_per_second_max.max(1),
            slice_began_ns: now_ns,
            free_ns: now_ns,
            went_on_ns: now_ns,
        }
    }

    /// To be called every few microseconds of work.
    pub(crate) async fn breathe(&mut self) -> Result<(), CleanError> {
        let now_ns = self.world.monotonic_ns();
        if now_ns.saturating_sub(self.slice_began_ns) >= SLICE_NS_MAX {
            self.rest().await?;
        }
        Ok(())
    }

    /// Ends the slice.
    pub async fn rest(&mut self) -> Result<(), CleanError> {
        self.world.pause().await;
        self.slice_began_ns = self.world.monotonic_ns();
        match self.cancel.is_cancelled() {
            true => Err(CleanError::Cancelled),
            false => Ok(()),
        }
    }

    /// Bytes were read or written: rests, and waits until as many more may be.
    pub(crate) async fn moved(&mut self, bytes: usize) -> Result<(), CleanError> {
        let now_ns = self.world.monotonic_ns();
        let takes_ns =
            u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_second_max);
        let takes_ns = u64::try_from(takes_ns).unwrap_or(u64::MAX);
        self.free_ns = self.free_ns.max(now_ns).saturating_add(takes_ns);
        let worked_ns = now_ns.saturating_sub(self.went_on_ns);
        let rest_ns = worked_ns.saturating_mul(RESTS).min(REST_NS_MAX);
        let free_ns = self.free_ns.max(now_ns.saturating_add(rest_ns));
        if free_ns > now_ns {
            self.cancel.sleep(self.world.sleep_until(free_ns)).await;
        }
        self.went_on_ns = self.world.monotonic_ns();
        self.rest().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chronik_io::World;
    use chronik_io::simulated::Simulation;

    use super::{Cancel, CleanError, Pace};

    /// At a byte a second a mebibyte is a sleep of twelve days, which ends when it is to stop.
    #[test]
    fn a_long_sleep_ends_when_it_is_to_stop() {
        let mut simulation = Simulation::new(1);
        let world = simulation.world();
        let cancel = Cancel::default();
        let mut pace = Pace::new(&world, cancel.clone(), 1);
        let stopper = world.clone();
        world.spawn(async move {
            stopper.sleep_for(Duration::from_secs(5)).await;
            cancel.cancel();
        });
        let moved = simulation.run(pace.moved(1 << 20));
        assert!(matches!(moved, Err(CleanError::Cancelled)));
        assert!(world.monotonic_ns() < 6_000_000_000);
        // And does not begin any more.
        let moved = simulation.run(pace.moved(1 << 20));
        assert!(matches!(moved, Err(CleanError::Cancelled)));
        assert!(world.monotonic_ns() < 7_000_000_000);
    }
}
