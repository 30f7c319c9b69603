//! The watchdog: one thread that notices a shard which has work and does not run.
//!
//! glommio's loop can park a shard although tasks are runnable (its preemption timer has fired before the first
//! poll, see `executor`), and then only a new completion wakes it. The watchdog sleeps while no shard has work
//! outstanding, so an idle process uses no CPU. It kicks a shard without progress through one of several pipes,
//! and ends the process when a shard does not answer for long. Never touches a shard's state.

use crate::mesh::WakeObserver;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle, Thread};
use std::time::Duration;

/// Time between two checks while there is work.
const TICK: Duration = Duration::from_millis(10);

/// Checks without any work before the watchdog sleeps.
const QUIET_TICKS: u32 = 20;

/// Checks with work and no answer to kicks before the process is given up: some 30 s of the watchdog's own
/// running, so that a suspended machine does not count.
const DEAD_TICKS: u32 = 3_000;

/// Independent ways to wake a shard: a used one that is not polled again leaves the others.
pub(crate) const KICKS: usize = 4;

#[derive(Default)]
struct State {
    /// I/O operations in flight.
    in_flight: AtomicUsize,
    /// Woken through the mesh and not run since.
    woken: AtomicBool,
    /// The shard's beats; any change is progress.
    beats: AtomicU64,
    /// The writing ends of the pipes the shard listens to.
    kicks: Mutex<Vec<UnixStream>>,
    ended: AtomicBool,
}

impl State {
    fn has_work(&self) -> bool {
        let waits =
            self.woken.load(Ordering::Relaxed) || self.in_flight.load(Ordering::Relaxed) > 0;
        waits && !self.ended.load(Ordering::Relaxed)
    }

    /// Wakes the shard, through the pipes in turn by `attempt`.
    fn kick(&self, attempt: u32) {
        let mut kicks = self.kicks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = kicks.len();
        let Some(pipe) = kicks.get_mut(attempt as usize % count.max(1)) else {
            return;
        };
        match pipe.write(&[0]) {
            // A full pipe has kicked many times already.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => tracing::debug!(%error, "a shard's pipe is closed"),
        }
    }
}

/// Watches all shards of a process.
pub(crate) struct Watchdog {
    shards: Vec<State>,
    asleep: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Watchdog {
    pub(crate) fn new(shards: usize) -> Arc<Watchdog> {
        Arc::new(Watchdog {
            shards: (0..shards).map(|_| State::default()).collect(),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        })
    }

    /// Starts the thread.
    pub(crate) fn start(watchdog: &Arc<Watchdog>) -> std::io::Result<Running> {
        let watching = Arc::clone(watchdog);
        let handle = Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watching.watch())?;
        let _ = watchdog.thread.set(handle.thread().clone());
        Ok(Running {
            watchdog: Arc::clone(watchdog),
            handle: Some(handle),
        })
    }

    /// The reporting end of shard `shard`.
    pub(crate) fn shard(watchdog: &Arc<Watchdog>, shard: usize) -> ShardWork {
        ShardWork {
            watchdog: Arc::clone(watchdog),
            shard,
        }
    }

    /// Wakes a shard, through the pipes in turn by `attempt`.
    #[cfg(test)]
    pub(crate) fn kick(&self, shard: usize, attempt: u32) {
        self.shards[shard].kick(attempt);
    }

    /// The beats of a shard so far.
    #[cfg(test)]
    pub(crate) fn beats(&self, shard: usize) -> u64 {
        self.shards[shard].beats.load(Ordering::Relaxed)
    }

    /// Wakes the watchdog: there is work.
    fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn watch(&self) {
        let mut seen: Vec<Seen> = self.shards.iter().map(|_| Seen::default()).collect();
        let mut quiet_ticks = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            let mut any_work = false;
            for (shard, (state, seen)) in self.shards.iter().zip(&mut seen).enumerate() {
                any_work |= state.has_work();
                if seen.look(state) >= DEAD_TICKS {
                    crate::fatal::abort(&format!(
                        "shard {shard} has work and has not run for {} s",
                        TICK.as_secs_f64() * f64::from(DEAD_TICKS)
                    ));
                }
            }
            quiet_ticks = if any_work { 0 } else { quiet_ticks + 1 };
            if quiet_ticks < QUIET_TICKS {
                std::thread::park_timeout(TICK);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            // Work from before the line above saw a watchdog awake: check once more.
            if self.shards.iter().any(State::has_work) || self.stopped.load(Ordering::SeqCst) {
                self.asleep.store(false, Ordering::SeqCst);
            } else {
                std::thread::park();
                self.asleep.store(false, Ordering::SeqCst);
            }
            quiet_ticks = 0;
        }
    }
}

/// The watchdog's last view of one shard.
#[derive(Default)]
struct Seen {
    beats: u64,
    still_ticks: u32,
}

impl Seen {
    /// Checks the shard, kicks it if it stands still, and returns for how many checks it has.
    fn look(&mut self, state: &State) -> u32 {
        let beats = state.beats.load(Ordering::Relaxed);
        if beats != self.beats || !state.has_work() {
            self.beats = beats;
            self.still_ticks = 0;
            return 0;
        }
        self.still_ticks += 1;
        // Doubling distances: a slow disk looks the same from here, and an answered kick is a beat.
        if self.still_ticks.is_power_of_two() {
            state.kick(self.still_ticks.trailing_zeros());
        }
        self.still_ticks
    }
}

impl WakeObserver for Watchdog {
    fn woken(&self, shard: usize) {
        self.shards[shard].woken.store(true, Ordering::SeqCst);
        self.rouse();
    }

    fn ran(&self, shard: usize) {
        let state = &self.shards[shard];
        state.woken.store(false, Ordering::SeqCst);
        state.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// One shard's reports to the watchdog.
pub(crate) struct ShardWork {
    watchdog: Arc<Watchdog>,
    shard: usize,
}

impl ShardWork {
    fn state(&self) -> &State {
        &self.watchdog.shards[self.shard]
    }

    pub(crate) fn begin_io(&self) {
        self.state().in_flight.fetch_add(1, Ordering::SeqCst);
        self.watchdog.rouse();
    }

    pub(crate) fn end_io(&self) {
        self.state().in_flight.fetch_sub(1, Ordering::SeqCst);
        self.beat();
    }

    /// Reports that the shard runs.
    pub(crate) fn beat(&self) {
        self.state().beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Registers the kicks the shard listens to.
    pub(crate) fn listen(&self, kicks: Vec<UnixStream>) {
        *self
            .state()
            .kicks
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = kicks;
    }
}

impl Drop for ShardEnd {
    fn drop(&mut self) {
        self.0.state().ended.store(true, Ordering::SeqCst);
    }
}

/// Dropped when a shard's executor ends: the watchdog expects nothing of it any more.
pub(crate) struct ShardEnd(pub(crate) ShardWork);

/// The watchdog's thread; dropping it stops the thread.
pub(crate) struct Running {
    watchdog: Arc<Watchdog>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watchdog.stopped.store(true, Ordering::SeqCst);
        if let Some(handle) = self.handle.take() {
            handle.thread().unpark();
            // The thread panics only by a fault of its own, and has reported it then.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DEAD_TICKS, Seen, State};
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_shard_that_stands_still_is_kicked_through_all_pipes() {
        let state = State::default();
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (reader, writer) = UnixStream::pair().unwrap();
            reader.set_nonblocking(true).unwrap();
            readers.push(reader);
            writers.push(writer);
        }
        *state.kicks.lock().unwrap() = writers;
        let mut seen = Seen::default();
        assert_eq!(seen.look(&state), 0, "no work, nothing to expect");
        state.in_flight.store(1, Ordering::Relaxed);
        for tick in 1..=8 {
            assert_eq!(seen.look(&state), tick);
        }
        let mut kicked = [0; 16];
        // At 1, 2, 4 and 8 ticks, in turns.
        assert_eq!(readers[0].read(&mut kicked).unwrap(), 2);
        assert_eq!(readers[1].read(&mut kicked).unwrap(), 2);
        state.beats.fetch_add(1, Ordering::Relaxed);
        assert_eq!(seen.look(&state), 0, "an answer is progress");
        for _ in 0..DEAD_TICKS {
            seen.look(&state);
        }
        assert_eq!(seen.look(&state), DEAD_TICKS + 1);
        state.ended.store(true, Ordering::Relaxed);
        assert_eq!(seen.look(&state), 0);
    }
}
