//! One glommio executor per core: placement, start, end, and how it must be built.
//!
//! Owns the recipe that keeps glommio 0.9 from its worst fault, parking with runnable tasks: a preemption timer
//! too long to fire, no latency goal on any task queue, slices of long work ended by `World::pause`, and a
//! watchdog behind them. Ends the process when a shard dies. Never runs broker code itself.

use crate::descriptors::Shares;
use crate::direct::{DirectWorld, or_abort};
use crate::fatal::abort;
use crate::mesh::{Endpoint, Mesh, MeshOptions, Remote, WakeObserver};
use crate::watchdog::{self, KICKS, ShardEnd, Watchdog};
use futures_io::AsyncRead;
use glommio::{
    ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement, net::UnixStream,
};
use rustix::thread::CpuSet;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Longer than any stall: preemption by timer makes glommio park with work.
const PREEMPT_TIMER: Duration = Duration::from_secs(60);

/// Number, placement and memory of the executors.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// Number of shards, at least 1; may exceed the number of cores.
    pub shards: usize,
    /// Cores to use, see [`allowed_cpus`]; shards go round robin.
    pub cpus: Vec<usize>,
    /// Bind each shard to its core; otherwise the kernel moves them as it likes.
    pub pin: bool,
    /// Registered memory per shard for direct I/O, in bytes; glommio locks up to three times this.
    /// Buffers beyond it are plain memory and cost more CPU.
    pub io_memory_bytes: usize,
    /// Bounds of the mesh between the shards.
    pub mesh: MeshOptions,
    /// The division of the process's descriptors.
    pub descriptors: Shares,
}

impl ExecutorOptions {
    /// `shards` shards on the cores this process may use.
    ///
    /// # Errors
    /// If the kernel does not name those cores.
    pub fn new(shards: usize) -> io::Result<ExecutorOptions> {
        Ok(ExecutorOptions {
            shards,
            cpus: allowed_cpus()?,
            pin: true,
            io_memory_bytes: 4 << 20,
            mesh: MeshOptions::default(),
            descriptors: Shares::of_process(shards),
        })
    }
}

/// The cores this process may run on, in ascending order.
///
/// # Errors
/// Those of `sched_getaffinity(2)`.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect())
}

/// A shard's number, world and end of the mesh.
pub struct ShardSeat<Request, Reply> {
    /// Number of this shard, from 0.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
    /// Storage, time and randomness.
    pub world: DirectWorld,
    /// The way to the other shards; [`Endpoint::serve`] has to run for it to work.
    pub endpoint: Endpoint<Request, Reply>,
}

/// Executors at work.
#[must_use = "join it, or the shards outlive their owner"]
pub struct Running<Request, Reply> {
    shards: Vec<ExecutorJoinHandle<io::Result<()>>>,
    remote: Remote<Request, Reply>,
    watchdog: watchdog::Running,
}

/// Starts one executor per shard, each running `main` to its end. The process ends with a clear line if a shard
/// panics or its thread dies. When `main` returns, its shard's remaining tasks are dropped.
///
/// # Errors
/// If an executor cannot be built: no io_uring, too little lockable memory (see `preflight`). No
/// `main` has run then.
///
/// # Panics
/// If there are no shards or no cores.
pub fn run<Request, Reply, Main, Run>(
    options: ExecutorOptions,
    main: Main,
) -> io::Result<Running<Request, Reply>>
where
    Request: Send + 'static,
    Reply: Send + 'static,
    Main: Fn(ShardSeat<Request, Reply>) -> Run + Clone + Send + 'static,
    Run: Future<Output = io::Result<()>> + 'static,
{
    assert!(options.shards > 0 && !options.cpus.is_empty());
    crate::log_bridge::install();
    if let Err(error) = crate::memory::take_small_pages() {
        tracing::debug!(%error, "memory comes in pages of any size");
    }
    crate::cpus::remember(rustix::thread::sched_getaffinity(None)?);
    let origin = Instant::now();
    let count = options.shards;
    let files_max = options.descriptors.files_per_shard;
    let watchdog = Watchdog::new(count);
    let observer: Arc<dyn WakeObserver> = Arc::<Watchdog>::clone(&watchdog);
    let mesh = Mesh::with_observer(count, options.mesh, Some(observer));
    let running = Watchdog::start(&watchdog)?;
    let mut shards = Vec::with_capacity(count);
    let mut gates: Vec<Sender<()>> = Vec::with_capacity(count);
    for index in 0..count {
        let (mesh, watchdog, main) = (mesh.clone(), Arc::clone(&watchdog), main.clone());
        let (built, is_built) = channel::<()>();
        let (gate, opened) = channel::<()>();
        let shard = move || async move {
            // The starter has gone only if it has failed, and then the gate stays shut.
            let _ = built.send(());
            // The starter is gone only after a failure, and then the gate stays shut.
            // nothing else is on this executor yet.
            match opened.recv() {
                Ok(()) => {
                    let world = DirectWorld::new(index, files_max, origin, &watchdog);
                    run_shard(world, mesh, watchdog, main).await
                }
                Err(_) => Ok(()),
            }
        };
        let built = builder(&options, index).spawn(shard);
        let handle = built.map_err(io::Error::from)?;
        if is_built.recv().is_err() {
            // The executor was not built; its thread's result says why.
            handle.join().map_err(io::Error::from)??;
            return Err(io::Error::other(format!("shard {index} did not start")));
        }
        shards.push(handle);
        gates.push(gate);
    }
    tracing::debug!(
        cooperative = crate::ring_setup::is_cooperative(),
        "io_uring instances are set up"
    );
    for gate in gates {
        // A shard that is gone already has reported why.
        let _ = gate.send(());
    }
    Ok(Running {
        shards,
        remote: mesh.remote(),
        watchdog: running,
    })
}

/// One shard from its first task to its last.
async fn run_shard<Request, Reply, Main, Run>(
    world: DirectWorld,
    mesh: Mesh<Request, Reply>,
    watchdog: Arc<Watchdog>,
    main: Main,
) -> io::Result<()>
where
    Request: Send + 'static,
    Reply: Send + 'static,
    Main: Fn(ShardSeat<Request, Reply>) -> Run,
    Run: Future<Output = io::Result<()>>,
{
    let index = world.shard();
    let thread_end = ThreadEnd::arm(index);
    let end = ShardEnd(Watchdog::shard(&watchdog, index));
    let result = or_abort(index, async {
        listen_to_kicks(&world, &watchdog, index)?;
        let endpoint = mesh.endpoint(index);
        let seat = ShardSeat {
            index,
            count: endpoint.count(),
            world: world.clone(),
            endpoint,
        };
        let result = main(seat).await;
        world.end().await;
        result
    })
    .await;
    drop(end);
    thread_end.disarm();
    result
}

/// Ends the process when a shard's thread ends in any other way than by its `main` returning. Executors die of
/// panics outside tasks as well, which would show only when joined.
struct ThreadEnd;

thread_local! {
    static ARMED: Armed = const { Armed(Cell::new(None)) };
}

struct Armed(Cell<Option<usize>>);

impl Drop for Armed {
    fn drop(&mut self) {
        if let Some(shard) = self.0.get() {
            abort(&format!("the thread of shard {shard} died (see above)"));
        }
    }
}

impl ThreadEnd {
    fn arm(shard: usize) -> ThreadEnd {
        ARMED.with(|armed| armed.0.set(Some(shard)));
        ThreadEnd
    }

    fn disarm(self) {
        ARMED.with(|armed| armed.0.set(None));
    }
}

fn builder(options: &ExecutorOptions, index: usize) -> LocalExecutorBuilder {
    let placement = if options.pin {
        Placement::Fixed(options.cpus[index % options.cpus.len()])
    } else {
        Placement::Unbound
    };
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{index}"))
        .io_memory(options.io_memory_bytes)
        .preempt_timer(PREEMPT_TIMER)
        // Otherwise its blocking thread sits on core 0 with every shard's.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
}

impl<Request: Send + 'static, Reply: Send + 'static> Running<Request, Reply> {
    /// Access to the shards from other threads.
    #[must_use]
    pub fn remote(&self) -> Remote<Request, Reply> {
        self.remote.clone()
    }

    /// Waits until every shard's `main` has returned.
    ///
    /// # Errors
    /// The first error returned by a shard.
    pub fn join(self) -> io::Result<()> {
        let mut outcome = Ok(());
        for (index, shard) in self.shards.into_iter().enumerate() {
            let result = match shard.join() {
                Ok(result) => result,
                Err(error) => abort(&format!("the thread of shard {index} died: {error}")),
            };
            outcome = outcome.and(result);
        }
        drop(self.watchdog);
        outcome
    }
}

/// Connects the watchdog's kicks to this shard: each a pipe with a pending read of its own.
fn listen_to_kicks(world: &DirectWorld, watchdog: &Arc<Watchdog>, shard: usize) -> io::Result<()> {
    let mut writers = Vec::with_capacity(KICKS);
    for _ in 0..KICKS {
        let (reader, writer) = StdUnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        writers.push(writer);
        // SAFETY: the descriptor was just given up by `reader`, so the stream is its only owner.
        let mut reader = unsafe { UnixStream::from_raw_fd(reader.into_raw_fd()) };
        let work = Watchdog::shard(watchdog, shard);
        let answer = async move {
            let mut bytes = [0; 64];
            while let Ok(1..) =
                poll_fn(|context| Pin::new(&mut reader).poll_read(context, &mut bytes)).await
            {
                work.beat();
            }
        };
        crate::world::World::spawn(world, answer);
    }
    Watchdog::shard(watchdog, shard).listen(writers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ExecutorOptions, builder, listen_to_kicks};
    use crate::direct::DirectWorld;
    use crate::watchdog::{KICKS, Watchdog};
    use crate::world::World;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// Each pipe reaches the shard by itself, and again after a use.
    #[test]
    fn every_kick_reaches_the_shard() {
        let watchdog = Watchdog::new(1);
        let watched = Arc::clone(&watchdog);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (beaten, beats) = std::sync::mpsc::channel();
        let shard = move || async move {
            let world = DirectWorld::new(0, 64, Instant::now(), &watched);
            listen_to_kicks(&world, &watched, 0).unwrap();
            ready.send(()).unwrap();
            let mut seen = 0;
            while seen < 2 * KICKS as u64 {
                world.sleep_for(Duration::from_millis(1)).await;
                let now = watched.beats(0);
                (seen..now).for_each(|_| beaten.send(()).unwrap());
                seen = now;
            }
            world.end().await;
        };
        let options = ExecutorOptions::new(1).unwrap();
        let handle = builder(&options, 0).spawn(shard).unwrap();
        is_ready.recv().unwrap();
        for attempt in 0..2 * KICKS as u32 {
            watchdog.kick(0, attempt);
            beats.recv().unwrap();
        }
        handle.join().unwrap();
    }
}
