//! The kernel's backing of this process's memory.
//!
//! Called once, before the shards start. Needs no privilege.

use std::io;

/// Asks for pages of 4 KiB only. With transparent huge pages always on, the first touch of new memory clears
/// 2 MiB at once, on the shard that needs a few bytes of it: on a virtual machine that delayed requests by 8 ms
/// and decided p99.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn take_small_pages() -> io::Result<()> {
    // SAFETY: changes a flag of this process; no memory is passed.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
