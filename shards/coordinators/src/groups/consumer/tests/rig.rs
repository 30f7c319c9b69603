//! A partition of `__consumer_offsets` without a broker: what it writes goes into a list, time goes
//! on when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, consumer_group_heartbeat_request,
};
use chronik_protocol::records_of::{GroupKey, RecordSet, encode_key};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_terms::Now;

use super::super::assignor::Partitions;
use super::super::group::ConsumerGroup;
use crate::groups::caller::Token;
use crate::groups::consumer::regex::Programs;
use crate::groups::deadlines::{DeadlineWishes, Deadlines};
use crate::groups::group::Group;
use crate::groups::outcome::{Outcome, Then};
use crate::groups::partition::GroupPartition;
use crate::groups::records::{GroupRecord, pack};
use crate::groups::request::{Caller, GroupReply, GroupRequest};
use crate::groups::settings::GroupSettings;
use crate::groups::step::{Step, TopicChanges};

pub(super) const GROUP: &str = "g";

pub(super) struct Rig {
    pub(super) partition: GroupPartition,
    deadlines: Deadlines,
    pub(super) settings: GroupSettings,
    pub(super) image: Arc<Image>,
    pub(super) now_ms: i64,
    /// Everything that was written.
    pub(super) log: Vec<GroupRecord>,
    /// The next writes fail.
    pub(super) failing: bool,
    /// The largest batch the topic takes.
    pub(super) batch_bytes_max: usize,
    random: u128,
    tokens: usize,
    /// Answers that nobody has fetched.
    pub(super) replies: BTreeMap<Token, GroupReply>,
}

impl Rig {
    pub(super) fn new(image: Image) -> Rig {
        Rig {
            partition: GroupPartition::default(),
            deadlines: Deadlines::default(),
            settings: GroupSettings::of(&BTreeMap::new()),
            image: Arc::new(image),
            now_ms: 1_700_000_000_000,
            log: Vec::new(),
            failing: false,
            batch_bytes_max: usize::MAX,
            random: 1,
            tokens: 0,
            replies: BTreeMap::new(),
        }
    }

    /// The broker with these settings.
    pub(super) fn configure(&mut self, settings: &[(&str, &str)]) {
        let set = settings.iter().map(|(k, v)| (Str::from(*k), Str::from(*v)));
        self.settings = GroupSettings::of(&set.collect());
    }

    fn run(&mut self, change: impl FnOnce(&mut GroupPartition, &mut Step<'_>) -> Outcome) {
        let mut then = self.run_once(change);
        while !matches!(then, Then::Nothing) {
            then = self.run_once(|partition, step| partition.written(step, then, Ok(())));
        }
    }

    /// One step; gives what happens when its records are committed.
    fn run_once(
        &mut self,
        change: impl FnOnce(&mut GroupPartition, &mut Step<'_>) -> Outcome,
    ) -> Then {
        let mono_ns = self.now_ms as u64 * 1_000_000;
        let now = Now {
            wall_ms: self.now_ms,
            mono_ns,
        };
        let random = &mut self.random;
        let mut step = Step {
            now,
            settings: &self.settings,
            programs: &Programs::default(),
            image: &self.image,
            random: &mut || {
                *random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1 << 70 | 1);
                *random
            },
            timers: DeadlineWishes::at(mono_ns),
            batch_bytes_max: self.batch_bytes_max,
            replies: Vec::new(),
        };
        let outcome = change(&mut self.partition, &mut step);
        let Step {
            timers, replies, ..
        } = step;
        self.replies.extend(replies);
        let packed = pack(&outcome.records, outcome.atomic, self.batch_bytes_max, 0);
        if packed.is_err() {
            assert!(outcome.replay, "no group here is written after it changed");
            if let Then::Reply(token, reply) = outcome.then {
                let reply = reply.spoiled(ErrorCode::UnknownServerError);
                self.replies.insert(token, reply);
            }
            return Then::Nothing;
        }
        timers.fulfil(0, &mut self.deadlines);
        if self.failing && !outcome.records.is_empty() {
            if let Then::Reply(token, reply) = outcome.then {
                let reply = reply.spoiled(ErrorCode::CoordinatorNotAvailable);
                self.replies.insert(token, reply);
            }
            self.restart();
            return Then::Nothing;
        }
        if outcome.replay {
            for record in &outcome.records {
                self.partition.replay(record, self.now_ms);
            }
            self.replies.extend(self.partition.take_evicted());
        }
        self.log.extend(outcome.records);
        outcome.then
    }

    /// Asks, and gives the token under which the answer is or will be in `replies`.
    pub(super) fn ask(&mut self, request: GroupRequest) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.run(|partition, step| partition.handle(step, request, token));
        token
    }

    /// The answer to a heartbeat.
    pub(super) fn beat(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let token = self.ask(GroupRequest::ConsumerHeartbeat {
            request,
            id_required: true,
            caller: Caller {
                client_id: Str::from("client"),
                client_host: Str::from("/127.0.0.1"),
            },
        });
        match self.replies.remove(&token) {
            Some(GroupReply::ConsumerHeartbeat(response)) => response,
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    /// Time goes on; what is due is done.
    pub(super) fn advance(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        loop {
            let next_ns = self.deadlines.next_ns().unwrap_or(u64::MAX);
            let next_ms = i64::try_from(next_ns.div_ceil(1_000_000)).unwrap_or(i64::MAX);
            if next_ms > end_ms {
                break;
            }
            self.now_ms = self.now_ms.max(next_ms);
            while let Some((_, timer)) = self.deadlines.pop(self.now_ms as u64 * 1_000_000) {
                self.run(|partition, step| partition.on_timer(step, timer));
            }
        }
        self.now_ms = end_ms;
    }

    /// Another image; some topic is new or changed.
    pub(super) fn publish(&mut self, image: Image) {
        let changes = TopicChanges {
            created: image.topic_count() > self.image.topic_count(),
            ..TopicChanges::default()
        };
        self.image = Arc::new(image);
        self.run(|partition, step| {
            partition.topics_changed(step, &changes);
            Outcome::NOTHING
        });
    }

    /// What reading these records gives.
    pub(super) fn replayed(records: &[GroupRecord]) -> GroupPartition {
        let mut partition = GroupPartition::default();
        records
            .iter()
            .for_each(|record| partition.replay(record, 0));
        partition
    }

    /// The log as a cleaner leaves it: the last record of each key.
    pub(super) fn compacted(&self) -> Vec<GroupRecord> {
        let key = |key: &GroupKey| (key.record_type(), encode_key(key).expect("encodes"));
        let mut last = BTreeMap::new();
        for (at, record) in self.log.iter().enumerate() {
            last.insert(key(&record.key), at);
        }
        let kept = self.log.iter().enumerate();
        let kept = kept.filter(|(at, record)| last[&key(&record.key)] == *at);
        kept.map(|(_, record)| record.clone()).collect()
    }

    /// The broker starts again.
    pub(super) fn restart(&mut self) {
        self.partition = Rig::replayed(&self.log);
        self.deadlines = Deadlines::default();
        self.failing = false;
        self.run(|partition, step| {
            let outcomes = partition.loaded(step);
            assert!(outcomes.iter().all(|outcome| outcome.records.is_empty()));
            Outcome::NOTHING
        });
    }

    /// The group, if it is a consumer group.
    pub(super) fn group(&self) -> Option<&ConsumerGroup> {
        match self.partition.groups.get(GROUP) {
            Some(Group::Consumer(group)) => Some(group),
            _ => None,
        }
    }

    /// Names of the types of records written since `from`, `-` in front of tombstones.
    pub(super) fn written(&self, from: usize) -> Vec<String> {
        let name = |record: &GroupRecord| {
            let text = format!("{:?}", record.key);
            let name = text.split('(').next().unwrap_or_default().to_owned();
            let sign = if record.value.is_some() { "" } else { "-" };
            format!("{sign}{}", name.replace("ConsumerGroup", ""))
        };
        self.log[from..].iter().map(name).collect()
    }
}

/// A heartbeat of `member` in `epoch` that says nothing else.
pub(super) fn heartbeat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from(GROUP),
        member_id: Str::from(member),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// A heartbeat that joins.
pub(super) fn joining(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(topics.iter().map(|name| Str::from(*name)).collect()),
        topic_partitions: Some(Vec::new()),
        ..heartbeat(member, 0)
    }
}

/// What a member owns, as it reports it.
pub(super) fn reported(
    partitions: &Partitions,
) -> Option<Vec<consumer_group_heartbeat_request::TopicPartitions>> {
    let topic = |(topic_id, numbers): (&Uuid, &std::collections::BTreeSet<i32>)| {
        consumer_group_heartbeat_request::TopicPartitions {
            topic_id: *topic_id,
            partitions: numbers.iter().copied().collect(),
            ..Default::default()
        }
    };
    Some(partitions.iter().map(topic).collect())
}

/// What a response assigns; `None` when it says nothing about that.
pub(super) fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Partitions> {
    let assignment = response.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    let topics = topics.map(|t| (t.topic_id, t.partitions.iter().copied().collect()));
    Some(topics.collect())
}
