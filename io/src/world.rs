//! The `World` trait: the only access to storage, time and randomness.
//!
//! Owns the contract only. `direct::DirectWorld` implements it with io_uring and the kernel's clocks,
//! `simulated::SimulatedWorld` with memory, a seed and virtual time; code generic over `W: World` is therefore
//! tested under power cuts and full disks. A world belongs to the shard it was made on and never crosses threads.
//! Never performs I/O itself.

// Futures of these traits stay on their shard; a `Send` bound would forbid the single-threaded sharing (`Rc`)
// that the design rests on.
#![allow(async_fn_in_trait)]

use crate::mapping::Mapping;
use crate::storage::File;
use bytes::Bytes;
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Access and creation of a file to open; [`OpenOptions`] has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    ReadWrite,
    /// Reading and writing; the file is created if missing, and its directory entry is durable when the call returns.
    /// The entry of an existing file is synced as well: the process that created it may have been killed before.
    ReadWriteCreate,
}

/// Options of opening a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Access and creation.
    pub mode: OpenMode,
    /// Every completed write is already durable (`O_DSYNC`).
    pub write_through: bool,
    /// True when [`OpenMode::ReadWriteCreate`] syncs the entry before it returns. To open several files of one
    /// directory, set `false` and finish with one [`World::sync_dir`].
    pub sync_entry: bool,
}

impl OpenOptions {
    /// The same options, every completed write durable.
    #[must_use]
    pub fn with_write_through(self) -> OpenOptions {
        OpenOptions {
            write_through: true,
            ..self
        }
    }

    /// The same options; the entry becomes durable only with the next [`World::sync_dir`].
    #[must_use]
    pub fn without_entry_sync(self) -> OpenOptions {
        OpenOptions {
            sync_entry: false,
            ..self
        }
    }
}

impl From<OpenMode> for OpenOptions {
    fn from(mode: OpenMode) -> OpenOptions {
        OpenOptions {
            mode,
            write_through: false,
            sync_entry: true,
        }
    }
}

/// One entry of a listed directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name without its directory; not necessarily UTF-8.
    pub name: OsString,
    /// True for a directory; everything else (links included) counts as a file.
    pub is_dir: bool,
    /// Length in bytes; 0 for directories.
    pub len: u64,
    /// Last change of the content, ns since the epoch. Not for measuring: another value means another content.
    pub modified_ns: i64,
}

/// Storage, clocks and randomness of one shard. Cheap to clone; clones are the same world.
///
/// Concurrent operations have no order: to order two, await the first. Paths are absolute. Every operation that
/// changes a directory is durable when it returns: the parent directory is synced as well (`fsync(2)`: syncing a
/// file does not sync its entry).
pub trait World: Clone + 'static {
    /// An open file of this world.
    type File: File;
    /// A mapped file of this world.
    type Mapping: Mapping;
    /// A pending sleep; dropping it cancels it.
    type Sleep: Future<Output = ()> + Unpin + 'static;

    /// Wall clock, milliseconds since 1970-01-01 UTC. May jump; never use it to measure.
    fn now_ms(&self) -> i64;

    /// Monotonic clock in nanoseconds, with one origin for all shards of a process.
    fn monotonic_ns(&self) -> u64;

    /// Sleeps until [`World::monotonic_ns`] has reached `deadline_ns`; at once if it has already.
    fn sleep_until(&self, deadline_ns: u64) -> Self::Sleep;

    /// Sleeps for `duration` from now.
    fn sleep_for(&self, duration: Duration) -> Self::Sleep {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sleep_until(self.monotonic_ns().saturating_add(duration_ns))
    }

    /// Ends a slice of work, so that other tasks run and I/O is polled. Long work calls it about every 100 µs: the
    /// executors never preempt by timer (see `executor`).
    fn pause(&self) -> impl Future<Output = ()>;

    /// Runs a long computation on a thread beside the shard, whose other tasks run meanwhile. Worth it from about
    /// 50 µs on, the time of the hop there and back.
    ///
    /// # Errors
    /// When no thread can be started.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T>;

    /// As [`World::compute`], for computations longer than some milliseconds (a large record through a codec, a
    /// checkpoint of all logs): they queue among themselves and delay no short one.
    async fn compute_long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T>;

    /// As [`World::compute_long`], with the shard as fallback where no thread can be started: slow, but done.
    async fn compute_surely<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let kept = Arc::new(Mutex::new(Some(work)));
        let handed = Arc::clone(&kept);
        let take =
            |kept: &Mutex<Option<_>>| kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let done = self.compute_long(move || take(&handed).map(|work| work()));
        match done.await {
            Ok(Some(result)) => result,
            _ => {
                let work = take(&kept).expect("work that ended without a result panicked");
                work()
            }
        }
    }

    /// 64 random bits: unpredictable in the real world, from the seed in the simulated one.
    fn random_u64(&self) -> u64;

    /// 128 random bits; see [`World::random_u64`].
    fn random_u128(&self) -> u128;

    /// Runs `task` on this shard until it ends. A panic in it ends the process with a clear line.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Creates `path` and its missing parents. No error if it exists already.
    async fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes `path` and everything below it. `NotFound` if there is no such directory.
    async fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory; an existing file at `to` is replaced atomically.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// As [`World::rename`], but durable only with the next [`World::sync_dir`] of the directory, which both names
    /// have to be in: one sync for thousands of names.
    async fn rename_unsynced(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. `NotFound` if it does not exist.
    async fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// A whole file. `FileTooLarge` above `max_bytes`, before anything is allocated.
    async fn read_file(&self, path: &Path, max_bytes: usize) -> io::Result<Bytes>;

    /// Replaces the content of `path`: after a crash it holds all of the old bytes or all of the new ones. Uses
    /// `<path>.tmp`, which a crash may leave behind.
    async fn write_file_atomic(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let content = Bytes::copy_from_slice(content);
        self.write_bytes_atomic(path, content).await
    }

    /// As [`World::write_file_atomic`], without a copy of `content`.
    async fn write_bytes_atomic(&self, path: &Path, content: Bytes) -> io::Result<()>;

    /// As [`World::write_file_atomic`], but durable only with the next [`World::sync_file_system`]: until then a power
    /// cut may leave either content, none, or a part. For files that can be rebuilt.
    async fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Makes the entries of a directory durable; only needed after
    /// [`OpenOptions::without_entry_sync`] and [`World::rename_unsynced`].
    async fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes all writes so far to the file system of `path` durable, by any process: one call after the end of a
    /// process, instead of one for each of its files.
    async fn sync_file_system(&self, path: &Path) -> io::Result<()>;

    /// The existing file at `path`, of `len` bytes by its directory entry; opened by its first use, so that an unused
    /// file costs neither time nor a descriptor. The first use fails if the file has changed in between.
    fn resting_file(&self, path: &Path, options: impl Into<OpenOptions>, len: u64) -> Self::File;

    /// Opens a file for block-aligned direct I/O.
    async fn open_file(
        &self,
        path: &Path,
        options: impl Into<OpenOptions>,
    ) -> io::Result<Self::File>;

    /// Creates `path`, which must not exist, with `len` bytes of zeros (at least one), written and durable, and maps
    /// it. Off the shard's core where it can be.
    ///
    /// # Errors
    /// `StorageFull`; `Unsupported` on a file system that may need new blocks to overwrite old bytes, where a full
    /// disk would end the process. The file is removed then.
    async fn create_mapping(&self, path: &Path, len: usize) -> io::Result<Self::Mapping>;

    /// An id of the time since the machine's last start: unsynced stores into a mapping survive while it stays the
    /// same.
    async fn boot_id(&self) -> io::Result<u128>;

    /// Bytes an unprivileged process can still write to the file system of `path`.
    async fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}
