//! The cores that the process was given, for threads that a pinned shard starts.
//!
//! Remembered once, when the executors start.

use std::sync::OnceLock;

use rustix::thread::CpuSet;

/// The cores of the thread that called [`crate::executor::run`]: what the process was given.
static PROCESS_CPUS: OnceLock<CpuSet> = OnceLock::new();

/// Lets a thread that a pinned shard has started run on all cores of the process: threads inherit
/// the mask of their parent, and a helper on the shard's own core would stand in its way.
pub(crate) fn leave_shard_cpu() {
    let Some(cpus) = PROCESS_CPUS.get() else {
        return;
    };
    // Where that is refused the thread still works, only slower.
    if let Err(error) = rustix::thread::sched_setaffinity(None, cpus) {
        tracing::debug!(%error, "a helper thread stays on its shard's core");
    }
}

/// These are the cores of the process; the first call counts.
pub(crate) fn remember(cpus: CpuSet) {
    let _ = PROCESS_CPUS.set(cpus);
}
