//! The pump of one shard: drains requests and replies of other cores and threads, in bounded slices.
//!
//! Runs on its shard, driven by `Endpoint::serve`. Lanes have their turns round robin, so that a flooding core
//! cannot starve the others. Never waits for room.

use super::inbox::{self, take_inbox};
use super::slots::SlotId;
use super::{Home, Inner, Lost, SLICE_NS_MAX, TURN_REQUESTS_MAX};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

type Outside<Request, Reply> = (Request, Arc<inbox::Cell<Reply>>);

/// Working memory of a shard's pump.
pub(super) struct Pump<Request, Reply> {
    inner: Rc<Inner<Request, Reply>>,
    outside: VecDeque<Outside<Request, Reply>>,
    replies: VecDeque<(SlotId, Result<Reply, Lost>)>,
    /// The lane of the next turn.
    next: usize,
}

impl<Request, Reply> Pump<Request, Reply> {
    pub(super) fn new(inner: Rc<Inner<Request, Reply>>) -> Self {
        inner.run_local();
        Pump {
            outside: VecDeque::new(),
            replies: VecDeque::new(),
            next: 0,
            inner,
        }
    }

    /// Works until nothing is left (pending, parked) or the slice is used up (ready).
    pub(super) fn poll_slice(
        &mut self,
        context: &mut Context<'_>,
        now_ns: impl Fn() -> u64,
    ) -> Poll<()> {
        let index = self.inner.index;
        let shared = Arc::clone(&self.inner.shared);
        let signal = shared.replies.signal(index);
        signal.unpark();
        shared.replies.ran(index);
        let deadline_ns = now_ns().saturating_add(SLICE_NS_MAX);
        loop {
            self.drain_replies();
            self.wake_senders();
            let worked = self.turns(|| now_ns() >= deadline_ns);
            if worked {
                if now_ns() >= deadline_ns {
                    return Poll::Ready(());
                }
                continue;
            }
            signal.park(context.waker());
            if !self.anything_ready() {
                return Poll::Pending;
            }
            signal.unpark();
        }
    }

    fn drain_replies(&mut self) {
        for other in 0..self.inner.taken.len() {
            let lane = self.inner.shared.replies.lane(other, self.inner.index);
            if lane.is_ready() {
                lane.take(&mut self.replies);
                for (slot, reply) in self.replies.drain(..) {
                    self.inner.port.fill(slot, reply);
                }
            }
        }
    }

    /// Gives returned credits to their waiters.
    fn wake_senders(&self) {
        for (destination, pool) in self.inner.lanes.iter().enumerate() {
            if pool.has_waiters() {
                self.inner.collect_credits(destination);
            }
        }
    }

    /// One turn for every lane and the outside inbox; true when a request was handled.
    fn turns(&mut self, slice_is_over: impl Fn() -> bool) -> bool {
        let sources = self.inner.taken.len() + 1;
        let mut worked = false;
        for _ in 0..sources {
            let source = self.next;
            self.next = (source + 1) % sources;
            let handled = if source + 1 == sources {
                self.turn_outside()
            } else if source != self.inner.index {
                self.inner.turn(source, TURN_REQUESTS_MAX)
            } else {
                0
            };
            if handled > 0 {
                worked = true;
                // Handlers' calls to their own shard.
                self.inner.run_local();
                if slice_is_over() {
                    break;
                }
            }
        }
        worked
    }

    fn turn_outside(&mut self) -> usize {
        let inner = &*self.inner;
        let inbox = &inner.shared.inboxes[inner.index];
        if self.outside.is_empty() && inbox.lane.is_ready() {
            take_inbox(inbox, &mut self.outside);
        }
        let count = self.outside.len().min(TURN_REQUESTS_MAX);
        if count == 0 {
            return 0;
        }
        let mut handler = inner.handler.borrow_mut();
        let handler = handler.as_mut().expect("a serving shard has a handler");
        for (request, cell) in self.outside.drain(..count) {
            handler(request, inner.responder(Home::Outside(cell)));
        }
        count
    }

    /// The second look after parking.
    fn anything_ready(&self) -> bool {
        let inner = &*self.inner;
        let (shared, index) = (&inner.shared, inner.index);
        let from_shards = (0..inner.taken.len()).any(|other| {
            !inner.taken[other].borrow().is_empty()
                || shared.replies.lane(other, index).is_ready()
                || shared.requests(other, index).lane.is_ready()
                || (inner.lanes[other].has_waiters() && shared.requests(index, other).has_credits())
        });
        from_shards || !self.outside.is_empty() || shared.inboxes[index].lane.is_ready()
    }
}

impl<Request, Reply> Drop for Pump<Request, Reply> {
    /// The shard stops serving: requests taken but not handled resolve as lost.
    fn drop(&mut self) {
        for (source, taken) in self.inner.taken.iter().enumerate() {
            let taken = taken.take();
            let count = taken.len();
            for (slot, request) in taken {
                drop(request);
                drop(self.inner.responder(Home::Shard(source, slot)));
            }
            self.inner.return_credits(source, count);
        }
        for (request, cell) in self.outside.drain(..) {
            drop(request);
            drop(self.inner.responder(Home::Outside(cell)));
        }
        // The handler often owns an endpoint; taking it out breaks the cycle.
        let handler = self.inner.handler.borrow_mut().take();
        drop(handler);
    }
}
