//! Bytes on their way into a codec, a piece at a time.
//!
//! Owns the pacing and the bound on output. Never holds more input than one record.

use super::super::compression::Compressor;
use super::super::{Compression, CompressionError};

/// Bytes a codec is given at a time.
const PIECE_BYTES: usize = super::STEP_BYTES;

/// A compressor and the record it is being given.
pub(super) struct PacedWriter {
    compressor: Compressor,
    record: Vec<u8>,
    written_bytes: usize,
}

impl PacedWriter {
    /// An empty writer; `level` as for [`Compression::compress`].
    pub(super) fn new(codec: Compression, level: Option<i32>) -> Result<Self, CompressionError> {
        Ok(Self {
            compressor: Compressor::new(codec, level)?,
            record: Vec::new(),
            written_bytes: 0,
        })
    }

    /// The buffer for the next record, empty; only when nothing [is pending](Self::pump).
    pub(super) fn next_record(&mut self) -> &mut Vec<u8> {
        self.record.clear();
        self.written_bytes = 0;
        &mut self.record
    }

    /// Gives the codec one more piece of the record; returns its bytes, 0 when none is left.
    pub(super) fn pump(&mut self) -> Result<usize, CompressionError> {
        let rest = self.record.get(self.written_bytes..).unwrap_or_default();
        let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
        if !piece.is_empty() {
            self.compressor.write(piece)?;
            self.written_bytes += piece.len();
        }
        Ok(piece.len())
    }

    /// Bytes of memory of the current record.
    pub(super) fn held_bytes(&self) -> usize {
        self.record.len()
    }

    /// Bytes of output so far.
    pub(super) fn output_bytes(&self) -> usize {
        self.compressor.output_bytes()
    }

    /// Takes all of the output; an empty writer without a codec is left.
    pub(super) fn take(&mut self) -> Result<Vec<u8>, CompressionError> {
        let empty = Self::new(Compression::None, None)?;
        std::mem::replace(self, empty).compressor.finish()
    }
}
