//! Every bound of a log's files, with units in the names.
//!
//! Owns numbers only.

/// Bytes of a log that one step copies into another log directory: one piece is in memory at a time.
pub const COPY_PIECE_BYTES: usize = 512 * 1024;

/// Largest index, snapshot or epoch file that is read: `segment.index.bytes` is an i32 in Kafka,
/// but no index of a 2 GiB segment is longer than this.
pub const SIDE_FILE_BYTES_MAX: usize = 256 << 20;
