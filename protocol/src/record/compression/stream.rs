//! Decompression in pieces: neither memory nor one slice of work depends on the input's claims.
//!
//! Owns the running limit and the buffers. Never waits: all input is in memory.

use std::cell::RefCell;
use std::io::Read;

use bytes::Bytes;
use bytes::buf::{Buf, Reader};
use flate2::bufread::MultiGzDecoder;
use zstd::zstd_safe::{self, DCtx, InBuffer, OutBuffer, ResetDirective};

use super::fault::{Fault, HeaderChecksum};
use super::{Compression, CompressionError, lz4, snappy};

/// Bytes of output that the stream codecs give at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// A compressed block being read from front to back.
pub(in crate::record) struct Decompressor {
    codec: Compression,
    source: Source,
    /// The piece returned last. Blocks of the block codecs are decompressed into it whole.
    chunk: Vec<u8>,
    produced_bytes: usize,
    limit_bytes: usize,
}

enum Source {
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    Snappy(snappy::Blocks),
    Lz4(lz4::Blocks),
    Zstd(Box<ZstdFrames>),
}

impl Decompressor {
    /// A reader of `input` that returns at most `limit_bytes` in all.
    ///
    /// # Errors
    /// [`CompressionError::Malformed`] for a header the codec cannot read, and for
    /// `Compression::None`, whose bytes need no reader.
    pub(in crate::record) fn new(
        codec: Compression,
        input: Bytes,
        limit_bytes: usize,
        lz4_checksum: HeaderChecksum,
    ) -> Result<Self, CompressionError> {
        let source = match codec {
            Compression::None => return Err(codec.malformed("nothing to decompress")),
            Compression::Gzip => Ok(Source::Gzip(Box::new(MultiGzDecoder::new(input.reader())))),
            Compression::Snappy => Ok(Source::Snappy(snappy::Blocks::new(input))),
            Compression::Lz4 => lz4::Blocks::new(input, lz4_checksum).map(Source::Lz4),
            Compression::Zstd => ZstdFrames::new(input).map(|it| Source::Zstd(Box::new(it))),
        };
        let mut this = Self {
            codec,
            source: Source::Snappy(snappy::Blocks::new(Bytes::new())),
            chunk: Vec::new(),
            produced_bytes: 0,
            limit_bytes,
        };
        this.source = source.map_err(|fault| this.explain(fault))?;
        Ok(this)
    }

    /// The next piece of output; empty at the end and from then on.
    ///
    /// # Errors
    /// As [`Compression::decompress_bounded`].
    pub(in crate::record) fn next_chunk(&mut self) -> Result<&[u8], CompressionError> {
        let room = self.limit_bytes - self.produced_bytes;
        let chunk = &mut self.chunk;
        let filled = match &mut self.source {
            Source::Gzip(decoder) => fill(chunk, |out| Ok(decoder.read(out)?)),
            Source::Zstd(frames) => fill(chunk, |out| frames.read(out)),
            Source::Snappy(blocks) => blocks.next_block(chunk, room),
            Source::Lz4(blocks) => blocks.next_block(chunk),
        };
        let length = match filled {
            Ok(length) if length <= room => length,
            Ok(_) => return Err(self.explain(Fault::TooLong)),
            Err(fault) => return Err(self.explain(fault)),
        };
        self.produced_bytes += length;
        Ok(&self.chunk[..length])
    }

    fn explain(&self, fault: Fault) -> CompressionError {
        match fault {
            Fault::TooLong => CompressionError::LimitExceeded {
                codec: self.codec,
                limit_bytes: self.limit_bytes,
            },
            Fault::Malformed(detail) => self.codec.malformed(detail),
        }
    }
}

/// Reads into the whole of `chunk`, grown to its full size the first time.
fn fill(
    chunk: &mut Vec<u8>,
    read: impl FnOnce(&mut [u8]) -> Result<usize, Fault>,
) -> Result<usize, Fault> {
    chunk.resize(CHUNK_BYTES, 0);
    read(chunk)
}

/// One or more zstd frames, skippable ones too.
struct ZstdFrames {
    context: IdleContext,
    input: Bytes,
    /// True when the input read so far ends with a frame.
    between_frames: bool,
}

impl ZstdFrames {
    /// Allows windows up to zstd's own default limit, 128 MiB: the Java client's levels 20 and above need it. The
    /// window is address space; only the part that output fills becomes memory.
    fn new(input: Bytes) -> Result<Self, Fault> {
        Ok(Self {
            context: IdleContext::take()?,
            input,
            between_frames: false,
        })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        loop {
            if self.input.is_empty() && self.between_frames {
                return Ok(0);
            }
            let mut source = InBuffer::around(&self.input);
            let mut target = OutBuffer::around(&mut *out);
            let hint = self
                .context
                .get()
                .decompress_stream(&mut target, &mut source);
            let (read, written) = (source.pos(), target.pos());
            let hint = hint.map_err(|code| Fault::from(zstd_safe::get_error_name(code)))?;
            self.input.advance(read);
            self.between_frames = hint == 0;
            if written > 0 {
                return Ok(written);
            }
            if self.input.is_empty() && !self.between_frames {
                return Err(Fault::from("the last frame is incomplete"));
            }
        }
    }
}

/// Contexts one thread keeps for its next zstd batches.
const CONTEXTS_KEPT: usize = 2;

/// Memory of a kept context at most, in bytes: a context that met a large window is dropped.
const CONTEXT_BYTES_KEPT: usize = 1 << 20;

thread_local! {
    static CONTEXTS: RefCell<Vec<DCtx<'static>>> = const { RefCell::new(Vec::new()) };
}

/// A decompression context, returned to its thread when dropped: creating one takes longer than decompressing
/// a small batch.
struct IdleContext(Option<DCtx<'static>>);

impl IdleContext {
    fn take() -> Result<Self, Fault> {
        let kept = CONTEXTS.with_borrow_mut(Vec::pop);
        let context = kept.or_else(DCtx::try_create);
        match context {
            Some(context) => Ok(Self(Some(context))),
            None => Err(Fault::from("no memory for zstd")),
        }
    }

    fn get(&mut self) -> &mut DCtx<'static> {
        self.0.as_mut().expect("only given up when dropped")
    }
}

impl Drop for IdleContext {
    fn drop(&mut self) {
        let Some(mut context) = self.0.take() else {
            return;
        };
        let usable = context.reset(ResetDirective::SessionOnly).is_ok();
        if !usable || context.sizeof() > CONTEXT_BYTES_KEPT {
            return;
        }
        // The thread may be ending, its contexts already dropped.
        let _ = CONTEXTS.try_with(|contexts| {
            let mut contexts = contexts.borrow_mut();
            if contexts.len() < CONTEXTS_KEPT {
                contexts.push(context);
            }
        });
    }
}
