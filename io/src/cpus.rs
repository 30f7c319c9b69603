//! The cores of the process, for threads that a pinned shard starts.
//!
//! Set once, when the executors start.

use std::sync::OnceLock;

use rustix::thread::CpuSet;

/// The cores allowed to the thread that called [`crate::executor::run`].
static PROCESS_CPUS: OnceLock<CpuSet> = OnceLock::new();

/// Lets the calling thread, started by a pinned shard, run on all cores of the process. Threads inherit their
/// parent's mask, and a helper on the shard's own core would compete with the shard.
pub(crate) fn leave_shard_cpu() {
    let Some(cpus) = PROCESS_CPUS.get() else {
        return;
    };
    // A thread that may not still works, only slower.
    if let Err(error) = rustix::thread::sched_setaffinity(None, cpus) {
        tracing::debug!(%error, "a helper thread stays on its shard's core");
    }
}

/// Stores the cores of the process; the first call counts.
pub(crate) fn remember(cpus: CpuSet) {
    let _ = PROCESS_CPUS.set(cpus);
}
