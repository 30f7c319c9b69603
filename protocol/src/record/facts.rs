//! The fields of one record that validation judges, for the parser and its fast path.
//!
//! Plain values.

/// Bytes of the shortest record after its length: attributes, two deltas, null key, null value, no
/// headers.
pub(super) const RECORD_BYTES_MIN: i64 = 6;

/// The fields of one record that validation judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordFacts {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key_is_null: bool,
    /// True when a null is written as another negative length than −1.
    pub(super) odd_null: bool,
}
