//! Administrators' requests to one broker: elections, reassignments, the metadata quorum, and everything that needs an
//! authorizer. Codes and sentences are those of Apache Kafka 4.3.1.

use chronik_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use chronik_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use chronik_protocol::messages::elect_leaders_request::TopicPartitions;
use chronik_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, CreateAclsRequest,
    DescribeAclsRequest, DescribeDelegationTokenRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
    create_acls_request, describe_quorum_request, list_partition_reassignments_request,
};
use chronik_protocol::{ErrorCode, Str};

use crate::subject::Subject;
use crate::support::calls::{code, create_topic, text};
use crate::support::client::Client;
use crate::support::{BrokerOptions, Scratch};

/// What an answer says of partitions, in its order: topic, partition, code, sentence.
type Told = Vec<(String, i32, ErrorCode, Option<String>)>;

fn elect(client: &mut Client, kind: i8, asked: Option<&[(&str, &[i32])]>) -> (ErrorCode, Told) {
    let topics = asked.map(|asked| {
        let topics = asked.iter().map(|(topic, partitions)| TopicPartitions {
            topic: text(topic),
            partitions: partitions.to_vec(),
            ..Default::default()
        });
        topics.collect()
    });
    let request = ElectLeadersRequest {
        election_type: kind,
        topic_partitions: topics,
        ..Default::default()
    };
    let response = client.call(&request, 2);
    let mut told = Told::new();
    for topic in &response.replica_election_results {
        for result in &topic.partition_result {
            let message = result.error_message.as_deref().map(str::to_owned);
            let error = code(result.error_code);
            told.push((topic.topic.to_string(), result.partition_id, error, message));
        }
    }
    (code(response.error_code), told)
}

#[test]
fn no_election_is_needed_where_there_is_one_broker() {
    let subject = Subject::start();
    let topic = subject.topic(2);
    let mut client = subject.connect();
    for kind in [0, 1] {
        let asked: &[(&str, &[i32])] = &[(&topic, &[0, 7, 0]), ("no-such", &[3]), (&topic, &[1])];
        let (error, told) = elect(&mut client, kind, Some(asked));
        assert_eq!(error, ErrorCode::None);
        let not_needed = |index| {
            let sentence = "Leader election not needed for topic partition.";
            let sentence = Some(sentence.to_owned());
            (topic.clone(), index, ErrorCode::ElectionNotNeeded, sentence)
        };
        let unknown = |name: &str, index, sentence: String| {
            let error = ErrorCode::UnknownTopicOrPartition;
            (name.to_owned(), index, error, Some(sentence))
        };
        let expected = [
            not_needed(0),
            unknown(&topic, 7, format!("No such partition as {topic}-7")),
            not_needed(0),
            unknown("no-such", 3, "No such topic as no-such".to_owned()),
            not_needed(1),
        ];
        assert_eq!(told, expected);
    }
    // Of all partitions those are told that were elected; the topics are named all the same.
    assert_eq!(elect(&mut client, 0, None), (ErrorCode::None, Vec::new()));
    let (error, told) = elect(&mut client, 2, Some(&[(&topic, &[0])]));
    assert_eq!(error, ErrorCode::InvalidRequest);
    assert_eq!(told[0].2, ErrorCode::InvalidRequest);
    assert_eq!(told[0].3.as_deref(), Some("Unknown election type 2"));
    assert_eq!(elect(&mut client, -1, None).0, ErrorCode::InvalidRequest);
}

/// Asks for one assignment; the answer's code and sentence.
fn reassign(
    client: &mut Client,
    (topic, index): (&str, i32),
    replicas: Option<&[i32]>,
) -> (ErrorCode, Option<String>) {
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: text(topic),
            partitions: vec![ReassignablePartition {
                partition_index: index,
                replicas: replicas.map(<[i32]>::to_vec),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.call(&request, 1);
    assert_eq!(code(response.error_code), ErrorCode::None);
    assert_eq!(response.error_message, None);
    let result = &response.responses[0].partitions[0];
    let message = result.error_message.as_deref().map(str::to_owned);
    (code(result.error_code), message)
}

#[test]
fn a_partition_is_reassigned_to_the_one_broker_or_not_at_all() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let here = (&*topic, 0);
    assert_eq!(
        reassign(&mut client, here, Some(&[1])),
        (ErrorCode::None, None)
    );
    let cancelled = reassign(&mut client, here, None);
    assert_eq!(cancelled, (ErrorCode::NoReassignmentInProgress, None));
    let unregistered = |broker: i32| {
        format!(
            "The manual partition assignment includes broker {broker}, but no such broker is \
             registered."
        )
    };
    let twice = "The manual partition assignment includes the broker 1 more than once.";
    let empty = "The manual partition assignment includes an empty replica list.";
    let cases: [(&[i32], String); 7] = [
        (&[2], unregistered(2)),
        (&[3, 2, 1], unregistered(2)),
        (&[-7, 1], unregistered(-7)),
        (&[1, 1, 2], twice.to_owned()),
        (&[1, 0, 1], unregistered(0)),
        (&[1, 1], twice.to_owned()),
        (&[], empty.to_owned()),
    ];
    for (replicas, sentence) in cases {
        let expected = (ErrorCode::InvalidReplicaAssignment, Some(sentence));
        assert_eq!(
            reassign(&mut client, here, Some(replicas)),
            expected,
            "{replicas:?}"
        );
    }
    let unknown = |sentence: String| (ErrorCode::UnknownTopicOrPartition, Some(sentence));
    let sentence = format!("Unable to find partition {topic}:9.");
    assert_eq!(
        reassign(&mut client, (&topic, 9), Some(&[1])),
        unknown(sentence)
    );
    let sentence = "Unable to find a topic named no-such.".to_owned();
    assert_eq!(
        reassign(&mut client, ("no-such", 0), None),
        unknown(sentence)
    );
    none_is_under_way(&mut client, &topic);
}

fn none_is_under_way(client: &mut Client, topic: &str) {
    let named = list_partition_reassignments_request::ListPartitionReassignmentsTopics {
        name: text(topic),
        partition_indexes: vec![0, 0, 7],
        ..Default::default()
    };
    for topics in [None, Some(Vec::new()), Some(vec![named])] {
        let request = ListPartitionReassignmentsRequest {
            topics,
            ..Default::default()
        };
        let response = client.call(&request, 0);
        assert_eq!(code(response.error_code), ErrorCode::None);
        assert_eq!(
            (response.error_message, response.topics),
            (None, Vec::new())
        );
    }
}

#[test]
fn many_refusals_are_told_with_codes_and_a_bounded_number_of_sentences() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let name = "x".repeat(30_000);
    let partitions = (0..50_000).map(|index| ReassignablePartition {
        partition_index: index,
        replicas: Some(Vec::new()),
        ..Default::default()
    });
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: text(&name),
            partitions: partitions.collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let results = client.call(&request, 1).responses.remove(0).partitions;
    assert_eq!(results.len(), 50_000);
    let unknown = ErrorCode::UnknownTopicOrPartition.as_i16();
    assert!(results.iter().all(|result| result.error_code == unknown));
    let said: usize = results
        .iter()
        .flat_map(|result| &result.error_message)
        .map(|m| m.len())
        .sum();
    assert!(
        (30_000..3 << 20).contains(&said),
        "{said} bytes of sentences"
    );
}

#[test]
fn a_quorum_of_strange_partitions_is_unknown_in_a_bounded_answer() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let strange = describe_quorum_request::PartitionData::default();
    let request = DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: text("__cluster_metadata"),
            partitions: vec![strange; 100_000],
            ..Default::default()
        }],
        ..Default::default()
    };
    let partitions = client.call(&request, 2).topics.remove(0).partitions;
    assert_eq!(partitions.len(), 100_000);
    let unknown = ErrorCode::UnknownTopicOrPartition.as_i16();
    assert!(
        partitions
            .iter()
            .all(|partition| partition.error_code == unknown)
    );
    let said = partitions
        .iter()
        .flat_map(|partition| &partition.error_message);
    let said: usize = said.map(|sentence| sentence.len()).sum();
    assert!((1..2 << 20).contains(&said), "{said} bytes of sentences");
}

fn quorum(client: &mut Client, asked: &[(&str, &[i32])]) -> (ErrorCode, usize, i64) {
    let topics = asked
        .iter()
        .map(|(topic, partitions)| describe_quorum_request::TopicData {
            topic_name: text(topic),
            partitions: partitions
                .iter()
                .map(|index| describe_quorum_request::PartitionData {
                    partition_index: *index,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
    let request = DescribeQuorumRequest {
        topics: topics.collect(),
        ..Default::default()
    };
    let response = client.call(&request, 2);
    assert_eq!(code(response.error_code), ErrorCode::None);
    assert_eq!(response.topics.len(), asked.len());
    let partition = &response.topics[0].partitions[0];
    let voters = &partition.current_voters;
    assert!(
        voters
            .iter()
            .all(|voter| voter.log_end_offset == partition.high_watermark)
    );
    (
        code(partition.error_code),
        response.nodes.len(),
        partition.high_watermark,
    )
}

#[test]
fn the_quorum_is_this_broker_and_its_log_grows_with_the_catalogue() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let log = ("__cluster_metadata", &[0][..]);
    let (error, nodes, before) = quorum(&mut client, &[log]);
    assert_eq!((error, nodes), (ErrorCode::None, 1));
    subject.topic(3);
    let (_, _, after) = quorum(&mut client, &[log]);
    assert!(after > before + 3, "{before} then {after}");
    let topic = subject.topic(1);
    let strange: [&[(&str, &[i32])]; 5] = [
        &[(&topic, &[0])],
        &[("__cluster_metadata", &[1])],
        &[("__cluster_metadata", &[0, 0])],
        &[log, log],
        &[log, (&topic, &[0])],
    ];
    for asked in strange {
        let (error, nodes, _) = quorum(&mut client, asked);
        assert_eq!(
            (error, nodes),
            (ErrorCode::UnknownTopicOrPartition, 0),
            "{asked:?}"
        );
    }
}

#[test]
fn what_wants_an_authorizer_is_disabled() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let any = DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..Default::default()
    };
    let response = client.call(&any, 3);
    assert_eq!(code(response.error_code), ErrorCode::SecurityDisabled);
    let sentence = Some(Str::from_static(
        "No Authorizer is configured on the broker",
    ));
    assert_eq!(response.error_message, sentence);
    let entry = create_acls_request::AclCreation {
        resource_type: 2,
        operation: 3,
        permission_type: 3,
        ..Default::default()
    };
    let request = CreateAclsRequest {
        creations: vec![entry.clone(), entry.clone()],
        ..Default::default()
    };
    let results = client.call(&request, 3).results;
    assert_eq!(results.len(), 2);
    let disabled = ErrorCode::SecurityDisabled.as_i16();
    assert!(results.iter().all(|result| result.error_code == disabled));
    let tokens = client.call(&DescribeDelegationTokenRequest::default(), 3);
    let refused = ErrorCode::DelegationTokenRequestNotAllowed;
    assert_eq!(code(tokens.error_code), refused);
    // Kafka ends the connection for a kind that is UNKNOWN.
    let strange = create_acls_request::AclCreation {
        operation: 0,
        ..entry
    };
    let request = CreateAclsRequest {
        creations: vec![strange],
        ..Default::default()
    };
    client.send(&request, 3);
    client.expect_closed_after("an unknown operation");
}

/// Asks for directories, each with the partitions of topics; the answer's codes by topic and partition.
pub(crate) fn place(
    client: &mut Client,
    asked: &[(&str, &str, &[i32])],
) -> Vec<(String, Vec<(i32, ErrorCode)>)> {
    let dirs = asked
        .iter()
        .map(|(path, topic, partitions)| AlterReplicaLogDir {
            path: text(path),
            topics: vec![AlterReplicaLogDirTopic {
                name: text(topic),
                partitions: partitions.to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        });
    let request = AlterReplicaLogDirsRequest {
        dirs: dirs.collect(),
        ..Default::default()
    };
    let results = client.call(&request, 2).results.into_iter();
    let results = results.map(|topic| {
        let partitions = topic.partitions.iter();
        let codes = partitions.map(|result| (result.partition_index, code(result.error_code)));
        (topic.topic_name.to_string(), codes.collect())
    });
    results.collect()
}

#[test]
fn a_partition_is_agreed_to_where_it_lies_and_nothing_moves() {
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("first"));
    let options = options.argument("--data").argument(scratch.join("second"));
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "t", 2, &[]);
    let described = client.call(&all_dirs(), 4).results;
    let mut homes = [String::new(), String::new()];
    for dir in &described {
        for partition in dir.topics.iter().flat_map(|topic| &topic.partitions) {
            homes[usize::try_from(partition.partition_index).expect("0 or 1")] =
                dir.log_dir.to_string();
        }
    }
    let [here, there] = [&*homes[0], &*homes[1]];
    assert_ne!(here, there, "{described:?}");
    let told = |codes: &[(i32, ErrorCode)]| vec![("t".to_owned(), codes.to_vec())];
    let none = ErrorCode::None;
    assert_eq!(place(&mut client, &[(here, "t", &[0])]), told(&[(0, none)]));
    assert_eq!(
        place(&mut client, &[(there, "t", &[1])]),
        told(&[(1, none)])
    );
    // The last directory for a partition is the one that is meant.
    let twice: [(&str, &str, &[i32]); 2] = [(there, "t", &[0, 0]), (here, "t", &[0])];
    assert_eq!(place(&mut client, &twice), told(&[(0, none)]));
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(
        place(&mut client, &[(here, "t", &[9, -1])]),
        told(&[(-1, unknown), (9, unknown)])
    );
    let slash = format!("{here}/");
    for path in ["/no/such", "first", "", &slash] {
        let missing = told(&[(0, ErrorCode::LogDirNotFound)]);
        assert_eq!(place(&mut client, &[(path, "t", &[0])]), missing, "{path}");
    }
    assert_eq!(place(&mut client, &[]), []);
    assert_eq!(place(&mut client, &[(here, "t", &[])]), []);
    let after = client.call(&all_dirs(), 4).results;
    let topics = |dirs: &[_]| -> Vec<_> { dirs.iter().map(topics_of).collect() };
    assert_eq!(topics(&after), topics(&described), "something moved");
}

fn topics_of(
    dir: &chronik_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult,
) -> Vec<(String, Vec<i32>)> {
    let topics = dir.topics.iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| partition.partition_index);
        (topic.name.to_string(), partitions.collect())
    });
    topics.collect()
}

pub(crate) fn all_dirs() -> DescribeLogDirsRequest {
    DescribeLogDirsRequest {
        topics: None,
        ..Default::default()
    }
}
