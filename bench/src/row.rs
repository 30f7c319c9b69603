//! One row of results: a load on a topic of its own, created before and removed after, and its printed line, the
//! same for any broker.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chronik_protocol::record::Compression;
use chronik_protocol::{ApiKey, ErrorCode};
use clap::ValueEnum;

use crate::consumer::{Consumption, Position};
use crate::frames::{self, Payload};
use crate::generator;
use crate::load::{Load, LoadResult, Pace};
use crate::rpc::{EARLIEST, LATEST, Rpc, invalid};
use crate::target::Target;

/// Most bytes of one partition in a fetch reply, as Kafka's consumer asks.
const PARTITION_FETCH_BYTES: i32 = 1 << 20;

/// The durability behind an answer of `acks=all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promise {
    /// On stable storage. Kafka's nearest: `flush.messages=1`.
    Disk,
    /// Survives the end of the process. Kafka's default.
    Process,
    /// The broker's default.
    Broker,
}

impl Promise {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Process => "process",
            Self::Broker => "broker",
        }
    }

    /// The topic's configs for Chronik and for any other broker.
    fn configs(self) -> [&'static [(&'static str, &'static str)]; 2] {
        match self {
            Self::Disk => [
                &[("chronik.durability", "disk")],
                &[("flush.messages", "1")],
            ],
            Self::Process => [&[("chronik.durability", "process")], &[]],
            Self::Broker => [&[], &[]],
        }
    }
}

/// The length of a row.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Unmeasured load first.
    pub(crate) warm_up: Duration,
    /// Length of the measured window.
    pub(crate) measured: Duration,
    /// Bytes after which the window ends early.
    pub(crate) bytes_max: u64,
}

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its printed name.
    pub(crate) name: String,
    /// A topic created if missing and kept; `None` for one that lives as long as the row.
    pub(crate) topic: Option<String>,
    /// Partitions of the topic; requests go to each in turn.
    pub(crate) partitions: i32,
    /// The topic's durability.
    pub(crate) promise: Promise,
    /// More configs of the topic.
    pub(crate) configs: Vec<(String, String)>,
    /// Producing connections, used in turn.
    pub(crate) connections: usize,
    /// Consuming connections, each with a share of the partitions.
    pub(crate) consumers: usize,
    /// The rule for the next request.
    pub(crate) pace: Pace,
    /// Records in the one batch of a request.
    pub(crate) records: usize,
    /// Bytes of each record's value.
    pub(crate) record_bytes: usize,
    /// Different keys; 0 for none.
    pub(crate) keys: usize,
    /// 0, 1 or −1.
    pub(crate) acks: i16,
    /// The codec of the batches.
    pub(crate) codec: Compression,
}

/// Prints the columns' headings.
pub(crate) fn print_heading() {
    println!(
        " P promise load                      req/s    MB/s     p50     p99   p99.9     max µs  \
         CPU µs/req  CPU s/GB (+kernel)   RSS MiB"
    );
}

impl Row {
    /// The first columns: partitions, promise, name.
    pub(crate) fn title(&self) -> String {
        format!(
            "{:>2} {:<7} {:<22}",
            self.partitions,
            self.promise.name(),
            self.name
        )
    }

    /// Runs the load and prints its line; false when a reply carried an error or never came.
    pub(crate) fn run(&self, target: &Target, limits: &Limits) -> bool {
        match self.measure(target, limits) {
            Ok(outcome) => {
                self.print(&outcome);
                outcome.is_sound()
            }
            Err(error) => {
                println!("{} failed: {error}", self.title());
                false
            }
        }
    }

    /// Prints the line of the results.
    pub(crate) fn print(&self, outcome: &LoadResult) {
        println!("{} {}", self.title(), columns(outcome));
    }

    /// Creates the topic, runs the load and removes the topic.
    ///
    /// # Errors
    /// When the topic cannot be created or removed, or a connection fails.
    pub(crate) fn measure(&self, target: &Target, limits: &Limits) -> io::Result<LoadResult> {
        let mut rpc = Rpc::connect(target.address)?;
        let topic = self.create_topic(&mut rpc)?;
        let outcome = self.load(&mut rpc, target, limits, &topic);
        if self.topic.is_none() {
            let deleted = rpc.delete_topic(&topic)?;
            if deleted != ErrorCode::None {
                return Err(invalid(format!("{topic} cannot be deleted: {deleted:?}")));
            }
        }
        outcome
    }

    fn load(
        &self,
        rpc: &mut Rpc,
        target: &Target,
        limits: &Limits,
        topic: &str,
    ) -> io::Result<LoadResult> {
        rpc.await_topic(topic, self.partitions)?;
        let payload = Payload {
            topic: topic.to_owned(),
            partitions: self.partitions,
            records: self.records,
            record_bytes: self.record_bytes,
            keys: self.keys,
            acks: self.acks,
            codec: self.codec,
            version: rpc.version(ApiKey::Produce)?,
        };
        let consumption = match self.consumers {
            0 => None,
            connections => Some(tail(rpc, topic, self.partitions, connections)?),
        };
        let load = Load {
            address: target.address,
            connections: self.connections,
            pace: self.pace,
            consumption,
            warm_up: limits.warm_up,
            measured: limits.measured,
            bytes_max: limits.bytes_max,
        };
        generator::run(&load, &frames::build(&payload)?, &target.subject)
    }

    /// Creates the topic and returns its name. A broker that does not know Chronik's config gets Kafka's for the same
    /// promise.
    fn create_topic(&self, rpc: &mut Rpc) -> io::Result<String> {
        static TOPICS: AtomicU32 = AtomicU32::new(0);
        let topic = self.topic.clone().unwrap_or_else(|| {
            let number = TOPICS.fetch_add(1, Ordering::Relaxed);
            let promise = self.promise.name();
            format!("bench-{promise}-{}-{number}", std::process::id())
        });
        let mut answer = ErrorCode::InvalidConfig;
        for of_promise in self.promise.configs() {
            let given = self.configs.iter();
            let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
            let configs: Vec<_> = of_promise.iter().copied().chain(given).collect();
            answer = rpc.create_topic(&topic, self.partitions, &configs)?;
            if answer != ErrorCode::InvalidConfig {
                break;
            }
        }
        match answer {
            ErrorCode::None => Ok(topic),
            ErrorCode::TopicAlreadyExists if self.topic.is_some() => Ok(topic),
            _ => Err(invalid(format!("{topic} cannot be created: {answer:?}"))),
        }
    }
}

/// Consumption from the present end on.
fn tail(
    rpc: &mut Rpc,
    topic: &str,
    partitions: i32,
    connections: usize,
) -> io::Result<Consumption> {
    let latest = rpc.offsets(topic, partitions, LATEST)?;
    let positions = (0..partitions).zip(latest);
    let positions = positions.map(|(partition, offset)| Position {
        partition,
        offset,
        end: None,
    });
    Ok(Consumption {
        connections,
        topic: topic.to_owned(),
        positions: positions.collect(),
        version: rpc.version(ApiKey::Fetch)?,
        partition_bytes_max: PARTITION_FETCH_BYTES,
        bytes_per_tick: None,
    })
}

/// Consumption of the stored records, from the first offset to the present end.
///
/// # Errors
/// When the broker does not give the offsets.
pub(crate) fn stored(
    rpc: &mut Rpc,
    topic: &str,
    partitions: i32,
    connections: usize,
) -> io::Result<Consumption> {
    let earliest = rpc.offsets(topic, partitions, EARLIEST)?;
    let latest = rpc.offsets(topic, partitions, LATEST)?;
    let mut consumption = tail(rpc, topic, partitions, connections)?;
    let ends = consumption.positions.iter_mut().zip(earliest).zip(latest);
    for ((position, earliest), latest) in ends {
        position.offset = earliest;
        position.end = Some(latest);
    }
    Ok(consumption)
}

/// Consumes everything asked for, at most for the given time.
///
/// # Errors
/// When a connection or a fetch fails.
pub(crate) fn read(
    consumption: Consumption,
    at_most: Duration,
    target: &Target,
) -> io::Result<LoadResult> {
    let load = Load {
        address: target.address,
        connections: 0,
        pace: Pace::Closed { in_flight: 1 },
        consumption: Some(consumption),
        warm_up: Duration::ZERO,
        measured: at_most,
        bytes_max: u64::MAX,
    };
    generator::run(&load, &[], &target.subject)
}

fn columns(outcome: &LoadResult) -> String {
    let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let latency_us = |quantile| outcome.latency_us.value_at_quantile(quantile);
    let broker = outcome.usage.broker();
    let mut columns = format!(
        "{:>9.0} {:>7.1} {:>7} {:>7} {:>7} {:>10} {:>11.1} {}",
        outcome.requests as f64 / seconds,
        outcome.bytes as f64 / 1e6 / seconds,
        latency_us(0.5),
        latency_us(0.99),
        latency_us(0.999),
        outcome.latency_us.max(),
        broker.as_micros() as f64 / outcome.requests.max(1) as f64,
        costs(outcome, outcome.bytes),
    );
    if let Some(code) = outcome.first_error {
        let failures = outcome.failures;
        columns += &format!(
            "  {failures} replies with errors, first {:?}",
            ErrorCode::try_from(code)
        );
    }
    if outcome.unanswered > 0 {
        columns += &format!("  {} requests unanswered", outcome.unanswered);
    }
    if outcome.others_share() > 0.1 {
        let percent = outcome.others_share() * 100.0;
        columns += &format!("  (other processes took {percent:.0} % of a core)");
    }
    if outcome.unpaired > 0 {
        columns += &format!("  {} batches not consumed", outcome.unpaired);
    }
    columns
}

/// Processor time per GB of the broker's process, and with the kernel's threads; memory.
fn costs(outcome: &LoadResult, bytes: u64) -> String {
    let gigabytes = (bytes as f64 / 1e9).max(f64::MIN_POSITIVE);
    let resident = match outcome.resident_bytes_max {
        0 => "?".to_owned(),
        bytes => (bytes >> 20).to_string(),
    };
    format!(
        "{:>9.2} ({:>7.2}) {:>9}",
        outcome.usage.broker().as_secs_f64() / gigabytes,
        outcome.usage.with_kernel().as_secs_f64() / gigabytes,
        resident,
    )
}

/// Prints the consumers' results, if any: one line of end-to-end latency, one of fetches.
pub(crate) fn print_consumed(outcome: &LoadResult) {
    let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let rate = format!("{:.0}", outcome.fetches as f64 / seconds);
    let megabytes = format!("{:.1}", outcome.fetched_bytes as f64 / 1e6 / seconds);
    let kinds = [
        ("end to end", &outcome.end_to_end_us, "", ""),
        ("fetch", &outcome.fetch_us, &rate, &megabytes),
    ];
    for (name, latency_us, rate, megabytes) in kinds {
        if latency_us.is_empty() {
            continue;
        }
        let of = |quantile| latency_us.value_at_quantile(quantile);
        println!(
            "           {name:<22} {rate:>9} {megabytes:>7} {:>7} {:>7} {:>7} {:>10}",
            of(0.5),
            of(0.99),
            of(0.999),
            latency_us.max(),
        );
    }
    if outcome.requests == 0 {
        println!(
            "           {:<22} {:>9.0} records/s; CPU s/GB (+kernel), RSS MiB: {}",
            "",
            outcome.fetched_records as f64 / seconds,
            costs(outcome, outcome.fetched_bytes)
        );
    }
}
