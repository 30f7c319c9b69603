//! Owns the choice of the broker that clients are pointed at: one of ours, started for the test,
//! or one that runs already (Apache Kafka, to see whether the test itself is right).

use super::{Broker, BrokerOptions};

/// The broker under test.
#[derive(Debug)]
pub enum Target {
    /// Started for this test.
    Own(Broker),
    /// Named by `CHRONIK_TEST_BOOTSTRAP`; it keeps its topics from one run to the next.
    Running(String),
}

impl Target {
    /// Starts a broker, unless the environment names one that runs already.
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

    /// Stops a broker of ours cleanly; one that ran before the test goes on running.
    pub fn stop(self) {
        if let Self::Own(broker) = self {
            broker.stop();
        }
    }
}
