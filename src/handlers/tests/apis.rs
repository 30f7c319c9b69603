//! Every advertised version, and the APIs about the cluster, topics and settings.

use std::any::Any;

use chronik_io::Stream;
use chronik_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use chronik_protocol::messages::create_topics_request::CreatableTopic;
use chronik_protocol::messages::delete_topics_request::DeleteTopicState;
use chronik_protocol::messages::describe_configs_request::DescribeConfigsResource;
use chronik_protocol::messages::describe_topic_partitions_request::TopicRequest;
use chronik_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use chronik_protocol::messages::metadata_request::MetadataRequestTopic;
use chronik_protocol::messages::*;
use chronik_protocol::versions::{self, ADVERTISED};
use chronik_protocol::{ErrorCode, Request, Str, Uuid};

use super::{Client, Door, TestBroker};
use crate::handlers::operations;
use crate::handlers::table::for_each_api;

/// Asks in every advertised version; those that are not served end the connection.
async fn every_version<Q: Request>(door: &Door, request: Q) {
    let range = versions::of(Q::KEY).expect("advertised");
    for version in range.min..=range.max {
        let mut client = door.connect(0);
        let number = client.send(&request, version).await;
        let response = client.receive::<Q>(number, version).await;
        assert_eq!(
            response.is_some(),
            range.serves(version),
            "{} version {version}",
            Q::KEY
        );
    }
}

macro_rules! ask_each_api {
    ($($key:ident => $when:ident $request:ident,)*) => {
        async fn every_version_of_each(door: &Door) {
            $(every_version(door, answerable($request::default())).await;)*
        }
    };
}
for_each_api!(ask_each_api);

/// Of requests whose defaults are not answered, one that is.
fn answerable<Q: Request>(mut request: Q) -> Q {
    let any: &mut dyn Any = &mut request;
    if let Some(produce) = any.downcast_mut::<ProduceRequest>() {
        // With acks=0 there would be no reply to wait for.
        produce.acks = -1;
    } else if let Some(acls) = any.downcast_mut::<DescribeAclsRequest>() {
        // The kind of everything is 0 by default, which is none.
        acls.resource_type_filter = 1;
        acls.operation = 1;
        acls.permission_type = 1;
    }
    request
}

#[test]
fn every_advertised_version_is_decoded_handled_and_encoded() {
    let mut broker = TestBroker::start(1, 2, &[]);
    let door = broker.door.clone();
    broker.run(async move { every_version_of_each(&door).await });
    let counts = broker.contexts[0].meters.counts();
    for (range, count) in ADVERTISED.iter().zip(counts) {
        let versions = u64::try_from(range.max - range.min + 1).expect("positive");
        assert_eq!(count, versions, "{} is counted", range.key);
    }
}

fn metadata_of(names: &[&'static str]) -> MetadataRequest {
    let topics = names.iter().map(|name| MetadataRequestTopic {
        name: Some(Str::from_static(name)),
        ..MetadataRequestTopic::default()
    });
    MetadataRequest {
        topics: Some(topics.collect()),
        ..MetadataRequest::default()
    }
}

/// Creates a topic with as many partitions.
pub(super) async fn create(client: &mut Client, name: &'static str, partitions: i32) -> Uuid {
    let topic = CreatableTopic {
        name: Str::from_static(name),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    let response = client.ask(&request, 7).await;
    assert_eq!(
        response.topics[0].error_code, 0,
        "{:?}",
        response.topics[0].error_message
    );
    assert_eq!(response.topics[0].num_partitions, partitions);
    response.topics[0].topic_id
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_the_oldest_format() {
    let mut broker = TestBroker::start(2, 1, &[]);
    let mut client = broker.connect(0);
    let response = broker.run(async move {
        let header = [0, 12, 0, 18, 0, 99, 0, 0, 0, 1, 255, 255, 0, 9];
        let frame = [&[0_u8, 0][..], &header].concat();
        client
            .stream
            .write_all(vec![frame.into()])
            .await
            .expect("connected");
        client
            .receive::<ApiVersionsRequest>(1, 0)
            .await
            .expect("a reply")
    });
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.as_i16());
    assert_eq!(response.api_keys.len(), 1);
    assert_eq!(response.api_keys[0].api_key, 18);
}

#[test]
fn bad_names_of_software_are_refused_and_good_ones_get_features() {
    let mut broker = TestBroker::start(3, 1, &[]);
    let mut client = broker.connect(0);
    broker.run(async move {
        let mut request = ApiVersionsRequest {
            client_software_name: Str::from_static("-bad-"),
            client_software_version: Str::from_static("1"),
            ..ApiVersionsRequest::default()
        };
        let refused = client.ask(&request, 3).await;
        assert_eq!(refused.error_code, ErrorCode::InvalidRequest.as_i16());
        assert!(refused.api_keys.is_empty());
        request.client_software_name = Str::from_static("good");
        let answered = client.ask(&request, 4).await;
        assert_eq!(answered.error_code, 0);
        assert_eq!(answered.api_keys.len(), ADVERTISED.len());
        assert!(
            answered
                .finalized_features
                .iter()
                .any(|f| f.name == "metadata.version")
        );
        let older = client.ask(&request, 3).await;
        assert!(
            older
                .supported_features
                .iter()
                .all(|feature| feature.min_version > 0)
        );
    });
}

#[test]
fn metadata_creates_what_may_be_created() {
    let mut broker = TestBroker::start(4, 2, &[("num.partitions", "3")]);
    let mut client = broker.connect(1);
    broker.run(async move {
        let mut request = metadata_of(&["new", "bad name", "__consumer_offsets", "new"]);
        request.include_topic_authorized_operations = true;
        request.allow_auto_topic_creation = false;
        let without = client.ask(&request, 9).await;
        let unknown = ErrorCode::UnknownTopicOrPartition.as_i16();
        let invalid = ErrorCode::InvalidTopicException.as_i16();
        let errors: Vec<i16> = without
            .topics
            .iter()
            .map(|topic| topic.error_code)
            .collect();
        assert_eq!(errors, [unknown, invalid, unknown]);
        request.allow_auto_topic_creation = true;
        let with = client.ask(&request, 9).await;
        let errors: Vec<i16> = with.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(errors, [0, invalid, unknown]);
        assert_eq!(with.topics[0].partitions.len(), 3);
        assert_eq!(
            with.topics[0].topic_authorized_operations,
            operations::TOPIC
        );
        assert!(
            with.topics[0]
                .partitions
                .iter()
                .all(|partition| partition.leader_id == 1)
        );

        let all = MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        };
        let all = client.ask(&all, 12).await;
        assert_eq!(all.topics.len(), 1);
        let by_id = MetadataRequestTopic {
            topic_id: all.topics[0].topic_id,
            ..MetadataRequestTopic::default()
        };
        let nobody = MetadataRequestTopic {
            topic_id: Uuid(77),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![by_id, nobody]),
            ..MetadataRequest::default()
        };
        let by_id = client.ask(&request, 12).await;
        assert_eq!(by_id.topics[0].name.as_deref(), Some("new"));
        assert_eq!(
            by_id.topics[1].error_code,
            ErrorCode::UnknownTopicId.as_i16()
        );
        let too_old = client.ask(&request, 11).await;
        assert!(
            too_old
                .topics
                .iter()
                .all(|t| t.error_code == ErrorCode::InvalidRequest.as_i16())
        );
    });
}

#[test]
fn partitions_are_described_page_by_page() {
    let mut broker = TestBroker::start(5, 1, &[]);
    let mut client = broker.connect(0);
    broker.run(async move {
        create(&mut client, "a", 3).await;
        create(&mut client, "b", 2).await;
        let mut request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            ..DescribeTopicPartitionsRequest::default()
        };
        let mut seen = Vec::new();
        for _ in 0..3 {
            let page = client.ask(&request, 0).await;
            for topic in &page.topics {
                let name = topic.name.clone().expect("named");
                seen.extend(
                    topic
                        .partitions
                        .iter()
                        .map(|p| (name.to_string(), p.partition_index)),
                );
            }
            let Some(next) = page.next_cursor else { break };
            let cursor = describe_topic_partitions_request::Cursor {
                topic_name: next.topic_name.clone(),
                partition_index: next.partition_index,
                ..Default::default()
            };
            request.cursor = Some(cursor);
        }
        let expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)];
        assert_eq!(seen, expected.map(|(name, index)| (name.to_owned(), index)));
        let name = Str::from_static("none");
        request.topics = vec![TopicRequest {
            name,
            ..TopicRequest::default()
        }];
        request.cursor = None;
        let missing = client.ask(&request, 0).await;
        assert_eq!(
            missing.topics[0].error_code,
            ErrorCode::UnknownTopicOrPartition.as_i16()
        );
    });
}

#[test]
fn topics_are_grown_and_deleted_by_name_and_by_id() {
    let mut broker = TestBroker::start(6, 2, &[]);
    let mut client = broker.connect(0);
    broker.run(async move {
        create(&mut client, "a", 1).await;
        let id = create(&mut client, "b", 1).await;
        let topic = |name, count| CreatePartitionsTopic {
            name: Str::from_static(name),
            count,
            assignments: None,
            ..CreatePartitionsTopic::default()
        };
        let topics = vec![topic("a", 4), topic("b", 2), topic("b", 3)];
        let request = CreatePartitionsRequest {
            topics,
            ..CreatePartitionsRequest::default()
        };
        let grown = client.ask(&request, 3).await;
        let outcome: Vec<_> = grown
            .results
            .iter()
            .map(|r| (r.name.to_string(), r.error_code))
            .collect();
        let invalid = ErrorCode::InvalidRequest.as_i16();
        assert_eq!(outcome, [("a".to_owned(), 0), ("b".to_owned(), invalid)]);

        let by_name = DeleteTopicState {
            name: Some(Str::from_static("a")),
            ..DeleteTopicState::default()
        };
        let by_id = DeleteTopicState {
            topic_id: id,
            ..DeleteTopicState::default()
        };
        let neither = DeleteTopicState::default();
        let topics = vec![neither, by_name, by_id];
        let request = DeleteTopicsRequest {
            topics,
            ..DeleteTopicsRequest::default()
        };
        let deleted = client.ask(&request, 6).await;
        let outcome: Vec<_> = deleted
            .responses
            .iter()
            .map(|r| (r.name.as_deref(), r.error_code))
            .collect();
        assert_eq!(outcome, [(None, invalid), (Some("a"), 0), (Some("b"), 0)]);
        let all = MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        };
        assert!(client.ask(&all, 12).await.topics.is_empty());
    });
}

#[test]
fn settings_are_changed_and_described_with_their_sources() {
    let mut broker = TestBroker::start(7, 1, &[("log.retention.hours", "2")]);
    let mut client = broker.connect(0);
    broker.run(async move {
        create(&mut client, "a", 1).await;
        let resource = DescribeConfigsResource {
            resource_type: 2,
            resource_name: Str::from_static("a"),
            configuration_keys: Some(vec![Str::from_static("retention.ms")]),
            ..DescribeConfigsResource::default()
        };
        let describe = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            ..DescribeConfigsRequest::default()
        };
        let before = client.ask(&describe, 4).await;
        let setting = &before.results[0].configs[0];
        // Kafka takes the value for a default, too, for nothing is said of log.retention.ms.
        assert_eq!(
            (setting.value.as_deref(), setting.config_source),
            (Some("7200000"), 5)
        );
        let change = |value| AlterableConfig {
            name: Str::from_static("retention.ms"),
            config_operation: 0,
            value,
            ..AlterableConfig::default()
        };
        let mut alter = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: Str::from_static("a"),
                configs: vec![change(Some(Str::from_static("5")))],
                ..AlterConfigsResource::default()
            }],
            ..IncrementalAlterConfigsRequest::default()
        };
        assert_eq!(client.ask(&alter, 1).await.responses[0].error_code, 0);
        let after = client.ask(&describe, 4).await;
        let setting = &after.results[0].configs[0];
        assert_eq!(
            (setting.value.as_deref(), setting.config_source),
            (Some("5"), 1)
        );
        assert_eq!(setting.synonyms[0].name, "retention.ms");
        assert_eq!(setting.synonyms.len(), 1);
        alter.resources[0].configs = vec![change(None)];
        let refused = client.ask(&alter, 1).await;
        assert_eq!(
            refused.responses[0].error_code,
            ErrorCode::InvalidRequest.as_i16()
        );
    });
}
