//! The faults of a simulation, by script and by chance, and the size of its disk.
//!
//! Owns the plan only; `disk` and `world` carry it out. Never draws outside the seed.

use super::random::Random;
use crate::storage::BLOCK_BYTES;
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// Kinds of storage operations that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Writing buffers.
    Write,
    /// Zeroing ahead.
    Zero,
    /// Reading, also of whole files and of lists of them; opening what is there.
    Read,
    /// Making data durable.
    Sync,
    /// Cutting and extending.
    SetLen,
    /// Opening and creating by name.
    Open,
    /// Creating, renaming, removing and syncing directory entries.
    Directory,
    /// Bringing pages of a mapping into memory.
    Map,
}

const OPERATIONS: usize = 8;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An input/output error. A write may have reached the disk in part; after a failed sync, unsynced data may be
    /// gone although it still reads back, and no later sync brings it back, as on Linux.
    Broken,
    /// No space left on the device.
    NoSpace,
    /// The owner's quota is used up.
    Quota,
    /// The process has no free descriptor.
    Descriptors,
    /// The system has no free descriptor.
    DescriptorsOfSystem,
    /// The kernel has no memory.
    Memory,
    /// A write that stops in the middle.
    Short,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Broken => io::Error::other("simulated input/output error"),
            Fault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"),
            Fault::Short => io::Error::new(io::ErrorKind::WriteZero, "simulated short write"),
            Fault::Quota => Errno::DQUOT.into(),
            Fault::Descriptors => Errno::MFILE.into(),
            Fault::DescriptorsOfSystem => Errno::NFILE.into(),
            Fault::Memory => Errno::NOMEM.into(),
        }
    }

    /// True when [`Faults::shortage`] lets `operation` on `path` fail this way: as on Linux, except for writes and
    /// syncs of logs. Where there is space such a write needs no other resource, and a log is offline after a failed
    /// one.
    #[must_use]
    pub fn hits(self, operation: Operation, path: &str) -> bool {
        let writes_log =
            matches!(operation, Operation::Write | Operation::Sync) && path.ends_with(".log");
        !writes_log && self.is_real_for(operation)
    }

    /// True when Linux fails such an operation this way.
    #[must_use]
    pub fn is_real_for(self, operation: Operation) -> bool {
        use Operation::{Directory, Map, Open, Read, SetLen, Write, Zero};
        match self {
            Fault::Broken => true,
            Fault::Short => operation == Write,
            // A file's blocks may be allocated as late as by its sync.
            Fault::NoSpace | Fault::Quota => !matches!(operation, Read | Map),
            // An open file needs none, except for a duplicate on another thread; a directory is opened to be synced.
            Fault::Descriptors | Fault::DescriptorsOfSystem => {
                matches!(operation, Open | Directory | SetLen | Zero | Read)
            }
            Fault::Memory => true,
        }
    }
}

/// A temporary lack: see [`Faults::shortage`].
struct Shortage {
    first: u64,
    count: u64,
    fault: Fault,
}

struct Script {
    operation: Operation,
    path_contains: String,
    skip: u32,
    fault: Fault,
}

/// The faults of one simulation; none by default.
#[derive(Default)]
pub struct Faults {
    scripts: Vec<Script>,
    chance_ppm: [u32; OPERATIONS],
    space_bytes: Option<u64>,
    /// Block size of the file system, if smaller than [`BLOCK_BYTES`].
    small_block_bytes: Option<u64>,
    /// A path prefix, the operation from which on every operation below it fails, and how.
    below: Option<(String, u64, Fault)>,
    /// Operations since the last [`Faults::shortage`] or [`Faults::begin_trace`].
    operations: u64,
    shortage: Option<Shortage>,
    trace: Option<Vec<(Operation, String)>>,
    /// Operations failed by the shortage.
    met: u64,
}

impl Faults {
    /// Lets one later `operation` on a path containing `path_contains` fail, after `skip` others of that kind.
    pub fn script(&mut self, operation: Operation, path_contains: &str, skip: u32, fault: Fault) {
        self.scripts.push(Script {
            operation,
            path_contains: path_contains.to_owned(),
            skip,
            fault,
        });
    }

    /// Lets this share of all operations of a kind fail with [`Fault::Broken`] (or, for writes, [`Fault::Short`]).
    pub fn chance(&mut self, operation: Operation, parts_per_million: u32) {
        self.chance_ppm[operation as usize] = parts_per_million;
    }

    /// Lets every operation on a path with this prefix fail with [`Fault::Broken`] from now on.
    pub fn break_below(&mut self, path: &str) {
        self.break_below_from(path, 0);
    }

    /// As [`Faults::break_below`], from operation `first` on, counted from now and 0.
    pub fn break_below_from(&mut self, path: &str, first: u64) {
        self.fail_below_from(path, first, Fault::Broken);
    }

    /// As [`Faults::break_below_from`], with `fault` for the operations it [may hit](Fault::hits): one of several
    /// file systems is full, say.
    pub fn fail_below_from(&mut self, path: &str, first: u64, fault: Fault) {
        (self.operations, self.met) = (0, 0);
        self.below = Some((path.to_owned(), first, fault));
    }

    /// Lets `count` of the operations from `first` on, counted from now and 0, fail with `fault`, among those it
    /// [may hit](Fault::hits).
    pub fn shortage(&mut self, first: u64, count: u64, fault: Fault) {
        (self.operations, self.met) = (0, 0);
        self.shortage = Some(Shortage {
            first,
            count,
            fault,
        });
    }

    /// The number of operations failed by the shortage.
    #[must_use]
    pub fn met(&self) -> u64 {
        self.met
    }

    /// Records the kind and path of every operation from now on.
    pub fn begin_trace(&mut self) {
        self.operations = 0;
        self.trace = Some(Vec::new());
    }

    /// The number of recorded operations.
    #[must_use]
    pub fn noted(&self) -> usize {
        self.trace.as_ref().map_or(0, Vec::len)
    }

    /// The recorded operations, in the order in which [`Faults::shortage`] counts.
    pub fn take_trace(&mut self) -> Vec<(Operation, String)> {
        self.trace.take().unwrap_or_default()
    }

    fn short_of(&mut self, operation: Operation, path: &str) -> Option<Fault> {
        let at = self.operations;
        self.operations += 1;
        if let Some(trace) = &mut self.trace {
            trace.push((operation, path.to_owned()));
        }
        let shortage = self.shortage.as_mut()?;
        let last = shortage.first.saturating_add(shortage.count);
        if at < shortage.first || at >= last {
            return None;
        }
        let befalls = shortage.fault.hits(operation, path);
        self.met += u64::from(befalls);
        befalls.then_some(shortage.fault)
    }

    /// Sets the size of the disk in bytes, counted in whole blocks per file; `None` is unlimited.
    pub fn set_space(&mut self, bytes: Option<u64>) {
        self.space_bytes = bytes;
    }

    /// Sets the file system's block size, below [`BLOCK_BYTES`]: a write after the end of a file then leaves a hole in
    /// between.
    pub fn set_block_bytes(&mut self, bytes: u64) {
        self.small_block_bytes = Some(bytes);
    }

    pub(super) fn block_bytes(&self) -> u64 {
        self.small_block_bytes.unwrap_or(BLOCK_BYTES as u64)
    }

    pub(super) fn space(&self) -> Option<u64> {
        self.space_bytes
    }

    /// Removes all faults and the disk's limit.
    pub fn clear(&mut self) {
        *self = Faults::default();
    }

    pub(super) fn draw(
        &mut self,
        random: &mut Random,
        operation: Operation,
        path: &Path,
    ) -> Option<Fault> {
        let path = path.to_string_lossy();
        let at = self.operations;
        let short = self.short_of(operation, &path);
        if let Some((below, first, fault)) = &self.below
            && at >= *first
            && path.starts_with(below)
            && (*fault == Fault::Broken || fault.hits(operation, &path))
        {
            self.met += 1;
            return Some(*fault);
        }
        if short.is_some() {
            return short;
        }
        let mut due = None;
        for (index, script) in self.scripts.iter_mut().enumerate() {
            if script.operation != operation || !path.contains(&script.path_contains) {
                continue;
            }
            if script.skip > 0 {
                script.skip -= 1;
            } else if due.is_none() {
                due = Some(index);
            }
        }
        if let Some(index) = due {
            return Some(self.scripts.remove(index).fault);
        }
        let ppm = self.chance_ppm[operation as usize];
        if ppm == 0 || !random.chance(ppm) {
            return None;
        }
        let short = operation == Operation::Write && random.chance(500_000);
        Some(if short { Fault::Short } else { Fault::Broken })
    }
}
