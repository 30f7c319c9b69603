//! The contract of an open file: aligned writes, reads at any position, and when bytes are safe.
//!
//! Owns the traits `File` and `BlockBuffer` and the block arithmetic. Implemented by `direct` and
//! `simulated`; a file lives on the shard that opened it. Never decides when to write or to sync:
//! that is `append` and its callers.

#![allow(async_fn_in_trait)] // See `world`: these futures never leave their shard.

use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Unit of alignment for positions, lengths and memory of direct I/O, in bytes. 4096 fits every
/// disk in use; devices with 512-byte sectors accept it as well.
pub const BLOCK_BYTES: usize = 4096;

/// Longest single read given to the kernel, in bytes. A direct read of about 6 MB was seen to hang
/// uninterruptibly under glommio 0.9 (its issues 633 and 635).
pub const READ_PIECE_BYTES_MAX: usize = 512 * 1024;

/// The start of the block that `position` lies in.
#[must_use]
pub const fn block_floor(position: u64) -> u64 {
    position - position % BLOCK_BYTES as u64
}

/// The first block boundary at or after `position`, saturating at the last one there is.
#[must_use]
pub const fn block_ceiling(position: u64) -> u64 {
    match position.checked_add(BLOCK_BYTES as u64 - 1) {
        Some(sum) => block_floor(sum),
        None => block_floor(u64::MAX),
    }
}

/// Memory a direct write can start from: aligned, a whole number of blocks, content undefined
/// until written.
pub trait BlockBuffer: 'static {
    /// All bytes of the buffer.
    fn as_slice(&self) -> &[u8];
    /// All bytes of the buffer, to be filled. Padding must be zeroed by whoever fills it: the
    /// memory is recycled and what is left in it would reach the disk.
    fn as_mut_slice(&mut self) -> &mut [u8];
    /// Shortens the buffer to `len` bytes, a multiple of [`BLOCK_BYTES`] not above its length.
    fn truncate(&mut self, len: usize);
}

/// How space ahead of the writes is made.
#[derive(Clone, Debug)]
pub enum Preparation {
    /// Zeros are written, as fast as it goes: somebody waits.
    ZeroNow,
    /// Zeros are written a little at a time: at once they would stand in the way of small writes
    /// and of their syncs for as long as 10 ms. From when somebody waits after all, and says so
    /// here, it goes as fast as it can; also while another file's space waits behind this one.
    ZeroGently(Arc<AtomicBool>),
    /// Blocks are allocated without being written.
    Allocate,
}

/// An open file. All methods take `&self`: several operations may be in flight, and two that touch
/// the same bytes are in no order.
pub trait File: 'static {
    /// Memory for [`File::write_at`].
    type Buffer: BlockBuffer;

    /// A buffer of `capacity` bytes rounded up to whole blocks (at least one), from the executor's
    /// registered memory while that lasts. Its content is undefined.
    ///
    /// # Panics
    /// For a [`crate::World::resting_file`] that has not been used before.
    fn buffer(&self, capacity: usize) -> Self::Buffer;

    /// Writes the whole buffer at `position`, a multiple of [`BLOCK_BYTES`]. A short write is an
    /// error; after any error the bytes of that range are unknown.
    async fn write_at(&self, buffer: Self::Buffer, position: u64) -> io::Result<()>;

    /// Makes space for `[position, position + len)`, not written before and ending with a block, that
    /// reads as zeros, and makes the file's new size durable. What comes before the first whole block is
    /// in one that is written already, but where the file system's own blocks are smaller than
    /// [`BLOCK_BYTES`]: there that may be a hole. Works in the background, off the
    /// shard's core where it can. `StorageFull` leaves the file usable, possibly longer than before.
    async fn prepare(&self, position: u64, len: u64, how: Preparation) -> io::Result<()>;

    /// Reads up to `len` bytes at any `position`, fewer only where the file ends.
    async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes>;

    /// Makes every write that has completed before this call durable, and the file's length.
    async fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file; durable when it returns.
    async fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes, as this handle has read, written and set it: nobody else changes the file.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the file and waits for it. Dropping closes too, but some time later.
    async fn close(self) -> io::Result<()>;
}
