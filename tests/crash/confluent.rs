//! The crash loop with a third-party producer: librdkafka retries after each kill as it likes, and the log still holds
//! every acknowledged record exactly once.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Dice;
use crate::support::calls::{create_topic, read_values};
use crate::support::client::Client;
use crate::support::{BrokerOptions, Scratch, free_port, skip};

const KILLS: usize = 10;
const PARTITIONS: i32 = 4;
const TOPIC: &str = "confluent";

/// The Python that has confluent-kafka, when `tests/clients/install` has been run.
fn python() -> Option<PathBuf> {
    let python = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/clients/.cache/python/bin/python"
    );
    let python = PathBuf::from(python);
    let works = Command::new(&python)
        .args(["-c", "import confluent_kafka"])
        .status();
    works.is_ok_and(|status| status.success()).then_some(python)
}

#[test]
fn kill_9_under_confluent_kafka_loses_and_repeats_nothing() {
    let Some(python) = python() else {
        skip("confluent-kafka is missing: run tests/clients/install python");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/idempotent_producer.py");
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data")).port(free_port());
    let mut broker = options.start();
    create_topic(
        &mut Client::connect(broker.address()),
        TOPIC,
        PARTITIONS,
        &[],
    );
    let mut producer = Command::new(python)
        .arg(script)
        .args([&broker.bootstrap(), TOPIC, &PARTITIONS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let output = producer.stdout.take().expect("standard output is piped");
    let acknowledged = std::thread::spawn(move || {
        let lines = BufReader::new(output)
            .lines()
            .map(|line| line.expect("a line"));
        lines
            .map(|line| parse(&line))
            .collect::<Vec<(i32, i64, i64)>>()
    });
    let mut dice = Dice::new();
    for _ in 0..KILLS {
        let serving = Duration::from_millis(200 + dice.below(400));
        assert!(
            broker.wait_for_exit(serving).is_none(),
            "it ended by itself"
        );
        broker.kill();
        broker = options.start();
    }
    // The end of its input tells the producer to finish.
    drop(producer.stdin.take());
    let status = producer.wait().expect("the producer's status");
    let acknowledged = acknowledged
        .join()
        .expect("the reader of the producer's output");
    assert!(status.success(), "the producer gave records up");
    assert!(
        acknowledged.len() > 100,
        "only {} acknowledged",
        acknowledged.len()
    );
    check(&mut Client::connect(broker.address()), &acknowledged);
    eprintln!(
        "confluent-kafka: {} acknowledged over {KILLS} kills",
        acknowledged.len()
    );
    broker.stop();
}

fn parse(line: &str) -> (i32, i64, i64) {
    let mut numbers = line
        .split(' ')
        .map(|number| number.parse::<i64>().expect("three numbers"));
    let mut next = || numbers.next().expect("three numbers");
    (i32::try_from(next()).expect("a partition"), next(), next())
}

/// Each partition holds its counters once and in order; each acknowledged one where it was said.
fn check(client: &mut Client, acknowledged: &[(i32, i64, i64)]) {
    let logs: Vec<Vec<i64>> = (0..PARTITIONS)
        .map(|partition| {
            let values = read_values(client, TOPIC, partition, 0);
            let counters = values
                .iter()
                .map(|(_, value)| std::str::from_utf8(value).expect("text"));
            counters
                .map(|counter| counter.parse().expect("a counter"))
                .collect()
        })
        .collect();
    for (partition, log) in (0..).zip(&logs) {
        let expected =
            (0..log.len() as i64).map(|nth| i64::from(partition) + nth * i64::from(PARTITIONS));
        assert!(
            log.iter().copied().eq(expected),
            "partition {partition}: {log:?}"
        );
    }
    for &(partition, offset, counter) in acknowledged {
        let found = logs[partition as usize].get(offset as usize);
        assert_eq!(
            found,
            Some(&counter),
            "acknowledged in {partition} at {offset}"
        );
    }
}
