//! The four codecs of record batches, their output always bounded.
//!
//! Owns codec ids and names, compression, and decompression in pieces. Never trusts a size that the
//! compressed data claims, and never produces more than the caller allowed.

mod compressor;
mod fault;
mod lz4;
mod snappy;
mod stream;

use std::fmt;
use std::io::{self, Write};

pub(super) use compressor::Compressor;
pub(super) use fault::HeaderChecksum;
pub(super) use lz4::spoil_header_checksum;
pub(super) use stream::Decompressor;

use super::CompressionError;

/// The codec of a batch's records, by the id in the batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Uncompressed.
    #[default]
    None = 0,
    /// RFC 1952, one or more members.
    Gzip = 1,
    /// Snappy: in the Java library's block framing or, as librdkafka writes it, one bare block.
    Snappy = 2,
    /// LZ4 frames with independent blocks, the only ones the Java client reads.
    Lz4 = 3,
    /// Zstandard frames (KIP-110).
    Zstd = 4,
}

impl Compression {
    /// Every codec, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this id, 0–4.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// The codec with this name, as in `compression.type`: `none` (or `uncompressed`), `gzip`,
    /// `snappy`, `lz4`, `zstd`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            _ => Self::ALL.into_iter().find(|codec| codec.name() == name),
        }
    }

    /// The codec's id in a batch's attributes.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The codec's name in Kafka's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// `input` compressed as a Java client would: gzip, snappy in blocks of 32 KiB, an LZ4 frame of
    /// independent 64 KiB blocks, or one zstd frame.
    ///
    /// `level` is `compression.gzip.level` (−1, or 1–9) or `compression.zstd.level` (−131072–22);
    /// a level out of range is brought into it. `None` is Kafka's default (gzip −1, zstd 3). Snappy
    /// has no levels, and `lz4_flex` has one.
    ///
    /// # Errors
    /// [`CompressionError::Malformed`] with the codec's words should the codec itself fail.
    pub fn compress(self, level: Option<i32>, input: &[u8]) -> Result<Vec<u8>, CompressionError> {
        match self {
            Self::None => Ok(input.to_vec()),
            Self::Gzip => gzip(level, input),
            Self::Snappy => snappy::compress(input).map_err(io::Error::other),
            Self::Lz4 => lz4::compress(input),
            Self::Zstd => zstd::bulk::compress(input, zstd_level(level)),
        }
        .map_err(|error| self.malformed(error))
    }

    /// `input` decompressed, all at once and at most `bytes_max` of it.
    ///
    /// Memory is at most the output so far plus one piece, whatever `input` claims.
    ///
    /// # Errors
    /// [`CompressionError::LimitExceeded`] as soon as the output passes `bytes_max`;
    /// [`CompressionError::Malformed`] when the codec cannot read `input`, when `input` ends early, or when bytes
    /// follow the codec's end.
    pub fn decompress_bounded(
        self,
        input: &bytes::Bytes,
        bytes_max: usize,
    ) -> Result<bytes::Bytes, CompressionError> {
        if self == Self::None {
            return match input.len() > bytes_max {
                true => Err(CompressionError::LimitExceeded {
                    codec: self,
                    limit_bytes: bytes_max,
                }),
                false => Ok(input.clone()),
            };
        }
        let checked = HeaderChecksum::Checked;
        let mut decompressor = Decompressor::new(self, input.clone(), bytes_max, checked)?;
        let mut output = Vec::with_capacity(input.len().min(bytes_max));
        loop {
            let chunk = decompressor.next_chunk()?;
            if chunk.is_empty() {
                return Ok(output.into());
            }
            output.extend_from_slice(chunk);
        }
    }

    fn malformed(self, detail: impl fmt::Display) -> CompressionError {
        CompressionError::Malformed {
            codec: self,
            detail: detail.to_string(),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn gzip(level: Option<i32>, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), gzip_level(level));
    encoder.write_all(input)?;
    encoder.finish()
}

fn gzip_level(level: Option<i32>) -> flate2::Compression {
    match level {
        Some(level) if level >= 0 => flate2::Compression::new(level.min(9).unsigned_abs()),
        _ => flate2::Compression::default(),
    }
}

fn zstd_level(level: Option<i32>) -> i32 {
    let range = zstd::compression_level_range();
    let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
    level.clamp(*range.start(), *range.end())
}
