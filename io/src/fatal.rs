//! The end of the process after a fault that leaves a shard untrustworthy.
//!
//! Below everything that may find such a fault. What was acknowledged is on disk.

/// Ends the process with one line that says why. For faults after which nothing on this shard can
/// be trusted.
pub(crate) fn abort(reason: &str) -> ! {
    tracing::error!("{reason}; the process ends");
    crate::log_queue::say(&format!("chronik: {reason}; the process ends"));
    crate::log_queue::last_words();
    std::process::abort()
}
