//! Plain counters of one shard; read by whoever scrapes, never shared while they count.
//!
//! Runs on every shard. Owns no clock and no histogram.

/// What a shard has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches in the log.
    pub batches_appended: u64,
    /// Their bytes, as stored.
    pub bytes_appended: u64,
    /// Parts of append requests that were refused.
    pub appends_refused: u64,
    /// `acks=all` requests answered with a time-out.
    pub appends_timed_out: u64,
    /// Reads answered.
    pub reads: u64,
    /// Bytes of records in them.
    pub bytes_read: u64,
    /// Parts of reads that went to the disk.
    pub disk_reads: u64,
    /// The most bytes that were being read from disk at a time.
    pub disk_reading_bytes_peak: u64,
    /// Requests parked for data.
    pub parked: u64,
    /// Of those, ended by their deadline.
    pub parked_expired: u64,
    /// Jobs (writes, syncs, rolls …) performed.
    pub jobs: u64,
    /// Partitions gone offline.
    pub logs_failed: u64,
}
