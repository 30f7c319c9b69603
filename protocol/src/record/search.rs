//! The first record of a batch from a time on, found without holding its records.
//!
//! Owns the search by timestamp (ListOffsets). Runs in steps like validation, and holds one piece of
//! decompressed data, whatever a batch unfolds to: besides that, what its codec needs. Never decodes
//! a key or a value.

use super::compression::HeaderChecksum;
use super::validate::Source;
use super::walk::Walk;
use super::{BatchError, CheckedBatch, TimestampType};

/// Bytes a batch may unfold to: as many as a segment may have, for Kafka has no bound of its own.
const PLAIN_BYTES_MAX: usize = i32::MAX as usize;

/// What a step of a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchProgress {
    /// There is more to look at.
    More,
    /// The first such record: its timestamp, ms since the epoch, and its offset.
    Found {
        /// Milliseconds since the epoch.
        timestamp_ms: i64,
        /// In its partition.
        offset: i64,
    },
    /// No record is such.
    Nothing,
}

/// A search through the records of one batch, resumable.
pub struct TimestampSearch {
    source: Source,
    walk: Walk,
    base_offset: i64,
    base_timestamp: i64,
    /// The timestamp of every record, where the broker set it.
    append_time: Option<i64>,
    wanted_ms: i64,
    offset_min: i64,
}

impl TimestampSearch {
    /// For the first record of a stored batch whose timestamp is at least `wanted_ms` and whose offset
    /// is at least `offset_min`.
    ///
    /// # Errors
    /// [`BatchError::Compression`].
    pub fn new(batch: &CheckedBatch, wanted_ms: i64, offset_min: i64) -> Result<Self, BatchError> {
        let header = &batch.header;
        let limits = (PLAIN_BYTES_MAX, HeaderChecksum::Checked);
        Ok(Self {
            source: Source::of(batch, limits)?,
            walk: Walk::new(header.record_count, PLAIN_BYTES_MAX),
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: match header.timestamp_type() {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(header.max_timestamp),
            },
            wanted_ms,
            offset_min,
        })
    }

    /// Looks at about `bytes_budget` more bytes of records, counted once decompressed; at least one
    /// piece, as [`RecordsValidator::step`](super::RecordsValidator::step).
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Record`]. The search is of no use after an error.
    pub fn step(&mut self, bytes_budget: usize) -> Result<SearchProgress, BatchError> {
        let mut seen = 0_usize;
        loop {
            let piece = self.source.next(bytes_budget)?;
            if piece.is_empty() {
                return Ok(SearchProgress::Nothing);
            }
            seen = seen.saturating_add(piece.len());
            let mut found = None;
            let walked = self.walk.push(&piece, |_, facts| {
                let delta = facts.timestamp_delta;
                let created_ms = self.base_timestamp.saturating_add(delta);
                let timestamp_ms = self.append_time.unwrap_or(created_ms);
                let offset = self
                    .base_offset
                    .saturating_add(i64::from(facts.offset_delta));
                if found.is_none() && timestamp_ms >= self.wanted_ms && offset >= self.offset_min {
                    found = Some(SearchProgress::Found {
                        timestamp_ms,
                        offset,
                    });
                }
                Ok(())
            });
            // What is wrong behind the record does not matter.
            if let Some(found) = found {
                return Ok(found);
            }
            walked?;
            if seen >= bytes_budget {
                return Ok(SearchProgress::More);
            }
        }
    }
}
