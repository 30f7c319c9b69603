//! A wait queue, first come first served, and a semaphore over it.
//!
//! Owns the waiters. Stays on its shard. A waiter has one place however often it is polled, and leaves it when
//! dropped: no wake-up is spent on a waiter that no longer needs it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

/// Waiters for one resource, in order.
#[derive(Default)]
pub(super) struct WaitQueue {
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

/// A place in the queue, left when dropped.
struct QueuePlace<'a> {
    queue: &'a WaitQueue,
    ticket: Option<u64>,
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.queue.waiting.borrow_mut().remove(&ticket);
            // The next waiter may be served too; or the wake-up was meant for this one.
            self.queue.wake();
        }
    }
}

impl WaitQueue {
    /// Waits until `get` returns `Some`; it is called when this waiter is first, and again after each
    /// [`WaitQueue::wake`].
    pub(super) async fn wait<T>(&self, mut get: impl FnMut() -> Option<T>) -> T {
        let mut place = QueuePlace {
            queue: self,
            ticket: None,
        };
        poll_fn(|context| {
            let first = self.waiting.borrow().keys().next().copied();
            let is_first = match (first, place.ticket) {
                (None, _) => true,
                (Some(first), Some(mine)) => first == mine,
                (Some(_), None) => false,
            };
            if is_first && let Some(got) = get() {
                return Poll::Ready(got);
            }
            let ticket = place.ticket.unwrap_or_else(|| {
                let ticket = self.next.get();
                self.next.set(ticket + 1);
                ticket
            });
            place.ticket = Some(ticket);
            let waker = context.waker().clone();
            self.waiting.borrow_mut().insert(ticket, waker);
            Poll::Pending
        })
        .await
    }

    /// True while a task waits.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Lets the first waiter try again.
    pub(super) fn wake(&self) {
        let first = self.waiting.borrow().values().next().cloned();
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// A bounded number of permits, given to waiters in order.
pub(super) struct Semaphore {
    free: Cell<usize>,
    queue: WaitQueue,
}

/// One permit, returned when dropped.
pub(super) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    pub(super) fn new(count: usize) -> Semaphore {
        Semaphore {
            free: Cell::new(count),
            queue: WaitQueue::default(),
        }
    }

    pub(super) fn take(&self) -> impl Future<Output = Permit<'_>> {
        self.queue.wait(|| {
            let left = self.free.get().checked_sub(1)?;
            self.free.set(left);
            Some(Permit(self))
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.queue.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::{Permit, Semaphore};
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<'a>(
        future: Pin<&mut impl Future<Output = Permit<'a>>>,
        woken: &Arc<Woken>,
    ) -> Poll<Permit<'a>> {
        let waker = Waker::from(Arc::clone(woken));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// A waiter polled many times takes one wake-up, not those of the others.
    #[test]
    fn polling_again_takes_no_wake_up_of_others() {
        let permits = Semaphore::new(1);
        let [a, b] = [0, 1].map(|_| Arc::<Woken>::default());
        let mut held = pin!(permits.take());
        let Poll::Ready(held) = poll(held.as_mut(), &a) else {
            panic!("a turn was free")
        };
        let (mut first, mut second) = (pin!(permits.take()), pin!(permits.take()));
        for _ in 0..3 {
            assert!(poll(first.as_mut(), &a).is_pending());
        }
        assert!(poll(second.as_mut(), &b).is_pending());
        drop(held);
        let Poll::Ready(turn) = poll(first.as_mut(), &a) else {
            panic!("its turn has come")
        };
        drop(turn);
        assert!(b.0.load(Ordering::Relaxed) > 0, "the second was forgotten");
        assert!(poll(second.as_mut(), &b).is_ready());
    }

    /// A waiter woken and dropped before its poll passes the wake-up on.
    #[test]
    fn a_dropped_one_passes_its_wake_up_on() {
        let permits = Semaphore::new(1);
        let [a, b] = [0, 1].map(|_| Arc::<Woken>::default());
        let mut held = pin!(permits.take());
        let Poll::Ready(held) = poll(held.as_mut(), &a) else {
            panic!("a turn was free")
        };
        let mut first = Box::pin(permits.take());
        let mut second = pin!(permits.take());
        assert!(poll(first.as_mut(), &a).is_pending());
        assert!(poll(second.as_mut(), &b).is_pending());
        drop(held);
        drop(first);
        assert!(b.0.load(Ordering::Relaxed) > 0, "the second was forgotten");
        assert!(poll(second.as_mut(), &b).is_ready());
    }

    /// A late waiter does not overtake.
    #[test]
    fn nobody_jumps_the_line() {
        let permits = Semaphore::new(1);
        let woken = Arc::<Woken>::default();
        let mut held = pin!(permits.take());
        let Poll::Ready(held) = poll(held.as_mut(), &woken) else {
            panic!("a turn was free")
        };
        let mut first = pin!(permits.take());
        assert!(poll(first.as_mut(), &woken).is_pending());
        drop(held);
        let mut late = pin!(permits.take());
        assert!(poll(late.as_mut(), &woken).is_pending());
        assert!(poll(first.as_mut(), &woken).is_ready());
    }
}
