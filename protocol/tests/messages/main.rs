//! The messages as others see them: their bytes against Kafka's own,
//! themselves against their schemas, and against whatever a peer may send.

mod fuzz;
mod golden;
mod round_trip;
#[path = "../support/mod.rs"]
mod support;
