//! By which rules a log's checkpoint is believed.
//!
//! Decoding checks every byte and every number, and whoever uses a checkpoint holds it against the directory
//! and, after an unclean stop, against the last batch. What does not fit is dropped and the files are read. Pure.

use rkyv::rancor::Error as RkyvError;

use super::epochs::LeaderEpochs;
use super::index::IndexBuilder;
use super::inventory::SegmentEntry;
use super::producer_state::ProducerStates;
use super::remembered::{RememberedLog, RememberedSegment};

impl RememberedLog {
    /// Reads its bytes; `None` for what is no such log or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Option<RememberedLog> {
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
    pub fn is_as_closed(&self, segments: &[SegmentEntry]) -> bool {
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
    pub fn max_timestamp(&self, segment: &SegmentEntry) -> Option<i64> {
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
