//! What goes wrong in a simulation: faults by script and by chance, and the size of the disk.
//!
//! Owns the plan only; `disk` and `world` carry it out. Never decides without the seed.

use super::random::Random;
use std::io;
use std::path::Path;

/// Kinds of storage operations that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writing buffers.
    Write,
    /// Zeroing ahead.
    Zero,
    /// Reading, also of whole files.
    Read,
    /// Making data durable.
    Sync,
    /// Cutting and extending.
    SetLen,
    /// Opening and creating.
    Open,
    /// Creating, renaming, removing, listing and syncing directory entries.
    Directory,
    /// Bringing pages of a mapping into memory.
    Map,
}

const OPERATIONS: usize = 8;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An input/output error. A write may have reached the disk in part; after a failed sync the
    /// unsynced data may be gone although it still reads back, and no later sync brings it back,
    /// which is how Linux behaves.
    Broken,
    /// No space left on the device.
    NoSpace,
    /// A write that stops in the middle.
    Short,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Broken => io::Error::other("simulated input/output error"),
            Fault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"),
            Fault::Short => io::Error::new(io::ErrorKind::WriteZero, "simulated short write"),
        }
    }
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
    broken: Option<String>,
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
        self.broken = Some(path.to_owned());
    }

    /// Size of the disk in bytes, counted in whole blocks per file; `None` is endless.
    pub fn set_space(&mut self, bytes: Option<u64>) {
        self.space_bytes = bytes;
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
        if self
            .broken
            .as_ref()
            .is_some_and(|broken| path.starts_with(broken))
        {
            return Some(Fault::Broken);
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
