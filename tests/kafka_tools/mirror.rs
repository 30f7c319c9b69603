//! MirrorMaker 2 from one broker to another: records, settings of topics, offsets of groups.
//!
//! Owns its settings and what must arrive. Never looks into MirrorMaker's own topics.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    DeleteRecordsRequest, DescribeConfigsRequest, delete_records_request, describe_configs_request,
};
use chronik_protocol::record::{CheckedBatch, Record, RecordLimits};

use crate::support::batch::{TestBatch, TestRecord};
use crate::support::calls::{code, create_topic, fetch, fetched_bytes, latest, produce_ok, text};
use crate::support::client::Client;
use crate::support::groups::{commit, committed, find_coordinator};
use crate::support::{Broker, BrokerOptions, Program, Scratch, eventually, skip};

/// Its name in the first cluster, and in the second.
const TOPIC: &str = "mirrored";
const COPY: &str = "source.mirrored";
const GROUP: &str = "readers";
/// Records deleted from the front of each partition before they are mirrored: offsets differ by as much.
const DELETED: i64 = 7;
const SETTINGS: [(&str, &str); 3] = [
    ("compression.type", "lz4"),
    ("max.message.bytes", "2000000"),
    ("retention.ms", "-1"),
];
const TOPIC_RESOURCE: i8 = 2;

/// A broker whose new groups do not wait for more members.
fn broker(scratch: &Scratch, name: &str) -> Broker {
    let options = BrokerOptions::new(scratch.join(name));
    options.set("group.initial.rebalance.delay.ms", 0).start()
}

/// Everything that MirrorMaker does at intervals each second, and every offset as exact as it can.
/// Offsets that its producer was too busy for wait until the worker commits: each minute unless told otherwise.
fn settings(scratch: &Scratch, source: &Broker, target: &Broker) -> PathBuf {
    let file = scratch.join("mirror.properties");
    let factors = [
        "",
        "checkpoints.topic.",
        "heartbeats.topic.",
        "offset-syncs.topic.",
        "config.storage.",
        "offset.storage.",
        "status.storage.",
    ];
    let factors = factors.map(|topic| format!("{topic}replication.factor = 1\n"));
    let intervals = [
        "refresh.topics",
        "refresh.groups",
        "sync.topic.configs",
        "emit.checkpoints",
        "sync.group.offsets",
    ];
    let intervals = intervals.map(|what| format!("{what}.interval.seconds = 1\n"));
    let text = format!(
        "clusters = source, target\n\
         source.bootstrap.servers = {}\n\
         target.bootstrap.servers = {}\n\
         source->target.enabled = true\n\
         source->target.topics = {TOPIC}\n\
         source->target.groups = {GROUP}\n\
         target->source.enabled = false\n\
         target->source.emit.heartbeats.enabled = false\n\
         sync.group.offsets.enabled = true\n\
         offset.lag.max = 0\n\
         target.offset.flush.interval.ms = 1000\n\
         offset.storage.partitions = 1\n\
         status.storage.partitions = 1\n\
         {}{}",
        source.bootstrap(),
        target.bootstrap(),
        factors.concat(),
        intervals.concat(),
    );
    fs::write(&file, text).expect("a small file");
    file
}

/// Appends records that use all that a record can hold.
fn append(client: &mut Client, partition: i32, numbers: std::ops::Range<u32>) {
    let records: Vec<TestRecord> = numbers
        .map(|number| TestRecord {
            key: (number % 5 != 0).then(|| format!("key {number}").into()),
            value: (number % 7 != 0).then(|| format!("value {number}").into()),
            headers: vec![
                (b"number".to_vec(), Some(number.to_string().into())),
                (b"number".to_vec(), Some(b"again".to_vec())),
                (b"null".to_vec(), None),
                (b"".to_vec(), Some(Vec::new())),
            ],
            timestamp_delta: i64::from(number),
        })
        .collect();
    produce_ok(client, TOPIC, partition, TestBatch::of(&records).encode());
}

fn delete_front(client: &mut Client, partition: i32) {
    let request = DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: text(TOPIC),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index: partition,
                offset: DELETED,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let answer = &client.call(&request, 2).topics[0].partitions[0];
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

/// Every record of a partition, its first offset being counted as `first`.
fn records(
    client: &mut Client,
    topic: &str,
    partition: i32,
    mut at: i64,
    first: i64,
) -> Vec<Record> {
    let (start, mut found) = (at, Vec::new());
    while at < latest(client, topic, partition) {
        let data = fetch(client, topic, partition, at);
        assert_eq!(code(data.error_code), ErrorCode::None, "{topic} at {at}");
        let mut rest = Bytes::from(fetched_bytes(&data));
        while !rest.is_empty() {
            let (batch, after) = CheckedBatch::parse_first(rest).expect("a batch");
            rest = after;
            at = batch.header.next_offset();
            let records = batch.records(&RecordLimits::default()).expect("records");
            found.extend(records.map(|record| record.expect("a record")));
        }
    }
    found.retain(|record| record.offset >= start);
    for record in &mut found {
        record.offset += first - start;
    }
    found
}

/// Waits until the second broker has what the first has, records and committed offsets.
fn wait_until_equal(source: &Broker, target: &Broker, moment: &str) {
    let mut from = Client::connect(source.address());
    let mut to = Client::connect(target.address());
    for partition in 0..2 {
        let name = format!("{TOPIC}-{partition} {moment}");
        let end = latest(&mut from, TOPIC, partition) - DELETED;
        eventually(&name, || {
            let there = fetch(&mut to, COPY, partition, 0).high_watermark;
            assert!(there <= end, "{name}: {there} of {end} records");
            (there == end).then_some(())
        });
        let expected = records(&mut from, TOPIC, partition, DELETED, 0);
        assert_eq!(records(&mut to, COPY, partition, 0, 0), expected, "{name}");
        commit_end(&mut from, partition);
        eventually(&format!("the offset of {name}"), || {
            let there = committed(&mut to, GROUP, COPY, partition);
            assert!(there <= end, "{name}: {there} is committed of {end}");
            (there == end).then_some(())
        });
    }
}

/// The group has read all of a partition.
fn commit_end(client: &mut Client, partition: i32) {
    let end = latest(client, TOPIC, partition);
    let error = commit(client, GROUP, TOPIC, partition, end);
    assert_eq!(error, ErrorCode::None);
}

/// Waits until the copy of the topic has these settings and no more of its own.
fn wait_until_set(target: &Broker) {
    let mut client = Client::connect(target.address());
    eventually("settings of the topic", || {
        let request = DescribeConfigsRequest {
            resources: vec![describe_configs_request::DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: text(COPY),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = client.call(&request, 4).results.remove(0);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let has = |(name, value): &(&str, &str)| {
            let mut configs = answer.configs.iter();
            let config = configs.find(|config| *config.name == **name);
            config.is_some_and(|config| config.value.as_deref() == Some(*value))
        };
        SETTINGS.iter().all(has).then_some(())
    });
}

#[test]
fn mirror_maker_carries_a_topic_and_a_group_and_outlives_a_kill() {
    let installed = Program::kafka_tool("connect-mirror-maker").args(["installed"]);
    if installed.run().is_none() {
        return;
    }
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("MirrorMaker 2 needs two brokers started for the test");
        return;
    }
    let scratch = Scratch::new();
    let (source, target) = (broker(&scratch, "source"), broker(&scratch, "target"));
    let mut client = Client::connect(source.address());
    create_topic(&mut client, TOPIC, 2, &SETTINGS);
    for partition in 0..2 {
        append(&mut client, partition, 0..100);
        delete_front(&mut client, partition);
    }
    find_coordinator(&mut client, GROUP);

    let file = settings(&scratch, &source, &target);
    let program = Program::kafka_tool("connect-mirror-maker").args([file]);
    let mut mirror = program.start();
    find_coordinator(&mut Client::connect(target.address()), GROUP);
    wait_until_equal(&source, &target, "after the start");
    wait_until_set(&target);
    let printed = mirror.printed();
    assert!(!printed.contains("UnsupportedVersion"), "{printed}");

    let again = source.options().clone().port(source.port());
    source.kill();
    let source = again.start();
    let mut client = Client::connect(source.address());
    append(&mut client, 0, 100..150);
    append(&mut client, 1, 100..101);
    wait_until_equal(&source, &target, "after the kill");

    let (status, printed) = mirror.stop();
    // The Java machine's exit code for an orderly end by SIGTERM.
    assert_eq!(status.code(), Some(143), "{printed}");
    source.stop();
    target.stop();
}
