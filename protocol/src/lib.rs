//! Bytes to Kafka's words and back: record batches so far.
//!
//! Sans-I/O: never opens a file or a socket, never allocates what a length prefix claims, and runs
//! on whichever core calls it.

pub mod record;
