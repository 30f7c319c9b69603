//! Every bound of a partition, with units in the names.
//!
//! Owns numbers only.

/// Longest batch that is taken from a producer or given to a consumer, bytes: with what stands around
/// it, it fits into one frame. What a log of Kafka holds beyond that is kept, and named when it is asked
/// for. Scans, compaction and lookups know no bound but the segment's, which is 2 GiB.
pub const BATCH_BYTES_MAX: usize = i32::MAX as usize - 128 * 1024 * 1024;

/// How long the write of a batch that survives the process already may wait for more, ms. Bounds
/// what a power cut takes from a topic of the *process* promise besides what the device has not written.
pub const WRITE_BEHIND_LINGER_MS_MAX: u64 = 5;

/// Bytes of one partition that end the waiting: a write of this size is as cheap per byte as any.
pub const WRITE_BEHIND_WRITE_BYTES: u64 = 256 * 1024;

/// After a write-behind ring could not be made, the next try comes this much later, ms.
pub const WRITE_BEHIND_RETRY_MS: u64 = 10_000;
