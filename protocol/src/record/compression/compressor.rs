//! Compression in pieces, so that the core that converts a large batch can yield in between.
//!
//! Owns the running encoders. Their output decompresses to the same bytes as that of [`Compression::compress`].
//! Never holds input for longer than a codec's block.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;

use super::{Compression, CompressionError, gzip_level, lz4, snappy, zstd_level};

/// A compressed block being written from front to back.
pub(in crate::record) struct Compressor {
    codec: Compression,
    sink: Sink,
}

enum Sink {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Snappy(Box<snappy::BlockWriter>),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// An empty block; `level` as for [`Compression::compress`].
    ///
    /// # Errors
    /// [`CompressionError::Malformed`] with the codec's words should it not start.
    pub(in crate::record) fn new(
        codec: Compression,
        level: Option<i32>,
    ) -> Result<Self, CompressionError> {
        let sink = match codec {
            Compression::None => Sink::Plain(Vec::new()),
            Compression::Gzip => Sink::Gzip(GzEncoder::new(Vec::new(), gzip_level(level))),
            Compression::Snappy => Sink::Snappy(Box::new(snappy::BlockWriter::new())),
            Compression::Lz4 => Sink::Lz4(Box::new(lz4::encoder(Vec::new()))),
            Compression::Zstd => Sink::Zstd(
                zstd::stream::write::Encoder::new(Vec::new(), zstd_level(level))
                    .map_err(|error| codec.malformed(error))?,
            ),
        };
        Ok(Self { codec, sink })
    }

    /// Takes the next piece of input.
    ///
    /// # Errors
    /// [`CompressionError::Malformed`] with the codec's words should the codec itself fail.
    pub(in crate::record) fn write(&mut self, piece: &[u8]) -> Result<(), CompressionError> {
        match &mut self.sink {
            Sink::Plain(output) => {
                output.extend_from_slice(piece);
                Ok(())
            }
            Sink::Gzip(encoder) => encoder.write_all(piece),
            Sink::Snappy(blocks) => blocks.write(piece).map_err(io::Error::other),
            Sink::Lz4(encoder) => encoder.write_all(piece),
            Sink::Zstd(encoder) => encoder.write_all(piece),
        }
        .map_err(|error| self.codec.malformed(error))
    }

    /// Bytes of output so far, without those the codec still holds back.
    pub(in crate::record) fn output_bytes(&self) -> usize {
        match &self.sink {
            Sink::Plain(output) => output.len(),
            Sink::Gzip(encoder) => encoder.get_ref().len(),
            Sink::Snappy(blocks) => blocks.output_bytes(),
            Sink::Lz4(encoder) => encoder.get_ref().len(),
            Sink::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Ends the block and returns all of it.
    ///
    /// # Errors
    /// As [`Compressor::write`].
    pub(in crate::record) fn finish(self) -> Result<Vec<u8>, CompressionError> {
        match self.sink {
            Sink::Plain(output) => Ok(output),
            Sink::Gzip(encoder) => encoder.finish(),
            Sink::Snappy(blocks) => blocks.finish().map_err(io::Error::other),
            Sink::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Sink::Zstd(encoder) => encoder.finish(),
        }
        .map_err(|error| self.codec.malformed(error))
    }
}
