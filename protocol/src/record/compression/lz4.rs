//! LZ4 frames in Kafka's record format 2.
//!
//! Owns reading the frame (the LZ4 frame format 1.6, less the linked blocks and dictionaries that
//! `Lz4BlockInputStream` refuses); blocks are `lz4_flex`'s. Its frame reader is not used: it takes a truncated
//! frame, and an empty block, for the end. Never allocates more than one block.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::fault::{Fault, HeaderChecksum};

const MAGIC: u32 = 0x184D_2204;
/// Magic, flags and block descriptor of a frame without content size.
const HEADER_BYTES: usize = 6;
/// The bit in a block's length for a block stored uncompressed.
const STORED: u32 = 0x8000_0000;
/// The most bytes one compressed byte can become: one more 255 in a match's length.
const EXPANSION_MAX: usize = 255;

const VERSION_MASK: u8 = 0b1100_0000;
const VERSION_1: u8 = 0b0100_0000;
const BLOCKS_INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUMS: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const RESERVED_OR_DICTIONARY: u8 = 0b0000_0011;

/// The blocks of one frame.
pub(super) struct Blocks {
    input: Bytes,
    block_bytes_max: usize,
    block_checksums: bool,
    content_checksum: bool,
    finished: bool,
}

impl Blocks {
    pub(super) fn new(mut input: Bytes, checksum: HeaderChecksum) -> Result<Self, Fault> {
        if input.try_get_u32_le() != Ok(MAGIC) {
            return Err(Fault::from("no LZ4 frame"));
        }
        let (Some(&flags), Some(&block_descriptor)) = (input.first(), input.get(1)) else {
            return Err(Fault::from("the frame's header is incomplete"));
        };
        if flags & VERSION_MASK != VERSION_1 || flags & RESERVED_OR_DICTIONARY != 0 {
            return Err(Fault::Malformed(format!(
                "frame flags {flags:#010b} are not supported"
            )));
        }
        if flags & BLOCKS_INDEPENDENT == 0 {
            return Err(Fault::from("linked blocks are not supported"));
        }
        let block_bytes_max = match block_descriptor {
            0x40 => 64 * 1024,
            0x50 => 256 * 1024,
            0x60 => 1024 * 1024,
            0x70 => 4 * 1024 * 1024,
            _ => {
                return Err(Fault::Malformed(format!(
                    "block descriptor {block_descriptor:#04x}"
                )));
            }
        };
        let descriptor_bytes = if flags & CONTENT_SIZE != 0 { 10 } else { 2 };
        if input.len() <= descriptor_bytes {
            return Err(Fault::from("the frame's header is incomplete"));
        }
        let descriptor = input.split_to(descriptor_bytes);
        let wrong = input.get_u8() != header_checksum(&descriptor);
        if wrong && checksum == HeaderChecksum::Checked {
            return Err(Fault::from("the frame header's checksum is wrong"));
        }
        Ok(Self {
            input,
            block_bytes_max,
            block_checksums: flags & BLOCK_CHECKSUMS != 0,
            content_checksum: flags & CONTENT_CHECKSUM != 0,
            finished: false,
        })
    }

    /// Decompresses the next block to the front of `chunk`; its length, 0 at the end.
    pub(super) fn next_block(&mut self, chunk: &mut Vec<u8>) -> Result<usize, Fault> {
        while !self.finished {
            let length = self.take_u32()?;
            if length == 0 {
                self.finish()?;
                break;
            }
            let block = self.take_block((length & !STORED) as usize)?;
            let written = match length & STORED {
                0 => self.decompress(&block, chunk)?,
                _ => {
                    chunk.clear();
                    chunk.extend_from_slice(&block);
                    block.len()
                }
            };
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }

    fn decompress(&self, block: &[u8], chunk: &mut Vec<u8>) -> Result<usize, Fault> {
        let reachable = block
            .len()
            .saturating_mul(EXPANSION_MAX)
            .min(self.block_bytes_max);
        if chunk.len() < reachable {
            chunk.resize(reachable, 0);
        }
        let output = chunk.get_mut(..reachable).unwrap_or_default();
        lz4_flex::block::decompress_into(block, output)
            .map_err(|error| Fault::Malformed(error.to_string()))
    }

    fn take_block(&mut self, length: usize) -> Result<Bytes, Fault> {
        if length > self.block_bytes_max || length > self.input.len() {
            return Err(Fault::Malformed(format!(
                "block length {length} is impossible"
            )));
        }
        let block = self.input.split_to(length);
        if self.block_checksums && self.take_u32()? != XxHash32::oneshot(0, &block) {
            return Err(Fault::from("a block's checksum is wrong"));
        }
        Ok(block)
    }

    /// The content checksum is skipped as in Kafka: the batch's CRC covers the same bytes.
    fn finish(&mut self) -> Result<(), Fault> {
        if self.content_checksum {
            self.take_u32()?;
        }
        if !self.input.is_empty() {
            return Err(Fault::from("bytes follow the frame"));
        }
        self.finished = true;
        Ok(())
    }

    fn take_u32(&mut self) -> Result<u32, Fault> {
        self.input
            .try_get_u32_le()
            .map_err(|_| Fault::from("the frame is incomplete"))
    }
}

fn header_checksum(bytes: &[u8]) -> u8 {
    let [_, _, checksum, _] = XxHash32::oneshot(0, bytes).to_be_bytes();
    checksum
}

/// Gives a frame made here the header checksum of Kafka before 0.10, which covers the magic number too: the only
/// one those clients accept in messages of format 0 (KAFKA-3160).
pub(in crate::record) fn spoil_header_checksum(frame: &mut [u8]) {
    if let Some((header, [checksum, ..])) = frame.split_at_mut_checked(HEADER_BYTES) {
        *checksum = header_checksum(header);
    }
}

/// `input` as one frame of independent 64 KiB blocks without checksums, as the Java client writes.
pub(super) fn compress(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = encoder(Vec::with_capacity(input.len() / 2));
    encoder.write_all(input)?;
    Ok(encoder.finish()?)
}

/// An encoder that appends such a frame to `output`.
pub(super) fn encoder(output: Vec<u8>) -> FrameEncoder<Vec<u8>> {
    let frame = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    FrameEncoder::with_frame_info(frame, output)
}
