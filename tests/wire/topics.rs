//! Topics created, extended and deleted: the accepted requests of CreateTopics, CreatePartitions, DeleteTopics and
//! Metadata, and Kafka's error for every other.

use chronik_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
    MetadataResponse, create_partitions_request,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
    delete_topics_request, metadata_request,
};
use chronik_protocol::{ErrorCode, Uuid};

use crate::subject::{Subject, unused_name};
use crate::support::batch::TestBatch;
use crate::support::calls::{
    code, creatable, create_topic, create_topics, delete_topic, fetch, latest, produce, produce_ok,
    text,
};
use crate::support::client::Client;

fn create_one(client: &mut Client, topic: CreatableTopic) -> (ErrorCode, String) {
    let result = create_topics(client, vec![topic])
        .expect("an answer")
        .remove(0);
    let message = result.error_message.map(|message| message.to_string());
    (code(result.error_code), message.unwrap_or_default())
}

fn assigned(name: &str, partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = partitions
        .iter()
        .map(|(index, brokers)| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: brokers.to_vec(),
            ..Default::default()
        });
    CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments.collect(),
        ..creatable(name, -1, &[])
    }
}

/// The node id of the only broker.
fn node_id(client: &mut Client) -> i32 {
    let request = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    client.call(&request, 9).brokers[0].node_id
}

pub(crate) fn metadata(client: &mut Client, names: &[&str], auto_create: bool) -> MetadataResponse {
    let topics = names
        .iter()
        .map(|name| metadata_request::MetadataRequestTopic {
            name: Some(text(name)),
            ..Default::default()
        });
    let request = MetadataRequest {
        topics: Some(topics.collect()),
        allow_auto_topic_creation: auto_create,
        ..Default::default()
    };
    client.call(&request, 12)
}

/// Topics that cannot be created, with Kafka's error; `node` is the only broker.
fn impossible(node: i32, taken: &str, fresh: &str) -> Vec<(ErrorCode, Vec<CreatableTopic>)> {
    let named = |name: &str| creatable(name, 1, &[]);
    let replicated = |replication_factor| CreatableTopic {
        replication_factor,
        ..creatable(fresh, 1, &[])
    };
    let on = |partitions: &[(i32, &[i32])]| assigned(fresh, partitions);
    let both = CreatableTopic {
        num_partitions: 2,
        ..on(&[(0, &[node])])
    };
    let configured = |key, value| creatable(fresh, 1, &[(key, value)]);
    let too_long = "n".repeat(250);
    vec![
        (
            ErrorCode::InvalidTopicException,
            ["", ".", "..", "a/b", "a b", "é", &too_long]
                .map(named)
                .to_vec(),
        ),
        (ErrorCode::TopicAlreadyExists, vec![named(taken)]),
        (
            ErrorCode::InvalidPartitions,
            [0, -2, i32::MIN]
                .map(|count| creatable(fresh, count, &[]))
                .to_vec(),
        ),
        (
            ErrorCode::InvalidReplicationFactor,
            [2, 0, -2, i16::MAX].map(replicated).to_vec(),
        ),
        (ErrorCode::InvalidRequest, vec![both]),
        (
            ErrorCode::InvalidReplicaAssignment,
            vec![
                on(&[(0, &[node + 9])]),
                on(&[(0, &[node, node])]),
                on(&[(0, &[])]),
                on(&[(1, &[node])]),
                on(&[(0, &[node]), (0, &[node])]),
            ],
        ),
        (
            ErrorCode::InvalidConfig,
            vec![
                configured("no.such.config", "1"),
                configured("retention.ms", "soon"),
                configured("segment.bytes", "1"),
                configured("cleanup.policy", "burn"),
            ],
        ),
    ]
}

#[test]
fn a_topic_that_cannot_be_is_refused_as_kafka_does() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let node = node_id(&mut client);
    let (taken, fresh) = (subject.topic(1), unused_name());
    let mut wrong = Vec::new();
    for (expected, topics) in impossible(node, &taken, &fresh) {
        for topic in topics {
            let case = format!("{topic:?}");
            let (found, message) = create_one(&mut client, topic);
            if found != expected {
                wrong.push(format!("{found:?} {message}, not {expected:?}: {case}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = || creatable(&fresh, 3, &[("retention.ms", "60000")]);
    assert_eq!(create_one(&mut client, good()).0, ErrorCode::None);
    assert_eq!(
        create_one(&mut client, good()).0,
        ErrorCode::TopicAlreadyExists
    );
    let longest = format!("{fresh}{}", "n".repeat(249 - fresh.len()));
    let longest = creatable(&longest, 1, &[]);
    assert_eq!(
        create_one(&mut client, longest).0,
        ErrorCode::None,
        "249 letters"
    );
}

#[test]
fn names_that_differ_in_dots_and_underscores_collide() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let name = unused_name().replace('-', "_");
    create_topic(&mut client, &format!("{name}.a_b"), 1, &[]);
    for same in ["_a_b", ".a.b", "_a.b"] {
        let (found, message) = create_one(&mut client, creatable(&format!("{name}{same}"), 1, &[]));
        assert_eq!(found, ErrorCode::InvalidTopicException, "{same}: {message}");
    }
}

#[test]
fn defaults_assignments_and_validation_without_effect() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let node = node_id(&mut client);
    let name = unused_name();
    let defaults = CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        ..creatable(&format!("{name}-defaults"), -1, &[])
    };
    let spread = assigned(&format!("{name}-spread"), &[(0, &[node]), (1, &[node])]);
    let mut request = CreateTopicsRequest {
        topics: vec![defaults, spread],
        timeout_ms: 10_000,
        validate_only: true,
        ..Default::default()
    };
    let checked = client.call(&request, 7);
    for topic in &checked.topics {
        assert_eq!(code(topic.error_code), ErrorCode::None, "{topic:?}");
    }
    let names: Vec<String> = request
        .topics
        .iter()
        .map(|topic| topic.name.to_string())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for topic in metadata(&mut client, &names, false).topics {
        assert_eq!(
            code(topic.error_code),
            ErrorCode::UnknownTopicOrPartition,
            "only validated"
        );
    }
    request.validate_only = false;
    let mut made = client.call(&request, 7).topics;
    made.sort_by(|a, b| a.name.cmp(&b.name));
    let shape = |index: usize| (made[index].num_partitions, made[index].replication_factor);
    assert_eq!((shape(0), shape(1)), ((1, 1), (2, 1)));
    let configs = made[0]
        .configs
        .as_ref()
        .expect("a new topic's configs are told");
    let retention = configs
        .iter()
        .find(|config| &*config.name == "retention.ms")
        .expect("known");
    assert_eq!(retention.value.as_deref(), Some("604800000"));
    let found = metadata(&mut client, &names, false);
    for topic in &found.topics {
        let made = made
            .iter()
            .find(|made| Some(&made.name) == topic.name.as_ref())
            .expect("made");
        assert_eq!(
            (code(topic.error_code), topic.topic_id),
            (ErrorCode::None, made.topic_id)
        );
        for partition in &topic.partitions {
            assert_eq!(partition.leader_id, node);
            assert_eq!(
                (&*partition.replica_nodes, &*partition.isr_nodes),
                (&[node][..], &[node][..])
            );
        }
    }
}

#[test]
fn a_name_twice_in_one_request_spoils_only_itself() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let (twice, once) = (unused_name(), unused_name());
    let topics = [&twice, &once, &twice]
        .map(|name| creatable(name, 1, &[]))
        .to_vec();
    let mut results = create_topics(&mut client, topics).expect("an answer");
    results.dedup_by(|a, b| a.name == b.name);
    for result in results {
        let expected = if *result.name == *twice {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::None
        };
        assert_eq!(
            code(result.error_code),
            expected,
            "{:?}",
            result.error_message
        );
    }
}

/// Asks for `count` partitions in all, the new ones on these brokers.
fn grow(
    client: &mut Client,
    name: &str,
    count: i32,
    brokers: Option<&[&[i32]]>,
    validate_only: bool,
) -> ErrorCode {
    let assignment = |ids: &&[i32]| create_partitions_request::CreatePartitionsAssignment {
        broker_ids: ids.to_vec(),
        ..Default::default()
    };
    let request = CreatePartitionsRequest {
        topics: vec![create_partitions_request::CreatePartitionsTopic {
            name: text(name),
            count,
            assignments: brokers.map(|brokers| brokers.iter().map(assignment).collect()),
            ..Default::default()
        }],
        timeout_ms: 10_000,
        validate_only,
        ..Default::default()
    };
    code(client.call(&request, 3).results[0].error_code)
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let node = node_id(&mut client);
    let topic = subject.topic(2);
    let record = || TestBatch::of_values(["x"]).encode();
    produce_ok(&mut client, &topic, 1, record());
    let unknown = grow(&mut client, "no-such-topic", 3, None, false);
    assert_eq!(unknown, ErrorCode::UnknownTopicOrPartition);
    for count in [2, 1, 0, -1, i32::MIN] {
        let refused = grow(&mut client, &topic, count, None, false);
        assert_eq!(refused, ErrorCode::InvalidPartitions, "{count}");
    }
    for (count, brokers) in [
        (4, &[node][..]),
        (3, &[node + 9][..]),
        (3, &[node, node][..]),
        (3, &[][..]),
    ] {
        let refused = grow(&mut client, &topic, count, Some(&[brokers]), false);
        assert_eq!(
            refused,
            ErrorCode::InvalidReplicaAssignment,
            "{count} {brokers:?}"
        );
    }
    assert_eq!(grow(&mut client, &topic, 5, None, true), ErrorCode::None);
    assert_eq!(
        grow(&mut client, &topic, 3, Some(&[&[node]]), false),
        ErrorCode::None
    );
    assert_eq!(grow(&mut client, &topic, 5, None, false), ErrorCode::None);
    let found = metadata(&mut client, &[&topic], false);
    assert_eq!(found.topics[0].partitions.len(), 5);
    for partition in 0..5 {
        let offset = produce_ok(&mut client, &topic, partition, record());
        assert_eq!(offset, i64::from(partition == 1));
    }
}

#[test]
fn a_deleted_topic_is_gone_at_once_and_its_name_is_free() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = unused_name();
    let mut ids = Vec::new();
    for round in 0..5 {
        ids.push(create_topic(&mut client, &topic, 3, &[]));
        assert_eq!(latest(&mut client, &topic, 2), 0, "round {round}");
        produce_ok(
            &mut client,
            &topic,
            2,
            TestBatch::of_values(["gone soon"]).encode(),
        );
        assert_eq!(
            delete_topic(&mut client, &topic).expect("an answer"),
            ErrorCode::None
        );
        let after = fetch(&mut client, &topic, 2, 0);
        assert_eq!(code(after.error_code), ErrorCode::UnknownTopicOrPartition);
        let batch = TestBatch::of_values(["too late"]).encode();
        let answer = produce(&mut client, &topic, 2, batch);
        assert_eq!(code(answer.error_code), ErrorCode::UnknownTopicOrPartition);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each had an id of its own");
    assert_eq!(
        delete_topic(&mut client, &topic).expect("an answer"),
        ErrorCode::UnknownTopicOrPartition
    );
}

#[test]
fn topics_are_deleted_by_id_too() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = unused_name();
    let topic_id = create_topic(&mut client, &topic, 1, &[]);
    let mut delete = |name: Option<&str>, topic_id| {
        let request = DeleteTopicsRequest {
            topics: vec![delete_topics_request::DeleteTopicState {
                name: name.map(text),
                topic_id,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let response = client.call(&request, 6);
        code(response.responses[0].error_code)
    };
    assert_eq!(delete(None, Uuid(0x77)), ErrorCode::UnknownTopicId);
    assert_eq!(
        delete(Some(&topic), topic_id),
        ErrorCode::InvalidRequest,
        "a name and an id"
    );
    assert_eq!(
        delete(None, Uuid::ZERO),
        ErrorCode::InvalidRequest,
        "neither"
    );
    assert_eq!(delete(None, topic_id), ErrorCode::None);
    assert_eq!(delete(None, topic_id), ErrorCode::UnknownTopicId);
}
