//! Retention over the wire: logs lose records that are too old or too many, no others, and for good.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    IncrementalAlterConfigsRequest, incremental_alter_configs_request,
};

use crate::support::batch::TestBatch;
use crate::support::calls::{
    EARLIEST, code, create_topic, fetch, latest, list_offset, produce_ok, read_values, text,
};
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, eventually, skip};

/// What the log says when something has gone.
const DELETED: &str = "old segments deleted";
const TOPIC: i8 = 2;

/// A broker that looks for old segments all the time; `None` with a broker from outside, which
/// cannot be configured from here.
fn start(scratch: &Scratch) -> Option<Broker> {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("the broker's settings matter");
        return None;
    }
    let options = BrokerOptions::new(scratch.join("data"))
        .set("log.retention.check.interval.ms", 20)
        .set("log.segment.delete.delay.ms", 0);
    Some(options.start())
}

fn earliest(client: &mut Client, topic: &str) -> i64 {
    let answer = list_offset(client, topic, 0, EARLIEST);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    answer.offset
}

/// Waits until the checkpoint of log starts has this line: from then on a kill does not take it back.
fn wait_for_log_start(scratch: &Scratch, line: &str) {
    let path = scratch.join("data").join("log-start-offset-checkpoint");
    eventually(&format!("{line} in {path:?}"), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().any(|found| found == line).then_some(())
    });
}

fn set(client: &mut Client, topic: &str, key: &str, value: &str) {
    let config = incremental_alter_configs_request::AlterableConfig {
        name: text(key),
        value: Some(text(value)),
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: text(topic),
            configs: vec![config],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.call(&request, 1).responses.remove(0);
    assert_eq!(code(response.error_code), ErrorCode::None);
}

#[test]
fn what_is_too_old_goes_when_the_setting_says_so_and_stays_gone() {
    let scratch = Scratch::new();
    let Some(mut broker) = start(&scratch) else {
        return;
    };
    let mut client = Client::connect(broker.address());
    for topic in ["old", "kept"] {
        create_topic(&mut client, topic, 1, &[("retention.ms", "-1")]);
        for n in 0..5_u8 {
            produce_ok(&mut client, topic, 0, TestBatch::of_values([[n]]).encode());
        }
        assert_eq!(earliest(&mut client, topic), 0);
    }
    set(&mut client, "old", "retention.ms", "60000");
    broker.wait_for_line(DELETED);
    let gone = fetch(&mut client, "old", 0, 0);
    assert_eq!(code(gone.error_code), ErrorCode::OffsetOutOfRange);
    assert_eq!(earliest(&mut client, "old"), 5);
    assert_eq!(latest(&mut client, "old", 0), 5);
    assert_eq!(read_values(&mut client, "kept", 0, 0).len(), 5);
    wait_for_log_start(&scratch, "old 0 5");
    let options = broker.options().clone();
    broker.kill();
    broker = options.start();
    let mut client = Client::connect(broker.address());
    assert_eq!(earliest(&mut client, "old"), 5);
    assert_eq!(earliest(&mut client, "kept"), 0);
    set(&mut client, "old", "retention.ms", "-1");
    let next = TestBatch::of_values(["next"]).encode();
    assert_eq!(produce_ok(&mut client, "old", 0, next), 5);
    assert_eq!(
        read_values(&mut client, "old", 0, 5),
        [(5, b"next".to_vec())]
    );
    broker.stop();
}

#[test]
fn what_is_too_much_goes_segment_by_segment() {
    let scratch = Scratch::new();
    let Some(broker) = start(&scratch) else {
        return;
    };
    let mut client = Client::connect(broker.address());
    let settings = [
        ("segment.bytes", "1048576"),
        ("retention.ms", "-1"),
        ("retention.bytes", "2097152"),
    ];
    create_topic(&mut client, "bounded", 1, &settings);
    // Each fills a segment. What stays is at least the bound, so that three are kept.
    for n in 0..3_u8 {
        let batch = TestBatch::of_values([vec![n; 900_000]]).encode();
        produce_ok(&mut client, "bounded", 0, batch);
    }
    assert_eq!(earliest(&mut client, "bounded"), 0);
    let batch = TestBatch::of_values([vec![3; 900_000]]).encode();
    produce_ok(&mut client, "bounded", 0, batch);
    broker.wait_for_line(DELETED);
    assert_eq!(earliest(&mut client, "bounded"), 1);
    let values = read_values(&mut client, "bounded", 0, 1);
    let offsets: Vec<i64> = values.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [1, 2, 3]);
    broker.stop();
}
