//! The checks of a producer's records before the append (`LogValidator`, magic 2).
//!
//! Owns the rules and the limits. Runs in steps of bounded length, on the core that calls it; allocates only
//! for records refused one by one, and holds one piece of decompressed data.

use bytes::Bytes;

use super::compression::{Decompressor, HeaderChecksum};
use super::facts::RecordFacts;
use super::parser::RecordParser;
use super::{
    BatchError, BatchHeader, CheckedBatch, Compression, NO_TIMESTAMP, RecordFault, RefusedRecords,
    TimestampType,
};

/// A budget for [`RecordsValidator::step`]: one piece of gzip, the slowest codec, which takes about
/// 90 µs. The others stay below, but for zstd, which decodes blocks of 128 KiB in 110 to 150 µs
/// (measured on text-like data, optimised build).
pub const STEP_BYTES: usize = 16 * 1024;

/// The limits a topic and the broker set to a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// Bytes of the records once decompressed, or as sent without a codec. A batch with more is refused as soon as
    /// the limit is reached.
    pub decompressed_bytes_max: usize,
    /// True when every record needs a key: the topic is compacted.
    pub keys_required: bool,
    /// True when control batches are accepted: from the broker's coordinators, never from clients.
    pub control_allowed: bool,
    /// True when the append time replaces the timestamps
    /// (`message.timestamp.type=LogAppendTime`).
    pub timestamps_replaced: bool,
    /// The number of rule-breaking records listed one by one.
    pub refused_listed_max: usize,
    /// Earliest accepted timestamp, ms since the epoch (now less `message.timestamp.before.max.ms`). Neither bound
    /// counts for a record without timestamp or where the append time replaces it.
    pub timestamp_ms_min: i64,
    /// Latest accepted timestamp, ms since the epoch (now plus `message.timestamp.after.max.ms`).
    pub timestamp_ms_max: i64,
}

impl RecordLimits {
    /// The default of `decompressed_bytes_max`: 128 MiB, far above the batches that the Java client's
    /// `max.request.size`, which counts uncompressed bytes, lets through.
    pub const DECOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;
    /// The default of `refused_listed_max`: 1.5 MiB of memory at most.
    pub const REFUSED_LISTED_MAX: usize = 64 * 1024;
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self {
            decompressed_bytes_max: Self::DECOMPRESSED_BYTES_MAX,
            keys_required: false,
            control_allowed: false,
            timestamps_replaced: false,
            refused_listed_max: Self::REFUSED_LISTED_MAX,
            timestamp_ms_min: i64::MIN,
            timestamp_ms_max: i64::MAX,
        }
    }
}

/// What validation learnt of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsSummary {
    /// The number of records, as declared in the header.
    pub record_count: i32,
    /// Bytes of the records once decompressed.
    pub decompressed_bytes: usize,
    /// True when offsets do not follow each other or a null has another length than −1, which no producer should
    /// send. See [`CheckedBatch::renumbered`].
    pub odd: bool,
    /// Largest timestamp of a record, ms since the epoch; −1 without any. The header may differ: see
    /// [`CheckedBatch::with_max_timestamp`].
    pub max_timestamp_ms: i64,
    /// Offset, less the base offset, of the first record that has the largest timestamp.
    pub max_timestamp_offset_delta: i32,
}

/// The result of one step of validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationProgress {
    /// Records remain.
    More,
    /// Every record is sound.
    Done(RecordsSummary),
}

/// The deep check of one batch, resumable.
pub struct RecordsValidator {
    source: PlainPieces,
    parser: RecordParser,
    rules: Rules,
}

/// A batch's records, decompressed piece by piece.
pub(super) enum PlainPieces {
    Plain(Bytes),
    Compressed(Box<Decompressor>),
}

impl PlainPieces {
    /// Opens a batch; its records may have `bytes_max` decompressed bytes.
    pub(super) fn of(
        batch: &CheckedBatch,
        (bytes_max, checksum): (usize, HeaderChecksum),
    ) -> Result<Self, BatchError> {
        let records = batch.compressed_records();
        Ok(match batch.header.compression() {
            // Uncompressed records have their size, but the limit holds for them as well.
            codec @ Compression::None => {
                Self::Plain(codec.decompress_bounded(&records, bytes_max)?)
            }
            codec => {
                let decompressor = Decompressor::new(codec, records, bytes_max, checksum)?;
                Self::Compressed(Box::new(decompressor))
            }
        })
    }

    /// The next piece; empty at the end.
    pub(super) fn next(&mut self, bytes_budget: usize) -> Result<Piece<'_>, BatchError> {
        Ok(match self {
            Self::Plain(records) => {
                Piece::Plain(records.split_to(records.len().min(bytes_budget.max(1))))
            }
            Self::Compressed(decompressor) => Piece::Unfolded(decompressor.next_chunk()?),
        })
    }
}

/// A piece of decompressed records.
pub(super) enum Piece<'a> {
    Plain(Bytes),
    Unfolded(&'a [u8]),
}

impl std::ops::Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Unfolded(bytes) => bytes,
        }
    }
}

struct Rules {
    limits: RecordLimits,
    base_timestamp: i64,
    /// The header's maximum timestamp, where its type is LogAppendTime.
    append_time: Option<i64>,
    is_compressed: bool,
    summary: RecordsSummary,
    refused: RefusedRecords,
}

impl RecordsValidator {
    /// Checks the header and opens the records.
    ///
    /// # Errors
    /// [`BatchError::ControlNotAllowed`]; [`BatchError::InvalidCount`] unless the record count is
    /// positive and the span of the offsets; [`BatchError::InvalidProducer`];
    /// [`BatchError::Compression`].
    pub fn new(batch: &CheckedBatch, limits: RecordLimits) -> Result<Self, BatchError> {
        let header = &batch.header;
        check_header(header, &limits)?;
        let bounds = (limits.decompressed_bytes_max, HeaderChecksum::Checked);
        let source = PlainPieces::of(batch, bounds)?;
        let summary = RecordsSummary {
            record_count: header.record_count,
            decompressed_bytes: 0,
            odd: false,
            max_timestamp_ms: NO_TIMESTAMP,
            max_timestamp_offset_delta: 0,
        };
        Ok(Self {
            source,
            parser: RecordParser::new(header.record_count, limits.decompressed_bytes_max),
            rules: Rules {
                limits,
                base_timestamp: header.base_timestamp,
                append_time: (header.timestamp_type() == TimestampType::LogAppendTime)
                    .then_some(header.max_timestamp),
                is_compressed: header.compression() != Compression::None,
                summary,
                refused: RefusedRecords::default(),
            },
        })
    }

    /// Checks about `bytes_budget` more bytes of records, counted decompressed: at least one piece, and at most one
    /// piece too many. A piece is 16 KiB of gzip or zstd, a block of snappy or LZ4 (32 or 64 KiB from most clients,
    /// but as large as the client made it).
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Record`], [`BatchError::RecordsMissing`],
    /// [`BatchError::BytesAfterRecords`]; [`BatchError::Refused`] at the end. Drop the validator after an error.
    pub fn step(&mut self, bytes_budget: usize) -> Result<ValidationProgress, BatchError> {
        let Self {
            source,
            parser,
            rules,
        } = self;
        let mut checked = 0_usize;
        loop {
            let piece = source.next(bytes_budget)?;
            if piece.is_empty() {
                parser.finish()?;
                std::mem::take(&mut rules.refused).into_result()?;
                return Ok(ValidationProgress::Done(rules.summary));
            }
            checked = checked.saturating_add(piece.len());
            // Bounded by the records' bytes or by the limit.
            rules.summary.decompressed_bytes += piece.len();
            parser.push(&piece, |index, facts| rules.check(index, facts))?;
            if checked >= bytes_budget {
                return Ok(ValidationProgress::More);
            }
        }
    }
}

fn check_header(header: &BatchHeader, limits: &RecordLimits) -> Result<(), BatchError> {
    let BatchHeader {
        record_count,
        last_offset_delta,
        ..
    } = *header;
    if header.is_control() && !limits.control_allowed {
        return Err(BatchError::ControlNotAllowed);
    }
    if record_count <= 0 || i64::from(record_count) != i64::from(last_offset_delta) + 1 {
        return Err(BatchError::InvalidCount {
            record_count,
            last_offset_delta,
        });
    }
    // Markers have a producer but no sequence.
    let sequence_missing = header.base_sequence < 0 && !header.is_control();
    if (header.has_producer() && sequence_missing)
        || (header.is_transactional() && !header.has_producer())
    {
        return Err(BatchError::InvalidProducer {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
    }
    Ok(())
}

impl Rules {
    fn check(&mut self, index: i32, facts: &RecordFacts) -> Result<(), BatchError> {
        let is_next = facts.offset_delta == index;
        if !is_next && self.is_compressed {
            return Err(BatchError::Record {
                index,
                fault: RecordFault::OffsetDelta {
                    expected: index,
                    found: facts.offset_delta,
                },
            });
        }
        self.summary.odd |= facts.odd_null || !is_next;
        let timestamp = self.base_timestamp.wrapping_add(facts.timestamp_delta);
        if let Some(fault) = self.fault(facts, timestamp) {
            let listed_max = self.limits.refused_listed_max;
            self.refused.add(index, fault, listed_max);
        }
        if timestamp > self.summary.max_timestamp_ms {
            self.summary.max_timestamp_ms = timestamp;
            self.summary.max_timestamp_offset_delta = index;
        }
        Ok(())
    }

    /// The rule of the topic that a record breaks (`LogValidator#validateRecord`).
    fn fault(&self, facts: &RecordFacts, timestamp: i64) -> Option<RecordFault> {
        if facts.key_is_null && self.limits.keys_required {
            return Some(RecordFault::NullKey);
        }
        let timestamp = self.append_time.unwrap_or(timestamp);
        if !self.limits.timestamps_replaced && timestamp != NO_TIMESTAMP {
            let accepted = self.limits.timestamp_ms_min..=self.limits.timestamp_ms_max;
            return (!accepted.contains(&timestamp))
                .then_some(RecordFault::TimestampOutOfRange(timestamp));
        }
        self.append_time.map(|_| RecordFault::TimestampType)
    }
}
