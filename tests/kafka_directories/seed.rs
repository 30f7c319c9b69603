//! The data that is carried from one broker to the other and back: topics of every kind, settings, committed offsets, and
//! idempotent producers that continue.
//!
//! Speaks versions that Kafka 3.9 knows as well.

use std::time::{SystemTime, UNIX_EPOCH};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    IncrementalAlterConfigsRequest, ProduceResponse, incremental_alter_configs_request,
};
use chronik_protocol::record::{BatchBuilder, Compression, NewRecord};

use crate::picture::{coordinated, led};
use crate::support::batch::{BASE_TIMESTAMP_MS, TestBatch};
use crate::support::calls::{
    code, create_topic, delete_topic, only_partition, produce_request, text, try_init_producer,
};
use crate::support::client::Client;
use crate::support::consumer_groups::{accepted, beat, joining};
use crate::support::eventually;
use crate::support::groups::{commit, commit_as, leave, stable_group};

/// The newest Produce version of Kafka 3.9 without the transactions of later ones.
const PRODUCE: i16 = 9;

/// `ConfigResource.Type` of a broker.
const BROKER: i8 = 4;

/// An idempotent producer on one partition.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    topic: &'static str,
    id: i64,
    next_sequence: i32,
    next_offset: i64,
    now_ms: i64,
}

/// What was planted and has to be gone on with.
#[derive(Debug)]
pub(crate) struct Seed {
    producers: Vec<Producer>,
    /// Counts the topics made after the first planting.
    rounds: usize,
}

/// The groups that commit offsets.
pub(crate) const GROUPS: [&str; 3] = ["simple", "classic", "consumers"];

impl Seed {
    /// Fills an empty broker. Some of it is what only a broker with consumer groups of the new
    /// protocol can have.
    pub(crate) fn plant(client: &mut Client, has_consumer_groups: bool) -> Self {
        made(client, "plain", 3, &[]);
        for partition in 0..3 {
            for round in 0..5 {
                let records = batch(Compression::None, partition * 100 + round, 20);
                produce(client, "plain", partition, records);
            }
        }
        codecs(client);
        rolled(client);
        compacted(client);
        made(client, "gone", 2, &[]);
        produce(client, "gone", 0, batch(Compression::None, 0, 3));
        assert_eq!(
            delete_topic(client, "gone").expect("an answer"),
            ErrorCode::None
        );
        // The name again, under another id.
        made(client, "again", 1, &[]);
        assert_eq!(
            delete_topic(client, "again").expect("an answer"),
            ErrorCode::None
        );
        settings(client);
        groups(client, has_consumer_groups);
        let producers = ["plain", "compacted"].map(|topic| producer(client, topic));
        made(client, "again", 1, &[("max.message.bytes", "2000000")]);
        produce(client, "again", 0, batch(Compression::None, 9, 2));
        Self {
            producers: producers.into(),
            rounds: 0,
        }
    }

    /// What clients do after a move: producers repeat their last batch, are told apart when they
    /// leave one out, and go on; consumers commit further; topics come and go.
    pub(crate) fn go_on(&mut self, client: &mut Client) {
        self.rounds += 1;
        let round = i32::try_from(self.rounds).expect("few rounds");
        let ids: Vec<i64> = self.producers.iter().map(|producer| producer.id).collect();
        for producer in &mut self.producers {
            let last = (producer.next_sequence - 5, producer.next_offset - 5);
            let (error, offset) = producer.send(client, last.0);
            assert_eq!((error, offset), (ErrorCode::None, last.1), "{producer:?}");
            let (error, _) = producer.send(client, producer.next_sequence + 5);
            assert_eq!(error, ErrorCode::OutOfOrderSequenceNumber, "{producer:?}");
            producer.go_on(client);
        }
        let fresh = producer_id(client);
        assert!(
            ids.iter().all(|id| *id < fresh),
            "{fresh} was given out before: {ids:?}"
        );
        for (group, offset) in GROUPS.into_iter().zip([7, 8, 9]) {
            let taken = commit(client, group, "plain", 2, offset + i64::from(round));
            assert_eq!(taken, ErrorCode::None, "{group}");
        }
        let name = ["first", "second", "third", "fourth"][self.rounds - 1];
        made(client, name, 2, &[("retention.ms", "98765432100")]);
        produce(client, name, 1, batch(Compression::Lz4, round, 10));
        produce(client, "rolled", 0, batch(Compression::Zstd, round, 10));
    }
}

impl Producer {
    fn send(&self, client: &mut Client, sequence: i32) -> (ErrorCode, i64) {
        let key = self.topic;
        let values = (0..5).map(|at| format!("{key}-{}", sequence + at));
        let records: Vec<_> = values
            .map(|value| crate::support::batch::TestRecord {
                key: Some(value.clone().into_bytes()),
                ..crate::support::batch::TestRecord::of(value)
            })
            .collect();
        let mut records = TestBatch::of(&records).by_producer(self.id, 0, sequence);
        // At a start Kafka forgets producers whose records are older than a day.
        (records.base_timestamp, records.max_timestamp) = (self.now_ms, self.now_ms);
        let request = produce_request(self.topic, 0, -1, records.encode());
        let answer = only_partition(client.call(&request, PRODUCE));
        (code(answer.error_code), answer.base_offset)
    }

    fn go_on(&mut self, client: &mut Client) {
        let (error, offset) = self.send(client, self.next_sequence);
        assert_eq!(error, ErrorCode::None, "{self:?}");
        self.next_sequence += 5;
        self.next_offset = offset + 5;
    }
}

/// A producer id; a Kafka that has just started first has to ask its controller for some.
fn producer_id(client: &mut Client) -> i64 {
    eventually("a producer id", || {
        let response = try_init_producer(client).expect("an answer");
        match code(response.error_code) {
            ErrorCode::None => Some(response.producer_id),
            ErrorCode::CoordinatorLoadInProgress => None,
            error => panic!("no producer id: {error:?}"),
        }
    })
}

fn producer(client: &mut Client, topic: &'static str) -> Producer {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let mut producer = Producer {
        topic,
        id: producer_id(client),
        next_sequence: 0,
        next_offset: 0,
        now_ms: i64::try_from(now.as_millis()).expect("a clock of this age"),
    };
    (0..3).for_each(|_| producer.go_on(client));
    producer
}

/// Makes a topic and waits until it can be used: Kafka answers before.
fn made(client: &mut Client, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    create_topic(client, name, partitions, configs);
    for partition in 0..partitions {
        led(client, name, partition);
    }
}

fn produce(client: &mut Client, topic: &str, partition: i32, records: Vec<u8>) {
    let request = produce_request(topic, partition, -1, records);
    let response: ProduceResponse = client.call(&request, PRODUCE);
    let answer = only_partition(response);
    assert_eq!(
        code(answer.error_code),
        ErrorCode::None,
        "{topic}-{partition}"
    );
}

/// Records with everything a record can have and lack.
fn batch(codec: Compression, from: i32, count: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(0).compression(codec);
    for number in from..from + count {
        let (key, value) = (
            format!("key {number}"),
            format!("value {number} ").repeat(9),
        );
        let headers: [(&[u8], Option<&[u8]>); 3] = [
            (b"number", Some(key.as_bytes())),
            (b"empty", Some(b"")),
            (b"none", None),
        ];
        let record = NewRecord {
            // Neither ascending nor of today.
            timestamp: BASE_TIMESTAMP_MS + i64::from(number * 37 % 1000),
            key: (number % 5 != 1).then_some(key.as_bytes()),
            value: (number % 7 != 2).then_some(value.as_bytes()),
            headers: if number % 3 == 0 { &headers } else { &[] },
        };
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("a sound batch").bytes.to_vec()
}

fn codecs(client: &mut Client) {
    made(client, "codecs", 5, &[("compression.type", "producer")]);
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    for (partition, codec) in (0..).zip([None, Gzip, Snappy, Lz4, Zstd]) {
        for round in 0..4 {
            produce(client, "codecs", partition, batch(codec, round * 50, 50));
        }
    }
}

/// Several segments, whose first records were deleted.
fn rolled(client: &mut Client) {
    made(
        client,
        "rolled",
        1,
        &[("segment.bytes", "1048576"), ("retention.ms", "-1")],
    );
    for round in 0..40 {
        let values = (0..10).map(|at| vec![b'a' + (round + at) as u8 % 26; 9_000]);
        produce(client, "rolled", 0, TestBatch::of_values(values).encode());
    }
    let request = chronik_protocol::messages::DeleteRecordsRequest {
        topics: vec![
            chronik_protocol::messages::delete_records_request::DeleteRecordsTopic {
                name: text("rolled"),
                partitions: vec![
                    chronik_protocol::messages::delete_records_request::DeleteRecordsPartition {
                        partition_index: 0,
                        offset: 33,
                        ..Default::default()
                    },
                ],
                ..Default::default()
            },
        ],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let answer = client.call(&request, 2);
    assert_eq!(
        code(answer.topics[0].partitions[0].error_code),
        ErrorCode::None
    );
}

/// Keys that come again, and one that is gone.
fn compacted(client: &mut Client) {
    // Not so soon that what is compared depends on who came to it.
    let lag = ("min.compaction.lag.ms", "3000000000000");
    made(
        client,
        "compacted",
        1,
        &[("cleanup.policy", "compact"), lag],
    );
    for round in 0..5 {
        let mut builder = BatchBuilder::new(0);
        for key in 0..10 {
            let (name, value) = (format!("k{key}"), format!("{round}"));
            let record = NewRecord {
                timestamp: BASE_TIMESTAMP_MS + i64::from(round),
                key: Some(name.as_bytes()),
                value: (key != 3 || round < 4).then_some(value.as_bytes()),
                headers: &[],
            };
            builder.push(&record).expect("a small record");
        }
        let records = builder.build().expect("a sound batch").bytes.to_vec();
        produce(client, "compacted", 0, records);
    }
}

/// Settings of one broker and of all.
fn settings(client: &mut Client) {
    for (broker, name, value) in [
        ("", "log.segment.bytes", "536870912"),
        ("1", "message.max.bytes", "3000000"),
    ] {
        let request = IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: BROKER,
                resource_name: text(broker),
                configs: vec![incremental_alter_configs_request::AlterableConfig {
                    name: text(name),
                    config_operation: 0,
                    value: Some(text(value)),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = client.call(&request, 1);
        let said = &answer.responses[0];
        assert_eq!(
            code(said.error_code),
            ErrorCode::None,
            "{:?}",
            said.error_message
        );
    }
}

/// Offsets of a group without members, of a classic one and of one of the new protocol.
fn groups(client: &mut Client, has_consumer_groups: bool) {
    coordinated(client, "simple");
    for (partition, offset) in [(0, 5), (1, 17)] {
        let taken = commit(client, "simple", "plain", partition, offset);
        assert_eq!(taken, ErrorCode::None);
    }
    coordinated(client, "classic");
    let joined = stable_group(client, "classic");
    let member = (&*joined.member_id, joined.generation_id);
    assert_eq!(
        commit_as(client, member, "classic", "codecs", 44),
        ErrorCode::None
    );
    assert_eq!(leave(client, "classic", &joined.member_id), ErrorCode::None);
    coordinated(client, "consumers");
    if !has_consumer_groups {
        assert_eq!(
            commit(client, "consumers", "rolled", 0, 123),
            ErrorCode::None
        );
        return;
    }
    let joined = accepted(client, &joining("consumers", "member-one", &["rolled"]));
    let member = ("member-one", joined.member_epoch);
    assert_eq!(
        commit_as(client, member, "consumers", "rolled", 123),
        ErrorCode::None
    );
    accepted(client, &beat("consumers", "member-one", -1));
}
