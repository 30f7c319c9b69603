//! Third-party clients: a real text of 200,000 lines is produced by one client and consumed by it and by another, byte
//! for byte, for each codec, with keys, headers, nulls and timestamps as written. `tests/clients/README.md` tells how to
//! run one by hand.
//!
//! Never skips silently: a client that is not installed is named on standard error.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use support::{BrokerOptions, Program, Scratch, Target, say, text_file};

/// Lines that each client carries with one codec, its own turn in [`CLIENTS`].
const LINES: usize = 200_000;

/// Lines that it carries with each of the other codecs.
const LINES_SHORT: usize = 20_000;

const CODECS: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];

/// librdkafka compiles without zstd where that library's headers are missing, and says nothing.
const CODECS_WITHOUT_ZSTD: &[&str] = &["none", "gzip", "snappy", "lz4"];

/// Partitions of each topic; the clients write to different ones.
const PARTITIONS: usize = 3;

/// Timestamp of the record of line n: this plus n, in ms.
const TIMESTAMP_MS_BASE: i64 = 1_600_000_000_000;

/// What a client can and cannot express; everything else is the same for all.
struct Client {
    name: &'static str,
    codecs: &'static [&'static str],
    /// The codec with which it carries all lines.
    main_codec: &'static str,
    writes: Writes,
    /// How it prints a header whose value is null.
    reads_null_header_as: &'static str,
}

/// The attributes of a record that a client is able to write.
enum Writes {
    /// Key, value, timestamp and the headers `line`, `empty` and, if true, `none` with a null.
    EachRecord { null_header: bool },
    /// kcat: the same headers for all records, the time of writing as the timestamp, and no
    /// empty values: they become null.
    Uniform,
}

const fn client(name: &'static str, main_codec: &'static str, null_header: bool) -> Client {
    Client {
        name,
        codecs: CODECS,
        main_codec,
        writes: Writes::EachRecord { null_header },
        reads_null_header_as: "NULL",
    }
}

/// In a ring: what one client writes, the next one that is able to reads too.
const CLIENTS: [Client; 9] = [
    client("confluent-kafka", "zstd", true),
    client("java", "gzip", true),
    client("kafka-python", "lz4", false),
    client("franz-go", "snappy", true),
    client("kafkajs", "none", false),
    Client {
        writes: Writes::Uniform,
        ..client("kcat", "zstd", true)
    },
    client("sarama", "lz4", true),
    Client {
        codecs: CODECS_WITHOUT_ZSTD,
        reads_null_header_as: "",
        ..client("node-rdkafka", "snappy", false)
    },
    client("aiokafka", "gzip", true),
];

#[test]
fn confluent_kafka() {
    round_trip("confluent-kafka");
}

#[test]
fn java() {
    round_trip("java");
}

#[test]
fn kafka_python() {
    round_trip("kafka-python");
}

#[test]
fn franz_go() {
    round_trip("franz-go");
}

#[test]
fn kafkajs() {
    round_trip("kafkajs");
}

#[test]
fn kcat() {
    round_trip("kcat");
}

#[test]
fn sarama() {
    round_trip("sarama");
}

#[test]
fn node_rdkafka() {
    round_trip("node-rdkafka");
}

#[test]
fn aiokafka() {
    round_trip("aiokafka");
}

/// See `tests/clients/README.md`.
#[test]
fn librdkafka_learns_which_records_of_a_batch_are_refused() {
    let scratch = Scratch::new();
    let target = Target::start(&BrokerOptions::new(scratch.join("data")));
    let (bootstrap, prefix) = (target.bootstrap(), target.topic("batch"));
    let words = ["check", "--bootstrap", &bootstrap, "--topic", &prefix];
    let report = Program::client("librdkafka-0011").args(words).run();
    if let Some(report) = report {
        assert!(report.out.contains("refused alone"), "{report:?}");
    }
    target.stop();
}

fn round_trip(name: &str) {
    let turn = CLIENTS
        .iter()
        .position(|client| client.name == name)
        .expect("a client of the ring");
    let writer = &CLIENTS[turn];
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"))
        .set("num.partitions", PARTITIONS)
        // The records' timestamps lie years back: they must not be too old to keep.
        .set("log.retention.ms", -1);
    let target = Target::start(&options);
    let text = fs::read(text_file(LINES, &scratch.join("text"))).expect("the text just written");
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').take(LINES).collect();
    for &codec in writer.codecs {
        let count = if codec == writer.main_codec {
            LINES
        } else {
            LINES_SHORT
        };
        let input = scratch.join("input");
        let text: Vec<u8> = lines[..count]
            .iter()
            .flat_map(|l| [*l, b"\n"].concat())
            .collect();
        fs::write(&input, text).expect("the input fits into the scratch directory");
        let journey = Journey {
            writer,
            bootstrap: target.bootstrap(),
            topic: target.topic(&format!("{name}-{codec}")),
            partition: turn % PARTITIONS,
            started_ms: now_ms(),
            lines: &lines[..count],
        };
        // Once without idempotence and replicas, as older settings have it.
        let acks = if codec == "none" { "1" } else { "all" };
        if !journey.write(codec, acks, &input) {
            return;
        }
        assert!(
            journey.read(writer, &scratch),
            "{name} was there a moment ago"
        );
        let mut others = (1..CLIENTS.len())
            .map(|step| &CLIENTS[(turn + step) % CLIENTS.len()])
            .filter(|other| other.codecs.contains(&codec));
        let reader = others.find(|other| journey.read(other, &scratch));
        let by = reader.map_or("NO OTHER CLIENT, for none is installed", |reader| {
            reader.name
        });
        say(&format!(
            "{name} {codec}: {count} lines written, read by itself and by {by}"
        ));
    }
    target.stop();
}

/// One topic's way through the broker.
struct Journey<'a> {
    writer: &'a Client,
    bootstrap: String,
    topic: String,
    partition: usize,
    started_ms: i64,
    lines: &'a [&'a [u8]],
}

impl Journey<'_> {
    fn program(&self, client: &Client, action: &str) -> Program {
        let partition = self.partition.to_string();
        Program::client(client.name)
            .args([
                action,
                "--bootstrap",
                &self.bootstrap,
                "--topic",
                &self.topic,
            ])
            .args(["--partition", &partition])
    }

    /// False when the client is not installed.
    fn write(&self, codec: &str, acks: &str, input: &Path) -> bool {
        let program = self.program(self.writer, "produce");
        let program = program
            .args(["--codec", codec, "--acks", acks, "--input"])
            .args([input]);
        program.run().is_some()
    }

    /// False when the client is not installed.
    ///
    /// # Panics
    /// When a record is missing, too many or different.
    fn read(&self, reader: &Client, scratch: &Scratch) -> bool {
        let output: PathBuf = scratch.join("output");
        let program = self
            .program(reader, "consume")
            .args(["--output"])
            .args([&output]);
        if program.run().is_none() {
            return false;
        }
        let output = fs::read(&output).expect("the consumer's output");
        let mut records = output
            .strip_suffix(b"\n")
            .unwrap_or(&output)
            .split(|&b| b == b'\n');
        for (index, line) in self.lines.iter().enumerate() {
            let record = records.next().unwrap_or_default();
            let expected = self.expected(reader, index, line, record);
            assert!(
                record == expected,
                "{}, written by {} and read by {}, line {}:\nexpected {}\nread     {}",
                self.topic,
                self.writer.name,
                reader.name,
                index + 1,
                String::from_utf8_lossy(&expected),
                String::from_utf8_lossy(record)
            );
        }
        assert_eq!(
            records.count(),
            0,
            "{}: records that nobody wrote",
            self.topic
        );
        true
    }

    /// The canonical text of the record at `index`, see `tests/clients/README.md`.
    fn expected(&self, reader: &Client, index: usize, line: &[u8], read: &[u8]) -> Vec<u8> {
        let number = index + 1;
        let key = if number % 1000 == 500 {
            None
        } else {
            Some(number.to_string())
        };
        let value = if number.is_multiple_of(1000) {
            None
        } else {
            Some(line)
        };
        let null = reader.reads_null_header_as;
        let (value, headers, timestamp) = match self.writer.writes {
            Writes::EachRecord { null_header } => {
                let none = if null_header {
                    format!(",none={null}")
                } else {
                    String::new()
                };
                let timestamp = TIMESTAMP_MS_BASE + i64::try_from(number).expect("a small number");
                (value, format!("line={number},empty={none}"), timestamp)
            }
            Writes::Uniform => {
                let headers = format!("client=kcat,empty=,none={null}");
                (
                    value.filter(|value| !value.is_empty()),
                    headers,
                    self.time_of_writing(read),
                )
            }
        };
        let length = |length: Option<usize>| length.map_or(-1, |l| l.cast_signed());
        let mut text = format!(
            "{index}\t{timestamp}\t{}\t{}\t{headers}\t{}\t",
            length(key.as_ref().map(String::len)),
            key.unwrap_or_default(),
            length(value.map(<[u8]>::len)),
        )
        .into_bytes();
        text.extend_from_slice(value.unwrap_or_default());
        text
    }

    /// The timestamp of a record that was read, if it can be the time at which it was written;
    /// otherwise a time at which it can.
    fn time_of_writing(&self, read: &[u8]) -> i64 {
        let field = read.split(|&byte| byte == b'\t').nth(1).unwrap_or_default();
        let timestamp = std::str::from_utf8(field)
            .ok()
            .and_then(|text| text.parse().ok());
        let possible = self.started_ms..=now_ms();
        timestamp
            .filter(|timestamp| possible.contains(timestamp))
            .unwrap_or(self.started_ms)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292 million")
}
