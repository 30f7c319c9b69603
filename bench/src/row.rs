//! Owns one row of results: a load on a topic of its own, made before and removed after, and its
//! line of print, the same for any broker.

use std::io;
use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_protocol::record::Compression;
use clap::ValueEnum;

use crate::frames::{self, Payload};
use crate::load::{self, Load, Outcome, Pace};
use crate::process;
use crate::rpc::{Rpc, TopicConfig, invalid};
use crate::target::Target;

/// When `acks=all` is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promise {
    /// On stable storage. Kafka's nearest: `flush.messages=1`.
    Disk,
    /// Survives the end of the process. Kafka's default.
    Process,
}

impl Promise {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Process => "process",
        }
    }

    /// The topic's configs for Chronik and for any other broker.
    fn configs(self) -> [&'static [TopicConfig<'static>]; 2] {
        match self {
            Self::Disk => [
                &[("chronik.durability", "disk")],
                &[("flush.messages", "1")],
            ],
            Self::Process => [&[("chronik.durability", "process")], &[]],
        }
    }
}

/// How long and how much a row runs.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Unmeasured load first.
    pub(crate) warm_up: Duration,
    /// Length of the measured window.
    pub(crate) measured: Duration,
    /// Record bytes after which the window ends early.
    pub(crate) bytes_max: u64,
}

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What it is called in print.
    pub(crate) name: String,
    /// Partitions of the topic; requests go to each in turn.
    pub(crate) partitions: i32,
    /// The topic's durability.
    pub(crate) promise: Promise,
    /// Connections, each used in turn.
    pub(crate) connections: usize,
    /// When requests are sent.
    pub(crate) pace: Pace,
    /// Records in the one batch of a request.
    pub(crate) records: usize,
    /// Bytes of each record's value.
    pub(crate) record_bytes: usize,
    /// 1 or −1.
    pub(crate) acks: i16,
    /// How batches are compressed.
    pub(crate) codec: Compression,
}

/// Prints what the columns mean.
pub(crate) fn print_heading() {
    println!(
        " P promise load                      req/s    MB/s     p50     p99   p99.9     max µs  \
         CPU µs/req  CPU s/GB (machine)   RSS MiB"
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
                println!("{} {}", self.title(), columns(target, &outcome));
                outcome.failures == 0 && outcome.unanswered == 0
            }
            Err(error) => {
                println!("{} failed: {error}", self.title());
                false
            }
        }
    }

    fn measure(&self, target: &Target, limits: &Limits) -> io::Result<Outcome> {
        let topic = format!(
            "bench-{}-{}-{}",
            self.partitions,
            self.promise.name(),
            std::process::id()
        );
        let mut rpc = Rpc::connect(target.address)?;
        create_topic(&mut rpc, &topic, self.partitions, self.promise)?;
        let outcome = self.load(target, limits, &topic);
        let deleted = rpc.delete_topic(&topic)?;
        if deleted != ErrorCode::None {
            return Err(invalid(format!("{topic} cannot be deleted: {deleted:?}")));
        }
        outcome
    }

    fn load(&self, target: &Target, limits: &Limits, topic: &str) -> io::Result<Outcome> {
        let payload = Payload {
            topic: topic.to_owned(),
            partitions: self.partitions,
            records: self.records,
            record_bytes: self.record_bytes,
            acks: self.acks,
            codec: self.codec,
        };
        let load = Load {
            address: target.address,
            connections: self.connections,
            pace: self.pace,
            warm_up: limits.warm_up,
            measured: limits.measured,
            bytes_max: limits.bytes_max,
        };
        load::run(&load, &frames::build(&payload)?, || {
            process::usage(target.pid)
        })
    }
}

fn create_topic(rpc: &mut Rpc, topic: &str, partitions: i32, promise: Promise) -> io::Result<()> {
    let [own, general] = promise.configs();
    let mut answer = rpc.create_topic(topic, partitions, own)?;
    if answer == ErrorCode::InvalidConfig {
        answer = rpc.create_topic(topic, partitions, general)?;
    }
    if answer != ErrorCode::None {
        return Err(invalid(format!("{topic} cannot be created: {answer:?}")));
    }
    Ok(())
}

fn columns(target: &Target, outcome: &Outcome) -> String {
    let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let gigabytes = (outcome.bytes as f64 / 1e9).max(f64::MIN_POSITIVE);
    let latency_us = |quantile| outcome.latency_us.value_at_quantile(quantile);
    let resident = target.pid.and_then(process::resident_bytes);
    let mut columns = format!(
        "{:>9.0} {:>7.1} {:>7} {:>7} {:>7} {:>10} {:>11.1} {:>9.2} ({:>7.2}) {:>9}",
        outcome.requests as f64 / seconds,
        outcome.bytes as f64 / 1e6 / seconds,
        latency_us(0.5),
        latency_us(0.99),
        latency_us(0.999),
        outcome.latency_us.max(),
        outcome.usage.broker.as_micros() as f64 / outcome.requests.max(1) as f64,
        outcome.usage.broker.as_secs_f64() / gigabytes,
        outcome.usage.machine.as_secs_f64() / gigabytes,
        resident.map_or_else(|| "?".to_owned(), |bytes| (bytes >> 20).to_string()),
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
    columns
}
