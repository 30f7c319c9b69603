//! Bytes of records or messages, plain or decompressed piece by piece.
//!
//! Owns the buffer between a codec and the reader that cuts whole records out of its output. Holds an
//! incomplete record and one piece.

use bytes::{Bytes, BytesMut};

use crate::record::compression::{Decompressor, HeaderChecksum};
use crate::record::{Compression, CompressionError};

/// The source of a batch's records or messages.
pub(in crate::record) enum Feed {
    /// All of them are in memory.
    Plain(Bytes),
    /// More come from the codec.
    Compressed {
        decompressor: Box<Decompressor>,
        pending: BytesMut,
    },
}

impl Feed {
    /// Over `input`, with at most `bytes_max` bytes of output.
    pub(in crate::record) fn new(
        codec: Compression,
        input: Bytes,
        bytes_max: usize,
        lz4_checksum: HeaderChecksum,
    ) -> Result<Self, CompressionError> {
        match codec {
            Compression::None => Ok(Self::Plain(codec.decompress_bounded(&input, bytes_max)?)),
            codec => Ok(Self::Compressed {
                decompressor: Box::new(Decompressor::new(codec, input, bytes_max, lz4_checksum)?),
                pending: BytesMut::new(),
            }),
        }
    }

    /// The bytes in memory.
    pub(in crate::record) fn front(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Compressed { pending, .. } => pending,
        }
    }

    /// Bytes of memory that hold decompressed data not cut yet.
    pub(in crate::record) fn held_bytes(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Compressed { pending, .. } => pending.len(),
        }
    }

    /// Cuts `count` bytes off the front, or all of fewer.
    pub(in crate::record) fn take(&mut self, count: usize) -> Bytes {
        let count = count.min(self.front().len());
        match self {
            Self::Plain(bytes) => bytes.split_to(count),
            Self::Compressed { pending, .. } => pending.split_to(count).freeze(),
        }
    }

    /// Appends one more piece to the front; returns its length, 0 at the end.
    pub(in crate::record) fn grow(&mut self) -> Result<usize, CompressionError> {
        match self {
            Self::Plain(_) => Ok(0),
            Self::Compressed {
                decompressor,
                pending,
            } => {
                let piece = decompressor.next_chunk()?;
                pending.extend_from_slice(piece);
                Ok(piece.len())
            }
        }
    }
}
