//! `chronik-log`: the log of a partition as it lies on disk, in Kafka's directory, files and bytes.
//!
//! Runs on the shard that owns the partition. Owns segments, indexes, producer snapshots, checkpoints,
//! recovery and compaction. Never assigns offsets or answers requests: that is `chronik-partition`, above it.
//! Knows no catalogue and no coordinator.

pub mod aborted;
pub mod checkpoint;
pub mod cleaner;
pub mod copying;
pub mod directory;
pub mod epochs;
mod error;
pub mod index;
pub mod inventory;
pub mod limits;
pub mod producer_state;
pub mod recovery;
pub mod remembered;
mod remembered_rules;
pub mod scan;
pub mod segment;

pub use directory::{PartitionDir, PartitionDirState};
pub use error::LogError;
