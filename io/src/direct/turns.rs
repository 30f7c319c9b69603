//! Waiting in line, in order, and turns of which only so many are given out at a time.
//!
//! Owns who waits. Stays on its shard. Each of those who wait stands in the line once, however often it
//! is polled, and leaves it when it is dropped: a wake-up is never spent on somebody who does not need it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

/// Those who wait for the same thing, the first first.
#[derive(Default)]
pub(super) struct Line {
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

/// A place in a line, given up when it is dropped.
struct Place<'a> {
    line: &'a Line,
    ticket: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.line.waiting.borrow_mut().remove(&ticket);
            // There may be something for the next one, too; or it was meant for this one.
            self.line.wake();
        }
    }
}

impl Line {
    /// Waits until `get` gives something; it is asked when this one is first in the line, and again
    /// after each [`Line::wake`].
    pub(super) async fn wait<T>(&self, mut get: impl FnMut() -> Option<T>) -> T {
        let mut place = Place {
            line: self,
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

    /// Whether anybody waits.
    pub(super) fn is_waited_in(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Lets the first one ask again.
    pub(super) fn wake(&self) {
        let first = self.waiting.borrow().values().next().cloned();
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// Turns of which only so many are given out at a time; who waits is served in order.
pub(super) struct Turns {
    free: Cell<usize>,
    line: Line,
}

/// One of them, given back when it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(super) fn new(count: usize) -> Turns {
        Turns {
            free: Cell::new(count),
            line: Line::default(),
        }
    }

    pub(super) fn take(&self) -> impl Future<Output = Turn<'_>> {
        self.line.wait(|| {
            let left = self.free.get().checked_sub(1)?;
            self.free.set(left);
            Some(Turn(self))
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.line.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::{Turn, Turns};
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
        future: Pin<&mut impl Future<Output = Turn<'a>>>,
        woken: &Arc<Woken>,
    ) -> Poll<Turn<'a>> {
        let waker = Waker::from(Arc::clone(woken));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// One that is polled many times while it waits takes one wake-up, not those of the others.
    #[test]
    fn polling_again_takes_no_wake_up_of_others() {
        let turns = Turns::new(1);
        let [a, b] = [0, 1].map(|_| Arc::<Woken>::default());
        let mut held = pin!(turns.take());
        let Poll::Ready(held) = poll(held.as_mut(), &a) else {
            panic!("a turn was free")
        };
        let (mut first, mut second) = (pin!(turns.take()), pin!(turns.take()));
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

    /// One that was woken and is dropped before it looks passes the wake-up on.
    #[test]
    fn a_dropped_one_passes_its_wake_up_on() {
        let turns = Turns::new(1);
        let [a, b] = [0, 1].map(|_| Arc::<Woken>::default());
        let mut held = pin!(turns.take());
        let Poll::Ready(held) = poll(held.as_mut(), &a) else {
            panic!("a turn was free")
        };
        let mut first = Box::pin(turns.take());
        let mut second = pin!(turns.take());
        assert!(poll(first.as_mut(), &a).is_pending());
        assert!(poll(second.as_mut(), &b).is_pending());
        drop(held);
        drop(first);
        assert!(b.0.load(Ordering::Relaxed) > 0, "the second was forgotten");
        assert!(poll(second.as_mut(), &b).is_ready());
    }

    /// Who comes later does not pass who waits.
    #[test]
    fn nobody_jumps_the_line() {
        let turns = Turns::new(1);
        let woken = Arc::<Woken>::default();
        let mut held = pin!(turns.take());
        let Poll::Ready(held) = poll(held.as_mut(), &woken) else {
            panic!("a turn was free")
        };
        let mut first = pin!(turns.take());
        assert!(poll(first.as_mut(), &woken).is_pending());
        drop(held);
        let mut late = pin!(turns.take());
        assert!(poll(late.as_mut(), &woken).is_pending());
        assert!(poll(first.as_mut(), &woken).is_ready());
    }
}
