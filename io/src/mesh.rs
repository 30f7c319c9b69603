//! The mesh: requests and replies between cores.
//!
//! Owns one bounded first-in-first-out lane per ordered pair of shards, the reply slots, and one inbox per shard
//! for threads that are no shard. Each shard holds an `Endpoint` and runs its pump (`Endpoint::serve`), on any
//! executor. Cannot deadlock when every lane is full: a pump never waits for room. Handlers are synchronous, and
//! a reply needs no room, since its slot was reserved before the request left. Never runs a handler on a foreign
//! core.

mod inbox;
mod lane;
mod pool;
mod pump;
mod remote;
mod shared;
mod slots;
#[cfg(test)]
mod tests;

pub use remote::{Remote, RemoteCall};

use crate::world::World;
use pool::Pool;
use shared::{Replies, Shared};
use slots::{SlotId, Slots};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// Longest slice of a pump before other tasks of its shard run, in nanoseconds.
const SLICE_NS_MAX: u64 = 100_000;

/// Requests taken from one lane before the next lane's turn.
const TURN_REQUESTS_MAX: usize = 16;

/// Requests taken from each lane for one call of the shard to itself. One is fair among shards: a shard with
/// many busy connections calls itself so often that its pump hardly runs.
const RELIEF_REQUESTS_MAX: usize = 1;

/// The called shard has ended, or dropped the request without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard that was asked is gone")]
pub struct Lost;

/// Bounds of a mesh.
#[derive(Clone, Copy, Debug)]
pub struct MeshOptions {
    /// Unhandled requests of one shard at another, at most.
    pub lane_capacity: usize,
    /// Unanswered calls of one shard in all, at most, those to itself included.
    pub calls_in_flight_max: usize,
}

impl Default for MeshOptions {
    fn default() -> MeshOptions {
        MeshOptions {
            lane_capacity: 1024,
            calls_in_flight_max: 1 << 20,
        }
    }
}

/// Observes wake-ups, so that a watchdog knows which shard should be running.
pub trait WakeObserver: Send + Sync {
    /// A parked shard was woken, from any thread.
    fn woken(&self, shard: usize);
    /// A shard's pump runs.
    fn ran(&self, shard: usize);
}

/// A mesh of a fixed number of shards; hands out their endpoints.
pub struct Mesh<Request, Reply> {
    shared: Arc<Shared<Request, Reply>>,
}

impl<Request, Reply> Clone for Mesh<Request, Reply> {
    fn clone(&self) -> Self {
        Mesh {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<Request: Send + 'static, Reply: Send + 'static> Mesh<Request, Reply> {
    /// A mesh of `count` shards.
    ///
    /// # Panics
    /// If a bound is zero or the calls do not fit 32 bits.
    #[must_use]
    pub fn new(count: usize, options: MeshOptions) -> Self {
        Mesh::with_observer(count, options, None)
    }

    /// Like [`Mesh::new`], with an observer of the wake-ups.
    ///
    /// # Panics
    /// As [`Mesh::new`].
    #[must_use]
    pub fn with_observer(
        count: usize,
        options: MeshOptions,
        observer: Option<Arc<dyn WakeObserver>>,
    ) -> Self {
        assert!(count > 0 && options.lane_capacity > 0 && options.calls_in_flight_max > 0);
        assert!(u32::try_from(options.calls_in_flight_max).is_ok());
        Mesh {
            shared: Arc::new(Shared::new(count, options, observer)),
        }
    }

    /// The endpoint of shard `index`; call on the thread that will run it.
    ///
    /// # Panics
    /// If the endpoint was made before.
    #[must_use]
    pub fn endpoint(&self, index: usize) -> Endpoint<Request, Reply> {
        let before = self.shared.attached[index].swap(true, Ordering::SeqCst);
        assert!(!before, "endpoint {index} was made twice");
        let lanes = (0..self.shared.count()).map(|_| Pool::new(self.shared.lane_capacity));
        Endpoint {
            inner: Rc::new(Inner {
                index,
                lanes: lanes.collect(),
                port: Rc::new(Port {
                    index,
                    replies: Arc::clone(&self.shared.replies),
                    slots: RefCell::new(Slots::new()),
                    calls: Pool::new(self.shared.calls_in_flight_max),
                }),
                handler: RefCell::new(None),
                local: RefCell::new(VecDeque::new()),
                taken: (0..self.shared.count())
                    .map(|_| RefCell::default())
                    .collect(),
                shared: Arc::clone(&self.shared),
            }),
        }
    }

    /// Access for threads that are no shard.
    #[must_use]
    pub fn remote(&self) -> Remote<Request, Reply> {
        Remote::new(Arc::clone(&self.shared))
    }
}

/// The replying half of a shard: its slots, and the reply lanes to others.
struct Port<Reply> {
    index: usize,
    replies: Arc<Replies<Reply>>,
    slots: RefCell<Slots<Reply>>,
    calls: Pool,
}

impl<Reply> Port<Reply> {
    fn fill(&self, slot: SlotId, reply: Result<Reply, Lost>) {
        let waker = self.slots.borrow_mut().fill(slot, reply);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

enum Home<Reply> {
    /// The caller is on this shard.
    Here(SlotId),
    /// The caller is on another shard.
    Shard(usize, SlotId),
    /// The caller is an outside thread.
    Outside(Arc<inbox::Cell<Reply>>),
}

/// The way back to one caller. May be kept and used later, on the shard that received it; dropped unused, the
/// call resolves with [`Lost`].
#[must_use = "somebody waits for the reply"]
pub struct Responder<Reply> {
    port: Rc<Port<Reply>>,
    home: Option<Home<Reply>>,
}

impl<Reply> Responder<Reply> {
    /// Replies; never blocks, never fails.
    pub fn reply(mut self, reply: Reply) {
        self.send(Ok(reply));
    }

    fn send(&mut self, reply: Result<Reply, Lost>) {
        match self.home.take() {
            Some(Home::Here(slot)) => self.port.fill(slot, reply),
            Some(Home::Shard(to, slot)) => {
                self.port.replies.send(self.port.index, to, slot, reply);
            }
            Some(Home::Outside(cell)) => cell.fill(reply),
            None => {}
        }
    }
}

impl<Reply> Drop for Responder<Reply> {
    fn drop(&mut self) {
        self.send(Err(Lost));
    }
}

/// A call in flight; resolves with the reply. Dropping it abandons the reply, not the request.
#[must_use = "the reply arrives here"]
pub struct Call<Reply> {
    port: Rc<Port<Reply>>,
    slot: Option<SlotId>,
}

impl<Reply> Future for Call<Reply> {
    type Output = Result<Reply, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = self.slot.expect("a call polled after its end");
        let polled = self.port.slots.borrow_mut().poll(slot, context);
        if polled.is_ready() {
            self.slot = None;
            self.port.calls.give(1);
        }
        polled
    }
}

impl<Reply> Drop for Call<Reply> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            // Named, so that the borrow has ended before a reply's own drop code runs.
            let unread = self.port.slots.borrow_mut().release(slot);
            drop(unread);
            self.port.calls.give(1);
        }
    }
}

type Handler<Request, Reply> = Box<dyn FnMut(Request, Responder<Reply>)>;

struct Inner<Request, Reply> {
    index: usize,
    shared: Arc<Shared<Request, Reply>>,
    port: Rc<Port<Reply>>,
    /// Credits for each destination.
    lanes: Vec<Pool>,
    handler: RefCell<Option<Handler<Request, Reply>>>,
    /// Calls of this shard to itself from before or inside the handler.
    local: RefCell<VecDeque<(Request, SlotId)>>,
    /// Requests taken from each lane and not handled yet. Their credits are still out: a lane and its entry here
    /// together hold no more than the lane's capacity.
    taken: Vec<RefCell<Taken<Request>>>,
}

type Taken<Request> = VecDeque<(SlotId, Request)>;

/// One shard's end of the mesh. Cheap to clone; stays on its shard.
pub struct Endpoint<Request, Reply> {
    inner: Rc<Inner<Request, Reply>>,
}

impl<Request, Reply> Clone for Endpoint<Request, Reply> {
    fn clone(&self) -> Self {
        Endpoint {
            inner: Rc::clone(&self.inner),
        }
    }
}

impl<Request: Send + 'static, Reply: Send + 'static> Endpoint<Request, Reply> {
    /// This shard's number.
    #[must_use]
    pub fn index(&self) -> usize {
        self.inner.index
    }

    /// Number of shards.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.shared.count()
    }

    /// Sends now, or returns the request: the lane is full, other senders wait for it, or too many calls are
    /// unanswered.
    ///
    /// # Errors
    /// The request itself.
    pub fn try_send(&self, destination: usize, request: Request) -> Result<Call<Reply>, Request> {
        let inner = &*self.inner;
        if !inner.port.calls.try_take() {
            return Err(request);
        }
        if destination != inner.index && !inner.take_lane_credit(destination) {
            inner.port.calls.give(1);
            return Err(request);
        }
        Ok(inner.dispatch(destination, request))
    }

    /// Sends, waiting first come first served while the lane is full. When this returns the request is in its lane,
    /// in order; the returned [`Call`] is its reply. Safe to drop at any time.
    pub async fn send(&self, destination: usize, request: Request) -> Call<Reply> {
        let inner = &*self.inner;
        inner.port.calls.take().await;
        let taken = CallCredit(&inner.port.calls);
        if destination != inner.index && !inner.take_lane_credit(destination) {
            let wait = inner.lanes[destination].take();
            // Registered as a waiter by its first poll, then asks the lane for credits: in the
            // other order a credit could come back unnoticed.
            let mut wait = std::pin::pin!(wait);
            poll_fn(|context| {
                let polled = wait.as_mut().poll(context);
                if polled.is_pending() {
                    inner.collect_credits(destination);
                }
                polled
            })
            .await;
        }
        std::mem::forget(taken); // Now the call owns the credit.
        inner.dispatch(destination, request)
    }

    /// Sends and waits for the reply.
    ///
    /// # Errors
    /// [`Lost`] if the destination has ended or dropped the request.
    pub async fn call(&self, destination: usize, request: Request) -> Result<Reply, Lost> {
        self.send(destination, request).await.await
    }

    /// The pump of this shard: hands requests to `handler`, replies to their callers. Never returns; every shard of
    /// a mesh runs it once, even one that only calls.
    ///
    /// # Panics
    /// If it runs already.
    pub async fn serve<W: World>(
        &self,
        world: &W,
        handler: impl FnMut(Request, Responder<Reply>) + 'static,
    ) {
        let before = self.inner.handler.borrow_mut().replace(Box::new(handler));
        assert!(before.is_none(), "a shard has one pump");
        let mut pump = pump::Pump::new(Rc::clone(&self.inner));
        loop {
            poll_fn(|context| pump.poll_slice(context, || world.monotonic_ns())).await;
            world.pause().await;
        }
    }
}

/// Returns a credit for a call unless forgotten.
struct CallCredit<'a>(&'a Pool);

impl Drop for CallCredit<'_> {
    fn drop(&mut self) {
        self.0.give(1);
    }
}

impl<Request, Reply> Inner<Request, Reply> {
    fn take_lane_credit(&self, destination: usize) -> bool {
        if self.lanes[destination].try_take() {
            return true;
        }
        self.collect_credits(destination);
        self.lanes[destination].try_take()
    }

    /// Collects the credits that the destination has returned, for the waiters.
    fn collect_credits(&self, destination: usize) {
        let lane = self.shared.requests(self.index, destination);
        let pool = &self.lanes[destination];
        loop {
            let count = lane.take_credits_or_starve();
            pool.give(count);
            // While a sender waits, the lane must know that its credits are wanted.
            if count == 0 || !pool.has_waiters() {
                return;
            }
        }
    }

    /// Returns the credits of `count` requests of `source` that were handled or dropped.
    fn return_credits(&self, source: usize, count: usize) {
        if count > 0 && self.shared.requests(source, self.index).give_credits(count) {
            self.shared.replies.notify(source);
        }
    }

    /// Sends with the credits for slot and lane taken.
    fn dispatch(&self, destination: usize, request: Request) -> Call<Reply> {
        let slot = self.port.slots.borrow_mut().reserve();
        if destination == self.index {
            self.local.borrow_mut().push_back((request, slot));
            self.run_local();
            self.relieve();
        } else {
            let lane = &self.shared.requests(self.index, destination).lane;
            match lane.push((slot, request)) {
                Ok(()) => self.shared.replies.notify(destination),
                Err(_) => {
                    self.lanes[destination].give(1);
                    self.port.fill(slot, Err(Lost));
                }
            }
        }
        Call {
            port: Rc::clone(&self.port),
            slot: Some(slot),
        }
    }

    /// Gives every other shard a turn beside a call of this shard to itself.
    fn relieve(&self) {
        for source in 0..self.taken.len() {
            if source != self.index && self.turn(source, RELIEF_REQUESTS_MAX) > 0 {
                // Handlers' calls to their own shard: nothing else would run them.
                self.run_local();
            }
        }
    }

    /// Hands up to `count_max` requests of one lane to the handler; returns their number. 0 inside the handler, or
    /// before there is one.
    fn turn(&self, source: usize, count_max: usize) -> usize {
        let Ok(mut handler) = self.handler.try_borrow_mut() else {
            return 0;
        };
        let Some(handler) = handler.as_mut() else {
            return 0;
        };
        let mut count = 0;
        while count < count_max {
            let Some((slot, request)) = self.next_of(source) else {
                break;
            };
            handler(request, self.responder(Home::Shard(source, slot)));
            count += 1;
        }
        self.return_credits(source, count);
        count
    }

    fn next_of(&self, source: usize) -> Option<(SlotId, Request)> {
        let lane = &self.shared.requests(source, self.index).lane;
        let mut taken = self.taken[source].borrow_mut();
        if taken.is_empty() && lane.is_ready() {
            lane.take(&mut taken);
        }
        taken.pop_front()
    }

    /// Hands calls of this shard to itself straight to its handler; inside the handler or before there is one, they
    /// wait for it to return.
    fn run_local(&self) {
        let Ok(mut handler) = self.handler.try_borrow_mut() else {
            return;
        };
        let Some(handler) = handler.as_mut() else {
            return;
        };
        loop {
            let next = self.local.borrow_mut().pop_front();
            let Some((request, slot)) = next else { return };
            handler(request, self.responder(Home::Here(slot)));
        }
    }

    fn responder(&self, home: Home<Reply>) -> Responder<Reply> {
        Responder {
            port: Rc::clone(&self.port),
            home: Some(home),
        }
    }
}

impl<Request, Reply> Drop for Inner<Request, Reply> {
    /// The shard ends: its callers and senders learn so, and no shard calls it again.
    fn drop(&mut self) {
        for other in 0..self.shared.count() {
            let unread = self.shared.replies.lane(other, self.index).close();
            drop(unread);
            let unhandled = self.shared.requests(other, self.index).lane.close();
            let count = unhandled.len();
            for (slot, _) in unhandled {
                self.shared.replies.send(self.index, other, slot, Err(Lost));
            }
            // Senders that wait for room must find the lane closed, not wait for ever.
            self.return_credits(other, count);
        }
        let inbox = &self.shared.inboxes[self.index];
        for (_, cell) in inbox.lane.close() {
            cell.fill(Err(Lost));
        }
        inbox.wake_waiters();
    }
}
