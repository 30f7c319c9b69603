//! `chronik-bench`: an open-loop load generator that measures any Kafka broker over the wire.
//!
//! ```text
//! chronik-bench quick --spawn target/release/chronik
//! chronik-bench quick --bootstrap 127.0.0.1:9092 --pid 4711
//! chronik-bench load --bootstrap 127.0.0.1:9092 --rate 5000 --connections 16 --consumers 1
//! chronik-bench groups --spawn target/release/chronik --groups 1 --members 1000
//! chronik-bench read --bootstrap 127.0.0.1:9092 --topic events --partitions 16
//! ```
//!
//! Never part of the broker: it knows only `chronik-protocol`.

mod compare;
mod connection;
mod consumer;
mod end_to_end;
mod figures;
mod frames;
mod generator;
mod groups;
mod load;
mod output;
mod overload;
mod process;
mod progress;
mod quick;
mod row;
mod rpc;
mod svg;
mod target;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chronik_protocol::record::Compression;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::consumer::Consumption;
use crate::groups::GroupOptions;
use crate::load::{LoadResult, Pace};
use crate::output::Output;
use crate::overload::OverloadOptions;
use crate::process::Subject;
use crate::row::{Limits, Promise, Row};
use crate::rpc::Rpc;
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
    /// More than the broker can take, and readers that do not read: memory, fairness, errors
    Overload {
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        overload: OverloadOptions,
    },
    /// Consumer groups: what heartbeats and rebalances cost, and what producers notice of them
    Groups {
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        groups: GroupOptions,
    },
    /// Chronik and Apache Kafka in turn, with the same clients on the same disk
    Compare {
        #[command(flatten)]
        options: compare::Options,
    },
    /// One load: at a fixed rate, or as fast as the broker answers
    Load {
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        limits: LimitArguments,
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        output: Output,
    },
    /// Read what a topic holds, from its beginning to what is its end now
    Read {
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        read: ReadArguments,
        #[command(flatten)]
        output: Output,
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
    /// The running broker's data directory, for writes and flushes of its disk
    #[arg(long, requires = "bootstrap")]
    data: Option<PathBuf>,
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
    /// Connections that consume what is produced, for the end-to-end latency
    #[arg(long, default_value_t = 0)]
    consumers: usize,
    /// A topic that is made if it is missing and stays; without it one is made and removed again
    #[arg(long)]
    topic: Option<String>,
    /// Partitions of the topic
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// A key=value for the topic; repeatable
    #[arg(long = "topic-config", value_parser = key_value)]
    topic_configs: Vec<(String, String)>,
    /// Records in each request
    #[arg(long, default_value_t = 1)]
    records: usize,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Different keys the records have in turn; 0 for none
    #[arg(long, default_value_t = 0)]
    keys: usize,
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

#[derive(Args, Debug)]
struct ReadArguments {
    /// The topic
    #[arg(long)]
    topic: String,
    /// Its partitions, from 0 on
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Connections, each reads a share of the partitions
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Most seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Most bytes of one partition in a reply
    #[arg(long, default_value_t = 1 << 20)]
    partition_bytes_max: i32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Acks {
    /// Nobody: there is no reply, and the latency is that of sending
    None,
    Leader,
    All,
}

fn codec(name: &str) -> Result<Compression, String> {
    Compression::from_name(name).ok_or_else(|| "none, gzip, snappy, lz4 or zstd".to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("key=value is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
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
        Command::Overload { broker, overload } => overload.run(&broker.target()?),
        Command::Groups { broker, groups } => groups.run(&broker.target()?),
        Command::Compare { options } => compare::run(&options),
        Command::Load {
            broker,
            limits,
            load,
            output,
        } => {
            let (target, limits, row) = (broker.target()?, limits.limits()?, load.row()?);
            let outcome = row.measure(&target, &limits)?;
            row::print_heading();
            row.print(&outcome);
            row::print_consumed(&outcome);
            output.write(&row.name, &outcome)?;
            Ok(outcome.is_sound())
        }
        Command::Read {
            broker,
            read,
            output,
        } => {
            let outcome = read.run(&broker.target()?)?;
            row::print_heading();
            row::print_consumed(&outcome);
            output.write(&read.topic, &outcome)?;
            Ok(outcome.is_sound())
        }
    }
}

impl BrokerArguments {
    fn target(&self) -> io::Result<Target> {
        match (&self.spawn, &self.bootstrap) {
            (Some(program), _) => Target::spawn(program, &self.directory, &self.overrides),
            (None, bootstrap) => {
                let subject = Subject::new(self.pid, self.data.as_deref());
                Target::running(bootstrap.as_deref().unwrap_or_default(), subject)
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
        self.check()?;
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
            topic: self.topic.clone(),
            partitions: self.partitions,
            promise: self.promise,
            configs: self.topic_configs.clone(),
            connections: self.connections,
            consumers: self.consumers,
            pace,
            records: self.records,
            record_bytes: self.record_bytes,
            keys: self.keys,
            acks: match self.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            codec: self.codec,
        })
    }

    fn check(&self) -> io::Result<()> {
        let counts = [self.in_flight, self.connections, self.records];
        let wrong = if counts.contains(&0) || self.partitions < 1 || self.rate == Some(0) {
            Some("counts and the rate start at 1")
        } else if i32::try_from(self.consumers).map_or(true, |count| count > self.partitions) {
            Some("there cannot be more consumers than partitions")
        } else if matches!(self.acks, Acks::None) && self.rate.is_none() {
            Some("without replies there is no closed loop: acks none needs --rate")
        } else {
            None
        };
        wrong.map_or(Ok(()), |sentence| Err(io::Error::other(sentence)))
    }
}

impl ReadArguments {
    fn run(&self, target: &Target) -> io::Result<LoadResult> {
        if self.partitions < 1 || self.connections == 0 {
            return Err(io::Error::other("counts start at 1"));
        }
        let mut rpc = Rpc::connect(target.address)?;
        let consumption = row::stored(&mut rpc, &self.topic, self.partitions, self.connections)?;
        let consumption = Consumption {
            partition_bytes_max: self.partition_bytes_max,
            ..consumption
        };
        let at_most = Duration::try_from_secs_f64(self.seconds).map_err(io::Error::other)?;
        row::read(consumption, at_most, target)
    }
}
