//! Fetch without a session: limits, waiting, waking, names and ids.

use std::thread;
use std::time::Duration;

use chronik_protocol::messages::{FetchRequest, MetadataRequest, fetch_response::PartitionData};
use chronik_protocol::{ErrorCode, Str, Uuid};

use crate::subject::Subject;
use crate::support::batch::{ReadBatch, TestBatch, TestRecord};
use crate::support::calls::{
    FETCH_BY_NAME, code, fetch, fetch_partition, fetch_request, fetched_bytes, produce_ok,
    read_batches, read_values, text,
};
use crate::support::client::Client;

fn metadata_id(client: &mut Client, topic: &str) -> Uuid {
    let request = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let response = client.call(&request, 12);
    let found = response
        .topics
        .iter()
        .find(|found| found.name.as_deref() == Some(topic));
    found.expect("the topic").topic_id
}

fn only(mut response: <FetchRequest as chronik_protocol::Request>::Response) -> PartitionData {
    response.responses.remove(0).partitions.remove(0)
}

#[test]
fn records_come_back_as_they_were_sent() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let records = [
        TestRecord::of("plain"),
        TestRecord {
            value: None,
            key: Some(b"tombstone".to_vec()),
            ..Default::default()
        },
        TestRecord {
            key: Some(Vec::new()),
            ..TestRecord::of(Vec::new())
        },
        TestRecord {
            headers: vec![
                (b"twice".to_vec(), Some(b"1".to_vec())),
                (b"twice".to_vec(), None),
                (vec![0xff, 0xfe], Some(Vec::new())),
            ],
            timestamp_delta: 5,
            ..TestRecord::of("with headers")
        },
    ];
    let sent = TestBatch::of(&records);
    assert_eq!(
        produce_ok(
            &mut client,
            &topic,
            0,
            TestBatch::of_values(["first"]).encode()
        ),
        0
    );
    assert_eq!(produce_ok(&mut client, &topic, 0, sent.encode()), 1);
    let batches = read_batches(&mut client, &topic, 0, 1);
    assert_eq!(batches.len(), 1);
    let ReadBatch {
        base_offset,
        payload,
        max_timestamp,
        record_count,
        ..
    } = &batches[0];
    assert_eq!(
        (*base_offset, *record_count, *max_timestamp),
        (1, 4, sent.max_timestamp)
    );
    assert_eq!(*payload, sent.payload);
    // From the middle of a batch the whole batch is sent; the client skips.
    assert_eq!(read_batches(&mut client, &topic, 0, 3), batches);
}

#[test]
fn offsets_outside_the_log_are_refused() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    produce_ok(
        &mut client,
        &topic,
        0,
        TestBatch::of_values(["a", "b"]).encode(),
    );
    for offset in [3, i64::MAX, -1, -2, i64::MIN] {
        let answer = fetch(&mut client, &topic, 0, offset);
        assert_eq!(
            code(answer.error_code),
            ErrorCode::OffsetOutOfRange,
            "{offset}"
        );
    }
    let at_end = fetch(&mut client, &topic, 0, 2);
    assert_eq!(
        (code(at_end.error_code), at_end.high_watermark),
        (ErrorCode::None, 2)
    );
    assert_eq!(fetched_bytes(&at_end), b"");
    let elsewhere = fetch(&mut client, &topic, 1, 0);
    assert_eq!(
        code(elsewhere.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let nowhere = fetch(&mut client, "no-such-topic", 0, 0);
    assert_eq!(code(nowhere.error_code), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn leader_epochs_are_checked() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    produce_ok(&mut client, &topic, 0, TestBatch::of_values(["a"]).encode());
    for (epoch, expected) in [
        (-1, ErrorCode::None),
        (0, ErrorCode::None),
        (1, ErrorCode::UnknownLeaderEpoch),
        (i32::MAX, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut request = fetch_request(&topic, 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = only(client.call(&request, FETCH_BY_NAME));
        assert_eq!(code(answer.error_code), expected, "epoch {epoch}");
    }
    // A log that is ahead of ours in epoch 0 diverges where ours ends.
    let mut request = fetch_request(&topic, 0, 1);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let answer = only(client.call(&request, FETCH_BY_NAME));
    assert_eq!(
        (code(answer.error_code), answer.diverging_epoch.end_offset),
        (ErrorCode::None, -1)
    );
}

#[test]
fn limits_hold_but_the_first_batch_always_comes() {
    let subject = Subject::start();
    let topic = subject.topic(2);
    let mut client = subject.connect();
    let batch = TestBatch::of_values([vec![b'x'; 10_000]]).encode();
    for partition in [0, 1] {
        for _ in 0..10 {
            produce_ok(&mut client, &topic, partition, batch.clone());
        }
    }
    let bytes = |client: &mut Client, max_bytes: i32, partition_max_bytes: i32| {
        let mut request = fetch_request(&topic, 0, 0);
        request.max_bytes = max_bytes;
        request.topics[0].partitions.push(fetch_partition(1, 0));
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max_bytes;
        }
        let response = client.call(&request, FETCH_BY_NAME);
        let partitions = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions);
        let mut lengths: Vec<_> = partitions
            .map(|partition| (partition.partition_index, fetched_bytes(partition).len()))
            .collect();
        lengths.sort_unstable();
        lengths
            .into_iter()
            .map(|(_, length)| length)
            .collect::<Vec<_>>()
    };
    let one = batch.len();
    assert_eq!(
        bytes(&mut client, 1, 1),
        [one, 0],
        "one batch against all limits"
    );
    assert_eq!(bytes(&mut client, 0, 0).iter().sum::<usize>(), one);
    let limited = bytes(&mut client, 1 << 20, 25_000);
    assert!(
        limited
            .iter()
            .all(|length| (2 * one..=25_000).contains(length)),
        "{limited:?}"
    );
    let limited = bytes(&mut client, 45_000, 1 << 20);
    let all: usize = limited.iter().sum();
    // A batch may be cut at the limit: Kafka does, and readers expect it.
    assert!((4 * one..=45_000).contains(&all), "{limited:?}");
    assert_eq!(bytes(&mut client, i32::MAX, i32::MAX), [10 * one, 10 * one]);
}

#[test]
fn a_fetch_that_waits_wakes_when_records_come() {
    let subject = Subject::start();
    let topic = subject.topic(2);
    let mut waiting: Vec<Client> = (0..3).map(|_| subject.connect()).collect();
    let mut request = fetch_request(&topic, 0, 0);
    // Far longer than the test's patience: only a wake can answer.
    request.max_wait_ms = i32::MAX;
    request.topics[0].partitions.push(fetch_partition(1, 0));
    let sent: Vec<i32> = waiting
        .iter_mut()
        .map(|client| client.send(&request, FETCH_BY_NAME))
        .collect();
    let mut writer = subject.connect();
    produce_ok(
        &mut writer,
        &topic,
        1,
        TestBatch::of_values(["wake up"]).encode(),
    );
    for (client, sent) in waiting.iter_mut().zip(sent) {
        let response = client.receive::<FetchRequest>(sent, FETCH_BY_NAME);
        let mut partitions = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions);
        let woken = partitions
            .find(|partition| partition.partition_index == 1)
            .expect("asked");
        assert_eq!(
            ReadBatch::all(&fetched_bytes(woken))[0].values(),
            [(0, b"wake up".to_vec())]
        );
    }
}

#[test]
fn a_fetch_waits_for_min_bytes_over_all_partitions() {
    let subject = Subject::start();
    let topic = subject.topic(4);
    let batch = TestBatch::of_values([vec![b'x'; 1_000]]).encode();
    let mut request = fetch_request(&topic, 0, 0);
    request.max_wait_ms = i32::MAX;
    request.min_bytes = i32::try_from(6 * batch.len()).expect("a small number");
    request.topics[0]
        .partitions
        .extend((1..4).map(|partition| fetch_partition(partition, 0)));
    let mut waiting = subject.connect();
    let sent = waiting.send(&request, FETCH_BY_NAME);
    let mut writer = subject.connect();
    for number in 0..6 {
        produce_ok(&mut writer, &topic, number % 4, batch.clone());
    }
    let response = waiting.receive::<FetchRequest>(sent, FETCH_BY_NAME);
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let total: usize = partitions
        .map(|partition| fetched_bytes(partition).len())
        .sum();
    assert_eq!(total, 6 * batch.len(), "neither earlier nor later");
}

#[test]
fn a_fetch_waits_no_longer_than_max_wait() {
    let subject = Subject::start();
    let topic = subject.topic(2);
    let mut client = subject.connect();
    let mut request = fetch_request(&topic, 0, 0);
    request.max_wait_ms = 50;
    let answer = only(client.call(&request, FETCH_BY_NAME));
    assert_eq!(
        (code(answer.error_code), answer.high_watermark),
        (ErrorCode::None, 0)
    );
    produce_ok(
        &mut client,
        &topic,
        0,
        TestBatch::of_values(["too little"]).encode(),
    );
    request.min_bytes = 1_000_000;
    let answer = only(client.call(&request, FETCH_BY_NAME));
    assert_eq!(
        ReadBatch::all(&fetched_bytes(&answer)).len(),
        1,
        "what there is, when time is up"
    );
    // An error is not waited with.
    request.max_wait_ms = i32::MAX;
    request.topics[0].partitions.push(fetch_partition(1, 99));
    let response = client.call(&request, FETCH_BY_NAME);
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let errors = partitions
        .filter(|partition| partition.error_code != 0)
        .count();
    assert_eq!(errors, 1);
}

#[test]
fn a_waiting_fetch_holds_up_only_its_own_connection() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut gone = subject.connect();
    let mut request = fetch_request(&topic, 0, 0);
    request.max_wait_ms = i32::MAX;
    gone.send(&request, FETCH_BY_NAME);
    drop(gone);
    let mut waiting = subject.connect();
    let sent = waiting.send(&request, FETCH_BY_NAME);
    let queued = waiting.send(&fetch_request(&topic, 0, 0), FETCH_BY_NAME);
    let mut writer = subject.connect();
    produce_ok(&mut writer, &topic, 0, TestBatch::of_values(["a"]).encode());
    for sent in [sent, queued] {
        let answer = only(waiting.receive::<FetchRequest>(sent, FETCH_BY_NAME));
        assert_eq!(answer.high_watermark, 1);
    }
}

#[test]
fn a_deleted_topic_wakes_its_waiting_fetch() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut waiting = subject.connect();
    let mut request = fetch_request(&topic, 0, 0);
    request.max_wait_ms = 20_000;
    let sent = waiting.send(&request, FETCH_BY_NAME);
    // One more reply on the way, so that the fetch is likely to be parked by now.
    let deleted = crate::support::calls::delete_topic(&mut subject.connect(), &topic);
    assert_eq!(deleted.expect("an answer"), ErrorCode::None);
    let answer = only(waiting.receive::<FetchRequest>(sent, FETCH_BY_NAME));
    assert!(
        matches!(
            code(answer.error_code),
            ErrorCode::UnknownTopicOrPartition | ErrorCode::NotLeaderOrFollower
        ),
        "{answer:?}"
    );
}

#[test]
fn topics_go_by_id_from_version_13_on() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    produce_ok(
        &mut client,
        &topic,
        0,
        TestBatch::of_values(["by id"]).encode(),
    );
    let topic_id = metadata_id(&mut client, &topic);
    let mut request = fetch_request(&topic, 0, 0);
    request.topics[0].topic = Str::default();
    request.topics[0].topic_id = topic_id;
    for version in [13, 17] {
        let response = client.call(&request, version);
        assert_eq!(response.responses[0].topic_id, topic_id);
        assert_eq!(ReadBatch::all(&fetched_bytes(&only(response))).len(), 1);
    }
    request.topics[0].topic_id = Uuid(0xdead_beef);
    let response = client.call(&request, 13);
    assert_eq!(response.responses[0].topic_id, Uuid(0xdead_beef));
    assert_eq!(code(only(response).error_code), ErrorCode::UnknownTopicId);
    // A topic made again has another id; the old one leads nowhere.
    let mut admin = subject.connect();
    let deleted = crate::support::calls::delete_topic(&mut admin, &topic).expect("an answer");
    assert_eq!(deleted, ErrorCode::None);
    let again = crate::support::calls::create_topic(&mut admin, &topic, 1, &[]);
    assert_ne!(again, topic_id);
    request.topics[0].topic_id = topic_id;
    assert_eq!(
        code(only(client.call(&request, 13)).error_code),
        ErrorCode::UnknownTopicId
    );
    assert_eq!(read_values(&mut client, &topic, 0, 0), []);
}

#[test]
fn many_readers_of_many_partitions_see_the_same() {
    let subject = Subject::start();
    let topic = subject.topic(6);
    let written: Vec<Vec<u8>> = (0..200)
        .map(|n| format!("value {n}").into_bytes())
        .collect();
    thread::scope(|scope| {
        for partition in 0..6 {
            let (subject, topic, written) = (&subject, &topic, &written);
            scope.spawn(move || {
                let mut client = subject.connect();
                for value in written {
                    let batch = TestBatch::of_values([value.clone()]).encode();
                    produce_ok(&mut client, topic, partition, batch);
                }
            });
            scope.spawn(move || follow(&mut subject.connect(), topic, partition, written));
        }
    });
}

/// Reads a partition with waiting fetches while it is written.
fn follow(client: &mut Client, topic: &str, partition: i32, expected: &[Vec<u8>]) {
    let timeout = Some(Duration::from_secs(30));
    client
        .stream()
        .set_read_timeout(timeout)
        .expect("a socket takes a timeout");
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let mut request = fetch_request(topic, partition, seen.len() as i64);
        request.topics[0].topic = text(topic);
        request.max_wait_ms = 20_000;
        let answer = only(client.call(&request, FETCH_BY_NAME));
        for batch in ReadBatch::all(&fetched_bytes(&answer)) {
            for (offset, value) in batch.values() {
                assert_eq!(offset, seen.len() as i64);
                seen.push(value);
            }
        }
    }
    assert_eq!(seen, expected);
}
