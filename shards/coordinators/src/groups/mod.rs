//! Group coordination: members, generations, assignments and committed offsets, on the designated
//! shard.
//!
//! A state machine that is replayed from `__consumer_offsets`: what it holds is what reading that
//! topic again gives. A request changes the state at once and yields records; its reply is parked
//! until the records, and everything written before them, are committed. When an append fails, the
//! state of that partition is dropped and read again. Never awaits, never reads a clock, never
//! touches a file: see `coordinator` for what goes in and comes out, `shard/groups.rs` of `chronik-shards` for who
//! performs it.

mod admin;
mod caller;
mod classic;
mod commit;
mod committed;
pub(crate) mod consumer;
mod coordinator;
mod deadlines;
mod fetch;
mod group;
mod load;
mod name_filter;
mod offsets;
mod outcome;
mod partition;
mod placement;
mod records;
mod refusals;
mod refused;
mod request;
mod settings;
mod step;
mod sweep;
#[cfg(test)]
mod tests;

pub use name_filter::NameFilter;
pub use placement::{OFFSETS_TOPIC, partition_for};
pub use request::*;

pub use coordinator::{Coordinator, CoordinatorEffect, Env};
pub use settings::GroupSettings;
pub use step::TopicChanges;
