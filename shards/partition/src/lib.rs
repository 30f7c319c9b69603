//! `chronik-partition`: partitions, and what they share on their shard: the batch cache and the write-behind
//! ring, with what outlives the process (the ring, checkpoints of logs).
//!
//! Runs on the shard that owns the partitions. State returns plans and jobs, and the shard performs them; only
//! jobs await. Knows no catalogue, no coordinator and no other shard.

pub mod backoff;
pub mod cache;
pub mod limits;
mod partition;
pub mod patience;
pub mod remembered_logs;
pub mod write_behind;

pub use partition::{
    AppendOutcome, Bequest, CheckTimes, CleanSettings, CloseReport, Closed, Job, JobDone,
    OffsetDone, OffsetJob, OffsetPlan, Partition, PartitionEvent, PartitionOptions, ReadDone,
    ReadJob, ReadPlan, Shared,
};
