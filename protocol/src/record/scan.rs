//! Finds the end of a log's valid batches.
//!
//! Owns the judgement of bytes read back from disk after a crash. Never repairs: the log decides where to cut.

use super::batch::check;
use super::header::MAGIC;
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader};

/// A verdict on the front of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A whole valid batch, [`BatchHeader::size_bytes`] long. Scan again behind it.
    Complete(BatchHeader),
    /// A batch, perhaps, but the buffer ends first. The batch takes this many bytes from its first one on; in a file
    /// with fewer it is torn.
    NeedMore(usize),
    /// Zeros, as far as a batch's first 17 bytes go: space zeroed ahead of the writes.
    End,
    /// Not a batch that could have been written here, or one whose bytes have changed since.
    Corrupt(BatchError),
}

/// Judges the front of `bytes`, which begins where a batch should.
///
/// A length field from a torn write can claim up to 2 GiB. Compare [`Scan::NeedMore`] with the file's length
/// before reading on.
pub fn scan(bytes: &[u8]) -> Scan {
    // Base offset 0, length 0, magic 0: no batch of any format has that.
    match bytes.get(..=MAGIC) {
        None => return Scan::NeedMore(BATCH_HEADER_BYTES),
        Some(front) if front.iter().all(|byte| *byte == 0) => return Scan::End,
        Some(_) => {}
    }
    let header = match BatchHeader::peek(bytes) {
        Ok(header) => header,
        Err(BatchError::Truncated { needed, .. }) => return Scan::NeedMore(needed),
        Err(error) => return Scan::Corrupt(error),
    };
    let BatchHeader {
        base_offset,
        last_offset_delta,
        ..
    } = header;
    if base_offset < 0 {
        return Scan::Corrupt(BatchError::InvalidOffsets {
            base_offset,
            last_offset_delta,
        });
    }
    let Some(batch) = bytes.get(..header.size_bytes()) else {
        return Scan::NeedMore(header.size_bytes());
    };
    match check(&header, batch) {
        Ok(()) => Scan::Complete(header),
        Err(error) => Scan::Corrupt(error),
    }
}
