//! What a checkpoint remembers of a log, so that a start need not read its files.
//!
//! Owns the values and their bytes (rkyv). By which rules they are believed is `remembered_rules`'; nothing
//! here is the only copy of anything. Pure; runs on the partition's shard.

use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};

/// One log. As of a clean stop (`closed`), or of a moment while it was appended to: then everything
/// below the active segment's end is a fact, and what follows is not told.
#[derive(Archive, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RememberedLog {
    /// The files are as a clean stop left them.
    pub closed: bool,
    /// A power cut could not take what is told.
    pub durable: bool,
    /// All segments but the last, ascending.
    pub sealed: Vec<RememberedSegment>,
    /// The last.
    pub active: RememberedActive,
    /// Those a snapshot would hold.
    pub producers: Vec<RememberedProducer>,
    /// Leader epochs with their start offsets.
    pub epochs: Vec<(i32, i64)>,
}

/// A segment that no longer changes.
#[derive(Archive, Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct RememberedSegment {
    /// Its name.
    pub base_offset: i64,
    pub(crate) size_bytes: u64,
    /// As the directory says it; 0 where nobody looked.
    pub modified_ns: i64,
    pub(crate) max_timestamp: Option<i64>,
}

/// The segment that is appended to.
#[derive(Archive, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RememberedActive {
    /// Its name.
    pub base_offset: i64,
    /// End of its batches, bytes.
    pub(crate) end: u64,
    pub(crate) next_offset: i64,
    /// As the directory says it; 0 where nobody looked.
    pub modified_ns: i64,
    pub(crate) rolling_timestamp: Option<i64>,
    /// `None` for an empty segment.
    pub(crate) last_batch: Option<LastBatch>,
    pub(crate) index: RememberedIndex,
}

/// The last batch of a segment: what vouches for the rest.
#[derive(Archive, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LastBatch {
    /// Where it begins, bytes.
    pub(crate) position: u64,
    /// Its checksum.
    pub(crate) crc: u32,
}

/// An [`IndexBuilder`], thinned out.
#[derive(Archive, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct RememberedIndex {
    /// (offset − base, position).
    pub(crate) offsets: Vec<(i32, u32)>,
    /// (timestamp in ms, offset − base).
    pub(crate) times: Vec<(i64, i32)>,
    pub(crate) bytes_since_entry: u64,
    pub(crate) max_timestamp: i64,
    pub(crate) offset_of_max_timestamp: i64,
}

/// What is known of one producer id, all batches included: those of a snapshot file are fewer.
#[derive(Archive, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RememberedProducer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp: i64,
    pub(crate) transaction_first_offset: Option<i64>,
    pub(crate) seen_ms: i64,
    /// Last sequence, last offset, offset delta, timestamp; oldest first.
    pub(crate) batches: Vec<(i32, i64, i32, i64)>,
}

impl RememberedLog {
    /// Its bytes in a checkpoint.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = rkyv::to_bytes::<RkyvError>(self);
        bytes.expect("memory takes any number of bytes").into_vec()
    }
}
