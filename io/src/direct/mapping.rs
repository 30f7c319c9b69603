//! `DirectMapping`: a file of page cache mapped into this process.
//!
//! Owns the mapped memory and creates its file. A store into a mapped file ends the process (SIGBUS) where the
//! kernel finds no block for it, so the file is written in full before it is mapped, and only on file systems
//! that overwrite in place. Lives on its shard; the writing runs on a helper thread. Never unmaps memory that can
//! still be reached.

use crate::mapping::Mapping;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Zeros written by one system call, in bytes.
const ZERO_PIECE_BYTES: usize = 256 << 10;

/// Bytes at the front that are brought into memory at once.
const FRONT_BYTES: usize = 2 << 20;

/// File systems that overwrite a written block in place (`statfs(2)`): ext2 to ext4, xfs, tmpfs. Others (btrfs,
/// zfs, f2fs, overlays over them) allocate a new block for each write and can find none.
const IN_PLACE: [u64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// Creates `path`, which must not exist, with `len` written zeros, durable with its entry. On a helper thread.
/// Removes the file on failure.
fn create(path: &Path, len: usize) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    let filled = fill(&file, len).and_then(|()| super::names::sync_parent(path));
    if let Err(error) = filled {
        if let Err(left) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %left, "a file that could not be filled stays");
        }
        return Err(error);
    }
    Ok(file)
}

fn fill(file: &OwnedFd, len: usize) -> io::Result<()> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    if !u64::try_from(kind).is_ok_and(|kind| IN_PLACE.contains(&kind)) {
        let message = format!("file system type {kind:#x} may need new blocks for old bytes");
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    let zeros = vec![0; ZERO_PIECE_BYTES.min(len)];
    let mut at = 0;
    while at < len {
        let piece = &zeros[..zeros.len().min(len - at)];
        match rustix::io::pwrite(file, piece, at as u64) {
            Ok(0) => return Err(io::ErrorKind::StorageFull.into()),
            Ok(count) => at += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // With delayed allocation only this shows that there are blocks.
    rustix::fs::fsync(file)?;
    Ok(())
}

/// A file mapped by [`crate::World::create_mapping`].
pub struct DirectMapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value alone, and the kernel does not mind which thread uses it.
unsafe impl Send for DirectMapping {}

impl DirectMapping {
    /// Creates `path` with `len` zeros and maps it. On a helper thread, which also takes the front's first faults:
    /// each may wait for the file system's journal.
    pub(super) fn create(path: &Path, len: usize) -> io::Result<DirectMapping> {
        let file = create(path, len)?;
        let mut mapping = DirectMapping::over(&file, len)?;
        mapping.prepare(0, len.min(FRONT_BYTES))?;
        Ok(mapping)
    }

    fn over(file: &OwnedFd, len: usize) -> io::Result<DirectMapping> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so no memory of this program is replaced.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                access,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(DirectMapping { start, len })
    }

    /// The memory of `[at, at + len)`.
    fn range(&self, at: usize, len: usize) -> *mut u8 {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside,
            "{len} bytes at {at} pass the mapping's end {}",
            self.len
        );
        // SAFETY: `at` lies within the mapping, as was just checked.
        unsafe { self.start.as_ptr().add(at) }
    }
}

impl Mapping for DirectMapping {
    fn len(&self) -> usize {
        self.len
    }

    fn prepare(&mut self, at: usize, len: usize) -> io::Result<()> {
        let page = rustix::param::page_size();
        let first = at - at % page;
        let end = at.saturating_add(len).next_multiple_of(page).min(self.len);
        let start = self.range(first, end - first).cast::<c_void>();
        // SAFETY: the range lies within the mapping; populating changes no byte of it.
        let advised =
            unsafe { rustix::mm::madvise(start, end - first, Advice::LinuxPopulateWrite) };
        match advised {
            // Before Linux 5.14 there is no such advice; the blocks are there all the same.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        let target = self.range(at, bytes.len());
        // SAFETY: the target lies within the mapping, which only this value writes to (`&mut self`) and no reader exists
        // in this process; `bytes` is other memory, for no reference into the mapping is given out.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(
            at.is_multiple_of(size_of::<u64>()),
            "{at} is no place for a word"
        );
        let target = self.range(at, size_of::<u64>()).cast::<u64>();
        // SAFETY: the target lies within the mapping, which begins at a page, and is a multiple of
        // eight behind that; only this value writes to it.
        let target = unsafe { AtomicU64::from_ptr(target) };
        // Earlier stores stay before this one, in the compiler and on the core.
        target.store(word.to_le(), Ordering::Release);
    }
}

impl Drop for DirectMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this place and length, and no pointer into it is left.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "a mapping stays until the process ends");
        }
    }
}
