//! The first check of a message set: message boundaries, sizes, CRCs.
//!
//! Owns the rules of `UnifiedLog#analyzeAndValidateRecords` for magic 0 and 1. Never decompresses.

use bytes::Bytes;

use super::super::Compression;
use super::message;
use super::{MessageError, MessageFormat};

/// A producer's messages, each one whole and with a right CRC.
///
/// At least one message, all of one format; either none is compressed or there is only one.
#[derive(Clone, Debug)]
pub struct MessageSet {
    pub(super) messages: Bytes,
    pub(super) format: MessageFormat,
    pub(super) codec: Compression,
}

impl MessageSet {
    /// The wrapper's codec; `Compression::None` without a wrapper.
    pub fn compression(&self) -> Compression {
        self.codec
    }

    /// The format of all messages.
    pub fn format(&self) -> MessageFormat {
        self.format
    }
}

/// The result of one step.
#[derive(Clone, Debug)]
pub enum SetProgress {
    /// Messages remain.
    More,
    /// Every message was checked; `None` when the set has none, which is no error: an incomplete message at the end
    /// is dropped, as in Kafka.
    Done(Option<MessageSet>),
}

/// The check of one set, resumable.
#[derive(Debug)]
pub struct MessageSetCheck {
    all: Bytes,
    /// Bytes of `all` that were checked.
    checked_bytes: usize,
    message_bytes_max: usize,
    messages: usize,
    format: Option<MessageFormat>,
    mixed: bool,
    codec: u8,
}

impl MessageSetCheck {
    /// Checks `bytes`, whose messages may have `message_bytes_max` bytes each, prefix included.
    pub fn new(bytes: Bytes, message_bytes_max: usize) -> Self {
        Self {
            all: bytes,
            checked_bytes: 0,
            message_bytes_max,
            messages: 0,
            format: None,
            mixed: false,
            codec: 0,
        }
    }

    /// Checks the messages of the next `bytes_budget` bytes, at least one.
    ///
    /// # Errors
    /// [`MessageError::Size`], [`MessageError::Magic`], [`MessageError::TooLarge`],
    /// [`MessageError::CrcMismatch`], [`MessageError::Fields`]; at the end
    /// [`MessageError::MixedFormats`], [`MessageError::WrapperNotAlone`], [`MessageError::Codec`].
    pub fn step(&mut self, bytes_budget: usize) -> Result<SetProgress, MessageError> {
        let mut spent = 0_usize;
        while spent < bytes_budget.max(1) {
            let rest = self.all.slice(self.checked_bytes..);
            let whole = message::front(&rest)?.filter(|front| front.size_bytes <= rest.len());
            let Some(front) = whole else {
                return self.finish().map(SetProgress::Done);
            };
            if front.size_bytes > self.message_bytes_max {
                return Err(MessageError::TooLarge {
                    limit_bytes: self.message_bytes_max,
                });
            }
            let message = rest.slice(..front.size_bytes);
            message::check_crc(&message)?;
            let codec = message::codec(&message);
            self.codec = if codec == 0 { self.codec } else { codec };
            self.mixed |= self.format.is_some_and(|format| format != front.format);
            self.format.get_or_insert(front.format);
            // The messages are in memory, so their number and their bytes are far from overflow.
            self.messages += 1;
            self.checked_bytes += front.size_bytes;
            spent = spent.saturating_add(front.size_bytes);
        }
        Ok(SetProgress::More)
    }

    fn finish(&self) -> Result<Option<MessageSet>, MessageError> {
        let Some(format) = self.format else {
            return Ok(None);
        };
        // Formats 0 and 1 have no zstd (KIP-110).
        let codec = Compression::from_id(self.codec)
            .filter(|codec| *codec != Compression::Zstd)
            .ok_or(MessageError::Codec(self.codec))?;
        if codec != Compression::None && self.messages > 1 {
            return Err(MessageError::WrapperNotAlone);
        }
        if self.mixed {
            return Err(MessageError::MixedFormats);
        }
        Ok(Some(MessageSet {
            messages: self.all.slice(..self.checked_bytes),
            format,
            codec,
        }))
    }
}
