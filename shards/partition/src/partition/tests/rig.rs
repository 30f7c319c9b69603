//! A driver for one partition: performs its jobs on a world and collects what it says.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use chronik_io::World;
use chronik_log::LogError;
use chronik_log::recovery::{RecoveryHint, RecoveryReport};
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_terms::topic_settings::{Durability, TopicConfig};
use chronik_terms::{
    Acks, AppendPart, AppendResult, DeleteRecordsPart, DeleteRecordsResult, Isolation, Now,
    OffsetAnswer, OffsetQuery, OffsetTarget, PartitionId, ReadPart, ReadResult, Waiter,
};

use crate::cache::{BatchCache, CacheLimits};
use crate::limits::WRITE_BEHIND_LINGER_MS_MAX;
use crate::partition::{
    AppendOutcome, CheckTimes, CleanSettings, CloseReport, Job, OffsetPlan, Partition,
    PartitionEvent, PartitionOptions, ReadPlan, Shared,
};
use crate::remembered_logs::Remembered;

use crate::write_behind::{self, LeftBehind, WriteBehind};

/// As `log.retention.check.interval.ms`.
pub(super) const RETENTION_CHECK_MS: u64 = 100;
/// Small, so that it is full often.
const RING_BYTES: usize = 36 << 10;
/// As the shard's timer would.
const LINGER: Duration = Duration::from_millis(WRITE_BEHIND_LINGER_MS_MAX);

pub(super) const ID: PartitionId = PartitionId {
    topic_id: Uuid(0x1234_5678),
    index: 0,
};

/// Small segments and dense indexes, so that every boundary is crossed often.
pub(super) fn small_config(durability: Durability) -> TopicConfig {
    TopicConfig {
        segment_bytes: 24 << 10,
        index_interval_bytes: 512,
        durability,
        ..TopicConfig::default()
    }
}

pub(super) fn batch(values: &[&[u8]]) -> CheckedBatch {
    timed_batch(values, 1_600_000_000_000)
}

pub(super) fn timed_batch(values: &[&[u8]], timestamp: i64) -> CheckedBatch {
    build(BatchBuilder::new(0), values, timestamp)
}

pub(super) fn produced_batch(
    (id, epoch, sequence): (i64, i16, i32),
    values: &[&[u8]],
) -> CheckedBatch {
    build(
        BatchBuilder::new(0).producer(id, epoch, sequence),
        values,
        1_600_000_000_000,
    )
}

fn build(mut builder: BatchBuilder, values: &[&[u8]], timestamp: i64) -> CheckedBatch {
    for (n, value) in values.iter().enumerate() {
        let timestamp = timestamp + n as i64;
        let record = NewRecord {
            timestamp,
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("small");
    }
    builder.build().expect("valid")
}

struct State<W: World> {
    partition: Option<Partition<W>>,
    cache: BatchCache,
    write_behind: WriteBehind<W>,
    results: BTreeMap<u64, AppendResult>,
    next_tag: u64,
    recovery_point: Option<i64>,
    log_start: Option<i64>,
    /// What the last close wants remembered.
    closed: Option<Vec<u8>>,
    cleaned: Option<i64>,
    failed: Option<Str>,
    wakers: Vec<Waker>,
}

pub(super) struct Rig<W: World> {
    world: W,
    dir: PathBuf,
    state: Rc<RefCell<State<W>>>,
}

impl<W: World> Clone for Rig<W> {
    fn clone(&self) -> Self {
        let (world, state) = (self.world.clone(), Rc::clone(&self.state));
        Rig {
            world,
            dir: self.dir.clone(),
            state,
        }
    }
}

impl<W: World> Rig<W> {
    pub(super) async fn open(
        world: &W,
        dir: &Path,
        config: &TopicConfig,
        recovery: RecoveryHint,
        leader_epoch: i32,
    ) -> Result<(Rig<W>, RecoveryReport), LogError> {
        Rig::open_remembered(world, dir, config, (recovery, None), leader_epoch).await
    }

    /// As `open`, with what a checkpoint of logs says.
    pub(super) async fn open_remembered(
        world: &W,
        dir: &Path,
        config: &TopicConfig,
        hints: (RecoveryHint, Option<Remembered>),
        leader_epoch: i32,
    ) -> Result<(Rig<W>, RecoveryReport), LogError> {
        Rig::open_cleaned(world, dir, config, hints, (leader_epoch, 0)).await
    }

    /// As `open_remembered`, with what the cleaner's checkpoint says.
    pub(super) async fn open_cleaned(
        world: &W,
        dir: &Path,
        config: &TopicConfig,
        (recovery, remembered): (RecoveryHint, Option<Remembered>),
        (leader_epoch, cleaned_offset): (i32, i64),
    ) -> Result<(Rig<W>, RecoveryReport), LogError> {
        let data = dir.parent().expect("a data directory");
        world.create_dir_all(data).await.expect("a data directory");
        let entries = world.list_dir(data).await.expect("readable");
        let left_behind = LeftBehind::find(world, data, &entries).await;
        let left_behind = left_behind.expect("readable");
        let options = PartitionOptions {
            id: ID,
            topic: Str::from("orders"),
            leader_epoch,
            config: Arc::new(config.clone()),
            recovery,
            remembered: remembered.zip(world.boot_id().await.ok()),
            left_behind: left_behind.of(ID),
            check_times: CheckTimes {
                origin_ns: 0,
                interval_ms: RETENTION_CHECK_MS,
            },
            cleaned_offset,
        };
        let (partition, report) = Partition::open(world, dir, options).await?;
        let removed = left_behind.remove(world, &BTreeSet::new()).await;
        removed.expect("removed");
        let mut write_behind = WriteBehind::new(RING_BYTES);
        let ring = write_behind::make(world, data, 0, RING_BYTES).await;
        write_behind.made(ring, world.monotonic_ns());
        let limits = CacheLimits {
            tail_bytes: 8 << 10,
            cold_bytes: 2 << 20,
            index_bytes: 1 << 10,
        };
        let state = State {
            partition: Some(partition),
            cache: BatchCache::new(limits),
            write_behind,
            results: BTreeMap::new(),
            next_tag: 0,
            recovery_point: None,
            log_start: None,
            closed: None,
            cleaned: None,
            failed: None,
            wakers: Vec::new(),
        };
        let state = Rc::new(RefCell::new(state));
        let rig = Rig {
            world: world.clone(),
            dir: dir.to_owned(),
            state,
        };
        let now = rig.now();
        rig.with(|partition, _| {
            partition.plan_retention(now);
            partition.plan_cleaning(now);
        });
        rig.start_jobs();
        Ok((rig, report))
    }

    fn now(&self) -> Now {
        Now {
            wall_ms: self.world.now_ms(),
            mono_ns: self.world.monotonic_ns(),
        }
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Partition<W>, &mut BatchCache) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        f(state.partition.as_mut().expect("open"), &mut state.cache)
    }

    /// Changes the partition, and takes in what happened.
    pub(super) fn change<T>(
        &self,
        f: impl FnOnce(&mut Partition<W>, &mut Shared<'_, W>) -> T,
    ) -> T {
        let mut events = Vec::new();
        let result = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let mut shared = Shared {
                cache: &mut state.cache,
                write_behind: &mut state.write_behind,
                events: &mut events,
            };
            f(state.partition.as_mut().expect("open"), &mut shared)
        };
        self.take_events(events);
        result
    }

    fn start_jobs(&self) {
        let mut jobs: Vec<Job<W>> = Vec::new();
        let lingers = self.with(|partition, _| {
            partition.take_jobs(&mut jobs);
            partition.begins_to_linger()
        });
        if lingers {
            let rig = self.clone();
            self.world.spawn(async move {
                rig.world.sleep_for(LINGER).await;
                if rig.state.borrow().partition.is_some() {
                    rig.with(|partition, _| partition.write_now());
                    rig.start_jobs();
                }
            });
        }
        for job in jobs {
            let rig = self.clone();
            self.world.spawn(async move {
                let done = job.perform().await;
                let now = rig.now();
                rig.change(|partition, shared| partition.complete(shared, done, now));
                rig.start_jobs();
                rig.wake();
            });
        }
    }

    fn take_events(&self, events: Vec<PartitionEvent>) {
        let mut state = self.state.borrow_mut();
        for event in events {
            match event {
                PartitionEvent::Acked {
                    waiter: Waiter::Groups(tag),
                    result,
                } => {
                    let again = state.results.insert(tag, result);
                    assert!(again.is_none(), "append {tag} was answered twice");
                }
                PartitionEvent::Acked { waiter, .. } => panic!("{waiter:?} did not append here"),
                PartitionEvent::RecoveryPoint(offset) => {
                    assert!(state.recovery_point.is_none_or(|before| before < offset));
                    state.recovery_point = Some(offset);
                }
                PartitionEvent::HighWatermark { old, new } => assert!(old < new),
                PartitionEvent::LogStart(offset) => {
                    assert!(state.log_start.is_none_or(|before| before < offset));
                    state.log_start = Some(offset);
                }
                PartitionEvent::Cleaned(offset) => state.cleaned = Some(offset),
                PartitionEvent::Failed { error } => state.failed = Some(error),
            }
        }
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut self.state.borrow_mut().wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Starts an append; its result is there when [`Rig::result`] says so.
    pub(super) fn send(&self, batch: &CheckedBatch, acks: Acks) -> u64 {
        let now = self.now();
        let tag = self.state.borrow().next_tag;
        self.state.borrow_mut().next_tag += 1;
        let part = AppendPart {
            partition: ID,
            batch: batch.clone(),
        };
        let outcome = self.change(|partition, shared| {
            partition.append(shared, part, acks, now, Waiter::Groups(tag))
        });
        if let AppendOutcome::Done(result) = outcome {
            self.state.borrow_mut().results.insert(tag, result);
        }
        self.start_jobs();
        tag
    }

    pub(super) fn result(&self, tag: u64) -> Option<AppendResult> {
        self.state.borrow().results.get(&tag).cloned()
    }

    async fn until<T>(&self, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        poll_fn(|context| match ready(self) {
            Some(value) => Poll::Ready(value),
            None => {
                self.state.borrow_mut().wakers.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    pub(super) async fn append(&self, batch: &CheckedBatch, acks: Acks) -> AppendResult {
        let tag = self.send(batch, acks);
        self.until(|rig| rig.result(tag)).await
    }

    /// Appends with acks=all, which must succeed, and returns the base offset.
    pub(super) async fn must_append(&self, batch: &CheckedBatch) -> i64 {
        let result = self.append(batch, Acks::All).await;
        assert_eq!(result.error, ErrorCode::None, "{:?}", result.message);
        result.base_offset
    }

    pub(super) async fn quiet(&self) {
        self.until(|rig| rig.with(|p, _| p.is_quiet().then_some(())))
            .await;
    }

    pub(super) async fn read(&self, offset: i64, max_bytes: usize) -> ReadResult {
        self.read_with(offset, max_bytes, true).await
    }

    pub(super) async fn read_with(
        &self,
        fetch_offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> ReadResult {
        let part = ReadPart {
            partition: ID,
            fetch_offset,
            max_bytes,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        let isolation = Isolation::ReadUncommitted;
        let mut plan =
            self.with(|p, cache| p.plan_read(cache, &part, isolation, usize::MAX, at_least_one));
        loop {
            match plan {
                ReadPlan::Ready(result) => return result,
                ReadPlan::Disk(job) => {
                    let done = job.perform().await;
                    plan = self.with(|partition, cache| partition.complete_read(cache, done));
                }
            }
        }
    }

    /// Every batch that consumers can see from `offset` on.
    pub(super) async fn read_all(&self, mut offset: i64) -> Vec<CheckedBatch> {
        let mut all = Vec::new();
        loop {
            let result = self.read(offset, 4000).await;
            assert_eq!(result.error, ErrorCode::None, "at {offset}");
            let mut bytes: Bytes = result.records.into_bytes();
            if bytes.is_empty() {
                assert_eq!(
                    offset, result.high_watermark,
                    "the log ends at the high watermark"
                );
                return all;
            }
            while !bytes.is_empty() {
                let (batch, rest) = CheckedBatch::parse_first(bytes).expect("whole batches");
                assert!(batch.header.next_offset() > offset);
                offset = batch.header.next_offset();
                all.push(batch);
                bytes = rest;
            }
        }
    }

    pub(super) async fn list(&self, target: OffsetTarget) -> OffsetAnswer {
        let query = OffsetQuery {
            partition: ID,
            current_leader_epoch: -1,
            isolation: Isolation::ReadUncommitted,
            target,
        };
        let mut plan = self.with(|partition, _| partition.list_offset(&query));
        loop {
            match plan {
                OffsetPlan::Ready(answer) => return answer,
                OffsetPlan::Disk(job) => {
                    let done = job.perform().await;
                    plan = self.with(|partition, _| partition.complete_list_offset(done));
                }
            }
        }
    }

    pub(super) fn delete_records(&self, offset: i64) -> DeleteRecordsResult {
        let part = DeleteRecordsPart {
            partition: ID,
            offset,
        };
        let mut events = Vec::new();
        let result = self.with(|partition, _| partition.delete_records(&part, &mut events));
        self.take_events(events);
        self.start_jobs();
        result
    }

    /// What a checkpoint would remember now, or what the close wanted remembered.
    pub(super) fn remember(&self) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        let Some(partition) = &state.partition else {
            return state.closed.clone();
        };
        let log = partition.remember()?;
        partition.holds(partition.log_end()).then(|| log.to_bytes())
    }

    /// The partition's timer fires at this time.
    pub(super) fn at(&self, mono_ns: u64) {
        let now = Now {
            mono_ns,
            ..self.now()
        };
        self.with(|partition, _| partition.on_timer(now));
        self.start_jobs();
    }

    /// Does what the shard does when a look at old segments or the partition's timer is due by now,
    /// and says whether one was.
    pub(super) fn tend(&self) -> bool {
        let now = self.now();
        let is_due = |due_ns: Option<u64>| due_ns.is_some_and(|due_ns| due_ns <= now.mono_ns);
        let (timer, look) =
            self.with(|p, _| (is_due(p.next_timer_ns()), is_due(p.next_retention_ns())));
        if timer {
            self.at(now.mono_ns);
        }
        if look {
            self.change(|partition, shared| partition.retain(now, shared.events));
            self.start_jobs();
        }
        timer || look
    }

    /// New settings while it runs.
    pub(super) fn configure(&self, config: &TopicConfig) {
        let now = self.now();
        self.with(|partition, _| {
            partition.set_config(Arc::new(config.clone()));
            partition.plan_retention(now);
            partition.plan_cleaning(now);
        });
    }

    /// Begins a round of cleaning if one is due by now, and says whether it did.
    pub(super) fn clean(&self, settings: CleanSettings) -> bool {
        let now = self.now();
        let due_ns = self.with(|partition, _| partition.next_cleaning_ns());
        if due_ns.is_none_or(|due_ns| due_ns > now.mono_ns) {
            return false;
        }
        self.with(|partition, _| partition.begin_cleaning(now, settings));
        self.start_jobs();
        self.with(|partition, _| partition.is_cleaning())
    }

    /// Up to where the log has been cleaned in this life.
    pub(super) fn cleaned(&self) -> Option<i64> {
        self.state.borrow().cleaned
    }

    /// The newest log start that was told of.
    pub(super) fn log_start_told(&self) -> Option<i64> {
        self.state.borrow().log_start
    }

    pub(super) fn recovery_point(&self) -> Option<i64> {
        self.state.borrow().recovery_point
    }

    pub(super) fn failed(&self) -> bool {
        self.state.borrow().failed.is_some()
    }

    pub(super) fn log_end(&self) -> i64 {
        self.with(|partition, _| partition.log_end())
    }

    pub(super) async fn close(self) -> Result<CloseReport, LogError> {
        self.quiet().await;
        let partition = self.state.borrow_mut().partition.take().expect("open");
        let closed = partition.close().await;
        // Before it says that it stopped cleanly.
        let data = self.dir.parent().expect("a data directory");
        let synced = self.world.sync_file_system(data).await;
        let closed = closed.and_then(|closed| {
            let synced = synced.map_err(LogError::io("syncing", data));
            synced.map(|()| closed)
        });
        let closed = closed.map(|closed| {
            self.state.borrow_mut().closed = closed.remembered;
            closed.report
        });
        if closed.is_ok() {
            let data = self.dir.parent().expect("a data directory");
            let removed = write_behind::remove_all(&self.world, data).await;
            removed.expect("removed");
        }
        closed
    }

    pub(super) async fn file(&self, name: &str) -> Bytes {
        self.world
            .read_file(&self.dir.join(name), 64 << 20)
            .await
            .expect("readable")
    }
}

/// What a clean stop leaves in the checkpoints.
pub(super) fn clean(report: &CloseReport) -> RecoveryHint {
    RecoveryHint {
        clean: true,
        recovery_point: report.recovery_point,
        log_start_offset: report.log_start,
        durable: false,
    }
}
