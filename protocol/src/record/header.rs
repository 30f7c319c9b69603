//! The 61 bytes in front of every record batch.
//!
//! Owns their layout (`DefaultRecordBatch`, magic 2, big-endian). Never looks at a record and never
//! computes the CRC: see `CheckedBatch` for that.

use std::ops::Range;

use super::{Attributes, BatchError, Compression, TimestampType};

/// Bytes of a batch header, up to the first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes in front of those the length field counts: base offset and the length itself.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// Bytes in front of the magic: base offset, length, partition leader epoch. The broker rewrites them on append;
/// the CRC does not cover them.
pub const BATCH_PREFIX_BYTES: usize = 16;
/// The record format stored and served.
pub const MAGIC_V2: i8 = 2;
/// The producer id of a batch whose producer is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// The producer epoch of a batch whose producer is not idempotent.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// The base sequence of a batch whose producer is not idempotent, and of control batches.
pub const NO_SEQUENCE: i32 = -1;
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// The partition leader epoch of a batch that no leader has appended yet.
pub const NO_PARTITION_LEADER_EPOCH: i32 = -1;

pub(super) const BASE_OFFSET: Range<usize> = 0..8;
pub(super) const LENGTH: Range<usize> = 8..12;
pub(super) const LEADER_EPOCH: Range<usize> = 12..16;
pub(super) const MAGIC: usize = 16;
pub(super) const CRC: Range<usize> = 17..21;
/// The first byte the CRC covers.
pub(super) const CRC_START: usize = 21;

/// A batch header, every field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch was written with.
    pub base_offset: i64,
    /// Bytes after this field: the batch's size less 12. At least 49.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch, −1 before that.
    pub partition_leader_epoch: i32,
    /// The record format: 2.
    pub magic: i8,
    /// CRC-32C (Castagnoli) of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: Attributes,
    /// Offset of the last record the batch was written with, less the base offset.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to (ms since the epoch), or the delete horizon.
    pub base_timestamp: i64,
    /// Largest record timestamp (ms since the epoch), or the append time of all records.
    pub max_timestamp: i64,
    /// Id of the idempotent producer, −1 without.
    pub producer_id: i64,
    /// Epoch of the idempotent producer, −1 without.
    pub producer_epoch: i16,
    /// Sequence number of the first record, −1 without a producer.
    pub base_sequence: i32,
    /// Records in the batch. Compaction can leave fewer than the offsets span, even none.
    pub record_count: i32,
}

/// A cursor over the 61 bytes: each take has a fixed size, so none can fail.
struct Fields<'a>(&'a [u8; BATCH_HEADER_BYTES], usize);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[self.1..self.1 + N]);
        self.1 += N;
        field
    }
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`. Reads 61 bytes; the records may be missing.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] below 61 bytes (17 suffice to refuse another magic),
    /// [`BatchError::LegacyMagic`], [`BatchError::UnknownMagic`], [`BatchError::InvalidLength`],
    /// [`BatchError::UnknownCompression`]. The CRC, counts and offsets are not judged.
    pub fn peek(bytes: &[u8]) -> Result<Self, BatchError> {
        match bytes.get(MAGIC).map(|byte| i8::from_be_bytes([*byte])) {
            None | Some(MAGIC_V2) => {}
            Some(magic @ (0 | 1)) => return Err(BatchError::LegacyMagic { magic }),
            Some(magic) => return Err(BatchError::UnknownMagic { magic }),
        }
        let Some(header) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                needed: BATCH_HEADER_BYTES,
                available: bytes.len(),
            });
        };
        let header = Self::read(header)?;
        if header.batch_length < Self::LENGTH_MIN {
            return Err(BatchError::InvalidLength {
                batch_length: header.batch_length,
            });
        }
        Ok(header)
    }

    const LENGTH_MIN: i32 = (BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32;

    fn read(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<Self, BatchError> {
        let mut fields = Fields(bytes, 0);
        Ok(Self {
            base_offset: i64::from_be_bytes(fields.take()),
            batch_length: i32::from_be_bytes(fields.take()),
            partition_leader_epoch: i32::from_be_bytes(fields.take()),
            magic: i8::from_be_bytes(fields.take()),
            crc: u32::from_be_bytes(fields.take()),
            attributes: Attributes::from_bits(i16::from_be_bytes(fields.take()))?,
            last_offset_delta: i32::from_be_bytes(fields.take()),
            base_timestamp: i64::from_be_bytes(fields.take()),
            max_timestamp: i64::from_be_bytes(fields.take()),
            producer_id: i64::from_be_bytes(fields.take()),
            producer_epoch: i16::from_be_bytes(fields.take()),
            base_sequence: i32::from_be_bytes(fields.take()),
            record_count: i32::from_be_bytes(fields.take()),
        })
    }

    /// The header's 61 bytes, with the CRC in `crc`.
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.batch_length.to_be_bytes());
        put(&self.partition_leader_epoch.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.bits().to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        bytes
    }

    /// Size of the whole batch in bytes: 12 plus the length field, at least 61.
    pub fn size_bytes(&self) -> usize {
        // A header that `peek` accepted has a length of at least 49.
        LOG_OVERHEAD_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record the batch was written with. Saturates at the 64-bit range, which only a header
    /// outside a `CheckedBatch` can reach.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch's last one: where the next batch may begin.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// True when an idempotent producer wrote the batch.
    pub fn has_producer(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// True when the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    /// True when the batch holds control records.
    pub fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    /// The codec of the records.
    pub fn compression(&self) -> Compression {
        self.attributes.compression()
    }

    /// Who set the records' timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    /// The time from which the log cleaner may drop the batch's tombstones and markers (ms since the epoch), if it
    /// is set (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes
            .has_delete_horizon()
            .then_some(self.base_timestamp)
    }

    /// Sequence number of the last record; −1 when the batch has no sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// `sequence` advanced by `increment`, both ≥ 0: after `i32::MAX` comes 0
/// (`DefaultRecordBatch.incrementSequence`).
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    sequence.checked_add(increment).unwrap_or_else(|| {
        // Past the end by `increment − (MAX − sequence)`, and the first place past the end is 0.
        increment
            .wrapping_sub(i32::MAX.wrapping_sub(sequence))
            .wrapping_sub(1)
    })
}
