//! Fetches of this shard's connections that wait somewhere for data.
//!
//! Lives on one shard. A wait that is given up (its connection has gone, the broker stops) is
//! cancelled where it is parked, so that nobody keeps state for a reader that is not there.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use chronik_shards::Request;
use chronik_terms::ParkToken;

use crate::router::Router;

/// Bits of a token that count; the bits above name the shard.
const COUNTER_BITS: u32 = 48;

/// The waits.
pub(crate) struct Parked {
    router: Router,
    next: Cell<u64>,
    waits: RefCell<HashMap<ParkToken, Vec<usize>>>,
}

/// One wait; cancelled where it is parked when dropped before [`Waiting::done`].
pub(super) struct Waiting {
    parked: Rc<Parked>,
    /// Its name.
    pub(super) token: ParkToken,
}

impl Parked {
    /// Nothing waits yet.
    pub(crate) fn new(router: Router) -> Rc<Self> {
        Rc::new(Self {
            router,
            next: Cell::new(0),
            waits: RefCell::default(),
        })
    }

    /// A wait that is about to be parked on `shards`.
    pub(super) fn begin(self: &Rc<Self>, shards: Vec<usize>) -> Waiting {
        let count = self.next.get();
        self.next.set(count.wrapping_add(1));
        let shard = u64::try_from(self.router.this_shard()).unwrap_or(u64::MAX);
        let token = ParkToken(shard << COUNTER_BITS | count & ((1 << COUNTER_BITS) - 1));
        self.waits.borrow_mut().insert(token, shards);
        Waiting {
            parked: Rc::clone(self),
            token,
        }
    }

    /// Waits that are parked.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waits.borrow().len()
    }

    /// Ends every wait; the fetches are answered with what is there.
    pub(crate) fn cancel_all(&self) {
        let waits: Vec<_> = self
            .waits
            .borrow()
            .iter()
            .map(|(token, at)| (*token, at.clone()))
            .collect();
        for (token, shards) in waits {
            self.cancel(token, &shards);
        }
    }

    /// A lane that is full keeps its wait until the deadline: nothing is lost but time.
    fn cancel(&self, token: ParkToken, shards: &[usize]) {
        for shard in shards {
            self.router.try_send(*shard, Request::Cancel(token));
        }
    }
}

impl Waiting {
    /// The wait is over by itself.
    pub(super) fn done(self) {
        self.parked.waits.borrow_mut().remove(&self.token);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let shards = self.parked.waits.borrow_mut().remove(&self.token);
        if let Some(shards) = shards {
            self.parked.cancel(self.token, &shards);
        }
    }
}
