//! What reads from disk count for, against the shard's bound of bytes that are read at a time.
//!
//! Pure.

use crate::limits::DISK_READ_CHARGE_BYTES_MIN;

/// What a read of so many bytes counts for: each has a file open, too.
pub(super) fn charge(bytes: usize) -> usize {
    bytes.max(DISK_READ_CHARGE_BYTES_MIN)
}
