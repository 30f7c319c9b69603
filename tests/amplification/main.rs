//! No request costs more than its length allows: every array of every advertised request is filled, with the same
//! element repeated and with different ones, and the broker's costs are measured. Made from the schema, so that a new
//! API or array is tried without a change here.
//!
//! Checked: the answer's bytes for each byte of the request; the memory beyond the answer; that eight times the
//! elements cost some eight times the processor time, not 64 times; and that the process lives, its watchdog included.

#[path = "../support/mod.rs"]
mod support;

mod requests;
#[path = "../../protocol/build/schema.rs"]
#[allow(dead_code, reason = "the generator's model; the test walks part of it")]
mod schema;
mod stalls;

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use chronik_protocol::ApiKey;
use chronik_protocol::messages::ApiVersionsRequest;
use chronik_protocol::versions::ADVERTISED;

use requests::{Elements, Fill, Known, Path, arrays, frame};
use schema::{Family, Message};
use support::calls::create_topic;
use support::client::Client;
use support::{Broker, BrokerOptions, Scratch, groups, measured};

/// Bytes of an answer for each byte of its request, beside [`ANSWER_BYTES_BASE`].
const ANSWER_BYTES_PER_BYTE: usize = 64;
const ANSWER_BYTES_BASE: usize = 64 << 10;
/// APIs that tell much of what is named in few bytes, as Kafka's do: their answers have a bound of
/// their own, and beyond it the connection is closed.
const AMPLIFYING: [ApiKey; 5] = [
    ApiKey::OffsetFetch,
    ApiKey::DescribeGroups,
    ApiKey::DescribeConfigs,
    ApiKey::ConsumerGroupDescribe,
    ApiKey::FindCoordinator,
];
const AMPLIFIED_BYTES_MAX: usize = 101 << 20;
/// Memory that one request may take beyond its answer, bytes.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// How much longer the longer of two requests is.
const TIMES: u32 = 8;
/// It may take so many times the processor time at most: far from both, for quadratic work takes `TIMES`²
/// as much.
const TIMES_CPU_MAX: u32 = 24;
/// Beside so much, for both are small.
const CPU_BASE: Duration = Duration::from_millis(300);

struct Bench {
    broker: Broker,
    known: Known,
    _scratch: Scratch,
}

fn bench() -> Bench {
    let scratch = Scratch::new();
    let broker = BrokerOptions::new(scratch.join("data"))
        .set("chronik.shards", 1)
        .set("auto.create.topics.enable", false)
        .set("offsets.topic.num.partitions", 2)
        .set("group.initial.rebalance.delay.ms", 1)
        .set("group.min.session.timeout.ms", 1)
        .start();
    let mut client = Client::connect(broker.address());
    let topic_id = create_topic(&mut client, "t", 100, &[]).0;
    groups::find_coordinator(&mut client, "g");
    for partition in 0..100 {
        groups::commit(&mut client, "g", "t", partition, 5);
    }
    let known = Known { topic_id };
    Bench {
        broker,
        known,
        _scratch: scratch,
    }
}

/// Requests by API key, from the schema's files.
fn requests_by_key() -> Vec<(ApiKey, Message)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/protocol/schema");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the schema") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        for message in schema::parse(&path.display().to_string(), &text) {
            if let (Family::Request, Some(number)) = (message.family, message.number)
                && let Ok(key) = ApiKey::try_from(number)
            {
                found.push((key, message));
            }
        }
    }
    found
}

impl Bench {
    /// Processor time of the broker so far.
    fn cpu(&self) -> Duration {
        measured::processor_time(self.broker.pid())
    }

    fn ask(&self, frame: &[u8]) -> Option<usize> {
        ask(&self.broker, frame)
    }

    fn lives(&mut self, what: &str) {
        let patience = Duration::from_millis(1);
        assert!(
            self.broker.wait_for_exit(patience).is_none(),
            "{what} ended the process"
        );
        Client::connect(self.broker.address()).call(&ApiVersionsRequest::default(), 0);
    }
}

/// Sends a request; bytes of its answer, `None` if the connection was closed instead.
fn ask(broker: &Broker, frame: &[u8]) -> Option<usize> {
    let mut stream = broker.connect();
    // The broker may close the connection while it is being written to.
    if stream.write_all(frame).is_err() {
        return None;
    }
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return None;
    }
    let length = u64::from(u32::from_be_bytes(length));
    let read = std::io::copy(&mut stream.take(length), &mut std::io::sink());
    Some(usize::try_from(read.expect("the whole answer")).expect("fits"))
}

/// Every array of the least and the greatest advertised version of every API.
fn for_every_array(mut visit: impl FnMut(ApiKey, &Message, i16, &Path)) {
    let messages = requests_by_key();
    for range in &ADVERTISED {
        let of_key = messages.iter().find(|(key, _)| *key == range.key);
        let (_, message) = of_key.expect("in the schema");
        for version in [range.min, range.max] {
            for path in arrays(message, version) {
                visit(range.key, message, version, &path);
            }
        }
    }
}

#[test]
fn work_and_answers_grow_as_requests_do() {
    let mut bench = bench();
    let mut tried = 0;
    for_every_array(|key, message, version, path| {
        for elements in [Elements::Same, Elements::Different] {
            let what = format!("{key} version {version}, {} {elements:?}", path.join("."));
            let spent: Vec<Duration> = [1, TIMES]
                .map(|times| {
                    let fill = Fill {
                        path,
                        elements,
                        bytes: (8 << 10) * times as usize,
                        known: &bench.known,
                    };
                    let header = key.request_header_version(version);
                    let frame = frame(message, version, header, &fill);
                    let before = bench.cpu();
                    let answer = bench.ask(&frame).unwrap_or(0);
                    let bound = if AMPLIFYING.contains(&key) {
                        AMPLIFIED_BYTES_MAX
                    } else {
                        frame.len() * ANSWER_BYTES_PER_BYTE + ANSWER_BYTES_BASE
                    };
                    assert!(
                        answer <= bound,
                        "{what}: {} bytes, {answer} back",
                        frame.len()
                    );
                    bench.cpu() - before
                })
                .to_vec();
            let bound = spent[0] * TIMES_CPU_MAX + CPU_BASE;
            measured::time_within(&what, spent[1], bound);
            tried += 1;
        }
        bench.lives(&format!("{key} version {version}"));
    });
    assert!(tried > 100, "{tried} cases");
    assert!(
        bench.cpu() > Duration::ZERO,
        "the kernel counts processor time"
    );
    bench.broker.stop();
}

#[test]
fn a_request_of_a_megabyte_takes_little_memory_beyond_its_answer() {
    let mut bench = bench();
    for_every_array(|key, message, version, path| {
        // Arrays within the first element of another take no less than that one does.
        let newest = ADVERTISED
            .iter()
            .any(|range| range.key == key && range.max == version);
        if path.len() > 1 || !newest {
            return;
        }
        for elements in [Elements::Same, Elements::Different] {
            let what = format!("{key} version {version}, {} {elements:?}", path.join("."));
            let fill = Fill {
                path,
                elements,
                bytes: 1 << 20,
                known: &bench.known,
            };
            let frame = frame(message, version, key.request_header_version(version), &fill);
            let pid = bench.broker.pid();
            let before = measured::memory(pid);
            measured::forget_peak(pid);
            // What would have been too long had come as far as that.
            let answer = bench.ask(&frame).unwrap_or(AMPLIFIED_BYTES_MAX) as u64;
            assert!(
                answer < AMPLIFIED_BYTES_MAX as u64 || AMPLIFYING.contains(&key),
                "{what} closed the connection"
            );
            let took = measured::memory_peak(pid).saturating_sub(before);
            measured::memory_within(&what, took, answer + MEMORY_BYTES_MAX);
            bench.lives(&what);
        }
    });
    bench.broker.stop();
}
