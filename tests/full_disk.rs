//! A disk that runs full: produce is refused with an error, reading and deleting go on, everything
//! acknowledged stays, writing begins again when there is space, and a start says what it lacks.
//!
//! The disk is a small ext4 image, mounted where only this test's processes see it. That takes root
//! and loop devices; without them the test is skipped, loudly.

mod support;

use std::path::Path;
use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{DeleteRecordsRequest, delete_records_request};

use support::batch::TestBatch;
use support::calls::{
    code, create_topic, delete_topic, latest, produce, produce_ok, read_values, text,
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

/// Deletes the records below `offset`, as soon as there is a block to note the new start of the log
/// in: a deletion is answered when it will outlive a crash.
fn delete_records(broker: &mut Broker, client: &mut Client, topic: &str, offset: i64) -> i64 {
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
    for _ in 0..ATTEMPTS_OF_A_CLIENT {
        let answer = &client.call(&request, 2).topics[0].partitions[0];
        match code(answer.error_code) {
            ErrorCode::None => return answer.low_watermark,
            ErrorCode::KafkaStorageError => {}
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
    let disk = match Disk::mount(&scratch) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED: no small disk to fill: {reason}");
            return;
        }
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
