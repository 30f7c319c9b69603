//! The part of the mesh that several threads touch: lanes, reply lanes and wake-up signals.
//!
//! Owns the queues between cores and the rule for waking a core: only when it is parked, once per
//! batch. Used from every shard and from outside threads; never holds a lock while it wakes a task
//! or runs a handler.

use super::inbox::Inbox;
use super::lane::{Lane, lock};
use super::slots::SlotId;
use super::{Lost, WakeObserver};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// Requests from one core to another, with the credits that bound them.
pub(super) struct RequestLane<Request> {
    pub(super) lane: Lane<(SlotId, Request)>,
    /// Credits that the destination has returned by handling requests.
    returned: AtomicUsize,
    /// The source has no credit left and must be woken when some return.
    starved: AtomicBool,
}

impl<Request> RequestLane<Request> {
    pub(super) fn new() -> RequestLane<Request> {
        RequestLane {
            lane: Lane::new(),
            returned: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
        }
    }

    /// At the destination: `count` requests were handled. True when the source waits for that.
    pub(super) fn give_credits(&self, count: usize) -> bool {
        self.returned.fetch_add(count, Ordering::SeqCst);
        self.starved.swap(false, Ordering::SeqCst)
    }

    /// At the source: takes the returned credits; with none, asks to be woken.
    pub(super) fn take_credits_or_starve(&self) -> usize {
        let count = self.returned.swap(0, Ordering::SeqCst);
        if count > 0 {
            return count;
        }
        self.starved.store(true, Ordering::SeqCst);
        // Credits returned between the two lines above wake no one, so look again.
        self.returned.swap(0, Ordering::SeqCst)
    }

    pub(super) fn has_credits(&self) -> bool {
        self.returned.load(Ordering::SeqCst) > 0
    }
}

/// Wakes one core's pump, from any thread.
pub(super) struct Signal {
    parked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    fn new() -> Signal {
        Signal {
            parked: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// The pump is about to return with nothing to do. It must look at its queues once more after this call: an
    /// earlier push saw no parked pump and did not wake it.
    pub(super) fn park(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        match &mut *slot {
            Some(known) if known.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
        drop(slot);
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(super) fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }
}

/// The part of [`Shared`] that replies need, without the type of requests.
pub(super) struct Replies<Reply> {
    pub(super) count: usize,
    lanes: Vec<Lane<(SlotId, Result<Reply, Lost>)>>,
    signals: Vec<Signal>,
    observer: Option<Arc<dyn WakeObserver>>,
}

impl<Reply> Replies<Reply> {
    fn new(count: usize, observer: Option<Arc<dyn WakeObserver>>) -> Replies<Reply> {
        Replies {
            count,
            lanes: (0..count * count).map(|_| Lane::new()).collect(),
            signals: (0..count).map(|_| Signal::new()).collect(),
            observer,
        }
    }

    /// The reply lane from shard `from` back to the caller `to`.
    pub(super) fn lane(&self, from: usize, to: usize) -> &Lane<(SlotId, Result<Reply, Lost>)> {
        &self.lanes[from * self.count + to]
    }

    pub(super) fn signal(&self, shard: usize) -> &Signal {
        &self.signals[shard]
    }

    /// An entry was pushed for `shard`: wakes it if it is parked.
    pub(super) fn notify(&self, shard: usize) {
        let signal = &self.signals[shard];
        fence(Ordering::SeqCst);
        if !signal.parked.load(Ordering::SeqCst) || !signal.parked.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Some(observer) = &self.observer {
            observer.woken(shard);
        }
        let waker = lock(&signal.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The pump of `shard` is running.
    pub(super) fn ran(&self, shard: usize) {
        if let Some(observer) = &self.observer {
            observer.ran(shard);
        }
    }

    /// Sends a reply to its caller. Never blocks and never drops it while the caller's shard lives: the slot was
    /// reserved by the caller.
    pub(super) fn send(&self, from: usize, to: usize, slot: SlotId, reply: Result<Reply, Lost>) {
        if self.lane(from, to).push((slot, reply)).is_ok() {
            self.notify(to);
        }
    }
}

/// Everything shared by the endpoints of one mesh.
pub(super) struct Shared<Request, Reply> {
    pub(super) replies: Arc<Replies<Reply>>,
    requests: Vec<RequestLane<Request>>,
    /// Requests of threads that are no shard, one inbox per shard.
    pub(super) inboxes: Vec<Inbox<Request, Reply>>,
    pub(super) lane_capacity: usize,
    pub(super) calls_in_flight_max: usize,
    /// The endpoints made so far.
    pub(super) attached: Vec<AtomicBool>,
}

impl<Request, Reply> Shared<Request, Reply> {
    pub(super) fn new(
        count: usize,
        options: super::MeshOptions,
        observer: Option<Arc<dyn WakeObserver>>,
    ) -> Shared<Request, Reply> {
        Shared {
            replies: Arc::new(Replies::new(count, observer)),
            requests: (0..count * count).map(|_| RequestLane::new()).collect(),
            inboxes: (0..count).map(|_| Inbox::new()).collect(),
            lane_capacity: options.lane_capacity,
            calls_in_flight_max: options.calls_in_flight_max,
            attached: (0..count).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.replies.count
    }

    pub(super) fn requests(&self, from: usize, to: usize) -> &RequestLane<Request> {
        &self.requests[from * self.replies.count + to]
    }
}
