//! The driver of one shard: puts requests and results into its state, performs what comes out.
//!
//! Runs on every shard, and owns the state there in a cell that is never borrowed across an await.
//! Decides nothing: a write is spawned as soon as the state wants it, and its result goes back in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use chronik_catalog::Image;
use chronik_coordinators::unfold::Unfolding;
use chronik_io::{Endpoint, Responder, World};
use chronik_log::checkpoint::{CLEAN_SHUTDOWN_FILE, CleanShutdown, HIGH_WATERMARK_FILE};
use chronik_partition::patience::Patience;
use chronik_partition::{OffsetJob, Partition};
use chronik_partition::{remembered_logs, write_behind};

use crate::checkpoint_files::{AlsoIn, Offsets};
use crate::internal::{
    ClosedPartition, Durable, Internal, InternalAnswer, InternalReply, InternalRequest, Leftover,
    OffsetNote,
};
use crate::log_dirs::LogDirs;
use crate::metadata_log::{
    SnapshotError, metadata_directory, remove_older_snapshots, write_snapshot,
};
use crate::meters::ShardMeters;
use crate::opening::{open, remove_behind};
use crate::placement::COORDINATOR_SHARD;
use crate::request::{Reply, Request};
use crate::shard::{CatalogueEffect, Done, Effect, Shard};

type State<W> = Shard<W, Responder<Reply>>;

/// The driver of one shard; clones are the same driver.
pub(crate) struct Driver<W: World> {
    inner: Rc<Inner<W>>,
}

impl<W: World> Clone for Driver<W> {
    fn clone(&self) -> Self {
        Driver {
            inner: Rc::clone(&self.inner),
        }
    }
}

/// Somebody on the shard's own core who is told of an image with other settings of the broker.
pub(crate) type SettingsWatch = Rc<RefCell<Option<Box<dyn Fn(&Image)>>>>;

struct Inner<W: World> {
    world: W,
    endpoint: Endpoint<Request, Reply>,
    state: RefCell<State<W>>,
    /// What handlers on this shard see.
    image: Rc<RefCell<Arc<Image>>>,
    /// Who is told when the broker's settings change.
    settings_watch: SettingsWatch,
    /// What is still to be performed. A task that is spawned may run at once and bring a result
    /// before the spawn returns: its effects queue up here, for the stack is not endless.
    effects: RefCell<VecDeque<Effect<W, Responder<Reply>>>>,
    performing: Cell<bool>,
    /// The deadline the timer task sleeps for.
    armed_ns: Cell<Option<u64>>,
    timer: RefCell<Option<Waker>>,
    loaded: RefCell<Loaded>,
}

#[derive(Default)]
struct Loaded {
    result: Option<Result<(), Arc<str>>>,
    waiting: Option<Waker>,
}

impl<W: World> Driver<W> {
    /// Takes the state over and begins to serve requests.
    pub(crate) fn start(
        world: W,
        endpoint: Endpoint<Request, Reply>,
        state: State<W>,
        image: Rc<RefCell<Arc<Image>>>,
        settings_watch: SettingsWatch,
    ) -> Driver<W> {
        let driver = Driver {
            inner: Rc::new(Inner {
                world: world.clone(),
                endpoint: endpoint.clone(),
                state: RefCell::new(state),
                image,
                settings_watch,
                effects: RefCell::new(VecDeque::new()),
                performing: Cell::new(false),
                armed_ns: Cell::new(None),
                timer: RefCell::new(None),
                loaded: RefCell::new(Loaded::default()),
            }),
        };
        let (serving, timing) = (driver.clone(), driver.clone());
        let pump_world = world.clone();
        world.spawn(async move {
            let handler = move |request, responder| {
                serving.step(|state| state.on_request(request, responder));
            };
            endpoint.serve(&pump_world, handler).await;
        });
        world.spawn(async move { timing.keep_time().await });
        driver
    }

    /// Changes the state, then performs what comes out.
    pub(crate) fn step(&self, change: impl FnOnce(&mut State<W>)) {
        let inner = &*self.inner;
        let next_ns = {
            let mut state = inner.state.borrow_mut();
            change(&mut state);
            state.take_effects(&mut inner.effects.borrow_mut());
            let mut shown = inner.image.borrow_mut();
            if !Arc::ptr_eq(&shown, state.image()) {
                let before = std::mem::replace(&mut *shown, Arc::clone(state.image()));
                let is_same = Arc::ptr_eq(&before.broker_configs, &shown.broker_configs);
                if let Some(watch) = inner.settings_watch.borrow().as_ref().filter(|_| !is_same) {
                    watch(&shown);
                }
            }
            state.next_timer_ns()
        };
        self.arm(next_ns);
        if inner.performing.replace(true) {
            return;
        }
        loop {
            let effect = inner.effects.borrow_mut().pop_front();
            let Some(effect) = effect else { break };
            self.perform(effect);
        }
        inner.performing.set(false);
    }

    fn done(&self, done: Done<W>) {
        self.step(|state| state.on_done(done));
    }

    fn perform(&self, effect: Effect<W, Responder<Reply>>) {
        match effect {
            Effect::Reply(responder, reply) => responder.reply(reply),
            Effect::Job(job) => self.spawn(|driver| async move {
                let done = job.perform().await;
                driver.done(Done::Job(done));
            }),
            Effect::Read(job, reader) => self.spawn(move |driver| async move {
                let done = job.perform().await;
                driver.done(Done::Read(done, reader));
            }),
            Effect::Offsets { query, part, job } => self.spawn_offsets(query, part, job),
            Effect::Open(task) => self.spawn(|driver| async move {
                let id = task.options.id;
                let result = open(&driver.inner.world, task).await;
                driver.done(Done::Opened { id, result });
            }),
            Effect::Remove { id, directory } => self.spawn(|driver| async move {
                let left = Leftover { id, directory };
                let (world, topic_id) = (&driver.inner.world, left.id.topic_id);
                let marked = Partition::mark_deleted_unsynced(world, &left.directory, topic_id);
                let result = match marked.await {
                    Ok(()) => Ok(Some(left)),
                    Err(error) => Err((error, left)),
                };
                driver.done(Done::Removed { id, result });
            }),
            Effect::RemoveBehind(renamed) => self.spawn(|driver| async move {
                let left = remove_behind(&driver.inner.world, renamed).await;
                driver.done(Done::RemovedBehind(left));
            }),
            Effect::Close(partition, patience) => self.spawn(move |driver| async move {
                let id = partition.id();
                let result = partition.close_at_stop(patience).await;
                driver.done(Done::Closed { id, result });
            }),
            Effect::Note(notes) => self.note(notes),
            Effect::MakeRing { bytes } => self.spawn(move |driver| async move {
                let (data, shard) = (driver.data(), driver.inner.endpoint.index());
                let result = write_behind::make(&driver.inner.world, &data, shard, bytes).await;
                driver.done(Done::RingMade(result));
            }),
            Effect::Move(serial, step) => self.spawn(move |driver| async move {
                let inner = &driver.inner;
                let done = step.perform(&inner.world, &inner.endpoint).await;
                driver.done(Done::Moved(serial, done));
            }),
            Effect::Rest(sleeper) => self.rest(Done::Rested(sleeper)),
            Effect::WriteRemembered { path, writer, logs } => {
                self.spawn(move |driver| async move {
                    let world = &driver.inner.world;
                    let bytes = world.compute_long(move || writer.to_bytes(&logs)).await;
                    let result = match bytes {
                        Ok(bytes) => world.write_bytes_atomic(&path, bytes.into()).await,
                        Err(error) => Err(error),
                    };
                    driver.done(Done::RememberedWritten(result));
                })
            }
            Effect::GroupUnfold(load, unfolding) => self.unfold(load, unfolding),
            Effect::Loaded(result) => self.loaded(result),
            Effect::Catalogue(effect) => self.perform_catalogue(effect),
        }
    }

    /// What only the designated shard's state wants.
    fn perform_catalogue(&self, effect: CatalogueEffect<Responder<Reply>>) {
        match effect {
            CatalogueEffect::PublishToAll(image) => self.spawn(|driver| async move {
                let left = driver.publish_to_all(&image).await;
                driver.done(Done::Published(left));
            }),
            CatalogueEffect::Judge(judging) => self.spawn(|driver| async move {
                let judged = driver
                    .inner
                    .world
                    .compute_surely(move || judging.judge())
                    .await;
                driver.done(Done::Judged(Box::new(judged)));
            }),
            CatalogueEffect::WriteSnapshot(image) => self.spawn(|driver| async move {
                let directory = metadata_directory(&driver.data());
                let result = write_snapshot(&driver.inner.world, &directory, &image).await;
                driver.done(Done::Snapshot(result));
            }),
            CatalogueEffect::RemoveSnapshotsBelow(id) => self.spawn(|driver| async move {
                let directory = metadata_directory(&driver.data());
                let removed = remove_older_snapshots(&driver.inner.world, &directory, id).await;
                if let Err(error) = removed {
                    tracing::warn!(%error, "older metadata snapshots not removed");
                }
            }),
            CatalogueEffect::RemoveLeftovers(left) => self.spawn(|driver| async move {
                driver.remove_leftovers(left).await;
            }),
            CatalogueEffect::WriteCheckpoints(offsets, (image, also_in)) => {
                self.spawn(|driver| async move {
                    let (world, dirs) = (&driver.inner.world, driver.dirs());
                    let written = offsets.write(world, &dirs, (&image, &also_in)).await;
                    driver.done(Done::CheckpointsWritten(written));
                })
            }
            CatalogueEffect::StopAll(responder, image) => self.spawn(|driver| async move {
                let in_order = driver.stop_all(&image).await;
                responder.reply(Reply::Stopped { in_order });
            }),
        }
    }

    fn note(&self, notes: Vec<OffsetNote>) {
        self.spawn(|driver| async move {
            let request = Request::Internal(InternalRequest(Internal::Note(notes)));
            let reply = driver.inner.endpoint.call(COORDINATOR_SHARD, request).await;
            let durable = match reply {
                Ok(Reply::Internal(InternalReply(InternalAnswer::Noted(durable)))) => durable,
                _ => Durable::Nowhere,
            };
            driver.done(Done::Noted(durable));
        });
    }

    /// Gives what of deleted partitions could not be removed.
    async fn publish_to_all(&self, image: &Arc<Image>) -> Vec<Leftover> {
        let publish = || Request::Publish(Arc::clone(image));
        let mut left = Vec::new();
        for reply in self.ask_all(publish).await {
            if let Some(Reply::Internal(InternalReply(InternalAnswer::LeftOver(more)))) = reply {
                left.extend(more);
            }
        }
        left
    }

    /// Renames them, which the catalogue waits for, and removes them.
    async fn remove_leftovers(&self, left: Vec<Leftover>) {
        let world = &self.inner.world;
        let (mut marked, mut still) = (Vec::new(), Vec::new());
        for left in left {
            let done = Partition::mark_deleted(world, &left.directory, left.id.topic_id).await;
            match done {
                Err(error) if error.is_not_now() => still.push(left),
                _ => marked.push(left),
            }
        }
        let count = marked.len();
        self.done(Done::LeftoversRenamed(still, count));
        let mut still = Vec::new();
        for left in marked {
            let done = Partition::remove_marked(world, &left.directory, left.id.topic_id).await;
            if done.is_err_and(|error| error.is_not_now()) {
                still.push(left);
            }
        }
        self.done(Done::LeftoversRemoved(still, count));
    }

    fn spawn<F: Future<Output = ()> + 'static>(&self, task: impl FnOnce(Driver<W>) -> F) {
        self.inner.world.spawn(task(self.clone()));
    }

    /// Lets other tasks run before the state goes on.
    fn rest(&self, then: Done<W>) {
        self.spawn(|driver| async move {
            driver.inner.world.pause().await;
            driver.done(then);
        });
    }

    fn unfold(&self, load: u64, unfolding: Unfolding) {
        self.spawn(move |driver| async move {
            let world = &driver.inner.world;
            let step = world.compute_long(|| unfolding.step_beside()).await;
            driver.done(Done::GroupUnfolded(load, step.ok()));
        });
    }

    fn spawn_offsets(&self, query: usize, part: usize, job: OffsetJob<W>) {
        self.spawn(|driver| async move {
            let done = job.perform().await;
            driver.done(Done::Offsets { query, part, done });
        });
    }

    pub(crate) fn meters(&self) -> Arc<ShardMeters> {
        self.inner.state.borrow().meters()
    }

    fn data(&self) -> std::path::PathBuf {
        self.inner.state.borrow().data().to_owned()
    }

    /// The directories that hold logs.
    pub(crate) fn dirs(&self) -> Arc<LogDirs> {
        Arc::clone(self.inner.state.borrow().dirs())
    }

    /// Asks every shard the same at once; the replies in the order of the shards. A shard that has
    /// ended has none.
    pub(crate) async fn ask_all(&self, request: impl Fn() -> Request) -> Vec<Option<Reply>> {
        let endpoint = &self.inner.endpoint;
        let mut calls = Vec::with_capacity(endpoint.count());
        for shard in 0..endpoint.count() {
            calls.push(endpoint.send(shard, request()).await);
        }
        let mut replies = Vec::with_capacity(calls.len());
        for call in calls {
            replies.push(call.await.ok());
        }
        replies
    }

    /// Closes every shard, then writes what a clean stop leaves behind.
    /// Says whether the directories were left in order.
    async fn stop_all(&self, image: &Image) -> bool {
        let close = || Request::Internal(InternalRequest(Internal::Close));
        let mut clean = true;
        let mut closed = Vec::new();
        for reply in self.ask_all(close).await {
            match reply {
                Some(Reply::Internal(InternalReply(InternalAnswer::Closed(partitions)))) => {
                    closed.extend(partitions);
                }
                _ => clean = false,
            }
        }
        let open = closed.iter().filter(|partition| partition.report.is_none());
        let open = open.count();
        clean &= open == 0;
        if !clean {
            tracing::warn!(
                logs = open,
                "logs are offline, or could not be closed in order"
            );
        }
        if let Err(error) = self.leave_clean(image, &closed, clean).await {
            tracing::error!(%error, "the stop is not clean: the next start looks through the logs");
            clean = false;
        }
        clean
    }

    async fn leave_clean(
        &self,
        image: &Image,
        closed: &[ClosedPartition],
        clean: bool,
    ) -> io::Result<()> {
        let world = &self.inner.world;
        let data = self.data();
        let directory = metadata_directory(&data);
        let patience = Patience::begin(world);
        let snapshot = async || match write_snapshot(world, &directory, image).await {
            Err(SnapshotError::Io(error)) => Err(error),
            written => written.map_err(io::Error::other),
        };
        let id = patience.with(world, snapshot).await?;
        let older = async || remove_older_snapshots(world, &directory, id).await;
        patience.with(world, older).await?;
        let mut offsets = self.inner.state.borrow().checkpoints();
        let mut high_watermarks = Offsets::new();
        for partition in closed {
            let Some(report) = partition.report else {
                continue;
            };
            let id = partition.id;
            offsets.recovery_points.insert(id, report.recovery_point);
            offsets.log_starts.insert(id, report.log_start);
            high_watermarks.insert(id, report.high_watermark);
        }
        let dirs = self.dirs();
        let also_in = AlsoIn::new();
        loop {
            let written = offsets.write(world, &dirs, (image, &also_in)).await;
            if written.refused.is_empty() {
                break;
            }
            let is_short = written.short.len() == written.refused.len();
            if !is_short || !patience.waits(world).await {
                let why = written.why.join("; ");
                return Err(io::Error::other(format!(
                    "offset checkpoints not written: {why}"
                )));
            }
        }
        for (dir, _) in dirs.usable() {
            let (here, path) = (
                dirs.part(image, &high_watermarks, dir),
                dir.join(HIGH_WATERMARK_FILE),
            );
            patience
                .with(world, async || here.write(world, &path).await)
                .await?;
        }
        if clean {
            // Every log was closed whole: what the rings hold is in them.
            write_behind::remove_all(world, &data).await?;
            remembered_logs::remove_older(world, &data, image.broker_epoch).await?;
            for (dir, _) in dirs.usable() {
                world.sync_file_system(dir).await?;
            }
            let marker = CleanShutdown {
                broker_epoch: image.broker_epoch,
            };
            for (dir, _) in dirs.usable() {
                let (path, bytes) = (dir.join(CLEAN_SHUTDOWN_FILE), marker.to_bytes());
                let mark = async || world.write_file_atomic(&path, &bytes).await;
                patience.with(world, mark).await?;
            }
        }
        Ok(())
    }

    /// Wakes the timer task when the nearest deadline has come nearer.
    fn arm(&self, next_ns: Option<u64>) {
        let Some(next_ns) = next_ns else { return };
        if self
            .inner
            .armed_ns
            .get()
            .is_none_or(|armed| next_ns < armed)
        {
            let waker = self.inner.timer.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Sleeps until the nearest deadline; without one until there is one.
    async fn keep_time(self) {
        let inner = &*self.inner;
        let mut sleep: Option<W::Sleep> = None;
        loop {
            poll_fn(|context| {
                loop {
                    let next_ns = inner.state.borrow().next_timer_ns();
                    *inner.timer.borrow_mut() = Some(context.waker().clone());
                    let Some(next_ns) = next_ns else {
                        (sleep, _) = (None, inner.armed_ns.set(None));
                        return Poll::Pending;
                    };
                    if inner.world.monotonic_ns() >= next_ns {
                        (sleep, _) = (None, inner.armed_ns.set(None));
                        return Poll::Ready(());
                    }
                    if inner.armed_ns.replace(Some(next_ns)) != Some(next_ns) {
                        sleep = Some(inner.world.sleep_until(next_ns));
                    }
                    let asleep = sleep.get_or_insert_with(|| inner.world.sleep_until(next_ns));
                    if Pin::new(asleep).poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    (sleep, _) = (None, inner.armed_ns.set(None));
                }
            })
            .await;
            self.step(State::on_timer);
            let next_ns = inner.state.borrow().next_timer_ns();
            if next_ns.is_some_and(|next_ns| next_ns <= inner.world.monotonic_ns()) {
                // More is due than one slice may do.
                inner.world.pause().await;
            }
        }
    }

    fn loaded(&self, result: Result<(), Arc<str>>) {
        let waiting = {
            let mut loaded = self.inner.loaded.borrow_mut();
            loaded.result = Some(result);
            loaded.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Waits until the first image has been applied here.
    pub(crate) async fn wait_loaded(&self) -> Result<(), Arc<str>> {
        poll_fn(|context| {
            let mut loaded = self.inner.loaded.borrow_mut();
            match &loaded.result {
                Some(result) => Poll::Ready(result.clone()),
                None => {
                    loaded.waiting = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
