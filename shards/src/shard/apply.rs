//! Making a shard's partitions agree with an image: opens, removals, new settings and epochs.
//!
//! State only; images are applied one after the other, each as a whole, with a bounded number of
//! partitions on their way. Owns nobody's log: a partition that cannot be opened stays offline.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use chronik_catalog::{Image, Topic};
use chronik_coordinators::groups::TopicChanges;
use chronik_io::World;
use chronik_log::LogError;
use chronik_log::recovery::RecoveryHint;
use chronik_partition::remembered_logs::Writer;
use chronik_partition::{Partition, PartitionOptions};
use chronik_terms::PartitionId;

use super::{Effect, Shard, Sleeper, Slot};
use crate::internal::{Boot, InternalAnswer, Leftover};
use crate::limits::{FOLLOWING_PER_SLICE, PARTITION_TASKS_MAX};
use crate::placing::Placing;
use crate::request::Reply;

/// A partition to be opened; the driver clears its directory of another topic's log first.
pub(crate) struct OpenTask {
    pub(crate) directory: PathBuf,
    pub(crate) options: PartitionOptions,
    /// What the last run left; `None` for partitions of new topics.
    pub(crate) boot: Option<Arc<Boot>>,
    /// What is done to the directories first; for a log that was being moved.
    pub(crate) placing: Option<Placing>,
}

/// A partition, or why there is none, and what it takes to try again.
pub(crate) type Opened<W> = Result<Box<Partition<W>>, (LogError, Box<OpenTask>)>;

/// What a topic's partitions have to do for an image, one after the other. A change may touch every
/// partition there is: each is looked at when its turn comes, and no slice looks at many.
struct Task {
    topic: Arc<Topic>,
    /// The partition that is next.
    next: usize,
    /// Whether the topic is gone, and they with it.
    is_gone: bool,
}

/// Who waits for an image to be applied.
enum Waiter<R> {
    Publish(R),
    Load(R),
}

/// Images to be applied and what is left to do for the current one.
pub(super) struct Applying<R> {
    images: VecDeque<(Arc<Image>, Waiter<R>)>,
    current: Option<Waiter<R>>,
    tasks: VecDeque<Task>,
    in_flight: usize,
    /// The next slice comes by itself.
    is_resting: bool,
    /// A slice is being done.
    is_running: bool,
    /// Partitions that could not be opened for the first image.
    failed: Vec<PartitionId>,
    /// Directories that have the names of deleted ones since the current image, perhaps not durably.
    renamed: Vec<Leftover>,
    /// Directories that could not be removed for the current image.
    left: Vec<Leftover>,
}

impl<R> Default for Applying<R> {
    fn default() -> Self {
        Applying {
            images: VecDeque::new(),
            current: None,
            tasks: VecDeque::new(),
            in_flight: 0,
            is_resting: false,
            is_running: false,
            failed: Vec::new(),
            renamed: Vec::new(),
            left: Vec::new(),
        }
    }
}

impl<R> Applying<R> {
    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none() && self.images.is_empty()
    }
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn load(&mut self, boot: Arc<Boot>, responder: R) {
        self.dirs = Arc::clone(&boot.dirs);
        let image = Arc::clone(&boot.image);
        self.upkeep.remembering.begin_run(Writer {
            broker_epoch: image.broker_epoch,
            boot_id: boot.boot_id,
        });
        self.following.boot = Some(boot);
        self.following
            .applying
            .images
            .push_back((image, Waiter::Load(responder)));
        self.apply_next();
    }

    pub(super) fn publish(&mut self, image: Arc<Image>, responder: R) {
        if self.stopping.is_some() {
            return self.reply(responder, Reply::Done);
        }
        self.following
            .applying
            .images
            .push_back((image, Waiter::Publish(responder)));
        self.apply_next();
    }

    fn apply_next(&mut self) {
        while self.following.applying.current.is_none() {
            let Some((image, waiter)) = self.following.applying.images.pop_front() else {
                return;
            };
            self.following.applying.current = Some(waiter);
            let old = std::mem::replace(&mut self.image, image);
            if !Arc::ptr_eq(&old.broker_configs, &self.image.broker_configs) {
                self.settings_changed();
            }
            self.plan_tasks(&old);
            self.run_tasks();
        }
    }

    /// What changed between two images.
    fn plan_tasks(&mut self, old: &Image) {
        let delta = self.image.topics_since(old);
        let mut changes = TopicChanges {
            created: !delta.created.is_empty(),
            ..TopicChanges::default()
        };
        for topic in &delta.gone {
            let ids = changes.gone.entry(topic.name.clone()).or_default();
            ids.insert(topic.id);
        }
        let there = delta.created.into_iter().chain(delta.changed);
        for (topic, is_gone) in there
            .map(|topic| (topic, false))
            .chain(delta.gone.into_iter().map(|topic| (topic, true)))
        {
            self.following.applying.tasks.push_back(Task {
                topic,
                next: 0,
                is_gone,
            });
        }
        self.groups_see_image(&changes);
    }

    /// The next partition that has to do something, in its turn.
    fn next_task(&mut self) -> Option<(Arc<Topic>, PartitionId, bool)> {
        loop {
            let task = self.following.applying.tasks.front_mut()?;
            let (topic, index) = (Arc::clone(&task.topic), task.next);
            let is_gone = task.is_gone;
            task.next += 1;
            if index >= topic.partitions.len() {
                self.following.applying.tasks.pop_front();
                continue;
            }
            let id = PartitionId {
                topic_id: topic.id,
                index: i32::try_from(index).ok()?,
            };
            return Some((topic, id, is_gone));
        }
    }

    /// Lets a partition follow the image as it is now.
    fn follow(&mut self, topic: &Topic, id: PartitionId) {
        let info = usize::try_from(id.index).ok();
        let Some(info) = info.and_then(|index| topic.partitions.get(index)) else {
            return;
        };
        if info.leader != self.image.node_id || !self.owns(&self.image, id) {
            return;
        }
        let now = self.now();
        match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => {
                let before = partition.leader_epoch();
                partition.set_config(Arc::clone(&topic.config));
                partition.plan_retention(now);
                partition.plan_cleaning(now);
                partition.set_leader_epoch(info.leader_epoch);
                let moved = partition.leader_epoch() != before;
                self.collect_jobs(id);
                if moved {
                    self.wake_all_readers(id);
                }
            }
            Some(_) => {}
            None => match self
                .dirs
                .partition(&info.directories, &topic.name, id.index)
            {
                Some(_) if self.is_unmade(topic, id) => self.open_behind(id),
                Some(directory) => {
                    let task = self.open_task(topic, id, (directory, info.leader_epoch));
                    self.partitions.insert(id, Slot::Opening);
                    self.following.applying.in_flight += 1;
                    self.out.effects.push(Effect::Open(Box::new(task)));
                }
                None => {
                    let error = LogError::Homeless(info.directories.clone());
                    self.offline(id, &error);
                    // The coordinator waits for the others until they are open.
                    self.group_partition_opened(id);
                }
            },
        }
    }

    /// Whether nobody has made a partition's directory yet.
    fn is_unmade(&self, topic: &Topic, id: PartitionId) -> bool {
        let home = self.directory_of(id);
        let boot = self.following.boot.as_ref();
        boot.is_none_or(|boot| boot.is_new(id, (&topic.name, home)))
    }

    pub(super) fn open_task(
        &self,
        topic: &Topic,
        id: PartitionId,
        (directory, leader_epoch): (PathBuf, i32),
    ) -> OpenTask {
        let boot = self.following.boot.as_ref();
        let recovery = boot.map_or_else(RecoveryHint::default, |boot| boot.hint(id));
        let remembered = boot.and_then(|boot| boot.remembered(id));
        let cleaned_offset = boot.and_then(|boot| boot.cleaned.get(&id).copied());
        let cleaned_offset = cleaned_offset.unwrap_or(0);
        let left_behind = boot.map_or_else(Vec::new, |boot| boot.left_behind.of(id));
        OpenTask {
            directory,
            boot: self.following.boot.clone(),
            placing: boot.and_then(|boot| boot.placings.get(&id).cloned()),
            options: PartitionOptions {
                id,
                topic: topic.name.clone(),
                leader_epoch,
                config: Arc::clone(&topic.config),
                recovery,
                remembered,
                left_behind,
                check_times: self.upkeep.check_times,
                cleaned_offset,
            },
        }
    }

    /// A partition of a deleted topic goes, with its directory if that can be reached.
    fn depart(&mut self, topic: &Topic, id: PartitionId) {
        if !self.partitions.contains_key(&id) {
            return;
        }
        let info = usize::try_from(id.index).ok();
        let info = info.and_then(|index| topic.partitions.get(index));
        let directory = info.and_then(|info| {
            let dirs = &info.directories;
            self.dirs.partition(dirs, &topic.name, id.index)
        });
        self.following.applying.in_flight += 1;
        self.remove(id, directory);
    }

    /// Starts as much as may be on its way; answers when nothing is left.
    fn run_tasks(&mut self) {
        // One that is done at once would come back here for each that follows it.
        if std::mem::replace(&mut self.following.applying.is_running, true) {
            return;
        }
        let mut looked_at = 0;
        while !self.following.applying.is_resting
            && self.following.applying.in_flight < PARTITION_TASKS_MAX
        {
            if looked_at == FOLLOWING_PER_SLICE {
                self.following.applying.is_resting = true;
                self.out.effects.push(Effect::Rest(Sleeper::Image));
                break;
            }
            looked_at += 1;
            match self.next_task() {
                Some((topic, id, true)) => self.depart(&topic, id),
                Some((topic, id, false)) => self.follow(&topic, id),
                None => break,
            }
        }
        self.following.applying.is_running = false;
        if self.following.applying.is_resting {
            return;
        }
        if self.following.applying.in_flight > 0 {
            return;
        }
        let renamed = std::mem::take(&mut self.following.applying.renamed);
        if !renamed.is_empty() {
            // Nobody may hear of the deletion, nor a snapshot forget the topic, before these names last.
            self.following.applying.in_flight += 1;
            self.out.effects.push(Effect::RemoveBehind(renamed));
            return;
        }
        if self.upkeep.corrections.are_asked() {
            // `corrected` goes on.
            return self.flush_notes();
        }
        match self.following.applying.current.take() {
            Some(Waiter::Publish(responder)) => {
                match std::mem::take(&mut self.following.applying.left) {
                    left if left.is_empty() => self.reply(responder, Reply::Done),
                    left => self.answer(responder, InternalAnswer::LeftOver(left)),
                }
            }
            Some(Waiter::Load(responder)) => {
                self.following.boot = None;
                self.out.effects.push(Effect::Loaded(Ok(())));
                let failed = std::mem::take(&mut self.following.applying.failed);
                self.answer(responder, InternalAnswer::Loaded { failed });
                // Starts that were never followed by a clean stop have made the log long.
                self.snapshot_if_due();
            }
            None => {}
        }
    }

    /// What was waited for besides the tasks has come.
    pub(super) fn applied_so_far(&mut self) {
        self.run_tasks();
        self.apply_next();
    }

    /// Others had their turn.
    pub(super) fn apply_rested(&mut self) {
        self.following.applying.is_resting = false;
        self.run_tasks();
        self.apply_next();
        self.close_when_idle();
    }

    fn task_done(&mut self) {
        self.following.applying.in_flight -= 1;
        self.applied_so_far();
        self.flush_notes();
        self.close_when_idle();
    }

    pub(super) fn opened(&mut self, id: PartitionId, result: Opened<W>) {
        if let Some(Slot::Reopening(_)) = self.partitions.get(&id)
            && let Some(Slot::Reopening(reopening)) = self.partitions.remove(&id)
        {
            return self.reopened(id, result, reopening);
        }
        if let Some(Slot::Moving) = self.partitions.get(&id) {
            return self.opened_after_move(result);
        }
        match result {
            Ok(partition) => {
                self.online_now(id, partition);
            }
            Err((error, task)) if error.is_not_now() => {
                self.following.applying.failed.push(id);
                self.open_later(id, (error, task), 1);
            }
            Err((error, _)) => self.offline(id, &error),
        }
        self.collect_jobs(id);
        self.group_partition_opened(id);
        self.task_done();
    }

    /// A log is there.
    pub(super) fn online_now(&mut self, id: PartitionId, partition: Box<Partition<W>>) {
        match partition.corrects_log_start() {
            true => self.correct(id, partition),
            false => self.serve_log(id, partition),
        }
    }

    /// A log is served from now on: it follows the image as it is now.
    pub(super) fn serve_log(&mut self, id: PartitionId, mut partition: Box<Partition<W>>) {
        let now = self.now();
        if let Some(topic) = self.image.topic_by_id(id.topic_id) {
            partition.set_config(Arc::clone(&topic.config));
        }
        partition.plan_retention(now);
        partition.plan_cleaning(now);
        self.partitions.insert(id, Slot::Online(partition));
    }

    pub(super) fn offline(&mut self, id: PartitionId, error: &LogError) {
        self.meters.logs_failed.add(1);
        match error {
            // The start has said once, for all of them, which directory is not there.
            LogError::Homeless(_) => {
                tracing::debug!(topic = %id.topic_id, partition = id.index, %error, "log offline");
            }
            _ => {
                tracing::error!(topic = %id.topic_id, partition = id.index, %error, "log offline");
            }
        }
        self.following.applying.failed.push(id);
        self.partitions.insert(id, Slot::Failed);
    }

    /// Takes a partition of a deleted topic out of service.
    pub(super) fn remove(&mut self, id: PartitionId, directory: Option<PathBuf>) {
        let directory = self.forget_waiting(id, directory);
        let directory = directory.and_then(|directory| self.remove_after_move(id, directory));
        let Some(directory) = directory else {
            return;
        };
        self.time_chore(id, None);
        self.time_cleaning(id, None);
        self.cache.forget(id);
        match self.partitions.remove(&id) {
            Some(Slot::Online(mut partition)) => {
                partition.forgo();
                partition.stop_cleaning();
                let waiters = partition.take_waiters();
                self.write_behind.release();
                self.partitions.insert(id, Slot::Draining(partition));
                self.search_what_is_written(id);
                self.refuse_waiters(id, waiters);
                self.wake_all_readers(id);
                self.remove_when_idle(id);
            }
            Some(Slot::Unopened { .. }) => {
                // Nobody has made its directory.
                self.new_is_tried(id);
                self.removed(id, Ok(None));
            }
            _ => match directory {
                Some(directory) => {
                    self.partitions.insert(id, Slot::Removing);
                    self.out.effects.push(Effect::Remove { id, directory });
                }
                // A start that can use its directory again finds that the topic is gone.
                None => self.removed(id, Ok(None)),
            },
        }
    }

    /// Lets the directory of a deleted partition go once none of its jobs is on its way.
    pub(super) fn remove_when_idle(&mut self, id: PartitionId) {
        let idle = match self.partitions.get(&id) {
            Some(Slot::Draining(partition)) if partition.jobs_in_flight() == 0 => {
                partition.dir().to_owned()
            }
            _ => return,
        };
        // The files close with the partition, before their directory goes.
        self.partitions.insert(id, Slot::Removing);
        self.out.effects.push(Effect::Remove {
            id,
            directory: idle,
        });
    }

    /// The directory of a deleted partition has another name, or there is none.
    pub(super) fn removed(
        &mut self,
        id: PartitionId,
        result: Result<Option<Leftover>, (LogError, Leftover)>,
    ) {
        match result {
            Ok(renamed) => self.following.applying.renamed.extend(renamed),
            Err((error, left)) if error.is_not_now() => {
                tracing::warn!(topic = %id.topic_id, partition = id.index, %error, "not removed yet");
                self.following.applying.left.push(left);
            }
            // The next start finds the directory and knows that the topic is gone.
            Err((error, _)) => {
                tracing::error!(topic = %id.topic_id, partition = id.index, %error, "not removed");
            }
        }
        self.following.notes.forget(id);
        self.partitions.remove(&id);
        self.chores_done(id);
        self.cleaning_done(id);
        self.task_done();
    }

    /// The names of the deleted directories last, but of these.
    pub(super) fn removed_behind(&mut self, left: Vec<Leftover>) {
        self.following.applying.left.extend(left);
        self.task_done();
    }
}
