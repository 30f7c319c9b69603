//! Connections: from accepted sockets to requests in order, and back from answers to bytes.
//!
//! Runs on every shard, for the sockets that shard was given. Never decodes a request and never
//! owns state of a partition.

mod arrival;
pub(crate) mod budget;
pub(crate) mod connection;
pub(crate) mod connections;
mod frames;
pub(crate) mod limits;
mod line;
mod link;
pub(crate) mod service;
pub(crate) mod signal;
pub(crate) mod turns;

#[cfg(test)]
mod tests;
