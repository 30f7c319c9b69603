//! Random histories of the classic protocol: members come, go, fall silent and come back under
//! their names; appends fail, the broker dies with appends on their way.
//!
//! Whatever happens: nobody is answered twice; a generation has one assignment; shares of an older
//! generation never come after those of a newer one, nor do commits count; an acknowledged offset
//! is never lost; when it grows calm, every group shares out every partition; and the log, read
//! again, gives the state that is in memory.

use std::collections::{BTreeMap, BTreeSet};

use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::members::{Member, Witness};
use super::rig::{Rig, TOPIC, TOPIC_PARTITIONS};
use crate::groups::classic::ClassicState;
use crate::groups::group::Group;
use crate::groups::{GroupReply, GroupRequest};

/// Histories unless `CHRONIK_HISTORIES` asks for more.
const HISTORIES: u64 = 2_000;
/// Things that happen in one.
const EVENTS: usize = 250;

struct History {
    rig: Rig,
    members: Vec<Member>,
    witness: Witness,
}

impl History {
    fn new(seed: u64) -> History {
        let mut rig = Rig::new(seed, &[("group.initial.rebalance.delay.ms", "500")]);
        let groups = 1 + rig.random.below(3);
        let mut members = Vec::new();
        for number in 0..2 + rig.random.below(6) {
            let group = format!("group-{}", rig.random.below(groups));
            let instance = format!("instance-{number}");
            let instance = rig.random.one_in(3).then_some(instance.as_str());
            members.push(Member::new(&group, instance));
        }
        History {
            rig,
            members,
            witness: Witness::default(),
        }
    }

    fn everybody_looks(&mut self) {
        for member in &mut self.members {
            member.look(&mut self.rig, &mut self.witness);
        }
    }

    fn event(&mut self) {
        let chosen = self.rig.random.below(self.members.len());
        match self.rig.random.below(100) {
            0..50 => {
                let member = &mut self.members[chosen];
                if !member.crashed {
                    member.act(&mut self.rig, &mut self.witness, false);
                }
            }
            50..76 => self.rig.decide(None),
            76..78 => self.rig.decide(Some(ErrorCode::KafkaStorageError)),
            78..86 => {
                self.rig.work();
            }
            86..94 => {
                let ms = 1 + self.rig.random.below(6_000) as i64;
                self.rig.pass(ms);
            }
            94..96 => {
                let member = &mut self.members[chosen];
                member.crashed = !member.crashed;
                if !member.crashed {
                    member.start_anew();
                }
            }
            96..98 => {
                let member = &mut self.members[chosen];
                member.disconnected();
            }
            98 => self.members[chosen].start_anew(),
            _ => {
                self.rig.restart();
                self.rig.replies.clear();
                self.members.iter_mut().for_each(Member::disconnected);
            }
        }
        self.everybody_looks();
    }

    /// Nothing goes wrong any more.
    fn calm_down(&mut self) {
        for _ in 0..120 {
            self.rig.settle();
            self.everybody_looks();
            for member in &mut self.members {
                if member.is_alive() {
                    member.act(&mut self.rig, &mut self.witness, true);
                }
            }
            self.everybody_looks();
            self.rig.settle();
            self.everybody_looks();
            self.rig.pass(1_000);
        }
        self.rig.settle();
        self.everybody_looks();
    }

    fn check_shares(&self) {
        let mut groups: BTreeMap<&Str, Vec<&Member>> = BTreeMap::new();
        for member in self.members.iter().filter(|member| member.is_alive()) {
            groups.entry(&member.group).or_default().push(member);
        }
        for (group, members) in groups {
            let generations: BTreeSet<i32> = members.iter().map(|m| m.generation()).collect();
            assert_eq!(generations.len(), 1, "{group} is not of one mind");
            let mut shares: Vec<i32> = members.iter().flat_map(|m| m.share.clone()).collect();
            shares.sort_unstable();
            let all: Vec<i32> = (0..TOPIC_PARTITIONS).collect();
            assert_eq!(shares, all, "{group} shares out every partition once");
        }
    }

    fn check_offsets(&mut self) {
        let acknowledged: Vec<_> = self.witness.acknowledged.clone().into_iter().collect();
        for ((group, partition), offset) in acknowledged {
            let request = GroupRequest::FetchOffsets {
                groups: vec![OffsetFetchRequestGroup {
                    group_id: group.clone(),
                    topics: Some(vec![OffsetFetchRequestTopics {
                        name: Str::from(TOPIC),
                        topic_id: Uuid::ZERO,
                        partition_indexes: vec![partition],
                        ..Default::default()
                    }]),
                    ..Default::default()
                }],
            };
            let GroupReply::FetchOffsets(groups) = self.rig.ask(request) else {
                panic!("another answer");
            };
            let found = groups[0].topics[0].partitions[0].committed_offset;
            assert!(
                found >= offset,
                "{group} committed {offset} and is told {found}"
            );
        }
    }

    fn check_replay(&self) {
        let replayed = self.rig.replayed();
        for (partition, state) in self.rig.states() {
            let read = &replayed[&partition];
            assert_eq!(
                state.offsets, read.offsets,
                "offsets of partition {partition}"
            );
            for (id, group) in &state.groups {
                let (Group::Classic(group), Some(Group::Classic(read))) =
                    (group, read.groups.get(id))
                else {
                    panic!("{id} is not in the log");
                };
                let settled = matches!(group.state(), ClassicState::Stable | ClassicState::Empty);
                assert!(settled, "{id} is {:?} though all is calm", group.state());
                let members = |group: &crate::groups::classic::ClassicGroup| -> Vec<_> {
                    let facts = group.members();
                    facts
                        .map(|m| (m.id.clone(), m.instance.clone(), m.assignment.clone()))
                        .collect()
                };
                assert_eq!(group.generation(), read.generation(), "{id}");
                assert_eq!(group.state(), read.state(), "{id}");
                assert_eq!(group.protocol_name(), read.protocol_name(), "{id}");
                assert_eq!(members(group), members(read), "{id}");
            }
            assert_eq!(state.groups.len(), read.groups.len());
        }
    }
}

#[test]
fn whatever_happens_the_rules_hold() {
    let asked = std::env::var("CHRONIK_HISTORIES").ok();
    let histories = asked.and_then(|n| n.parse().ok()).unwrap_or(HISTORIES);
    let first = std::env::var("CHRONIK_SEED").ok();
    let first: u64 = first.and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in first..first + histories {
        let outcome = std::panic::catch_unwind(|| {
            let mut history = History::new(seed);
            for _ in 0..EVENTS {
                history.event();
            }
            history.calm_down();
            history.check_shares();
            history.check_offsets();
            history.check_replay();
        });
        if let Err(panic) = outcome {
            eprintln!("CHRONIK_SEED={seed} CHRONIK_HISTORIES=1 shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}
