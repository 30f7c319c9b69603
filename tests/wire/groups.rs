//! Groups of the classic protocol and committed offsets: codes, shapes, and the state after a restart.
//!
//! Everything but the restarts was observed on a real Kafka.

use chronik_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, offset_delete_request, offset_fetch_request,
};
use chronik_protocol::{ErrorCode, Str, Uuid};

use crate::subject::{Subject, unused_name};
use crate::support::calls::{code, create_topic, delete_topic, text};
use crate::support::client::Client;
use crate::support::groups::{
    COMMIT_BY_NAME, JOIN, SYNC, commit, commit_as, commit_request, committed, fetch_offsets,
    find_coordinator, heartbeat, join_request, leave, new_member, stable_group, sync, sync_request,
};
use crate::support::{BrokerOptions, Scratch, eventually, skip};

/// New groups do not wait for more members.
const AT_ONCE: (&str, &str) = ("group.initial.rebalance.delay.ms", "0");

/// A broker whose coordinator is there.
fn subject() -> Subject {
    let subject = Subject::start_with(&[AT_ONCE]);
    find_coordinator(&mut subject.connect(), "any");
    subject
}

#[test]
fn two_members_share_a_group_until_one_leaves() {
    let subject = subject();
    let group = unused_name();
    let (mut one, mut two) = (subject.connect(), subject.connect());
    let first = stable_group(&mut one, &group);
    assert_eq!((first.generation_id, &first.leader), (1, &first.member_id));
    assert_eq!(first.protocol_name.as_deref(), Some("range"));
    assert_eq!(first.protocol_type.as_deref(), Some("consumer"));

    let member = new_member(&mut two, &group);
    let waiting = two.send(&join_request(&group, &member, b"two"), JOIN);
    let mut beats = subject.connect();
    // The second join is on another connection: the first member hears of it by its heartbeat.
    while heartbeat(&mut beats, &group, &first.member_id, 1) == ErrorCode::None {}
    let beat = heartbeat(&mut beats, &group, &first.member_id, 1);
    assert_eq!(beat, ErrorCode::RebalanceInProgress);
    let again = one.call(&join_request(&group, &first.member_id, b"one"), JOIN);
    let joined = two.receive::<chronik_protocol::messages::JoinGroupRequest>(waiting, JOIN);
    assert_eq!((again.generation_id, joined.generation_id), (2, 2));
    assert_eq!(
        (again.members.len(), joined.members.len()),
        (2, 0),
        "the leader is told"
    );
    assert_eq!(joined.leader, first.member_id);

    // The follower waits for the leader.
    let waiting = two.send(&sync_request(&group, &joined), SYNC);
    let share = sync(&mut one, &group, &again);
    let other = two.receive::<SyncGroupRequest>(waiting, SYNC);
    assert_eq!(share.assignment, format!("share of {}", first.member_id));
    assert_eq!(other.assignment, format!("share of {member}"));
    assert_eq!(heartbeat(&mut two, &group, &member, 2), ErrorCode::None);
    assert_eq!(
        heartbeat(&mut two, &group, &member, 1),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        heartbeat(&mut two, &group, "who", 2),
        ErrorCode::UnknownMemberId
    );

    assert_eq!(leave(&mut two, &group, &member), ErrorCode::None);
    assert_eq!(leave(&mut two, &group, &member), ErrorCode::UnknownMemberId);
    let beat = heartbeat(&mut one, &group, &first.member_id, 2);
    assert_eq!(beat, ErrorCode::RebalanceInProgress);
    assert_eq!(leave(&mut one, &group, &first.member_id), ErrorCode::None);
}

#[test]
fn a_join_that_cannot_be_is_refused() {
    let subject = subject();
    let mut client = subject.connect();
    let group = unused_name();
    let mut refused = |change: &dyn Fn(&mut chronik_protocol::messages::JoinGroupRequest)| {
        let mut request = join_request(&group, "", b"");
        change(&mut request);
        let response = client.call(&request, JOIN);
        assert_eq!(response.generation_id, -1);
        code(response.error_code)
    };
    assert_eq!(
        refused(&|r| r.group_id = Str::default()),
        ErrorCode::InvalidGroupId
    );
    assert_eq!(
        refused(&|r| r.session_timeout_ms = 1),
        ErrorCode::InvalidSessionTimeout
    );
    assert_eq!(
        refused(&|r| r.member_id = "who".into()),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        refused(&|r| r.protocols.clear()),
        ErrorCode::InconsistentGroupProtocol
    );
    stable_group(&mut subject.connect(), &group);
    assert_eq!(
        refused(&|r| r.protocols[0].name = "other".into()),
        ErrorCode::InconsistentGroupProtocol
    );
    assert_eq!(
        refused(&|r| r.protocol_type = "connect".into()),
        ErrorCode::InconsistentGroupProtocol
    );
    let mut unsaid = sync_request(&group, &Default::default());
    unsaid.protocol_name = None;
    let response = client.call(&unsaid, SYNC);
    assert_eq!(
        code(response.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
}

#[test]
fn offsets_are_committed_by_anybody_while_a_group_has_no_members() {
    let subject = subject();
    let mut client = subject.connect();
    let (topic, group) = (subject.topic(2), unused_name());
    assert_eq!(committed(&mut client, &group, &topic, 0), -1);
    assert_eq!(commit(&mut client, &group, &topic, 0, 5), ErrorCode::None);
    assert_eq!(committed(&mut client, &group, &topic, 0), 5);
    let found = fetch_offsets(&mut client, &group, None);
    let partition = &found.topics[0].partitions[0];
    assert_eq!(
        (&*found.topics[0].name, found.topics[0].partitions.len()),
        (&*topic, 1)
    );
    assert_eq!(partition.metadata.as_deref(), Some("up to 5"));
    assert_eq!(partition.committed_leader_epoch, 0);

    let unknown = unused_name();
    let error = commit(&mut client, &group, &unknown, 0, 1);
    assert_eq!(error, ErrorCode::UnknownTopicOrPartition);
    let error = commit(&mut client, &group, &topic, 2, 1);
    assert_eq!(error, ErrorCode::UnknownTopicOrPartition);
    let mut long = commit_request(&group, &topic, 0, 6);
    long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(4097)));
    let response = client.call(&long, COMMIT_BY_NAME);
    let error = code(response.topics[0].partitions[0].error_code);
    assert_eq!(error, ErrorCode::OffsetMetadataTooLarge);

    let as_member = commit_as(&mut client, ("who", 3), &group, &topic, 6);
    assert_eq!(as_member, ErrorCode::UnknownMemberId);
    let nowhere = commit_as(&mut client, ("who", 3), &unused_name(), &topic, 6);
    assert_eq!(nowhere, ErrorCode::GroupIdNotFound);
    let member = stable_group(&mut client, &group);
    assert_eq!(
        commit(&mut client, &group, &topic, 0, 7),
        ErrorCode::UnknownMemberId
    );
    let id = &*member.member_id;
    assert_eq!(
        commit_as(&mut client, (id, 1), &group, &topic, 7),
        ErrorCode::None
    );
    let stale = commit_as(&mut client, (id, 0), &group, &topic, 8);
    assert_eq!(stale, ErrorCode::IllegalGeneration);
    assert_eq!(committed(&mut client, &group, &topic, 0), 7);
}

#[test]
fn topics_can_be_named_by_id_and_unknown_ones_are_told() {
    let subject = subject();
    let mut client = subject.connect();
    let (topic, group) = (unused_name(), unused_name());
    let id = create_topic(&mut client, &topic, 1, &[]);
    let by_id = |id: Uuid, offset: i64| {
        let mut request = commit_request(&group, "", 0, offset);
        request.topics[0].topic_id = id;
        request
    };
    let answer = |client: &mut Client, request: &OffsetCommitRequest| {
        let response = client.call(request, 10);
        code(response.topics[0].partitions[0].error_code)
    };
    assert_eq!(answer(&mut client, &by_id(id, 3)), ErrorCode::None);
    assert_eq!(
        answer(&mut client, &by_id(Uuid(5), 3)),
        ErrorCode::UnknownTopicId
    );
    let wanted = [id, Uuid(5)].map(|topic_id| offset_fetch_request::OffsetFetchRequestTopics {
        topic_id,
        partition_indexes: vec![0],
        ..Default::default()
    });
    let request = OffsetFetchRequest {
        groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
            group_id: text(&group),
            topics: Some(wanted.to_vec()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let response: OffsetFetchResponse = client.call(&request, 10);
    let topics = response.groups[0].topics.iter();
    let found: Vec<_> = topics
        .map(|topic| {
            let partition = &topic.partitions[0];
            (
                topic.topic_id,
                partition.committed_offset,
                code(partition.error_code),
            )
        })
        .collect();
    let expected = [
        (id, 3, ErrorCode::None),
        (Uuid(5), -1, ErrorCode::UnknownTopicId),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_topic_that_is_created_again_has_no_offsets() {
    let subject = subject();
    let mut client = subject.connect();
    let (topic, group) = (subject.topic(1), unused_name());
    assert_eq!(commit(&mut client, &group, &topic, 0, 5), ErrorCode::None);
    assert_eq!(
        delete_topic(&mut client, &topic).ok(),
        Some(ErrorCode::None)
    );
    create_topic(&mut client, &topic, 1, &[]);
    assert_eq!(committed(&mut client, &group, &topic, 0), -1);
}

fn described(client: &mut Client, group: &str, version: i16) -> (ErrorCode, String, usize) {
    let request = DescribeGroupsRequest {
        groups: vec![text(group)],
        ..Default::default()
    };
    let mut response = client.call(&request, version);
    let found = response.groups.remove(0);
    (
        code(found.error_code),
        found.group_state.to_string(),
        found.members.len(),
    )
}

#[test]
fn operators_see_groups_and_delete_those_without_members() {
    let subject = subject();
    let mut client = subject.connect();
    let (topic, group, plain) = (subject.topic(1), unused_name(), unused_name());
    let none = ErrorCode::None;
    let member = stable_group(&mut client, &group);
    assert_eq!(commit(&mut client, &plain, &topic, 0, 1), none);
    assert_eq!(
        described(&mut client, &group, 6),
        (none, "Stable".to_owned(), 1)
    );
    assert_eq!(
        described(&mut client, &plain, 6),
        (none, "Empty".to_owned(), 0)
    );
    let missing = unused_name();
    assert_eq!(
        described(&mut client, &missing, 5),
        (none, "Dead".to_owned(), 0)
    );
    let (error, state, _) = described(&mut client, &missing, 6);
    assert_eq!((error, &*state), (ErrorCode::GroupIdNotFound, "Dead"));

    let mut listed = |states: &[&str]| {
        let request = ListGroupsRequest {
            states_filter: states.iter().map(|state| text(state)).collect(),
            ..Default::default()
        };
        let groups = client.call(&request, 5).groups;
        let mine = groups.into_iter().map(|found| found.group_id.to_string());
        mine.filter(|found| *found == group || *found == plain)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).len(), 2);
    assert_eq!(listed(&["stable"]), std::slice::from_ref(&group));
    assert_eq!(listed(&["Empty"]), std::slice::from_ref(&plain));
    assert_eq!(listed(&["Dead"]), Vec::<String>::new());

    let mut delete = |name: &str| {
        let request = DeleteGroupsRequest {
            groups_names: vec![text(name)],
            ..Default::default()
        };
        code(client.call(&request, 2).results[0].error_code)
    };
    assert_eq!(delete(&group), ErrorCode::NonEmptyGroup);
    assert_eq!(delete(&missing), ErrorCode::GroupIdNotFound);
    assert_eq!(delete(&plain), none);
    assert_eq!(delete(&plain), ErrorCode::GroupIdNotFound);
    assert_eq!(leave(&mut client, &group, &member.member_id), none);
}

#[test]
fn offsets_of_topics_nobody_wants_can_be_deleted() {
    let subject = subject();
    let mut client = subject.connect();
    let (topic, group) = (subject.topic(1), unused_name());
    assert_eq!(commit(&mut client, &group, &topic, 0, 1), ErrorCode::None);
    let request = |group: &str, topic: &str| OffsetDeleteRequest {
        group_id: text(group),
        topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
            name: text(topic),
            partitions: vec![offset_delete_request::OffsetDeleteRequestPartition {
                partition_index: 0,
            }],
        }],
    };
    let response = client.call(&request(&unused_name(), &topic), 0);
    assert_eq!(code(response.error_code), ErrorCode::GroupIdNotFound);
    let response = client.call(&request(&group, "no-such-topic"), 0);
    let error = code(response.topics[0].partitions[0].error_code);
    assert_eq!(error, ErrorCode::UnknownTopicOrPartition);
    let response = client.call(&request(&group, &topic), 0);
    assert_eq!(
        code(response.topics[0].partitions[0].error_code),
        ErrorCode::None
    );
    assert_eq!(committed(&mut client, &group, &topic, 0), -1);
}

#[test]
fn coordinators_are_found_by_kind() {
    let subject = subject();
    let mut client = subject.connect();
    let mut find = |key_type: i8, version: i16| {
        let request = FindCoordinatorRequest {
            key: text(if version < 4 { "k" } else { "" }),
            key_type,
            coordinator_keys: if version < 4 {
                Vec::new()
            } else {
                vec![text("k")]
            },
            ..Default::default()
        };
        let response = client.call(&request, version);
        let found = response.coordinators.first();
        code(found.map_or(response.error_code, |found| found.error_code))
    };
    assert_eq!((find(0, 3), find(0, 6)), (ErrorCode::None, ErrorCode::None));
    assert_eq!(find(9, 3), ErrorCode::InvalidRequest);
    assert_eq!(
        find(2, 5),
        ErrorCode::InvalidRequest,
        "share groups came with 6"
    );
}

#[test]
fn groups_and_offsets_survive_a_stop_and_a_kill() {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("another broker cannot be killed from here");
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"))
        .set("group.initial.rebalance.delay.ms", 0)
        .set("chronik.shards", 2);
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    find_coordinator(&mut client, "any");
    create_topic(&mut client, "topic", 1, &[]);
    let member = stable_group(&mut client, "members");
    let id = member.member_id.to_string();
    assert_eq!(
        commit(&mut client, "plain", "topic", 0, 11),
        ErrorCode::None
    );
    let as_member = commit_as(&mut client, (&id, 1), "members", "topic", 12);
    assert_eq!(as_member, ErrorCode::None);
    broker.stop();

    for round in 0..2 {
        let broker = options.start();
        let mut client = Client::connect(broker.address());
        find_coordinator(&mut client, "any");
        assert_eq!(committed_once_loaded(&mut client, "plain"), 11 + round);
        assert_eq!(committed_once_loaded(&mut client, "members"), 12);
        assert_eq!(heartbeat(&mut client, "members", &id, 1), ErrorCode::None);
        let share = sync_share(&mut client, &id);
        assert_eq!(share, format!("share of {id}"), "as before");
        let next = commit(&mut client, "plain", "topic", 0, 12 + round);
        assert_eq!(next, ErrorCode::None);
        broker.kill();
    }
}

/// A member asks for its share again, as it may after it has lost the answer.
fn sync_share(client: &mut Client, member: &str) -> String {
    let request = SyncGroupRequest {
        group_id: text("members"),
        generation_id: 1,
        member_id: text(member),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        ..Default::default()
    };
    let response = client.call(&request, SYNC);
    assert_eq!(code(response.error_code), ErrorCode::None);
    String::from_utf8(response.assignment.to_vec()).expect("text")
}

/// One committed offset; asked again while the groups are being read.
fn committed_once_loaded(client: &mut Client, group: &str) -> i64 {
    eventually("the groups are read", || {
        let found = fetch_offsets(client, group, Some(("topic", &[0])));
        match code(found.error_code) {
            ErrorCode::None => Some(found.topics[0].partitions[0].committed_offset),
            ErrorCode::CoordinatorLoadInProgress => None,
            error => panic!("{group}: {error:?}"),
        }
    })
}
