//! The choice of the broker under a client's test: one of ours, started for the test, or a running one (Apache Kafka, to
//! check the test itself).

use super::{Broker, BrokerOptions};

/// The broker under test.
#[derive(Debug)]
pub enum Target {
    /// Started for this test.
    Own(Broker),
    /// Named by `CHRONIK_TEST_BOOTSTRAP`; it keeps its topics between runs.
    Running(String),
}

impl Target {
    /// Starts a broker, unless the environment names a running one.
    pub fn start(options: &BrokerOptions) -> Self {
        match std::env::var("CHRONIK_TEST_BOOTSTRAP") {
            Ok(bootstrap) => Self::Running(bootstrap),
            Err(_) => Self::Own(options.start()),
        }
    }

    /// `HOST:PORT`.
    pub fn bootstrap(&self) -> String {
        match self {
            Self::Own(broker) => broker.bootstrap(),
            Self::Running(bootstrap) => bootstrap.clone(),
        }
    }

    /// A topic name that no earlier run used on the same broker.
    pub fn topic(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// Stops a broker of ours cleanly; another one goes on running.
    pub fn stop(self) {
        if let Self::Own(broker) = self {
            broker.stop();
        }
    }
}
