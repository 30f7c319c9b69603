//! A data directory carried from Apache Kafka to Chronik and back, in place: each serves the same bytes as the other; and
//! refused directories, left untouched.
//!
//! Never skips silently: without Java the tools are named on standard error.

#[path = "../support/mod.rs"]
mod support;

mod absent;
mod kafka;
mod moves;
mod picture;
mod refusals;
mod seed;
mod tree;

use std::path::Path;

use support::client::Client;
use support::{Broker, BrokerOptions};

/// A broker of ours on a directory that may be Kafka's.
fn chronik(data: &Path) -> BrokerOptions {
    BrokerOptions::new(data)
        .set("offsets.topic.num.partitions", 5)
        .set("group.initial.rebalance.delay.ms", 0)
        .set("log.retention.ms", -1)
}

fn connect(broker: &Broker) -> Client {
    Client::connect(broker.address())
}
