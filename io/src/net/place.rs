//! The place of a connection: its shard, and the counts it is part of while open.
//!
//! Taken on the acceptor's thread, given up on the connection's shard when the connection is dropped.

use super::connection_quotas::{ConnectionQuotas, QuotaPlace};
use crate::descriptors::{ConnectionDescriptor, ConnectionDescriptors};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The limits of one listener. A connection beyond its address's limit or the descriptors is closed at once; one
/// beyond another limit waits in the backlog.
pub struct ListenLimits {
    /// The descriptors for connections of all listeners; the rest is kept for files.
    pub descriptors: Arc<ConnectionDescriptors>,
    /// The quotas, shared with the other listeners.
    pub quotas: Arc<ConnectionQuotas>,
    /// This listener's number in the quotas.
    pub listener: usize,
}

impl Default for ListenLimits {
    fn default() -> ListenLimits {
        ListenLimits {
            descriptors: ConnectionDescriptors::new(usize::MAX),
            quotas: Arc::default(),
            listener: 0,
        }
    }
}

/// Open connections by shard.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) per_shard: Vec<usize>,
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionRefusal {
    /// The limit of its address is reached.
    TooMany,
    /// The remaining descriptors are kept for files.
    NoDescriptor,
}

/// One connection's place in the counts, given up when dropped.
pub(super) struct ConnectionPlace {
    counts: Arc<Mutex<Counts>>,
    pub(super) shard: usize,
    _descriptor: ConnectionDescriptor,
    _quotas: QuotaPlace,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        lock(&self.counts).per_shard[self.shard] -= 1;
    }
}

impl Counts {
    /// Takes a place on the shard with the fewest connections, if the limits allow it.
    pub(super) fn admit(
        counts: &Arc<Mutex<Counts>>,
        limits: &ListenLimits,
        quotas: QuotaPlace,
        address: IpAddr,
    ) -> Result<ConnectionPlace, ConnectionRefusal> {
        let Some(descriptor) = limits.descriptors.take() else {
            return Err(ConnectionRefusal::NoDescriptor);
        };
        let quotas = quotas
            .of_address(address)
            .ok_or(ConnectionRefusal::TooMany)?;
        let mut open = lock(counts);
        let fewest = open
            .per_shard
            .iter()
            .enumerate()
            .min_by_key(|(_, count)| **count);
        let shard = fewest
            .map(|(shard, _)| shard)
            .ok_or(ConnectionRefusal::TooMany)?;
        open.per_shard[shard] += 1;
        Ok(ConnectionPlace {
            counts: Arc::clone(counts),
            shard,
            _descriptor: descriptor,
            _quotas: quotas,
        })
    }
}
