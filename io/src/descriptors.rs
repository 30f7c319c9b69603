//! How the descriptors of the process are shared out, and who holds those for connections.
//!
//! Owns the arithmetic, done once at start, and the count of connections. Files of shards are opened
//! and closed by need within their share (`direct::open_files`), the acceptors keep within theirs, and
//! what the process needs for itself is kept back from both: neither can starve the other. Runs on
//! whichever thread asks; never opens anything itself.

use rustix::io::Errno;
use rustix::process::Resource;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Kept back for each shard: rings, pipes and mesh (12), and what its helper threads open for a moment
/// (a directory to sync, a checkpoint).
const PER_SHARD: u64 = 24;

/// Kept back for the process: listeners, lock files, a checkpoint of settings, a moment in between.
const FOR_PROCESS: u64 = 24;

/// Least a shard's files get. Below some four opened at a time nothing would go on.
const FILES_MIN: usize = 8;

/// Least that connections get.
const CONNECTIONS_MIN: usize = 4;

/// Part of what is left that files get, as one to so many.
const FILES_PART: u64 = 3;

/// Descriptors of one process, shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many there may be in all (`RLIMIT_NOFILE`).
    pub limit: u64,
    /// For the files of one shard.
    pub files_per_shard: usize,
    /// For connections, of all listeners together.
    pub connections: usize,
}

impl Shares {
    /// Shares out what this process may open, besides what it has open now.
    #[must_use]
    pub fn of_process(shards: usize) -> Shares {
        let limit = rustix::process::getrlimit(Resource::Nofile).current;
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Shares::new(limit.unwrap_or(u64::MAX), open as u64, shards)
    }

    /// Of `limit` descriptors `open` are in use for good. A third of what is left goes to files, which can
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

    /// The limit below which even the least shares do not fit.
    #[must_use]
    pub fn limit_min(shards: usize) -> u64 {
        let shards = shards.max(1) as u64;
        let least = (PER_SHARD + FILES_MIN as u64).saturating_mul(shards);
        least + FOR_PROCESS + CONNECTIONS_MIN as u64
    }
}

/// The places that connections may take, of all listeners together.
#[derive(Debug)]
pub struct ConnectionShare {
    max: usize,
    taken: AtomicUsize,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub struct ConnectionPlace(Arc<ConnectionShare>);

impl ConnectionShare {
    /// `max` places.
    #[must_use]
    pub fn new(max: usize) -> Arc<ConnectionShare> {
        Arc::new(ConnectionShare {
            max,
            taken: AtomicUsize::new(0),
        })
    }

    /// A place, if one is free.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let take = |taken: usize| (taken < self.max).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.ok().map(|_| ConnectionPlace(Arc::clone(self)))
    }

    /// How many there are.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether the process (`EMFILE`) or the machine (`ENFILE`) has no descriptor left: nothing was begun,
/// and later the same may work.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE].contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::{ConnectionShare, Shares};
    use std::sync::Arc;

    /// From the least limit on all shares together never pass it.
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

    /// A limit too small for anything still gives something to work with.
    #[test]
    fn no_limit_leaves_nothing() {
        let shares = Shares::new(10, 30, 4);
        assert_eq!(shares.files_per_shard, super::FILES_MIN);
        assert_eq!(shares.connections, super::CONNECTIONS_MIN);
    }

    #[test]
    fn places_come_back() {
        let share = ConnectionShare::new(2);
        let (first, second) = (share.take(), share.take());
        assert!(first.is_some() && second.is_some() && share.take().is_none());
        drop(first);
        assert!(share.take().is_some());
        drop(second);
        assert_eq!(Arc::strong_count(&share), 1);
    }
}
