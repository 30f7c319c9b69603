//! `chronik-bench`: an open-loop load generator that measures any Kafka broker over the wire.
//!
//! ```text
//! chronik-bench quick --spawn target/release/chronik
//! chronik-bench quick --bootstrap 127.0.0.1:9092 --pid 4711
//! chronik-bench produce --bootstrap 127.0.0.1:9092 --rate 5000 --connections 16
//! ```
//!
//! Never part of the broker: it knows only `chronik-protocol`.

mod connection;
mod frames;
mod load;
mod process;
mod quick;
mod row;
mod rpc;
mod target;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chronik_protocol::record::Compression;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::Pace;
use crate::row::{Limits, Promise, Row};
use crate::target::Target;

/// Loads a Kafka broker over the wire and prints what it does.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Twenty rows in about two minutes: 1 and 16 partitions, both promises, five loads
    Quick {
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        limits: LimitArguments,
        /// Only rows whose first three columns contain this
        #[arg(long, default_value = "")]
        only: String,
    },
    /// One load on a topic of its own
    Produce {
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        limits: LimitArguments,
        #[command(flatten)]
        load: LoadArguments,
    },
}

#[derive(Args, Debug)]
struct BrokerArguments {
    /// A running broker, host:port
    #[arg(long, required_unless_present = "spawn", conflicts_with = "spawn")]
    bootstrap: Option<String>,
    /// The running broker's process id, for its processor time and memory
    #[arg(long, requires = "bootstrap")]
    pid: Option<u32>,
    /// Start this executable ("… serve") on an empty directory instead
    #[arg(long)]
    spawn: Option<PathBuf>,
    /// Where the started broker's data directory is made; removed afterwards
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// A key=value for the started broker; repeatable
    #[arg(long = "override", requires = "spawn")]
    overrides: Vec<String>,
}

#[derive(Args, Debug)]
struct LimitArguments {
    /// Measured seconds of each row
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Unmeasured seconds before them
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Record bytes (in GB) after which a row ends early
    #[arg(long, default_value_t = 4)]
    gigabytes_max: u64,
}

#[derive(Args, Debug)]
struct LoadArguments {
    /// Requests a second over all connections; without it each connection keeps --in-flight
    #[arg(long)]
    rate: Option<u32>,
    /// Unanswered requests per connection
    #[arg(long, default_value_t = 5, conflicts_with = "rate")]
    in_flight: usize,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Records in each request
    #[arg(long, default_value_t = 1)]
    records: usize,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Who must have the records before the reply
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
    /// What the reply promises
    #[arg(long, value_enum, default_value = "disk")]
    promise: Promise,
    /// Compression of the batches
    #[arg(long, value_parser = codec, default_value = "none")]
    codec: Compression,
}

/// acks=0 is missing: without a reply there is nothing to measure.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Acks {
    Leader,
    All,
}

fn codec(name: &str) -> Result<Compression, String> {
    Compression::from_name(name).ok_or_else(|| "none, gzip, snappy, lz4 or zstd".to_owned())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chronik-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<bool> {
    match arguments.command {
        Command::Quick {
            broker,
            limits,
            only,
        } => Ok(quick::run(&broker.target()?, &limits.limits()?, &only)),
        Command::Produce {
            broker,
            limits,
            load,
        } => {
            let (target, limits) = (broker.target()?, limits.limits()?);
            row::print_heading();
            Ok(load.row()?.run(&target, &limits))
        }
    }
}

impl BrokerArguments {
    fn target(&self) -> io::Result<Target> {
        match (&self.spawn, &self.bootstrap) {
            (Some(program), _) => Target::spawn(program, &self.directory, &self.overrides),
            (None, bootstrap) => {
                Target::running(bootstrap.as_deref().unwrap_or_default(), self.pid)
            }
        }
    }
}

impl LimitArguments {
    fn limits(&self) -> io::Result<Limits> {
        Ok(Limits {
            warm_up: Duration::try_from_secs_f64(self.warm_up).map_err(io::Error::other)?,
            measured: Duration::try_from_secs_f64(self.seconds).map_err(io::Error::other)?,
            bytes_max: self.gigabytes_max.saturating_mul(1_000_000_000),
        })
    }
}

impl LoadArguments {
    fn row(&self) -> io::Result<Row> {
        let counts = [self.in_flight, self.connections, self.records];
        if counts.contains(&0) || self.partitions < 1 || self.rate == Some(0) {
            return Err(io::Error::other("counts and the rate start at 1"));
        }
        let (name, pace) = match self.rate {
            Some(rate) => (
                format!("{rate} req/s"),
                Pace::Fixed {
                    requests_per_second: rate,
                },
            ),
            None => (
                format!("closed x {}", self.in_flight),
                Pace::Closed {
                    in_flight: self.in_flight,
                },
            ),
        };
        Ok(Row {
            name: format!("{name}, {} conn", self.connections),
            partitions: self.partitions,
            promise: self.promise,
            connections: self.connections,
            pace,
            records: self.records,
            record_bytes: self.record_bytes,
            acks: match self.acks {
                Acks::Leader => 1,
                Acks::All => -1,
            },
            codec: self.codec,
        })
    }
}
