//! `SimulatedWorld`: one shard's hold on a simulated machine.
//!
//! Owns the seeded latency between a call and the disk, so that completions come out of order, and the faults
//! due. What the broker calls is in `calls`, what it does with an open file in `file`. Runs on the simulation's only
//! thread; never touches a real file or clock.

use super::Core;
use super::disk::{Change, Disk};
use super::executor::Sleep;
use super::fault::{Fault, Operation};
use crate::world::World;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

/// The world of a [`super::Simulation`]; clones are further shards on the same disk.
#[derive(Clone)]
pub struct SimulatedWorld {
    pub(super) core: Rc<Core>,
}

impl SimulatedWorld {
    pub(super) fn disk<T>(&self, access: impl FnOnce(&mut Disk) -> T) -> T {
        self.core.disk(access)
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.core.random.borrow_mut().below(bound)
    }

    /// Waits as long as a device might: mostly some 10 µs, now and then milliseconds.
    pub(super) async fn latency(&self) {
        let bound_ns = if self.below(32) == 0 {
            5_000_000
        } else {
            150_000
        };
        let wait_ns = 5_000 + self.below(bound_ns);
        let _outstanding = self.core.begin_io();
        Sleep::new(Rc::clone(&self.core), self.core.executor.now_ns() + wait_ns).await;
    }

    pub(super) fn fault(&self, operation: Operation, path: &Path) -> Option<Fault> {
        self.core.fault(operation, path)
    }

    /// True when the file was closed since its last use, because others needed its descriptor.
    pub(super) fn closes_file(&self) -> bool {
        let ppm = self.core.closing_ppm.get();
        ppm > 0 && self.core.random.borrow_mut().chance(ppm)
    }

    /// Waits the latency, then returns the fault due, if any.
    pub(super) async fn begin(&self, operation: Operation, path: &Path) -> io::Result<()> {
        assert!(path.is_absolute(), "{} is not absolute", path.display());
        self.latency().await;
        match self.fault(operation, path) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    /// Makes the changes in the directory of `path` durable.
    pub(super) async fn sync_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) => self.sync_dir(parent).await,
            None => Ok(()),
        }
    }

    pub(super) async fn change(&self, change: Change) -> io::Result<()> {
        let (Change::Create(path, _) | Change::Remove(path) | Change::Rename(path, _)) = &change;
        self.begin(Operation::Directory, path).await?;
        self.disk(|disk| disk.change(change.clone()))?;
        match &change {
            Change::Create(..) => {}
            Change::Remove(path) => self.core.names.removed(path),
            Change::Rename(from, to) => self.core.names.renamed(from, to),
        }
        Ok(())
    }

    /// Cuts the excess of a write in whole blocks after the end.
    pub(super) fn cut_unsynced(&self, inode: u64, len: u64) {
        self.disk(|disk| disk.inode(inode).cut_unsynced(len));
    }

    /// The free bytes of the disk, when the growth does not fit.
    pub(super) fn space_for(&self, inode: u64, range: Range<u64>) -> Option<u64> {
        let space = self.core.faults.borrow().space()?;
        let block_bytes = self.core.faults.borrow().block_bytes();
        self.disk(|disk| {
            let growth = disk.inode(inode).growth_bytes(range, block_bytes);
            let free = space.saturating_sub(disk.used_bytes(block_bytes));
            (growth > free).then_some(free)
        })
    }
}
