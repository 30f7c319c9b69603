//! What goes wrong in a simulation: faults by script and by chance, and the size of the disk.
//!
//! Owns the plan only; `disk` and `world` carry it out. Never decides without the seed.

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
    /// An input/output error. A write may have reached the disk in part; after a failed sync the
    /// unsynced data may be gone although it still reads back, and no later sync brings it back,
    /// which is how Linux behaves.
    Broken,
    /// No space left on the device.
    NoSpace,
    /// The owner's share of the disk is used up.
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

    /// Whether [`Faults::shortage`] lets such an operation on this path fail so: what Linux may say, but
    /// for writes and syncs of logs. Whoever writes where there is space needs nothing more, and a log
    /// that fails at them is lost until a restart.
    #[must_use]
    pub fn may_befall(self, operation: Operation, path: &str) -> bool {
        let writes_log =
            matches!(operation, Operation::Write | Operation::Sync) && path.ends_with(".log");
        !writes_log && self.may_be_told_of(operation)
    }

    /// Whether Linux fails such an operation so.
    #[must_use]
    pub fn may_be_told_of(self, operation: Operation) -> bool {
        use Operation::{Directory, Map, Open, Read, SetLen, Write, Zero};
        match self {
            Fault::Broken => true,
            Fault::Short => operation == Write,
            // A file's blocks may be found as late as by its sync.
            Fault::NoSpace | Fault::Quota => !matches!(operation, Read | Map),
            // An open file needs none, but for a descriptor of its own on another thread; a directory
            // is opened to be synced.
            Fault::Descriptors | Fault::DescriptorsOfSystem => {
                matches!(operation, Open | Directory | SetLen | Zero | Read)
            }
            Fault::Memory => true,
        }
    }
}

/// Failures that pass: see [`Faults::shortage`].
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

/// The faults of one simulation; nothing fails unless asked for.
#[derive(Default)]
pub struct Faults {
    scripts: Vec<Script>,
    chance_ppm: [u32; OPERATIONS],
    space_bytes: Option<u64>,
    /// Bytes of the file system's blocks, if they are smaller than [`BLOCK_BYTES`].
    small_block_bytes: Option<u64>,
    /// A path, the operation from which on what begins with it fails, and how.
    below: Option<(String, u64, Fault)>,
    /// Operations since the last [`Faults::shortage`] or [`Faults::begin_trace`].
    operations: u64,
    shortage: Option<Shortage>,
    trace: Option<Vec<(Operation, String)>>,
    /// How often the shortage was met.
    met: u64,
}

impl Faults {
    /// Lets one coming `operation` on a path containing `path_contains` fail, after letting `skip`
    /// such operations pass.
    pub fn script(&mut self, operation: Operation, path_contains: &str, skip: u32, fault: Fault) {
        self.scripts.push(Script {
            operation,
            path_contains: path_contains.to_owned(),
            skip,
            fault,
        });
    }

    /// Lets this share of all operations of a kind fail with [`Fault::Broken`] (or, for writes,
    /// [`Fault::Short`]).
    pub fn chance(&mut self, operation: Operation, parts_per_million: u32) {
        self.chance_ppm[operation as usize] = parts_per_million;
    }

    /// From now on every operation on a path that begins with this one fails with [`Fault::Broken`].
    pub fn break_below(&mut self, path: &str) {
        self.break_below_from(path, 0);
    }

    /// As [`Faults::break_below`], from an operation on that is counted from now on, from 0.
    pub fn break_below_from(&mut self, path: &str, first: u64) {
        self.fail_below_from(path, first, Fault::Broken);
    }

    /// As [`Faults::break_below_from`], with this fault where it may befall an operation
    /// ([`Fault::may_befall`]): one of several file systems is full.
    pub fn fail_below_from(&mut self, path: &str, first: u64, fault: Fault) {
        (self.operations, self.met) = (0, 0);
        self.below = Some((path.to_owned(), first, fault));
    }

    /// Of the operations from now on, counted from 0, those from `first` on fail with `fault` where
    /// that may befall them ([`Fault::may_befall`]), `count` of them.
    pub fn shortage(&mut self, first: u64, count: u64, fault: Fault) {
        (self.operations, self.met) = (0, 0);
        self.shortage = Some(Shortage {
            first,
            count,
            fault,
        });
    }

    /// How many operations failed for the shortage.
    #[must_use]
    pub fn met(&self) -> u64 {
        self.met
    }

    /// From now on the kinds of all operations, and their paths, are noted.
    pub fn begin_trace(&mut self) {
        self.operations = 0;
        self.trace = Some(Vec::new());
    }

    /// How many were noted.
    #[must_use]
    pub fn noted(&self) -> usize {
        self.trace.as_ref().map_or(0, Vec::len)
    }

    /// What was noted, in the order in which [`Faults::shortage`] counts.
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
        let befalls = shortage.fault.may_befall(operation, path);
        self.met += u64::from(befalls);
        befalls.then_some(shortage.fault)
    }

    /// Size of the disk in bytes, counted in whole blocks per file; `None` is endless.
    pub fn set_space(&mut self, bytes: Option<u64>) {
        self.space_bytes = bytes;
    }

    /// Lets the file system have blocks of so many bytes, fewer than [`BLOCK_BYTES`]: what lies between
    /// the end of a file and a write behind it is a hole then.
    pub fn set_block_bytes(&mut self, bytes: u64) {
        self.small_block_bytes = Some(bytes);
    }

    pub(super) fn block_bytes(&self) -> u64 {
        self.small_block_bytes.unwrap_or(BLOCK_BYTES as u64)
    }

    pub(super) fn space(&self) -> Option<u64> {
        self.space_bytes
    }

    /// Nothing fails any more, and the disk is endless.
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
            && (*fault == Fault::Broken || fault.may_befall(operation, &path))
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
