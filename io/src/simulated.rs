//! The seeded twin of storage, network and time: one thread, virtual time, a disk that can lose.
//!
//! Owns the simulation's run loop and its two ends, power cut and kill. The same seed and the same code give the
//! same run, to the byte. Used by tests of every package; never by the broker itself.

mod calls;
mod disk;
mod executor;
mod fault;
mod file;
mod inode;
mod mapping;
mod pipe;
mod random;
#[cfg(test)]
mod tests;
mod world;

pub use executor::Sleep;
pub use fault::{Fault, Faults, Operation};
pub use file::{SimulatedBuffer, SimulatedFile};
pub use mapping::SimulatedMapping;
pub use pipe::{SimulatedStream, pipe};
pub use random::Random;
pub use world::SimulatedWorld;

use crate::open_names::OpenNames;
use disk::Disk;
use executor::{Executor, Step};
use std::cell::{Cell, RefCell, RefMut};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Where simulated wall clocks begin: 2026-01-01 UTC.
const WALL_ORIGIN_MS: i64 = 1_767_225_600_000;

/// State shared by all parts of one simulation.
pub(crate) struct Core {
    executor: Executor,
    random: RefCell<Random>,
    disk: RefCell<Disk>,
    faults: RefCell<Faults>,
    /// The names of open files.
    names: OpenNames,
    /// Chance that a file is closed between two uses, parts per million.
    closing_ppm: Cell<u32>,
    /// Operations waiting for the device.
    outstanding: Cell<usize>,
    wall_origin_ms: Cell<i64>,
    boot_id: u128,
}

/// A start of the machine, or of the process on it.
struct Boot {
    wall_ms: i64,
    /// Changes with each power cut.
    id: u128,
    closing_ppm: u32,
}

impl Core {
    /// One access to the disk.
    fn disk<T>(&self, access: impl FnOnce(&mut Disk) -> T) -> T {
        access(&mut self.disk.borrow_mut())
    }

    /// The fault due now, if any.
    fn fault(&self, operation: Operation, path: &Path) -> Option<Fault> {
        let mut faults = self.faults.borrow_mut();
        faults.draw(&mut self.random.borrow_mut(), operation, path)
    }

    fn begin_io(&self) -> Outstanding<'_> {
        self.outstanding.set(self.outstanding.get() + 1);
        Outstanding(&self.outstanding)
    }
}

struct Outstanding<'a>(&'a Cell<usize>);

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A simulated machine: its disk and one run of a process on it.
pub struct Simulation {
    core: Rc<Core>,
    seed: u64,
}

impl Simulation {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Simulation {
        let boot = Boot {
            wall_ms: WALL_ORIGIN_MS,
            id: 1,
            closing_ppm: 0,
        };
        Simulation::on(Disk::default(), Random::new(seed), seed, boot)
    }

    fn on(disk: Disk, random: Random, seed: u64, boot: Boot) -> Simulation {
        let core = Core {
            executor: Executor::new(0),
            random: RefCell::new(random),
            disk: RefCell::new(disk),
            faults: RefCell::new(Faults::default()),
            names: OpenNames::default(),
            closing_ppm: Cell::new(boot.closing_ppm),
            outstanding: Cell::new(0),
            wall_origin_ms: Cell::new(boot.wall_ms),
            boot_id: boot.id,
        };
        Simulation {
            core: Rc::new(core),
            seed,
        }
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A world on this machine; several stand for several shards.
    #[must_use]
    pub fn world(&self) -> SimulatedWorld {
        SimulatedWorld {
            core: Rc::clone(&self.core),
        }
    }

    /// Damages a file on the medium, durably and without a change of its times. False if there is no such file.
    pub fn damage(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut disk = self.core.disk.borrow_mut();
        let Ok(inode) = disk.file(path) else {
            return false;
        };
        disk.inode(inode).damage(change);
        true
    }

    /// Moves the wall clock by so many milliseconds; the monotonic clock is not affected.
    pub fn correct_clock(&self, by_ms: i64) {
        let origin_ms = &self.core.wall_origin_ms;
        origin_ms.set(origin_ms.get().saturating_add(by_ms));
    }

    /// Closes this share of the open files between two uses, as with fewer descriptors than files: the next use finds
    /// the file by its name again. Holds through restarts.
    pub fn close_files(&self, parts_per_million: u32) {
        self.core.closing_ppm.set(parts_per_million);
    }

    /// The faults of the run.
    #[must_use]
    pub fn faults(&self) -> RefMut<'_, Faults> {
        self.core.faults.borrow_mut()
    }

    /// Runs `future` to its end, and the spawned tasks meanwhile.
    ///
    /// # Panics
    /// If no task can run and no timer is set: `future` waits for ever.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let main = self.core.executor.main_waker();
        loop {
            match self.core.executor.step(&self.core.random, u64::MAX) {
                Step::Main => {
                    let waker = main.start_poll();
                    let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                    if let Poll::Ready(output) = polled {
                        return output;
                    }
                }
                Step::Ran | Step::Waited => {}
                Step::Nothing => panic!("seed {}: waits for ever", self.seed),
            }
        }
    }

    /// Runs until no task can run and no operation waits for the device. Sleeping tasks stay asleep, unless the
    /// device's time passes their deadlines.
    pub fn run_until_idle(&mut self) {
        loop {
            // Time stands still unless the device is busy.
            let now_ns = self.core.executor.now_ns();
            let until_ns = if self.core.outstanding.get() > 0 {
                u64::MAX
            } else {
                now_ns
            };
            if let Step::Nothing = self.core.executor.step(&self.core.random, until_ns) {
                return;
            }
        }
    }

    /// Runs for `duration` of virtual time and stops in the middle of all work: the moment for a
    /// [`Simulation::crash`].
    pub fn advance(&mut self, duration: Duration) {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = self.core.executor.now_ns().saturating_add(duration_ns);
        while !matches!(
            self.core.executor.step(&self.core.random, until_ns),
            Step::Nothing
        ) {}
        self.core.executor.set_now(until_ns);
    }

    /// Runs at most `count` steps (one task's poll, or a move of time); true when there are more.
    pub fn run_steps(&mut self, count: usize) -> bool {
        (0..count).all(|_| {
            !matches!(
                self.core.executor.step(&self.core.random, u64::MAX),
                Step::Nothing
            )
        })
    }

    /// Cuts the power and restarts with the disk's surviving content. Faults are cleared.
    #[must_use]
    pub fn crash(self) -> Simulation {
        self.restart(Disk::after_power_cut, true)
    }

    /// Kills the process and restarts: everything given to the kernel is there, and unsynced bytes are still
    /// unsynced. Faults are cleared.
    #[must_use]
    pub fn kill(self) -> Simulation {
        self.restart(Disk::after_kill, false)
    }

    fn restart(self, survive: impl FnOnce(Disk, &mut Random) -> Disk, reboots: bool) -> Simulation {
        let mut random = self.core.random.borrow().clone();
        // Before the tasks are dropped: their drop code must not reach the disk.
        let disk = survive(self.core.disk.take(), &mut random);
        let down_ms = random.below(60_000);
        let ran_ms = self.core.executor.now_ns() / 1_000_000;
        let wall_ms = self.core.wall_origin_ms.get() + ((ran_ms + down_ms) as i64);
        let boot = Boot {
            wall_ms,
            id: self.core.boot_id + u128::from(reboots),
            closing_ppm: self.core.closing_ppm.get(),
        };
        Simulation::on(disk, random, self.seed, boot)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks hold worlds and worlds hold the tasks: break the cycle.
        self.core.executor.clear();
    }
}
