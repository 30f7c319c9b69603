//! The broker's log and its reader: gone, slow, or unable to write. None of them ends the broker or holds it up.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::Path;
use std::process::Command;

use chronik_protocol::Str;
use chronik_protocol::messages::ApiVersionsRequest;
use rustix::process::Signal;

use crate::support::batch::TestBatch;
use crate::support::calls::{create_topic, produce_ok, read_values};
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, skip};

/// Says so where the tests talk to a broker that was started elsewhere.
fn is_outside() -> bool {
    let outside = std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some();
    if outside {
        skip("another broker's standard error cannot be chosen from here");
    }
    outside
}

/// Creates topics, which the log tells of, and writes a record to each.
fn work(broker: &Broker, topics: &[&str]) {
    let mut client = Client::connect(broker.address());
    for topic in topics {
        create_topic(&mut client, topic, 1, &[]);
        let batch = TestBatch::of_values(["kept"]).encode();
        assert_eq!(produce_ok(&mut client, topic, 0, batch), 0);
    }
}

/// Stops the broker by `signal`, and expects everything to be in order.
fn stop_by(mut broker: Broker, signal: Signal) {
    broker.signal(signal);
    let status = broker.wait();
    assert_eq!(status.code(), Some(0), "{status}: {}", broker.log());
    assert!(is_marked_clean(broker.data()), "{}", broker.log());
}

fn is_marked_clean(data: &Path) -> bool {
    data.join(".kafka_cleanshutdown").exists()
}

fn assert_kept(options: &BrokerOptions, topic: &str) {
    let broker = options.start();
    let kept = read_values(&mut Client::connect(broker.address()), topic, 0, 0);
    assert_eq!(kept.len(), 1);
    broker.stop();
}

/// The log until the broker has said that it is ready.
fn read_until_ready(log: PipeReader) -> BufReader<PipeReader> {
    let mut log = BufReader::new(log);
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("a pipe"), 0, "it ended");
    }
    log
}

#[test]
fn a_log_whose_reader_has_gone_is_only_lost() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let (reader, writer) = pipe().expect("a pipe");
    let broker = options.clone().log_to(writer).start();
    drop(read_until_ready(reader));
    work(&broker, &["a", "b"]);
    stop_by(broker, Signal::TERM);
    assert_kept(&options, "b");
}

#[test]
fn a_log_on_a_full_disk_is_only_lost() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let options = BrokerOptions::new(scratch.join("data"));
    let broker = options
        .clone()
        .log_to(full().expect("the full device"))
        .start();
    work(&broker, &["a", "b"]);
    stop_by(broker, Signal::TERM);
    assert_kept(&options, "b");
    // A refused start says why; without a log the exit code does.
    let mut refused = options
        .set("num.partitions", "many")
        .log_to(full().expect("the full device"))
        .spawn();
    assert_eq!(refused.wait().code(), Some(1));
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let (reader, writer) = pipe().expect("a pipe");
    let mut broker = options
        .clone()
        .log_to(writer)
        .environment("CHRONIK_TRACE", "trace")
        .start();
    // The pipe is full long before these are done.
    let topics: Vec<String> = (0..50).map(|number| format!("topic-{number}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    work(&broker, &names);
    let mut client = Client::connect(broker.address());
    for _ in 0..3_000 {
        let batch = TestBatch::of_values(["and on"]).encode();
        produce_ok(&mut client, "topic-7", 0, batch);
    }
    drop(client);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(is_marked_clean(broker.data()));
    drop(broker);
    // The options hold the writing end as well.
    let mut log = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_to_string(&mut log).expect("a pipe");
    assert!(log.contains("ready"), "{log}");
    assert_kept(&options, "topic-49");
}

#[test]
fn a_log_that_is_read_again_tells_what_was_lost() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.join("log");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    // Opened for both, so that neither end waits for the other.
    let open = || File::options().read(true).write(true).open(&path);
    let first = open().expect("the fifo");
    let writer = File::options().write(true).open(&path).expect("the fifo");
    let broker = BrokerOptions::new(scratch.join("data"))
        .log_to(writer)
        .environment("CHRONIK_TRACE", "debug")
        .start();
    drop(first);
    work(&broker, &["unheard"]);
    let again = BufReader::new(open().expect("the fifo"));
    let mut lines = again.lines();
    work(&broker, &["heard"]);
    let lost = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("lost")));
    let lost = lost.expect("a line").expect("text");
    assert!(lost.ends_with("of the log was lost") || lost.ends_with("of the log were lost"));
    stop_by(broker, Signal::HUP);
}

#[test]
fn a_line_about_a_request_says_whose_it_is() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data")).environment("CHRONIK_TRACE", "debug");
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let request = ApiVersionsRequest {
        client_software_name: Str::from_static("a-client"),
        client_software_version: Str::from_static("7"),
        ..ApiVersionsRequest::default()
    };
    client.call(&request, 3);
    let line = broker.wait_for_line("software=a-client");
    for told in [
        "request{api=\"ApiVersions\" version=3 client=",
        " correlation=",
        " principal=\"ANONYMOUS\"}",
    ] {
        assert!(line.contains(told), "{line}");
    }
}

#[test]
fn a_hangup_stops_in_order_unless_it_was_ignored() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let broker = options.start();
    work(&broker, &["a"]);
    stop_by(broker, Signal::HUP);
    let mut broker = options.clone().under(["nohup"]).start();
    for signal in [Signal::HUP, Signal::PIPE, Signal::XFSZ] {
        broker.signal(signal);
    }
    work(&broker, &["b"]);
    stop_by(broker, Signal::TERM);
    assert_kept(&options, "b");
}

#[test]
fn a_doctor_whose_reader_has_gone_keeps_its_verdict() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let binary = std::env::var_os("CHRONIK_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_chronik").into());
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let mut doctor = Command::new(binary);
    doctor.args(["doctor", "--data"]).arg(scratch.join("data"));
    let told = doctor.output().expect("the doctor");
    let untold = doctor.stdout(writer).output().expect("the doctor");
    assert_eq!(untold.status.code(), told.status.code());
    let said = String::from_utf8_lossy(&untold.stderr);
    assert!(!said.contains("panicked"), "{said}");
}
