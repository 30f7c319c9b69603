//! Damage in the middle of a log, told from the torn end that a crash leaves.
//!
//! Runs on the partition's shard. A tear is what the last write before a crash left, and is cut: it was
//! acknowledged to nobody. Where a log is damaged that had been whole, or where valid batches follow
//! farther behind than one write reaches, the log is kept: readers get an error for what is damaged,
//! never its bytes, and everything else. That a segment had been whole is told by the recovery point, or,
//! where that is lost, by what was written when the segment was finished. Kafka removes all segments
//! behind such a place (`LogLoader#recoverLog`). Names each such place in the log.

use chronik_io::World;
use tracing::{error, warn};

use super::{Recovery, Walked};
use crate::inventory::SegmentEntry;
use crate::scan::{LogScan, ScanEnd};

/// Bytes that one write to a log and the writes to its next segment, which may be on their way at the
/// same time, reach at most: twice what may wait for a write.
const TORN_BYTES_MAX: u64 = 32 << 20;

impl<W: World> Recovery<'_, W> {
    /// Passes over a damaged place, if it is one and batches follow; the scan goes on behind it.
    pub(super) async fn quarantine(
        &mut self,
        scan: &mut LogScan<'_, W>,
        end: &ScanEnd,
    ) -> std::io::Result<bool> {
        let (from, expected) = (scan.position(), scan.next_offset());
        let segments = &self.inventory.segments;
        let at = segments.partition_point(|segment| segment.base_offset <= scan.base_offset());
        let was_whole =
            expected < self.certain || self.was_finished(segments.get(at..).unwrap_or_default());
        let why = match end {
            ScanEnd::Exact => return Ok(false),
            ScanEnd::Zeros if !was_whole => return Ok(false),
            ScanEnd::Zeros => "zeros",
            ScanEnd::Torn(why) => why.as_str(),
        };
        let mut is_damage = was_whole;
        if !is_damage {
            let mut far = scan.behind(from.saturating_add(TORN_BYTES_MAX));
            is_damage = far.resync().await?.is_some();
        }
        if !is_damage {
            return self.tell_tear(scan, why).await;
        }
        let Some((to, next)) = scan.resync().await? else {
            return Ok(false);
        };
        self.report.quarantined += 1;
        error!(
            dir = %self.dir.display(), segment = scan.base_offset(), position = from, end = to,
            first_offset = expected, next_offset = next, why,
            "the log is damaged here; its records cannot be read, what follows can"
        );
        Ok(true)
    }

    /// Names a tear behind which whole batches lie. They are of the same write as the tear, whose
    /// blocks reach a disk in any order: acknowledged to nobody, and to be cut with it, for a producer
    /// that sends them all again would be told of duplicates otherwise, and readers would stand before
    /// the hole for ever. That acknowledged batches of the last [`TORN_BYTES_MAX`] were damaged and
    /// the machine crashed besides looks the same; so it is said.
    async fn tell_tear(&self, scan: &LogScan<'_, W>, why: &str) -> std::io::Result<bool> {
        let (from, expected) = (scan.position(), scan.next_offset());
        if let Some((to, next)) = scan.behind(from).resync().await? {
            warn!(
                dir = %self.dir.display(), segment = scan.base_offset(), position = from,
                first_offset = expected, next_position = to, next_offset = next, why,
                "a write was torn by the crash: whole batches behind the tear go with it"
            );
        }
        Ok(false)
    }

    /// Whether a segment of valid batches that ends before the next one begins had been finished.
    pub(super) fn is_gap(&self, next_offset: i64, behind: &[SegmentEntry]) -> bool {
        let is_early = behind
            .first()
            .is_some_and(|next| next_offset < next.base_offset);
        let bytes: u64 = behind.iter().map(|segment| segment.log_bytes).sum();
        is_early && (self.was_finished(behind) || bytes > TORN_BYTES_MAX)
    }

    /// Whether a segment before these had been finished, and so was whole once. Who finishes one writes the
    /// snapshot at the next one's base, Kafka like this broker, and segments are finished in their order;
    /// where none is there, the crash may have come between the writes to both segments, unless more
    /// follows than those reach. How far the last one is written is not known.
    pub(super) fn was_finished(&self, behind: &[SegmentEntry]) -> bool {
        let Some((next, (_, but_last))) = behind.first().zip(behind.split_last()) else {
            return false;
        };
        let bytes: u64 = but_last.iter().map(|segment| segment.log_bytes).sum();
        let has_snapshot =
            |segment: &SegmentEntry| self.inventory.has_snapshot(segment.base_offset);
        next.base_offset <= self.certain
            || behind.iter().any(has_snapshot)
            || bytes > TORN_BYTES_MAX
    }

    /// Names a gap between two segments of valid batches. This broker's compaction leaves none, Kafka's
    /// does.
    pub(super) fn tell_gap(&self, walked: &Walked<W::File>, next_base: Option<i64>) {
        warn!(
            dir = %self.dir.display(), first_offset = walked.next_offset, next_offset = next_base,
            "a segment ends before the next one begins: Kafka has compacted it, or the records \
             between are lost"
        );
    }

    /// Whether a segment that ends too early had been whole.
    pub(super) fn misses_records(
        &mut self,
        walked: &Walked<W::File>,
        behind: &[SegmentEntry],
    ) -> bool {
        let Some(next_base) = behind.first().map(|next| next.base_offset) else {
            return false;
        };
        let is_damage = self.was_finished(behind);
        if is_damage && walked.next_offset < next_base {
            self.report.quarantined += 1;
            error!(
                dir = %self.dir.display(), position = walked.valid_bytes,
                first_offset = walked.next_offset, next_offset = next_base,
                "a segment ends before the next one begins; the records between are lost"
            );
        }
        is_damage && walked.next_offset <= next_base
    }
}
