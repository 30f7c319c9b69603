//! Large reads: helper threads read straight into memory that any core may hold and drop.
//!
//! glommio's own buffers belong to their shard, so bytes that leave the shard would be copied out of them: a
//! fifth of the broker's time for consumers of old records. Two threads for each shard, asleep without work,
//! keep two pieces in flight, enough for a fast disk. Small reads stay with io_uring, where a hop to a thread
//! would cost more than the copy.

use super::blocking::Helper;
use crate::storage::{BLOCK_BYTES, block_ceiling, block_floor};
use bytes::Bytes;
use futures_util::future::join_all;
use rustix::io::Errno;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// Reads from this length on are large, bytes.
pub(super) const LARGE_BYTES: usize = 128 << 10;

/// Length of the pieces read concurrently, bytes.
const PIECE_BYTES: usize = 512 << 10;

/// The threads of one shard.
pub(super) struct Readers {
    helpers: [Helper; 2],
    next: Cell<usize>,
}

impl Readers {
    pub(super) fn new(shard: usize) -> Readers {
        Readers {
            helpers: [0, 1].map(|number| Helper::new(format!("reads-{shard}-{number}"))),
            next: Cell::new(0),
        }
    }

    /// Reads `[position, end)`, or less where the file ends.
    pub(super) async fn read(&self, file: OwnedFd, position: u64, end: u64) -> io::Result<Bytes> {
        let start = block_floor(position);
        let length = to_usize(block_ceiling(end) - start)?;
        let (file, memory) = (Arc::new(file), Arc::new(Memory::new(length)));
        let pieces = (0..length).step_by(PIECE_BYTES).map(|at| {
            let (file, memory) = (Arc::clone(&file), Arc::clone(&memory));
            let piece_bytes = PIECE_BYTES.min(length - at);
            self.next.set(self.next.get() + 1);
            self.helpers[self.next.get() % self.helpers.len()].run(move || {
                // SAFETY: the pieces of a read do not overlap, each is filled by one job, and the memory is read only after
                // all of them have ended.
                let piece = unsafe { memory.piece(at, piece_bytes) };
                fill(&file, start + at as u64, piece)
            })
        });
        let mut filled = 0;
        for (number, count) in join_all(pieces).await.into_iter().enumerate() {
            let count = count?;
            // After a short piece the file has ended.
            if filled == number * PIECE_BYTES {
                filled += count;
            }
        }
        let skip = to_usize(position - start)?;
        let wanted = to_usize(end - start)?.min(filled);
        let read = Filled {
            memory,
            bytes: wanted,
        };
        Ok(Bytes::from_owner(read).slice(skip.min(wanted)..))
    }
}

fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Reads until `piece` is full or the file ends; returns the bytes read.
fn fill(file: &OwnedFd, position: u64, piece: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match rustix::io::pread(file.as_fd(), &mut piece[filled..], position + filled as u64) {
            Ok(([], _)) => break,
            // A read that ends within a block has met the end of the file.
            Ok((read, _)) if !read.len().is_multiple_of(BLOCK_BYTES) => {
                return Ok(filled + read.len());
            }
            Ok((read, _)) => filled += read.len(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Block-aligned memory of one read.
struct Memory {
    bytes: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory with one owner at a time: jobs write to separate pieces, and it is read only
// after all of them have ended.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Panics
    /// If `length` is 0: the caller's mistake.
    fn new(length: usize) -> Memory {
        assert!(length > 0, "a read of nothing");
        let layout =
            Layout::from_size_align(length, BLOCK_BYTES).expect("far below half the memory");
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        let bytes = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        Memory { bytes, layout }
    }

    /// # Safety
    /// No other reference to these bytes may exist as long as the returned one does.
    #[expect(
        clippy::mut_from_ref,
        reason = "pieces do not overlap: see the callers"
    )]
    unsafe fn piece(&self, at: usize, length: usize) -> &mut [MaybeUninit<u8>] {
        assert!(at + length <= self.layout.size(), "a piece of this memory");
        // SAFETY: within the allocation by the check above, alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr().add(at).cast(), length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and given up here only.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) }
    }
}

/// Memory with its first bytes read.
struct Filled {
    memory: Arc<Memory>,
    bytes: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the kernel has filled the first `bytes` bytes, and all jobs have ended.
        unsafe { std::slice::from_raw_parts(self.memory.bytes.as_ptr(), self.bytes) }
    }
}
