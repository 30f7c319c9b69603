//! Start and stop: a second broker on the same port or directory, signals, log directories.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, FetchRequest, describe_log_dirs_request,
};
use rustix::process::Signal;

use crate::subject::Subject;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    FETCH_BY_NAME, PRODUCE_BY_NAME, code, create_topic, fetch_request, only_partition, produce_ok,
    produce_request, read_values, text,
};
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, skip};

/// Expects `broker` to end by itself, with a failure and one line that says `why`.
fn refused(mut broker: Broker, why: &[&str]) {
    let status = broker.wait();
    let log = broker.log();
    assert!(!status.success(), "it served: {log}");
    assert!(
        status.code().is_some(),
        "it was killed by a signal: {status} {log}"
    );
    let lines: Vec<&str> = log.lines().collect();
    let said = lines
        .iter()
        .any(|line| why.iter().any(|word| line.contains(word)));
    assert!(said, "none of {why:?} in: {log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        lines.len() <= 3,
        "one sentence, not {} lines: {log}",
        lines.len()
    );
}

fn is_outside() -> bool {
    let outside = std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some();
    if outside {
        skip("another broker cannot be started and stopped from here");
    }
    outside
}

#[test]
fn a_second_broker_on_the_same_port_is_refused() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let first = BrokerOptions::new(scratch.join("first")).start();
    let second = BrokerOptions::new(scratch.join("second"))
        .port(first.port())
        .spawn();
    refused(second, &[&first.port().to_string()]);
    Client::connect(first.address()).call(&DescribeClusterRequest::default(), 0);
    first.stop();
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let first = BrokerOptions::new(scratch.join("data")).start();
    let mut client = Client::connect(first.address());
    create_topic(&mut client, "mine", 1, &[]);
    refused(BrokerOptions::new(scratch.join("data")).spawn(), &["data"]);
    assert_eq!(
        produce_ok(
            &mut client,
            "mine",
            0,
            TestBatch::of_values(["still"]).encode()
        ),
        0
    );
    first.stop();
}

#[test]
fn impossible_settings_are_refused_by_name() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    for (key, value) in [
        ("num.partitions", "many"),
        ("num.partitions", "0"),
        ("chronik.durability", "perhaps"),
        ("chronik.shards", "0"),
        ("message.max.bytes", "-7"),
        ("listeners", "nonsense"),
    ] {
        let broker = BrokerOptions::new(scratch.join("data"))
            .set(key, value)
            .spawn();
        refused(broker, &[key]);
    }
}

#[test]
fn a_stop_answers_what_was_sent_and_keeps_it() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut broker = options.start();
        let mut client = Client::connect(broker.address());
        let topic = format!("stopped-by-{}", signal.as_raw());
        create_topic(&mut client, &topic, 1, &[]);
        let mut parked = Client::connect(broker.address());
        let mut wait = fetch_request(&topic, 0, 0);
        (wait.max_wait_ms, wait.min_bytes) = (i32::MAX, i32::MAX);
        parked.send(&wait, FETCH_BY_NAME);
        let idle = Client::connect(broker.address());
        let sent: Vec<i32> = (0..100)
            .map(|number| {
                let batch = TestBatch::of_values([format!("record {number}")]).encode();
                client.send(&produce_request(&topic, 0, -1, batch), PRODUCE_BY_NAME)
            })
            .collect();
        broker.signal(signal);
        let acknowledged = sent
            .into_iter()
            .map_while(|sent| {
                client
                    .try_receive::<chronik_protocol::messages::ProduceRequest>(
                        sent,
                        PRODUCE_BY_NAME,
                    )
                    .ok()
            })
            .filter(|response| only_partition(response.clone()).error_code == 0)
            .count();
        let status = broker.wait();
        assert_eq!(status.code(), Some(0), "{}", broker.log());
        drop((idle, parked));
        let again = options.start();
        let kept = read_values(&mut Client::connect(again.address()), &topic, 0, 0);
        assert!(
            kept.len() >= acknowledged,
            "{} of {acknowledged}",
            kept.len()
        );
        for (number, (offset, value)) in kept.iter().enumerate() {
            assert_eq!(
                (*offset, &value[..]),
                (number as i64, format!("record {number}").as_bytes())
            );
        }
        again.stop();
    }
}

#[test]
fn a_start_on_another_number_of_shards_moves_nothing() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    for (round, shards) in [1, 4, 2, 3].into_iter().enumerate() {
        let broker = options.clone().set("chronik.shards", shards).start();
        let mut client = Client::connect(broker.address());
        if round == 0 {
            create_topic(&mut client, "spread", 8, &[]);
        }
        for partition in 0..8 {
            let value = format!("round {round}");
            let batch = TestBatch::of_values([value]).encode();
            assert_eq!(
                produce_ok(&mut client, "spread", partition, batch),
                round as i64
            );
            assert_eq!(
                read_values(&mut client, "spread", partition, 0).len(),
                round + 1
            );
        }
        if round % 2 == 0 {
            broker.stop()
        } else {
            broker.kill()
        }
    }
}

#[test]
fn log_directories_tell_what_they_hold() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(3);
    for number in 0..50 {
        let batch = TestBatch::of_values([vec![b'x'; 10_000]]).encode();
        produce_ok(&mut client, &topic, number % 2, batch);
    }
    let mut describe = |topics| {
        let request = DescribeLogDirsRequest {
            topics,
            ..Default::default()
        };
        let response = client.call(&request, 4);
        assert_eq!(code(response.error_code), ErrorCode::None);
        assert_eq!(response.results.len(), 1, "one directory");
        let result = response.results[0].clone();
        assert_eq!(code(result.error_code), ErrorCode::None);
        assert!(result.log_dir.starts_with('/'), "{}", result.log_dir);
        assert!(0 < result.usable_bytes && result.usable_bytes <= result.total_bytes);
        result
    };
    let one = describe(Some(vec![
        describe_log_dirs_request::DescribableLogDirTopic {
            topic: text(&topic),
            partitions: vec![0, 2],
            ..Default::default()
        },
    ]));
    let mut sizes: Vec<_> = one.topics[0]
        .partitions
        .iter()
        .map(|found| {
            (
                found.partition_index,
                found.partition_size,
                found.offset_lag,
            )
        })
        .collect();
    sizes.sort_unstable();
    assert!(
        matches!(sizes[..], [(0, 250_000..=300_000, 0), (2, 0, 0)]),
        "{sizes:?}"
    );
    let all = describe(None);
    let found = all
        .topics
        .iter()
        .find(|found| *found.name == *topic)
        .expect("every topic");
    assert_eq!(found.partitions.len(), 3);
    let none = describe(Some(Vec::new()));
    assert_eq!(none.topics.len(), 0);
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut writer = subject.connect();
    produce_ok(&mut writer, &topic, 0, TestBatch::of_values(["x"]).encode());
    let open = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    let before = subject
        .broker()
        .map(|broker| open(broker.pid()).expect("its descriptors"));
    for round in 0..200 {
        let mut client = subject.connect();
        let mut request = fetch_request(&topic, 0, i64::from(round % 2));
        (request.max_wait_ms, request.min_bytes) = (60_000, 1 << 20);
        client.send(&request, FETCH_BY_NAME);
        if round % 3 == 0 {
            client.send_bytes(&[0, 0]);
        }
    }
    // Each of these is answered after the broker has seen the ends of earlier connections.
    for _ in 0..50 {
        let mut client = subject.connect();
        let answer = client.call(&fetch_request(&topic, 0, 0), FETCH_BY_NAME);
        assert_eq!(
            answer.responses.len(),
            1,
            "{}",
            std::any::type_name::<FetchRequest>()
        );
    }
    if let (Some(before), Some(broker)) = (before, subject.broker()) {
        let after = open(broker.pid()).expect("its descriptors");
        assert!(
            after < before + 100,
            "{before} descriptors before, {after} after"
        );
    }
}
