//! Odd requests about topics, settings and the broker.

use chronik_protocol::messages::*;
use chronik_protocol::{Str, Uuid};

use super::{Ground, NO_ID};
use crate::support::calls::{creatable, text};

pub(super) fn ask_all(ground: &mut Ground) {
    metadata(ground);
    describe_partitions(ground);
    create(ground);
    grow(ground);
    describe_configs(ground);
    alter_configs(ground);
    alter_topic(ground);
    others(ground);
    log_dirs(ground);
    producers(ground);
}

fn metadata(ground: &mut Ground) {
    use metadata_request::MetadataRequestTopic;
    let topic = |name: Option<Str>, topic_id: Uuid| MetadataRequestTopic {
        name,
        topic_id,
        ..Default::default()
    };
    let (known, missing) = (Some(ground.topic()), Some(ground.missing()));
    for (case, topics) in [
        ("a topic", vec![topic(known.clone(), Uuid::ZERO)]),
        ("an id", vec![topic(None, ground.id)]),
        ("a missing topic", vec![topic(missing.clone(), Uuid::ZERO)]),
        ("a missing id", vec![topic(None, NO_ID)]),
        (
            "an id and a missing id",
            vec![topic(None, ground.id), topic(None, NO_ID)],
        ),
        ("neither", vec![topic(None, Uuid::ZERO)]),
        ("both", vec![topic(known.clone(), ground.id)]),
        ("both, the id missing", vec![topic(known.clone(), NO_ID)]),
        (
            "both, the name missing",
            vec![topic(missing.clone(), ground.id)],
        ),
        (
            "a name and an id",
            vec![topic(known.clone(), Uuid::ZERO), topic(None, ground.id)],
        ),
        ("a topic twice", vec![topic(known.clone(), Uuid::ZERO); 2]),
        ("an id twice", vec![topic(None, ground.id); 2]),
        ("no name", vec![topic(Some(text("")), Uuid::ZERO)]),
        ("a bad name", vec![topic(Some(text("a/b")), Uuid::ZERO)]),
        ("a dot", vec![topic(Some(text(".")), Uuid::ZERO)]),
    ] {
        let request = MetadataRequest {
            topics: Some(topics),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            response
                .topics
                .sort_by_key(|topic| (topic.name.clone(), topic.topic_id.0));
            for topic in &mut response.topics {
                topic
                    .partitions
                    .sort_by_key(|partition| partition.partition_index);
            }
            // Where clients find it is another thing.
            response.brokers.clear();
        });
    }
    let request = MetadataRequest {
        topics: Some(Vec::new()),
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    ground.ask_sorted("no topics", &request, |response| {
        response.brokers.clear();
        // Version 0 means all of them.
        response.topics.clear();
    });
}

fn describe_partitions(ground: &mut Ground) {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    let (topic, missing) = (ground.topic(), ground.missing());
    let cursor = |name: &Str, partition_index| {
        Some(Cursor {
            topic_name: name.clone(),
            partition_index,
            ..Default::default()
        })
    };
    let first = text("!first");
    let last = text("~last");
    #[rustfmt::skip]
    let cases = [
        ("a topic", vec![&topic], 2000, None),
        ("a missing topic", vec![&missing], 2000, None),
        ("a topic twice", vec![&topic, &topic], 2000, None),
        ("a bad name", vec![&first], 2000, None),
        ("one partition", vec![&topic], 1, None),
        ("no partition", vec![&topic], 0, None),
        ("less than none", vec![&topic], -5, None),
        ("as many as there are", vec![&topic], 2, None),
        ("a full page before a missing topic", vec![&topic, &last], 2, None),
        ("the second partition", vec![&topic], 2000, cursor(&topic, 1)),
        ("a partition beyond", vec![&topic], 2000, cursor(&topic, 2)),
        ("a partition far beyond", vec![&topic], 2000, cursor(&topic, 99)),
        ("a partition below", vec![&topic], 2000, cursor(&topic, -1)),
        ("a cursor at a missing topic", vec![&topic, &last], 2000, cursor(&last, 0)),
        ("a cursor before", vec![&topic], 2000, cursor(&first, 0)),
        ("a cursor before, with a partition", vec![&topic], 2000, cursor(&first, 1)),
        ("a cursor behind", vec![&topic], 2000, cursor(&last, 0)),
        ("a cursor without a name", vec![&topic], 2000, cursor(&text(""), 0)),
        ("all, a cursor behind", vec![], 2000, cursor(&last, 0)),
        ("all, the second partition", vec![], 1, cursor(&topic, 1)),
    ];
    for (case, names, limit, cursor) in cases {
        let request = DescribeTopicPartitionsRequest {
            topics: names
                .into_iter()
                .map(|name| TopicRequest {
                    name: name.clone(),
                    ..Default::default()
                })
                .collect(),
            response_partition_limit: limit,
            cursor,
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            if case.starts_with("all") {
                // What else there is, is another thing.
                response.next_cursor = None;
            }
        });
    }
}

fn create(ground: &mut Ground) {
    use create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
    let fresh = ground.missing.clone();
    let plain = creatable(&fresh, 1, &[]);
    let assigned = |assignments: &[(i32, &[i32])]| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments
            .iter()
            .map(|(partition_index, broker_ids)| CreatableReplicaAssignment {
                partition_index: *partition_index,
                broker_ids: broker_ids.to_vec(),
                ..Default::default()
            })
            .collect(),
        ..plain.clone()
    };
    let replicated = |replication_factor| CreatableTopic {
        replication_factor,
        ..plain.clone()
    };
    #[rustfmt::skip]
    let cases = [
        ("nothing", vec![]),
        ("a topic that is there", vec![creatable(&ground.topic, 1, &[])]),
        ("no partition", vec![creatable(&fresh, 0, &[])]),
        ("-2 partitions", vec![creatable(&fresh, -2, &[])]),
        ("no replica", vec![replicated(0)]),
        ("two replicas", vec![replicated(2)]),
        ("-2 replicas", vec![replicated(-2)]),
        ("no name", vec![creatable("", 1, &[])]),
        ("a bad name", vec![creatable("a/b", 1, &[])]),
        ("a dot", vec![creatable(".", 1, &[])]),
        ("the metadata's name", vec![creatable("__cluster_metadata", 1, &[])]),
        ("a topic twice", vec![plain.clone(), plain.clone()]),
        ("an unknown setting", vec![creatable(&fresh, 1, &[("no.such", "1")])]),
        ("a bad value", vec![creatable(&fresh, 1, &[("retention.ms", "long")])]),
        ("a value out of range", vec![creatable(&fresh, 1, &[("segment.bytes", "-7")])]),
        ("another broker's partition", vec![assigned(&[(0, &[77])])]),
        ("partitions from 1 on", vec![assigned(&[(1, &[1])])]),
        ("a partition without a replica", vec![assigned(&[(0, &[])])]),
        ("a replica twice", vec![assigned(&[(0, &[1, 1])])]),
        ("a partition twice", vec![assigned(&[(0, &[1]), (0, &[1])])]),
        ("a number and partitions", vec![CreatableTopic {
            num_partitions: 1,
            ..assigned(&[(0, &[1])])
        }]),
    ];
    for (case, topics) in cases {
        let request = CreateTopicsRequest {
            topics,
            timeout_ms: 30_000,
            validate_only: false,
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            response.topics.sort_by_key(|topic| topic.name.clone());
        });
    }
}

fn grow(ground: &mut Ground) {
    use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
    let topic = |name: Str, count: i32| CreatePartitionsTopic {
        name,
        count,
        assignments: None,
        ..Default::default()
    };
    let assigned = |brokers: &[&[i32]], count| CreatePartitionsTopic {
        assignments: Some(
            brokers
                .iter()
                .map(|broker_ids| CreatePartitionsAssignment {
                    broker_ids: broker_ids.to_vec(),
                    ..Default::default()
                })
                .collect(),
        ),
        ..topic(ground.topic(), count)
    };
    for (case, topics) in [
        ("nothing", vec![]),
        ("as many", vec![topic(ground.topic(), 2)]),
        ("fewer", vec![topic(ground.topic(), 1)]),
        ("none", vec![topic(ground.topic(), 0)]),
        ("less than none", vec![topic(ground.topic(), -1)]),
        ("a missing topic", vec![topic(ground.missing(), 3)]),
        ("a topic twice", vec![topic(ground.topic(), 3); 2]),
        ("another broker's partition", vec![assigned(&[&[77]], 3)]),
        ("too few places", vec![assigned(&[], 3)]),
        ("too many places", vec![assigned(&[&[1], &[1]], 3)]),
        ("a place without a replica", vec![assigned(&[&[]], 3)]),
        ("two replicas", vec![assigned(&[&[1, 77]], 3)]),
    ] {
        let request = CreatePartitionsRequest {
            topics,
            timeout_ms: 30_000,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
}

pub(super) fn delete(ground: &mut Ground) {
    use delete_topics_request::DeleteTopicState;
    let state = |name: Option<Str>, topic_id| DeleteTopicState {
        name,
        topic_id,
        ..Default::default()
    };
    let (known, missing) = (Some(ground.topic()), Some(ground.missing()));
    let sort = |response: &mut DeleteTopicsResponse| {
        let key = |it: &delete_topics_response::DeletableTopicResult| {
            (it.name.clone(), it.topic_id.0, it.error_code)
        };
        response.responses.sort_by_key(key);
    };
    for (case, topics) in [
        ("nothing", vec![]),
        ("a missing topic", vec![state(missing.clone(), Uuid::ZERO)]),
        ("a missing id", vec![state(None, NO_ID)]),
        ("neither", vec![state(None, Uuid::ZERO)]),
        ("both", vec![state(known.clone(), ground.id)]),
        (
            "a missing topic twice",
            vec![state(missing.clone(), Uuid::ZERO); 2],
        ),
        ("a topic twice", vec![state(known.clone(), Uuid::ZERO); 2]),
        ("an id twice", vec![state(None, ground.id); 2]),
        ("a missing id twice", vec![state(None, NO_ID); 2]),
        ("neither, twice", vec![state(None, Uuid::ZERO); 2]),
        (
            "name and id",
            vec![state(known.clone(), Uuid::ZERO), state(None, ground.id)],
        ),
        (
            "id and name",
            vec![state(None, ground.id), state(known.clone(), Uuid::ZERO)],
        ),
    ] {
        let names = topics
            .iter()
            .map(|topic| topic.name.clone().unwrap_or_default());
        let request = DeleteTopicsRequest {
            timeout_ms: 30_000,
            topic_names: names.collect(),
            ..Default::default()
        };
        if topics
            .iter()
            .all(|topic| topic.topic_id.is_zero() && topic.name.is_some())
        {
            ground.ask_sorted(&format!("{case}, by names"), &request, sort);
        }
        let request = DeleteTopicsRequest {
            topics,
            topic_names: Vec::new(),
            ..request
        };
        ground.ask_sorted(case, &request, sort);
    }
}

/// Kinds of resources: topic, broker, logger, client metrics, group.
const KINDS: [(i8, &str); 7] = [
    (2, "topic"),
    (4, "broker"),
    (8, "logger"),
    (16, "metrics"),
    (32, "group"),
    (0, "unknown kind"),
    (99, "kind 99"),
];

fn resources(ground: &Ground) -> Vec<(String, i8, Str)> {
    let names = [
        ("no name", text("")),
        ("TOPIC", ground.topic()),
        ("MISSING", ground.missing()),
        ("a bad name", text("a/b")),
        ("broker 77", text("77")),
        ("broker -1", text("-1")),
        ("broker 1x", text("1x")),
    ];
    let all = KINDS.iter().flat_map(|(kind, called)| {
        let case =
            move |(case, name): &(&str, Str)| (format!("{called}, {case}"), *kind, name.clone());
        names.iter().map(case).collect::<Vec<_>>()
    });
    all.collect()
}

fn describe_configs(ground: &mut Ground) {
    use describe_configs_request::DescribeConfigsResource;
    for (case, resource_type, resource_name) in resources(ground) {
        let resource = DescribeConfigsResource {
            resource_type,
            resource_name,
            configuration_keys: Some(vec![text("no.such")]),
            ..Default::default()
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        ground.ask(&case, &request);
    }
    let request = DescribeConfigsRequest::default();
    ground.ask("nothing", &request);
}

fn alter_configs(ground: &mut Ground) {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let change = |name: &str, config_operation, value: Option<&str>| AlterableConfig {
        name: text(name),
        config_operation,
        value: value.map(text),
        ..Default::default()
    };
    let sort = |response: &mut IncrementalAlterConfigsResponse| {
        response
            .responses
            .sort_by_key(|it| (it.resource_type, it.resource_name.clone()));
    };
    for (case, resource_type, resource_name) in resources(ground) {
        let resource = AlterConfigsResource {
            resource_type,
            resource_name: resource_name.clone(),
            configs: vec![change("no.such", 0, Some("1"))],
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            validate_only: true,
            ..Default::default()
        };
        ground.ask_sorted(&case, &request, sort);
        let old = alter_configs_request::AlterConfigsResource {
            resource_type,
            resource_name,
            configs: vec![alter_configs_request::AlterableConfig {
                name: text("no.such"),
                value: Some(text("1")),
                ..Default::default()
            }],
            ..Default::default()
        };
        let request = AlterConfigsRequest {
            resources: vec![old],
            validate_only: true,
            ..Default::default()
        };
        ground.ask(&case, &request);
    }
}

fn alter_topic(ground: &mut Ground) {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let change = |name: &str, config_operation, value: Option<&str>| AlterableConfig {
        name: text(name),
        config_operation,
        value: value.map(text),
        ..Default::default()
    };
    let sort = |response: &mut IncrementalAlterConfigsResponse| {
        response
            .responses
            .sort_by_key(|it| (it.resource_type, it.resource_name.clone()));
    };
    #[rustfmt::skip]
    let cases = [
        ("nothing", vec![]),
        ("no such operation", vec![change("retention.ms", 9, Some("1"))]),
        ("a null value", vec![change("retention.ms", 0, None)]),
        ("a bad value", vec![change("retention.ms", 0, Some("x"))]),
        ("a value out of range", vec![change("segment.bytes", 0, Some("-7"))]),
        ("append to no list", vec![change("retention.ms", 2, Some("1"))]),
        ("delete what is not set", vec![change("retention.ms", 1, None)]),
        ("a setting twice", vec![change("retention.ms", 0, Some("1")); 2]),
        ("append null", vec![change("cleanup.policy", 2, None)]),
        ("append what is there", vec![change("cleanup.policy", 2, Some("delete"))]),
        ("subtract what is not there", vec![change("cleanup.policy", 3, Some("compact"))]),
        ("append nonsense", vec![change("cleanup.policy", 2, Some("nonsense"))]),
    ];
    for (case, configs) in cases {
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: ground.topic(),
            configs,
            ..Default::default()
        };
        let twice = IncrementalAlterConfigsRequest {
            resources: vec![resource.clone(); 2],
            validate_only: true,
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..twice.clone()
        };
        ground.ask_sorted(case, &request, sort);
        ground.ask_sorted(&format!("{case}, resource twice"), &twice, sort);
    }
}

fn others(ground: &mut Ground) {
    for endpoint_type in [0, 1, 2, 3] {
        let request = DescribeClusterRequest {
            endpoint_type,
            ..Default::default()
        };
        ground.ask_sorted(&format!("endpoint {endpoint_type}"), &request, |response| {
            response.brokers.clear();
        });
    }
    for (case, resource_types) in [
        ("kind 99", vec![99]),
        ("kind 0", vec![0]),
        ("loggers", vec![8]),
    ] {
        let request = ListConfigResourcesRequest {
            resource_types,
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| response.config_resources.clear());
    }
    for (case, name) in [("no name", ""), ("a bad name", "a b"), ("a name", "abc")] {
        let request = ApiVersionsRequest {
            client_software_name: text(name),
            client_software_version: text("1"),
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            response.api_keys.clear();
            response.supported_features.clear();
            response.finalized_features.clear();
            response.finalized_features_epoch = 0;
        });
    }
}

fn log_dirs(ground: &mut Ground) {
    use describe_log_dirs_request::DescribableLogDirTopic;
    let topic = |topic: Str, partitions: &[i32]| DescribableLogDirTopic {
        topic,
        partitions: partitions.to_vec(),
        ..Default::default()
    };
    for (case, topics) in [
        ("nothing", vec![]),
        ("a missing topic", vec![topic(ground.missing(), &[0])]),
        ("a missing partition", vec![topic(ground.topic(), &[9, -1])]),
    ] {
        let request = DescribeLogDirsRequest {
            topics: Some(topics),
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            for dir in &mut response.results {
                dir.log_dir = text("DIR");
                (dir.total_bytes, dir.usable_bytes) = (0, 0);
            }
        });
    }
}

fn producers(ground: &mut Ground) {
    for (case, transactional_id, timeout, producer_id, producer_epoch) in [
        ("no transaction's name", Some(""), 1000, -1, -1),
        ("a producer without an epoch", None, 1000, 5, -1),
        ("an epoch without a producer", None, 1000, -1, 5),
    ] {
        let request = InitProducerIdRequest {
            transactional_id: transactional_id.map(text),
            transaction_timeout_ms: timeout,
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            if response.error_code == 0 {
                response.producer_id = 0;
            }
        });
    }
}
