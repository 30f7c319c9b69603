//! Where segments begin: all that ListOffsets could tell before there were time indexes.
//!
//! Part of the partition's state, on its shard (`UnifiedLog#legacyFetchOffsetsBefore`). Answered from
//! memory alone: of a segment whose times are on disk only, the age counts as unknown.

use chronik_io::World;
use chronik_log::index::NO_TIMESTAMP;
use chronik_protocol::ErrorCode;
use chronik_terms::{SegmentOffsets, SegmentOffsetsQuery, SegmentsBefore};

use super::{Closing, Partition};

/// An offset that can be answered, and its time where that is known, ms since the epoch.
struct Start {
    offset: i64,
    time_ms: Option<i64>,
}

impl<W: World> Partition<W> {
    /// Answers a query.
    pub fn segment_offsets(&self, query: &SegmentOffsetsQuery) -> SegmentOffsets {
        let starts = self.starts(query.now_ms);
        let newest = match query.before {
            SegmentsBefore::End => starts.len().checked_sub(1),
            SegmentsBefore::Start => Some(0),
            SegmentsBefore::Time(wanted_ms) => starts
                .iter()
                .rposition(|start| start.time_ms.is_some_and(|time_ms| time_ms <= wanted_ms)),
        };
        let chosen = starts
            .get(..=newest.unwrap_or(0))
            .filter(|_| newest.is_some());
        let mut offsets: Vec<i64> = chosen
            .unwrap_or_default()
            .iter()
            .map(|start| start.offset)
            .collect();
        // Two may be equal where the log starts inside of a segment.
        offsets.reverse();
        offsets.truncate(query.count_max);
        // Consumers see nothing beyond the high watermark.
        let hidden = offsets
            .iter()
            .take_while(|offset| **offset > self.high_watermark)
            .count();
        if hidden > 0 {
            offsets.drain(..hidden);
            offsets.insert(0, self.high_watermark);
        }
        SegmentOffsets {
            error: ErrorCode::None,
            offsets,
        }
    }

    /// The bases of all segments, and the log's end unless the last one is empty; ascending.
    fn starts(&self, now_ms: i64) -> Vec<Start> {
        let from = |base: i64| base.max(self.log_start);
        let mut starts = Vec::with_capacity(self.sealed.len() + self.closing.len() + 2);
        for segment in &self.sealed {
            starts.push(Start {
                offset: from(segment.base_offset),
                time_ms: segment.max_timestamp,
            });
        }
        for closing in &self.closing {
            let (base, time_ms) = match closing {
                Closing::Draining { segment, .. } => {
                    (segment.base_offset(), Some(segment.max_timestamp()))
                }
                Closing::Sealing(sealing) => {
                    (sealing.segment.base_offset, sealing.segment.max_timestamp)
                }
            };
            starts.push(Start {
                offset: from(base),
                time_ms,
            });
        }
        let is_empty = self.active.is_empty();
        starts.push(Start {
            offset: from(self.active.base_offset()),
            time_ms: Some(if is_empty {
                now_ms
            } else {
                self.active.max_timestamp()
            }),
        });
        if !is_empty {
            starts.push(Start {
                offset: self.log_end(),
                time_ms: Some(now_ms),
            });
        }
        for start in &mut starts {
            // Records of clients before 0.10 have no time.
            start.time_ms = start.time_ms.filter(|time_ms| *time_ms > NO_TIMESTAMP);
        }
        starts
    }
}
