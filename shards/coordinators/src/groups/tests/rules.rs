//! Single rules of the coordinator: who waits for what, what survives, what is forgotten.

use chronik_protocol::messages::{
    JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest, SyncGroupRequest,
};
use chronik_protocol::messages::{offset_commit_request, offset_fetch_request, sync_group_request};
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::super::{GroupPage, NameFilter};
use super::rig::{Rig, TOPIC, TOPIC_ID};
use crate::groups::consumer::testing::{add_topic, grow_topic, remove_topic};
use crate::groups::{Caller, GroupReply, GroupRequest, TopicChanges};

/// No waiting for other members.
pub(super) const AT_ONCE: (&str, &str) = ("group.initial.rebalance.delay.ms", "0");

/// A member to be.
#[derive(Clone, Default)]
pub(super) struct Joiner {
    pub(super) member: Str,
    pub(super) instance: Option<Str>,
    pub(super) metadata: &'static [u8],
    pub(super) session_ms: i32,
    pub(super) rebalance_ms: i32,
}

impl Joiner {
    pub(super) fn new(member: &str) -> Joiner {
        Joiner {
            member: Str::from(member),
            metadata: &[0, 0, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255],
            session_ms: 10_000,
            rebalance_ms: 20_000,
            ..Joiner::default()
        }
    }

    pub(super) fn named(instance: &str) -> Joiner {
        Joiner {
            instance: Some(Str::from(instance)),
            ..Joiner::new("")
        }
    }

    pub(super) fn request(&self) -> GroupRequest {
        let protocol = chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol {
            name: Str::from("range"),
            metadata: bytes::Bytes::from_static(self.metadata),
            ..Default::default()
        };
        GroupRequest::Join {
            request: JoinGroupRequest {
                group_id: Str::from("g"),
                session_timeout_ms: self.session_ms,
                rebalance_timeout_ms: self.rebalance_ms,
                member_id: self.member.clone(),
                group_instance_id: self.instance.clone(),
                protocol_type: Str::from("consumer"),
                protocols: vec![protocol],
                ..JoinGroupRequest::default()
            },
            caller: Caller::default(),
            known_member_id: true,
            skip_assignment: true,
        }
    }
}

pub(super) fn code(error: i16) -> ErrorCode {
    ErrorCode::try_from(error).expect("an error code")
}

pub(super) fn joined(rig: &mut Rig, caller: u64) -> JoinGroupResponse {
    match rig.replies.remove(&caller) {
        Some(GroupReply::Join(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// The id a new member gets.
pub(super) fn new_id(rig: &mut Rig) -> Str {
    let caller = rig.send(Joiner::new("").request());
    let reply = joined(rig, caller);
    assert_eq!(code(reply.error_code), ErrorCode::MemberIdRequired);
    reply.member_id
}

pub(super) fn sync(rig: &mut Rig, joined: &JoinGroupResponse) -> u64 {
    let share = |member: &Str| sync_group_request::SyncGroupRequestAssignment {
        member_id: member.clone(),
        assignment: bytes::Bytes::from(format!("for {member}")),
        ..Default::default()
    };
    let members = joined.members.iter().map(|member| &member.member_id);
    let request = SyncGroupRequest {
        group_id: Str::from("g"),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: members.map(share).collect(),
        ..SyncGroupRequest::default()
    };
    rig.send(GroupRequest::Sync(request))
}

pub(super) fn synced(rig: &mut Rig, caller: u64) -> Result<String, ErrorCode> {
    match rig.replies.remove(&caller) {
        Some(GroupReply::Sync(reply)) if reply.error_code == 0 => {
            Ok(String::from_utf8(reply.assignment.to_vec()).expect("text"))
        }
        Some(GroupReply::Sync(reply)) => Err(code(reply.error_code)),
        other => panic!("{other:?}"),
    }
}

/// A group of one member that has its share.
pub(super) fn stable(rig: &mut Rig) -> JoinGroupResponse {
    let id = new_id(rig);
    let caller = rig.send(Joiner::new(&id).request());
    rig.pass(0);
    let reply = joined(rig, caller);
    assert_eq!(code(reply.error_code), ErrorCode::None);
    let caller = sync(rig, &reply);
    rig.settle();
    assert_eq!(synced(rig, caller), Ok(format!("for {id}")));
    reply
}

pub(super) fn commit(group: &str, offset: i64) -> GroupRequest {
    GroupRequest::CommitOffsets {
        request: OffsetCommitRequest {
            group_id: Str::from(group),
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: Str::from(TOPIC),
                topic_id: Uuid(TOPIC_ID),
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
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

pub(super) fn commit_result(reply: &GroupReply) -> ErrorCode {
    match reply {
        GroupReply::CommitOffsets(reply) => code(reply.topics[0].partitions[0].error_code),
        other => panic!("{other:?}"),
    }
}

pub(super) fn offset_of(rig: &mut Rig, group: &str) -> Result<i64, ErrorCode> {
    let request = GroupRequest::FetchOffsets {
        groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
            group_id: Str::from(group),
            topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopics {
                name: Str::from(TOPIC),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
    };
    match rig.ask(request) {
        GroupReply::FetchOffsets(groups) if groups[0].error_code == 0 => {
            Ok(groups[0].topics[0].partitions[0].committed_offset)
        }
        GroupReply::FetchOffsets(groups) => Err(code(groups[0].error_code)),
        other => panic!("{other:?}"),
    }
}

fn groups(rig: &mut Rig) -> Vec<(String, String)> {
    let list = GroupRequest::List {
        states: NameFilter::default(),
        types: NameFilter::default(),
        page: GroupPage::FIRST,
    };
    match rig.ask(list) {
        GroupReply::List(reply, _) => reply
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
            .collect(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn state_of(rig: &mut Rig, group: &str) -> String {
    let found = groups(rig).into_iter().find(|(name, _)| name == group);
    found.map_or_else(|| "missing".to_owned(), |(_, state)| state)
}

#[test]
fn an_answer_waits_for_what_it_tells_to_be_committed() {
    let mut rig = Rig::new(1, &[]);
    let first = rig.send(commit("g", 5));
    let second = rig.send(commit("g", 6));
    assert!(rig.replies.is_empty(), "nothing is committed");
    rig.decide(None);
    assert_eq!(
        commit_result(&rig.replies.remove(&first).expect("told")),
        ErrorCode::None
    );
    assert!(!rig.replies.contains_key(&second));
    rig.decide(None);
    assert!(rig.replies.contains_key(&second));
    assert_eq!(offset_of(&mut rig, "g"), Ok(6));
}

#[test]
fn a_failed_append_takes_back_what_was_not_written_and_tells_everybody() {
    let mut rig = Rig::new(2, &[AT_ONCE]);
    assert_eq!(commit_result(&rig.ask(commit("g", 5))), ErrorCode::None);
    let member = new_id(&mut rig);
    rig.settle();
    let lost = rig.send(commit("g", 9));
    let later = rig.send(commit("g", 10));
    let parked = rig.send(Joiner::new(&member).request());
    rig.decide(Some(ErrorCode::KafkaStorageError));
    for caller in [lost, later] {
        let reply = rig.replies.remove(&caller).expect("told");
        assert_eq!(commit_result(&reply), ErrorCode::NotCoordinator);
    }
    assert_eq!(
        code(joined(&mut rig, parked).error_code),
        ErrorCode::NotCoordinator
    );
    // Until the writes under way have come back and the log is read again.
    let early = rig.send(commit("g", 11));
    let reply = rig.replies.remove(&early).expect("told");
    assert_eq!(commit_result(&reply), ErrorCode::CoordinatorLoadInProgress);
    rig.settle();
    let found = offset_of(&mut rig, "g");
    assert!(matches!(found, Ok(5 | 10)), "{found:?}: what the log has");
}

#[test]
fn new_members_come_again_with_the_id_they_are_given_or_are_forgotten() {
    let mut rig = Rig::new(3, &[AT_ONCE]);
    let id = new_id(&mut rig);
    rig.pass(10_000);
    rig.settle();
    let late = rig.send(Joiner::new(&id).request());
    let reply = joined(&mut rig, late);
    assert_eq!(code(reply.error_code), ErrorCode::UnknownMemberId);
    assert_eq!(state_of(&mut rig, "g"), "Empty");
}

#[test]
fn the_first_rebalance_waits_longer_when_somebody_comes() {
    let mut rig = Rig::new(4, &[("group.initial.rebalance.delay.ms", "3000")]);
    let (one, two) = (new_id(&mut rig), new_id(&mut rig));
    let first = rig.send(Joiner::new(&one).request());
    rig.pass(2_000);
    let second = rig.send(Joiner::new(&two).request());
    rig.pass(1_000);
    assert!(rig.replies.is_empty(), "3 s are over, but somebody came");
    rig.pass(3_000);
    let (first, second) = (joined(&mut rig, first), joined(&mut rig, second));
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!(first.leader, second.leader);
    let told = [first.members.len(), second.members.len()];
    assert!(
        told == [2, 0] || told == [0, 2],
        "only the leader is told: {told:?}"
    );
}

#[test]
fn sessions_have_bounds_and_groups_a_size() {
    let mut rig = Rig::new(5, &[AT_ONCE, ("group.max.size", "1")]);
    for session_ms in [5_999, 1_800_001] {
        let joiner = Joiner {
            session_ms,
            ..Joiner::new("")
        };
        let caller = rig.send(joiner.request());
        let reply = joined(&mut rig, caller);
        assert_eq!(code(reply.error_code), ErrorCode::InvalidSessionTimeout);
    }
    stable(&mut rig);
    let caller = rig.send(Joiner::new("").request());
    let reply = joined(&mut rig, caller);
    assert_eq!(code(reply.error_code), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_member_that_falls_silent_is_removed_and_the_rest_rebalances() {
    let mut rig = Rig::new(6, &[AT_ONCE]);
    let first = stable(&mut rig);
    let id = new_id(&mut rig);
    let second = rig.send(Joiner::new(&id).request());
    assert_eq!(state_of(&mut rig, "g"), "PreparingRebalance");
    // The first never comes: its session ends before the time to join is over.
    rig.pass(10_000);
    let second = joined(&mut rig, second);
    assert_eq!(
        (second.generation_id, &second.leader),
        (2, &second.member_id)
    );
    assert_eq!(second.members.len(), 1);
    assert_ne!(first.member_id, second.member_id);
}

#[test]
fn members_that_do_not_fetch_their_share_are_removed() {
    let mut rig = Rig::new(7, &[("group.initial.rebalance.delay.ms", "1000")]);
    let ids = [new_id(&mut rig), new_id(&mut rig)];
    let joins = ids.clone().map(|id| {
        let joiner = Joiner {
            session_ms: 60_000,
            ..Joiner::new(&id)
        };
        rig.send(joiner.request())
    });
    rig.pass(1_000);
    rig.pass(1_000);
    let replies = joins.map(|caller| joined(&mut rig, caller));
    let leader = replies.iter().find(|reply| !reply.members.is_empty());
    let leader = leader.expect("somebody leads").clone();
    let caller = sync(&mut rig, &leader);
    rig.settle();
    assert!(synced(&mut rig, caller).is_ok());
    assert_eq!(state_of(&mut rig, "g"), "Stable");
    rig.pass(20_000);
    assert_eq!(state_of(&mut rig, "g"), "PreparingRebalance");
}

/// A leader that lost its connection asks again while its assignment is being written: the first one
/// stays, the old question is refused, the new one gets the answer.
#[test]
fn an_assignment_is_written_once_however_often_the_leader_brings_one() {
    let mut rig = Rig::new(1, &[AT_ONCE]);
    let id = new_id(&mut rig);
    let caller = rig.send(Joiner::new(&id).request());
    rig.pass(0);
    let joined = joined(&mut rig, caller);
    let written = rig.undecided();
    let first = sync(&mut rig, &joined);
    assert_eq!(rig.undecided(), written + 1);
    let again = SyncGroupRequest {
        group_id: Str::from("g"),
        generation_id: joined.generation_id,
        member_id: id.clone(),
        assignments: vec![sync_group_request::SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment: bytes::Bytes::from_static(b"another"),
            ..Default::default()
        }],
        ..SyncGroupRequest::default()
    };
    let second = rig.send(GroupRequest::Sync(again));
    assert_eq!(rig.undecided(), written + 1, "written twice");
    assert_eq!(
        synced(&mut rig, first),
        Err(ErrorCode::RebalanceInProgress),
        "nobody waits for it any more"
    );
    assert!(!rig.replies.contains_key(&second), "answered too early");
    rig.settle();
    assert_eq!(synced(&mut rig, second), Ok(format!("for {id}")));
    rig.restart();
    rig.settle();
    let after = sync(&mut rig, &joined);
    assert_eq!(synced(&mut rig, after), Ok(format!("for {id}")));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    let mut rig = Rig::new(8, &[AT_ONCE]);
    let caller = rig.send(Joiner::named("machine").request());
    rig.pass(0);
    let before = joined(&mut rig, caller);
    let caller = sync(&mut rig, &before);
    rig.settle();
    let share = synced(&mut rig, caller);

    let caller = rig.send(Joiner::named("machine").request());
    assert!(
        !rig.replies.contains_key(&caller),
        "its new id is to be durable first"
    );
    rig.settle();
    let after = joined(&mut rig, caller);
    assert_eq!(after.generation_id, before.generation_id);
    assert_ne!(after.member_id, before.member_id);
    assert!(after.skip_assignment, "it leads, and has nothing to assign");
    let caller = sync(&mut rig, &after);
    rig.settle();
    assert_eq!(synced(&mut rig, caller), share, "what it had before");

    let old = Joiner {
        member: before.member_id.clone(),
        ..Joiner::named("machine")
    };
    let caller = rig.send(old.request());
    let reply = joined(&mut rig, caller);
    assert_eq!(code(reply.error_code), ErrorCode::FencedInstanceId);
}

#[test]
fn only_members_of_the_generation_commit_while_there_are_members() {
    let mut rig = Rig::new(9, &[AT_ONCE]);
    let member = stable(&mut rig);
    assert_eq!(
        commit_result(&rig.ask(commit("g", 1))),
        ErrorCode::UnknownMemberId
    );
    let as_member = |id: &Str, generation: i32| match commit("g", 2) {
        GroupRequest::CommitOffsets {
            mut request,
            knows_epochs,
        } => {
            request.member_id = id.clone();
            request.generation_id_or_member_epoch = generation;
            GroupRequest::CommitOffsets {
                request,
                knows_epochs,
            }
        }
        other => other,
    };
    let id = &member.member_id;
    assert_eq!(commit_result(&rig.ask(as_member(id, 1))), ErrorCode::None);
    assert_eq!(
        commit_result(&rig.ask(as_member(id, 0))),
        ErrorCode::IllegalGeneration
    );
    let nobody = Str::from("nobody");
    assert_eq!(
        commit_result(&rig.ask(as_member(&nobody, 1))),
        ErrorCode::UnknownMemberId
    );
    let other_id = new_id(&mut rig);
    rig.send(Joiner::new(&other_id).request());
    assert_eq!(
        commit_result(&rig.ask(as_member(id, 1))),
        ErrorCode::None,
        "before it rejoins"
    );
    assert_eq!(offset_of(&mut rig, "g"), Ok(2));
}

#[test]
fn what_is_committed_survives_the_process_and_members_get_a_new_session() {
    let mut rig = Rig::new(10, &[AT_ONCE]);
    let member = stable(&mut rig);
    assert_eq!(commit_result(&rig.ask(commit("plain", 7))), ErrorCode::None);
    rig.restart();
    assert_eq!(
        offset_of(&mut rig, "plain"),
        Err(ErrorCode::CoordinatorLoadInProgress)
    );
    rig.settle();
    assert_eq!(offset_of(&mut rig, "plain"), Ok(7));
    assert_eq!(state_of(&mut rig, "g"), "Stable");
    rig.pass(9_999);
    assert_eq!(state_of(&mut rig, "g"), "Stable");
    let beat = chronik_protocol::messages::HeartbeatRequest {
        group_id: Str::from("g"),
        generation_id: member.generation_id,
        member_id: member.member_id,
        ..Default::default()
    };
    let GroupReply::Heartbeat(reply) = rig.ask(GroupRequest::Heartbeat(beat)) else {
        panic!("another answer");
    };
    assert_eq!(code(reply.error_code), ErrorCode::None);
    rig.pass(10_000);
    rig.settle();
    assert_eq!(state_of(&mut rig, "g"), "Empty");
}

#[test]
fn offsets_are_forgotten_when_nobody_wants_them_for_long_enough() {
    let minutes = ("offsets.retention.minutes", "10");
    let check = ("offsets.retention.check.interval.ms", "1000");
    let mut rig = Rig::new(11, &[AT_ONCE, minutes, check]);
    assert_eq!(commit_result(&rig.ask(commit("plain", 1))), ErrorCode::None);
    stable(&mut rig);
    for _ in 0..59 {
        rig.pass(10_000);
        rig.settle();
    }
    assert_eq!(offset_of(&mut rig, "plain"), Ok(1), "not yet");
    rig.pass(20_000);
    rig.settle();
    assert_eq!(offset_of(&mut rig, "plain"), Ok(-1));
    assert_eq!(groups(&mut rig), [], "the groups go with their offsets");
}

#[test]
fn offsets_of_subscribed_topics_stay() {
    let minutes = ("offsets.retention.minutes", "1");
    let check = ("offsets.retention.check.interval.ms", "1000");
    let mut rig = Rig::new(12, &[AT_ONCE, minutes, check]);
    assert_eq!(commit_result(&rig.ask(commit("g", 4))), ErrorCode::None);
    let member = stable(&mut rig);
    for _ in 0..30 {
        let beat = chronik_protocol::messages::HeartbeatRequest {
            group_id: Str::from("g"),
            generation_id: member.generation_id,
            member_id: member.member_id.clone(),
            ..Default::default()
        };
        rig.ask(GroupRequest::Heartbeat(beat));
        rig.pass(5_000);
        rig.settle();
    }
    assert_eq!(offset_of(&mut rig, "g"), Ok(4));
}

#[test]
fn a_topic_that_is_created_again_begins_without_offsets() {
    let mut rig = Rig::new(13, &[]);
    assert_eq!(commit_result(&rig.ask(commit("g", 4))), ErrorCode::None);
    let mut image = (*rig.image).clone();
    remove_topic(&mut image, TOPIC_ID);
    add_topic(&mut image, TOPIC, TOPIC_ID + 1);
    grow_topic(&mut image, TOPIC_ID + 1, 1);
    let changes = TopicChanges {
        gone: [(Str::from(TOPIC), [Uuid(TOPIC_ID)].into())].into(),
        created: true,
    };
    rig.show(image, &changes);
    // Even before the sweep has come to it.
    assert_eq!(offset_of(&mut rig, "g"), Ok(-1));
    rig.settle();
    let replayed = rig.replayed();
    assert!(
        replayed
            .values()
            .all(|state| state.offsets.of("g").is_none())
    );
}

#[test]
fn groups_with_members_are_not_deleted_and_others_with_all_they_have() {
    let mut rig = Rig::new(14, &[AT_ONCE]);
    stable(&mut rig);
    assert_eq!(commit_result(&rig.ask(commit("plain", 4))), ErrorCode::None);
    let names = ["g", "plain", "none"].map(Str::from).to_vec();
    let GroupReply::Delete(reply) = rig.ask(GroupRequest::Delete(names)) else {
        panic!("another answer");
    };
    let results: Vec<_> = reply.results.iter().map(|r| code(r.error_code)).collect();
    use ErrorCode::{GroupIdNotFound, NonEmptyGroup, None as Fine};
    assert_eq!(results, [NonEmptyGroup, Fine, GroupIdNotFound]);
    assert_eq!(offset_of(&mut rig, "plain"), Ok(-1));
    assert_eq!(groups(&mut rig).len(), 1);
}

#[test]
fn whoever_is_parked_is_released_when_the_broker_stops() {
    let mut rig = Rig::new(15, &[]);
    let id = new_id(&mut rig);
    let parked = rig.send(Joiner::new(&id).request());
    rig.settle();
    assert!(!rig.replies.contains_key(&parked));
    rig.send(GroupRequest::Stop);
    assert_eq!(
        code(joined(&mut rig, parked).error_code),
        ErrorCode::NotCoordinator
    );
    let late = rig.send(commit("g", 1));
    let reply = rig.replies.remove(&late).expect("told");
    assert_eq!(commit_result(&reply), ErrorCode::CoordinatorNotAvailable);
}
