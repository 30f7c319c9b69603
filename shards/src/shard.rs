//! The state of one shard: its partitions, who waits for them, and the image they follow.
//!
//! Runs on every shard, owned by its driver. A synchronous state machine: a request or a result
//! goes in through `&mut self`, effects come out, nothing is awaited (design D6). Generic over the
//! way back to a caller, so that tests need no mesh.

mod ahead;
mod appends;
mod apply;
mod asked_again;
mod behind;
mod charge;
mod checkpoints;
mod chores;
mod cleaner;
mod clock;
mod control;
mod corrections;
mod disk_reads;
mod early;
mod effects;
mod groups;
mod holding;
mod jobs;
mod leftovers;
mod lookups;
mod moves;
mod openings;
pub(crate) mod purgatory;
mod reads;
mod remembering;
mod shortages;
mod state;
mod stop;
pub(crate) mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_coordinators::groups::{Coordinator, GroupSettings};
use chronik_io::World;
use chronik_partition::Partition;
use chronik_partition::cache::{BatchCache, CacheLimits};
use chronik_partition::write_behind::{Ring, WriteBehind};
use chronik_protocol::ErrorCode;
use chronik_terms::{EpochAnswer, EpochQuery, Now, PartitionId};

use crate::checkpoint_files::{CheckpointOffsets, DeadNumbers};
use crate::internal::{Boot, Internal, InternalAnswer, InternalReply};
use crate::limits::{CACHE_COLD_BYTES, CACHE_INDEX_BYTES, CACHE_TAIL_BYTES, TIMERS_PER_SLICE};
use crate::log_dirs::LogDirs;
use crate::meters::ShardMeters;
use crate::placement::shard_of;
use crate::request::{Reply, Request};
pub(crate) use apply::{OpenTask, Opened};
use checkpoints::Checkpoints;
use control::Control;
pub(crate) use effects::{CatalogueEffect, Done, Effect, ReadFor, Sleeper};
use groups::Groups;
use state::{Appending, Designated, Following, Out, Reading, Upkeep, Waiting};
use stop::Stopping;
use timers::Timer;

/// A partition's place on the shard.
enum Slot<W: World> {
    Opening,
    /// Its topic is new: it is opened when its turn comes, and sooner if somebody asks for it.
    Unopened {
        is_asked: bool,
    },
    Online(Box<Partition<W>>),
    /// It could not be opened; offline until restart.
    Failed,
    /// It could not be opened yet.
    Waiting(shortages::Waiting),
    /// It is tried again, or for the first time and no image waits for that.
    Reopening(shortages::Reopening),
    /// It is open, and served once the checkpoint files name its start rightly.
    Correcting(Box<Partition<W>>),
    /// Its topic is deleted; jobs on their way are waited for, then the directory goes.
    Draining(Box<Partition<W>>),
    Removing,
    Closing,
    /// Closed for a moment, while its log moves to another directory.
    Moving,
}

impl<W: World> Slot<W> {
    /// Whether there is a log that cannot be used, now or at all.
    fn is_offline(&self) -> bool {
        match self {
            Slot::Failed | Slot::Waiting(_) | Slot::Correcting(_) => true,
            Slot::Reopening(reopening) => !reopening.is_first(),
            _ => false,
        }
    }
}

/// The state of one shard; see the module's text.
pub(crate) struct Shard<W: World, R> {
    world: W,
    index: usize,
    count: usize,
    image: Arc<Image>,
    /// Where logs are; none before the first image.
    dirs: Arc<LogDirs>,
    cache: BatchCache,
    write_behind: WriteBehind<W>,
    partitions: BTreeMap<PartitionId, Slot<W>>,
    appending: Appending<R>,
    reading: Reading<W, R>,
    waiting: Waiting<R>,
    following: Following<R>,
    upkeep: Upkeep,
    designated: Designated<R>,
    stopping: Option<Stopping<R>>,
    meters: Arc<ShardMeters>,
    out: Out<W, R>,
}

/// What a shard is made of.
pub(crate) struct ShardOptions {
    pub(crate) index: usize,
    pub(crate) count: usize,
    /// `log.retention.check.interval.ms`.
    pub(crate) retention_check_ms: u64,
    /// `chronik.writebehind.bytes`.
    pub(crate) write_behind_bytes: usize,
    pub(crate) remember_after_bytes: u64,
}

impl<W: World, R> Shard<W, R> {
    /// A shard without partitions, before its first image.
    pub(crate) fn new(world: W, options: &ShardOptions, empty: Arc<Image>) -> Self {
        Shard {
            upkeep: Upkeep::new(&world, options, &empty),
            world,
            index: options.index,
            count: options.count,
            image: empty,
            dirs: Arc::default(),
            cache: BatchCache::new(CacheLimits {
                tail_bytes: CACHE_TAIL_BYTES,
                cold_bytes: CACHE_COLD_BYTES,
                index_bytes: CACHE_INDEX_BYTES,
            }),
            write_behind: WriteBehind::new(options.write_behind_bytes),
            partitions: BTreeMap::new(),
            appending: Appending::default(),
            reading: Reading::default(),
            waiting: Waiting::default(),
            following: Following::default(),
            designated: Designated::default(),
            stopping: None,
            meters: Arc::default(),
            out: Out::default(),
        }
    }

    /// Takes the opened catalogue over: from now on this is the designated shard.
    pub(crate) fn adopt_catalogue(
        &mut self,
        log: Partition<W>,
        uncovered_bytes: u64,
        (known, dead): (CheckpointOffsets, DeadNumbers),
        boot: &Boot,
    ) {
        self.dirs = Arc::clone(&boot.dirs);
        self.partitions
            .insert(log.id(), Slot::Online(Box::new(log)));
        self.designated.control = Some(Control::new(uncovered_bytes));
        let settings = GroupSettings::of(&self.image.broker_settings());
        self.designated.groups = Some(Groups::new(settings));
        let image = Arc::clone(&boot.image);
        self.designated.checkpoints = Some(Checkpoints::new(known, dead, image));
        self.write_checkpoints();
    }

    /// What the checkpoint files should hold, as far as it is known here.
    pub(crate) fn checkpoints(&self) -> CheckpointOffsets {
        let known = self.designated.checkpoints.as_ref();
        known.map(Checkpoints::offsets).unwrap_or_default()
    }

    /// The directory of the catalogue; empty before the first image.
    pub(crate) fn data(&self) -> &Path {
        self.dirs.first()
    }

    /// All directories; none before the first image.
    pub(crate) fn dirs(&self) -> &Arc<LogDirs> {
        &self.dirs
    }

    /// The image this shard follows.
    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Its meters, to be read from any thread.
    pub(crate) fn meters(&self) -> Arc<ShardMeters> {
        Arc::clone(&self.meters)
    }

    /// Takes the effects of what was put in, in order.
    pub(crate) fn take_effects(&mut self, out: &mut VecDeque<Effect<W, R>>) {
        out.extend(self.out.effects.drain(..));
    }

    /// When [`Shard::on_timer`] has something to do, on the monotonic clock, ns.
    pub(crate) fn next_timer_ns(&self) -> Option<u64> {
        self.waiting.timers.next_ns()
    }

    /// Puts a request in.
    pub(crate) fn on_request(&mut self, request: Request, responder: R) {
        if let Some((request, responder)) = self.hold_early(request, responder) {
            self.hold_or_serve(request, responder);
        }
    }

    fn hold_or_serve(&mut self, request: Request, responder: R) {
        if let Some((request, responder)) = self.hold(request, responder) {
            self.serve(request, responder);
        }
    }

    fn serve(&mut self, request: Request, responder: R) {
        match request {
            Request::Append(request) => self.append(request, responder),
            Request::Read(request) => self.read_or_park(request, responder),
            Request::Await(request) => self.park_await(request, responder),
            Request::Cancel(token) => {
                if !self.cancel_early(token)
                    && let Some(key) = self.waiting.purgatory.find(token)
                {
                    self.end_parked(key, chronik_terms::Wake::Cancelled);
                }
                self.reply(responder, Reply::Done);
            }
            Request::ListOffsets(queries) => self.list_offsets(queries, responder),
            Request::SegmentOffsets(queries) => {
                let answers = queries.iter().map(|query| self.segment_offsets(query));
                let answers = answers.collect();
                self.reply(responder, Reply::SegmentOffsets(answers));
            }
            Request::EpochEnds(queries) => {
                let answers = queries.iter().map(|query| self.epoch_end(query)).collect();
                self.reply(responder, Reply::EpochEnds(answers));
            }
            Request::DeleteRecords(parts) => self.delete_records(&parts, responder),
            Request::DescribeLogs(scope) => {
                let logs = self.describe_logs(&scope);
                self.reply(responder, Reply::DescribeLogs(logs));
            }
            Request::MoveLogs(moves) => self.move_logs(&moves, responder),
            Request::Publish(image) => self.publish(image, responder),
            Request::Control(request) => self.control(request, responder),
            Request::Group(request) => self.group(*request, responder),
            Request::Stop => self.stop_all(responder),
            Request::Internal(request) => self.on_internal(request.0, responder),
        }
    }

    fn on_internal(&mut self, request: Internal, responder: R) {
        match request {
            Internal::Load(boot) => self.load(boot, responder),
            Internal::Abandon(reason) => {
                self.out.effects.push(Effect::Loaded(Err(reason)));
                self.reply(responder, Reply::Done);
            }
            Internal::Note(notes) => self.take_notes(&notes, responder),
            Internal::Close => self.close_all(responder),
        }
    }

    /// Puts the result of an effect in.
    pub(crate) fn on_done(&mut self, done: Done<W>) {
        match done {
            Done::Job(done) => self.job_done(done),
            Done::Read(done, reader) => match reader {
                ReadFor::Request { read, part } => self.read_done(read, part, done),
                ReadFor::Prefetch => self.ahead_done(done),
                ReadFor::Groups(load) => self.group_read(load, done),
            },
            Done::Offsets { query, part, done } => self.offsets_done(query, part, done),
            Done::Opened { id, result } => self.opened(id, result),
            Done::Removed { id, result } => self.removed(id, result),
            Done::RemovedBehind(left) => self.removed_behind(left),
            Done::Closed { id, result } => self.closed(id, result),
            Done::Judged(judged) => self.judged(*judged),
            Done::Published(left) => self.published(left),
            Done::LeftoversRenamed(left, count) => self.leftovers_renamed(left, count),
            Done::LeftoversRemoved(left, count) => self.leftovers_removed(left, count),
            Done::Snapshot(result) => self.snapshot_written(result),
            Done::Noted(durable) => self.noted(&durable),
            Done::CheckpointsWritten(written) => self.checkpoints_written(written),
            Done::Moved(serial, done) => self.move_done(serial, done),
            Done::RingMade(result) => self.ring_made(result),
            Done::Rested(sleeper) => match sleeper {
                Sleeper::Requests => self.rested(),
                Sleeper::Image => self.apply_rested(),
                Sleeper::Openings => self.openings_rested(),
                Sleeper::Reads => self.rested_from_reads(),
                Sleeper::Retention => self.rested_from_chores(),
                Sleeper::LogCheckpoint => self.remember_some(),
                Sleeper::Groups => self.with_groups(Coordinator::rested),
            },
            Done::RememberedWritten(result) => self.remembered_written(result),
            Done::GroupUnfolded(load, unfolded) => self.group_unfolded(load, unfolded),
        }
    }

    /// Does what is due, or a part of it: [`Shard::next_timer_ns`] tells whether there is more.
    pub(crate) fn on_timer(&mut self) {
        let now = self.now();
        for _ in 0..TIMERS_PER_SLICE {
            let Some(timer) = self.waiting.timers.pop(now.mono_ns) else {
                return;
            };
            match timer {
                Timer::Append(key) => self.append_expired(key),
                Timer::Parked(key) => self.end_parked(key, chronik_terms::Wake::Deadline),
                Timer::Partition(id) => {
                    self.waiting.timed_partitions.remove(&id);
                    if let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) {
                        partition.on_timer(now);
                    }
                    self.collect_jobs(id);
                }
                Timer::Chore(id) => self.chore_due(id),
                Timer::Clean(id) => self.cleaning_due(id),
                Timer::Reopen(id) => self.reopen(id),
                Timer::Early => self.early_due(),
                Timer::Checkpoints => self.write_checkpoints_again(),
                Timer::Corrections => self.correct_again(),
                Timer::Snapshot => self.snapshot_again(),
                Timer::Leftovers => self.leftovers_due(),
                Timer::WriteBehind => self.write_what_lingers(),
                Timer::Clock => self.look_at_clock(now),
                Timer::ExpireProducers => self.expire_producers(now),
                Timer::Groups => self.groups_due(),
                Timer::MoveAgain(id) => self.move_again(id),
                Timer::MoveLate => self.move_is_late(),
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            wall_ms: self.world.now_ms(),
            mono_ns: self.world.monotonic_ns(),
        }
    }

    fn reply(&mut self, responder: R, reply: Reply) {
        self.out.effects.push(Effect::Reply(responder, reply));
    }

    fn answer(&mut self, responder: R, answer: InternalAnswer) {
        self.reply(responder, Reply::Internal(InternalReply(answer)));
    }

    /// The partition, if it can be used here; else Kafka's reason why not.
    fn online(&mut self, id: PartitionId) -> Result<&mut Partition<W>, ErrorCode> {
        let usable = matches!(self.partitions.get(&id), Some(Slot::Online(_)));
        if !usable || id == chronik_terms::METADATA_PARTITION {
            self.wanted(id);
            return Err(self.absence(id));
        }
        match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => Ok(partition),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Why a partition cannot be used here.
    fn absence(&self, id: PartitionId) -> ErrorCode {
        let slot = self.partitions.get(&id);
        if slot.is_some_and(Slot::is_offline) {
            return ErrorCode::KafkaStorageError;
        }
        let Some(topic) = self.image.topic_by_id(id.topic_id) else {
            return ErrorCode::UnknownTopicId;
        };
        let known = usize::try_from(id.index).is_ok_and(|index| index < topic.partitions.len());
        if known {
            ErrorCode::NotLeaderOrFollower
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }

    /// The partition, if the client's idea of its leader epoch is ours (KIP-320).
    fn online_in_epoch(
        &mut self,
        id: PartitionId,
        current_leader_epoch: i32,
    ) -> Result<&mut Partition<W>, ErrorCode> {
        let partition = self.online(id)?;
        match current_leader_epoch {
            -1 => Ok(partition),
            epoch if epoch < partition.leader_epoch() => Err(ErrorCode::FencedLeaderEpoch),
            epoch if epoch > partition.leader_epoch() => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(partition),
        }
    }

    fn owns(&self, image: &Image, id: PartitionId) -> bool {
        shard_of(image, id, self.count) == self.index
    }

    fn epoch_end(&mut self, query: &EpochQuery) -> EpochAnswer {
        match self.online_in_epoch(query.partition, query.current_leader_epoch) {
            Ok(partition) => partition.epoch_end(query),
            Err(error) => EpochAnswer::failed(error),
        }
    }
}
