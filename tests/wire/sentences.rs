//! Sentences beside error codes quote client text. Of any length, every API answers in every version, and the sentence
//! begins and ends as usual.

use chronik_protocol::codec::SENTENCE_BYTES_MAX;
use chronik_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeQuorumRequest,
    ElectLeadersRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    UpdateFeaturesRequest, alter_configs_request, alter_partition_reassignments_request,
    create_partitions_request, describe_configs_request, describe_quorum_request,
    elect_leaders_request, incremental_alter_configs_request, update_features_request,
};
use chronik_protocol::{Request, Str};

use crate::subject::Subject;
use crate::support::calls::{creatable, text};
use crate::support::client::Client;
use crate::support::groups::find_coordinator;

/// The longest string that a request can carry.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Kinds of resources that have settings.
const KINDS: [i8; 6] = [2, 4, 8, 16, 32, 127];

/// Asks in each of these versions; every sentence of an answer is one of moderate length, and there is one.
fn ask<R: Request>(
    client: &mut Client,
    versions: std::ops::RangeInclusive<i16>,
    request: &R,
    sentences: impl Fn(R::Response) -> Vec<Option<Str>>,
) -> Vec<String> {
    let mut said = Vec::new();
    for version in versions {
        let answers = sentences(client.call(request, version));
        assert!(!answers.is_empty(), "{} v{version}", R::NAME);
        for sentence in answers.into_iter().flatten() {
            let bytes = sentence.len();
            assert!(
                bytes <= SENTENCE_BYTES_MAX,
                "{} v{version}: {bytes}",
                R::NAME
            );
            said.push(sentence.to_string());
        }
    }
    said
}

#[test]
fn topics_with_long_names_and_settings_are_refused_in_every_version() {
    let subject = Subject::start();
    let (mut client, topic) = (subject.connect(), subject.topic(1));
    let long = "é".repeat(STRING_BYTES_MAX / 2);
    let new = [
        creatable(&long, 1, &[]),
        creatable("a", 1, &[(&long, "1")]),
        creatable("b", 1, &[("retention.ms", &long)]),
    ];
    let request = CreateTopicsRequest {
        topics: new.to_vec(),
        timeout_ms: 30_000,
        ..Default::default()
    };
    let said = ask(&mut client, 2..=7, &request, |response| {
        let topics = response.topics.into_iter();
        topics.map(|topic| topic.error_message).collect()
    });
    assert_eq!(said.len(), 6 * 3);
    let cut = said
        .iter()
        .find(|sentence| sentence.starts_with("Invalid value é"));
    let end = "for configuration retention.ms: Not a number of type LONG";
    let cut = cut.expect("the sentence about a value");
    assert!(cut.contains("é … é") && cut.ends_with(end), "{cut}");
    let request = CreatePartitionsRequest {
        topics: vec![create_partitions_request::CreatePartitionsTopic {
            name: text(&long),
            count: 3,
            ..Default::default()
        }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    ask(&mut client, 0..=3, &request, |response| {
        let results = response.results.into_iter();
        results.map(|result| result.error_message).collect()
    });
    let request = DeleteTopicsRequest {
        topic_names: vec![text(&long)],
        timeout_ms: 30_000,
        ..Default::default()
    };
    ask(&mut client, 5..=5, &request, |response| {
        let topics = response.responses.into_iter();
        topics.map(|topic| topic.error_message).collect()
    });
    for resource_type in KINDS {
        for name in [&*long, &*topic, "", "1"] {
            settings(&mut client, (resource_type, name), &long);
        }
    }
}

/// Asks for and of a resource with a long setting.
fn settings(client: &mut Client, (resource_type, name): (i8, &str), long: &str) {
    for (key, value) in [(long, "1"), ("retention.ms", long), ("log.dirs", long)] {
        let configs = vec![alter_configs_request::AlterableConfig {
            name: text(key),
            value: Some(text(value)),
            ..Default::default()
        }];
        let request = AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name: text(name),
                configs,
                ..Default::default()
            }],
            validate_only: true,
            ..Default::default()
        };
        ask(client, 0..=2, &request, |response| {
            let responses = response.responses.into_iter();
            responses.map(|response| response.error_message).collect()
        });
        let configs = vec![incremental_alter_configs_request::AlterableConfig {
            name: text(key),
            value: Some(text(value)),
            ..Default::default()
        }];
        let request = IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name: text(name),
                configs,
                ..Default::default()
            }],
            validate_only: true,
            ..Default::default()
        };
        ask(client, 0..=1, &request, |response| {
            let responses = response.responses.into_iter();
            responses.map(|response| response.error_message).collect()
        });
    }
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs_request::DescribeConfigsResource {
            resource_type,
            resource_name: text(name),
            ..Default::default()
        }],
        ..Default::default()
    };
    ask(client, 1..=4, &request, |response| {
        let results = response.results.into_iter();
        results.map(|result| result.error_message).collect()
    });
}

#[test]
fn groups_with_long_names_and_expressions_are_refused_in_every_version() {
    let subject = Subject::start();
    let mut client = subject.connect();
    find_coordinator(&mut client, "g");
    let long = "(".repeat(STRING_BYTES_MAX);
    for (regex, assignor) in [(Some(text(&long)), None), (None, Some(text(&long)))] {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: text("g"),
            member_id: text("m"),
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(Vec::new()),
            topic_partitions: Some(Vec::new()),
            subscribed_topic_regex: regex,
            server_assignor: assignor,
            ..Default::default()
        };
        let said = ask(&mut client, 1..=1, &request, |response| {
            vec![response.error_message]
        });
        assert_eq!(said.len(), 1, "a sentence");
    }
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![text(&long)],
        ..Default::default()
    };
    ask(&mut client, 0..=1, &request, |response| {
        let groups = response.groups.into_iter();
        groups.map(|group| group.error_message).collect()
    });
    let request = DescribeGroupsRequest {
        groups: vec![text(&long)],
        ..Default::default()
    };
    let said = ask(&mut client, 6..=6, &request, |response| {
        let groups = response.groups.into_iter();
        groups.map(|group| group.error_message).collect()
    });
    assert_eq!(said.len(), 1, "a sentence");
    let request = FindCoordinatorRequest {
        key: text(&long),
        key_type: 1,
        ..Default::default()
    };
    ask(&mut client, 1..=3, &request, |response| {
        vec![response.error_message]
    });
    let request = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec![text(&long)],
        ..Default::default()
    };
    ask(&mut client, 4..=6, &request, |response| {
        let coordinators = response.coordinators.into_iter();
        coordinators.map(|one| one.error_message).collect()
    });
}

#[test]
fn administrators_with_long_names_are_refused_in_every_version() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let long = "n".repeat(STRING_BYTES_MAX);
    let request = ElectLeadersRequest {
        topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
            topic: text(&long),
            partitions: vec![0],
            ..Default::default()
        }]),
        ..Default::default()
    };
    let said = ask(&mut client, 0..=2, &request, |response| {
        let topics = response.replica_election_results.into_iter();
        topics
            .flat_map(|topic| topic.partition_result)
            .map(|result| result.error_message)
            .collect()
    });
    assert_eq!(said.len(), 3);
    let topic = alter_partition_reassignments_request::ReassignableTopic {
        name: text(&long),
        partitions: vec![Default::default()],
        ..Default::default()
    };
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![topic],
        ..Default::default()
    };
    ask(&mut client, 0..=1, &request, |response| {
        let topics = response.responses.into_iter();
        topics
            .flat_map(|topic| topic.partitions)
            .map(|result| result.error_message)
            .collect()
    });
    let request = DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: text(&long),
            partitions: vec![Default::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    ask(&mut client, 2..=2, &request, |response| {
        let topics = response.topics.into_iter();
        topics
            .flat_map(|topic| topic.partitions)
            .map(|result| result.error_message)
            .collect()
    });
    let request = UpdateFeaturesRequest {
        feature_updates: vec![update_features_request::FeatureUpdateKey {
            feature: text(&long),
            max_version_level: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let said = ask(&mut client, 0..=2, &request, |response| {
        vec![response.error_message]
    });
    assert_eq!(said.len(), 3);
}
