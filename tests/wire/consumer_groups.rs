//! The consumer group protocol (KIP-848): joining, assignment, refusals, regular expressions, static members, both
//! protocols in one group, the records written and the state after a restart.

use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ConsumerProtocolSubscription,
    DeleteGroupsRequest, DescribeConfigsRequest, ListConfigResourcesRequest, ListGroupsRequest,
    OffsetFetchRequest, SyncGroupRequest, describe_configs_request, offset_fetch_request,
};
use chronik_protocol::records_of::GroupValue;
use chronik_protocol::{ErrorCode, Message, Uuid, Writer};

use crate::subject::{Subject, unused_name};
use crate::support::calls::{code, create_topic, text};
use crate::support::client::Client;
use crate::support::consumer_groups::{
    HEARTBEAT, accepted, assigned, beat, configure, coordinated, describe, joining, names, owning,
    refusal, written,
};
use crate::support::groups::{JOIN, SYNC, commit_as, heartbeat, join_request};
use crate::support::{BrokerOptions, Scratch, eventually, skip};

/// A broker, a group of the test's own without pauses between targets, and a topic.
struct Scene {
    _subject: Subject,
    client: Client,
    group: String,
    topic: String,
    id: Uuid,
}

impl Scene {
    fn new(partitions: i32) -> Scene {
        let subject = Subject::start();
        let mut client = subject.connect();
        let (group, topic) = (unused_name(), unused_name());
        let id = create_topic(&mut client, &topic, partitions, &[]);
        coordinated(&mut client, &group);
        let set = configure(&mut client, &group, "consumer.assignment.interval.ms", "0");
        assert_eq!(set.0, ErrorCode::None, "{}", set.1);
        Scene {
            _subject: subject,
            client,
            group,
            topic,
            id,
        }
    }

    fn joining(&self, member: &str) -> ConsumerGroupHeartbeatRequest {
        joining(&self.group, member, &[&self.topic])
    }

    fn beat(&self, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        beat(&self.group, member, epoch)
    }

    fn accept(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        accepted(&mut self.client, &request)
    }

    fn refuse(&mut self, request: ConsumerGroupHeartbeatRequest) -> (ErrorCode, String) {
        refusal(&mut self.client, &request)
    }
}

#[test]
fn members_share_without_ever_owning_the_same() {
    let mut scene = Scene::new(4);
    let (id, group) = (scene.id, scene.group.clone());
    let first = scene.accept(scene.joining("m1"));
    assert_eq!(first.member_epoch, 2);
    assert_eq!(first.member_id.as_deref(), Some("m1"));
    assert_eq!(assigned(&first), Some(vec![(id, vec![0, 1, 2, 3])]));
    let second = scene.accept(scene.joining("m2"));
    assert_eq!((second.member_epoch, assigned(&second)), (3, Some(vec![])));
    assert_eq!(
        describe(&mut scene.client, &group).group_state,
        "Reconciling"
    );
    let told = scene.accept(scene.beat("m1", 2));
    assert_eq!(told.member_epoch, 2);
    let kept = assigned(&told).expect("an assignment")[0].1.clone();
    assert_eq!(kept.len(), 2);
    // It has not said that it gave the others up.
    let silent = scene.accept(scene.beat("m2", 3));
    assert_eq!(assigned(&silent), None);
    let given_up = owning(scene.beat("m1", 2), id, &kept);
    assert_eq!(scene.accept(given_up).member_epoch, 3);
    let got = scene.accept(scene.beat("m2", 3));
    let got = assigned(&got).expect("an assignment")[0].1.clone();
    let mut all = [kept, got].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    let described = describe(&mut scene.client, &group);
    assert_eq!(described.group_state, "Stable");
    assert_eq!((described.group_epoch, described.assignment_epoch), (3, 3));
    assert_eq!(described.assignor_name, "uniform");
    let members: Vec<(&str, i32, i8)> = described
        .members
        .iter()
        .map(|member| (&*member.member_id, member.member_epoch, member.member_type))
        .collect();
    assert!(members.contains(&("m1", 3, 1)) && members.contains(&("m2", 3, 1)));
}

#[test]
fn the_log_gets_what_kafka_writes() {
    let mut scene = Scene::new(2);
    scene.accept(scene.joining("m1"));
    scene.accept(scene.joining("m2"));
    scene.accept(scene.beat("m1", 2));
    let kept = owning(scene.beat("m1", 2), scene.id, &[0]);
    scene.accept(kept);
    scene.accept(scene.beat("m2", 3));
    scene.accept(scene.beat("m2", -1));
    let records = written(&mut scene.client, &scene.group);
    let names = names(&records);
    let target = ["TargetAssignmentMember", "TargetAssignmentMember"];
    assert_eq!(
        names[..5],
        [
            "MemberMetadata",
            "Metadata",
            target[0],
            "TargetAssignmentMetadata",
            "CurrentMemberAssignment",
        ]
    );
    assert_eq!(names[5..7], ["MemberMetadata", "Metadata"]);
    assert_eq!(names[7..9], target);
    assert_eq!(
        names[9..],
        [
            "TargetAssignmentMetadata",
            "CurrentMemberAssignment",
            "CurrentMemberAssignment",
            "CurrentMemberAssignment",
            "CurrentMemberAssignment",
            "-CurrentMemberAssignment",
            "-TargetAssignmentMember",
            "-MemberMetadata",
            "Metadata",
        ]
    );
    let Some(GroupValue::ConsumerGroupMemberMetadata(member)) = &records[0].1 else {
        panic!("not a member: {:?}", records[0]);
    };
    assert_eq!(member.client_host, "/127.0.0.1");
    assert_eq!(member.subscribed_topic_regex.as_deref(), Some(""));
    assert_eq!(
        (member.rack_id.as_ref(), member.server_assignor.as_ref()),
        (None, None)
    );
    let Some(GroupValue::ConsumerGroupCurrentMemberAssignment(current)) = &records[4].1 else {
        panic!("not a placement: {:?}", records[4]);
    };
    assert_eq!(
        (current.member_epoch, current.previous_member_epoch),
        (2, 0)
    );
    let epochs = &current.assigned_partitions[0].assignment_epochs;
    assert_eq!(epochs.as_deref(), Some(&[2, 2][..]));
    let Some(GroupValue::ConsumerGroupMetadata(group)) = &records[1].1 else {
        panic!("not a group: {:?}", records[1]);
    };
    assert_eq!(group.epoch, 2);
    assert_eq!(
        group.metadata_hash,
        hash_of(&scene),
        "of a broker without a rack"
    );
}

/// The metadata hash as Kafka computes it, from its parts.
fn hash_of(scene: &Scene) -> i64 {
    let mut bytes = vec![0u8];
    bytes.extend(((scene.id.0 >> 64) as u64).to_le_bytes());
    bytes.extend((scene.id.0 as u64).to_le_bytes());
    for unit in scene.topic.encode_utf16() {
        bytes.extend(unit.to_le_bytes());
    }
    for number in [scene.topic.len() as u32, 2, 0, 1] {
        bytes.extend(number.to_le_bytes());
    }
    let hash = twox_hash::XxHash3_64::oneshot;
    hash(&hash(&bytes).to_le_bytes()).cast_signed()
}

#[test]
fn refusals_are_kafkas() {
    let mut scene = Scene::new(2);
    let client = &mut scene.client;
    let group = scene.group.clone();
    let refused = refusal(client, &beat(&group, "m1", 3));
    let sentence = format!("Consumer group {group} not found.");
    assert_eq!(refused, (ErrorCode::GroupIdNotFound, sentence));
    accepted(client, &joining(&group, "m1", &[&scene.topic]));
    let sentence = format!("Member m9 is not a member of group {group}.");
    let refused = refusal(client, &beat(&group, "m9", 2));
    assert_eq!(refused, (ErrorCode::UnknownMemberId, sentence));
    let fenced = |relation: &str, epoch: i32| {
        format!(
            "The consumer group member has a {relation} member epoch ({epoch}) than the one known \
             by the group coordinator (2). The member must abandon all its partitions and rejoin."
        )
    };
    for (relation, epoch) in [("greater", 3), ("smaller", 1)] {
        let refused = refusal(client, &beat(&group, "m1", epoch));
        assert_eq!(
            refused,
            (ErrorCode::FencedMemberEpoch, fenced(relation, epoch))
        );
    }
    let mut request = joining(&group, "m1", &[]);
    request.server_assignor = Some(text("best"));
    let sentence = "ServerAssignor best is not supported. Supported assignors: uniform, range.";
    let refused = refusal(client, &request);
    assert_eq!(
        refused,
        (ErrorCode::UnsupportedAssignor, sentence.to_owned())
    );
    let mut request = joining(&group, "m2", &[]);
    request.subscribed_topic_regex = Some(text("a["));
    let (error, sentence) = refusal(client, &request);
    assert_eq!(error, ErrorCode::InvalidRegularExpression);
    let start = "SubscribedTopicRegex `a[` is not a valid regular expression: ";
    assert!(sentence.starts_with(start), "{sentence}");
    let mut request = joining(&group, "", &[]);
    let refused = refusal(client, &request);
    let sentence = "MemberId can't be empty.".to_owned();
    assert_eq!(refused, (ErrorCode::InvalidRequest, sentence));
    // Version 0 has the broker make the id.
    request.subscribed_topic_names = Some(vec![text(&scene.topic)]);
    let response = client.call(&request, 0);
    assert_eq!(code(response.error_code), ErrorCode::None);
    assert!(!response.member_id.expect("an id").is_empty());
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    let mut scene = Scene::new(3);
    let with_instance = |mut request: ConsumerGroupHeartbeatRequest| {
        request.instance_id = Some(text("i"));
        request
    };
    let joined = scene.accept(with_instance(scene.joining("m1")));
    let all = Some(vec![(scene.id, vec![0, 1, 2])]);
    assert_eq!(assigned(&joined), all);
    let refused = scene.refuse(with_instance(scene.joining("m2")));
    let sentence = "Static member m2 with instance id i cannot join the group because the instance \
                    id is owned by m1 member.";
    assert_eq!(
        refused,
        (ErrorCode::UnreleasedInstanceId, sentence.to_owned())
    );
    let away = scene.accept(with_instance(scene.beat("m1", -2)));
    assert_eq!(away.member_epoch, -2);
    let back = scene.accept(with_instance(scene.joining("m2")));
    assert_eq!((back.member_epoch, assigned(&back)), (2, all));
    let refused = scene.refuse(with_instance(scene.beat("m1", 2)));
    let sentence = "Static member m1 with instance id i was fenced by member m2.";
    assert_eq!(refused, (ErrorCode::FencedInstanceId, sentence.to_owned()));
    let records = names(&written(&mut scene.client, &scene.group));
    assert_eq!(
        records[5..],
        [
            "CurrentMemberAssignment",
            "-CurrentMemberAssignment",
            "-TargetAssignmentMember",
            "-MemberMetadata",
            "MemberMetadata",
            "TargetAssignmentMember",
            "CurrentMemberAssignment",
            "CurrentMemberAssignment",
        ]
    );
}

#[test]
fn expressions_find_their_topics() {
    let mut scene = Scene::new(2);
    let mut request = joining(&scene.group, "m1", &[]);
    request.subscribed_topic_names = None;
    request.subscribed_topic_regex = Some(text(&format!("{}|no-such", scene.topic)));
    let mut response = scene.accept(request.clone());
    assert_eq!(assigned(&response), Some(vec![]));
    // The broker looks at the topics after its answer.
    eventually("the topics of an expression", || {
        response = scene.accept(scene.beat("m1", response.member_epoch));
        response.assignment.is_some().then_some(())
    });
    assert_eq!(assigned(&response), Some(vec![(scene.id, vec![0, 1])]));
    let records = written(&mut scene.client, &scene.group);
    assert_eq!(
        names(&records),
        [
            "MemberMetadata",
            "CurrentMemberAssignment",
            "RegularExpression",
            "Metadata",
            "TargetAssignmentMember",
            "TargetAssignmentMetadata",
            "CurrentMemberAssignment",
        ]
    );
    let Some(GroupValue::ConsumerGroupRegularExpression(resolved)) = &records[2].1 else {
        panic!("not an expression: {:?}", records[2]);
    };
    assert_eq!(resolved.topics, [text(&scene.topic)]);
    let described = describe(&mut scene.client, &scene.group);
    let member = &described.members[0];
    let regex = member.subscribed_topic_regex.as_deref();
    assert_eq!(regex, request.subscribed_topic_regex.as_deref());
}

#[test]
fn offsets_are_the_members_own() {
    let mut scene = Scene::new(2);
    let (group, topic) = (scene.group.clone(), scene.topic.clone());
    scene.accept(scene.joining("m1"));
    let client = &mut scene.client;
    let mut commit = |member: (&str, i32)| commit_as(client, member, &group, &topic, 7);
    assert_eq!(commit(("m1", 2)), ErrorCode::None);
    assert_eq!(commit(("m1", 3)), ErrorCode::StaleMemberEpoch);
    assert_eq!(commit(("m1", 1)), ErrorCode::StaleMemberEpoch);
    assert_eq!(commit(("m9", 2)), ErrorCode::UnknownMemberId);
    assert_eq!(commit(("", -1)), ErrorCode::UnknownMemberId);
    let mut fetch = |member: Option<&str>, epoch: i32| {
        let request = OffsetFetchRequest {
            groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
                group_id: text(&group),
                member_id: member.map(text),
                member_epoch: epoch,
                topics: None,
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = client.call(&request, 9).groups.remove(0);
        let offsets = response.topics.iter().flat_map(|topic| &topic.partitions);
        let offset = offsets.map(|partition| partition.committed_offset).next();
        (code(response.error_code), offset)
    };
    assert_eq!(fetch(None, -1), (ErrorCode::None, Some(7)));
    assert_eq!(fetch(Some("m1"), 2), (ErrorCode::None, Some(7)));
    assert_eq!(fetch(Some("m1"), 1).0, ErrorCode::StaleMemberEpoch);
    assert_eq!(fetch(Some("m9"), 1).0, ErrorCode::UnknownMemberId);
}

#[test]
fn groups_are_listed_and_deleted_when_empty() {
    let mut scene = Scene::new(1);
    scene.accept(scene.joining("m1"));
    let request = ListGroupsRequest {
        types_filter: vec![text("consumer")],
        states_filter: vec![text("stable")],
        ..ListGroupsRequest::default()
    };
    let listed = scene.client.call(&request, 5).groups;
    let own = listed.iter().find(|group| group.group_id == *scene.group);
    let own = own.expect("the group is listed");
    assert_eq!(
        (&*own.group_type, &*own.group_state),
        ("consumer", "Stable")
    );
    assert_eq!(own.protocol_type, "consumer");
    let delete = DeleteGroupsRequest {
        groups_names: vec![text(&scene.group)],
        ..DeleteGroupsRequest::default()
    };
    let result = scene.client.call(&delete, 2).results.remove(0);
    assert_eq!(code(result.error_code), ErrorCode::NonEmptyGroup);
    scene.accept(scene.beat("m1", -1));
    assert_eq!(
        describe(&mut scene.client, &scene.group).group_state,
        "Empty"
    );
    let result = scene.client.call(&delete, 2).results.remove(0);
    assert_eq!(code(result.error_code), ErrorCode::None);
    let gone = describe(&mut scene.client, &scene.group);
    assert_eq!(code(gone.error_code), ErrorCode::GroupIdNotFound);
    let sentence = format!("Group {} not found.", scene.group);
    assert_eq!(gone.error_message.as_deref(), Some(&*sentence));
}

fn subscription(topic: &str) -> Vec<u8> {
    let message = ConsumerProtocolSubscription {
        topics: vec![text(topic)],
        user_data: None,
        ..ConsumerProtocolSubscription::default()
    };
    let mut writer = Writer::new();
    writer.put_i16(1);
    message.encode(&mut writer, 1).expect("encodes");
    writer.into_bytes().to_vec()
}

#[test]
fn a_classic_member_takes_part() {
    let mut scene = Scene::new(2);
    let group = scene.group.clone();
    scene.accept(scene.joining("m1"));
    let wishes = subscription(&scene.topic);
    let id = scene.client.call(&join_request(&group, "", &wishes), JOIN);
    assert_eq!(code(id.error_code), ErrorCode::MemberIdRequired);
    let old = id.member_id.to_string();
    let joined = scene
        .client
        .call(&join_request(&group, &old, &wishes), JOIN);
    assert_eq!(
        (code(joined.error_code), joined.generation_id),
        (ErrorCode::None, 3)
    );
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    let sync = SyncGroupRequest {
        group_id: text(&group),
        generation_id: 3,
        member_id: text(&old),
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        ..SyncGroupRequest::default()
    };
    let synced = scene.client.call(&sync, SYNC);
    assert_eq!(code(synced.error_code), ErrorCode::None);
    let told = scene.accept(scene.beat("m1", 2));
    let kept = assigned(&told).expect("an assignment")[0].1.clone();
    assert_eq!(
        heartbeat(&mut scene.client, &group, &old, 3),
        ErrorCode::None
    );
    let given_up = owning(scene.beat("m1", 2), scene.id, &kept);
    scene.accept(given_up);
    let heard = heartbeat(&mut scene.client, &group, &old, 3);
    assert_eq!(heard, ErrorCode::RebalanceInProgress);
    let types: Vec<i8> = {
        let described = describe(&mut scene.client, &group);
        described.members.iter().map(|m| m.member_type).collect()
    };
    assert!(types.contains(&0) && types.contains(&1));
    // The group is classic again when its last member of the new protocol goes.
    scene.accept(scene.beat("m1", -1));
    let gone = describe(&mut scene.client, &group);
    assert_eq!(code(gone.error_code), ErrorCode::GroupIdNotFound);
    let sentence = format!("Group {group} is not a consumer group.");
    assert_eq!(gone.error_message.as_deref(), Some(&*sentence));
    let heard = heartbeat(&mut scene.client, &group, &old, 3);
    assert_eq!(heard, ErrorCode::RebalanceInProgress);
    let joined = scene
        .client
        .call(&join_request(&group, &old, &wishes), JOIN);
    assert_eq!(
        (code(joined.error_code), joined.generation_id),
        (ErrorCode::None, 4)
    );
    assert_eq!(&*joined.leader, old);
}

#[test]
fn groups_have_settings_of_their_own() {
    let mut scene = Scene::new(1);
    let group = scene.group.clone();
    let name = "consumer.session.timeout.ms";
    let set = configure(&mut scene.client, &group, name, "50000");
    assert_eq!(set.0, ErrorCode::None, "{}", set.1);
    let refused = configure(&mut scene.client, &group, name, "5");
    let sentence = "consumer.session.timeout.ms must be greater than or equal to \
                    group.consumer.min.session.timeout.ms";
    assert_eq!(refused, (ErrorCode::InvalidConfig, sentence.to_owned()));
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs_request::DescribeConfigsResource {
            resource_type: 32,
            resource_name: text(&group),
            configuration_keys: Some(vec![text(name), text("consumer.heartbeat.interval.ms")]),
            ..Default::default()
        }],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    let configs = scene.client.call(&request, 4).results.remove(0).configs;
    let own = configs
        .iter()
        .find(|config| config.name == name)
        .expect("told");
    assert_eq!(
        (own.value.as_deref(), own.config_source),
        (Some("50000"), 8)
    );
    let places: Vec<(&str, i8)> = own.synonyms.iter().map(|s| (&*s.name, s.source)).collect();
    assert_eq!(
        places,
        [(name, 8), ("group.consumer.session.timeout.ms", 5)]
    );
    let other = configs
        .iter()
        .find(|config| config.name != name)
        .expect("told");
    assert_eq!(other.synonyms.last().map(|s| s.source), Some(5));
    let list = |client: &mut Client, types: &[i8]| {
        let request = ListConfigResourcesRequest {
            resource_types: types.to_vec(),
            ..ListConfigResourcesRequest::default()
        };
        client.call(&request, 1)
    };
    let groups = list(&mut scene.client, &[32]).config_resources;
    assert!(groups.iter().all(|resource| resource.resource_type == 32));
    assert!(
        groups
            .iter()
            .any(|resource| resource.resource_name == *group)
    );
    let all = list(&mut scene.client, &[]).config_resources;
    let has = |kind: i8, name: &str| {
        let found = |r: &&_| matches!(r, resource if name_and_kind(resource) == (name, kind));
        all.iter().any(|resource| found(&resource))
    };
    assert!(has(2, &scene.topic) && has(32, &group));
    let unknown = list(&mut scene.client, &[99]);
    assert_eq!(code(unknown.error_code), ErrorCode::UnsupportedVersion);
}

fn name_and_kind(
    resource: &chronik_protocol::messages::list_config_resources_response::ConfigResource,
) -> (&str, i8) {
    (&resource.resource_name, resource.resource_type)
}

#[test]
fn members_and_targets_survive_a_kill() {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("another broker cannot be killed from here");
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data")).set("chronik.shards", 2);
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let id = create_topic(&mut client, "t", 4, &[]);
    coordinated(&mut client, "g");
    configure(&mut client, "g", "consumer.assignment.interval.ms", "0");
    accepted(&mut client, &joining("g", "m1", &["t"]));
    accepted(&mut client, &joining("g", "m2", &["t"]));
    accepted(&mut client, &beat("g", "m1", 2));
    broker.kill();
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    // The log is being read; until then the coordinator says so.
    let mut response = client.call(&beat("g", "m2", 3), HEARTBEAT);
    while code(response.error_code) == ErrorCode::CoordinatorLoadInProgress {
        response = client.call(&beat("g", "m2", 3), HEARTBEAT);
    }
    assert_eq!(code(response.error_code), ErrorCode::None);
    assert_eq!(response.member_epoch, 3);
    let described = describe(&mut client, "g");
    assert_eq!(
        (&*described.group_state, described.group_epoch),
        ("Reconciling", 3)
    );
    let told = accepted(&mut client, &owning(beat("g", "m1", 2), id, &[0, 1]));
    assert_eq!(told.member_epoch, 3);
    let got = accepted(&mut client, &beat("g", "m2", 3));
    assert_eq!(assigned(&got), Some(vec![(id, vec![2, 3])]));
    broker.stop();
}
