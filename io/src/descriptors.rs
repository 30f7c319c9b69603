//! The division of the process's descriptors between files, connections and its own needs.
//!
//! Owns the arithmetic, done once at start, and the count of connections. Each shard's files
//! (`direct::open_files`) and the acceptors stay within their shares, and a reserve is kept from both, so that
//! neither starves the other. Runs on any thread; never opens anything itself.

use rustix::io::Errno;
use rustix::process::Resource;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Descriptors reserved for each shard: rings, pipes and mesh (12), and short openings by its helper threads (a
/// directory to sync, a checkpoint).
const PER_SHARD: u64 = 24;

/// Descriptors reserved for the process: listeners, lock files, a checkpoint of settings, short openings.
const FOR_PROCESS: u64 = 24;

/// The least share of a shard's files. With fewer than about four at a time nothing proceeds.
const FILES_MIN: usize = 8;

/// The least share of connections.
const CONNECTIONS_MIN: usize = 4;

/// The part of the remaining descriptors for files: one in so many.
const FILES_PART: u64 = 3;

/// The descriptors of one process, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The limit of the process (`RLIMIT_NOFILE`).
    pub limit: u64,
    /// Descriptors for the files of one shard.
    pub files_per_shard: usize,
    /// Descriptors for the connections of all listeners.
    pub connections: usize,
}

impl Shares {
    /// Divides the process's limit, less the descriptors open now.
    #[must_use]
    pub fn of_process(shards: usize) -> Shares {
        let limit = rustix::process::getrlimit(Resource::Nofile).current;
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Shares::new(limit.unwrap_or(u64::MAX), open as u64, shards)
    }

    /// Divides `limit` descriptors, of which `open` are in use for good. A third of the rest goes to files, which can
    /// be closed and opened again; connections cannot.
    #[must_use]
    pub fn new(limit: u64, open: u64, shards: usize) -> Shares {
        let shards = shards.max(1);
        let kept = open + FOR_PROCESS + PER_SHARD.saturating_mul(shards as u64);
        let left = limit.saturating_sub(kept);
        let files = usize::try_from(left / FILES_PART).unwrap_or(usize::MAX);
        let files_per_shard = (files / shards).max(FILES_MIN);
        let files = files_per_shard.saturating_mul(shards) as u64;
        let connections = usize::try_from(left.saturating_sub(files)).unwrap_or(usize::MAX);
        Shares {
            limit,
            files_per_shard,
            connections: connections.max(CONNECTIONS_MIN),
        }
    }

    /// The smallest limit that the least shares fit into.
    #[must_use]
    pub fn limit_min(shards: usize) -> u64 {
        let shards = shards.max(1) as u64;
        let least = (PER_SHARD + FILES_MIN as u64).saturating_mul(shards);
        least + FOR_PROCESS + CONNECTIONS_MIN as u64
    }
}

/// The descriptors for connections, shared by all listeners.
#[derive(Debug)]
pub struct ConnectionDescriptors {
    max: usize,
    taken: AtomicUsize,
}

/// One connection's descriptor, returned when dropped.
#[derive(Debug)]
pub struct ConnectionDescriptor(Arc<ConnectionDescriptors>);

impl ConnectionDescriptors {
    /// A share of `max` descriptors.
    #[must_use]
    pub fn new(max: usize) -> Arc<ConnectionDescriptors> {
        Arc::new(ConnectionDescriptors {
            max,
            taken: AtomicUsize::new(0),
        })
    }

    /// A descriptor, if one is free.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<ConnectionDescriptor> {
        let take = |taken: usize| (taken < self.max).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.ok().map(|_| ConnectionDescriptor(Arc::clone(self)))
    }

    /// The size of the share.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }
}

impl Drop for ConnectionDescriptor {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// True when the process (`EMFILE`) or the machine (`ENFILE`) has no descriptor left: nothing has happened, and
/// the operation may succeed later.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE].contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::{ConnectionDescriptors, Shares};
    use std::sync::Arc;

    /// From the least limit on, all shares together stay within it.
    #[test]
    fn shares_fit_into_the_limit() {
        for shards in [1, 2, 3, 8, 64] {
            let least = Shares::limit_min(shards);
            let limits = (0..2_000).map(|more| least + more);
            for limit in limits.chain([1 << 16, 1 << 20, u64::MAX]) {
                let shares = Shares::new(limit, 0, shards);
                let used = (shares.files_per_shard as u64 * shards as u64)
                    .saturating_add(shares.connections as u64);
                let kept = super::FOR_PROCESS + super::PER_SHARD * shards as u64;
                assert!(used <= limit - kept, "{shares:?} of {shards} shards");
                assert!(shares.connections > 0 && shares.files_per_shard >= super::FILES_MIN);
            }
        }
    }

    /// A limit too small for the least shares still gives each of them.
    #[test]
    fn no_limit_leaves_nothing() {
        let shares = Shares::new(10, 30, 4);
        assert_eq!(shares.files_per_shard, super::FILES_MIN);
        assert_eq!(shares.connections, super::CONNECTIONS_MIN);
    }

    #[test]
    fn places_come_back() {
        let share = ConnectionDescriptors::new(2);
        let (first, second) = (share.take(), share.take());
        assert!(first.is_some() && second.is_some() && share.take().is_none());
        drop(first);
        assert!(share.take().is_some());
        drop(second);
        assert_eq!(Arc::strong_count(&share), 1);
    }
}
