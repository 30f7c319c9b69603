//! Message sets: the formats of magic 0 and 1, sent and read by clients before Kafka 0.11.
//!
//! Owns their layout (`LegacyRecord`, `AbstractLegacyRecordBatch`) and the conversion from them to one batch of
//! magic 2 and back. Everything runs in steps of bounded length; memory is one message and the codecs' buffers
//! besides the result. Never stores a message set: the log has batches only.

mod check;
mod down;
mod error;
pub(super) mod feed;
mod message;
mod up;
mod writer;

pub use check::{MessageSet, MessageSetCheck, SetProgress};
pub use down::{Converted, DownConversion, DownProgress};
pub use error::MessageError;
pub use up::{UpConversion, UpProgress, UpRules};

/// A budget for the steps of both conversions. With it 99 % of them take less than 220 µs for gzip
/// and 150 µs for the other codecs, which work in blocks (measured on text, optimised build); a
/// batch's checksum and one copy of it may take as long.
pub const STEP_BYTES: usize = 2 * 1024;

/// A message format from before record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageFormat {
    /// Magic 0 (before Kafka 0.10): no timestamps; absolute offsets inside wrappers.
    V0,
    /// Magic 1 (Kafka 0.10): timestamps (KIP-32); relative offsets inside wrappers (KIP-31).
    V1,
}

impl MessageFormat {
    /// The format with this magic number.
    fn from_magic(magic: i8) -> Option<Self> {
        match magic {
            0 => Some(Self::V0),
            1 => Some(Self::V1),
            _ => None,
        }
    }

    fn magic(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}
