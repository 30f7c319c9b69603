//! Logs of partitions that are new: opened behind the image that names them, in turns, while the catalogue
//! goes on. Those that a request waits for go first, topic by topic in turns, so that a topic of thousands
//! stands before no other.
//!
//! State only. A new topic is there once the metadata log has it (as in Kafka); making directories and
//! files takes the disk milliseconds for each partition, and nobody waits for all of them. A partition that
//! was never begun has no directory: deleting its topic or stopping the broker forgets it, and the next start
//! makes it. Its requests wait elsewhere (`early`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chronik_io::World;
use chronik_log::LogError;
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use super::early::Early;
use super::shortages::Reopening;
use super::{Effect, Shard, Sleeper, Slot};
use crate::limits::{OPENINGS_BEHIND_MAX, OPENINGS_PER_SLICE, PARTITION_TASKS_MAX};

/// See the module's text.
pub(super) struct Openings<R> {
    /// In the order of the catalogue. May name what is gone or was begun since.
    queue: VecDeque<PartitionId>,
    /// Those of them that requests wait for.
    asked: Asked,
    in_flight: usize,
    /// New partitions whose first try is not done.
    unopened: usize,
    is_resting: bool,
    pub(super) early: Early<R>,
}

/// Partitions by topic, and whose turn it is. No topic is without a partition.
#[derive(Default)]
struct Asked {
    topics: VecDeque<Uuid>,
    partitions: BTreeMap<Uuid, VecDeque<PartitionId>>,
}

impl Asked {
    fn push(&mut self, id: PartitionId) {
        let of_topic = self.partitions.entry(id.topic_id).or_default();
        if of_topic.is_empty() {
            self.topics.push_back(id.topic_id);
        }
        of_topic.push_back(id);
    }

    fn pop(&mut self) -> Option<PartitionId> {
        let topic = self.topics.pop_front()?;
        let of_topic = self.partitions.get_mut(&topic)?;
        let id = of_topic.pop_front();
        match of_topic.is_empty() {
            true => drop(self.partitions.remove(&topic)),
            false => self.topics.push_back(topic),
        }
        id
    }
}

impl<R> Default for Openings<R> {
    fn default() -> Self {
        Openings {
            queue: VecDeque::new(),
            asked: Asked::default(),
            in_flight: 0,
            unopened: 0,
            is_resting: false,
            early: Early::default(),
        }
    }
}

impl<R> Openings<R> {
    /// Whether every new partition was tried.
    pub(super) fn are_done(&self) -> bool {
        self.unopened == 0
    }

    /// Whose turn it is. What nobody asked for leaves room for what somebody may ask for.
    fn next(&mut self) -> Option<PartitionId> {
        if self.in_flight >= PARTITION_TASKS_MAX {
            return None;
        }
        if let Some(id) = self.asked.pop() {
            return Some(id);
        }
        if self.in_flight >= OPENINGS_BEHIND_MAX {
            return None;
        }
        self.queue.pop_front()
    }

    /// A new partition was tried, or will not be.
    fn is_tried(&mut self) {
        self.unopened = self.unopened.saturating_sub(1);
        if self.unopened == 0 {
            // What is left names partitions that are gone.
            self.queue = VecDeque::new();
            self.asked = Asked::default();
        }
    }
}

impl<W: World, R> Shard<W, R> {
    /// A partition is new: its log is opened when its turn comes.
    pub(super) fn open_behind(&mut self, id: PartitionId) {
        let is_asked = self.following.openings.early.awaits(id);
        self.partitions.insert(id, Slot::Unopened { is_asked });
        self.following.openings.unopened += 1;
        match is_asked {
            true => self.following.openings.asked.push(id),
            false => self.following.openings.queue.push_back(id),
        }
        self.begin_openings();
    }

    /// A request waits for this partition: it goes before those that nobody has asked for.
    pub(super) fn open_sooner(&mut self, id: PartitionId) {
        if let Some(Slot::Unopened { is_asked }) = self.partitions.get_mut(&id)
            && !std::mem::replace(is_asked, true)
        {
            self.following.openings.asked.push(id);
            self.begin_openings();
        }
    }

    /// Opens as many as may be on their way.
    pub(super) fn begin_openings(&mut self) {
        if self.stopping.is_some() || self.following.openings.is_resting {
            return;
        }
        for _ in 0..OPENINGS_PER_SLICE {
            let Some(id) = self.following.openings.next() else {
                return;
            };
            if let Some(Slot::Unopened { .. }) = self.partitions.get(&id) {
                self.open_new(id);
            }
        }
        self.rest_from_openings();
    }

    /// Lets others have their turn before more is opened, or let in.
    pub(super) fn rest_from_openings(&mut self) {
        if !std::mem::replace(&mut self.following.openings.is_resting, true) {
            self.out.effects.push(Effect::Rest(Sleeper::Openings));
        }
    }

    /// Others had their turn.
    pub(super) fn openings_rested(&mut self) {
        self.following.openings.is_resting = false;
        self.begin_openings();
        self.let_early_in();
    }

    fn open_new(&mut self, id: PartitionId) {
        let image = Arc::clone(&self.image);
        let index = usize::try_from(id.index).ok();
        let topic = image.topic_by_id(id.topic_id).zip(index);
        let Some((topic, info)) =
            topic.and_then(|(topic, index)| Some((topic, topic.partitions.get(index)?)))
        else {
            // Its topic is deleted, and it goes in this image's turn.
            return;
        };
        let directory = self
            .dirs
            .partition(&info.directories, &topic.name, id.index);
        let Some(directory) = directory else {
            self.offline(id, &LogError::Homeless(info.directories.clone()));
            self.group_partition_opened(id);
            return self.new_is_tried(id);
        };
        let task = self.open_task(topic, id, (directory, info.leader_epoch));
        let reopening = Slot::Reopening(Reopening::first());
        self.partitions.insert(id, reopening);
        self.following.openings.in_flight += 1;
        self.out.effects.push(Effect::Open(Box::new(task)));
    }

    /// The first try of a new partition's log has come back; its slot says how it went.
    pub(super) fn new_opened(&mut self, id: PartitionId) {
        self.following.openings.in_flight -= 1;
        self.new_is_tried(id);
        self.begin_openings();
    }

    /// A new partition is open, cannot be opened, or is gone: whoever waits for it is told.
    pub(super) fn new_is_tried(&mut self, id: PartitionId) {
        self.following.openings.is_tried();
        if self.following.openings.early.is_settled(id) {
            self.let_early_in();
        }
    }
}
