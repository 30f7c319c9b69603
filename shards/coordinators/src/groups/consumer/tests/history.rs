//! Thousands of seeded histories: members join, leave, crash, go deaf and change their minds, topics
//! grow, writes fail and the broker restarts. Checked after every event: no partition has two
//! owners, epochs only grow, the log gives the same state. When events stop the group converges.

use std::collections::{BTreeMap, BTreeSet};

use chronik_protocol::messages::ConsumerGroupHeartbeatRequest;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::super::assignor::Partitions;
use super::super::group::{ConsumerGroup, GroupState};
use super::super::testing::{add_topic, grow_topic, image_of, remove_topic};
use super::classic_client::ClassicClient;
use super::rig::{Rig, assigned, heartbeat, joining, reported};
use crate::groups::group::Group;
use crate::groups::partition::GroupPartition;
use crate::seeded::Seeded;

/// Histories unless `CHRONIK_HISTORIES` asks for more.
const HISTORIES: u64 = 1_000;
const EVENTS: usize = 60;
const TOPICS: [&str; 4] = ["a1", "a2", "b1", "b2"];
const REGEXES: [&str; 3] = ["a.*", ".*1", "b[12]"];

/// A client as the Java one behaves.
struct Client {
    id: String,
    instance: Option<String>,
    epoch: i32,
    owned: Partitions,
    told: Partitions,
    names: Vec<&'static str>,
    regex: Option<&'static str>,
    /// The next heartbeat says everything.
    full: bool,
}

impl Client {
    fn new(number: usize, instance: Option<String>, seeded: &mut Seeded) -> Client {
        let mut client = Client {
            id: format!("m{number:03}"),
            instance,
            epoch: 0,
            owned: Partitions::new(),
            told: Partitions::new(),
            names: Vec::new(),
            regex: None,
            full: true,
        };
        client.subscribe(seeded);
        client
    }

    fn subscribe(&mut self, seeded: &mut Seeded) {
        self.regex = seeded.one_in(3).then(|| REGEXES[seeded.below(3)]);
        self.names = TOPICS.into_iter().filter(|_| seeded.one_in(2)).collect();
        self.full = true;
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let mut request = if self.full || self.epoch == 0 {
            let mut request = joining(&self.id, &self.names);
            request.subscribed_topic_regex = Some(Str::from(self.regex.unwrap_or("")));
            request
        } else {
            heartbeat(&self.id, self.epoch)
        };
        request.member_epoch = self.epoch;
        request.instance_id = self.instance.as_deref().map(Str::from);
        request.topic_partitions = reported(&self.owned);
        request
    }

    /// Sends a heartbeat. A deaf client never sees the answer, a slow one gives nothing up yet.
    fn beat(&mut self, rig: &mut Rig, deaf: bool, slow: bool) {
        if !slow {
            self.owned = self.told.clone();
        }
        let response = rig.beat(self.request());
        if deaf {
            self.full = true;
            return;
        }
        match ErrorCode::try_from(response.error_code).expect("a known code") {
            ErrorCode::None => {
                self.full = false;
                self.epoch = response.member_epoch;
                if let Some(told) = assigned(&response) {
                    for (topic, partitions) in &told {
                        self.owned.entry(*topic).or_default().extend(partitions);
                    }
                    self.told = told;
                }
            }
            ErrorCode::CoordinatorNotAvailable => self.full = true,
            ErrorCode::UnreleasedInstanceId => self.abandon(),
            ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::FencedInstanceId
            | ErrorCode::GroupIdNotFound => self.abandon(),
            other => panic!("{other:?}: {:?}", response.error_message),
        }
    }

    fn abandon(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.told.clear();
        self.full = true;
    }

    fn leave(mut self, rig: &mut Rig, epoch: i32) {
        self.owned.clear();
        let mut request = heartbeat(&self.id, epoch);
        request.instance_id = self.instance.as_deref().map(Str::from);
        rig.beat(request);
    }
}

struct History {
    rig: Rig,
    seeded: Seeded,
    clients: Vec<Client>,
    /// Members of the classic protocol; only beside others, or they would make a classic group.
    classic: Vec<ClassicClient>,
    members_so_far: usize,
    epoch: i32,
    next_topic: u128,
}

impl History {
    fn new(seed: u64) -> History {
        let image = image_of(&[("a1", 301, 3), ("b1", 302, 2)]);
        let mut rig = Rig::new(image);
        let mut seeded = Seeded::new(seed);
        let interval_ms = ["0", "1000"][seeded.below(2)];
        rig.configure(&[
            ("group.consumer.assignment.interval.ms", interval_ms),
            ("group.consumer.migration.policy", "upgrade"),
        ]);
        History {
            rig,
            seeded,
            clients: Vec::new(),
            classic: Vec::new(),
            members_so_far: 0,
            epoch: 0,
            next_topic: 400,
        }
    }

    fn event(&mut self) {
        match self.seeded.below(20) {
            0..=1 if self.clients.len() < 6 => self.join(),
            2 if !self.clients.is_empty() => {
                let at = self.seeded.below(self.clients.len());
                let client = self.clients.remove(at);
                match (&client.instance, self.seeded.below(3)) {
                    // It crashes: nobody is told.
                    (_, 0) => {}
                    (Some(_), 1) => client.leave(&mut self.rig, -2),
                    _ => client.leave(&mut self.rig, -1),
                }
            }
            3 => self.change_topics(),
            4 if !self.clients.is_empty() => {
                let at = self.seeded.below(self.clients.len());
                self.clients[at].subscribe(&mut self.seeded);
            }
            5 => self.rig.restart(),
            10..=12 => self.classic_event(),
            6 => self.rig.failing = true,
            7..=9 => {
                let ms = [100, 1_000, 6_000, 20_000][self.seeded.below(4)];
                self.rig.advance(ms);
            }
            _ if !self.clients.is_empty() => {
                let at = self.seeded.below(self.clients.len());
                let (deaf, slow) = (self.seeded.one_in(8), self.seeded.one_in(3));
                self.clients[at].beat(&mut self.rig, deaf, slow);
            }
            _ => self.join(),
        }
        self.check();
    }

    fn join(&mut self) {
        self.members_so_far += 1;
        let taken: BTreeSet<&String> = self
            .clients
            .iter()
            .filter_map(|c| c.instance.as_ref())
            .collect();
        let instance = format!("i{}", self.seeded.below(3));
        let instance = (self.seeded.one_in(3) && !taken.contains(&instance)).then_some(instance);
        let mut client = Client::new(self.members_so_far, instance, &mut self.seeded);
        client.beat(&mut self.rig, false, false);
        self.clients.push(client);
    }

    /// A classic member comes, goes silent, or says something.
    fn classic_event(&mut self) {
        let has_members = self
            .rig
            .group()
            .is_some_and(|group| !group.members.is_empty());
        if !has_members {
            return;
        }
        if self.classic.len() < 3 && self.seeded.one_in(4) {
            let names = TOPICS
                .into_iter()
                .filter(|_| self.seeded.one_in(2))
                .collect();
            self.classic.push(ClassicClient::new(names));
        }
        if !self.classic.is_empty() {
            let at = self.seeded.below(self.classic.len());
            if self.seeded.one_in(12) {
                self.classic.remove(at);
            } else {
                let deaf = self.seeded.one_in(8);
                self.classic[at].beat(&mut self.rig, deaf);
            }
        }
    }

    fn change_topics(&mut self) {
        let mut image = (*self.rig.image).clone();
        let name = TOPICS[self.seeded.below(4)];
        let known = image.topic(name).map(|topic| topic.id);
        match known {
            Some(id) if self.seeded.one_in(3) => remove_topic(&mut image, id.0),
            Some(id) => grow_topic(&mut image, id.0, 1),
            None => {
                self.next_topic += 1;
                add_topic(&mut image, name, self.next_topic);
                grow_topic(&mut image, self.next_topic, 1 + self.seeded.below(4));
            }
        }
        self.rig.publish(image);
    }

    fn check(&mut self) {
        let Some(group) = self.rig.group() else {
            assert_eq!(self.epoch, 0, "the group is gone");
            return;
        };
        assert!(
            group.epoch >= self.epoch,
            "the epoch of the group went back"
        );
        assert!(group.assignment_epoch <= group.epoch);
        self.epoch = group.epoch;
        let mut owners: BTreeMap<(Uuid, i32), &Str> = BTreeMap::new();
        for member in group.members.values() {
            assert!(
                member.epoch <= group.epoch
                    && member.previous_epoch <= member.epoch.max(group.epoch)
            );
            for owned in [&member.assigned, &member.revoking] {
                for (topic, partitions) in owned.iter() {
                    for partition in partitions.keys() {
                        let before = owners.insert((*topic, *partition), &member.id);
                        assert_eq!(before, None, "{topic}-{partition} has two owners");
                        assert!(group.is_taken(*topic, *partition));
                    }
                }
            }
        }
        for client in &mut self.classic {
            client.is_fenced |= !group.members.contains_key(&client.id);
        }
        // What a client works on is its own in the group, as long as the group knows it.
        let new = self
            .clients
            .iter()
            .map(|c| (c.id.as_str(), c.epoch, &c.owned));
        let classic = self.classic.iter().filter(|c| !c.is_fenced);
        let classic = classic.map(|c| (c.id.as_str(), c.generation, &c.owned));
        for (id, epoch, owned) in new.chain(classic) {
            let Some(member) = group.members.get(id) else {
                continue;
            };
            if epoch != member.epoch && epoch != member.previous_epoch {
                continue;
            }
            // Nobody can be told of a topic that is gone by its name.
            let there = owned
                .iter()
                .filter(|(id, _)| self.rig.image.topic_by_id(**id).is_some());
            for (topic, partitions) in there {
                for partition in partitions {
                    let right = member.epoch_of(*topic, *partition);
                    assert!(
                        right.is_some(),
                        "{id} works on {topic}-{partition} without right"
                    );
                }
            }
        }
    }

    /// The log gives the same state, also after a cleaner was there.
    fn check_log(&self) {
        if let Some(group) = self.rig.group() {
            let state = hard_state(group);
            assert_eq!(state, state_of(&Rig::replayed(&self.rig.log)));
            let compacted = Rig::replayed(&self.rig.compacted());
            assert_eq!(state, state_of(&compacted), "compaction changes the state");
        }
    }

    /// Everybody who lives is in the group, nobody else is, and it is at rest.
    fn is_settled(&self) -> bool {
        self.rig.group().is_some_and(|group| {
            let members = &group.members;
            // One that crashed with an instance id keeps its successor out until its session ends.
            let are_in = |c: &Client| members.contains_key(c.id.as_str());
            self.clients.iter().all(are_in)
                && members.len() == self.clients.len() + self.classic.len()
                && matches!(group.state(), GroupState::Stable | GroupState::Empty)
        })
    }

    /// Nothing happens any more but heartbeats.
    fn converge(&mut self) {
        self.rig.failing = false;
        if self.clients.is_empty() && !self.classic.is_empty() {
            self.join();
        }
        let mut quiet = 0;
        for _ in 0..70 {
            let written = self.rig.log.len();
            self.rig.advance(3_000);
            for client in &mut self.clients {
                client.beat(&mut self.rig, false, false);
            }
            // A classic member that comes to nobody makes a classic group.
            let has_members = |group: &ConsumerGroup| !group.members.is_empty();
            if self.rig.group().is_some_and(has_members) {
                for client in &mut self.classic {
                    client.beat(&mut self.rig, false);
                }
            }
            self.check();
            let is_quiet = self.is_settled() && written == self.rig.log.len();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            // Longer than any pause between two looks at the topics.
            if quiet == 6 {
                break;
            }
        }
        let Some(group) = self.rig.group() else {
            return;
        };
        let state = group.state();
        if self.clients.is_empty() {
            assert_eq!(state, GroupState::Empty);
            return;
        }
        assert_eq!(state, GroupState::Stable, "{group:#?}");
        assert_eq!(group.members.len(), self.clients.len() + self.classic.len());
        let mut wanted = BTreeSet::new();
        let mut owned = BTreeSet::new();
        for client in &self.clients {
            let regex = client
                .regex
                .map(|r| regex::Regex::new(&format!("^(?:{r})$")).expect("sound"));
            for topic in self.rig.image.topics() {
                let matches = regex
                    .as_ref()
                    .is_some_and(|regex| regex.is_match(&topic.name));
                if matches || client.names.iter().any(|name| topic.name == *name) {
                    wanted.extend((0..topic.partitions.len() as i32).map(|p| (topic.id, p)));
                }
            }
            let pairs = client.owned.iter();
            owned.extend(pairs.flat_map(|(id, of)| of.iter().map(|p| (*id, *p))));
            assert_eq!(client.owned, *group.target_of(&client.id));
        }
        for client in &self.classic {
            for name in &client.names {
                if let Some(topic) = self.rig.image.topic(name) {
                    wanted.extend((0..topic.partitions.len() as i32).map(|p| (topic.id, p)));
                }
            }
            let pairs = client.owned.iter();
            owned.extend(pairs.flat_map(|(id, of)| of.iter().map(|p| (*id, *p))));
            assert_eq!(client.owned, *group.target_of(&client.id));
        }
        assert_eq!(owned, wanted, "every partition has an owner");
    }
}

/// The group without what is not in the log.
fn hard_state(group: &ConsumerGroup) -> String {
    let mut group = group.clone();
    group.hashed_at = None;
    group.resolution = None;
    format!("{group:?}")
}

fn state_of(partition: &GroupPartition) -> String {
    match partition.groups.get(super::rig::GROUP) {
        Some(Group::Consumer(group)) => hard_state(group),
        other => panic!("no consumer group: {other:?}"),
    }
}

#[test]
fn histories_are_safe_and_converge() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("CHRONIK_SEED").unwrap_or(0);
    let histories = number("CHRONIK_HISTORIES").unwrap_or(HISTORIES);
    for seed in first..first + histories {
        let run = std::panic::catch_unwind(|| {
            let mut history = History::new(seed);
            for event in 0..EVENTS {
                history.event();
                if event % 6 == 0 {
                    history.check_log();
                }
            }
            history.converge();
            history.check_log();
        });
        if let Err(panic) = run {
            eprintln!("CHRONIK_SEED={seed} CHRONIK_HISTORIES=1 shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}
