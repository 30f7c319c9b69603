//! `chronik-shards`: the state of the broker. Partitions and their logs, the catalogue, and the
//! shards that own them.
//!
//! Everything else asks with a [`Request`] through the mesh of `chronik-io`, and gets a [`Reply`].
//! Never parses a wire version, and never awaits inside state code.

pub mod cache;
pub mod catalog;
mod internal;
pub mod log;
pub mod partition;
mod request;

pub use internal::{InternalReply, InternalRequest};
pub use request::*;
