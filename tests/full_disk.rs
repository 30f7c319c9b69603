//! A full disk: produce is refused with an error, reading and deleting go on, every acknowledged record stays, writing
//! resumes when there is space, and a start names the shortage.
//!
//! The disk is a small ext4 image, mounted for this test's processes only. That needs root and loop devices; without them
//! the test is reported as skipped.

mod support;

use std::path::Path;
use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    DeleteRecordsRequest, FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest,
    delete_records_request, offset_commit_request, offset_fetch_request,
};

use support::batch::TestBatch;
use support::calls::{
    code, creatable, create_topic, create_topics, delete_topic, latest, produce, produce_ok,
    read_values, text,
};
use support::client::Client;
use support::disk::{DISK_BYTES, Disk};
use support::{Broker, BrokerOptions, Scratch};

/// Bytes of the records that fill the disk, each.
const VALUE_BYTES: usize = 200_000;
/// Produce requests after which a full disk must have been noticed: the records of the image twice.
const ATTEMPTS_MAX: usize = 2 * (DISK_BYTES as usize) / VALUE_BYTES;

/// How often a client tries again, a tenth of a second apart, before the test gives up.
const ATTEMPTS_OF_A_CLIENT: usize = 300;

/// A broker whose data are on this disk.
fn options(disk: &Disk) -> BrokerOptions {
    BrokerOptions::new(disk.mounted().join("data"))
        .under(disk.wrapper())
        .set("log.segment.bytes", 8 << 20)
        .set("log.segment.delete.delay.ms", 0)
}

/// Writes until the broker refuses; returns how many were acknowledged, and the refusal.
fn write_until_refused(client: &mut Client, topic: &str) -> (usize, ErrorCode) {
    let batch = TestBatch::of_values([vec![b'x'; VALUE_BYTES]]).encode();
    for written in 0..ATTEMPTS_MAX {
        match code(produce(client, topic, 0, batch.clone()).error_code) {
            ErrorCode::None => {}
            error => return (written, error),
        }
    }
    panic!("{ATTEMPTS_MAX} records went onto a full disk");
}

/// Tries until the broker accepts, as producers do: the space is noticed a moment later.
fn write_until_accepted(broker: &mut Broker, client: &mut Client, topic: &str) -> i64 {
    for _ in 0..ATTEMPTS_OF_A_CLIENT {
        let answer = produce(
            client,
            topic,
            0,
            TestBatch::of_values(["space again"]).encode(),
        );
        match code(answer.error_code) {
            ErrorCode::None => return answer.base_offset,
            ErrorCode::KafkaStorageError => {}
            error => panic!("{error:?} {:?}", answer.error_message),
        }
        assert!(
            broker.wait_for_exit(Duration::from_millis(100)).is_none(),
            "it ended"
        );
    }
    panic!("there is space, and the broker does not write");
}

fn move_start(client: &mut Client, topic: &str, offset: i64) -> (ErrorCode, i64) {
    let request = DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: text(topic),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let answer = &client.call(&request, 2).topics[0].partitions[0];
    (code(answer.error_code), answer.low_watermark)
}

/// Deletes the records below `offset`, as soon as there is a block to note the new start of the log
/// in: a deletion is answered when it will outlive a crash.
fn delete_records(broker: &mut Broker, client: &mut Client, topic: &str, offset: i64) -> i64 {
    for _ in 0..ATTEMPTS_OF_A_CLIENT {
        let (error, low_watermark) = move_start(client, topic, offset);
        match error {
            ErrorCode::None => return low_watermark,
            // It has moved for readers, and there is no block yet to say so in.
            ErrorCode::RequestTimedOut => {}
            error => panic!("{error:?}"),
        }
        let ended = broker.wait_for_exit(Duration::from_millis(100));
        assert!(ended.is_none(), "it ended");
    }
    panic!("there is space, and records cannot be deleted");
}

#[test]
fn a_full_disk_stops_writing_and_nothing_else() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::or_skip(&scratch) else {
        return;
    };
    survive(&disk);
}

fn survive(disk: &Disk) {
    let options = options(disk);
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    for topic in ["written", "quiet", "victim"] {
        create_topic(&mut client, topic, 1, &[]);
        produce_ok(
            &mut client,
            topic,
            0,
            TestBatch::of_values([topic]).encode(),
        );
    }
    let large = TestBatch::of_values([vec![b'v'; VALUE_BYTES]]).encode();
    for _ in 0..50 {
        produce_ok(&mut client, "victim", 0, large.clone());
    }

    disk.fill();
    let (written, error) = write_until_refused(&mut client, "written");
    assert_eq!(error, ErrorCode::KafkaStorageError);
    let all = holds(&mut client, "written", 1 + written);
    assert_eq!(
        read_values(&mut client, "quiet", 0, 0),
        [(0, b"quiet".to_vec())]
    );
    assert_eq!(
        delete_topic(&mut client, "victim").expect("an answer"),
        ErrorCode::None
    );
    assert_eq!(delete_records(&mut broker, &mut client, "quiet", 1), 1);
    assert!(
        broker.wait_for_exit(Duration::ZERO).is_none(),
        "it still runs"
    );

    disk.free();
    let offset = write_until_accepted(&mut broker, &mut client, "written");
    assert_eq!(
        offset as usize,
        1 + written,
        "right behind what was acknowledged"
    );
    assert_eq!(holds(&mut client, "written", 2 + written)[..=written], all);
    write_until_accepted(&mut broker, &mut client, "quiet");

    disk.fill();
    let (more, error) = write_until_refused(&mut client, "written");
    assert_eq!(error, ErrorCode::KafkaStorageError);
    broker.kill();
    let mut refused = options.spawn();
    assert!(!refused.wait().success(), "a start has to write");
    assert!(refused.log().contains("full"), "{}", refused.log());
    disk.free();
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    holds(&mut client, "written", 2 + written + more);
    write_until_accepted(&mut broker, &mut client, "written");
    broker.stop();
    let broker = options.start();
    let kept = latest(&mut Client::connect(broker.address()), "written", 0);
    assert!(kept as usize >= 3 + written + more, "{kept}");
    broker.stop();
    assert!(
        !Path::new(&disk.mounted().join("data")).exists(),
        "the disk is seen only inside"
    );
}

/// Reads the whole partition, which must hold at least this many records.
///
/// It may hold more: a refused write may have reached the log.
fn holds(client: &mut Client, topic: &str, acknowledged: usize) -> Vec<(i64, Vec<u8>)> {
    let values = read_values(client, topic, 0, 0);
    assert!(
        values.len() >= acknowledged,
        "{} of {acknowledged} acknowledged",
        values.len()
    );
    values
}

/// Commits `offset` of `quiet` for the group.
fn commit(client: &mut Client, offset: i64) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: text("readers"),
        topics: vec![offset_commit_request::OffsetCommitRequestTopic {
            name: text("quiet"),
            partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                committed_offset: offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    code(client.call(&request, 8).topics[0].partitions[0].error_code)
}

fn committed(client: &mut Client) -> Result<i64, ErrorCode> {
    let request = OffsetFetchRequest {
        groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
            group_id: text("readers"),
            topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopics {
                name: text("quiet"),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let group = &client.call(&request, 8).groups[0];
    match code(group.error_code) {
        ErrorCode::None => Ok(group.topics[0].partitions[0].committed_offset),
        error => Err(error),
    }
}

/// Tries as clients do, a tenth of a second apart.
fn until(broker: &mut Broker, what: &str, mut attempt: impl FnMut() -> ErrorCode) {
    let mut last = ErrorCode::None;
    for _ in 0..ATTEMPTS_OF_A_CLIENT {
        last = attempt();
        if last == ErrorCode::None {
            return;
        }
        let ended = broker.wait_for_exit(Duration::from_millis(100));
        assert!(ended.is_none(), "it ended");
    }
    panic!("{what}: still {last:?}");
}

fn create(client: &mut Client, topic: &str, partitions: i32) -> ErrorCode {
    let topics = vec![creatable(topic, partitions, &[])];
    let results = create_topics(client, topics).expect("an answer");
    code(results[0].error_code)
}

/// Topics that are created while the disk is full.
const LATE: [&str; 6] = ["late-0", "late-1", "late-2", "late-3", "late-4", "late-5"];

#[test]
fn what_a_full_disk_refused_is_served_when_there_is_space() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::or_skip(&scratch) else {
        return;
    };
    come_back(&disk);
}

fn come_back(disk: &Disk) {
    let options = options(disk).set("offsets.topic.num.partitions", 2);
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "quiet", 1, &[]);
    create_topic(&mut client, "rolled", 1, &[("segment.bytes", "1048576")]);
    let record = TestBatch::of_values(["quiet"]).encode();
    for _ in 0..3 {
        produce_ok(&mut client, "quiet", 0, record.clone());
    }
    // Makes the topic of offsets.
    let find = FindCoordinatorRequest {
        coordinator_keys: vec![text("readers")],
        ..Default::default()
    };
    until(&mut broker, "a coordinator", || {
        code(client.call(&find, 4).coordinators[0].error_code)
    });
    until(&mut broker, "a commit", || commit(&mut client, 1));

    disk.fill();
    let (rolled, told) = ask_while_full(&mut client, &record);
    assert!(broker.wait_for_exit(Duration::ZERO).is_none(), "it runs");

    disk.free();
    serve_the_late(&mut broker, &mut client, &record);
    let mut found = Ok(0);
    until(&mut broker, "an offset fetch", || {
        found = committed(&mut client);
        found.err().unwrap_or(ErrorCode::None)
    });
    assert!(
        found.is_ok_and(|found| found >= told),
        "{found:?} of {told}"
    );
    until(&mut broker, "a commit", || commit(&mut client, 100));
    for _ in 0..10 {
        write_until_accepted(&mut broker, &mut client, "rolled");
    }
    let all = holds(&mut client, "rolled", rolled + 10);
    assert_eq!(delete_records(&mut broker, &mut client, "quiet", 2), 2);
    broker.stop();
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    assert_eq!(holds(&mut client, "rolled", all.len()), all);
    assert_eq!(read_values(&mut client, "quiet", 0, 2).len(), 1);
    for topic in LATE {
        assert!(latest(&mut client, topic, 2) >= 1, "{topic}");
    }
    broker.stop();
}

/// Everything that a full disk may refuse; gives how many records `rolled` has, and the last offset that
/// was committed for sure.
fn ask_while_full(client: &mut Client, record: &[u8]) -> (usize, i64) {
    // Until no new segment can be begun.
    let (rolled, error) = write_until_refused(client, "rolled");
    assert_eq!(error, ErrorCode::KafkaStorageError);
    let mut told = 1;
    for offset in 2..50 {
        match commit(client, offset) {
            ErrorCode::None => told = offset,
            error => assert!(is_said_of_a_coordinator(error), "{error:?}"),
        }
    }
    let created: Vec<ErrorCode> = LATE.map(|topic| create(client, topic, 3)).to_vec();
    for error in created {
        let is_expected = matches!(error, ErrorCode::None | ErrorCode::KafkaStorageError);
        assert!(is_expected, "{error:?}");
    }
    for topic in LATE {
        let answer = produce(client, topic, 0, record.to_vec());
        assert_ne!(code(answer.error_code), ErrorCode::UnknownServerError);
    }
    let (error, _) = move_start(client, "quiet", 2);
    let is_told = matches!(error, ErrorCode::None | ErrorCode::RequestTimedOut);
    assert!(is_told, "{error:?}");
    (rolled, told)
}

fn serve_the_late(broker: &mut Broker, client: &mut Client, record: &[u8]) {
    for topic in LATE {
        until(broker, topic, || match create(client, topic, 3) {
            ErrorCode::TopicAlreadyExists => ErrorCode::None,
            error => error,
        });
        for partition in 0..3 {
            until(broker, topic, || {
                code(produce(client, topic, partition, record.to_vec()).error_code)
            });
        }
    }
}

/// What a client hears that is to look for the coordinator again, or to wait.
fn is_said_of_a_coordinator(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
    )
}
