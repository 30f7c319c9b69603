//! A pool of credits on one shard, with waiters served first come, first served.
//!
//! Owns the free credits of a lane (or of the slab of reply slots) and the waiters. Used by one shard only. Never
//! loses a credit when a waiter is dropped, granted or not.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Waiting,
    Granted,
    Gone,
}

struct Waiter {
    state: Cell<Wait>,
    waker: RefCell<Option<Waker>>,
}

/// Credits and their waiters.
pub(super) struct Pool {
    credits: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

impl Pool {
    pub(super) fn new(credits: usize) -> Pool {
        Pool {
            credits: Cell::new(credits),
            waiters: RefCell::new(VecDeque::new()),
        }
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }

    /// Takes a credit unless an earlier caller waits.
    pub(super) fn try_take(&self) -> bool {
        let credits = self.credits.get();
        if credits == 0 || self.has_waiters() {
            return false;
        }
        self.credits.set(credits - 1);
        true
    }

    /// Returns credits, to the waiters first.
    pub(super) fn give(&self, count: usize) {
        for done in 0..count {
            loop {
                let Some(waiter) = self.waiters.borrow_mut().pop_front() else {
                    self.credits.set(self.credits.get() + (count - done));
                    return;
                };
                if waiter.state.get() == Wait::Waiting {
                    waiter.state.set(Wait::Granted);
                    let waker = waiter.waker.borrow_mut().take();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    break;
                }
            }
        }
    }

    /// Waits for a credit, in the order of first polls.
    pub(super) fn take(&self) -> Take<'_> {
        Take {
            pool: self,
            waiter: None,
        }
    }
}

/// Future of [`Pool::take`].
pub(super) struct Take<'a> {
    pool: &'a Pool,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Take<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(waiter) = &self.waiter else {
            if self.pool.try_take() {
                return Poll::Ready(());
            }
            let waiter = Rc::new(Waiter {
                state: Cell::new(Wait::Waiting),
                waker: RefCell::new(Some(context.waker().clone())),
            });
            self.pool.waiters.borrow_mut().push_back(Rc::clone(&waiter));
            self.waiter = Some(waiter);
            return Poll::Pending;
        };
        if waiter.state.get() == Wait::Granted {
            self.waiter = None;
            return Poll::Ready(());
        }
        *waiter.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take()
            && waiter.state.replace(Wait::Gone) == Wait::Granted
        {
            self.pool.give(1);
        }
    }
}
