//! Consumers as a history needs them: they do what clients do with each answer, and write down
//! what they were told.

use std::collections::BTreeMap;

use bytes::Bytes;
use chronik_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    SyncGroupRequest, join_group_request, leave_group_request, offset_commit_request,
    sync_group_request,
};
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::rig::{Rig, TOPIC, TOPIC_ID, TOPIC_PARTITIONS};
use crate::groups::{Caller, GroupReply, GroupRequest};

/// What everybody together has seen; every rule a history must keep is checked here.
#[derive(Default)]
pub(super) struct Witness {
    /// The one assignment that was ever told for a group's generation.
    assignments: BTreeMap<(Str, i32), u64>,
    /// The latest generation of each group that somebody got a share in.
    pub(super) latest: BTreeMap<Str, i32>,
    /// The last acknowledged offset by group and partition. Offsets only grow.
    pub(super) acknowledged: BTreeMap<(Str, i32), i64>,
    next_offset: i64,
    next_assignment: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Out,
    Joining(u64),
    Syncing(u64),
    In,
    Beating(u64),
    Committing {
        caller: u64,
        partition: i32,
        offset: i64,
        latest_before: i32,
    },
    Leaving(u64),
    /// It is told never to come back.
    Fenced,
}

/// One consumer.
pub(super) struct Member {
    pub(super) group: Str,
    instance: Option<Str>,
    id: Str,
    generation: i32,
    pub(super) share: Vec<i32>,
    phase: Phase,
    /// It does nothing any more, without a word.
    pub(super) crashed: bool,
}

fn error_of(code: i16) -> ErrorCode {
    ErrorCode::try_from(code).expect("an error code")
}

impl Member {
    pub(super) fn new(group: &str, instance: Option<&str>) -> Member {
        Member {
            group: Str::from(group),
            instance: instance.map(Str::from),
            id: Str::default(),
            generation: -1,
            share: Vec::new(),
            phase: Phase::Out,
            crashed: false,
        }
    }

    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether it may take part: not crashed, not replaced by another of its name.
    pub(super) fn is_alive(&self) -> bool {
        !self.crashed && self.phase != Phase::Fenced
    }

    /// The same machine again: a static member keeps its name only.
    pub(super) fn start_anew(&mut self) {
        let instance = self.instance.clone();
        *self = Member {
            instance,
            ..Member::new(&self.group, None)
        };
    }

    /// The connection is gone: whatever was asked is asked again.
    pub(super) fn disconnected(&mut self) {
        self.phase = match self.phase {
            Phase::Joining(_) | Phase::Syncing(_) => Phase::Out,
            Phase::Beating(_) | Phase::Committing { .. } | Phase::Leaving(_) => Phase::In,
            other => other,
        };
    }

    /// Does the next thing, if it waits for nothing.
    pub(super) fn act(&mut self, rig: &mut Rig, witness: &mut Witness, calm: bool) {
        match self.phase {
            Phase::Out => self.phase = Phase::Joining(rig.send(self.join_request())),
            Phase::In if !calm && rig.random.one_in(12) => {
                self.phase = Phase::Leaving(rig.send(self.leave_request()));
            }
            Phase::In if !self.share.is_empty() && rig.random.one_in(2) => {
                witness.next_offset += 1;
                let partition = self.share[rig.random.below(self.share.len())];
                let offset = witness.next_offset;
                self.phase = Phase::Committing {
                    caller: rig.send(self.commit_request(partition, offset)),
                    partition,
                    offset,
                    latest_before: witness.latest.get(&self.group).copied().unwrap_or(-1),
                };
            }
            Phase::In => {
                self.phase = Phase::Beating(rig.send(GroupRequest::Heartbeat(HeartbeatRequest {
                    group_id: self.group.clone(),
                    generation_id: self.generation,
                    member_id: self.id.clone(),
                    group_instance_id: self.instance.clone(),
                    ..HeartbeatRequest::default()
                })));
            }
            _ => {}
        }
    }

    /// Looks whether its answer has come.
    pub(super) fn look(&mut self, rig: &mut Rig, witness: &mut Witness) {
        let caller = match self.phase {
            Phase::Joining(caller)
            | Phase::Syncing(caller)
            | Phase::Beating(caller)
            | Phase::Leaving(caller)
            | Phase::Committing { caller, .. } => caller,
            Phase::Out | Phase::In | Phase::Fenced => return,
        };
        let Some(reply) = rig.replies.remove(&caller) else {
            return;
        };
        match (self.phase, reply) {
            (Phase::Joining(_), GroupReply::Join(reply)) => self.joined(rig, witness, &reply),
            (Phase::Syncing(_), GroupReply::Sync(reply)) => match error_of(reply.error_code) {
                ErrorCode::None => self.take_share(witness, &reply.assignment),
                error => self.react(error),
            },
            (Phase::Beating(_), GroupReply::Heartbeat(reply)) => {
                self.phase = Phase::In;
                self.react(error_of(reply.error_code));
            }
            (Phase::Leaving(_), GroupReply::Leave(reply)) => {
                if reply.error_code == 0 {
                    self.start_anew();
                } else {
                    self.phase = Phase::In;
                    self.react(error_of(reply.error_code));
                }
            }
            (
                Phase::Committing {
                    partition,
                    offset,
                    latest_before,
                    ..
                },
                GroupReply::CommitOffsets(reply),
            ) => {
                self.phase = Phase::In;
                let error = error_of(reply.topics[0].partitions[0].error_code);
                if error == ErrorCode::None {
                    assert!(
                        self.generation >= latest_before,
                        "a member of generation {} committed after {latest_before} had begun",
                        self.generation
                    );
                    let known = witness
                        .acknowledged
                        .entry((self.group.clone(), partition))
                        .or_insert(-1);
                    *known = (*known).max(offset);
                }
                self.react(error);
            }
            (phase, reply) => panic!("{phase:?} was answered {reply:?}"),
        }
    }

    fn joined(&mut self, rig: &mut Rig, witness: &mut Witness, reply: &JoinGroupResponse) {
        self.phase = Phase::Out;
        match error_of(reply.error_code) {
            ErrorCode::None => {
                self.id = reply.member_id.clone();
                self.generation = reply.generation_id;
                let request = self.sync_request(witness, reply);
                self.phase = Phase::Syncing(rig.send(GroupRequest::Sync(request)));
            }
            ErrorCode::MemberIdRequired => self.id = reply.member_id.clone(),
            error => self.react(error),
        }
    }

    fn react(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::None => {}
            ErrorCode::UnknownMemberId => {
                self.id = Str::default();
                self.out();
            }
            ErrorCode::FencedInstanceId => self.phase = Phase::Fenced,
            ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress => self.out(),
            ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator => self.disconnected(),
            ErrorCode::GroupMaxSizeReached => {
                self.id = Str::default();
                self.out();
            }
            other => panic!("a client would not know what to do with {other:?}"),
        }
    }

    fn out(&mut self) {
        self.share.clear();
        self.phase = Phase::Out;
    }

    fn take_share(&mut self, witness: &mut Witness, assignment: &Bytes) {
        self.phase = Phase::In;
        self.share.clear();
        let latest = witness.latest.entry(self.group.clone()).or_insert(-1);
        assert!(
            self.generation >= *latest,
            "a share of generation {} after one of {latest}",
            self.generation
        );
        *latest = self.generation;
        let Some((number, share)) = assignment.split_first_chunk::<8>() else {
            return;
        };
        let number = u64::from_be_bytes(*number);
        let key = (self.group.clone(), self.generation);
        let told = *witness.assignments.entry(key).or_insert(number);
        assert_eq!(
            told, number,
            "two assignments in generation {}",
            self.generation
        );
        self.share = share
            .iter()
            .map(|partition| i32::from(*partition))
            .collect();
    }

    fn join_request(&self) -> GroupRequest {
        GroupRequest::Join {
            request: JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 15_000,
                member_id: self.id.clone(),
                group_instance_id: self.instance.clone(),
                protocol_type: Str::from("consumer"),
                protocols: vec![join_group_request::JoinGroupRequestProtocol {
                    name: Str::from("range"),
                    metadata: Bytes::from_static(&[
                        0, 0, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255,
                    ]),
                    ..Default::default()
                }],
                ..JoinGroupRequest::default()
            },
            caller: Caller::default(),
            known_member_id: true,
            skip_assignment: true,
        }
    }

    /// A leader gives every partition to somebody, and marks the assignment with a number of its
    /// own.
    fn sync_request(&self, witness: &mut Witness, joined: &JoinGroupResponse) -> SyncGroupRequest {
        let mut assignments = Vec::new();
        if !joined.skip_assignment && joined.leader == joined.member_id {
            witness.next_assignment += 1;
            let members = joined.members.len() as i32;
            for (place, member) in joined.members.iter().enumerate() {
                let mut share = witness.next_assignment.to_be_bytes().to_vec();
                let own = (0..TOPIC_PARTITIONS).filter(|index| index % members == place as i32);
                share.extend(own.map(|index| index as u8));
                assignments.push(sync_group_request::SyncGroupRequestAssignment {
                    member_id: member.member_id.clone(),
                    assignment: Bytes::from(share),
                    ..Default::default()
                });
            }
        }
        SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            assignments,
            ..SyncGroupRequest::default()
        }
    }

    fn leave_request(&self) -> GroupRequest {
        GroupRequest::Leave(LeaveGroupRequest {
            group_id: self.group.clone(),
            members: vec![leave_group_request::MemberIdentity {
                member_id: self.id.clone(),
                group_instance_id: self.instance.clone(),
                ..Default::default()
            }],
            ..LeaveGroupRequest::default()
        })
    }

    fn commit_request(&self, partition: i32, offset: i64) -> GroupRequest {
        GroupRequest::CommitOffsets {
            request: OffsetCommitRequest {
                group_id: self.group.clone(),
                generation_id_or_member_epoch: self.generation,
                member_id: self.id.clone(),
                group_instance_id: self.instance.clone(),
                topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                    name: Str::from(TOPIC),
                    topic_id: Uuid(TOPIC_ID),
                    partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                        partition_index: partition,
                        committed_offset: offset,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..OffsetCommitRequest::default()
            },
            knows_epochs: true,
        }
    }
}
