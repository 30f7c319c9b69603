//! What the controller answers, held against what Kafka 4.3.1 answered to the same requests.

use chronik_protocol::messages::RegisterBrokerRecord;
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::change::{
    ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply, ControllerRequest,
    NewPartitions, NewTopic, TopicRef,
};
use super::controller::Controller;
use super::image::Image;

/// A catalogue with one broker, and a controller.
struct OneBroker {
    image: Image,
    controller: Controller,
    random: u128,
}

impl OneBroker {
    fn new() -> OneBroker {
        let mut image = Image::new(Str::from("cluster"), 1, Default::default());
        let broker = RegisterBrokerRecord {
            broker_id: 1,
            ..RegisterBrokerRecord::default()
        };
        image
            .apply(&MetadataRecord::RegisterBroker(broker))
            .expect("a broker");
        OneBroker {
            image,
            controller: Controller::default(),
            random: 7,
        }
    }

    /// Decides and applies; gives the reply and how many records it took.
    fn ask(&mut self, request: &ControllerRequest) -> (ControllerReply, usize) {
        let OneBroker {
            image,
            controller,
            random,
        } = self;
        let mut next = || {
            *random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1 << 70 | 1);
            *random
        };
        let decision = controller
            .decide(image, request, &mut next)
            .expect("records that apply");
        assert_eq!(decision.records.is_empty(), decision.next.is_none());
        if let Some(next) = decision.next {
            *image = next;
        }
        (decision.reply, decision.records.len())
    }

    fn create(&mut self, topic: NewTopic) -> Result<usize, (ErrorCode, String)> {
        let request = ControllerRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        match self.ask(&request) {
            (ControllerReply::CreateTopics(mut topics), records) => match topics.remove(0).result {
                Ok(topic) => {
                    assert!(records > topic.partitions.len());
                    Ok(topic.partitions.len())
                }
                Err(error) => {
                    assert_eq!(records, 0);
                    Err((error.code, error.message.to_string()))
                }
            },
            (other, _) => panic!("{other:?}"),
        }
    }

    fn grow(&mut self, name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>) -> Outcome {
        let topics = vec![NewPartitions {
            name: Str::from(name),
            count,
            assignments,
        }];
        let request = ControllerRequest::CreatePartitions {
            topics,
            validate_only: false,
        };
        match self.ask(&request).0 {
            ControllerReply::CreatePartitions(mut results) => outcome(results.remove(0).1),
            other => panic!("{other:?}"),
        }
    }

    fn alter(
        &mut self,
        resource: ConfigResource,
        ops: &[(&str, ConfigOpKind, Option<&str>)],
    ) -> Outcome {
        let op = |(name, kind, value): &(&str, ConfigOpKind, Option<&str>)| ConfigOp {
            name: Str::from(*name),
            kind: *kind,
            value: value.map(Str::from),
        };
        let ops = ops.iter().map(op).collect();
        let resources = vec![ConfigChange {
            resource,
            ops,
            replace_all: false,
        }];
        let request = ControllerRequest::AlterConfigs {
            resources,
            validate_only: false,
        };
        match self.ask(&request).0 {
            ControllerReply::AlterConfigs(mut results) => outcome(results.remove(0)),
            other => panic!("{other:?}"),
        }
    }
}

type Outcome = Result<(), (ErrorCode, String)>;

fn outcome(result: Result<(), super::change::ApiError>) -> Outcome {
    result.map_err(|error| (error.code, error.message.to_string()))
}

fn topic(name: &str, partition_count: i32, replication_factor: i16) -> NewTopic {
    NewTopic {
        name: Str::from(name),
        partition_count,
        replication_factor,
        ..NewTopic::default()
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments
        .iter()
        .map(|(index, brokers)| (*index, brokers.to_vec()));
    NewTopic {
        assignments: assignments.collect(),
        ..topic(name, -1, -1)
    }
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> NewTopic {
    let configs = configs
        .iter()
        .map(|(n, v)| (Str::from(*n), v.map(Str::from)));
    NewTopic {
        configs: configs.collect(),
        ..topic(name, 1, 1)
    }
}

#[test]
fn topics_are_refused_with_kafkas_codes_and_sentences() {
    use ErrorCode as E;
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("foo", 2, 1)), Ok(2));
    assert_eq!(cluster.create(topic("my.topic", -1, -1)), Ok(1));
    let cases: &[(NewTopic, ErrorCode, &str)] = &[
        (
            topic("foo", 1, 1),
            E::TopicAlreadyExists,
            "Topic 'foo' already exists.",
        ),
        (
            topic("rf3", 1, 3),
            E::InvalidReplicationFactor,
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (
            topic("rf0", 0, 0),
            E::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            topic("p0", 0, 1),
            E::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("my_topic", 1, 1),
            E::InvalidTopicException,
            "Topic 'my_topic' collides with existing topic: my.topic",
        ),
        (
            topic("a b", 1, 1),
            E::InvalidTopicException,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (
            topic("__cluster_metadata", 1, 1),
            E::InvalidRequest,
            "Creation of internal topic __cluster_metadata is prohibited.",
        ),
        (
            assigned("as", &[(0, &[1]), (2, &[1])]),
            E::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            assigned("as", &[(0, &[9])]),
            E::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            assigned("as", &[(0, &[1, 1])]),
            E::InvalidReplicaAssignment,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            assigned("as", &[(0, &[])]),
            E::InvalidReplicaAssignment,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            assigned("as", &[(-1, &[1])]),
            E::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            topic("many", 10_001, 1),
            E::PolicyViolation,
            "Excessively large number of partitions per request.",
        ),
    ];
    for (topic, code, message) in cases {
        let wanted = Err((*code, (*message).to_owned()));
        assert_eq!(cluster.create(topic.clone()), wanted, "{topic:?}");
    }
    assert_eq!(
        cluster.create(assigned("as", &[(1, &[1]), (0, &[1])])),
        Ok(2)
    );
    assert_eq!(cluster.create(topic("__consumer_offsets", 1, 1)), Ok(1));
    let image = &cluster.image;
    assert!(
        image
            .topic("__consumer_offsets")
            .is_some_and(|topic| topic.is_internal)
    );
}

#[test]
fn topic_settings_are_refused_with_kafkas_sentences() {
    let mut cluster = OneBroker::new();
    let cases: &[(&[(&str, Option<&str>)], &str)] = &[
        (&[("nope", Some("1"))], "Unknown topic config name: nope"),
        (
            &[("retention.ms", Some("abc"))],
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        ),
        (
            &[("segment.bytes", Some("1"))],
            "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576",
        ),
        (
            &[("compression.type", Some("foo"))],
            "Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            &[("cleanup.policy", Some("foo,delete"))],
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            &[("min.cleanable.dirty.ratio", Some("2"))],
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            &[("leader.replication.throttled.replicas", Some("xx"))],
            "Invalid value [xx] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
        (
            &[("preallocate", Some("maybe"))],
            "Invalid value maybe for configuration preallocate: Expected value to be either true or false",
        ),
        (
            &[
                ("min.compaction.lag.ms", Some("20")),
                ("max.compaction.lag.ms", Some("10")),
            ],
            "conflict topic config setting min.compaction.lag.ms (20) > max.compaction.lag.ms (10)",
        ),
        (
            &[("remote.storage.enable", Some("true"))],
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        ),
        (
            &[("message.format.version", Some("2.8"))],
            "Unknown topic config name: message.format.version",
        ),
        (
            &[("retention.ms", None)],
            "Null value not supported for topic configs: retention.ms",
        ),
        (
            &[("compression.gzip.level", Some("0"))],
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        ),
        (
            &[("chronik.durability", Some("hope"))],
            "Invalid value hope for configuration chronik.durability: String must be one of: disk, process",
        ),
    ];
    for (configs, message) in cases {
        let wanted = Err((ErrorCode::InvalidConfig, (*message).to_owned()));
        assert_eq!(cluster.create(configured("c", configs)), wanted);
    }
    for fine in [
        ("retention.ms", " 5 "),
        ("cleanup.policy", "delete,delete"),
        ("cleanup.policy", ""),
    ] {
        let mut cluster = OneBroker::new();
        assert_eq!(
            cluster.create(configured("c", &[(fine.0, Some(fine.1))])),
            Ok(1),
            "{fine:?}"
        );
    }
}

#[test]
fn a_request_judges_its_topics_one_by_one() {
    let mut cluster = OneBroker::new();
    let request = ControllerRequest::CreateTopics {
        topics: vec![
            topic("a", 2, 1),
            topic("twice", 1, 1),
            topic("bad name", 1, 1),
            topic("twice", 1, 1),
            topic("b.c", 1, 1),
            topic("b_c", 1, 1),
        ],
        validate_only: false,
    };
    let (reply, records) = cluster.ask(&request);
    let ControllerReply::CreateTopics(topics) = reply else {
        panic!("{reply:?}")
    };
    let outcomes: Vec<_> = topics
        .iter()
        .map(|topic| {
            topic
                .result
                .as_ref()
                .map_or_else(|e| e.code, |_| ErrorCode::None)
        })
        .collect();
    use ErrorCode::{InvalidRequest, InvalidTopicException, None};
    // Names that collide only within a request pass in Kafka too.
    assert_eq!(
        outcomes,
        [
            None,
            InvalidRequest,
            InvalidTopicException,
            InvalidRequest,
            None,
            None
        ]
    );
    assert_eq!(records, 3 + 2 + 2);
    assert_eq!(
        cluster.image.topics().map(|t| &*t.name).collect::<Vec<_>>(),
        ["a", "b.c", "b_c"]
    );
}

#[test]
fn validation_changes_nothing_and_shows_the_topic() {
    let mut cluster = OneBroker::new();
    let topics = vec![configured("v", &[("retention.ms", Some("7"))])];
    let request = ControllerRequest::CreateTopics {
        topics,
        validate_only: true,
    };
    let (reply, records) = cluster.ask(&request);
    let ControllerReply::CreateTopics(topics) = reply else {
        panic!("{reply:?}")
    };
    let shown = topics[0].result.as_ref().expect("valid");
    assert_eq!(shown.config.retention_ms, Some(7));
    assert_eq!((records, cluster.image.topic_count()), (0, 0));
}

#[test]
fn partitions_are_added_or_refused_as_by_kafka() {
    use ErrorCode as E;
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("foo", 2, 1)), Ok(2));
    let refused = |code, message: &str| Err((code, message.to_owned()));
    assert_eq!(
        cluster.grow("foo", 2, None),
        refused(E::InvalidPartitions, "Topic already has 2 partition(s).")
    );
    assert_eq!(
        cluster.grow("foo", -1, None),
        refused(
            E::InvalidPartitions,
            "The topic foo currently has 2 partition(s); -1 would not be an increase."
        )
    );
    assert_eq!(
        cluster.grow("none", 3, None),
        refused(
            E::UnknownTopicOrPartition,
            "This server does not host this topic-partition."
        )
    );
    assert_eq!(
        cluster.grow("foo", 4, Some(vec![vec![1]])),
        refused(
            E::InvalidReplicaAssignment,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
        )
    );
    assert_eq!(
        cluster.grow("foo", 3, Some(vec![vec![7]])),
        refused(
            E::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 7, but no such broker is registered."
        )
    );
    assert_eq!(
        cluster.grow("foo", i32::MAX, None).map_err(|e| e.0),
        Err(E::PolicyViolation)
    );
    assert_eq!(cluster.grow("foo", 5, None), Ok(()));
    assert_eq!(
        cluster
            .image
            .topic("foo")
            .map(|topic| topic.partitions.len()),
        Some(5)
    );
}

#[test]
fn settings_are_altered_or_refused_as_by_kafka() {
    use ConfigOpKind::{Append, Delete, Set, Subtract};
    use ErrorCode as E;
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("foo", 1, 1)), Ok(1));
    let foo = || ConfigResource::Topic(Str::from("foo"));
    let refused = |code, message: &str| Err((code, message.to_owned()));
    let set = |name, value| [(name, Set, Some(value))];
    for (resource, ops, code, message) in [
        (
            ConfigResource::Topic(Str::from("none")),
            &set("retention.ms", "1")[..],
            E::UnknownTopicOrPartition,
            "The topic 'none' does not exist.",
        ),
        (
            ConfigResource::Topic(Str::from("")),
            &set("retention.ms", "1"),
            E::InvalidRequest,
            "Default topic resources are not allowed.",
        ),
        (
            foo(),
            &set("nope", "1"),
            E::InvalidConfig,
            "Unknown topic config name: nope",
        ),
        (
            foo(),
            &[("retention.ms", Append, Some("1"))],
            E::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            foo(),
            &[
                ("segment.ms", Set, Some("5")),
                ("segment.ms", Set, Some("6")),
            ],
            E::InvalidRequest,
            "Error due to duplicate config keys",
        ),
        (
            foo(),
            &[("segment.ms", Set, None)],
            E::InvalidRequest,
            "Null value not supported for : segment.ms",
        ),
        (
            ConfigResource::Broker(Some(1)),
            &set("node.id", "3"),
            E::InvalidRequest,
            "Cannot update these configs dynamically: [node.id]",
        ),
        (
            ConfigResource::Broker(Some(1)),
            &set("log.retention.ms", "xx"),
            E::InvalidRequest,
            "Invalid value xx for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            ConfigResource::Broker(Some(-1)),
            &set("log.retention.ms", "1"),
            E::InvalidRequest,
            "Invalid negative broker ID.",
        ),
    ] {
        assert_eq!(cluster.alter(resource, ops), refused(code, message));
    }
    let policy = |cluster: &OneBroker| {
        cluster
            .image
            .topic("foo")
            .and_then(|topic| topic.configs.get("cleanup.policy").cloned())
    };
    let change = |kind, value| [("cleanup.policy", kind, Some(value))];
    assert_eq!(cluster.alter(foo(), &change(Append, "compact")), Ok(()));
    assert_eq!(policy(&cluster), Some(Str::from("delete,compact")));
    assert_eq!(cluster.alter(foo(), &change(Append, "compact")), Ok(()));
    assert_eq!(policy(&cluster), Some(Str::from("delete,compact")));
    assert_eq!(cluster.alter(foo(), &change(Subtract, "delete")), Ok(()));
    assert_eq!(policy(&cluster), Some(Str::from("compact")));
    assert_eq!(
        cluster.alter(foo(), &[("cleanup.policy", Delete, None)]),
        Ok(())
    );
    assert_eq!(policy(&cluster), None);
    assert_eq!(cluster.alter(foo(), &[("nope", Delete, None)]), Ok(()));
    // A setting of every broker reaches the topics that have none of their own.
    assert_eq!(
        cluster.alter(ConfigResource::Broker(None), &set("log.retention.ms", "77")),
        Ok(())
    );
    let retention = cluster
        .image
        .topic("foo")
        .and_then(|topic| topic.config.retention_ms);
    assert_eq!(retention, Some(77));
    assert_eq!(
        cluster.alter(ConfigResource::Broker(None), &set("some.custom", "3")),
        Ok(())
    );
}

#[test]
fn replacing_all_settings_unsets_what_is_not_named() {
    let mut cluster = OneBroker::new();
    let configs = [("retention.ms", Some("7")), ("segment.ms", Some("9"))];
    assert_eq!(cluster.create(configured("foo", &configs)), Ok(1));
    let op = ConfigOp {
        name: Str::from("retention.ms"),
        kind: ConfigOpKind::Set,
        value: Some(Str::from("8")),
    };
    let resource = ConfigResource::Topic(Str::from("foo"));
    let change = ConfigChange {
        resource,
        ops: vec![op],
        replace_all: true,
    };
    let resources = vec![change];
    cluster.ask(&ControllerRequest::AlterConfigs {
        resources,
        validate_only: false,
    });
    let topic = cluster.image.topic("foo").expect("foo");
    assert_eq!(topic.configs.get("retention.ms"), Some(&Str::from("8")));
    assert_eq!(topic.configs.get("segment.ms"), None);
}

#[test]
fn topics_are_deleted_by_name_and_id() {
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("a", 1, 1)), Ok(1));
    assert_eq!(cluster.create(topic("b", 1, 1)), Ok(1));
    let id = cluster.image.topic("b").expect("b").id;
    let request = ControllerRequest::DeleteTopics(vec![
        TopicRef::Name(Str::from("a")),
        TopicRef::Name(Str::from("a")),
        TopicRef::Name(Str::from("none")),
        TopicRef::Id(id),
        TopicRef::Id(Uuid(12345)),
    ]);
    let (reply, records) = cluster.ask(&request);
    let ControllerReply::DeleteTopics(results) = reply else {
        panic!("{reply:?}")
    };
    let codes: Vec<_> = results
        .iter()
        .map(|(_, _, result)| {
            result
                .as_ref()
                .map_or_else(|e| e.code, |()| ErrorCode::None)
        })
        .collect();
    use ErrorCode::{InvalidRequest, None, UnknownTopicId, UnknownTopicOrPartition};
    assert_eq!(
        codes,
        [
            None,
            InvalidRequest,
            UnknownTopicOrPartition,
            None,
            UnknownTopicId
        ]
    );
    assert_eq!((results[3].0.as_str(), results[3].1), ("b", id));
    assert_eq!((records, cluster.image.topic_count()), (2, 0));
}

#[test]
fn producer_ids_take_a_record_for_each_block() {
    let mut cluster = OneBroker::new();
    let mut records_in_all = 0;
    for wanted in 0..2500 {
        let (reply, records) = cluster.ask(&ControllerRequest::AllocateProducerId);
        records_in_all += records;
        match reply {
            ControllerReply::ProducerId(Ok(id)) => assert_eq!(id, wanted),
            other => panic!("{other:?}"),
        }
        assert!(cluster.image.next_producer_id > wanted);
    }
    assert_eq!(records_in_all, 3);
    // A new start begins a new block, wherever the last one ended.
    cluster.controller = Controller::default();
    match cluster.ask(&ControllerRequest::AllocateProducerId).0 {
        ControllerReply::ProducerId(Ok(id)) => assert_eq!(id, 3000),
        other => panic!("{other:?}"),
    }
}
