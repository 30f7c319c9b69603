//! The real world: files through io_uring direct I/O, directories through helper threads, the kernel's clocks and
//! random numbers.
//!
//! Owns a shard's open files, helper threads and tasks. A `DirectWorld` lives on the glommio executor of one
//! shard. Never blocks that shard: an operation without an io_uring form goes to a helper thread (see
//! `blocking`).

mod blocking;
mod file;
mod mapping;
mod name_order;
mod names;
mod open_files;
mod polling_probe;
mod reading;
mod removing;
mod semaphore;
mod tasks;
#[cfg(test)]
mod tests;

pub use file::{DirectBuffer, DirectFile};
pub use mapping::DirectMapping;

use crate::descriptors::is_out_of_descriptors;
use crate::watchdog::{ShardWork, Watchdog};
use crate::world::{DirEntry, OpenMode, OpenOptions, World};
use blocking::Helper;
use bytes::Bytes;
use glommio::GlommioError;
use glommio::io::DmaFile;
use glommio::timer::Timer;
use name_order::NameOrder;
use open_files::{Identity, OpenFiles};
use polling_probe::Devices;
use reading::Readers;
use semaphore::Semaphore;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tasks::Tasks;

/// The shortest sleep that lets the executor empty its queue and poll for I/O; shorter ones end at once
/// (measured with glommio 0.9).
const PAUSE: Duration = Duration::from_micros(1);

/// Files of a shard whose space is being made, or waits for the helper, at a time.
const PREPARING_MAX: usize = 128;

/// Attempts to open a file while the kernel gives no descriptor: some 3 s in all.
const OPENING_TRIES: u32 = 14;

/// Files that glommio opens at a time: it looks up each one's file system on the shard's core (`statfs`), 0.1 to
/// 0.25 ms, and those that are ready together are opened in one slice. The helper thread names them one by one anyway.
const OPENING_MAX: usize = 32;

/// Bounds of the pause between two attempts.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Descriptors that helper threads hold besides the open files, for each of three kinds of work: one in so many
/// of the shard's, at most [`PREPARING_MAX`].
const BESIDE_PART: usize = 8;

/// Random bytes fetched from the kernel at a time.
const ENTROPY_BYTES: usize = 256;

struct Entropy {
    bytes: [u8; ENTROPY_BYTES],
    used: usize,
}

pub(crate) struct Inner {
    shard: usize,
    origin: Instant,
    entropy: RefCell<Entropy>,
    /// Directories, opening, cutting: short jobs, in turns by directory.
    names: Helper,
    /// Long jobs: removing files, syncing a file system.
    removals: Helper,
    /// The order of operations on the same names, on all threads.
    name_order: NameOrder,
    /// Making space that an append waits for.
    space: Helper,
    /// Zeroing ahead, slowly.
    zeros: Helper,
    /// Computations too long for the shard.
    computations: Helper,
    /// Computations that would delay the others.
    long_computations: Helper,
    /// Large reads.
    readers: Readers,
    /// The files that are open.
    files: OpenFiles,
    /// Bounds making space that an append waits for, and cutting.
    space_permits: Semaphore,
    /// For zeroing ahead.
    zeroing_permits: Semaphore,
    /// For large reads.
    read_permits: Semaphore,
    /// For opening, within the shard.
    opening_permits: Semaphore,
    /// The number of files whose space is being made or queued.
    preparing: Arc<AtomicUsize>,
    devices: Devices,
    work: ShardWork,
    tasks: Tasks,
}

/// The world of one shard on a real machine; created by [`crate::executor::run`].
#[derive(Clone)]
pub struct DirectWorld {
    inner: Rc<Inner>,
}

impl DirectWorld {
    /// The world of shard `shard`, whose files may hold `files_max` descriptors; `origin` is zero on the process's
    /// monotonic clock.
    pub(crate) fn new(
        shard: usize,
        descriptors: usize,
        origin: Instant,
        watchdog: &Arc<Watchdog>,
    ) -> DirectWorld {
        let beside = (descriptors / BESIDE_PART).clamp(1, PREPARING_MAX);
        DirectWorld {
            inner: Rc::new(Inner {
                shard,
                origin,
                entropy: RefCell::new(Entropy {
                    bytes: [0; ENTROPY_BYTES],
                    used: ENTROPY_BYTES,
                }),
                names: Helper::new(format!("names-{shard}")),
                removals: Helper::new(format!("removals-{shard}")),
                name_order: NameOrder::default(),
                space: Helper::new(format!("space-{shard}")),
                zeros: Helper::new(format!("zeros-{shard}")),
                computations: Helper::new(format!("compute-{shard}")),
                long_computations: Helper::new(format!("compute-long-{shard}")),
                readers: Readers::new(shard),
                files: OpenFiles::new(shard, descriptors.saturating_sub(3 * beside)),
                space_permits: Semaphore::new(beside),
                zeroing_permits: Semaphore::new(beside),
                read_permits: Semaphore::new(beside),
                opening_permits: Semaphore::new(OPENING_MAX),
                preparing: Arc::default(),
                devices: Devices::default(),
                work: Watchdog::shard(watchdog, shard),
                tasks: Tasks::default(),
            }),
        }
    }

    /// The shard's number.
    pub(crate) fn shard(&self) -> usize {
        self.inner.shard
    }

    /// Ends the shard: drops every remaining task, so that connections close and callers on other shards see their
    /// calls lost. glommio would keep the tasks for ever.
    pub(crate) async fn end(&self) {
        self.inner.tasks.end();
        for _ in 0..2 {
            // glommio closes dropped files with its next pass through the kernel.
            self.pause().await;
        }
    }

    /// Marks an I/O operation in flight, for the watchdog.
    pub(crate) fn begin_io(&self) -> IoInFlight<'_> {
        self.inner.work.begin_io();
        IoInFlight(&self.inner.work)
    }

    /// Runs `work` on the helper thread for names, in turns with other directories than that of `path`; again while
    /// there are no descriptors, since it has done nothing then.
    async fn on_names<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<T> {
        self.on(&self.inner.names, directory_number(path), work)
            .await
    }

    /// As [`DirectWorld::on_names`], for work that changes or finds `path`: in the order asked, see [`NameOrder`].
    async fn in_order<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<T> {
        let _entered = self.inner.name_order.enter(&[path]).await;
        self.on_names(path, work).await
    }

    /// Renames on a helper thread as `work` does, and lets the files that are open follow.
    async fn rename_with<T: Send + 'static>(
        &self,
        from: &Path,
        to: &Path,
        work: impl Fn(&Path, &Path) -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<T> {
        let files = &self.inner.files;
        let _entered = self.inner.name_order.enter(&[from, to]).await;
        let _renaming = files.renaming(from);
        let (old, new) = (from.to_owned(), to.to_owned());
        let renamed = self.on_names(from, move || work(&old, &new)).await?;
        files.removed(to);
        files.names.renamed(from, to);
        Ok(renamed)
    }

    /// Runs the repeatable `work` on a helper thread, in the queue of `of`.
    async fn on<T: Send + 'static>(
        &self,
        helper: &Helper,
        of: u64,
        work: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<T> {
        let work = Arc::new(work);
        let attempt = async || {
            let _io = self.begin_io();
            let work = Arc::clone(&work);
            helper.run_for(of, move || work()).await
        };
        self.with_retries(OPENING_TRIES, attempt).await
    }

    /// Repeats `attempt` while the kernel gives no descriptor or memory, at most `tries` times.
    async fn with_retries<T>(
        &self,
        tries: u32,
        mut attempt: impl AsyncFnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let (mut left, mut rest) = (tries, RETRY_MIN);
        loop {
            left -= 1;
            match attempt().await {
                Err(error) if left > 0 && error.kind() == io::ErrorKind::OutOfMemory => {
                    self.sleep_for(rest).await;
                    rest = (rest * 2).min(RETRY_MAX);
                }
                Err(error) if left > 0 && is_out_of_descriptors(&error) => {
                    let now_ns = self.monotonic_ns();
                    self.inner.files.close_idle(&error, now_ns).await;
                    self.sleep_for(rest).await;
                    rest = (rest * 2).min(RETRY_MAX);
                }
                outcome => {
                    if outcome.is_ok() {
                        self.inner.files.descriptor_given(|| self.monotonic_ns());
                    }
                    return outcome;
                }
            }
        }
    }

    /// Opens a file for direct I/O in at most `tries` attempts.
    async fn open_dma(&self, path: &Path, options: OpenOptions, tries: u32) -> io::Result<Opened> {
        self.with_retries(tries, async || self.try_open(path, options).await)
            .await
    }

    async fn try_open(&self, path: &Path, options: OpenOptions) -> io::Result<Opened> {
        let owned = path.to_owned();
        let named = {
            let order = &self.inner.name_order;
            let _entered = match options.mode {
                OpenMode::ReadWriteCreate => Some(order.enter(&[path]).await),
                OpenMode::Read | OpenMode::ReadWrite => {
                    order.follow(path).await;
                    None
                }
            };
            let _io = self.begin_io();
            let open = move || names::open(&owned, options);
            let directory = directory_number(path);
            self.inner.names.run_for(directory, open).await?
        };
        let device = named.identity.0;
        if let Some(dir) = path.parent() {
            self.probe_polling(device, dir).await?;
        }
        let mut how = glommio::io::OpenOptions::new();
        how.read(true).write(options.mode != OpenMode::Read);
        if options.write_through {
            how.custom_flags(rustix::fs::OFlags::DSYNC.bits().cast_signed());
        }
        let opened = self.open_descriptor(device, &how, named.descriptor.as_raw_fd());
        let file = opened.await?;
        Ok(Opened {
            file,
            len: named.len,
            identity: named.identity,
        })
    }

    fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut entropy = self.inner.entropy.borrow_mut();
        if entropy.used + N > ENTROPY_BYTES {
            // Up to 256 bytes come whole and uninterrupted, see getrandom(2).
            rustix::rand::getrandom(
                &mut entropy.bytes[..],
                rustix::rand::GetRandomFlags::empty(),
            )
            .expect("the kernel gives random numbers once it has booted");
            entropy.used = 0;
        }
        let used = entropy.used;
        entropy.used += N;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&entropy.bytes[used..used + N]);
        entropy.bytes[used..used + N].fill(0); // Given out once.
        bytes
    }
}

/// A number that stands for the directory of `path`.
fn directory_number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.parent().hash(&mut hasher);
    hasher.finish()
}

/// A file just opened.
struct Opened {
    file: DmaFile,
    /// Bytes.
    len: u64,
    identity: Identity,
}

impl Opened {
    /// Closes the file unused.
    async fn close(self) {
        if let Err(error) = self.file.close().await {
            tracing::warn!(error = %plain(error), "closing a file");
        }
    }
}

/// The kernel's error with its number, which glommio's conversion drops.
fn plain(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

/// In flight until dropped.
pub(crate) struct IoInFlight<'a>(&'a ShardWork);

impl Drop for IoInFlight<'_> {
    fn drop(&mut self) {
        self.0.end_io();
    }
}

/// A timer of the shard's executor, started by its first poll.
pub struct DirectSleep {
    wait: Duration,
    timer: Option<Timer>,
}

impl Future for DirectSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let wait = self.wait;
        if wait.is_zero() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Timer::new(wait));
        Pin::new(timer).poll(context).map(|_| ())
    }
}

/// Polls `future` to its end; a panic ends the process. A shard without its main task would hold its partitions
/// without serving them, and other shards would wait for it for ever.
pub(crate) async fn or_abort<T>(shard: usize, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            crate::fatal::abort(&format!("shard {shard}: a task panicked (see above)"))
        })
    })
    .await
}

impl World for DirectWorld {
    type File = DirectFile;
    type Mapping = DirectMapping;
    type Sleep = DirectSleep;

    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.inner.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, deadline_ns: u64) -> DirectSleep {
        let wait_ns = deadline_ns.saturating_sub(self.monotonic_ns());
        // A deadline beyond ten years means never; the timer wheel need not hold 584 years.
        let wait = Duration::from_nanos(wait_ns).min(Duration::from_secs(10 * 365 * 86_400));
        DirectSleep { wait, timer: None }
    }

    async fn pause(&self) {
        Timer::new(PAUSE).await;
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let _io = self.begin_io();
        self.inner.computations.run(move || Ok(work())).await
    }

    fn random_u64(&self) -> u64 {
        u64::from_ne_bytes(self.random_bytes())
    }

    fn random_u128(&self) -> u128 {
        u128::from_ne_bytes(self.random_bytes())
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = self.inner.tasks.add(task);
        glommio::spawn_local(or_abort(self.inner.shard, task)).detach();
    }

    async fn compute_long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let _io = self.begin_io();
        self.inner.long_computations.run(move || Ok(work())).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let owned = path.to_owned();
        self.in_order(path, move || names::create_dir_all(&owned))
            .await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.remove_directory(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_with(from, to, names::rename).await?
    }

    async fn rename_unsynced(&self, from: &Path, to: &Path) -> io::Result<()> {
        let rename = |from: &Path, to: &Path| std::fs::rename(from, to);
        self.rename_with(from, to, rename).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.remove_one(path).await
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let owned = path.to_owned();
        self.on_names(path, move || names::list_dir(&owned)).await
    }

    async fn read_file(&self, path: &Path, max_bytes: usize) -> io::Result<Bytes> {
        let owned = path.to_owned();
        self.in_order(path, move || names::read_file(&owned, max_bytes))
            .await
    }

    async fn write_bytes_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let owned = path.to_owned();
        self.in_order(path, move || names::write_file_atomic(&owned, &content))
            .await
    }

    async fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let (owned, content) = (path.to_owned(), content.to_vec());
        self.in_order(path, move || names::replace_file(&owned, &content))
            .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let owned = path.to_owned();
        self.on_names(path, move || names::sync_dir(&owned)).await
    }

    async fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let sync = move || names::sync_file_system(&path);
        self.on(&self.inner.removals, 0, sync).await
    }

    fn resting_file(&self, path: &Path, options: impl Into<OpenOptions>, len: u64) -> DirectFile {
        DirectFile::resting(self.clone(), path.to_owned(), options.into(), len)
    }

    async fn open_file(
        &self,
        path: &Path,
        options: impl Into<OpenOptions>,
    ) -> io::Result<DirectFile> {
        DirectFile::open(self.clone(), path.to_owned(), options.into()).await
    }

    async fn create_mapping(&self, path: &Path, len: usize) -> io::Result<DirectMapping> {
        let _entered = self.inner.name_order.enter(&[path]).await;
        let path = path.to_owned();
        let _io = self.begin_io();
        let create = move || DirectMapping::create(&path, len);
        self.inner.space.run(create).await
    }

    async fn boot_id(&self) -> io::Result<u128> {
        self.on_names(Path::new("/proc"), names::boot_id).await
    }

    async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let owned = path.to_owned();
        self.on_names(path, move || {
            let status = rustix::fs::statvfs(&owned)?;
            Ok(status.f_bavail.saturating_mul(status.f_frsize))
        })
        .await
    }
}
