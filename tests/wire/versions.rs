//! Every API in every version the broker advertises gets a reply that can be read to its last byte.

mod admin;
mod groups;
mod not_yet;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chronik_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
    alter_configs_request, create_partitions_request, delete_records_request,
    delete_topics_request, describe_configs_request, describe_log_dirs_request,
    describe_topic_partitions_request, incremental_alter_configs_request, list_offsets_request,
    metadata_request, offset_for_leader_epoch_request,
};
use chronik_protocol::{ApiKey, ErrorCode, Request, Str, Uuid};

use crate::subject::{Subject, unused_name};
use crate::support::batch::TestBatch;
use crate::support::calls::{code, creatable, fetch_request, produce_request, text};
use crate::support::client::Client;

/// Broker and topic, as DescribeConfigs and its kin number them.
const TOPIC_RESOURCE: i8 = 2;

/// What is asked of, and what the answers were checked for.
struct Scene {
    subject: Subject,
    client: Client,
    topic: String,
    topic_id: Uuid,
    advertised: BTreeMap<i16, RangeInclusive<i16>>,
    asked: Vec<i16>,
}

impl Scene {
    fn new() -> Self {
        let subject = Subject::start_with(&[("group.initial.rebalance.delay.ms", "0")]);
        let mut client = subject.connect();
        let topic = unused_name();
        let topic_id = crate::support::calls::create_topic(&mut client, &topic, 2, &[]);
        let response = client.call(&ApiVersionsRequest::default(), 0);
        let ranges = response.api_keys.iter();
        let advertised = ranges.map(|api| (api.api_key, api.min_version..=api.max_version));
        let advertised = advertised.collect();
        Self {
            subject,
            client,
            topic,
            topic_id,
            advertised,
            asked: Vec::new(),
        }
    }

    /// Asks in every advertised version that our codec has, on one connection.
    fn every<R: Request>(
        &mut self,
        request: impl Fn(&Self, i16) -> R,
        errors: impl Fn(&R::Response) -> Vec<i16>,
    ) {
        let key = R::KEY.as_i16();
        self.asked.push(key);
        let advertised = self.advertised.get(&key);
        let advertised = advertised
            .unwrap_or_else(|| panic!("{} is not advertised", R::NAME))
            .clone();
        for version in advertised {
            let request = request(self, version);
            let response = self.client.call(&request, version);
            let errors = errors(&response);
            assert!(
                !errors.is_empty(),
                "{} v{version} says nothing of what was asked",
                R::NAME
            );
            for error in errors {
                assert_eq!(code(error), ErrorCode::None, "{} v{version}", R::NAME);
            }
        }
    }

    fn topic_name(&self) -> Str {
        text(&self.topic)
    }
}

#[test]
fn every_advertised_version_is_answered() {
    let mut scene = Scene::new();
    cluster_apis(&mut scene);
    data_apis(&mut scene);
    offset_apis(&mut scene);
    topic_apis(&mut scene);
    config_apis(&mut scene);
    admin::admin_apis(&mut scene);
    groups::group_apis(&mut scene);
    if !scene.subject.is_outside() {
        let mut asked = scene.asked.clone();
        asked.sort_unstable();
        let advertised: Vec<i16> = scene.advertised.keys().copied().collect();
        assert_eq!(asked, advertised, "asked here, and advertised");
    }
}

fn cluster_apis(scene: &mut Scene) {
    scene.every(
        |_, _| ApiVersionsRequest {
            client_software_name: "chronik-test".into(),
            client_software_version: "1".into(),
            ..Default::default()
        },
        |response| vec![response.error_code],
    );
    scene.every(
        |scene, version| {
            let by_id = version >= 12;
            let topic = metadata_request::MetadataRequestTopic {
                name: (!by_id).then(|| scene.topic_name()),
                topic_id: if by_id { scene.topic_id } else { Uuid::ZERO },
                ..Default::default()
            };
            MetadataRequest {
                topics: Some(vec![topic]),
                ..Default::default()
            }
        },
        |response| {
            response
                .topics
                .iter()
                .map(|topic| topic.error_code)
                .collect()
        },
    );
    scene.every(
        |_, _| DescribeClusterRequest::default(),
        |response| vec![response.error_code, (response.brokers.len() != 1).into()],
    );
    scene.every(
        |scene, _| DescribeTopicPartitionsRequest {
            topics: vec![describe_topic_partitions_request::TopicRequest {
                name: scene.topic_name(),
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| {
            response
                .topics
                .iter()
                .map(|topic| topic.error_code)
                .collect()
        },
    );
    scene.every(
        |scene, _| DescribeLogDirsRequest {
            topics: Some(vec![describe_log_dirs_request::DescribableLogDirTopic {
                topic: scene.topic_name(),
                partitions: vec![0, 1],
                ..Default::default()
            }]),
            ..Default::default()
        },
        |response| {
            response
                .results
                .iter()
                .map(|result| result.error_code)
                .collect()
        },
    );
}

fn data_apis(scene: &mut Scene) {
    scene.every(
        |scene, version| {
            let batch = TestBatch::of_values([format!("produced by v{version}")]).encode();
            let mut request = produce_request(&scene.topic, 0, -1, batch);
            if version >= 13 {
                request.topic_data[0].topic_id = scene.topic_id;
                request.topic_data[0].name = Str::default();
            }
            request
        },
        |response| vec![response.responses[0].partition_responses[0].error_code],
    );
    scene.every(
        |scene, version| {
            let mut request = fetch_request(&scene.topic, 0, 0);
            request.session_epoch = -1;
            if version >= 13 {
                request.topics[0].topic_id = scene.topic_id;
                request.topics[0].topic = Str::default();
            }
            request
        },
        |response| {
            let partition = &response.responses[0].partitions[0];
            let records = partition
                .records
                .as_ref()
                .map_or(0, |records| records.len());
            vec![
                response.error_code,
                partition.error_code,
                (records == 0).into(),
            ]
        },
    );
    scene.every(
        |_, _| InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 1_000,
            ..Default::default()
        },
        |response| vec![response.error_code],
    );
}

fn offset_apis(scene: &mut Scene) {
    scene.every(
        |scene, _| ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: scene.topic_name(),
                partitions: vec![list_offsets_request::ListOffsetsPartition {
                    timestamp: -1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| vec![response.topics[0].partitions[0].error_code],
    );
    scene.every(
        |scene, _| OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: scene.topic_name(),
                partitions: vec![offset_for_leader_epoch_request::OffsetForLeaderPartition {
                    leader_epoch: 0,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| vec![response.topics[0].partitions[0].error_code],
    );
    scene.every(
        |scene, _| DeleteRecordsRequest {
            topics: vec![delete_records_request::DeleteRecordsTopic {
                name: scene.topic_name(),
                partitions: vec![delete_records_request::DeleteRecordsPartition {
                    partition_index: 0,
                    offset: 1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        },
        |response| vec![response.topics[0].partitions[0].error_code],
    );
}

fn topic_apis(scene: &mut Scene) {
    let base = unused_name();
    let named = |version: i16| format!("{base}-v{version}");
    scene.every(
        |_, version| CreateTopicsRequest {
            topics: vec![creatable(&named(version), 1, &[])],
            timeout_ms: 10_000,
            ..Default::default()
        },
        |response| {
            response
                .topics
                .iter()
                .map(|topic| topic.error_code)
                .collect()
        },
    );
    scene.every(
        |_, version| CreatePartitionsRequest {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: text(&named(version + 2)),
                count: 3,
                assignments: None,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        },
        |response| {
            response
                .results
                .iter()
                .map(|topic| topic.error_code)
                .collect()
        },
    );
    scene.every(
        |_, version| {
            // CreateTopics starts at version 2, DeleteTopics at 1.
            let name = text(&named(version + 1));
            let state = delete_topics_request::DeleteTopicState {
                name: Some(name.clone()),
                ..Default::default()
            };
            DeleteTopicsRequest {
                topics: if version >= 6 {
                    vec![state]
                } else {
                    Vec::new()
                },
                topic_names: if version >= 6 { Vec::new() } else { vec![name] },
                timeout_ms: 10_000,
                ..Default::default()
            }
        },
        |response| {
            response
                .responses
                .iter()
                .map(|topic| topic.error_code)
                .collect()
        },
    );
}

fn config_apis(scene: &mut Scene) {
    scene.every(
        |scene, version| DescribeConfigsRequest {
            resources: vec![describe_configs_request::DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: scene.topic_name(),
                configuration_keys: None,
                ..Default::default()
            }],
            include_synonyms: version >= 1,
            include_documentation: version >= 3,
            ..Default::default()
        },
        |response| {
            let result = &response.results[0];
            vec![result.error_code, (result.configs.len() < 20).into()]
        },
    );
    scene.every(
        |scene, _| AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: scene.topic_name(),
                configs: vec![alter_configs_request::AlterableConfig {
                    name: "retention.ms".into(),
                    value: Some("7200000".into()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| {
            response
                .responses
                .iter()
                .map(|resource| resource.error_code)
                .collect()
        },
    );
    scene.every(
        |scene, _| IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: scene.topic_name(),
                configs: vec![incremental_alter_configs_request::AlterableConfig {
                    name: "retention.bytes".into(),
                    value: Some("1000000".into()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| {
            response
                .responses
                .iter()
                .map(|resource| resource.error_code)
                .collect()
        },
    );
}

#[test]
fn old_clients_are_told_of_produce_0() {
    let subject = Subject::start();
    let response = subject.connect().call(&ApiVersionsRequest::default(), 0);
    let produce = response
        .api_keys
        .iter()
        .find(|api| api.api_key == ApiKey::Produce.as_i16());
    assert_eq!(
        produce.map(|api| api.min_version),
        Some(0),
        "librdkafka compresses only then"
    );
    for api in &response.api_keys {
        assert!(api.min_version <= api.max_version, "{api:?}");
    }
}
