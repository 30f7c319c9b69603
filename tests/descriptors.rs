//! Fewer descriptors than partitions: every log stays in service under any request, and connections are refused before
//! files are.

mod support;

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::ApiVersionsRequest;

use support::batch::TestBatch;
use support::calls::{
    code, creatable, create_topic, create_topics, produce, produce_ok, read_values,
};
use support::client::Client;
use support::disk::Disk;
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

/// Partitions of the topic that is created while hardly a descriptor is left: some for each shard and directory.
const LATE_PARTITIONS: i32 = 20;

/// Lets the running broker have `more` descriptors than it has open now.
fn leave(broker: &Broker, more: usize) {
    let pid = broker.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let limit = format!("--nofile={}:20000", open.count() + more);
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit");
}

/// Hardly a descriptor is left when the shards open their first files, in directories on two devices: the
/// broker stays, and all is served when there are descriptors again.
fn first_files_wait(options: &BrokerOptions, more: usize) {
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "before", 1, &[]);
    let batch = TestBatch::of_values(["a record"]).encode();
    produce_ok(&mut client, "before", 0, batch.clone());
    leave(&broker, more);
    let late = creatable("late", LATE_PARTITIONS, &[]);
    let results = create_topics(&mut client, vec![late]).expect("an answer");
    assert_eq!(results[0].error_code, 0, "{results:?}");
    // One asks each shard for first files; what it gets depends on who takes the last descriptor.
    for partition in 0..2 {
        produce(&mut client, "late", partition, batch.clone());
    }
    leave(&broker, 10_000);
    for partition in 0..LATE_PARTITIONS {
        let mut answer = ErrorCode::KafkaStorageError;
        for _ in 0..300 {
            answer = code(produce(&mut client, "late", partition, batch.clone()).error_code);
            if answer != ErrorCode::KafkaStorageError {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(answer, ErrorCode::None, "{partition}:\n{}", broker.log());
    }
    let ended = broker.wait_for_exit(Duration::ZERO);
    assert!(ended.is_none(), "{ended:?}:\n{}", broker.log());
    let log = broker.log();
    for words in ["panicked", "offline", "not judged"] {
        assert!(!log.contains(words), "the log says {words:?}:\n{log}");
    }
    broker.stop();
}

#[test]
fn first_files_wait_for_descriptors() {
    for more in 1..=3 {
        let scratch = Scratch::new();
        let options = BrokerOptions::new(scratch.join("data"))
            .set("chronik.shards", 2)
            .argument("--data")
            .argument(scratch.join("second"));
        first_files_wait(&options, more);
    }
}

#[test]
fn first_files_on_another_device_wait_for_descriptors() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::or_skip(&scratch) else {
        return;
    };
    let options = BrokerOptions::new(scratch.join("data"))
        .under(disk.wrapper())
        .set("chronik.shards", 2)
        .argument("--data")
        .argument(disk.mounted().join("data"));
    first_files_wait(&options, 2);
}
