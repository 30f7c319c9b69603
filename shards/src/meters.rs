//! The meters of one shard: its own core writes them, any thread reads them without a hop.
//!
//! Runs on every shard. Names nothing for the outside world and reads no clock.

use chronik_io::meters::{Counter, Gauge};

/// Work of a shard since it started.
#[derive(Debug, Default)]
pub struct ShardMeters {
    /// Batches in the log.
    pub batches_appended: Counter,
    /// Their bytes, as stored.
    pub bytes_appended: Counter,
    /// Parts of append requests that were refused.
    pub appends_refused: Counter,
    /// `acks=all` requests answered with a time-out.
    pub appends_timed_out: Counter,
    /// Reads answered.
    pub reads: Counter,
    /// Bytes of records in them.
    pub bytes_read: Counter,
    /// Parts of reads that went to the disk.
    pub disk_reads: Counter,
    /// The most bytes that were being read from disk at a time.
    pub disk_reading_bytes_peak: Gauge,
    /// Requests parked for data.
    pub parked: Counter,
    /// Of those, ended by their deadline.
    pub parked_expired: Counter,
    /// Jobs (writes, syncs, rolls …) performed.
    pub jobs: Counter,
    /// Partitions gone offline.
    pub logs_failed: Counter,
}
