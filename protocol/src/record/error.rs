//! The errors of record batches, precise enough for a log line.
//!
//! Never carries client bytes, so that an error is cheap and safe to print.

use std::error::Error;
use std::fmt;

use super::Compression;

/// Why bytes are not an acceptable record batch.
///
/// Offsets, lengths and counts are those on the wire or on disk, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the header's length field promises.
    Truncated {
        /// Bytes the batch needs, counted from its first byte.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// Bytes follow the one batch that was expected.
    BytesAfterBatch {
        /// How many bytes follow it.
        count: usize,
    },
    /// Magic 0 or 1: a message set of Kafka before 0.11, which `legacy` reads.
    LegacyMagic {
        /// The format's magic number, 0 or 1.
        magic: i8,
    },
    /// A magic number no Kafka release has used.
    UnknownMagic {
        /// The magic number found.
        magic: i8,
    },
    /// The length field is negative or too small for the rest of the header.
    InvalidLength {
        /// The length field: bytes after itself.
        batch_length: i32,
    },
    /// The compression bits name no codec (5, 6 or 7).
    UnknownCompression {
        /// The three compression bits.
        id: u8,
    },
    /// The CRC-32C over the bytes from the attributes on is not the stored one.
    CrcMismatch {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A negative base offset, or offsets that pass the end of the 64-bit range.
    InvalidOffsets {
        /// The header's base offset.
        base_offset: i64,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// The record count cannot belong to the offsets the header claims.
    InvalidCount {
        /// The header's record count.
        record_count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// A producer id without a valid producer epoch or base sequence (`LogValidator`), or a
    /// transactional batch without a producer id.
    InvalidProducer {
        /// The header's producer id.
        producer_id: i64,
        /// The header's producer epoch.
        producer_epoch: i16,
        /// The header's base sequence.
        base_sequence: i32,
    },
    /// A control batch where only a broker may write one.
    ControlNotAllowed,
    /// Records break rules of their topic; the batch is sound otherwise.
    Refused(RefusedRecords),
    /// The records could not be decompressed within the limit.
    Compression(CompressionError),
    /// A record breaks the format or a rule of its topic.
    Record {
        /// Position of the record in its batch, from 0.
        index: i32,
        /// The record's fault.
        fault: RecordFault,
    },
    /// The batch ended inside a record, or before the record count of its header was reached.
    RecordsMissing {
        /// The header's record count.
        declared: i32,
        /// Complete records there are.
        found: i32,
    },
    /// Bytes follow the last record that the header declares.
    BytesAfterRecords {
        /// The header's record count.
        declared: i32,
    },
    /// A batch under construction would pass the format's 2 GiB, or the offset range.
    TooLarge,
}

/// The records of one batch that break a rule of their topic, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedRecords {
    /// The first of them: position in the batch, from 0, and fault. At most `RecordLimits::refused_listed_max`.
    pub listed: Vec<(i32, RecordFault)>,
    /// The number of them, listed or not.
    pub count: i32,
    /// True when the timestamp of one of them, listed or not, is at fault.
    pub by_timestamp: bool,
}

/// Why one record is faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// A variable-length integer is longer than its type allows or overflows it.
    Varint,
    /// The record's length is negative, too small for its fixed fields, or above the limit.
    Length(i64),
    /// A field reaches past the end that the record's length gives.
    FieldBeyondRecord,
    /// The record's fields end before its length does.
    BytesAfterFields(i64),
    /// The header count is negative or cannot fit the record.
    HeaderCount(i32),
    /// A header's key has a negative length: header keys are never null.
    HeaderKeyLength(i32),
    /// The record's offset is not the one that follows its predecessor's.
    OffsetDelta {
        /// The delta expected; the smallest allowed where gaps are.
        expected: i32,
        /// The delta found.
        found: i32,
    },
    /// The timestamp is outside what the topic accepts (milliseconds since the epoch).
    TimestampOutOfRange(i64),
    /// The batch's timestamps are of type LogAppendTime, which only a broker may set.
    TimestampType,
    /// A record without a key in a compacted topic.
    NullKey,
    /// A control record with a malformed key or value.
    Control,
}

/// Why a compressed block could not be turned into its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompressionError {
    /// The output would pass the caller's limit; no more than the limit was produced.
    LimitExceeded {
        /// The codec at work.
        codec: Compression,
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// The input is not what the codec writes, or ends too early.
    Malformed {
        /// The codec at work.
        codec: Compression,
        /// The codec's own words.
        detail: String,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, available } => {
                write!(f, "batch needs {needed} bytes, {available} are there")
            }
            Self::BytesAfterBatch { count } => write!(f, "{count} bytes follow the batch"),
            Self::LegacyMagic { magic } => {
                write!(
                    f,
                    "message format {magic} (before Kafka 0.11) is not supported"
                )
            }
            Self::UnknownMagic { magic } => write!(f, "unknown magic {magic}"),
            Self::InvalidLength { batch_length } => {
                write!(f, "batch length {batch_length} is below the header's")
            }
            Self::UnknownCompression { id } => write!(f, "unknown compression type {id}"),
            Self::CrcMismatch { stored, computed } => {
                write!(f, "stored CRC {stored:#010x}, computed {computed:#010x}")
            }
            Self::InvalidOffsets {
                base_offset,
                last_offset_delta,
            } => write!(
                f,
                "base offset {base_offset} with last offset delta {last_offset_delta} is impossible"
            ),
            Self::InvalidCount {
                record_count,
                last_offset_delta,
            } => write!(
                f,
                "record count {record_count} does not fit last offset delta {last_offset_delta}"
            ),
            Self::InvalidProducer {
                producer_id,
                producer_epoch,
                base_sequence,
            } => write!(
                f,
                "producer id {producer_id} with epoch {producer_epoch} and sequence {base_sequence}"
            ),
            Self::ControlNotAllowed => write!(f, "clients may not write control batches"),
            Self::Refused(refused) => {
                write!(f, "{} records break rules of their topic", refused.count)
            }
            Self::Compression(error) => error.fmt(f),
            Self::Record { index, fault } => write!(f, "record {index}: {fault}"),
            Self::RecordsMissing { declared, found } => {
                write!(
                    f,
                    "{declared} records declared, the data ends after {found}"
                )
            }
            Self::BytesAfterRecords { declared } => {
                write!(f, "bytes remain after the {declared} declared records")
            }
            Self::TooLarge => write!(f, "the batch would pass what its format can hold"),
        }
    }
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varint => write!(f, "malformed variable-length integer"),
            Self::Length(length) => write!(f, "impossible record length {length}"),
            Self::FieldBeyondRecord => write!(f, "a field reaches past the record's length"),
            Self::BytesAfterFields(count) => {
                write!(
                    f,
                    "{count} bytes of the record's length are left after its fields"
                )
            }
            Self::HeaderCount(count) => write!(f, "impossible header count {count}"),
            Self::HeaderKeyLength(length) => write!(f, "header key length {length}"),
            Self::OffsetDelta { expected, found } => {
                write!(f, "offset delta {found} where {expected} was due")
            }
            Self::TimestampType => {
                write!(
                    f,
                    "producers may not set the timestamp type to log append time"
                )
            }
            Self::TimestampOutOfRange(timestamp) => {
                write!(f, "timestamp {timestamp} is outside the accepted range")
            }
            Self::NullKey => write!(f, "a compacted topic needs a key"),
            Self::Control => write!(f, "malformed control record"),
        }
    }
}

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LimitExceeded { codec, limit_bytes } => {
                write!(f, "{codec} output passes the limit of {limit_bytes} bytes")
            }
            Self::Malformed { codec, detail } => write!(f, "malformed {codec} data: {detail}"),
        }
    }
}

impl Error for BatchError {}
impl Error for CompressionError {}

impl RefusedRecords {
    /// Counts one more record; lists it while fewer than `listed_max` are listed.
    pub(super) fn add(&mut self, index: i32, fault: RecordFault, listed_max: usize) {
        if self.listed.len() < listed_max {
            self.listed.push((index, fault));
        }
        // At most the records of a batch.
        self.count = self.count.saturating_add(1);
        self.by_timestamp |= matches!(
            fault,
            RecordFault::TimestampOutOfRange(_) | RecordFault::TimestampType
        );
    }

    /// `Ok` without a refused record.
    pub(super) fn into_result(self) -> Result<(), BatchError> {
        match self.count {
            0 => Ok(()),
            _ => Err(BatchError::Refused(self)),
        }
    }
}

impl From<CompressionError> for BatchError {
    fn from(error: CompressionError) -> Self {
        Self::Compression(error)
    }
}
