//! `SimulatedMapping`: a simulated file's bytes as memory.
//!
//! A store changes the file's sectors, which the kernel might write back at any time: the end of the process keeps
//! all of it, a power cut any version of each sector. Never syncs.

use super::Core;
use super::fault::Operation;
use crate::mapping::Mapping;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// A mapped file of a [`super::SimulatedWorld`].
pub struct SimulatedMapping {
    pub(super) core: Rc<Core>,
    pub(super) inode: u64,
    pub(super) path: PathBuf,
    pub(super) len: usize,
}

impl SimulatedMapping {
    fn check(&self, at: usize, len: usize) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside,
            "{len} bytes at {at} pass the mapping's end {}",
            self.len
        );
    }
}

impl Mapping for SimulatedMapping {
    fn len(&self) -> usize {
        self.len
    }

    fn prepare(&mut self, at: usize, len: usize) -> io::Result<()> {
        self.check(at, len);
        match self.core.fault(Operation::Map, &self.path) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        self.core
            .disk(|disk| disk.inode(self.inode).store(at, bytes));
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(
            at.is_multiple_of(size_of::<u64>()),
            "{at} is no place for a word"
        );
        self.store(at, &word.to_le_bytes());
    }
}
