//! The first record of a batch at or after a timestamp, found without holding the records.
//!
//! Owns the search by timestamp (ListOffsets). Runs in steps like validation, and holds one piece of
//! decompressed data besides its codec's state, whatever the batch decompresses to. Never decodes a key or a
//! value.

use super::compression::HeaderChecksum;
use super::parser::RecordParser;
use super::validate::PlainPieces;
use super::{BatchError, CheckedBatch, TimestampType};

/// Decompressed bytes a batch may have: a segment's limit, since Kafka has none of its own.
const PLAIN_BYTES_MAX: usize = i32::MAX as usize;

/// The result of one step of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchProgress {
    /// Records remain.
    More,
    /// The first matching record.
    Found {
        /// Milliseconds since the epoch.
        timestamp_ms: i64,
        /// Offset in the partition.
        offset: i64,
    },
    /// No record matches.
    Nothing,
}

/// A search through the records of one batch, resumable.
pub struct TimestampSearch {
    source: PlainPieces,
    parser: RecordParser,
    base_offset: i64,
    base_timestamp: i64,
    /// The timestamp of every record, where the broker set it.
    append_time: Option<i64>,
    wanted_ms: i64,
    offset_min: i64,
}

impl TimestampSearch {
    /// Searches a stored batch for the first record with a timestamp of at least `wanted_ms` (since the epoch) and
    /// an offset of at least `offset_min`.
    ///
    /// # Errors
    /// [`BatchError::Compression`].
    pub fn new(batch: &CheckedBatch, wanted_ms: i64, offset_min: i64) -> Result<Self, BatchError> {
        let header = &batch.header;
        let limits = (PLAIN_BYTES_MAX, HeaderChecksum::Checked);
        Ok(Self {
            source: PlainPieces::of(batch, limits)?,
            parser: RecordParser::new(header.record_count, PLAIN_BYTES_MAX),
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

    /// Reads about `bytes_budget` more bytes of records, counted decompressed; at least one piece, as
    /// [`RecordsValidator::step`](super::RecordsValidator::step).
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Record`]. Drop the search after an error.
    pub fn step(&mut self, bytes_budget: usize) -> Result<SearchProgress, BatchError> {
        let mut seen = 0_usize;
        loop {
            let piece = self.source.next(bytes_budget)?;
            if piece.is_empty() {
                return Ok(SearchProgress::Nothing);
            }
            seen = seen.saturating_add(piece.len());
            let mut found = None;
            let parsed = self.parser.push(&piece, |_, facts| {
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
            // A fault after the record found does not matter.
            if let Some(found) = found {
                return Ok(found);
            }
            parsed?;
            if seen >= bytes_budget {
                return Ok(SearchProgress::More);
            }
        }
    }
}
