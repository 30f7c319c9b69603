//! The real twin: files through io_uring direct I/O, directories through a helper thread, the
//! kernel's clocks and random numbers.
//!
//! Owns everything a shard has of the outside world. A `DirectWorld` lives on the glommio executor
//! of one shard. Never blocks that shard: what has no io_uring form goes to the shard's own helper
//! threads (see `blocking`).

mod blocking;
mod file;
mod mapping;
mod names;
mod reading;
mod tasks;
#[cfg(test)]
mod tests;

pub use file::{DirectBuffer, DirectFile};
pub use mapping::DirectMapping;

use crate::watchdog::{ShardWork, Watchdog};
use crate::world::{DirEntry, OpenMode, OpenOptions, World};
use blocking::Helper;
use bytes::Bytes;
use glommio::io::DmaFile;
use glommio::timer::Timer;
use reading::Readers;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tasks::{Tasks, Turns};

/// The shortest sleep that lets the executor empty its queue and poll for I/O; shorter ones end
/// at once (measured with glommio 0.9).
const PAUSE: Duration = Duration::from_micros(1);

/// Files of a shard whose space is being made, or waits for the helper, at a time.
const PREPARING_MAX: usize = 128;

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
    /// Directories, opening, cutting: short jobs in the order asked.
    names: Helper,
    /// Space that somebody waits for.
    space: Helper,
    /// Zeroing ahead that takes its time.
    zeros: Helper,
    /// What would keep the shard from its other tasks.
    computations: Helper,
    /// Large reads.
    readers: Readers,
    /// For making space that somebody waits for.
    turns: Turns,
    /// For zeroing ahead.
    gentle_turns: Turns,
    /// Files whose space is being made or waits for that.
    preparing: Arc<AtomicUsize>,
    /// Devices for which glommio has been shown a file that makes it judge polling rightly.
    devices: RefCell<BTreeMap<u64, Judgement>>,
    work: ShardWork,
    tasks: Tasks,
}

/// The world of one shard on a real machine; made by [`crate::executor::run`].
#[derive(Clone)]
pub struct DirectWorld {
    inner: Rc<Inner>,
}

impl DirectWorld {
    /// The world of shard `shard`; `origin` is where the process's monotonic clock begins.
    pub(crate) fn new(shard: usize, origin: Instant, watchdog: &Arc<Watchdog>) -> DirectWorld {
        DirectWorld {
            inner: Rc::new(Inner {
                shard,
                origin,
                entropy: RefCell::new(Entropy {
                    bytes: [0; ENTROPY_BYTES],
                    used: ENTROPY_BYTES,
                }),
                names: Helper::new(format!("names-{shard}")),
                space: Helper::new(format!("space-{shard}")),
                zeros: Helper::new(format!("zeros-{shard}")),
                computations: Helper::new(format!("compute-{shard}")),
                readers: Readers::new(shard),
                turns: Turns::new(PREPARING_MAX),
                gentle_turns: Turns::new(PREPARING_MAX),
                preparing: Arc::default(),
                devices: RefCell::new(BTreeMap::new()),
                work: Watchdog::shard(watchdog, shard),
                tasks: Tasks::default(),
            }),
        }
    }

    /// Ends the shard: drops every task that is left, so that what they own is given up in order
    /// (connections close, callers on other shards learn that nobody will answer). glommio would
    /// keep them for ever, woken by nobody.
    pub(crate) async fn end(&self) {
        self.inner.tasks.end();
        for _ in 0..2 {
            // glommio closes dropped files with its next pass through the kernel.
            self.pause().await;
        }
    }

    /// Marks I/O as under way, so that the watchdog expects this shard to come back for it.
    pub(crate) fn begin_io(&self) -> IoUnderWay<'_> {
        self.inner.work.begin_io();
        IoUnderWay(&self.inner.work)
    }

    /// Runs `work` on the shard's helper thread for names.
    async fn on_helper<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let _io = self.begin_io();
        self.inner.names.run(work).await
    }

    /// Opens a file for direct I/O; gives its length as well.
    async fn open_dma(&self, path: &Path, options: OpenOptions) -> io::Result<(DmaFile, u64)> {
        let owned = path.to_owned();
        let (descriptor, len, device) =
            self.on_helper(move || names::open(&owned, options)).await?;
        if let Some(dir) = path.parent() {
            self.judge_device(device, dir).await;
        }
        let mut how = glommio::io::OpenOptions::new();
        how.read(true).write(options.mode != OpenMode::Read);
        if options.write_through {
            how.custom_flags(rustix::fs::OFlags::DSYNC.bits().cast_signed());
        }
        // Through the descriptor, not the path: glommio looks the path up three times, and a
        // rename in between would give it another file or a panic.
        let opened = {
            let _io = self.begin_io();
            how.dma_open(names::descriptor_path(descriptor.as_raw_fd()))
                .await
        };
        let file = opened.map_err(io::Error::from)?;
        drop(descriptor);
        Ok((file, len))
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

    /// Shows glommio a written file of the device before the first real one. It decides by the
    /// first file a thread opens whether the device can be polled, and takes an empty or sparse one
    /// for yes: every write then spins for milliseconds.
    async fn judge_device(&self, device: u64, dir: &Path) {
        let first = poll_fn(|context| {
            let mut devices = self.inner.devices.borrow_mut();
            match devices.get_mut(&device) {
                None => {
                    devices.insert(device, Judgement::Running(Vec::new()));
                    Poll::Ready(true)
                }
                Some(Judgement::Done) => Poll::Ready(false),
                Some(Judgement::Running(waiting)) => {
                    waiting.push(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        if !first.await {
            return;
        }
        let ending = JudgementEnd {
            world: self,
            device,
        };
        if let Err(error) = self.show_written_file(dir).await {
            // Reading a directory that cannot be written is fine; it may only cost more CPU.
            tracing::warn!(dir = %dir.display(), %error, "the device's polling was not judged");
        }
        drop(ending);
    }

    async fn show_written_file(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        let probe = self.on_helper(move || names::written_probe(&dir)).await?;
        let path = names::descriptor_path(probe.as_raw_fd());
        let opened = glommio::io::OpenOptions::new()
            .read(true)
            .dma_open(path)
            .await;
        opened
            .map_err(io::Error::from)?
            .close()
            .await
            .map_err(io::Error::from)
    }
}

/// Whether glommio has judged a device.
enum Judgement {
    /// Under way; these wait for it.
    Running(Vec<Waker>),
    Done,
}

/// Lets those who wait go on, also when the one who judges is dropped.
struct JudgementEnd<'a> {
    world: &'a DirectWorld,
    device: u64,
}

impl Drop for JudgementEnd<'_> {
    fn drop(&mut self) {
        let before = self
            .world
            .inner
            .devices
            .borrow_mut()
            .insert(self.device, Judgement::Done);
        if let Some(Judgement::Running(waiting)) = before {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// Ends with the operation it stands for.
pub(crate) struct IoUnderWay<'a>(&'a ShardWork);

impl Drop for IoUnderWay<'_> {
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

/// Polls `future` until it ends; a panic ends the process. A shard whose task is gone would hold
/// its partitions without serving them, and its neighbours would wait for it for ever.
pub(crate) async fn or_abort<T>(shard: usize, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            crate::executor::abort(&format!("shard {shard}: a task panicked (see above)"))
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
        // A deadline at the end of time means never; the timer wheel need not hold 584 years.
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

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.on_helper(move || names::create_dir_all(&path)).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.on_helper(move || names::remove_dir_all(&path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.on_helper(move || names::rename(&from, &to)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.on_helper(move || names::remove_file(&path)).await
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        self.on_helper(move || names::list_dir(&path)).await
    }

    async fn read_file(&self, path: &Path, max_bytes: usize) -> io::Result<Bytes> {
        let path = path.to_owned();
        self.on_helper(move || names::read_file(&path, max_bytes))
            .await
    }

    async fn write_bytes_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let path = path.to_owned();
        self.on_helper(move || names::write_file_atomic(&path, &content))
            .await
    }

    async fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let (path, content) = (path.to_owned(), content.to_vec());
        self.on_helper(move || names::replace_file(&path, &content))
            .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.on_helper(move || names::sync_dir(&path)).await
    }

    async fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.on_helper(move || names::sync_file_system(&path)).await
    }

    fn resting_file(&self, path: &Path, options: impl Into<OpenOptions>, len: u64) -> DirectFile {
        DirectFile::resting(self.clone(), path.to_owned(), options.into(), len)
    }

    async fn open_file(
        &self,
        path: &Path,
        options: impl Into<OpenOptions>,
    ) -> io::Result<DirectFile> {
        let options = options.into();
        let (file, len) = self.open_dma(path, options).await?;
        Ok(DirectFile::new(self.clone(), file, len, options))
    }

    async fn create_mapping(&self, path: &Path, len: usize) -> io::Result<DirectMapping> {
        let path = path.to_owned();
        let _io = self.begin_io();
        let create = move || DirectMapping::create(&path, len);
        self.inner.space.run(create).await
    }

    async fn boot_id(&self) -> io::Result<u128> {
        self.on_helper(names::boot_id).await
    }

    async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let path = path.to_owned();
        self.on_helper(move || {
            let status = rustix::fs::statvfs(&path)?;
            Ok(status.f_bavail.saturating_mul(status.f_frsize))
        })
        .await
    }
}
