//! Clients of years ago, and newer ones that take the broker for an old one: they write and read with every codec they
//! have, a client of today reads their records, and they read a client of today's, headers and all.
//!
//! Never skips silently: a client that is not installed is named on standard error. Their groups are in `client_groups`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{BrokerOptions, Program, Scratch, Target, say, skip};

/// Lines in each topic: some batches, null keys and null values.
const LINES: usize = 2_000;

/// All that clients before Kafka 2.1 have.
const CODECS: [&str; 4] = ["none", "gzip", "snappy", "lz4"];

/// Timestamp of the record of line n: this plus n, in ms.
const TIMESTAMP_MS_BASE: i64 = 1_600_000_000_000;

/// The client of today.
const TODAY: Client = Client {
    name: "confluent-kafka",
    words: &[],
    has_times: true,
};

/// A program and what the tests have to know of it.
#[derive(Clone, Copy)]
struct Client {
    name: &'static str,
    words: &'static [&'static str],
    /// Whether the messages that it writes and reads have timestamps (Kafka 0.10).
    has_times: bool,
}

const fn client(name: &'static str, words: &'static [&'static str], has_times: bool) -> Client {
    Client {
        name,
        words,
        has_times,
    }
}

const VERSION_0_10: &[&str] = &["--api-version", "0.10"];
const VERSION_0_9: &[&str] = &["--api-version", "0.9"];
const VERSION_0_9_0: &[&str] = &["--api-version", "0.9.0"];
const VERSION_0_8_2: &[&str] = &["--api-version", "0.8.2"];

#[test]
fn kafka_python_as_if_the_broker_were_old() {
    with_stage(|stage| {
        stage.one_by_one(client("kafka-python", VERSION_0_10, true), &CODECS)
            && stage.one_by_one(client("kafka-python", VERSION_0_9, false), &["lz4"])
            && stage.one_by_one(client("kafka-python", VERSION_0_8_2, false), &["gzip"])
    });
}

/// From 0.10 on it would ask for the versions of the APIs all the same, and use the newest.
#[test]
fn librdkafka_as_if_the_broker_were_old() {
    with_stage(|stage| {
        let newer = client("confluent-kafka", VERSION_0_9_0, false);
        let older = client("confluent-kafka", VERSION_0_8_2, false);
        stage.one_by_one(newer, &["none", "lz4"]) && stage.one_by_one(older, &["snappy", "gzip"])
    });
}

#[test]
fn java_of_2017() {
    with_stage(|stage| stage.all_at_once(client("java-0.10.2", &[], true)));
}

#[test]
fn java_of_2018() {
    with_stage(|stage| stage.all_at_once(client("java-1.1", &[], true)));
}

#[test]
fn java_of_2021() {
    with_stage(|stage| stage.all_at_once(client("java-2.8", &[], true)));
}

/// A broker, the lines and a place for outputs.
struct Stage {
    target: Target,
    scratch: Scratch,
    lines: Vec<String>,
}

/// Runs `play`, which gives up with `false` when a client is not installed.
fn with_stage(play: impl FnOnce(&Stage) -> bool) {
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"))
        // The records' timestamps lie years back: they must not be too old to keep.
        .set("log.retention.ms", -1);
    let line = |number: usize| match number % 7 {
        0 => String::new(),
        _ => format!(
            "line {number}, once more {number}, and its square: {}",
            number * number
        ),
    };
    let stage = Stage {
        target: Target::start(&options),
        lines: (1..=LINES).map(line).collect(),
        scratch,
    };
    let input: String = stage.lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(stage.input(), input).expect("the input fits into the scratch directory");
    if !play(&stage) {
        skip("a client is not installed");
    }
    stage.target.stop();
}

impl Stage {
    fn input(&self) -> PathBuf {
        self.scratch.join("input")
    }

    fn program(&self, client: Client, action: &str, topic: &str) -> Program {
        Program::client(client.name)
            .args([action, "--bootstrap", &self.target.bootstrap()])
            .args(["--topic", topic])
            .args(client.words)
    }

    /// False when the client is not installed.
    #[must_use]
    fn write(&self, writer: Client, topic: &str, codec: &str) -> bool {
        let program = self.program(writer, "produce", topic);
        let program = program
            .args(["--codec", codec, "--input"])
            .args([self.input()]);
        program.run().is_some()
    }

    /// Reads `topic` by `reader` and demands what `writer` wrote; false when it is not installed.
    #[must_use]
    fn read(&self, reader: Client, topic: &str, writer: Client) -> bool {
        let output = self.scratch.join("output");
        let program = self.program(reader, "consume", topic);
        let there = program.args(["--output"]).args([&output]).run().is_some();
        if there {
            self.compare(&output, topic, reader, writer);
        }
        there
    }

    /// Demands that the output is what `writer` wrote, as far as both can tell.
    fn compare(&self, output: &Path, topic: &str, reader: Client, writer: Client) {
        let output = fs::read_to_string(output).expect("the consumer's output");
        let mut records = output.lines();
        for (index, line) in self.lines.iter().enumerate() {
            let number = index + 1;
            let has_times = reader.has_times && writer.has_times;
            let timestamp = match i64::try_from(number) {
                Ok(number) if has_times => TIMESTAMP_MS_BASE + number,
                _ => -1,
            };
            let key = (number % 1000 != 500).then(|| number.to_string());
            let value = (!number.is_multiple_of(1000)).then_some(line);
            let length = |length: Option<usize>| length.map_or(-1, usize::cast_signed);
            let expected = format!(
                "{index}\t{timestamp}\t{}\t{}\t\t{}\t{}",
                length(key.as_ref().map(String::len)),
                key.unwrap_or_default(),
                length(value.map(String::len)),
                value.map_or("", String::as_str),
            );
            let what = format!(
                "{topic}, line {number}, read by {} {:?}",
                reader.name, reader.words
            );
            assert_eq!(records.next(), Some(expected.as_str()), "{what}");
        }
        assert_eq!(records.next(), None, "{topic}: records that nobody wrote");
    }

    /// A process for each codec and direction; false when a client is not installed.
    #[must_use]
    fn one_by_one(&self, old: Client, codecs: &[&str]) -> bool {
        let all = codecs.iter().all(|codec| {
            let topic = self.topic(old, codec);
            self.write(old, &topic, codec)
                && self.read(old, &topic, old)
                && self.read(TODAY, &topic, old)
        });
        let topic = self.topic(old, "today");
        let done = all
            && self.write(TODAY, &topic, codecs.last().expect("codecs"))
            && self.read(old, &topic, TODAY);
        self.tell(old, codecs, done);
        done
    }

    /// All codecs by one process for each direction: virtual machines start slowly. False when a
    /// client is not installed.
    #[must_use]
    fn all_at_once(&self, old: Client) -> bool {
        let topics = CODECS.map(|codec| self.topic(old, codec));
        if !self.write(old, &topics.join(","), &CODECS.join(",")) {
            return false;
        }
        let today = self.topic(old, "today");
        let done = topics.iter().all(|topic| self.read(TODAY, topic, old))
            && self.write(TODAY, &today, "lz4");
        if !done {
            return false;
        }
        let topics: Vec<String> = topics.into_iter().chain([today]).collect();
        let outputs: Vec<PathBuf> = topics
            .iter()
            .map(|topic| self.scratch.join(topic))
            .collect();
        let names: Vec<_> = outputs.iter().map(|path| path.to_string_lossy()).collect();
        let program = self.program(old, "consume", &topics.join(","));
        let read = program.args(["--output", &names.join(",")]).run();
        for (topic, output) in topics.iter().zip(&outputs) {
            self.compare(output, topic, old, old);
        }
        self.tell(old, &CODECS, read.is_some());
        read.is_some()
    }

    fn topic(&self, old: Client, purpose: &str) -> String {
        let words = old.words.concat().replace("--", "-");
        self.target.topic(&format!("{}{words}-{purpose}", old.name))
    }

    fn tell(&self, old: Client, codecs: &[&str], done: bool) {
        if done {
            let Client { name, words, .. } = old;
            say(&format!(
                "{name} {}: {}",
                words.join(" "),
                codecs.join(", ")
            ));
        }
    }
}
