//! The contract of an open file: aligned writes, reads at any position, and durability.
//!
//! Owns the traits `File` and `BlockBuffer` and the block arithmetic. Implemented by `direct` and `simulated`; a
//! file lives on the shard that opened it. Never decides when to write or to sync: that is `append` and its
//! callers.

#![allow(async_fn_in_trait)] // See `world`: these futures never leave their shard.

use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Alignment of positions, lengths and memory of direct I/O, in bytes. 4096 fits every disk in use; devices with
/// 512-byte sectors accept it as well.
pub const BLOCK_BYTES: usize = 4096;

/// Longest single read given to the kernel, in bytes. A direct read of about 6 MB was seen to hang
/// uninterruptibly under glommio 0.9 (its issues 633 and 635).
pub const READ_PIECE_BYTES_MAX: usize = 512 * 1024;

/// The start of the block that `position` lies in.
#[must_use]
pub const fn block_floor(position: u64) -> u64 {
    position - position % BLOCK_BYTES as u64
}

/// The first block boundary at or after `position`, saturating at the last one.
#[must_use]
pub const fn block_ceiling(position: u64) -> u64 {
    match position.checked_add(BLOCK_BYTES as u64 - 1) {
        Some(sum) => block_floor(sum),
        None => block_floor(u64::MAX),
    }
}

/// Memory for a direct write: aligned, a whole number of blocks, content undefined until written.
pub trait BlockBuffer: 'static {
    /// All bytes of the buffer.
    fn as_slice(&self) -> &[u8];
    /// All bytes of the buffer, to be filled. The writer zeroes the padding: the memory is recycled, and old content
    /// would reach the disk.
    fn as_mut_slice(&mut self) -> &mut [u8];
    /// Shortens the buffer to `len` bytes, a multiple of [`BLOCK_BYTES`] not above its length.
    fn truncate(&mut self, len: usize);
}

/// The method of making space ahead of writes.
#[derive(Clone, Debug)]
pub enum Preparation {
    /// Zeros, at full speed: an append waits.
    ZeroNow,
    /// Zeros, a little at a time: at full speed they would delay small writes and their syncs by up to 10 ms. Turns to
    /// full speed when the flag is set, because an append waits after all, and while another file's space waits
    /// behind this one.
    ZeroGently(Arc<AtomicBool>),
    /// Blocks, allocated without being written.
    Allocate,
}

/// An open file. All methods take `&self`: several operations may be in flight, and two on the same bytes have no
/// order.
pub trait File: 'static {
    /// Memory for [`File::write_at`].
    type Buffer: BlockBuffer;

    /// A buffer of `capacity` bytes rounded up to whole blocks (at least one), from the executor's registered memory
    /// while that lasts. Its content is undefined.
    ///
    /// # Panics
    /// For a [`crate::World::resting_file`] before its first use.
    fn buffer(&self, capacity: usize) -> Self::Buffer;

    /// Writes the whole buffer at `position`, a multiple of [`BLOCK_BYTES`]. A short write is an
    /// error; after any error the bytes of that range are unknown.
    async fn write_at(&self, buffer: Self::Buffer, position: u64) -> io::Result<()>;

    /// Makes space for `[position, position + len)`, unwritten and ending with a block, that reads as zeros, and makes
    /// the file's new size durable. Bytes before the first whole block share a written block, unless the file system's
    /// own blocks are smaller than [`BLOCK_BYTES`]: then they may be a hole. Off the shard's core where it can be.
    /// `StorageFull` leaves the file usable, possibly longer than before.
    async fn prepare(&self, position: u64, len: u64, how: Preparation) -> io::Result<()>;

    /// Reads up to `len` bytes at any `position`, fewer only where the file ends.
    async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes>;

    /// Makes every write that completed before this call durable, and the file's length.
    async fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file; durable when it returns.
    async fn set_len(&self, len: u64) -> io::Result<()>;

    /// As [`File::set_len`], but durable only with the next [`crate::World::sync_file_system`]: until then a power cut
    /// may leave the length there was.
    async fn set_len_unsynced(&self, len: u64) -> io::Result<()>;

    /// Length in bytes, as this handle has read, written and set it: it assumes no other writer.
    fn len(&self) -> u64;

    /// True for a file without bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the file and waits for it. Dropping closes too, later.
    async fn close(self) -> io::Result<()>;
}
