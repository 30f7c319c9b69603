//! `chronik-shards`: the state of the broker. Partitions and their logs, and the shards that own them and
//! run the catalogue (`chronik-catalog`) and the coordinators (`chronik-coordinators`).
//!
//! One [`start`] on each core gives a [`ShardHandle`]; everything else is a [`Request`] through the
//! mesh of `chronik-io` to the shard that owns what is asked for, and its [`Reply`]. Inside: driver →
//! shard → catalogue → partition → log. Never parses a wire version, and never awaits inside state code.

mod backoff;
pub mod cache;
mod checkpoint_files;
mod driver;
mod found_dirs;
mod group_lag;
mod identity;
mod internal;
mod interrupted_moves;
pub mod limits;
mod log_dirs;
mod metadata_log;
pub mod meters;
mod moving;
mod opening;
pub mod partition;
mod patience;
mod placement;
mod placing;
pub mod questions;
mod remembered_logs;
mod request;
mod shard;
mod start;
mod survey;
mod write_behind;

pub use group_lag::{GroupLag, PartitionLag, group_lag};
pub use identity::{DirectoryIdentity, IdentityError, node_id_of};
pub use internal::{InternalReply, InternalRequest};
pub use log_dirs::{LogDir, LogDirs};
pub use metadata_log::{CatalogueError, SnapshotError};
pub use placement::{COORDINATOR_SHARD, shard_of};
pub use request::{Reply, Request};
pub use start::{ShardHandle, StartError, StartOptions, start};
pub use survey::{LastWriter, LogsFound, Survey, SurveyOptions, SurveyedDir};
