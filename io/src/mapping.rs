//! The contract of a mapped file: memory that outlives the process because it is a file's content.
//!
//! Owns the trait `Mapping`, implemented by `direct` and `simulated`; a mapping lives on the shard that made it.
//! Stores survive the end of the process, however it ends; a power cut may lose any part of them. Never reads:
//! the next start reads the file.

use std::io;

/// A file's bytes as memory to store into; see the module.
///
/// After a kill the file holds exactly the stores made, in their order.
pub trait Mapping: 'static {
    /// Length in bytes; never changes.
    fn len(&self) -> usize;

    /// True for a mapping without bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings `[at, at + len)` into memory, so that stores there neither wait nor fail. Some 100 ns a page the first
    /// time, less later. Call it shortly before the stores, since the kernel may evict pages again.
    ///
    /// # Errors
    /// Where a store would end the process: the file's device has failed, or a copy-on-write file system is full.
    /// Store nothing there then.
    ///
    /// # Panics
    /// If the range passes the end: the caller's mistake.
    fn prepare(&mut self, at: usize, len: usize) -> io::Result<()>;

    /// Stores bytes.
    ///
    /// # Panics
    /// If they pass the end: the caller's mistake.
    fn store(&mut self, at: usize, bytes: &[u8]);

    /// Stores one word, little-endian, atomically and after all earlier stores.
    ///
    /// # Panics
    /// If `at` is no multiple of 8, or passes the end: the caller's mistake.
    fn publish(&mut self, at: usize, word: u64);
}
