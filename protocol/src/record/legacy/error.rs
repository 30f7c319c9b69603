//! The errors of message sets. Never carries client bytes.

use std::error::Error;
use std::fmt;

use super::super::{BatchError, CompressionError};

/// Why messages are not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The size field is below that of the smallest message, 14 bytes.
    Size(i32),
    /// A magic number no Kafka release has used, or that of batches inside a message set.
    Magic(i8),
    /// The CRC-32 over the bytes from the magic on is not the stored one.
    CrcMismatch {
        /// The checksum in the message.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A message, or the batch made of the messages, is larger than the topic allows.
    TooLarge {
        /// `max.message.bytes`.
        limit_bytes: usize,
    },
    /// Messages of both formats in one set, or in one wrapper.
    MixedFormats,
    /// A compressed wrapper that is not the only message of its set.
    WrapperNotAlone,
    /// The attributes name a codec that does not exist, or that the format lacks.
    Codec(u8),
    /// A wrapper without a value, or without a message in it.
    WrapperEmpty,
    /// A wrapper of format 1 whose offset is neither 0 nor at least the last relative offset inside.
    WrapperOffset {
        /// The wrapper's offset.
        offset: i64,
        /// The relative offset of the last message in it.
        last_inner_offset: i64,
    },
    /// A compressed message inside a wrapper.
    Nested,
    /// The wrapper's decompressed data ends inside a message.
    InnerIncomplete,
    /// A key or value reaches past the end of its message, or the message ends before them.
    Fields,
    /// A rule of batches of magic 2, too.
    Batch(BatchError),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "impossible message size {size}"),
            Self::Magic(magic) => write!(f, "unknown magic {magic} in a message set"),
            Self::CrcMismatch { stored, computed } => {
                write!(f, "stored CRC {stored:#010x}, computed {computed:#010x}")
            }
            Self::TooLarge { limit_bytes } => {
                write!(f, "the messages pass the limit of {limit_bytes} bytes")
            }
            Self::MixedFormats => write!(f, "messages of two formats in one set"),
            Self::WrapperNotAlone => {
                write!(f, "a compressed message is not the only one of its set")
            }
            Self::Codec(id) => write!(f, "compression type {id} in a message"),
            Self::WrapperEmpty => write!(f, "a compressed message without messages in it"),
            Self::WrapperOffset {
                offset,
                last_inner_offset,
            } => write!(
                f,
                "wrapper offset {offset} with relative offset {last_inner_offset} inside"
            ),
            Self::Nested => write!(f, "a compressed message inside of another"),
            Self::InnerIncomplete => write!(f, "the decompressed messages end inside of one"),
            Self::Fields => write!(f, "a key or value reaches past its message"),
            Self::Batch(error) => error.fmt(f),
        }
    }
}

impl Error for MessageError {}

impl From<BatchError> for MessageError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<CompressionError> for MessageError {
    fn from(error: CompressionError) -> Self {
        Self::Batch(BatchError::Compression(error))
    }
}
