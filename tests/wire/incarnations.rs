//! Topics deleted and created again under the same name: nothing of the old one reaches the new one, from checkpoints,
//! sessions or groups, after a kill at any moment.

use std::path::Path;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{DeleteRecordsRequest, delete_records_request};

use crate::support::batch::TestBatch;
use crate::support::calls::{
    FETCH_BY_NAME, code, create_topic, delete_topic, fetch_partition, fetch_request, fetched_bytes,
    latest, list_offset, produce_ok, read_values, text,
};
use crate::support::client::Client;
use crate::support::groups::{commit, committed, find_coordinator};
use crate::support::{Broker, BrokerOptions, Scratch, skip};

const LOG_STARTS: &str = "log-start-offset-checkpoint";
const EARLIEST: i64 = -2;

/// `None` where brokers cannot be killed and started from here.
fn options(scratch: &Scratch) -> Option<BrokerOptions> {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("another broker cannot be killed and started from here");
        return None;
    }
    Some(BrokerOptions::new(scratch.join("data")).set("chronik.shards", 2))
}

fn produce_some(client: &mut Client, topic: &str, count: usize, what: &str) {
    for number in 0..count {
        let batch = TestBatch::of_values([format!("{what} {number}")]);
        assert_eq!(produce_ok(client, topic, 0, batch.encode()), number as i64);
    }
}

fn delete_records(client: &mut Client, topic: &str, offset: i64) {
    let request = DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: text(topic),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index: 0,
                offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let answer = client.call(&request, 2).topics[0].partitions[0].clone();
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

/// Everything that can be read is this, from offset 0 on.
fn holds(client: &mut Client, topic: &str, count: usize, what: &str) {
    let earliest = list_offset(client, topic, 0, EARLIEST);
    assert_eq!(earliest.offset, 0);
    let expected: Vec<_> = (0..count)
        .map(|number| (number as i64, format!("{what} {number}").into_bytes()))
        .collect();
    assert_eq!(read_values(client, topic, 0, 0), expected);
}

fn again(options: &BrokerOptions, broker: Broker, kills: bool) -> (Broker, Client) {
    match kills {
        true => broker.kill(),
        false => broker.stop(),
    }
    let broker = options.start();
    let client = Client::connect(broker.address());
    (broker, client)
}

fn log_starts(data: &Path) -> String {
    std::fs::read_to_string(data.join(LOG_STARTS)).unwrap_or_default()
}

#[test]
fn a_log_start_dies_with_its_topic() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    for round in 0..5 {
        let name = format!("foo{round}");
        create_topic(&mut client, &name, 1, &[]);
        produce_some(&mut client, &name, 30, "old");
        delete_records(&mut client, &name, 30);
        assert!(log_starts(broker.data()).contains(&format!("{name} 0 30\n")));
        let deleted = delete_topic(&mut client, &name).expect("an answer");
        assert_eq!(deleted, ErrorCode::None);
        let left = log_starts(broker.data());
        assert!(!left.contains(&name), "behind the answer: {left}");
        (broker, client) = again(&options, broker, true);
        create_topic(&mut client, &name, 1, &[]);
        produce_some(&mut client, &name, 25, "new");
        (broker, client) = again(&options, broker, false);
        holds(&mut client, &name, 25, "new");
    }
    broker.stop();
}

#[test]
fn numbers_of_topics_that_do_not_exist_are_taken_out_before_there_is_one_of_the_name() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let broker = options.start();
    let data = broker.data().to_owned();
    broker.stop();
    // As a crash between a deletion and the checkpoint behind it leaves them.
    for file in [
        LOG_STARTS,
        "recovery-point-offset-checkpoint",
        "cleaner-offset-checkpoint",
    ] {
        std::fs::write(data.join(file), "0\n2\nfoo 0 30\nfoo 7 30\n").expect("written");
    }
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "foo", 1, &[]);
    assert!(!log_starts(&data).contains("foo"), "{}", log_starts(&data));
    produce_some(&mut client, "foo", 40, "new");
    let (broker, mut client) = again(&options, broker, true);
    holds(&mut client, "foo", 40, "new");
    let (broker, mut client) = again(&options, broker, false);
    holds(&mut client, "foo", 40, "new");
    broker.stop();
}

#[test]
fn no_number_in_a_checkpoint_empties_a_log() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    for clean in [true, false] {
        let broker = options.start();
        let mut client = Client::connect(broker.address());
        let name = format!("kept-{clean}");
        create_topic(&mut client, &name, 1, &[]);
        produce_some(&mut client, &name, 10, "kept");
        let data = broker.data().to_owned();
        match clean {
            true => broker.stop(),
            false => broker.kill(),
        }
        std::fs::write(data.join(LOG_STARTS), format!("0\n1\n{name} 0 30\n")).expect("written");
        let broker = options.start();
        let mut client = Client::connect(broker.address());
        let said = broker.wait_for_line("every record kept");
        assert!(said.contains("30") && said.contains("10"), "{said}");
        holds(&mut client, &name, 10, "kept");
        // Nor once the log has grown beyond it.
        for number in 10..35 {
            let batch = TestBatch::of_values([format!("kept {number}")]);
            assert_eq!(produce_ok(&mut client, &name, 0, batch.encode()), number);
        }
        let (broker, mut client) = again(&options, broker, true);
        holds(&mut client, &name, 35, "kept");
        broker.stop();
    }
}

#[test]
fn groups_and_sessions_begin_anew_with_the_topic() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    find_coordinator(&mut client, "g");
    for kills in [false, true] {
        create_topic(&mut client, "foo", 1, &[]);
        produce_some(&mut client, "foo", 9, "old");
        assert_eq!(commit(&mut client, "g", "foo", 0, 7), ErrorCode::None);
        assert_eq!(committed(&mut client, "g", "foo", 0), 7);
        let mut full = fetch_request("foo", 0, 9);
        full.session_epoch = 0;
        let session = client.call(&full, FETCH_BY_NAME).session_id;
        assert_ne!(session, 0);
        let deleted = delete_topic(&mut client, "foo").expect("an answer");
        assert_eq!(deleted, ErrorCode::None);
        if kills {
            (broker, client) = again(&options, broker, true);
            find_coordinator(&mut client, "g");
        }
        create_topic(&mut client, "foo", 1, &[]);
        assert_eq!(committed(&mut client, "g", "foo", 0), -1, "killed: {kills}");
        assert_eq!(latest(&mut client, "foo", 0), 0);
        produce_some(&mut client, "foo", 3, "new");
        if !kills {
            let mut more = full.clone();
            (more.session_id, more.session_epoch) = (session, 1);
            let told = client.call(&more, FETCH_BY_NAME).responses[0].partitions[0].clone();
            assert_eq!(code(told.error_code), ErrorCode::OffsetOutOfRange);
            more.session_epoch = 2;
            more.topics[0].partitions = vec![fetch_partition(0, 0)];
            let told = client.call(&more, FETCH_BY_NAME).responses[0].partitions[0].clone();
            assert_eq!((told.error_code, told.high_watermark), (0, 3));
            let bytes = fetched_bytes(&told);
            assert!(bytes.windows(5).any(|found| found == b"new 2"));
        }
        holds(&mut client, "foo", 3, "new");
        delete_topic(&mut client, "foo").expect("an answer");
    }
    broker.stop();
}
