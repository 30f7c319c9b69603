//! An Apache Kafka beside the broker: a directory formatted by its own tool, and its process, of the pinned version or of
//! the older one.
//!
//! Leaves no process behind: dropping a [`Kafka`] kills it and waits for it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chronik_protocol::messages::MetadataRequest;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::client::Client;
use crate::support::{Program, free_port};

/// How long a Kafka may take to serve on a loaded machine; bounds a hang, measures nothing.
const PATIENCE: Duration = Duration::from_secs(180);
/// The cluster of every directory made here.
pub(crate) const CLUSTER_ID: &str = "AAAAAAAAQACAAAAAAAAAAQ";

/// Which Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The one the tests' clients have (`java/pom.xml`).
    Pinned,
    /// The last of the 3.x line (`groups`).
    Old,
}

impl Version {
    /// Whether its jars are here; says so loudly when not.
    pub(crate) fn is_missing(self) -> bool {
        let tool = Program::kafka_tool("kafka-storage").args(["version-mapping"]);
        let tool = match self {
            Self::Pinned => tool,
            Self::Old => tool.environment("CHRONIK_KAFKA", "old"),
        };
        tool.report().is_none()
    }

    fn tool(self, name: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kafka");
        let mut command = Command::new(script);
        command.arg(name).env("KAFKA_HEAP", "512m");
        if self == Self::Old {
            command.env("CHRONIK_KAFKA", "old");
        }
        command
    }
}

/// Settings of a single Kafka that is broker and controller, on these directories.
#[derive(Clone, Debug)]
pub(crate) struct KafkaOptions {
    version: Version,
    dirs: Vec<PathBuf>,
    /// Beside the directories: settings and output.
    beside: PathBuf,
    port: u16,
    controller: u16,
    settings: Vec<String>,
    dynamic_quorum: bool,
}

impl KafkaOptions {
    /// A Kafka on `dir`, which exists or is to be formatted.
    pub(crate) fn new(version: Version, dir: impl Into<PathBuf>) -> Self {
        Self::over(version, vec![dir.into()])
    }

    /// A Kafka on several directories, the metadata log in the first.
    pub(crate) fn over(version: Version, dirs: Vec<PathBuf>) -> Self {
        let beside = dirs[0].with_extension("kafka");
        fs::create_dir_all(&beside).expect("a directory for settings");
        Self {
            version,
            dirs,
            beside,
            port: free_port(),
            controller: free_port(),
            settings: Vec::new(),
            dynamic_quorum: false,
        }
    }

    /// The quorum's voters stand in the metadata log, not in the settings (KIP-853).
    pub(crate) fn dynamic_quorum(mut self) -> Self {
        self.dynamic_quorum = true;
        self
    }

    /// Sets one key.
    pub(crate) fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    fn properties(&self) -> PathBuf {
        let (port, controller) = (self.port, self.controller);
        let dirs: Vec<_> = self
            .dirs
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let quorum = match self.dynamic_quorum {
            true => format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller}"),
            false => format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        };
        let lines = [
            "process.roles=broker,controller".to_owned(),
            "node.id=1".to_owned(),
            quorum,
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
            format!("log.dirs={}", dirs.join(",")),
            "offsets.topic.num.partitions=5".to_owned(),
            "offsets.topic.replication.factor=1".to_owned(),
            "transaction.state.log.num.partitions=3".to_owned(),
            "transaction.state.log.replication.factor=1".to_owned(),
            "transaction.state.log.min.isr=1".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
            "log.retention.ms=-1".to_owned(),
        ];
        let mut text = lines.join("\n") + "\n";
        text += &self.settings.join("\n");
        let file = self.beside.join("server.properties");
        fs::write(&file, text + "\n").expect("a small file");
        file
    }

    /// Formats the directories, with these further words for `kafka-storage format`.
    pub(crate) fn format(&self, words: &[&str]) {
        let mut command = self.version.tool("kafka-storage");
        command.args(["format", "--cluster-id", CLUSTER_ID, "--config"]);
        command
            .arg(self.properties())
            .args(words)
            .stdin(Stdio::null());
        if self.dynamic_quorum {
            command.arg("--standalone");
        }
        let output = command.output().expect("the tools are there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kafka-storage format: {said}");
    }

    /// Starts it where it must refuse, and gives what it said.
    ///
    /// # Panics
    /// When it does not end.
    pub(crate) fn refusal(&self) -> String {
        let mut kafka = self.spawn();
        let started = Instant::now();
        while kafka.child.try_wait().expect("a child").is_none() {
            assert!(started.elapsed() < PATIENCE, "Kafka does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        kafka.output()
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// With its output when it ends instead.
    pub(crate) fn start(&self) -> Kafka {
        let mut kafka = self.spawn();
        kafka.wait_until_it_serves();
        kafka
    }

    fn spawn(&self) -> Kafka {
        let log = self.beside.join("kafka.log");
        let out = File::create(&log).expect("a file for the output");
        let mut command = self.version.tool("kafka-server");
        command.arg(self.properties()).stdin(Stdio::null());
        command
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out);
        let child = command.spawn().expect("the tools are there");
        Kafka {
            child,
            log,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
        }
    }
}

/// A running Kafka.
#[derive(Debug)]
pub(crate) struct Kafka {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Kafka {
    /// Where clients find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_it_serves(&mut self) {
        let started = Instant::now();
        loop {
            // Its socket is there before it serves; the first answer comes when it does.
            let request = MetadataRequest::default();
            let client = Client::try_connect(self.address);
            if client
                .and_then(|mut client| client.try_call(&request, 9))
                .is_ok()
            {
                return;
            }
            let ended = self.child.try_wait().expect("a child");
            let late = started.elapsed() > PATIENCE;
            assert!(
                ended.is_none() && !late,
                "Kafka does not start:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child that was not waited for takes signals");
        self.child.wait().expect("its exit status");
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
    }

    /// Ends it without warning.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Kafka said:\n{}", self.output());
        }
        // It may have ended already; either way it is gone afterwards.
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}
