//! Bytes of records or messages, as they are or decompressed piece by piece.
//!
//! Owns the buffer between a codec and whoever cuts whole records out of its output. Holds what is
//! not cut yet: a record under way and one piece.

use bytes::{Bytes, BytesMut};

use crate::record::compression::{Decompressor, HeaderChecksum};
use crate::record::{Compression, CompressionError};

/// Where records or messages come from.
pub(in crate::record) enum Feed {
    /// Everything is at hand.
    Plain(Bytes),
    /// More comes from the codec.
    Compressed {
        decompressor: Box<Decompressor>,
        pending: BytesMut,
    },
}

impl Feed {
    /// Over `input`, of which at most `bytes_max` come out.
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

    /// What is at hand.
    pub(in crate::record) fn front(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Compressed { pending, .. } => pending,
        }
    }

    /// Bytes of memory that hold what was decompressed and not cut yet.
    pub(in crate::record) fn held_bytes(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Compressed { pending, .. } => pending.len(),
        }
    }

    /// Cuts `count` bytes off the front, or what is there of them.
    pub(in crate::record) fn take(&mut self, count: usize) -> Bytes {
        let count = count.min(self.front().len());
        match self {
            Self::Plain(bytes) => bytes.split_to(count),
            Self::Compressed { pending, .. } => pending.split_to(count).freeze(),
        }
    }

    /// Gets one more piece to the end of the front; its length, 0 at the end.
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
