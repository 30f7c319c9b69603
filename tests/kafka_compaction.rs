//! Apache Kafka's own `LogCompactionTester`, which writes keys repeatedly, deletes some, reads everything back and
//! compares each key's last value; and `kafka-dump-log` on every file that compaction, retention and deletion leave.
//!
//! Never skips silently: without Java the tools are named on standard error.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::batch::{TestBatch, TestRecord};
use support::calls::{create_topic, init_producer, produce_ok};
use support::client::Client;
use support::{BrokerOptions, Program, Report, Scratch, eventually, skip};

/// Whether the tools are there; says so loudly when not.
fn tools_are_missing() -> bool {
    Program::kafka_tool("kafka-topics")
        .args(["--version"])
        .run()
        .is_none()
}

/// The files of `topic` that end in `.kind`.
fn files(data: &Path, topic: &str, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).expect("the data directory").flatten();
    let partitions = entries.filter(|p| p.file_name().to_string_lossy().starts_with(topic));
    let mut found: Vec<PathBuf> = partitions
        .flat_map(|partition| fs::read_dir(partition.path()).expect("a directory"))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == kind))
        .collect();
    found.sort();
    found
}

fn dump(files: &[PathBuf], words: &[&str]) -> String {
    let list: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let program = Program::kafka_tool("kafka-dump-log").args(["--files", &list.join(",")]);
    let Report { status, out, err } = program.args(words).run().expect("the tools are there");
    let all = out + &err;
    assert!(status.success() && all.contains("Dumping "), "{all}");
    for complaint in ["isvalid: false", "Exception", "mismatch", "Found "] {
        // Offsets that compaction took away are no complaint.
        let lines = all.lines().filter(|line| !line.contains("non-consecutive"));
        let found = lines.clone().find(|line| line.contains(complaint));
        assert!(found.is_none(), "{words:?}: {found:?}");
    }
    all
}

/// A broker whose settings matter to these tests; `None` with one from outside.
fn options(scratch: &Scratch) -> Option<BrokerOptions> {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("the compaction tests: the broker's settings and files matter");
        return None;
    }
    let options = BrokerOptions::new(scratch.join("data"))
        .set("log.segment.bytes", 1_048_576)
        .set("log.cleaner.min.cleanable.ratio", 0.01)
        .set("log.retention.check.interval.ms", 20)
        .set("log.segment.delete.delay.ms", 0);
    Some(options)
}

/// Has `kafka-dump-log` check every file of the topics that begin so. Says what it printed of logs.
fn dump_all(data: &Path, topic: &str, is_compacted: bool) -> String {
    let logs = files(data, topic, "log");
    assert!(!logs.is_empty(), "{topic} is gone");
    let out = dump(&logs, &["--deep-iteration", "--print-data-log"]);
    for kind in ["index", "timeindex"] {
        let indexes = files(data, topic, kind);
        assert_eq!(indexes.len(), logs.len(), "one {kind} for each segment");
        dump(&indexes, &["--index-sanity-check"]);
        // An entry of a time index may be that of a batch from which compaction took every record,
        // here as in Kafka; the tool looks for its time among the records.
        if kind == "index" || !is_compacted {
            dump(&indexes, &["--verify-index-only"]);
        }
    }
    dump(&files(data, topic, "snapshot"), &[]);
    out
}

#[test]
fn kafkas_own_tester_finds_the_newest_of_each_key() {
    test_with("none");
}

#[test]
fn kafkas_own_tester_finds_the_newest_of_each_compressed_key() {
    test_with("zstd");
}

fn test_with(codec: &str) {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch).filter(|_| !tools_are_missing()) else {
        return;
    };
    // The tester's records are small: segments end by their age.
    let broker = options.set("log.roll.ms", 300).start();
    let tester = Program::kafka_tool("kafka-log-compaction-tester")
        .args(["--bootstrap-server", &broker.bootstrap()])
        .args(["--messages", "40000", "--duplicates", "5"])
        .args(["--percent-deletes", "10", "--sleep", "1", "--topics", "1"])
        .args(["--compression-type", codec]);
    let Report { status, out, err } = tester.report().expect("the tools are there");
    assert!(status.success(), "{codec}: {status}\n{out}\n{err}");
    broker.wait_for_line("log compacted");
    let data = broker.data().to_owned();
    broker.stop();
    dump_all(&data, "log-cleaner-test", true);
    let cleaned = fs::read_to_string(data.join("cleaner-offset-checkpoint"));
    let cleaned = cleaned.expect("the checkpoint");
    let mut lines = cleaned.lines();
    assert_eq!(lines.next(), Some("0"), "Kafka's version of it");
    let count: usize = lines.next().and_then(|n| n.parse().ok()).expect("a number");
    assert_eq!(lines.clone().count(), count);
    let told = |line: &str| line.starts_with("log-cleaner-test-");
    assert!(lines.any(told), "{cleaned}");
}

#[test]
fn what_retention_and_deletion_leave_is_in_order() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch).filter(|_| !tools_are_missing()) else {
        return;
    };
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let bounded = [("retention.ms", "-1"), ("retention.bytes", "2097152")];
    create_topic(&mut client, "retained", 1, &bounded);
    create_topic(&mut client, "trimmed", 1, &[("retention.ms", "-1")]);
    let both = [("retention.ms", "-1"), ("cleanup.policy", "compact,delete")];
    create_topic(&mut client, "both", 1, &both);
    let id = init_producer(&mut client);
    for topic in ["retained", "trimmed", "both"] {
        for n in 0..8_u8 {
            let record = TestRecord {
                key: Some(vec![b'k', n % 3]),
                value: Some(vec![n; 400_000]),
                ..TestRecord::default()
            };
            let batch = TestBatch::of(&[record]).by_producer(id, 0, i32::from(n));
            produce_ok(&mut client, topic, 0, batch.encode());
        }
    }
    // In whatever order: they are of different topics.
    for words in ["old segments deleted", "log compacted"] {
        eventually(words, || broker.log().contains(words).then_some(()));
    }
    let list = scratch.join("delete.json");
    let json = r#"{"partitions":[{"topic":"trimmed","partition":0,"offset":5}],"version":1}"#;
    fs::write(&list, json).expect("written");
    let path = list.to_string_lossy().into_owned();
    let deleted = Program::kafka_tool("kafka-delete-records")
        .args(["--bootstrap-server", &broker.bootstrap()])
        .args(["--offset-json-file", &path]);
    deleted.run().expect("the tools are there");
    let data = broker.data().to_owned();
    broker.stop();
    for topic in ["retained", "trimmed", "both"] {
        let out = dump_all(&data, topic, topic == "both");
        assert!(
            out.contains("baseOffset: 7 "),
            "{topic}: the newest is there"
        );
    }
    let starts = fs::read_to_string(data.join("log-start-offset-checkpoint"));
    let starts = starts.expect("the checkpoint");
    assert!(starts.contains("trimmed 0 5\n"), "{starts}");
}
