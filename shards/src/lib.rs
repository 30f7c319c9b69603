//! `chronik-shards`: where what keeps (`chronik-partition` on `chronik-log`) and what decides (`chronik-catalog`,
//! `chronik-coordinators`) meet: the shards that own partitions and run the catalogue and the coordinators.
//!
//! One [`start`] on each core gives a [`ShardHandle`]; everything else is a [`Request`] through the mesh of
//! `chronik-io` to the shard that owns what is asked for, and its [`Reply`]. Never parses a wire version, and
//! never awaits inside state code.

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
mod placement;
mod placing;
pub mod questions;
mod request;
mod shard;
mod start;
mod survey;

pub use group_lag::{GroupLag, PartitionLag, group_lag};
pub use identity::{DirectoryIdentity, IdentityError, node_id_of};
pub use internal::{InternalReply, InternalRequest};
pub use log_dirs::{LogDir, LogDirs};
pub use metadata_log::{CatalogueError, SnapshotError};
pub use placement::{COORDINATOR_SHARD, shard_of};
pub use request::{Reply, Request};
pub use start::{ShardHandle, StartError, StartOptions, start};
pub use survey::{LastWriter, LogsFound, Survey, SurveyOptions, SurveyedDir};
