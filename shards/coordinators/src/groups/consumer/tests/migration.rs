//! A group changes its protocol, there and back, with both kinds of member in it.

use bytes::Bytes;
use chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use chronik_protocol::messages::leave_group_request::MemberIdentity;
use chronik_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use chronik_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
};
use chronik_protocol::{ErrorCode, Message, Str, Uuid, Writer};

use super::super::assignor::Partitions;
use super::super::embedded;
use super::super::testing::image_of;
use super::rig::{GROUP, Rig, assigned, heartbeat, joining, reported};
use crate::groups::caller::Token;
use crate::groups::group::Group;
use crate::groups::request::{Caller, GroupReply, GroupRequest};

const A: Uuid = Uuid(200);

fn subscription(topics: &[&str]) -> Bytes {
    let message = ConsumerProtocolSubscription {
        topics: topics.iter().map(|name| Str::from(*name)).collect(),
        user_data: None,
        ..ConsumerProtocolSubscription::default()
    };
    let mut writer = Writer::new();
    writer.put_i16(1);
    message.encode(&mut writer, 1).expect("encodes");
    writer.into_bytes()
}

fn join(rig: &mut Rig, member: &str, instance: Option<&str>) -> Token {
    join_with(rig, member, instance, subscription(&["a"]))
}

fn join_with(rig: &mut Rig, member: &str, instance: Option<&str>, metadata: Bytes) -> Token {
    rig.ask(GroupRequest::Join {
        request: JoinGroupRequest {
            group_id: Str::from(GROUP),
            member_id: Str::from(member),
            group_instance_id: instance.map(Str::from),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: Str::from("consumer"),
            protocols: vec![JoinGroupRequestProtocol {
                name: Str::from("range"),
                metadata,
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        },
        caller: Caller::default(),
        known_member_id: true,
        skip_assignment: true,
    })
}

fn joined(rig: &mut Rig, token: Token) -> JoinGroupResponse {
    match rig.replies.remove(&token) {
        Some(GroupReply::Join(response)) => response,
        other => panic!("no answer to a join: {other:?}"),
    }
}

fn sync(
    rig: &mut Rig,
    member: &str,
    generation: i32,
    given: &[(&str, Bytes)],
) -> SyncGroupResponse {
    let assignments = given
        .iter()
        .map(|(member, bytes)| SyncGroupRequestAssignment {
            member_id: Str::from(*member),
            assignment: bytes.clone(),
            ..SyncGroupRequestAssignment::default()
        });
    let token = rig.ask(GroupRequest::Sync(SyncGroupRequest {
        group_id: Str::from(GROUP),
        member_id: Str::from(member),
        generation_id: generation,
        assignments: assignments.collect(),
        ..SyncGroupRequest::default()
    }));
    match rig.replies.remove(&token) {
        Some(GroupReply::Sync(response)) => response,
        other => panic!("no answer to a sync: {other:?}"),
    }
}

fn classic_beat(rig: &mut Rig, member: &str, generation: i32) -> ErrorCode {
    let token = rig.ask(GroupRequest::Heartbeat(HeartbeatRequest {
        group_id: Str::from(GROUP),
        member_id: Str::from(member),
        generation_id: generation,
        ..HeartbeatRequest::default()
    }));
    match rig.replies.remove(&token) {
        Some(GroupReply::Heartbeat(response)) => {
            ErrorCode::try_from(response.error_code).expect("a known code")
        }
        other => panic!("no answer to a heartbeat: {other:?}"),
    }
}

fn numbers(of: &[i32]) -> Partitions {
    Partitions::from([(A, of.iter().copied().collect())])
}

fn given(rig: &Rig, response: &SyncGroupResponse) -> Partitions {
    assert_eq!(response.error_code, 0);
    let assigned = embedded::assigned(&response.assignment, &rig.image);
    assigned.expect("an assignment").expect("partitions only")
}

/// A stable classic group of one member, which has everything; gives its id and generation.
fn classic_group(rig: &mut Rig) -> (String, i32) {
    let token = join(rig, "", None);
    let id = joined(rig, token).member_id.to_string();
    let token = join(rig, &id, None);
    rig.advance(3_000);
    let response = joined(rig, token);
    assert_eq!(response.leader, response.member_id);
    let all = embedded::assignment(&numbers(&[0, 1, 2, 3]), &subscription(&["a"]), &rig.image);
    let all = all.expect("encodes");
    let generation = response.generation_id;
    sync(rig, &id, generation, &[(&id, all)]);
    assert_eq!(classic_beat(rig, &id, generation), ErrorCode::None);
    (id, generation)
}

#[test]
fn a_classic_group_is_upgraded_goes_on_and_is_downgraded() {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    let (old, generation) = classic_group(&mut rig);
    let from = rig.log.len();
    let response = rig.beat(joining("new", &["a"]));
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    assert_eq!(
        rig.written(from)[..6],
        [
            "-GroupMetadata",
            "MemberMetadata",
            "Metadata",
            "TargetAssignmentMember",
            "TargetAssignmentMetadata",
            "CurrentMemberAssignment",
        ]
    );
    let group = rig.group().expect("a consumer group");
    assert_eq!((group.members.len(), group.classic_members()), (2, 1));
    let epoch = response.member_epoch;
    assert_eq!(epoch, generation + 1);
    // The classic member is told to come again, and gives up half.
    assert_eq!(
        classic_beat(&mut rig, &old, generation),
        ErrorCode::RebalanceInProgress
    );
    let token = join(&mut rig, &old, None);
    let response = joined(&mut rig, token);
    assert_eq!((response.error_code, response.generation_id), (0, epoch));
    let share = sync(&mut rig, &old, epoch, &[]);
    assert_eq!(given(&rig, &share), numbers(&[0, 1]));
    assert_eq!(classic_beat(&mut rig, &old, epoch), ErrorCode::None);
    let told = rig.beat(heartbeat("new", epoch));
    assert_eq!(assigned(&told), Some(numbers(&[2, 3])));
    let replayed = Rig::replayed(&rig.log);
    assert!(matches!(
        replayed.groups.get(GROUP),
        Some(Group::Consumer(_))
    ));
    // The last member of the new protocol goes: the group is classic and everybody has to join.
    rig.beat(heartbeat("new", -1));
    rig.advance(0);
    match rig.partition.groups.get(GROUP) {
        Some(Group::Classic(group)) => assert_eq!(group.members().len(), 1),
        other => panic!("not classic: {other:?}"),
    }
    let heard = classic_beat(&mut rig, &old, epoch);
    assert_eq!(heard, ErrorCode::RebalanceInProgress);
    let token = join(&mut rig, &old, None);
    let response = joined(&mut rig, token);
    assert_eq!(
        (response.error_code, response.generation_id),
        (0, epoch + 1)
    );
}

#[test]
fn classic_members_have_deadlines_in_a_consumer_group() {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    rig.beat(joining("new", &["a"]));
    let token = join(&mut rig, "", None);
    let id = joined(&mut rig, token);
    assert_eq!(id.error_code, ErrorCode::MemberIdRequired.as_i16());
    rig.advance(1_000);
    let token = join(&mut rig, &id.member_id, None);
    let response = joined(&mut rig, token);
    assert_eq!((response.error_code, response.generation_id), (0, 3));
    let empty = sync(&mut rig, &id.member_id, 3, &[]);
    assert_eq!(
        given(&rig, &empty),
        Partitions::new(),
        "the other has not given up yet"
    );
    assert_eq!(classic_beat(&mut rig, &id.member_id, 3), ErrorCode::None);
    let told = rig.beat(heartbeat("new", 2));
    assert_eq!(assigned(&told), Some(numbers(&[0, 1])));
    let mut owns = heartbeat("new", 2);
    owns.topic_partitions = reported(&numbers(&[0, 1]));
    rig.beat(owns);
    let heard = classic_beat(&mut rig, &id.member_id, 3);
    assert_eq!(
        heard,
        ErrorCode::RebalanceInProgress,
        "its share is free now"
    );
    // It does not come: after its rebalance timeout it is fenced, though it was heard of.
    for _ in 0..6 {
        rig.advance(9_000);
        rig.beat(heartbeat("new", 3));
        let heard = classic_beat(&mut rig, &id.member_id, 3);
        assert_eq!(heard, ErrorCode::RebalanceInProgress);
    }
    rig.advance(6_000);
    let heard = classic_beat(&mut rig, &id.member_id, 3);
    assert_eq!(heard, ErrorCode::UnknownMemberId);
}

#[test]
fn policy_keeps_the_protocols_apart() {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    rig.configure(&[("group.consumer.migration.policy", "disabled")]);
    let (old, generation) = classic_group(&mut rig);
    let refused = rig.beat(joining("new", &["a"]));
    assert_eq!(refused.error_code, ErrorCode::GroupIdNotFound.as_i16());
    assert_eq!(classic_beat(&mut rig, &old, generation), ErrorCode::None);
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    rig.configure(&[("group.consumer.migration.policy", "disabled")]);
    rig.beat(joining("new", &["a"]));
    let token = join(&mut rig, "", None);
    let response = joined(&mut rig, token);
    assert_eq!(
        response.error_code,
        ErrorCode::InconsistentGroupProtocol.as_i16()
    );
}

#[test]
fn a_classic_instance_takes_over_from_the_last_new_one() {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    let mut request = joining("new", &["a"]);
    request.instance_id = Some(Str::from("i"));
    let all = assigned(&rig.beat(request));
    assert_eq!(all, Some(numbers(&[0, 1, 2, 3])));
    let token = join(&mut rig, "", Some("i"));
    let response = joined(&mut rig, token);
    assert_eq!((response.error_code, response.generation_id), (0, 2));
    assert!(matches!(
        rig.partition.groups.get(GROUP),
        Some(Group::Classic(_))
    ));
    let share = sync(&mut rig, &response.member_id, 2, &[]);
    assert_eq!(
        given(&rig, &share),
        numbers(&[0, 1, 2, 3]),
        "its partitions stay with it"
    );
    assert_eq!(
        classic_beat(&mut rig, &response.member_id, 2),
        ErrorCode::None
    );
    let fenced = rig.beat(heartbeat("new", 2));
    assert_eq!(fenced.error_code, ErrorCode::GroupIdNotFound.as_i16());
}

#[test]
fn empty_groups_are_of_the_type_of_whoever_comes() {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    let (old, _) = classic_group(&mut rig);
    let leave = |rig: &mut Rig, member: &str| {
        rig.ask(GroupRequest::Leave(LeaveGroupRequest {
            group_id: Str::from(GROUP),
            members: vec![MemberIdentity {
                member_id: Str::from(member),
                ..MemberIdentity::default()
            }],
            ..LeaveGroupRequest::default()
        }))
    };
    leave(&mut rig, &old);
    assert_eq!(rig.beat(joining("new", &["a"])).error_code, 0);
    assert_eq!(rig.group().map(|group| group.members.len()), Some(1));
    leave(&mut rig, "new");
    assert_eq!(rig.group().map(|group| group.members.len()), Some(0));
    let (_, generation) = classic_group(&mut rig);
    assert_eq!(generation, 1);
    assert!(matches!(
        rig.partition.groups.get(GROUP),
        Some(Group::Classic(_))
    ));
    let replayed = Rig::replayed(&rig.log);
    assert!(matches!(
        replayed.groups.get(GROUP),
        Some(Group::Classic(_))
    ));
}

/// A subscription with so much of the member's own in it.
fn large_subscription(bytes: usize) -> Bytes {
    let message = ConsumerProtocolSubscription {
        topics: vec![Str::from("a")],
        user_data: Some(Bytes::from(vec![0; bytes])),
        ..ConsumerProtocolSubscription::default()
    };
    let mut writer = Writer::new();
    writer.put_i16(1);
    message.encode(&mut writer, 1).expect("encodes");
    writer.into_bytes()
}

/// A consumer group of one member of the new protocol and three classic ones, of which each fits
/// into a batch and all do not.
fn group_that_cannot_be_classic(instance: Option<&str>) -> Rig {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    rig.batch_bytes_max = 10_000;
    let mut request = joining("new", &["a"]);
    request.instance_id = instance.map(Str::from);
    assert_eq!(rig.beat(request).error_code, 0);
    for _ in 0..3 {
        let token = join_with(&mut rig, "", None, large_subscription(4_000));
        let id = joined(&mut rig, token).member_id.to_string();
        let token = join_with(&mut rig, &id, None, large_subscription(4_000));
        assert_eq!(joined(&mut rig, token).error_code, 0);
    }
    assert_eq!(rig.group().map(|group| group.members.len()), Some(4));
    rig
}

#[test]
fn a_silent_member_goes_even_if_the_group_cannot_become_classic() {
    let mut rig = group_that_cannot_be_classic(None);
    // Classic members are heard of, the new one is not.
    let members: Vec<(String, i32)> = {
        let group = rig.group().expect("a consumer group");
        let classic = group.members.values().filter(|m| m.classic.is_some());
        classic.map(|m| (m.id.to_string(), m.epoch)).collect()
    };
    for _ in 0..5 {
        rig.advance(10_000);
        for (id, epoch) in &members {
            classic_beat(&mut rig, id, *epoch);
        }
    }
    let group = rig.group().expect("a consumer group as before");
    assert_eq!((group.members.len(), group.classic_members()), (3, 3));
    // Those who stay have deadlines, too.
    rig.advance(120_000);
    let left = rig.partition.groups.get(GROUP).map(Group::member_count);
    assert_eq!(left, Some(0));
}

#[test]
fn whoever_waits_in_a_classic_group_is_told_only_when_it_is_converted() {
    let mut rig = Rig::new(image_of(&[("a", A.0, 4)]));
    let (old, _) = classic_group(&mut rig);
    // Its member joins anew, which waits for a second one that was given an id.
    let second = join(&mut rig, "", None);
    joined(&mut rig, second);
    let waiting = join_with(&mut rig, &old, None, large_subscription(8));
    assert!(!rig.replies.contains_key(&waiting), "the join is parked");
    rig.batch_bytes_max = 64;
    let refused = rig.beat(joining("new", &["a"])).error_code;
    assert_eq!(refused, ErrorCode::UnknownServerError.as_i16());
    assert!(!rig.replies.contains_key(&waiting), "nothing was converted");
    rig.batch_bytes_max = 10_000;
    assert_eq!(rig.beat(joining("new", &["a"])).error_code, 0);
    let told = joined(&mut rig, waiting).error_code;
    assert_eq!(told, ErrorCode::RebalanceInProgress.as_i16());
}

#[test]
fn a_classic_instance_comes_in_even_if_the_group_cannot_become_classic() {
    let mut rig = group_that_cannot_be_classic(Some("i"));
    rig.beat(heartbeat("new", -2));
    let token = join(&mut rig, "", Some("i"));
    let response = joined(&mut rig, token);
    assert_eq!(response.error_code, 0);
    let group = rig.group().expect("a consumer group as before");
    assert_eq!((group.members.len(), group.classic_members()), (4, 4));
    assert!(group.members.contains_key(&response.member_id));
}
