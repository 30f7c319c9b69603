//! What a partition wants done to its files, and what the results change.
//!
//! Part of the partition's state, on its shard; only [`Job::perform`] awaits, and it owns all it
//! touches. At most one write per segment is on its way while the next one forms (group commit);
//! a roll creates the next segment while the old one still drains, and sealing it holds up nobody.

use std::path::PathBuf;
use std::sync::Arc;

use chronik_io::{
    AppendError, AppendFile, AppendOptions, JobResult, SyncJob, World, WriteJob, ZeroJob,
};
use chronik_log::LogError;
use chronik_log::checkpoint::LEADER_EPOCH_FILE;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::index::IndexBuilder;
use chronik_log::recovery::{max_timestamp, rebuild_indexes};
use chronik_log::segment::{ActiveSegment, SealedSegment, SegmentStart, append_options, jitter_ms};
use chronik_terms::PartitionId;
use chronik_terms::topic_settings::{Durability, TopicConfig};
use tracing::{error, info, warn};

use super::cleaning::{CleanDone, CleanWork};
use super::removal::{RemovalDone, RemovalStep};
use super::sealing::{Beside, NotSealed, Seal};
use super::{Closing, Now, Partition, PartitionEvent, Shared};

/// Most zeroed bytes a new segment asks for on behalf of appends that wait.
const FIRST_ROOM_BYTES_MAX: u64 = 8 << 20;

/// The creation of the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rolling {
    No,
    /// Wanted, with this base offset; the job has not been taken yet.
    Due(i64),
    /// The file is being created.
    UnderWay,
}

impl Rolling {
    pub(super) fn begin(&mut self, base_offset: i64) {
        *self = Rolling::Due(base_offset);
    }

    pub(super) fn is_under_way(self) -> bool {
        self != Rolling::No
    }
}

/// When a log under the *process* promise is synced (`flush.messages`, `flush.ms`).
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Records appended since the last flush was asked for.
    records: u64,
    due_ns: Option<u64>,
    /// Syncs follow until everything below is durable.
    target: Option<i64>,
}

impl Flush {
    pub(super) fn note(&mut self, config: &TopicConfig, records: u64, log_end: i64, now: Now) {
        if config.durability == Durability::Disk {
            return;
        }
        self.records = self.records.saturating_add(records);
        if config.flush_messages.is_some_and(|max| self.records >= max) {
            self.begin(log_end);
        } else if let (None, Some(flush_ms)) = (self.due_ns, config.flush_ms) {
            self.due_ns = Some(
                now.mono_ns
                    .saturating_add(flush_ms.saturating_mul(1_000_000)),
            );
        }
    }

    /// Makes everything below durable.
    pub(super) fn begin(&mut self, log_end: i64) {
        *self = Flush {
            records: 0,
            due_ns: None,
            target: Some(log_end),
        };
    }

    /// Whether syncs are wanted until everything appended before is durable.
    pub(super) fn is_under_way(&self) -> bool {
        self.target.is_some()
    }

    fn reached(&mut self, durable_offset: i64) {
        self.target = self.target.filter(|target| *target > durable_offset);
    }
}

/// Something to be done to a partition's files. Whoever takes one performs it and brings the
/// result back; results may come in any order.
#[must_use = "the partition waits for it"]
pub struct Job<W: World> {
    partition: PartitionId,
    work: Work<W>,
}

enum Work<W: World> {
    Write(i64, WriteJob<W::File>),
    Zero(i64, ZeroJob<W::File>),
    Sync(i64, SyncJob<W::File>),
    Create(Create<W>),
    Seal(Box<Seal<W>>),
    SaveEpochs {
        world: W,
        path: PathBuf,
        bytes: Vec<u8>,
    },
    Learn(Box<Learn<W>>),
    Clean {
        world: W,
        dir: PathBuf,
        work: Box<CleanWork<W>>,
    },
    Remove {
        world: W,
        dir: PathBuf,
        step: RemovalStep,
    },
}

/// Reads the greatest timestamp of a sealed segment.
struct Learn<W: World> {
    world: W,
    dir: PathBuf,
    base_offset: i64,
    config: Arc<TopicConfig>,
}

/// Creates the next segment's file, with room for what waits.
struct Create<W: World> {
    world: W,
    path: PathBuf,
    base_offset: i64,
    options: AppendOptions,
    room_bytes: u64,
}

/// The result of a job.
#[must_use = "the partition waits for it"]
pub struct JobDone<W: World> {
    partition: PartitionId,
    result: Done<W>,
}

enum Done<W: World> {
    File(i64, JobResult),
    Created(i64, std::io::Result<AppendFile<W::File>>),
    Sealed(i64, Result<(SealedSegment<W>, Beside), NotSealed<W>>),
    EpochsSaved(std::io::Result<()>),
    Cleaned(Box<CleanDone<W>>),
    Learned(i64, Result<i64, LogError>),
    Removal(RemovalDone),
}

impl<W: World> Job<W> {
    /// Whose job it is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Performs it, on the partition's shard.
    pub async fn perform(self) -> JobDone<W> {
        let result = match self.work {
            Work::Write(base, job) => Done::File(base, job.perform().await),
            Work::Zero(base, job) => Done::File(base, job.perform().await),
            Work::Sync(base, job) => Done::File(base, job.perform().await),
            Work::Create(create) => Done::Created(create.base_offset, create.perform().await),
            Work::Seal(seal) => Done::Sealed(seal.base_offset(), seal.perform().await),
            Work::SaveEpochs { world, path, bytes } => {
                Done::EpochsSaved(world.write_file_atomic(&path, &bytes).await)
            }
            Work::Learn(learn) => Done::Learned(learn.base_offset, learn.perform().await),
            Work::Clean { world, dir, work } => {
                Done::Cleaned(Box::new(work.perform(&world, &dir).await))
            }
            Work::Remove { world, dir, step } => Done::Removal(step.perform(&world, &dir).await),
        };
        JobDone {
            partition: self.partition,
            result,
        }
    }
}

impl<W: World> JobDone<W> {
    /// Whose job it was.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl<W: World> Learn<W> {
    async fn perform(&self) -> Result<i64, LogError> {
        let learned = max_timestamp(&self.world, &self.dir, self.base_offset).await?;
        match learned {
            Some(timestamp) => Ok(timestamp),
            None => {
                let (dir, base) = (self.dir.display(), self.base_offset);
                warn!(%dir, base, "the time index is missing or garbled; rebuilding it");
                let config = &self.config;
                rebuild_indexes(&self.world, &self.dir, base, config)
                    .await
                    .map(|rebuilt| rebuilt.max_timestamp())
            }
        }
    }
}

impl<W: World> Create<W> {
    async fn perform(self) -> std::io::Result<AppendFile<W::File>> {
        let mut file = AppendFile::open(&self.world, &self.path, 0, self.options).await?;
        file.reserve(self.room_bytes);
        if let Some(job) = file.take_zero() {
            let result = job.perform().await;
            match file.complete(result) {
                Ok(_) => {}
                // Shows again when the first append finds no room.
                Err(AppendError::NoSpace(error)) => {
                    warn!(file = %self.path.display(), %error, "a new segment got no room ahead");
                }
                // Nothing is in the file yet: the log goes on without it.
                Err(failed @ AppendError::Failed(_)) => return Err(std::io::Error::other(failed)),
            }
        }
        Ok(file)
    }
}

impl<W: World> Partition<W> {
    /// Everything that can be started now. Call it after each change of the partition.
    pub fn take_jobs(&mut self, out: &mut Vec<Job<W>>) {
        if self.failure.is_some() {
            return;
        }
        let before = out.len();
        let partition = self.id;
        let mut push = |work| out.push(Job { partition, work });
        self.take_create(&mut push);
        let sync = self.flush.target.is_some() || self.config.durability == Durability::Disk;
        let write = !self.may_linger();
        for closing in &mut self.closing {
            if let Closing::Draining { segment, .. } = closing {
                take_file_jobs(segment, (true, false, sync), &mut push);
            }
        }
        take_file_jobs(&mut self.active, (write, true, sync), &mut push);
        self.wrote();
        if let Some(seal) = self.take_seal() {
            push(Work::Seal(seal));
        }
        // One at a time: what changes meanwhile goes with the next, however often it changes.
        if !self.epochs_saving && std::mem::take(&mut self.epochs_to_save) {
            self.epochs_saving = true;
            let (world, path) = (self.world.clone(), self.dir.join(LEADER_EPOCH_FILE));
            push(Work::SaveEpochs {
                world,
                path,
                bytes: self.epochs.to_bytes(),
            });
        }
        if let Some(step) = self.take_removal() {
            let (world, dir) = (self.world.clone(), self.dir.clone());
            push(Work::Remove { world, dir, step });
        }
        if let Some(work) = self.cleaning.take_work() {
            let (world, dir) = (self.world.clone(), self.dir.clone());
            let work = Box::new(work);
            push(Work::Clean { world, dir, work });
        }
        if let Some(base_offset) = self.to_learn.take() {
            push(Work::Learn(Box::new(Learn {
                world: self.world.clone(),
                dir: self.dir.clone(),
                base_offset,
                config: Arc::clone(&self.config),
            })));
        }
        self.jobs_in_flight += out.len() - before;
    }

    fn take_create(&mut self, push: &mut impl FnMut(Work<W>)) {
        let Rolling::Due(base_offset) = self.rolling else {
            return;
        };
        self.rolling = Rolling::UnderWay;
        let first = self.admission.first_bytes().unwrap_or(0);
        push(Work::Create(Create {
            world: self.world.clone(),
            path: segment_path(&self.dir, base_offset, FileKind::Log),
            base_offset,
            options: append_options(&self.config),
            room_bytes: self.admission.bytes().min(FIRST_ROOM_BYTES_MAX).max(first),
        }));
    }

    /// Takes a job's result in. Appends that waited for room are assigned here.
    pub fn complete(&mut self, shared: &mut Shared<'_, W>, done: JobDone<W>, now: Now) {
        assert_eq!(done.partition, self.id, "a result for another partition");
        self.jobs_in_flight = self
            .jobs_in_flight
            .checked_sub(1)
            .expect("a job that was taken");
        match done.result {
            Done::File(base, result) => self.file_done(shared, base, result),
            Done::Created(base, file) => self.created(base, file, now, shared.events),
            Done::Sealed(_, Err(NotSealed::Later(seal, why))) => self.put_off(seal, &why, now),
            Done::Sealed(base, sealed) => {
                let sealed = sealed.map_err(|not| match not {
                    NotSealed::Failed(failed) => failed,
                    NotSealed::Later(_, why) => AppendError::NoSpace(why),
                });
                self.seal_failures = 0;
                self.sealed(base, sealed, shared.events);
                self.retain_sealed(now, shared.events);
                self.plan_cleaning(now);
            }
            Done::EpochsSaved(Err(error)) => {
                self.epochs_saving = false;
                // The next seal or the close writes it again, and until then a crash rebuilds it.
                warn!(partition = self.name(), %error, "leader epochs not saved");
            }
            Done::EpochsSaved(Ok(())) => self.epochs_saving = false,
            Done::Learned(base, learned) => {
                if let Err(error) = &learned {
                    warn!(partition = self.name(), base, %error, "the age of a segment is not known");
                }
                self.learned(base, learned.ok(), now, shared.events);
            }
            Done::Cleaned(done) => self.clean_done(shared, *done, now),
            Done::Removal(done) => self.removal_done(done, now, shared.events),
        }
        self.flush.reached(self.durable_offset());
        self.let_go(shared.write_behind);
        self.advance(shared.events);
        self.admit(shared);
    }

    fn file_done(&mut self, shared: &mut Shared<'_, W>, base: i64, result: JobResult) {
        let segment = if self.active.base_offset() == base {
            Some(&mut self.active)
        } else {
            self.closing.iter_mut().find_map(|closing| match closing {
                Closing::Draining { segment, .. } if segment.base_offset() == base => {
                    Some(&mut **segment)
                }
                _ => None,
            })
        };
        let makes_space = matches!(&result, JobResult::Zero { .. });
        match segment
            .expect("a segment outlives its jobs")
            .complete(result)
        {
            Ok(()) if makes_space && std::mem::take(&mut self.disk_full) => {
                info!(partition = self.name(), "there is space again");
            }
            Ok(()) => {}
            Err(AppendError::NoSpace(source)) => {
                // What still fits is appended; the rest is refused, and the log stays healthy: the
                // next append asks for space again.
                self.admit(shared);
                if !self.admission.is_empty() {
                    // Said once: producers try again and again.
                    if !std::mem::replace(&mut self.disk_full, true) {
                        warn!(partition = self.name(), %source, "disk full; refusing appends");
                    }
                    let why = format!("the disk is full: {source}");
                    self.refuse_admission(&why, shared.events);
                }
            }
            Err(failed @ AppendError::Failed(_)) => self.fail(&failed.to_string(), shared.events),
        }
    }

    fn created(
        &mut self,
        base_offset: i64,
        file: std::io::Result<AppendFile<W::File>>,
        now: Now,
        events: &mut Vec<PartitionEvent>,
    ) {
        self.rolling = Rolling::No;
        self.must_roll = file.is_err();
        let file = match file {
            Ok(file) => file,
            Err(source) => {
                // Nothing of the log is touched by that; the next append tries again.
                if !std::mem::replace(&mut self.disk_full, true) {
                    error!(partition = self.name(), base_offset, %source, "no new segment; refusing appends");
                }
                let why = format!("no new segment could be created: {source}");
                self.retention_roll_failed(now);
                return self.refuse_admission(&why, events);
            }
        };
        let start = SegmentStart {
            base_offset,
            next_offset: base_offset,
            rolling_timestamp: None,
            created_ms: now.wall_ms,
            jitter_ms: jitter_ms(&self.config, self.world.random_u64()),
            last_batch: None,
        };
        let next = ActiveSegment::new(file, IndexBuilder::new(base_offset), start);
        let segment = Box::new(std::mem::replace(&mut self.active, next));
        assert_eq!(
            segment.next_offset(),
            base_offset,
            "nothing is appended during a roll"
        );
        let snapshot = self.producers.to_snapshot();
        self.closing
            .push_back(Closing::Draining { segment, snapshot });
    }

    pub(super) fn sealed(
        &mut self,
        base: i64,
        sealed: Result<(SealedSegment<W>, Beside), AppendError>,
        events: &mut Vec<PartitionEvent>,
    ) {
        let Some(Closing::Sealing(sealing)) = self.closing.pop_front() else {
            panic!("a seal that was not taken");
        };
        assert_eq!(sealing.segment.base_offset, base, "seals come in order");
        let (mut segment, beside) = match sealed {
            Ok(sealed) => sealed,
            Err(failed) => {
                // Not as it should be, but what was acknowledged in it can still be read.
                self.sealed.push_back(sealing.segment);
                return self.fail(&failed.to_string(), events);
            }
        };
        let next_offset = segment.next_offset;
        let (beside, unsaved) = match beside {
            Ok(()) => (Ok(()), None),
            Err((error, snapshot)) => (Err(error), Some(snapshot)),
        };
        segment.unsaved_snapshot = unsaved;
        self.sealed.push_back(segment);
        self.close_surplus_files();
        self.remove_below_log_start();
        match beside {
            Ok(()) if self.recovery_point < next_offset => {
                self.recovery_point = next_offset;
                events.push(PartitionEvent::RecoveryPoint(next_offset));
            }
            Ok(()) => {}
            Err(source) => {
                // The batches are safe; only what speeds up a start is missing, and a scan from the
                // unmoved recovery point makes it anew.
                warn!(partition = self.name(), base, %source, "indexes or snapshot not written");
            }
        }
    }

    /// When [`Partition::on_timer`] has something to do (`flush.ms`, `file.delete.delay.ms`), on
    /// the monotonic clock, ns.
    pub fn next_timer_ns(&self) -> Option<u64> {
        let due = self.flush.due_ns.into_iter().chain(self.removal.next_ns());
        let later = self.seal_later.as_ref().and_then(|later| later.due_ns);
        due.chain(later).min().filter(|_| self.failure.is_none())
    }

    /// To be called at that time; then [`Partition::take_jobs`].
    pub fn on_timer(&mut self, now: Now) {
        if self.flush.due_ns.is_some_and(|due| due <= now.mono_ns) {
            self.flush.begin(self.active.next_offset());
        }
        if let Some(later) = &mut self.seal_later {
            later.due_ns = later.due_ns.filter(|due| *due > now.mono_ns);
        }
        self.removal.on_timer(now);
    }
}

fn take_file_jobs<W: World>(
    segment: &mut ActiveSegment<W>,
    (write, zero, sync): (bool, bool, bool),
    push: &mut impl FnMut(Work<W>),
) {
    let base = segment.base_offset();
    if write && let Some(job) = segment.take_write() {
        push(Work::Write(base, job));
    }
    if zero && let Some(job) = segment.take_zero() {
        push(Work::Zero(base, job));
    }
    if sync && let Some(job) = segment.take_sync() {
        push(Work::Sync(base, job));
    }
}
