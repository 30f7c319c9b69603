//! Tests of messages: against Kafka's own bytes, against their schemas, and against a peer's arbitrary bytes.

mod fuzz;
mod golden;
mod round_trip;
#[path = "../support/mod.rs"]
mod support;
