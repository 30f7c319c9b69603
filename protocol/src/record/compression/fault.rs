//! Types that decompressors share: why one stopped, and how strict it is.
//!
//! Plain values.

use std::io;

/// Treatment of the checksum in the header of an LZ4 frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::record) enum HeaderChecksum {
    /// It must be right.
    Checked,
    /// It may be wrong, as in messages of format 0 (KAFKA-3160).
    Ignored,
}

/// Why a decompressor stopped; [`Decompressor`](super::stream::Decompressor) adds the codec and the limit.
pub(super) enum Fault {
    /// The next piece alone passes what is left of the limit.
    TooLong,
    /// The input is not in the codec's format.
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
