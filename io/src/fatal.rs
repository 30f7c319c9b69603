//! The end of the process after a fault that leaves a shard untrustworthy.
//!
//! Below every module that may find such a fault. Acknowledged records are as durable as promised.

/// Ends the process with one line that says why, after a fault that leaves the state of this shard
/// untrustworthy.
pub(crate) fn abort(reason: &str) -> ! {
    tracing::error!("{reason}; the process ends");
    crate::log_queue::write_line(&format!("chronik: {reason}; the process ends"));
    crate::log_queue::flush_log();
    std::process::abort()
}
