//! What a checkpoint remembers of a log, so that a start need not read its files.
//!
//! Owns the values, their bytes (rkyv) and the rules by which they are believed: decoding checks
//! every byte and every number, and whoever uses one holds it against the directory and, after an
//! unclean stop, against the last batch. What does not fit is dropped and the files are read, so
//! nothing here is the only copy of anything. Pure; runs on the partition's shard.

use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};

use super::epochs::LeaderEpochs;
use super::index::IndexBuilder;
use super::inventory::SegmentEntry;
use crate::partition::ProducerStates;

/// One log. As of a clean stop (`closed`), or of a moment while it was appended to: then everything
/// below the active segment's end is a fact, and what follows is not told.
#[derive(Archive, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RememberedLog {
    /// The files are as a clean stop left them.
    pub(crate) closed: bool,
    /// A power cut could not take what is told.
    pub(crate) durable: bool,
    /// All segments but the last, ascending.
    pub(crate) sealed: Vec<RememberedSegment>,
    pub(crate) active: RememberedActive,
    pub(crate) producers: Vec<RememberedProducer>,
    /// Leader epochs with their start offsets.
    pub(crate) epochs: Vec<(i32, i64)>,
}

/// A segment that no longer changes.
#[derive(Archive, Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RememberedSegment {
    pub(crate) base_offset: i64,
    pub(crate) size_bytes: u64,
    /// As the directory says it; 0 where nobody looked.
    pub(crate) modified_ns: i64,
    pub(crate) max_timestamp: Option<i64>,
}

/// The segment that is appended to.
#[derive(Archive, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RememberedActive {
    pub(crate) base_offset: i64,
    /// End of its batches, bytes.
    pub(crate) end: u64,
    pub(crate) next_offset: i64,
    /// As the directory says it; 0 where nobody looked.
    pub(crate) modified_ns: i64,
    pub(crate) rolling_timestamp: Option<i64>,
    /// `None` for an empty segment.
    pub(crate) last_batch: Option<LastBatch>,
    pub(crate) index: RememberedIndex,
}

/// The last batch of a segment: what vouches for the rest.
#[derive(Archive, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct LastBatch {
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
pub(crate) struct RememberedProducer {
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
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let bytes = rkyv::to_bytes::<RkyvError>(self);
        bytes.expect("memory takes any number of bytes").into_vec()
    }

    /// Reads its bytes; `None` for what is no such log or contradicts itself.
    pub(crate) fn parse(bytes: &[u8]) -> Option<RememberedLog> {
        let log = rkyv::from_bytes::<RememberedLog, RkyvError>(bytes).ok()?;
        log.is_plausible().then_some(log)
    }

    fn is_plausible(&self) -> bool {
        let active = &self.active;
        let bases = self.sealed.iter().map(|segment| segment.base_offset);
        let bases = bases.chain([active.base_offset]);
        let last = active.last_batch;
        active.base_offset >= 0
            && bases
                .clone()
                .zip(bases.skip(1))
                .all(|(one, next)| one < next)
            && active.next_offset >= active.base_offset
            && i32::try_from(active.end).is_ok()
            && last.is_some() == (active.end > 0)
            && last.is_none_or(|last| last.position < active.end)
            && LeaderEpochs::remembered(&self.epochs).is_some()
            && ProducerStates::remembered(&self.producers).is_some()
            && self.index().is_some()
    }

    /// The active segment's index.
    pub(crate) fn index(&self) -> Option<IndexBuilder> {
        let active = &self.active;
        let records = active.next_offset.saturating_sub(active.base_offset);
        IndexBuilder::remembered(active.base_offset, &active.index, records, active.end)
    }

    /// Whether the directory holds exactly these segments, unchanged since they were closed. Some at
    /// the front may have been removed.
    pub(crate) fn is_as_closed(&self, segments: &[SegmentEntry]) -> bool {
        let Some((last, before)) = segments.split_last() else {
            return false;
        };
        let active = &self.active;
        let same = |ours: &RememberedSegment, found: &SegmentEntry| {
            is_same(ours, found) && ours.modified_ns == found.modified_ns
        };
        self.closed
            && last.base_offset == active.base_offset
            && last.log_bytes == active.end
            && last.modified_ns == active.modified_ns
            && self.ends_with(before, same)
    }

    /// The place of what was the active segment, if it holds at least what it held then. Older ones may
    /// have been removed or cleaned since.
    pub(crate) fn continues_in(&self, segments: &[SegmentEntry]) -> Option<usize> {
        let base = self.active.base_offset;
        let at = segments
            .binary_search_by_key(&base, |segment| segment.base_offset)
            .ok()?;
        let active = segments.get(at)?;
        (active.log_bytes >= self.active.end).then_some(at)
    }

    /// The greatest timestamp of a sealed segment, if it is still the one that is told of.
    pub(crate) fn max_timestamp(&self, segment: &SegmentEntry) -> Option<i64> {
        let ours = self.sealed.iter().find(|ours| is_same(ours, segment))?;
        ours.max_timestamp
    }

    fn ends_with(
        &self,
        segments: &[SegmentEntry],
        same: impl Fn(&RememberedSegment, &SegmentEntry) -> bool,
    ) -> bool {
        let Some(skip) = self.sealed.len().checked_sub(segments.len()) else {
            return false;
        };
        let ours = self.sealed.iter().skip(skip);
        ours.zip(segments).all(|(ours, found)| same(ours, found))
    }
}

fn is_same(ours: &RememberedSegment, found: &SegmentEntry) -> bool {
    ours.base_offset == found.base_offset && ours.size_bytes == found.log_bytes
}
