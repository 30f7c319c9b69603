//! Whole-broker tests over the wire: bad input, protocol behaviour, state across restarts.
//!
//! Each test starts its own broker. With `CHRONIK_TEST_BOOTSTRAP=host:port` they talk to that broker instead, as they did
//! to a real Kafka for the right answers; tests that restart or configure the broker then skip.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod answers;
mod bad_batches;
mod bad_frames;
mod compaction;
mod configs;
mod connection_limits;
mod consumer_groups;
mod expressions;
mod features;
mod fetching;
mod group_bytes;
mod groups;
mod idempotence;
mod incarnations;
mod lifecycle;
mod log;
mod metadata;
mod moves;
mod neighbours;
mod new_topics;
mod odd_batches;
mod offsets;
mod old_clients;
mod pipelining;
mod record_errors;
mod retention;
mod sentences;
mod sessions;
mod settings;
mod subject;
mod topics;
mod versions;
