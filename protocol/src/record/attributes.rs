//! The 16 attribute bits of a batch header.
//!
//! Owns their meaning (`DefaultRecordBatch`): bits 0–2 codec, 3 timestamp type, 4 transactional, 5 control, 6
//! delete horizon. Never drops an unknown bit.

use super::{BatchError, Compression};

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Who set the timestamps of a batch's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer set each record's timestamp.
    #[default]
    CreateTime,
    /// The broker set one for all: every record has the batch's maximum timestamp.
    LogAppendTime,
}

/// A batch's attributes; the codec is a known one.
///
/// Bits 7–15 have no meaning yet. Kafka ignores them, so they stay as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    bits: i16,
    compression: Compression,
}

impl Attributes {
    /// Reads the header's 16 bits.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] when bits 0–2 are 5, 6 or 7.
    pub fn from_bits(bits: i16) -> Result<Self, BatchError> {
        // Three bits fit a u8.
        let id = (bits & COMPRESSION_MASK) as u8;
        let compression = Compression::from_id(id).ok_or(BatchError::UnknownCompression { id })?;
        Ok(Self { bits, compression })
    }

    /// The header's 16 bits.
    pub fn bits(self) -> i16 {
        self.bits
    }

    /// The codec of the records.
    pub fn compression(self) -> Compression {
        self.compression
    }

    /// Who set the timestamps.
    pub fn timestamp_type(self) -> TimestampType {
        if self.bits & TIMESTAMP_TYPE == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// True when the batch is part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.bits & TRANSACTIONAL != 0
    }

    /// True when the batch holds control records, which consumers do not see.
    pub fn is_control(self) -> bool {
        self.bits & CONTROL != 0
    }

    /// True when the base timestamp field holds the delete horizon that the log cleaner set.
    pub fn has_delete_horizon(self) -> bool {
        self.bits & DELETE_HORIZON != 0
    }

    /// The same attributes with another codec.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self {
            bits: (self.bits & !COMPRESSION_MASK) | i16::from(compression.id()),
            compression,
        }
    }

    /// The same attributes with another timestamp type.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with_bit(
            TIMESTAMP_TYPE,
            timestamp_type == TimestampType::LogAppendTime,
        )
    }

    /// The same attributes, transactional or not.
    #[must_use]
    pub fn with_transactional(self, transactional: bool) -> Self {
        self.with_bit(TRANSACTIONAL, transactional)
    }

    /// The same attributes, for a control batch or not.
    #[must_use]
    pub fn with_control(self, control: bool) -> Self {
        self.with_bit(CONTROL, control)
    }

    /// The same attributes, with the base timestamp as delete horizon or not.
    #[must_use]
    pub fn with_delete_horizon(self, delete_horizon: bool) -> Self {
        self.with_bit(DELETE_HORIZON, delete_horizon)
    }

    fn with_bit(mut self, bit: i16, set: bool) -> Self {
        if set {
            self.bits |= bit;
        } else {
            self.bits &= !bit;
        }
        self
    }
}
