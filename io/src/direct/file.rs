//! `DirectFile`: an open file for block-aligned direct I/O through io_uring.
//!
//! Owns the file's length and its place among the shard's open files (`open_files`), where it may be closed
//! between two uses. Lives on the shard that opened it. Reads are split into bounded pieces and clamped to the
//! known length, because glommio returns too much at an unaligned end and hangs in very long reads. Large reads,
//! cutting and zeroing run on the helper threads.

use super::open_files::{InUse, OpenPermit, Slot};
use super::reading::LARGE_BYTES;
use super::{DirectWorld, OPENING_TRIES, Opened, names, plain};
use crate::open_names::Name;
use crate::storage::{
    BLOCK_BYTES, BlockBuffer, File, Preparation, READ_PIECE_BYTES_MAX, block_ceiling, block_floor,
};
use crate::world::{OpenMode, OpenOptions};
use bytes::{BufMut, Bytes, BytesMut};
use glommio::io::DmaBuffer;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Zeros written by one system call, in bytes.
const ZERO_PIECE_BYTES: usize = 1 << 20;

/// As [`ZERO_PIECE_BYTES`], slowly, and the pause after each: 16 MiB take 60 ms.
const GENTLE_PIECE_BYTES: usize = 128 << 10;
const GENTLE_REST: Duration = Duration::from_micros(300);

/// Aligned zeros, shared by all shards: only ever read.
fn zeros() -> &'static [u8] {
    static ZEROS: OnceLock<Vec<u8>> = OnceLock::new();
    let memory = ZEROS.get_or_init(|| vec![0; ZERO_PIECE_BYTES + BLOCK_BYTES]);
    let skip = memory.as_ptr().align_offset(BLOCK_BYTES);
    &memory[skip..skip + ZERO_PIECE_BYTES]
}

/// A file of a [`DirectWorld`]; each use opens it if it is closed.
pub struct DirectFile {
    world: DirectWorld,
    slot: Rc<Slot>,
    options: OpenOptions,
    len: Cell<u64>,
}

impl DirectFile {
    /// Opens a file of the shard's share.
    pub(super) async fn open(
        world: DirectWorld,
        path: PathBuf,
        options: OpenOptions,
    ) -> io::Result<DirectFile> {
        let file = DirectFile::resting(world, path, options, 0);
        let files = &file.world.inner.files;
        let permit = files.permit().await;
        let path = file.slot.name.path().ok_or(io::ErrorKind::NotFound)?;
        let opened = file.world.open_dma(&path, options, OPENING_TRIES).await?;
        file.len.set(opened.len);
        drop(file.keep(opened, permit));
        Ok(file)
    }

    pub(super) fn resting(
        world: DirectWorld,
        path: PathBuf,
        options: OpenOptions,
        len: u64,
    ) -> DirectFile {
        DirectFile {
            world,
            slot: Slot::new(Name::new(path)),
            options,
            len: Cell::new(len),
        }
    }

    /// Registers the opened file; its name is followed from its first opening on.
    fn keep<'a>(&'a self, opened: Opened, permit: OpenPermit<'a>) -> InUse<'a> {
        let files = &self.world.inner.files;
        if self.slot.identity.replace(Some(opened.identity)).is_none() {
            files.names.follow(&self.slot.name);
        }
        files.put(&self.slot, opened.file, permit)
    }

    /// The file, opened if it is closed.
    async fn file(&self) -> io::Result<InUse<'_>> {
        match self.world.inner.files.get(&self.slot) {
            Some(file) => Ok(file),
            None => self.open_again().await,
        }
    }

    /// Opens a file that rests, or was closed to free a descriptor.
    async fn open_again(&self) -> io::Result<InUse<'_>> {
        let files = &self.world.inner.files;
        let permit = files.permit().await;
        loop {
            if let Some(file) = files.get(&self.slot) {
                return Ok(file); // Another use was faster.
            }
            let renames = files.renamed();
            let path = self.slot.name.path().ok_or(io::ErrorKind::NotFound)?;
            let (mut options, mut tries) = (self.options, OPENING_TRIES);
            if self.slot.identity.get().is_some() {
                // An acknowledged promise must not fail because the file was closed.
                tries = u32::MAX;
                if options.mode == OpenMode::ReadWriteCreate {
                    options.mode = OpenMode::ReadWrite;
                }
            }
            let opened = match self.world.open_dma(&path, options, tries).await {
                Ok(opened) => opened,
                Err(error) => {
                    if error.kind() == io::ErrorKind::NotFound && files.settle(renames).await {
                        continue; // Renamed in between.
                    }
                    return Err(error);
                }
            };
            if let Some(file) = files.get(&self.slot) {
                opened.close().await;
                return Ok(file);
            }
            if let Err(error) = self.check(&path, &opened) {
                opened.close().await;
                if files.settle(renames).await {
                    continue;
                }
                return Err(error);
            }
            return Ok(self.keep(opened, permit));
        }
    }

    /// Checks that the opened file is the expected one: of the length its directory named, or the one open before.
    fn check(&self, path: &Path, opened: &Opened) -> io::Result<()> {
        let (len, expected, path) = (opened.len, self.len.get(), path.display());
        let what = match self.slot.identity.get() {
            None if len != expected => format!("{path} has {len} bytes, not {expected}"),
            Some(identity) if identity != opened.identity => {
                format!("{path} is another file than it was")
            }
            _ => return Ok(()),
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// A descriptor for a helper thread, which may outlive this file.
    async fn duplicate(&self) -> io::Result<OwnedFd> {
        let duplicate = async || {
            let file = self.file().await?;
            // SAFETY: the descriptor is open as long as `file`, which outlives this statement.
            let borrowed = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
            borrowed.try_clone_to_owned()
        };
        self.world.with_retries(u32::MAX, duplicate).await
    }

    /// Cuts or extends the file on a helper thread, then does `after` there.
    async fn cut(
        &self,
        len: u64,
        after: impl Fn(&std::fs::File) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let _file = self.file().await?;
        let _permit = self.world.inner.space_permits.take().await;
        let file = std::fs::File::from(self.duplicate().await?);
        let path = self.slot.name.path().unwrap_or_default();
        let cut = self.world.on_names(&path, move || {
            file.set_len(len)?;
            after(&file)
        });
        cut.await?;
        self.len.set(len);
        Ok(())
    }

    /// Reads one aligned piece, at most [`READ_PIECE_BYTES_MAX`] long, and appends its part of `[position, end)`.
    async fn read_piece(&self, position: u64, end: u64, into: &mut BytesMut) -> io::Result<usize> {
        let start = block_floor(position);
        let stop = block_ceiling(end).min(start + READ_PIECE_BYTES_MAX as u64);
        let _io = self.world.begin_io();
        let piece = self
            .file()
            .await?
            .read_at_aligned(start, (stop - start) as usize)
            .await;
        let piece = piece.map_err(plain)?;
        let skip = (position - start) as usize;
        let wanted = (end.min(stop) - position) as usize;
        let got = piece.get(skip..).unwrap_or_default();
        let count = got.len().min(wanted);
        into.put_slice(&got[..count]);
        Ok(count)
    }
}

impl File for DirectFile {
    type Buffer = DirectBuffer;

    fn buffer(&self, capacity: usize) -> DirectBuffer {
        let used = self.slot.identity.get().is_some();
        assert!(used, "a resting file is used before it is written to");
        let bytes = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        DirectBuffer(glommio::allocate_dma_buffer(bytes))
    }

    async fn write_at(&self, buffer: DirectBuffer, position: u64) -> io::Result<()> {
        let len = buffer.0.len();
        debug_assert!(
            position.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES)
        );
        let _io = self.world.begin_io();
        let written = self
            .file()
            .await?
            .write_at(buffer.0, position)
            .await
            .map_err(plain)?;
        if written != len {
            let message = format!("{written} of {len} bytes were written");
            return Err(io::Error::new(io::ErrorKind::WriteZero, message));
        }
        self.len.set(self.len.get().max(position + len as u64));
        Ok(())
    }

    async fn prepare(&self, position: u64, len: u64, how: Preparation) -> io::Result<()> {
        debug_assert!((position + len).is_multiple_of(BLOCK_BYTES as u64));
        // Stays open meanwhile.
        let _file = self.file().await?;
        // Each holds one more descriptor while it waits for the helper.
        let permits = match how {
            Preparation::ZeroGently(_) => &self.world.inner.zeroing_permits,
            Preparation::ZeroNow | Preparation::Allocate => &self.world.inner.space_permits,
        };
        let _permit = permits.take().await;
        let descriptor = self.duplicate().await?;
        let write_through = self.options.write_through;
        let _io = self.world.begin_io();
        let inner = &self.world.inner;
        let helper = match how {
            Preparation::ZeroGently(_) => &inner.zeros,
            Preparation::ZeroNow | Preparation::Allocate => &inner.space,
        };
        let queued = Arc::clone(&inner.preparing);
        queued.fetch_add(1, Ordering::Relaxed);
        let job = move || {
            let range = position..position + len;
            let prepared = prepare(descriptor, write_through, range, &how, &queued);
            queued.fetch_sub(1, Ordering::Relaxed);
            prepared
        };
        let prepared = helper.run(job).await;
        if prepared.is_ok() {
            self.len.set(self.len.get().max(position + len));
        }
        prepared
    }

    async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let end = position.saturating_add(len as u64).min(self.len.get());
        if position >= end {
            return Ok(Bytes::new());
        }
        if end - position >= LARGE_BYTES as u64 {
            let _file = self.file().await?;
            let _permit = self.world.inner.read_permits.take().await;
            let descriptor = self.duplicate().await?;
            let _io = self.world.begin_io();
            let readers = &self.world.inner.readers;
            return readers.read(descriptor, position, end).await;
        }
        // Bounded by the file's own length.
        let mut bytes = BytesMut::with_capacity((end - position) as usize);
        let mut at = position;
        while at < end {
            let count = self.read_piece(at, end, &mut bytes).await?;
            if count == 0 {
                break; // Cut from outside the broker: fewer bytes are the true answer.
            }
            at += count as u64;
        }
        Ok(bytes.freeze())
    }

    async fn sync_data(&self) -> io::Result<()> {
        let _io = self.world.begin_io();
        let file = self.file().await?;
        file.fdatasync().await.map_err(plain)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let sync = |file: &std::fs::File| {
            // Whatever its error: a failed sync must not look like a shortage that passes.
            file.sync_all().map_err(io::Error::other)
        };
        self.cut(len, sync).await
    }

    async fn set_len_unsynced(&self, len: u64) -> io::Result<()> {
        self.cut(len, |_| Ok(())).await
    }

    fn len(&self) -> u64 {
        self.len.get()
    }

    async fn close(self) -> io::Result<()> {
        let _io = self.world.begin_io();
        match self.world.inner.files.take(&self.slot) {
            Some((file, _room)) => file.close().await.map_err(plain),
            None => Ok(()),
        }
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        let files = &self.world.inner.files;
        files.names.forget(&self.slot.name);
        drop(files.take(&self.slot));
    }
}

/// On a helper thread. A descriptor opened with `O_DSYNC` would sync after every piece, so the work is done
/// through a plain one and synced once.
fn prepare(
    descriptor: OwnedFd,
    write_through: bool,
    range: Range<u64>,
    how: &Preparation,
    queued: &AtomicUsize,
) -> io::Result<()> {
    let plain = if write_through {
        let path = names::descriptor_path(descriptor.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        // Some file systems (tmpfs) have no direct I/O; the slower way is right as well.
        rustix::fs::open(path, flags, Mode::empty()).unwrap_or(descriptor)
    } else {
        descriptor
    };
    let whole = block_ceiling(range.start).min(range.end)..range.end;
    // Zeros cannot be written directly into a part of a block.
    allocate(&plain, range.start..whole.start)?;
    let range = whole;
    match how {
        Preparation::Allocate => {
            // Not every file system can allocate.
            if !allocate(&plain, range.clone())? {
                write_zeros(&plain, range, || false)?;
            }
        }
        Preparation::ZeroNow => write_zeros(&plain, range, || false)?,
        Preparation::ZeroGently(hurry) => write_zeros(&plain, range, || {
            !hurry.load(Ordering::Relaxed) && queued.load(Ordering::Relaxed) <= 1
        })?,
    }
    rustix::fs::fdatasync(&plain)?;
    Ok(())
}

/// Allocates the range's blocks; false where the file system cannot.
fn allocate(file: &OwnedFd, range: Range<u64>) -> io::Result<bool> {
    if range.is_empty() {
        return Ok(true);
    }
    let none = FallocateFlags::empty();
    match rustix::fs::fallocate(file, none, range.start, range.end - range.start) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(file: &OwnedFd, range: Range<u64>, is_gentle: impl Fn() -> bool) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let gentle = is_gentle();
        let piece_bytes = match gentle {
            true => GENTLE_PIECE_BYTES,
            false => ZERO_PIECE_BYTES,
        };
        let piece = usize::try_from(range.end - at)
            .unwrap_or(usize::MAX)
            .min(piece_bytes);
        match rustix::io::pwrite(file, &zeros()[..piece], at) {
            // Short where the disk is full; the next call fails.
            Ok(count) if count >= BLOCK_BYTES => at += block_floor(count as u64),
            Ok(_) => return Err(io::ErrorKind::StorageFull.into()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if gentle && at < range.end {
            std::thread::sleep(GENTLE_REST);
        }
    }
    Ok(())
}

/// Memory for direct writes, from the executor's registered region while that lasts.
pub struct DirectBuffer(DmaBuffer);

impl BlockBuffer for DirectBuffer {
    fn as_slice(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }

    fn truncate(&mut self, len: usize) {
        assert!(len.is_multiple_of(BLOCK_BYTES) && len <= self.0.len());
        self.0.trim_to_size(len);
    }
}
