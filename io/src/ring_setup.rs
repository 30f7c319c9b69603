//! The setup of glommio's io_uring instances: with cooperative task work.
//!
//! Owns one function that the linker substitutes for liburing's own (`--wrap` in the packages' `build.rs`),
//! because glommio 0.9 passes no flags. Without the flag the kernel interrupts a running shard for every
//! completion and every readable socket; with it the kernel waits for the next system call, and a shard makes one
//! in every turn of its loop. Measured: a sixth of a busy shard's processor time. Never called by anything but
//! liburing.

use rustix::io_uring::{IoringSetupFlags, io_uring_params, io_uring_setup};
use std::ffi::{c_int, c_uint};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

static COOPERATIVE: AtomicBool = AtomicBool::new(false);

/// True when the rings made so far do not interrupt running shards.
#[must_use]
pub(crate) fn is_cooperative() -> bool {
    // Referenced here for linkers that take objects one by one.
    std::hint::black_box(__wrap___sys_io_uring_setup as *const ());
    COOPERATIVE.load(Ordering::Relaxed)
}

/// Substitutes liburing's `__sys_io_uring_setup`: the same system call, with one flag more where the kernel knows
/// it (Linux 5.19). Returns the descriptor, or a negative error number.
///
/// # Safety
/// `params` must be valid for reads and writes, as for the system call; liburing sees to it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(
    entries: c_uint,
    params: *mut io_uring_params,
) -> c_int {
    // SAFETY: the caller promises a valid pointer, and sole access during the call.
    let params = unsafe { &mut *params };
    let asked = params.flags;
    params.flags |= IoringSetupFlags::COOP_TASKRUN;
    // SAFETY: the parameters are the caller's but for a flag that concerns no memory.
    let made = unsafe { io_uring_setup(entries, params) };
    let made = match made {
        Ok(ring) => {
            COOPERATIVE.store(true, Ordering::Relaxed);
            Ok(ring)
        }
        Err(rustix::io::Errno::INVAL) => {
            params.flags = asked;
            // SAFETY: exactly what the caller asked for.
            unsafe { io_uring_setup(entries, params) }
        }
        Err(error) => Err(error),
    };
    match made {
        Ok(ring) => ring.into_raw_fd(),
        Err(error) => -error.raw_os_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_cooperative;

    /// Fails where the linker has not substituted it, or the kernel is older than the flag.
    #[test]
    fn glommio_sets_its_rings_up_through_here() {
        let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
        executor.run(async {});
        let kernel = rustix::system::uname();
        let release = kernel.release().to_string_lossy();
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|number| number.parse().ok());
        let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert_eq!(is_cooperative(), version >= (5, 19), "Linux {release}");
    }
}
