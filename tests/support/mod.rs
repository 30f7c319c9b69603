//! Shared parts of whole-broker tests: a scratch directory, a free port and a running `chronik serve` whose output is
//! shown when the test fails.
//!
//! Never reaches into the broker's modules: it knows the command line, the wire and signals.
//!
//! ```text
//! let scratch = Scratch::new();
//! let broker = BrokerOptions::new(scratch.join("data")).set("num.partitions", 3).start();
//! // … talk to broker.bootstrap() …
//! broker.stop(); // SIGTERM, and exit code 0 or the test fails
//! ```
//!
//! Environment: `CHRONIK_TEST_BINARY` runs another executable than the one Cargo built for the test (a release build,
//! say); `CHRONIK_TEST_BOOTSTRAP` names a running broker, to check a client's test against Kafka itself;
//! `CHRONIK_TEST_CLIENTS=required` makes a missing client a failure; `CHRONIK_TEST_SKIPPED` names a file for skipped
//! tests; `CHRONIK_TEST_KEEP` keeps the scratch directories.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this module and uses its own part of it"
)]

pub mod batch;
mod broker;
pub mod calls;
pub mod client;
pub mod consumer_groups;
mod corpus;
pub mod disk;
mod eventually;
pub mod groups;
pub mod measured;
pub mod message;
mod program;
mod scratch;
mod target;

#[allow(unused_imports, reason = "not every test binary names every type")]
pub use broker::{Broker, BrokerOptions};
#[allow(unused_imports, reason = "not every test binary names every function")]
pub use corpus::text_file;
#[allow(unused_imports, reason = "not every test binary names every function")]
pub use eventually::eventually;
#[allow(unused_imports, reason = "not every test binary names every function")]
pub use program::{Program, Report, Running, say, skip};
#[allow(unused_imports, reason = "not every test binary names every function")]
pub use scratch::{Scratch, free_port};
#[allow(unused_imports, reason = "not every test binary names every type")]
pub use target::Target;
