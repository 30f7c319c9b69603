//! A coordinator whose logs are lists and whose time goes on when it is told to. Appends wait until
//! the test decides them, so that everything that can happen meanwhile can be made to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use chronik_catalog::Image;
use chronik_protocol::record::CheckedBatch;
use chronik_protocol::{ErrorCode, Str};
use chronik_terms::Now;

use crate::groups::consumer::testing::image_of;
use crate::groups::load::{Load, Progress};
use crate::groups::partition::GroupPartition;
use crate::groups::{
    Coordinator, CoordinatorEffect, Env, GroupReply, GroupRequest, GroupSettings, OFFSETS_TOPIC,
    TopicChanges,
};
use crate::seeded::Seeded;
use crate::unfold::Unfolding;

/// Partitions of `__consumer_offsets`.
pub(super) const PARTITIONS: i32 = 2;
/// The topic groups consume.
pub(super) const TOPIC: &str = "t";
/// Its partitions.
pub(super) const TOPIC_PARTITIONS: i32 = 6;
/// Its id.
pub(super) const TOPIC_ID: u128 = 77;

/// An append nobody has decided.
pub(super) struct Pending {
    write: u64,
    batch: CheckedBatch,
}

pub(super) struct Rig {
    coordinator: Coordinator<u64>,
    settings: GroupSettings,
    pub(super) image: Arc<Image>,
    pub(super) now_ms: i64,
    pub(super) random: Seeded,
    logs: BTreeMap<i32, Vec<CheckedBatch>>,
    pending: BTreeMap<i32, VecDeque<Pending>>,
    /// Reads and rests the coordinator waits for.
    tasks: VecDeque<Task>,
    callers: u64,
    /// Logs cannot be read.
    pub(super) unreadable: bool,
    pub(super) replies: BTreeMap<u64, GroupReply>,
}

enum Task {
    Unfold(u64, Unfolding),
    Rest,
    Reopen {
        partition: i32,
    },
    Read {
        load: u64,
        partition: i32,
        offset: i64,
    },
}

impl Rig {
    pub(super) fn new(seed: u64, settings: &[(&str, &str)]) -> Rig {
        let image = image_of(&[
            (OFFSETS_TOPIC, 1_000, PARTITIONS as usize),
            (TOPIC, TOPIC_ID, TOPIC_PARTITIONS as usize),
        ]);
        let set = settings.iter().map(|(k, v)| (Str::from(*k), Str::from(*v)));
        let settings = GroupSettings::of(&set.collect());
        let mut rig = Rig {
            coordinator: Coordinator::new(settings.clone()),
            settings,
            image: Arc::new(image),
            now_ms: 1_700_000_000_000,
            random: Seeded::new(seed),
            logs: (0..PARTITIONS).map(|index| (index, Vec::new())).collect(),
            pending: BTreeMap::new(),
            tasks: VecDeque::new(),
            callers: 0,
            unreadable: false,
            replies: BTreeMap::new(),
        };
        rig.boot();
        rig
    }

    fn boot(&mut self) {
        self.see_image();
        self.open_all();
    }

    /// A coordinator that sees the topic before any partition of it is open.
    pub(super) fn unopened(seed: u64) -> Rig {
        let mut rig = Rig::new(seed, &[]);
        rig.close();
        rig
    }

    /// Another coordinator, for which no partition is open yet.
    pub(super) fn close(&mut self) {
        self.coordinator = Coordinator::new(self.settings.clone());
        self.tasks.clear();
        self.see_image();
    }

    fn see_image(&mut self) {
        self.step(|coordinator, env| coordinator.image_changed(env, &TopicChanges::default()));
    }

    /// Every partition of the topic opens.
    pub(super) fn open_all(&mut self) {
        for partition in 0..PARTITIONS {
            let end = self.end_of(partition);
            self.step(|coordinator, env| coordinator.opened(env, partition, 0, end));
        }
    }

    /// Every partition of the topic opens with no more than its first batch.
    pub(super) fn open_the_first(&mut self) {
        for partition in 0..PARTITIONS {
            let first = self.logs[&partition].first();
            let end = first.map_or(0, |batch| batch.header.next_offset());
            self.step(|coordinator, env| coordinator.opened(env, partition, 0, end));
        }
    }

    fn end_of(&self, partition: i32) -> i64 {
        let last = self.logs[&partition].last();
        last.map_or(0, |batch| batch.header.next_offset())
    }

    fn step<T>(&mut self, change: impl FnOnce(&mut Coordinator<u64>, &mut Env<'_>) -> T) -> T {
        let random = &mut self.random;
        let mut draw = || u128::from(random.next()) << 64 | u128::from(random.next());
        let mut env = Env {
            now: Now {
                wall_ms: self.now_ms,
                mono_ns: self.now_ms as u64 * 1_000_000,
            },
            image: &self.image,
            random: &mut draw,
        };
        let result = change(&mut self.coordinator, &mut env);
        let mut effects = VecDeque::new();
        self.coordinator.take_effects(&mut effects);
        for effect in effects {
            match effect {
                CoordinatorEffect::Reply(caller, reply) => {
                    let twice = self.replies.insert(caller, reply);
                    assert!(twice.is_none(), "caller {caller} was answered twice");
                }
                CoordinatorEffect::Append {
                    partition,
                    batch,
                    write,
                } => self
                    .pending
                    .entry(partition)
                    .or_default()
                    .push_back(Pending { write, batch }),
                CoordinatorEffect::Read {
                    load,
                    partition,
                    offset,
                } => {
                    self.tasks.push_back(Task::Read {
                        load,
                        partition,
                        offset,
                    });
                }
                CoordinatorEffect::Unfold(load, unfolding) => {
                    self.tasks.push_back(Task::Unfold(load, unfolding));
                }
                CoordinatorEffect::Reopen { partition } => {
                    self.tasks.push_back(Task::Reopen { partition });
                }
                CoordinatorEffect::Rest => self.tasks.push_back(Task::Rest),
            }
        }
        result
    }

    /// Asks; the reply is in `replies` when it is there.
    pub(super) fn send(&mut self, request: GroupRequest) -> u64 {
        let caller = self.callers;
        self.callers += 1;
        self.step(|coordinator, env| coordinator.request(env, request, caller));
        caller
    }

    /// Asks, lets every append succeed, and gives the reply.
    pub(super) fn ask(&mut self, request: GroupRequest) -> GroupReply {
        let caller = self.send(request);
        self.settle();
        self.replies.remove(&caller).expect("an answer")
    }

    /// Does one read or lets one slice of work go on; says whether there was any.
    pub(super) fn work(&mut self) -> bool {
        match self.tasks.pop_front() {
            None => false,
            Some(Task::Rest) => {
                self.step(Coordinator::rested);
                true
            }
            Some(Task::Unfold(load, unfolding)) => {
                let unfolded = Some(unfolding.step_beside());
                self.step(|coordinator, env| coordinator.unfolded(env, load, unfolded));
                true
            }
            Some(Task::Reopen { partition }) => {
                let end = self.end_of(partition);
                self.step(|coordinator, env| coordinator.opened(env, partition, 0, end));
                true
            }
            Some(Task::Read {
                load,
                partition,
                offset,
            }) => {
                let mut bytes = BytesMut::new();
                let batches = self.logs[&partition].iter();
                let wanted = batches.filter(|batch| batch.header.next_offset() > offset);
                for batch in wanted.take(3) {
                    bytes.extend_from_slice(&batch.bytes);
                }
                let bytes = (!self.unreadable).then(|| bytes.freeze());
                self.step(|coordinator, env| coordinator.read(env, load, bytes));
                true
            }
        }
    }

    /// How many appends wait to be decided.
    pub(super) fn undecided(&self) -> usize {
        self.pending.values().map(VecDeque::len).sum()
    }

    /// Decides the oldest append of some partition.
    pub(super) fn decide(&mut self, error: Option<ErrorCode>) {
        let waiting: Vec<i32> = self
            .pending
            .iter()
            .filter(|(_, pending)| !pending.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let partition = waiting[self.random.below(waiting.len())];
        let queue = self.pending.get_mut(&partition).expect("it waits");
        let Pending { write, batch } = queue.pop_front().expect("it waits");
        let result = match error {
            Some(error) => Err(error),
            None => {
                self.append(partition, &batch);
                Ok(())
            }
        };
        self.step(|coordinator, env| coordinator.appended(env, partition, write, result));
    }

    fn append(&mut self, partition: i32, batch: &CheckedBatch) {
        let end = self.end_of(partition);
        let log = self.logs.get_mut(&partition).expect("a log");
        log.push(batch.with_offsets(end, 0));
    }

    /// Lets everything that is under way come to its end.
    pub(super) fn settle(&mut self) {
        while self.undecided() > 0 || !self.tasks.is_empty() {
            while self.work() {}
            self.decide(None);
        }
    }

    /// Time goes on, and deadlines come.
    pub(super) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.step(Coordinator::on_timer);
    }

    /// The process dies. Of the appends under way some were written, which nobody was told; callers
    /// get no answer.
    pub(super) fn restart(&mut self) {
        for (partition, pending) in std::mem::take(&mut self.pending) {
            let written = self.random.below(pending.len() + 1);
            for pending in pending.into_iter().take(written) {
                self.append(partition, &pending.batch);
            }
        }
        self.coordinator = Coordinator::new(self.settings.clone());
        self.tasks.clear();
        self.boot();
    }

    /// Gives the coordinator another image.
    pub(super) fn show(&mut self, image: Image, changes: &TopicChanges) {
        self.image = Arc::new(image);
        self.step(|coordinator, env| coordinator.image_changed(env, changes));
    }

    /// The topic is deleted and made anew; what was under way to it is decided later.
    pub(super) fn recreate_offsets_topic(&mut self, id: u128) {
        let image = image_of(&[
            (OFFSETS_TOPIC, id, PARTITIONS as usize),
            (TOPIC, TOPIC_ID, TOPIC_PARTITIONS as usize),
        ]);
        let without = image_of(&[(TOPIC, TOPIC_ID, TOPIC_PARTITIONS as usize)]);
        for image in [without, image] {
            self.show(image, &TopicChanges::default());
        }
        self.logs.values_mut().for_each(Vec::clear);
        self.open_all();
    }

    /// What reading the logs gives.
    pub(super) fn replayed(&self) -> BTreeMap<i32, GroupPartition> {
        let read = |(partition, log): (&i32, &Vec<CheckedBatch>)| {
            let mut load = Load::new(*partition, 0, (0, self.end_of(*partition)));
            let mut batches = log.iter();
            loop {
                match load.slice(self.now_ms) {
                    Progress::More => {}
                    Progress::Read => {
                        let batch = batches.next().expect("the log has it");
                        load.feed(batch.bytes.clone());
                    }
                    Progress::Unfold(unfolding) => {
                        load.unfolded(unfolding.step_beside()).expect("sound");
                    }
                    Progress::Done(state) => return (*partition, state),
                    Progress::Failed(why) => panic!("{why}"),
                }
            }
        };
        self.logs.iter().map(read).collect()
    }

    /// The state in memory.
    pub(super) fn states(&self) -> BTreeMap<i32, &GroupPartition> {
        self.coordinator.states().collect()
    }
}
