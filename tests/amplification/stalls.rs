//! The delay of other connections beside the largest requests: printed, since no bound on it holds on a busy machine.
//!
//! A connection on each shard asks for ApiVersions, one request after the other, while a request of 1 MiB is decoded and
//! answered; the longest answer shows how long the shard was held. `CHRONIK_STALL_PARTITIONS=10000` gives the named
//! topic so many partitions, `CHRONIK_STALL_TOPICS` makes so many more topics of ten, with the names that requests with
//! different elements use; `CHRONIK_STALL_TIMES` repeats each request and prints the least; `CHRONIK_STALL_ONLY` is part
//! of the name of the only APIs to try; `CHRONIK_STALL_SHARDS` is the number of shards; `CHRONIK_TEST_BINARY` is the
//! optimised broker.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chronik_protocol::messages::{DescribeLogDirsRequest, MetadataRequest};
use chronik_protocol::versions::ADVERTISED;
use chronik_protocol::{ApiKey, frame::encode_request};

use crate::requests::{Elements, Fill, Known, frame};
use crate::support::calls::{creatable, create_topic, create_topics};
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, groups};
use crate::{ask, for_every_array};

/// ApiVersions version 0, its length in front.
const PROBE: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255];

/// The longest answer to a probe since it was asked last.
struct Prober {
    longest_ns: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    fn start(mut stream: TcpStream) -> Self {
        let longest_ns = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (longest, end) = (Arc::clone(&longest_ns), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            let mut answer = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                stream.write_all(&PROBE).expect("a probe");
                let mut length = [0; 4];
                stream.read_exact(&mut length).expect("an answer");
                answer.resize(u32::from_be_bytes(length) as usize, 0);
                stream.read_exact(&mut answer).expect("the answer");
                let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                longest.fetch_max(took, Ordering::Relaxed);
            }
        });
        Self {
            longest_ns,
            ended,
            thread: Some(thread),
        }
    }
}

/// The longest answer to a probe while a request is answered, and the length of its answer.
fn beside(probers: &[Prober], broker: &Broker, frame: &[u8]) -> (Duration, Option<usize>) {
    let longest = |prober: &Prober| prober.longest_ns.swap(0, Ordering::Relaxed);
    probers.iter().for_each(|prober| {
        longest(prober);
    });
    let answer = ask(broker, frame);
    // The last probe began before the answer and may end after it.
    thread::sleep(Duration::from_millis(2));
    let longest = probers.iter().map(longest).max().unwrap_or(0);
    (Duration::from_nanos(longest), answer)
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the prober's connection ended");
        }
    }
}

fn number(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().expect("a number"))
}

/// A request as a frame.
fn encoded<Q: chronik_protocol::Request>(key: ApiKey, request: &Q) -> Vec<u8> {
    let newest = ADVERTISED.iter().find(|range| range.key == key);
    let version = newest.expect("advertised").max;
    let parts = encode_request(7, None, request, version);
    parts.expect("encodes").concat()
}

/// A broker with a topic of many partitions, and as many others as asked for.
fn populated(scratch: &Scratch) -> (Broker, Known) {
    let broker = BrokerOptions::new(scratch.join("data"))
        .set("chronik.shards", number("CHRONIK_STALL_SHARDS", 1))
        .set("auto.create.topics.enable", false)
        .set("offsets.topic.num.partitions", 2)
        .set("group.initial.rebalance.delay.ms", 1)
        .set("group.min.session.timeout.ms", 1)
        .start();
    let mut client = Client::connect(broker.address());
    let partitions = i32::try_from(number("CHRONIK_STALL_PARTITIONS", 100)).expect("small");
    let topic_id = create_topic(&mut client, "t", partitions, &[]).0;
    for hundred in 0..number("CHRONIK_STALL_TOPICS", 0) / 100 {
        let names = (0..100).map(|n| creatable(&format!("{:x}", hundred * 100 + n), 10, &[]));
        create_topics(&mut client, names.collect()).expect("created");
    }
    groups::find_coordinator(&mut client, "g");
    (broker, Known { topic_id })
}

#[test]
fn how_long_others_wait_beside_large_requests_is_printed() {
    let times = number("CHRONIK_STALL_TIMES", 1);
    let only = std::env::var("CHRONIK_STALL_ONLY").unwrap_or_default();
    let scratch = Scratch::new();
    let (mut broker, known) = populated(&scratch);
    let shards = 0..number("CHRONIK_STALL_SHARDS", 1);
    let probers = shards.map(|_| Prober::start(broker.connect()));
    let probers: Vec<Prober> = probers.collect();
    let mut measured = 0;
    let mut measure = |what: &str, frame: &[u8]| {
        if !what.contains(&only) {
            return;
        }
        let runs = (0..times).map(|_| beside(&probers, &broker, frame));
        let (longest, answer) = runs.min().expect("once at least");
        measured += 1;
        eprintln!(
            "{:9.2} ms beside {what}: {} KiB, {} KiB back",
            longest.as_secs_f64() * 1e3,
            frame.len() >> 10,
            answer.unwrap_or(0) >> 10
        );
    };
    let all = encoded(
        ApiKey::Metadata,
        &MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        },
    );
    measure("Metadata of everything", &all);
    let all = encoded(
        ApiKey::DescribeLogDirs,
        &DescribeLogDirsRequest {
            topics: None,
            ..DescribeLogDirsRequest::default()
        },
    );
    measure("DescribeLogDirs of everything", &all);
    // What takes the topics away comes last.
    for last in [false, true] {
        for_every_array(|key, message, version, path| {
            if (key == ApiKey::DeleteTopics) != last {
                return;
            }
            let newest = ADVERTISED
                .iter()
                .any(|range| range.key == key && range.max == version);
            if !newest {
                return;
            }
            for elements in [Elements::Same, Elements::Different] {
                let fill = Fill {
                    path,
                    elements,
                    bytes: 1 << 20,
                    known: &known,
                };
                let frame = frame(message, version, key.request_header_version(version), &fill);
                let what = format!("{key} version {version}, {} {elements:?}", path.join("."));
                measure(&what, &frame);
            }
        });
    }
    assert!(measured > 0, "nothing is called {only}");
    drop(probers);
    let lives = broker.wait_for_exit(Duration::from_millis(1)).is_none();
    assert!(lives, "the process ended");
    broker.stop();
}
