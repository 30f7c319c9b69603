//! Bytes to values and back: the bounded [`Reader`], the scatter-list [`Writer`].
//!
//! Owns every rule about untrusted lengths: a count is checked against the bytes left, the
//! element budget and the heap budget before anything is allocated; a slice is never copied.
//! Runs on whichever core decodes a frame. Never opens a file or a socket, never recurses
//! deeper than the schema, never trusts a length.

mod error;
mod reader;
mod tags;
mod writer;

pub use error::{DecodeError, EncodeError};
pub use reader::{ELEMENTS_MAX, HEAP_BYTES_BASE, HEAP_BYTES_PER_BYTE, Reader};
pub use tags::{OpenTag, TAGS_MAX, TagReader, TagWriter};
pub use writer::{PART_BYTES_MIN, SENTENCE_BYTES_MAX, Writer};

use bytes::Bytes;
use std::ops::RangeInclusive;

/// Tagged fields a codec does not know, ascending by tag (KIP-482).
pub type UnknownTaggedFields = Vec<(u32, Bytes)>;

/// A message of the protocol: one structure for all its versions.
pub trait Message: Sized + Default + Send + 'static {
    /// Kafka's name, for example `ProduceRequest`.
    const NAME: &'static str;
    /// Every version this codec has, including one Kafka has not promised yet.
    const VERSIONS: RangeInclusive<i16>;
    /// The versions with compact lengths and tagged fields (KIP-482).
    const FLEXIBLE: Option<RangeInclusive<i16>>;

    /// Reads the message from where the reader stands. Call [`Reader::finish`] after the last one.
    ///
    /// # Errors
    /// Anything a hostile peer can do to a frame: see [`DecodeError`].
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message.
    ///
    /// # Errors
    /// A value that `version` cannot carry: see [`EncodeError`]. The writer's content is
    /// then meaningless.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;

    /// Sets how long a client was or will be held up for its quota, ms, in a response that tells it
    /// (KIP-219). Versions without the field are encoded without it.
    fn set_throttle_time_ms(&mut self, _ms: i32) {}
}

/// A structure inside a message.
pub trait Structure: Sized {
    /// The fewest bytes one can take in `version`.
    fn min_bytes(version: i16) -> usize;
    /// Reads the structure; `version` is the message's.
    ///
    /// # Errors
    /// As [`Message::decode`].
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;
    /// Appends the structure; `version` is the message's.
    ///
    /// # Errors
    /// As [`Message::encode`].
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// The fewest bytes a string takes.
pub const fn min_str_bytes(compact: bool) -> usize {
    if compact { 1 } else { 2 }
}
