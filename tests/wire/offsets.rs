//! Begin and end of a log, by time and by epoch: ListOffsets, OffsetForLeaderEpoch, DeleteRecords, and their state after
//! a restart.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, delete_records_request,
    delete_records_response::DeleteRecordsPartitionResult, list_offsets_request,
    offset_for_leader_epoch_request, offset_for_leader_epoch_response::EpochEndOffset,
};

use crate::subject::Subject;
use crate::support::batch::{BASE_TIMESTAMP_MS, TestBatch, TestRecord};
use crate::support::calls::{
    EARLIEST, FETCH_BY_NAME, LATEST, MAX_TIMESTAMP, code, create_topic, fetch, fetch_request,
    latest, list_offset, produce_ok, read_values, text,
};
use crate::support::client::Client;
use crate::support::{BrokerOptions, Scratch, skip};

/// The partition leaders' own offsets (KIP-405 and later).
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// A batch whose records were made so many ms after the base timestamp.
fn timed(deltas: &[i64]) -> Vec<u8> {
    let record = |delta: &i64| TestRecord {
        timestamp_delta: *delta,
        ..TestRecord::of("t")
    };
    TestBatch::of(&deltas.iter().map(record).collect::<Vec<_>>()).encode()
}

fn epoch_end(client: &mut Client, topic: &str, current: i32, asked: i32) -> EpochEndOffset {
    let request = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
            topic: text(topic),
            partitions: vec![offset_for_leader_epoch_request::OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch: current,
                leader_epoch: asked,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    client
        .call(&request, 4)
        .topics
        .remove(0)
        .partitions
        .remove(0)
}

/// A reader that was told the leader's epoch may say so before anything was appended in it.
fn check_fetch(client: &mut Client, topic: &str, offset: i64, epoch: i32) {
    let mut request = fetch_request(topic, 0, offset);
    let partition = &mut request.topics[0].partitions[0];
    (partition.current_leader_epoch, partition.last_fetched_epoch) = (epoch, epoch);
    let answer = &client.call(&request, FETCH_BY_NAME).responses[0].partitions[0];
    assert_eq!(code(answer.error_code), ErrorCode::None, "epoch {epoch}");
    assert_eq!(answer.diverging_epoch.end_offset, -1, "epoch {epoch}");
}

fn delete_records(
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> DeleteRecordsPartitionResult {
    let request = DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: text(topic),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index: partition,
                offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client
        .call(&request, 2)
        .topics
        .remove(0)
        .partitions
        .remove(0)
}

#[test]
fn offsets_are_found_by_time() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let mut ask = |timestamp| {
        let answer = list_offset(&mut client, &topic, 0, timestamp);
        (code(answer.error_code), answer.offset, answer.timestamp)
    };
    let none = ErrorCode::None;
    assert_eq!(ask(EARLIEST), (none, 0, -1));
    assert_eq!(ask(LATEST), (none, 0, -1));
    assert_eq!(ask(MAX_TIMESTAMP), (none, -1, -1), "an empty log has none");
    assert_eq!(ask(0), (none, -1, -1));

    let mut writer = subject.connect();
    produce_ok(&mut writer, &topic, 0, timed(&[0, 100, 200]));
    produce_ok(&mut writer, &topic, 0, timed(&[900, 300, 800]));
    produce_ok(&mut writer, &topic, 0, timed(&[400]));
    let base = BASE_TIMESTAMP_MS;
    for (timestamp, offset, found) in [
        (0, 0, base),
        (base, 0, base),
        (base + 1, 1, base + 100),
        (base + 100, 1, base + 100),
        (base + 201, 3, base + 900),
        (base + 850, 3, base + 900),
        (base + 900, 3, base + 900),
        (base + 901, -1, -1),
        (i64::MAX, -1, -1),
        (EARLIEST, 0, -1),
        (LATEST, 7, -1),
        (MAX_TIMESTAMP, 3, base + 900),
        (EARLIEST_LOCAL, 0, -1),
        (LATEST_TIERED, -1, -1),
    ] {
        assert_eq!(ask(timestamp), (none, offset, found), "{timestamp}");
    }
}

#[test]
fn special_offsets_come_with_their_versions() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    produce_ok(&mut client, &topic, 0, timed(&[0]));
    let mut ask = |timestamp, version| {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: text(&topic),
                partitions: vec![list_offsets_request::ListOffsetsPartition {
                    timestamp,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        code(client.call(&request, version).topics[0].partitions[0].error_code)
    };
    let unsupported = ErrorCode::UnsupportedVersion;
    for (timestamp, since) in [
        (MAX_TIMESTAMP, 7),
        (EARLIEST_LOCAL, 8),
        (LATEST_TIERED, 9),
        (EARLIEST_PENDING_UPLOAD, 11),
    ] {
        assert_eq!(
            ask(timestamp, since - 1),
            unsupported,
            "{timestamp} v{}",
            since - 1
        );
        assert_eq!(
            ask(timestamp, since),
            ErrorCode::None,
            "{timestamp} v{since}"
        );
    }
    assert_eq!(ask(-7, 11), unsupported, "no such special offset");
}

#[test]
fn list_offsets_checks_place_and_epoch() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    for (name, partition) in [("no-such-topic", 0), (&*topic, 5), (&*topic, -1)] {
        let answer = list_offset(&mut client, name, partition, LATEST);
        assert_eq!(
            code(answer.error_code),
            ErrorCode::UnknownTopicOrPartition,
            "{name} {partition}"
        );
        assert_eq!(answer.offset, -1);
    }
    let ahead = epoch_end(&mut client, &topic, 5, 0);
    assert_eq!(code(ahead.error_code), ErrorCode::UnknownLeaderEpoch);
    let unknown = epoch_end(&mut client, "no-such-topic", -1, 0);
    assert_eq!(code(unknown.error_code), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn deleted_records_are_gone_and_the_rest_stays() {
    let subject = Subject::start();
    let topic = subject.topic(2);
    let mut client = subject.connect();
    for _ in 0..5 {
        produce_ok(
            &mut client,
            &topic,
            0,
            TestBatch::of_values(["a", "b"]).encode(),
        );
    }
    let mut ask = |partition, offset| {
        let answer = delete_records(&mut client, &topic, partition, offset);
        (code(answer.error_code), answer.low_watermark)
    };
    let none = ErrorCode::None;
    assert_eq!(ask(0, 3), (none, 3));
    assert_eq!(ask(0, 3), (none, 3), "twice is once");
    assert_eq!(ask(0, 1), (none, 3), "what is gone stays gone");
    assert_eq!(
        ask(0, 11),
        (ErrorCode::OffsetOutOfRange, -1),
        "beyond the end"
    );
    assert_eq!(ask(0, -2), (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(ask(7, 0), (ErrorCode::UnknownTopicOrPartition, -1));
    assert_eq!(ask(1, 0), (none, 0), "an empty log has nothing to lose");

    assert_eq!(list_offset(&mut client, &topic, 0, EARLIEST).offset, 3);
    let gone = fetch(&mut client, &topic, 0, 2);
    assert_eq!(code(gone.error_code), ErrorCode::OffsetOutOfRange);
    let kept: Vec<i64> = read_values(&mut client, &topic, 0, 3)
        .into_iter()
        .map(|(at, _)| at)
        .collect();
    assert_eq!(kept, [3, 4, 5, 6, 7, 8, 9]);

    let all = delete_records(&mut client, &topic, 0, -1);
    assert_eq!(
        (code(all.error_code), all.low_watermark),
        (none, 10),
        "−1 is the high watermark"
    );
    assert_eq!(list_offset(&mut client, &topic, 0, EARLIEST).offset, 10);
    assert_eq!(latest(&mut client, &topic, 0), 10);
    assert_eq!(produce_ok(&mut client, &topic, 0, timed(&[0])), 10);
}

#[test]
fn offsets_epochs_and_deletions_survive_restarts() {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("another broker cannot be restarted from here");
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    let topic_id = create_topic(&mut client, "kept", 1, &[]);
    let mut ends = Vec::new();
    for round in 0..4_i64 {
        let leader_epoch = list_offset(&mut client, "kept", 0, LATEST).leader_epoch;
        check_fetch(&mut client, "kept", 3 * round, leader_epoch);
        let offset = produce_ok(&mut client, "kept", 0, timed(&[0, 1, 2]));
        assert_eq!(offset, 3 * round);
        let batch_epoch = crate::support::calls::read_batches(&mut client, "kept", 0, offset);
        assert_eq!(batch_epoch[0].leader_epoch, leader_epoch);
        ends.push((batch_epoch[0].leader_epoch, offset + 3));
        if round == 2 {
            assert_eq!(delete_records(&mut client, "kept", 0, 4).low_watermark, 4);
        }
        // Every second time without a warning.
        if round % 2 == 0 {
            broker.stop()
        } else {
            broker.kill()
        }
        broker = options.start();
        client = Client::connect(broker.address());
    }
    assert!(
        ends.is_sorted_by(|a, b| a.0 < b.0),
        "each start has its own leader epoch: {ends:?}"
    );
    for &(epoch, end) in &ends[1..] {
        let answer = epoch_end(&mut client, "kept", -1, epoch);
        assert_eq!(
            (code(answer.error_code), answer.end_offset),
            (ErrorCode::None, end),
            "{epoch}"
        );
        assert_eq!(answer.leader_epoch, epoch);
    }
    let (newest, end) = ends[ends.len() - 1];
    let now = list_offset(&mut client, "kept", 0, LATEST);
    assert_eq!(now.offset, end);
    check_fetch(&mut client, "kept", end - 1, now.leader_epoch);
    let fenced = epoch_end(&mut client, "kept", newest, newest);
    assert_eq!(
        code(fenced.error_code),
        ErrorCode::FencedLeaderEpoch,
        "this start has a newer one"
    );
    let future = epoch_end(&mut client, "kept", -1, i32::MAX);
    assert_eq!((future.end_offset, future.leader_epoch), (-1, -1));
    assert_eq!(list_offset(&mut client, "kept", 0, EARLIEST).offset, 4);
    let request = chronik_protocol::messages::MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let metadata = client.call(&request, 12);
    assert_eq!(
        metadata.topics[0].topic_id, topic_id,
        "the topic is the same one"
    );
    broker.stop();
}
