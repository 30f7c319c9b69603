//! Fewer descriptors than partitions: every log stays in service under any request, and connections are refused before
//! files are.

mod support;

use std::net::TcpStream;
use std::process::Command;

use chronik_protocol::messages::ApiVersionsRequest;

use support::batch::TestBatch;
use support::calls::{creatable, create_topic, create_topics, produce_ok, read_values};
use support::client::Client;
use support::{Broker, BrokerOptions, Scratch};

const TOPICS: usize = 230;
const DESCRIPTORS: usize = 200;
/// Topics whose every second record begins a new segment, and how long those are, bytes.
const ROLLING: usize = 30;
const LONG_BYTES: usize = 600_000;
const SHORT_BYTES: usize = 4_000;

fn options(scratch: &Scratch, descriptors: usize) -> BrokerOptions {
    let limit = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    BrokerOptions::new(scratch.join("data")).under(["sh", "-c", &limit])
}

fn name(topic: usize) -> String {
    format!("t{topic:03}")
}

fn value(topic: usize, record: usize) -> Vec<u8> {
    let mut value = format!("{topic} {record} ").into_bytes();
    let bytes = if topic < ROLLING {
        LONG_BYTES
    } else {
        SHORT_BYTES
    };
    value.resize(bytes, b'.');
    value
}

fn produce_to_all(client: &mut Client, record: usize) {
    for topic in 0..TOPICS {
        let batch = TestBatch::of_values([value(topic, record)]).encode();
        let offset = produce_ok(client, &name(topic), 0, batch);
        assert_eq!(offset, record as i64, "topic {topic}");
    }
}

fn read_all(client: &mut Client, records: usize) {
    for topic in 0..TOPICS {
        let read = read_values(client, &name(topic), 0, 0);
        let expected = (0..records).map(|record| (record as i64, value(topic, record)));
        assert!(read.into_iter().eq(expected), "topic {topic}");
    }
}

fn assert_in_service(broker: &Broker) {
    let log = broker.log();
    for words in [" ERROR ", "offline", "disk full", "no space"] {
        assert!(!log.contains(words), "the log says {words:?}:\n{log}");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("the process runs");
    assert!(open.count() < DESCRIPTORS);
}

/// More logs than descriptors, through a stop and a kill: all of them take and give records.
#[test]
fn logs_beyond_the_descriptors_stay_in_service() {
    let scratch = Scratch::new();
    let broker = options(&scratch, DESCRIPTORS).start();
    let mut client = Client::connect(broker.address());
    let segments = [("segment.bytes", "1048576")];
    let names: Vec<String> = (0..TOPICS).map(name).collect();
    let topics = names
        .iter()
        .map(|name| creatable(name, 1, &segments))
        .collect();
    for result in create_topics(&mut client, topics).expect("an answer") {
        assert_eq!(result.error_code, 0, "{result:?}");
    }
    produce_to_all(&mut client, 0);
    read_all(&mut client, 1);
    // Some roll now.
    produce_to_all(&mut client, 1);
    let mut newcomer = Client::connect(broker.address());
    read_all(&mut newcomer, 2);
    assert_in_service(&broker);
    broker.stop();

    let broker = options(&scratch, DESCRIPTORS).start();
    let mut client = Client::connect(broker.address());
    produce_to_all(&mut client, 2);
    assert_in_service(&broker);
    broker.kill();

    let broker = options(&scratch, DESCRIPTORS).start();
    let mut client = Client::connect(broker.address());
    read_all(&mut client, 3);
    produce_to_all(&mut client, 3);
    read_all(&mut client, 4);
    assert_in_service(&broker);
    broker.stop();
}

/// Whether the broker keeps the connection: it answers.
fn is_served(broker: &Broker) -> bool {
    let Ok(mut client) = Client::try_connect(broker.address()) else {
        return false;
    };
    client.try_call(&ApiVersionsRequest::default(), 0).is_ok()
}

/// Connections stay within their descriptors: files are still opened, open connections are served, and when some are
/// closed others are accepted.
#[test]
fn connections_do_not_take_the_descriptors_of_files() {
    let scratch = Scratch::new();
    let broker = options(&scratch, DESCRIPTORS).start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "before", 4, &[("segment.bytes", "1048576")]);
    let crowd: Vec<TcpStream> = (0..2 * DESCRIPTORS).map(|_| broker.connect()).collect();
    broker.wait_for_line("kept for files");
    create_topic(&mut client, "meanwhile", 4, &[]);
    for record in 0..4 {
        for partition in 0..4 {
            for topic in ["before", "meanwhile"] {
                let batch = TestBatch::of_values([value(0, record)]).encode();
                produce_ok(&mut client, topic, partition, batch);
            }
        }
    }
    assert!(
        !is_served(&broker),
        "the descriptors of files were given away"
    );
    assert_in_service(&broker);
    assert_eq!(broker.log().matches("kept for files").count(), 1);
    drop(crowd);
    // They are closed a moment later.
    let served = (0..3_000).any(|_| is_served(&broker));
    assert!(served, "nobody gets in although there is room");
    broker.wait_for_line("there are descriptors for connections again");
    broker.stop();
}

/// A limit that leaves nothing to work with is refused at start, with the reason and the mend.
#[test]
fn a_limit_too_low_for_anything_is_refused() {
    let scratch = Scratch::new();
    let mut broker = options(&scratch, 50).spawn();
    assert!(!broker.wait().success());
    broker.wait_for_line("raise the hard limit");
    let binary = env!("CARGO_BIN_EXE_chronik");
    let data = scratch.join("data");
    let script = "ulimit -n 200 && exec \"$0\" doctor --data \"$1\"";
    let doctor = Command::new("sh")
        .args(["-c", script, binary])
        .arg(data)
        .output();
    let said = String::from_utf8_lossy(&doctor.expect("doctor runs").stdout).into_owned();
    assert!(said.contains("connections are taken at a time"), "{said}");
}
