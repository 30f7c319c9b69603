//! Snappy in record batches: the Java library's block framing, or one bare block.
//!
//! Owns the framing (`SnappyOutputStream` of xerial's snappy-java); blocks are the `snap` crate's.
//! Never allocates a block's claimed size before the block is long enough to reach it.

use bytes::{Buf, Bytes};

use super::fault::Fault;

/// The first bytes of a framed stream.
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic, then version and oldest compatible version, both 1.
const HEADER_BYTES: usize = 16;
/// Uncompressed bytes per block that the Java library writes.
const BLOCK_BYTES: usize = 32 * 1024;
/// The best ratio of a block: copies of 64 bytes in 3 bytes each, rounded up.
const EXPANSION_MAX: usize = 22;

/// The blocks of one compressed input.
pub(super) struct Blocks {
    input: Bytes,
    framed: bool,
}

impl Blocks {
    pub(super) fn new(mut input: Bytes) -> Self {
        // librdkafka writes bare blocks. None begins like the magic, which would be length 82 53 and then an element
        // that copies from before the start.
        let framed = input.len() >= HEADER_BYTES && input.starts_with(&MAGIC);
        if framed {
            input.advance(HEADER_BYTES);
        }
        Self { input, framed }
    }

    /// Decompresses the next block to the front of `chunk`; its length, 0 at the end.
    pub(super) fn next_block(&mut self, chunk: &mut Vec<u8>, room: usize) -> Result<usize, Fault> {
        loop {
            if self.input.is_empty() {
                return Ok(0);
            }
            let block = self.take_block()?;
            let length = snap::raw::decompress_len(&block).map_err(malformed)?;
            if length > room {
                return Err(Fault::TooLong);
            }
            if length > block.len().saturating_mul(EXPANSION_MAX) {
                return Err(Fault::from("a block claims more than it can hold"));
            }
            if chunk.len() < length {
                chunk.resize(length, 0);
            }
            let written = snap::raw::Decoder::new()
                .decompress(&block, chunk)
                .map_err(malformed)?;
            if written > 0 {
                return Ok(written);
            }
        }
    }

    fn take_block(&mut self) -> Result<Bytes, Fault> {
        if !self.framed {
            return Ok(std::mem::take(&mut self.input));
        }
        let length = self
            .input
            .try_get_i32()
            .map_err(|_| Fault::from("half a block length"))?;
        match usize::try_from(length) {
            Ok(length) if length <= self.input.len() => Ok(self.input.split_to(length)),
            _ => Err(Fault::Malformed(format!(
                "block length {length} is impossible"
            ))),
        }
    }
}

fn malformed(error: snap::Error) -> Fault {
    Fault::Malformed(error.to_string())
}

/// `input` in the Java library's framing.
pub(super) fn compress(input: &[u8]) -> Result<Vec<u8>, snap::Error> {
    let mut writer = BlockWriter::new();
    writer.output.reserve(input.len() / 2);
    writer.write(input)?;
    writer.finish()
}

/// A writer of the Java library's framing, piece by piece.
pub(super) struct BlockWriter {
    encoder: snap::raw::Encoder,
    /// Input that fills no block yet.
    pending: Vec<u8>,
    output: Vec<u8>,
}

impl BlockWriter {
    /// A stream without blocks.
    pub(super) fn new() -> Self {
        let mut output = Vec::with_capacity(HEADER_BYTES);
        output.extend_from_slice(&MAGIC);
        output.extend_from_slice(&1_i32.to_be_bytes());
        output.extend_from_slice(&1_i32.to_be_bytes());
        Self {
            encoder: snap::raw::Encoder::new(),
            pending: Vec::new(),
            output,
        }
    }

    /// Takes the next piece of input.
    pub(super) fn write(&mut self, mut piece: &[u8]) -> Result<(), snap::Error> {
        while !piece.is_empty() {
            if self.pending.is_empty() && piece.len() >= BLOCK_BYTES {
                let (block, rest) = piece.split_at(BLOCK_BYTES);
                self.put_block(block)?;
                piece = rest;
                continue;
            }
            let taken = piece.len().min(BLOCK_BYTES - self.pending.len());
            let (taken, rest) = piece.split_at(taken);
            self.pending.extend_from_slice(taken);
            piece = rest;
            if self.pending.len() == BLOCK_BYTES {
                let block = std::mem::take(&mut self.pending);
                self.put_block(&block)?;
            }
        }
        Ok(())
    }

    /// Bytes of output so far.
    pub(super) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Ends the stream and returns all of it.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, snap::Error> {
        if !self.pending.is_empty() {
            let block = std::mem::take(&mut self.pending);
            self.put_block(&block)?;
        }
        Ok(self.output)
    }

    fn put_block(&mut self, block: &[u8]) -> Result<(), snap::Error> {
        let compressed = self.encoder.compress_vec(block)?;
        // A block of 32 KiB compresses to less than 40 KiB.
        let length = compressed.len() as i32;
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(&compressed);
        Ok(())
    }
}
