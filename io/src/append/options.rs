//! Options of an `AppendFile`: its promise, method of syncing, and bounds of memory and zeroing.
//!
//! Owns numbers and their relations only. Never touches a file.

use crate::storage::BLOCK_BYTES;

/// When a write counts as completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// The kernel has taken the bytes: they survive the process, and a power cut only after
    /// [`super::AppendFile::take_sync`].
    None,
    /// The bytes are on stable storage.
    Data,
}

/// How [`SyncMode::Data`] is reached. Both are equally safe; which is cheaper depends on the load
/// (see `examples/append_sync.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// The file is opened with `O_DSYNC`: one request to the kernel does both. Cheaper at low and
    /// middle rates.
    WriteThrough,
    /// Write, then `fdatasync`: one sync for all buffers of a job.
    SyncAfterWrite,
}

/// Options of an [`super::AppendFile`]; all sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    /// The promise of a completed write.
    pub sync: SyncMode,
    /// The method that keeps the promise.
    pub method: SyncMethod,
    /// The valid bytes are durable already (a clean shutdown said so), so that opening needs no sync.
    pub known_durable: bool,
    /// First chunk zeroed ahead; at least a block, whole blocks.
    pub zero_ahead_bytes_min: u64,
    /// Largest chunk zeroed ahead; chunks grow with the file.
    pub zero_ahead_bytes_max: u64,
    /// Position (a segment's size) beyond which nothing is zeroed ahead, except by [`super::AppendFile::reserve`].
    pub zero_until: u64,
    /// Mean size of a file's writes from which its space is allocated instead of zeroed.
    pub allocate_from_write_bytes: u64,
    /// Bytes that may wait while a write is in flight. A single append above this is accepted when nothing waits.
    pub pending_bytes_max: u64,
    /// Size of the first buffer after rest; whole blocks.
    pub buffer_bytes_min: usize,
    /// Size of the largest single write; whole blocks.
    pub buffer_bytes_max: usize,
}

impl Default for AppendOptions {
    fn default() -> AppendOptions {
        AppendOptions {
            sync: SyncMode::Data,
            method: SyncMethod::WriteThrough,
            known_durable: false,
            zero_ahead_bytes_min: 64 << 10,
            zero_ahead_bytes_max: 16 << 20,
            zero_until: u64::MAX,
            allocate_from_write_bytes: 64 << 10,
            pending_bytes_max: 8 << 20,
            buffer_bytes_min: 16 << 10,
            buffer_bytes_max: 512 << 10,
        }
    }
}

impl AppendOptions {
    /// True when the file must be opened with [`crate::OpenOptions::write_through`].
    #[must_use]
    pub fn writes_through(&self) -> bool {
        self.sync == SyncMode::Data && self.method == SyncMethod::WriteThrough
    }

    pub(super) fn syncs_after_write(&self) -> bool {
        self.sync == SyncMode::Data && self.method == SyncMethod::SyncAfterWrite
    }

    pub(super) fn assert_sound(&self) {
        let block = BLOCK_BYTES as u64;
        assert!(
            self.zero_ahead_bytes_min >= block && self.zero_ahead_bytes_min.is_multiple_of(block)
        );
        assert!(self.zero_ahead_bytes_max >= self.zero_ahead_bytes_min);
        assert!(self.zero_ahead_bytes_max.is_multiple_of(block));
        assert!(
            self.buffer_bytes_min >= BLOCK_BYTES
                && self.buffer_bytes_min.is_multiple_of(BLOCK_BYTES)
        );
        assert!(self.buffer_bytes_max >= self.buffer_bytes_min);
        assert!(self.buffer_bytes_max.is_multiple_of(BLOCK_BYTES));
        assert!(self.pending_bytes_max > 0);
    }
}
