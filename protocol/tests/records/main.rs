//! Tests of record batches, by what they compare with.
//!
//! One binary, so that it is linked once. Never uses anything of the crate but its public face.

mod differential;
mod fuzz;
mod golden;
mod hostile;
mod message_sets;
mod round_trip;
