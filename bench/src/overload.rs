//! The overload instrument: far more load than the broker can take, from many connections, beside readers that take
//! almost nothing of the records they fetch.
//!
//! Never calls slowness a failure: the criteria are bounded memory, fairness between connections, and no request
//! that ends with an error or a closed connection.

use std::io;
use std::time::Duration;

use chronik_protocol::record::Compression;
use chronik_protocol::{ApiKey, ErrorCode};
use clap::Args;

use crate::consumer::{Consumption, Position};
use crate::frames::{self, Payload};
use crate::generator;
use crate::load::{Load, LoadResult, Pace};
use crate::row;
use crate::rpc::{Rpc, invalid};
use crate::target::Target;

const TOPIC: &str = "overload";
const RECORDS: usize = 16;
const RECORD_BYTES: usize = 1024;
/// Bytes a slow reader fetches in one request: many, because the broker must not hold them for all of them.
const SLOW_PARTITION_BYTES: i32 = 16 << 20;

/// The extent of the overload.
#[derive(Args, Debug)]
pub(crate) struct OverloadOptions {
    /// Connections that send as fast as the broker takes it
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Requests of 16 KiB each of them keeps unanswered
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Connections that ask for 16 MiB and read 4 KiB of it four times a second
    #[arg(long, default_value_t = 100)]
    slow_readers: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 16)]
    partitions: i32,
    /// Seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Record bytes (in GB) after which it ends early: the disk has an end
    #[arg(long, default_value_t = 40)]
    gigabytes_max: u64,
    /// MB of records stored first, for the slow readers
    #[arg(long, default_value_t = 1_000)]
    stored_megabytes: u64,
    /// Fail when the broker's memory was ever above this, MiB
    #[arg(long)]
    resident_mib_max: Option<u64>,
    /// Fail when a connection was served so many times as often as another
    #[arg(long, default_value_t = 3.0)]
    unfairness_max: f64,
}

impl OverloadOptions {
    /// Runs it and prints the results; false when a limit was passed or a request failed.
    ///
    /// # Errors
    /// When a connection is closed or a fetch fails: the broker may throttle, not refuse.
    pub(crate) fn run(&self, target: &Target) -> io::Result<bool> {
        if self.connections == 0 || self.in_flight == 0 || self.partitions < 1 {
            return Err(io::Error::other("counts start at 1"));
        }
        let mut rpc = Rpc::connect(target.address)?;
        let created = rpc.create_topic(TOPIC, self.partitions, &[])?;
        if created != ErrorCode::None {
            return Err(invalid(format!("{TOPIC} cannot be created: {created:?}")));
        }
        let outcome = self.load(&mut rpc, target);
        rpc.delete_topic(TOPIC)?;
        Ok(self.judge(&outcome?))
    }

    fn load(&self, rpc: &mut Rpc, target: &Target) -> io::Result<LoadResult> {
        rpc.await_topic(TOPIC, self.partitions)?;
        let frames = frames::build(&Payload {
            topic: TOPIC.to_owned(),
            partitions: self.partitions,
            records: RECORDS,
            record_bytes: RECORD_BYTES,
            keys: 0,
            acks: -1,
            codec: Compression::None,
            version: rpc.version(ApiKey::Produce)?,
        })?;
        let store = Load {
            address: target.address,
            connections: 4,
            pace: Pace::Closed { in_flight: 5 },
            consumption: None,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(60),
            bytes_max: self.stored_megabytes * 1_000_000,
        };
        generator::run(&store, &frames, &target.subject)?;
        let load = Load {
            connections: self.connections,
            pace: Pace::Closed {
                in_flight: self.in_flight,
            },
            consumption: self.slow_readers(rpc)?,
            measured: Duration::try_from_secs_f64(self.seconds).map_err(io::Error::other)?,
            bytes_max: self.gigabytes_max.saturating_mul(1_000_000_000),
            ..store
        };
        generator::run(&load, &frames, &target.subject)
    }

    fn slow_readers(&self, rpc: &mut Rpc) -> io::Result<Option<Consumption>> {
        if self.slow_readers == 0 {
            return Ok(None);
        }
        let stored = row::stored(rpc, TOPIC, self.partitions, self.slow_readers)?;
        let positions = stored.positions.iter();
        let endless = positions.map(|position| Position {
            end: None,
            ..*position
        });
        Ok(Some(Consumption {
            positions: endless.collect(),
            partition_bytes_max: SLOW_PARTITION_BYTES,
            bytes_per_tick: Some(4096),
            ..stored
        }))
    }

    fn judge(&self, outcome: &LoadResult) -> bool {
        let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let tenths: Vec<u64> = (0..=10)
            .filter_map(|tenth| {
                outcome
                    .served
                    .get(outcome.served.len().saturating_sub(1) * tenth / 10)
            })
            .copied()
            .collect();
        let (least, most) = (
            tenths.first().copied().unwrap_or_default(),
            tenths.last().copied().unwrap_or_default(),
        );
        let unfairness = most as f64 / least.max(1) as f64;
        println!(
            "{} connections x {} in flight, {} slow readers, {seconds:.1} s: {:.0} requests/s, {:.1} MB/s",
            self.connections,
            self.in_flight,
            self.slow_readers,
            outcome.requests as f64 / seconds,
            outcome.bytes as f64 / 1e6 / seconds,
        );
        println!(
            "RSS before {:.0} MiB, most {:.0} MiB",
            mib(outcome.resident_before_bytes),
            mib(outcome.resident_bytes_max)
        );
        println!("served: least {least}, most {most} requests of a connection: {unfairness:.2} x");
        println!("requests served on each tenth of the connections, up to: {tenths:?}");
        println!(
            "replies with errors {} (first code {:?}), not answered within 10 s of the end {}",
            outcome.failures, outcome.first_error, outcome.unanswered
        );
        let resident_max = self.resident_mib_max.unwrap_or(u64::MAX);
        let verdicts = [
            (
                "memory",
                outcome.resident_bytes_max <= resident_max.saturating_mul(1 << 20),
            ),
            ("fairness", least > 0 && unfairness <= self.unfairness_max),
            ("errors", outcome.failures == 0),
            ("answers", outcome.unanswered == 0),
        ];
        for (name, _) in verdicts.iter().filter(|(_, is_met)| !is_met) {
            println!("FAILED: {name}");
        }
        verdicts.iter().all(|(_, is_met)| *is_met)
    }
}
