//! How long a client is held up for its quota. There are no quotas yet: never.
//!
//! Runs on the shard of the connection, between decoding and handling.

use super::call::Call;

/// How long the client of this request is told to wait, ms (`throttle_time_ms`, KIP-219).
pub(super) fn throttle_ms(_call: &Call) -> i32 {
    0
}
