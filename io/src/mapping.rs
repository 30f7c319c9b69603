//! The contract of a mapped file: memory that outlives the process because it is a file's content.
//!
//! Owns the trait `Mapping`. Implemented by `direct` and `simulated`; a mapping lives on the shard
//! that made it. What has been stored stays when the process ends, whatever ends it; after a power
//! cut any part of it may be there or not. Never reads: the next start reads the file.

use std::io;

/// A file's bytes as memory to store into; see the module's text.
///
/// The kernel keeps exactly the stores a killed process had made, in the order it made them.
pub trait Mapping: 'static {
    /// Length in bytes; never changes.
    fn len(&self) -> usize;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings `[at, at + len)` into memory, so that stores there wait for nothing and cannot fail.
    /// Some 100 ns a page the first time, less later. To be called shortly before the stores, for
    /// the kernel may put pages away again.
    ///
    /// # Errors
    /// Where a store would end the process: the file's device has failed, or a copy-on-write file
    /// system is full. Nothing may be stored there then.
    ///
    /// # Panics
    /// If the range passes the end: the caller's mistake.
    fn prepare(&mut self, at: usize, len: usize) -> io::Result<()>;

    /// Stores bytes.
    ///
    /// # Panics
    /// If they pass the end: the caller's mistake.
    fn store(&mut self, at: usize, bytes: &[u8]);

    /// Stores one word, little-endian, at once and after everything stored before.
    ///
    /// # Panics
    /// If `at` is no multiple of 8, or passes the end: the caller's mistake.
    fn publish(&mut self, at: usize, word: u64);
}
