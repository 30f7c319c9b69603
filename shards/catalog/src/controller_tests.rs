//! What the controller answers, held against what Kafka 4.3.1 answered to the same requests.

use chronik_protocol::messages::RegisterBrokerRecord;
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::change::{
    ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply, ControllerRequest,
    NewPartitions, NewTopic, TopicRef,
};
use super::controller::{Controller, judge};
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
        let decision = match request {
            ControllerRequest::AllocateProducerId => controller.allocate_producer_id(image),
            request => judge(image, request, &mut next),
        };
        let decision = decision.expect("records that apply");
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

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> NewTopic {
    let configs = configs
        .iter()
        .map(|(n, v)| (Str::from(*n), v.map(Str::from)));
    NewTopic {
        configs: configs.collect(),
        ..topic(name, 1, 1)
    }
}

/// Name, partitions, replication factor, assignments; the code; Kafka's sentence.
const REFUSED_TOPICS: &str = "\
foo|1|1|| TOPIC_ALREADY_EXISTS|Topic 'foo' already exists.
rf3|1|3|| INVALID_REPLICATION_FACTOR|Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.
rf0|0|0|| INVALID_REPLICATION_FACTOR|Replication factor must be larger than 0, or -1 to use the default value.
p0|0|1|| INVALID_PARTITIONS|Number of partitions was set to an invalid non-positive value.
my_topic|1|1|| INVALID_TOPIC_EXCEPTION|Topic 'my_topic' collides with existing topic: my.topic
a b|1|1|| INVALID_TOPIC_EXCEPTION|Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
__cluster_metadata|1|1|| INVALID_REQUEST|Creation of internal topic __cluster_metadata is prohibited.
as|-1|-1|0:1 2:1| INVALID_REPLICA_ASSIGNMENT|partitions should be a consecutive 0-based integer sequence
as|-1|-1|0:9| INVALID_REPLICA_ASSIGNMENT|The manual partition assignment includes broker 9, but no such broker is registered.
as|-1|-1|0:1,1| INVALID_REPLICA_ASSIGNMENT|The manual partition assignment includes the broker 1 more than once.
as|-1|-1|0:| INVALID_REPLICA_ASSIGNMENT|The manual partition assignment includes an empty replica list.
as|-1|-1|-1:1| INVALID_REPLICA_ASSIGNMENT|partitions should be a consecutive 0-based integer sequence
many|10001|1|| POLICY_VIOLATION|Excessively large number of partitions per request.";

/// A topic as a line of the table gives it.
fn topic_of(fields: &[&str]) -> NewTopic {
    let number = |text: &str| text.parse::<i32>().expect("a number");
    let assignments = fields[3].split_whitespace().map(|entry| {
        let (index, brokers) = entry.split_once(':').expect("a colon");
        let brokers = brokers
            .split(',')
            .filter(|broker| !broker.is_empty())
            .map(number);
        (number(index), brokers.collect())
    });
    NewTopic {
        assignments: assignments.collect(),
        ..topic(
            fields[0],
            number(fields[1]),
            fields[2].parse().expect("a number"),
        )
    }
}

#[test]
fn topics_are_refused_with_kafkas_codes_and_sentences() {
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("foo", 2, 1)), Ok(2));
    assert_eq!(cluster.create(topic("my.topic", -1, -1)), Ok(1));
    for line in REFUSED_TOPICS.lines() {
        let fields: Vec<&str> = line.splitn(6, '|').collect();
        let (code, message) = cluster.create(topic_of(&fields)).expect_err(line);
        assert_eq!((code.name(), &*message), (fields[4].trim(), fields[5]));
    }
    assert_eq!(
        cluster.create(topic_of(&["as", "-1", "-1", "1:1 0:1"])),
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

/// Settings (a null value has no `=`), and Kafka's sentence.
const REFUSED_SETTINGS: &str = "\
nope=1|Unknown topic config name: nope
retention.ms=abc|Invalid value abc for configuration retention.ms: Not a number of type LONG
segment.bytes=1|Invalid value 1 for configuration segment.bytes: Value must be at least 1048576
compression.type=foo|Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer
cleanup.policy=foo,delete|Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete
preallocate=maybe|Invalid value maybe for configuration preallocate: Expected value to be either true or false
min.cleanable.dirty.ratio=2|Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1
leader.replication.throttled.replicas=xx|Invalid value [xx] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...
min.compaction.lag.ms=20 max.compaction.lag.ms=10|conflict topic config setting min.compaction.lag.ms (20) > max.compaction.lag.ms (10)
remote.storage.enable=true|Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.
message.format.version=2.8|Unknown topic config name: message.format.version
retention.ms|Null value not supported for topic configs: retention.ms
compression.gzip.level=0|Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1
chronik.durability=hope|Invalid value hope for configuration chronik.durability: String must be one of: disk, process";

#[test]
fn topic_settings_are_refused_with_kafkas_sentences() {
    let mut cluster = OneBroker::new();
    for line in REFUSED_SETTINGS.lines() {
        let (settings, wanted) = line.split_once('|').expect("a sentence");
        let configs: Vec<_> = settings
            .split(' ')
            .map(|setting| match setting.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (setting, None),
            })
            .collect();
        let wanted = Err((ErrorCode::InvalidConfig, wanted.to_owned()));
        assert_eq!(cluster.create(configured("c", &configs)), wanted);
    }
    for (name, value) in [
        ("retention.ms", " 5 "),
        ("cleanup.policy", "delete,delete"),
        ("cleanup.policy", ""),
    ] {
        let mut cluster = OneBroker::new();
        assert_eq!(
            cluster.create(configured("c", &[(name, Some(value))])),
            Ok(1),
            "{name}"
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

/// Resource, setting, operation, value (`-` for null); the code; Kafka's sentence.
const REFUSED_CHANGES: &str = "\
none|retention.ms|Set|1|UNKNOWN_TOPIC_OR_PARTITION|The topic 'none' does not exist.
none|nope|Set|1|INVALID_CONFIG|Unknown topic config name: nope
none|retention.ms|Set|xx|INVALID_CONFIG|Invalid value xx for configuration retention.ms: Not a number of type LONG
none|nope|Append|1|INVALID_CONFIG|Can't APPEND to key nope because its type is not LIST.
none|cleanup.policy|Append|bad|INVALID_CONFIG|Invalid value bad for configuration cleanup.policy: String must be one of: compact, delete
|retention.ms|Set|1|INVALID_REQUEST|Default topic resources are not allowed.
|nope|Set|1|INVALID_REQUEST|Default topic resources are not allowed.
|nope|Append|1|INVALID_CONFIG|Can't APPEND to key nope because its type is not LIST.
b@d|nope|Append|1|INVALID_CONFIG|Can't APPEND to key nope because its type is not LIST.
foo|nope|Set|1|INVALID_CONFIG|Unknown topic config name: nope
foo|retention.ms|Append|1|INVALID_CONFIG|Can't APPEND to key retention.ms because its type is not LIST.
foo|segment.ms|Set|-|INVALID_REQUEST|Null value not supported for : segment.ms
broker 1|node.id|Set|3|INVALID_REQUEST|Cannot update these configs dynamically: [node.id]
broker 1|log.retention.ms|Set|xx|INVALID_REQUEST|Invalid value xx for configuration log.retention.ms: Not a number of type LONG
broker 1|nope|Append|1|INVALID_CONFIG|Unknown config name: nope
broker|nope|Append|1|INVALID_CONFIG|Unknown config name: nope
broker|cleanup.policy|Append|bad|INVALID_CONFIG|Unknown config name: cleanup.policy
broker -1|log.retention.ms|Set|1|INVALID_REQUEST|Invalid negative broker ID.
broker|listeners|Set|PLAINTEXT://:1|INVALID_REQUEST|Cannot update these configs at default cluster level, broker id must be specified: [listeners]";

fn foo() -> ConfigResource {
    ConfigResource::Topic(Str::from("foo"))
}

#[test]
fn changes_of_settings_are_refused_as_by_kafka() {
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("foo", 1, 1)), Ok(1));
    for line in REFUSED_CHANGES.lines() {
        let fields: Vec<&str> = line.splitn(6, '|').collect();
        let resource = match fields[0].strip_prefix("broker ") {
            Some(id) => ConfigResource::Broker(Some(id.parse().expect("an id"))),
            None if fields[0] == "broker" => ConfigResource::Broker(None),
            None => ConfigResource::Topic(Str::from(fields[0])),
        };
        let kind = if fields[2] == "Set" {
            ConfigOpKind::Set
        } else {
            ConfigOpKind::Append
        };
        let op = (fields[1], kind, (fields[3] != "-").then_some(fields[3]));
        let (code, message) = cluster.alter(resource, &[op]).expect_err(line);
        assert_eq!((code.name(), &*message), (fields[4], fields[5]));
    }
    let twice = [
        ("segment.ms", ConfigOpKind::Set, Some("5")),
        ("segment.ms", ConfigOpKind::Set, Some("6")),
    ];
    let wanted = (
        ErrorCode::InvalidRequest,
        "Error due to duplicate config keys".to_owned(),
    );
    assert_eq!(cluster.alter(foo(), &twice), Err(wanted));
}

#[test]
fn lists_grow_and_shrink_and_settings_of_brokers_reach_topics() {
    use ConfigOpKind::{Append, Delete, Set, Subtract};
    let mut cluster = OneBroker::new();
    assert_eq!(cluster.create(topic("foo", 1, 1)), Ok(1));
    for (kind, value, wanted) in [
        (Append, "compact", Some("delete,compact")),
        (Append, "compact", Some("delete,compact")),
        (Subtract, "delete", Some("compact")),
        (Delete, "", None),
    ] {
        let ops = [("cleanup.policy", kind, Some(value))];
        assert_eq!(cluster.alter(foo(), &ops), Ok(()));
        let configs = &cluster.image.topic("foo").expect("foo").configs;
        assert_eq!(configs.get("cleanup.policy").map(Str::as_str), wanted);
    }
    assert_eq!(cluster.alter(foo(), &[("nope", Delete, None)]), Ok(()));
    let everywhere = || ConfigResource::Broker(None);
    assert_eq!(
        cluster.alter(everywhere(), &[("log.retention.ms", Set, Some("77"))]),
        Ok(())
    );
    let retention = cluster
        .image
        .topic("foo")
        .and_then(|topic| topic.config.retention_ms);
    assert_eq!(retention, Some(77));
    assert_eq!(
        cluster.alter(everywhere(), &[("some.custom", Set, Some("3"))]),
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
