//! The broker under test: a fresh Chronik, or the one named by `CHRONIK_TEST_BOOTSTRAP` (a real Kafka, for its answers).
//!
//! Never lets a panic in the broker pass unseen: its output is searched at the test's end.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::calls::create_topic;
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, measured};

/// A broker under test.
#[derive(Debug)]
pub(crate) struct Subject {
    address: SocketAddr,
    /// Before the scratch directory, so that the process ends first.
    broker: Option<Broker>,
    _scratch: Option<Scratch>,
}

impl Subject {
    /// A broker with Kafka's defaults.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A broker with these settings. An outside broker is taken as it is: it must have been started
    /// with them for the test to pass.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        if let Some(bootstrap) = std::env::var_os("CHRONIK_TEST_BOOTSTRAP") {
            let bootstrap = bootstrap.into_string().expect("host:port");
            let mut addresses = bootstrap.to_socket_addrs().expect("host:port");
            let address = addresses.next().expect("an address");
            return Self {
                address,
                broker: None,
                _scratch: None,
            };
        }
        let scratch = Scratch::new();
        let options = BrokerOptions::new(scratch.join("data")).set("chronik.shards", 2);
        let options = settings
            .iter()
            .fold(options, |options, (key, value)| options.set(key, value));
        let broker = options.start();
        Self {
            address: broker.address(),
            broker: Some(broker),
            _scratch: Some(scratch),
        }
    }

    /// The process, unless it was started by someone else.
    pub(crate) fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Whether this is another broker than ours, whose answers are only looked at.
    pub(crate) fn is_outside(&self) -> bool {
        self.broker.is_none()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Creates a topic nobody else uses and returns its name.
    pub(crate) fn topic(&self, partitions: i32) -> String {
        self.topic_with(partitions, &[])
    }

    /// As [`Self::topic`], with configs.
    pub(crate) fn topic_with(&self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = unused_name();
        create_topic(&mut self.connect(), &name, partitions, configs);
        name
    }

    /// Resident memory of the process now, bytes; `None` for an outside broker.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        Some(measured::memory(self.broker.as_ref()?.pid()))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let Some(broker) = &self.broker else { return };
        if !std::thread::panicking() {
            let log = broker.log();
            let line = log.lines().find(|line| line.contains("panicked at"));
            assert!(line.is_none(), "the broker panicked: {line:?}\n{log}");
        }
    }
}

/// A topic name that no other test of this or an earlier run uses.
pub(crate) fn unused_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("wire-{}-{number}", std::process::id())
}
