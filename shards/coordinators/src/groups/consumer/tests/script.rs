//! One scene after the other, held against what Kafka 4.3.1 does and writes.

use std::collections::BTreeSet;

use chronik_protocol::messages::ConsumerGroupHeartbeatRequest;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::super::assignor::Partitions;
use super::super::group::GroupState;
use super::super::testing::{add_topic, grow_topic, image_of, remove_topic};
use super::rig::{Rig, assigned, heartbeat, joining, reported};
use crate::limits::{GROUP_MEMBER_TOPICS_MAX, GROUP_TOPICS_MAX};

const A: Uuid = Uuid(200);
const B: Uuid = Uuid(201);

fn rig() -> Rig {
    Rig::new(image_of(&[("a", A.0, 4), ("b", B.0, 2)]))
}

fn partitions(of: &[(Uuid, &[i32])]) -> Partitions {
    of.iter()
        .map(|(topic, numbers)| (*topic, numbers.iter().copied().collect()))
        .collect()
}

fn code(response: &chronik_protocol::messages::ConsumerGroupHeartbeatResponse) -> ErrorCode {
    ErrorCode::try_from(response.error_code).expect("a known code")
}

#[test]
fn the_first_member_gets_everything_and_writes_what_kafka_writes() {
    let mut rig = rig();
    let response = rig.beat(joining("m1", &["a", "b"]));
    assert_eq!(code(&response), ErrorCode::None);
    assert_eq!(
        (response.member_epoch, response.heartbeat_interval_ms),
        (2, 5000)
    );
    let all = partitions(&[(A, &[0, 1, 2, 3]), (B, &[0, 1])]);
    assert_eq!(assigned(&response), Some(all.clone()));
    assert_eq!(
        rig.written(0),
        [
            "MemberMetadata",
            "Metadata",
            "TargetAssignmentMember",
            "TargetAssignmentMetadata",
            "CurrentMemberAssignment",
        ]
    );
    // Nothing new: nothing written, nothing told.
    let again = rig.beat(heartbeat("m1", 2));
    assert_eq!((code(&again), again.member_epoch), (ErrorCode::None, 2));
    assert_eq!(assigned(&again), None);
    let mut full = joining("m1", &["a", "b"]);
    full.member_epoch = 2;
    full.topic_partitions = reported(&all);
    assert_eq!(assigned(&rig.beat(full)), Some(all));
    assert_eq!(rig.log.len(), 5);
    assert_eq!(rig.group().expect("a group").state(), GroupState::Stable);
}

#[test]
fn a_second_member_waits_for_what_the_first_gives_up() {
    let mut rig = rig();
    rig.beat(joining("m1", &["a"]));
    let joined = rig.beat(joining("m2", &["a"]));
    // The target is not made anew before the interval is over; the member is in the old epoch.
    assert_eq!(
        (joined.member_epoch, assigned(&joined)),
        (2, Some(Partitions::new()))
    );
    assert_eq!(rig.group().expect("a group").state(), GroupState::Assigning);
    rig.advance(1_000);
    let waiting = rig.beat(heartbeat("m2", 2));
    assert_eq!((waiting.member_epoch, assigned(&waiting)), (3, None));
    assert_eq!(
        rig.group().expect("a group").state(),
        GroupState::Reconciling
    );
    let told = rig.beat(heartbeat("m1", 2));
    assert_eq!(told.member_epoch, 2, "it has to give up first");
    assert_eq!(assigned(&told), Some(partitions(&[(A, &[0, 1])])));
    // Still owned: nothing moves for either.
    let mut owns = heartbeat("m1", 2);
    owns.topic_partitions = reported(&partitions(&[(A, &[0, 1, 2, 3])]));
    assert_eq!(rig.beat(owns.clone()).member_epoch, 2);
    assert_eq!(assigned(&rig.beat(heartbeat("m2", 3))), None);
    owns.topic_partitions = reported(&partitions(&[(A, &[0, 1])]));
    assert_eq!(rig.beat(owns).member_epoch, 3);
    let done = rig.beat(heartbeat("m2", 3));
    assert_eq!(assigned(&done), Some(partitions(&[(A, &[2, 3])])));
    assert_eq!(rig.group().expect("a group").state(), GroupState::Stable);
}

#[test]
fn epochs_and_names_that_do_not_fit_are_refused() {
    let mut rig = rig();
    let unknown = rig.beat(heartbeat("m1", 3));
    assert_eq!(code(&unknown), ErrorCode::GroupIdNotFound);
    rig.beat(joining("m1", &["a"]));
    assert_eq!(
        code(&rig.beat(heartbeat("m9", 2))),
        ErrorCode::UnknownMemberId
    );
    for epoch in [1, 3] {
        assert_eq!(
            code(&rig.beat(heartbeat("m1", epoch))),
            ErrorCode::FencedMemberEpoch
        );
    }
    // The epoch before is a repetition if what is owned was assigned, and only then.
    rig.advance(2_000);
    let mut changed = heartbeat("m1", 2);
    changed.subscribed_topic_names = Some(vec![Str::from("a"), Str::from("b")]);
    assert_eq!(rig.beat(changed).member_epoch, 3);
    assert_eq!(
        code(&rig.beat(heartbeat("m1", 2))),
        ErrorCode::FencedMemberEpoch
    );
    let mut repeated = heartbeat("m1", 2);
    repeated.topic_partitions = reported(&partitions(&[(A, &[0, 1])]));
    let repeated = rig.beat(repeated);
    assert_eq!(
        (code(&repeated), repeated.member_epoch),
        (ErrorCode::None, 3)
    );
    let mut foreign = heartbeat("m1", 2);
    foreign.topic_partitions = reported(&partitions(&[(Uuid(999), &[0])]));
    assert_eq!(code(&rig.beat(foreign)), ErrorCode::FencedMemberEpoch);
}

/// A request that is refused, and why.
type Refused = (ConsumerGroupHeartbeatRequest, ErrorCode, &'static str);

/// A join with one thing wrong.
fn wrong(change: impl FnOnce(&mut ConsumerGroupHeartbeatRequest)) -> ConsumerGroupHeartbeatRequest {
    let mut request = joining("m1", &["a"]);
    change(&mut request);
    request
}

fn invalid(request: ConsumerGroupHeartbeatRequest, why: &'static str) -> Refused {
    (request, ErrorCode::InvalidRequest, why)
}

#[test]
fn requests_are_judged_as_kafka_judges_them() {
    let mut rig = rig();
    let cases = [
        invalid(
            wrong(|r| r.member_id = Str::default()),
            "MemberId can't be empty.",
        ),
        invalid(
            wrong(|r| r.group_id = Str::from(" ")),
            "GroupId can't be empty.",
        ),
        invalid(
            wrong(|r| r.instance_id = Some(Str::default())),
            "InstanceId can't be empty.",
        ),
        invalid(
            wrong(|r| r.rack_id = Some(Str::default())),
            "RackId can't be empty.",
        ),
        invalid(
            wrong(|r| r.rebalance_timeout_ms = -1),
            "RebalanceTimeoutMs must be provided in first request.",
        ),
        invalid(
            wrong(|r| r.topic_partitions = None),
            "TopicPartitions must be empty when (re-)joining.",
        ),
        invalid(
            wrong(|r| r.subscribed_topic_names = None),
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
             (re-)joining.",
        ),
        invalid(heartbeat("m1", -2), "InstanceId can't be null."),
        invalid(heartbeat("m1", -3), "MemberEpoch is invalid."),
        (
            wrong(|r| r.server_assignor = Some(Str::from("best"))),
            ErrorCode::UnsupportedAssignor,
            "ServerAssignor best is not supported. Supported assignors: uniform, range.",
        ),
    ];
    for (request, error, message) in cases {
        let response = rig.beat(request);
        assert_eq!(code(&response), error, "{message}");
        assert_eq!(response.error_message.as_deref(), Some(message));
    }
    assert!(rig.log.is_empty());
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut rig = rig();
    rig.configure(&[("group.consumer.max.size", "1")]);
    rig.beat(joining("m1", &["a"]));
    let refused = rig.beat(joining("m2", &["a"]));
    assert_eq!(code(&refused), ErrorCode::GroupMaxSizeReached);
    assert_eq!(code(&rig.beat(joining("m1", &["b"]))), ErrorCode::None);
}

#[test]
fn members_leave_and_are_fenced_when_silent() {
    let mut rig = rig();
    rig.beat(joining("m1", &["a"]));
    rig.beat(joining("m2", &["a"]));
    let from = rig.log.len();
    let left = rig.beat(heartbeat("m2", -1));
    assert_eq!((code(&left), left.member_epoch), (ErrorCode::None, -1));
    assert_eq!(
        rig.written(from),
        [
            "-CurrentMemberAssignment",
            "-TargetAssignmentMember",
            "-MemberMetadata",
            "Metadata",
        ]
    );
    rig.advance(44_999);
    assert_eq!(rig.group().expect("a group").members.len(), 1);
    rig.advance(1);
    let group = rig.group().expect("a group");
    assert_eq!((group.members.len(), group.state()), (0, GroupState::Empty));
    assert_eq!(
        code(&rig.beat(heartbeat("m1", 2))),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn who_does_not_give_up_in_time_is_fenced() {
    let mut rig = rig();
    rig.beat(ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 10_000,
        ..joining("m1", &["a"])
    });
    rig.advance(1_000);
    rig.beat(joining("m2", &["a"]));
    rig.beat(heartbeat("m1", 2));
    for _ in 0..9 {
        rig.advance(1_000);
        assert_eq!(code(&rig.beat(heartbeat("m1", 2))), ErrorCode::None);
    }
    rig.advance(1_000);
    assert_eq!(
        code(&rig.beat(heartbeat("m1", 2))),
        ErrorCode::UnknownMemberId
    );
    rig.advance(1_000);
    let alone = rig.beat(heartbeat("m2", 3));
    assert_eq!(assigned(&alone), Some(partitions(&[(A, &[0, 1, 2, 3])])));
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut rig = rig();
    let with_instance = |id: &str| ConsumerGroupHeartbeatRequest {
        instance_id: Some(Str::from("i")),
        ..joining(id, &["a"])
    };
    let all = Some(partitions(&[(A, &[0, 1, 2, 3])]));
    assert_eq!(assigned(&rig.beat(with_instance("m1"))), all);
    let unreleased = rig.beat(with_instance("m2"));
    assert_eq!(code(&unreleased), ErrorCode::UnreleasedInstanceId);
    let leave = |id: &str, epoch| ConsumerGroupHeartbeatRequest {
        instance_id: Some(Str::from("i")),
        ..heartbeat(id, epoch)
    };
    assert_eq!(
        code(&rig.beat(leave("m9", -2))),
        ErrorCode::FencedInstanceId
    );
    let away = rig.beat(leave("m1", -2));
    assert_eq!((code(&away), away.member_epoch), (ErrorCode::None, -2));
    let epoch = rig.group().expect("a group").epoch;
    let from = rig.log.len();
    let back = rig.beat(with_instance("m2"));
    assert_eq!((code(&back), assigned(&back)), (ErrorCode::None, all));
    let group = rig.group().expect("a group");
    assert_eq!(
        (group.epoch, group.members.len()),
        (epoch, 1),
        "no rebalance"
    );
    assert_eq!(
        rig.written(from),
        [
            "-CurrentMemberAssignment",
            "-TargetAssignmentMember",
            "-MemberMetadata",
            "MemberMetadata",
            "TargetAssignmentMember",
            "CurrentMemberAssignment",
            "CurrentMemberAssignment",
        ]
    );
    assert_eq!(code(&rig.beat(leave("m1", 2))), ErrorCode::FencedInstanceId);
    let other = ConsumerGroupHeartbeatRequest {
        instance_id: Some(Str::from("other")),
        ..heartbeat("m1", 2)
    };
    assert_eq!(code(&rig.beat(other)), ErrorCode::UnknownMemberId);
    // Who stays away for longer than a session is gone.
    rig.beat(leave("m2", -2));
    rig.advance(45_000);
    assert!(rig.group().expect("a group").members.is_empty());
}

#[test]
fn topics_that_grow_come_and_go_move_the_epoch() {
    let mut rig = rig();
    rig.beat(joining("m1", &["a", "later"]));
    let mut image = (*rig.image).clone();
    grow_topic(&mut image, A.0, 1);
    add_topic(&mut image, "later", 300);
    grow_topic(&mut image, 300, 1);
    rig.publish(image);
    rig.advance(1_000);
    let grown = rig.beat(heartbeat("m1", 2));
    assert_eq!(grown.member_epoch, 3);
    let more = partitions(&[(A, &[0, 1, 2, 3, 4]), (Uuid(300), &[0])]);
    assert_eq!(assigned(&grown), Some(more));
    // A topic of others is nothing to this group.
    let mut image = (*rig.image).clone();
    add_topic(&mut image, "z", 301);
    rig.publish(image);
    let from = rig.log.len();
    assert_eq!(rig.beat(heartbeat("m1", 3)).member_epoch, 3);
    assert_eq!(rig.log.len(), from);
    let mut image = (*rig.image).clone();
    remove_topic(&mut image, A.0);
    rig.publish(image);
    rig.advance(1_000);
    let mut less = heartbeat("m1", 3);
    less.topic_partitions = reported(&partitions(&[(Uuid(300), &[0])]));
    let less = rig.beat(less);
    assert_eq!(less.member_epoch, 4);
    assert_eq!(assigned(&less), Some(partitions(&[(Uuid(300), &[0])])));
}

#[test]
fn expressions_are_resolved_and_resolved_again() {
    let mut rig = Rig::new(image_of(&[("a1", 201, 1), ("a2", 202, 1), ("b", 203, 1)]));
    let by_regex = |id: &str, regex: &str| ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(Str::from(regex)),
        ..joining(id, &[])
    };
    let refused = rig.beat(by_regex("m1", "a["));
    assert_eq!(code(&refused), ErrorCode::InvalidRegularExpression);
    assert!(rig.log.is_empty());
    let joined = rig.beat(by_regex("m1", "a.*"));
    assert_eq!(
        (joined.member_epoch, assigned(&joined)),
        (1, Some(Partitions::new()))
    );
    assert_eq!(
        rig.written(0),
        ["MemberMetadata", "CurrentMemberAssignment"]
    );
    rig.advance(1);
    assert_eq!(rig.written(2), ["RegularExpression", "Metadata"]);
    let told = rig.beat(heartbeat("m1", 1));
    assert_eq!(told.member_epoch, 2);
    let both = partitions(&[(Uuid(201), &[0]), (Uuid(202), &[0])]);
    assert_eq!(assigned(&told), Some(both));
    // A new topic that matches is found, but not sooner than ten seconds after the last look.
    let mut image = (*rig.image).clone();
    add_topic(&mut image, "a3", 204);
    grow_topic(&mut image, 204, 1);
    rig.publish(image);
    rig.beat(heartbeat("m1", 2));
    rig.advance(9_000);
    assert_eq!(rig.beat(heartbeat("m1", 2)).member_epoch, 2);
    rig.advance(1_100);
    rig.beat(heartbeat("m1", 2));
    rig.advance(1);
    let told = rig.beat(heartbeat("m1", 2));
    assert_eq!(told.member_epoch, 3);
    assert_eq!(assigned(&told).map(|assigned| assigned.len()), Some(3));
    // The last subscriber takes what it matched with it.
    let mut names = heartbeat("m1", 3);
    names.subscribed_topic_regex = Some(Str::default());
    names.subscribed_topic_names = Some(vec![Str::from("b")]);
    names.topic_partitions = reported(&Partitions::new());
    rig.advance(1_000);
    let told = rig.beat(names);
    assert_eq!(assigned(&told), Some(partitions(&[(Uuid(203), &[0])])));
    let group = rig.group().expect("a group");
    assert!(group.resolved.is_empty() && group.topics().len() == 1);
}

#[test]
fn commits_are_taken_from_members_for_what_is_theirs() {
    let mut rig = rig();
    rig.beat(joining("m1", &["a"]));
    rig.advance(1_000);
    let mut more = heartbeat("m1", 2);
    more.subscribed_topic_names = Some(vec![Str::from("a"), Str::from("b")]);
    rig.beat(more);
    let group = rig.group().expect("a group");
    let right = |epoch, knows| group.commit_right("m1", epoch, knows);
    assert_eq!(right(4, true).err(), Some(ErrorCode::StaleMemberEpoch));
    assert_eq!(right(3, false).err(), Some(ErrorCode::UnsupportedVersion));
    assert_eq!(
        group.commit_right("", -1, true).err(),
        Some(ErrorCode::UnknownMemberId)
    );
    let now = right(3, true).expect("a right");
    assert_eq!(now.check(Uuid(999), 0), Ok(()));
    // From the epoch before: what it had then.
    let behind = right(2, true).expect("a right");
    assert_eq!(behind.check(A, 0), Ok(()));
    assert_eq!(behind.check(B, 0), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(behind.check(Uuid(999), 0), Err(ErrorCode::StaleMemberEpoch));
    let id = Str::from("m1");
    assert_eq!(group.check_fetch(None, -1), Ok(()));
    assert_eq!(group.check_fetch(Some(&id), 3), Ok(()));
    assert_eq!(
        group.check_fetch(Some(&id), 2),
        Err(ErrorCode::StaleMemberEpoch)
    );
    assert_eq!(
        group.check_fetch(Some(&Str::from("m9")), 3),
        Err(ErrorCode::UnknownMemberId)
    );
}

#[test]
fn most_members_choose_the_assignor() {
    let mut rig = rig();
    let asking = |id: &str, assignor: Option<&str>| ConsumerGroupHeartbeatRequest {
        server_assignor: assignor.map(Str::from),
        ..joining(id, &["a", "b"])
    };
    rig.configure(&[("group.consumer.assignment.interval.ms", "0")]);
    rig.beat(asking("m1", Some("range")));
    rig.beat(asking("m2", Some("range")));
    rig.beat(asking("m3", None));
    let targets = &rig.group().expect("a group").targets;
    let b: Vec<usize> = targets
        .values()
        .map(|t| t.get(&B).map_or(0, BTreeSet::len))
        .collect();
    assert_eq!(b, [1, 1, 0], "range gives from each topic in turn");
}

/// Kafka has no such bound; here each change of a member looks at all names of its group.
#[test]
fn the_members_of_a_group_name_no_more_topics_than_one_slice_looks_at() {
    let mut rig = rig();
    let some = |from: usize, count: usize| -> Vec<String> {
        (from..from + count)
            .map(|number| format!("topic-{number}"))
            .collect()
    };
    let mut join = |member: &str, names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        code(&rig.beat(joining(member, &names)))
    };
    let all = GROUP_MEMBER_TOPICS_MAX;
    assert_eq!(join("m1", &some(0, all)), ErrorCode::None);
    assert_eq!(join("m2", &some(all, all)), ErrorCode::None);
    assert_eq!(join("m3", &some(2 * all, 1)), ErrorCode::InvalidRequest);
    assert_eq!(
        join("m4", &some(all / 2, all)),
        ErrorCode::None,
        "known ones"
    );
    assert_eq!(2 * all, GROUP_TOPICS_MAX);
}
