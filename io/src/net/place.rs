//! The place of a connection: which shard takes it, and what it counts against while it is open.
//!
//! Given by the acceptor's thread, given up on the connection's shard when the connection is dropped.

use super::door::{Door, DoorPlace};
use crate::descriptors::{ConnectionPlace, ConnectionShare};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a listener asks before it takes a connection. Who exceeds the limit of its address or the descriptors
/// is disconnected at once; who exceeds another waits in the backlog.
pub struct ListenLimits {
    /// The places of all listeners of the process: what is beyond is kept for files.
    pub descriptors: Arc<ConnectionShare>,
    /// The limits, shared with the other listeners.
    pub door: Arc<Door>,
    /// This listener's number among them.
    pub listener: usize,
}

impl Default for ListenLimits {
    fn default() -> ListenLimits {
        ListenLimits {
            descriptors: ConnectionShare::new(usize::MAX),
            door: Arc::default(),
            listener: 0,
        }
    }
}

/// Open connections by shard.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) per_shard: Vec<usize>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The limit of its address.
    TooMany,
    /// The descriptors that are left are kept for files.
    NoDescriptor,
}

/// One connection's place in the counts, given up when dropped.
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    pub(super) shard: usize,
    _descriptor: ConnectionPlace,
    _door: DoorPlace,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.counts).per_shard[self.shard] -= 1;
    }
}

impl Counts {
    /// Takes a place on the shard with the fewest connections, if the limits allow it.
    pub(super) fn admit(
        counts: &Arc<Mutex<Counts>>,
        limits: &ListenLimits,
        door: DoorPlace,
        address: IpAddr,
    ) -> Result<Place, Refusal> {
        let Some(descriptor) = limits.descriptors.take() else {
            return Err(Refusal::NoDescriptor);
        };
        let door = door.of_address(address).ok_or(Refusal::TooMany)?;
        let mut open = lock(counts);
        let fewest = open
            .per_shard
            .iter()
            .enumerate()
            .min_by_key(|(_, count)| **count);
        let shard = fewest.map(|(shard, _)| shard).ok_or(Refusal::TooMany)?;
        open.per_shard[shard] += 1;
        Ok(Place {
            counts: Arc::clone(counts),
            shard,
            _descriptor: descriptor,
            _door: door,
        })
    }
}
