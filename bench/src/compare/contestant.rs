//! The two brokers compared: formatting, start, stop and kill, on a data directory each, on the same disk.
//!
//! Never tunes either: Chronik runs with the command line's overrides, Kafka with the settings of a single node
//! and with deletion of removed segments after a second instead of a minute, so that one load's files do not
//! burden the next.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Subject;
use crate::rpc::invalid;
use crate::target::{BrokerProcess, Target, chronik_command, free_port};

/// Any id: the directory lives only for the comparison.
const KAFKA_CLUSTER_ID: &str = "AAAAAAAAQACAAAAAAAAAAQ";

/// A broker under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// This project's.
    Chronik,
    /// Apache Kafka's.
    Kafka,
}

impl Contestant {
    /// Both, in the order in which they take turns.
    pub(crate) const BOTH: [Self; 2] = [Self::Chronik, Self::Kafka];

    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chronik => "chronik",
            Self::Kafka => "kafka",
        }
    }
}

/// Paths of the programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Chronik's executable.
    pub(crate) chronik: PathBuf,
    /// Settings for Chronik, `key=value`.
    pub(crate) overrides: Vec<String>,
    /// The folder with the scripts that know Kafka's jars (`tests/clients`).
    pub(crate) clients: PathBuf,
    /// The parent of data directories.
    pub(crate) directory: PathBuf,
}

impl Programs {
    /// One of Apache Kafka's tools.
    pub(crate) fn kafka_tool(&self, tool: &str) -> Command {
        let mut command = Command::new(self.clients.join("kafka"));
        command.arg(tool);
        command
    }
}

/// A formatted data directory; broker processes come and go on it.
#[derive(Debug)]
pub(crate) struct Seat {
    contestant: Contestant,
    programs: Programs,
    directory: TempDir,
    port: u16,
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Server {
    /// The broker's address and process.
    pub(crate) target: Target,
    /// From the start of the process to its first answer.
    pub(crate) start_up: Duration,
    process: BrokerProcess,
}

impl Server {
    /// Stops the broker cleanly (SIGTERM).
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.process.terminate()
    }

    /// Kills the broker (SIGKILL).
    pub(crate) fn kill(self) {
        drop(self.process);
    }
}

impl Seat {
    /// Makes and formats an empty data directory.
    ///
    /// # Errors
    /// The system's, or a sentence when Kafka's storage tool fails.
    pub(crate) fn prepare(contestant: Contestant, programs: &Programs) -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("chronik-bench-")
            .tempdir_in(&programs.directory)?;
        let seat = Self {
            contestant,
            programs: programs.clone(),
            directory,
            port: free_port()?,
        };
        if contestant == Contestant::Kafka {
            seat.format_kafka()?;
        }
        Ok(seat)
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the broker and waits for its first answer.
    ///
    /// # Errors
    /// With the end of the broker's log when it ends or does not answer.
    pub(crate) fn start(&self) -> io::Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let log = self.directory.path().join("broker.log");
        let mut command = match self.contestant {
            Contestant::Chronik => {
                let Programs {
                    chronik, overrides, ..
                } = &self.programs;
                chronik_command(chronik, self.port, &self.data(), overrides)
            }
            Contestant::Kafka => {
                let mut command = self.programs.kafka_tool("kafka-server");
                command.arg(self.properties());
                command
            }
        };
        command.stderr(File::create(&log)?);
        let started = BrokerProcess::start(&mut command, address);
        let (process, start_up) = started.map_err(|error| {
            let name = self.contestant.name();
            invalid(format!("{name}: {error}\n{}", end_of(&log)))
        })?;
        let subject = Subject::new(Some(process.pid()), Some(self.directory.path()));
        Ok(Server {
            target: Target::at(address, subject),
            start_up,
            process,
        })
    }

    fn properties(&self) -> PathBuf {
        self.directory.path().join("server.properties")
    }

    /// A single node as broker and controller, with replication factor 1.
    fn format_kafka(&self) -> io::Result<()> {
        let (port, controller) = (self.port, free_port()?);
        let data = self.data();
        let properties = [
            "process.roles=broker,controller".to_owned(),
            "node.id=1".to_owned(),
            format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
            format!("log.dirs={}", data.display()),
            "offsets.topic.replication.factor=1".to_owned(),
            "transaction.state.log.replication.factor=1".to_owned(),
            "transaction.state.log.min.isr=1".to_owned(),
            "share.coordinator.state.topic.replication.factor=1".to_owned(),
            "share.coordinator.state.topic.min.isr=1".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
            "log.segment.delete.delay.ms=1000".to_owned(),
        ];
        fs::write(self.properties(), properties.join("\n") + "\n")?;
        let mut command = self.programs.kafka_tool("kafka-storage");
        command
            .args(["format", "--cluster-id", KAFKA_CLUSTER_ID, "--config"])
            .arg(self.properties())
            .stdin(Stdio::null());
        let output = command.output()?;
        if !output.status.success() {
            return Err(invalid(format!(
                "kafka-storage format: {}",
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        Ok(())
    }
}

/// The last lines of a log, for an error's text.
fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
