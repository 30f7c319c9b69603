//! Tests of record batches, by their oracle.
//!
//! One binary, linked once.

mod differential;
mod fuzz;
mod golden;
mod hostile;
mod message_sets;
mod round_trip;
