//! What decompressors tell each other: why one could not go on, and how strict it is.
//!
//! Plain values, below every codec.

use std::io;

/// What is done about the checksum in the header of an LZ4 frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::record) enum HeaderChecksum {
    /// It must be right.
    Checked,
    /// It may be wrong, as in messages of format 0 (KAFKA-3160).
    Ignored,
}

/// Why a codec could not go on; [`Decompressor`] adds which codec and which limit.
pub(super) enum Fault {
    /// The next piece alone passes what is left of the limit.
    TooLong,
    /// The input is not the codec's.
    Malformed(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<&str> for Fault {
    fn from(detail: &str) -> Self {
        Self::Malformed(detail.to_owned())
    }
}
