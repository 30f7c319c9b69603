//! A wake-up for one waiting task of the same shard.
//!
//! Lives on one shard. Remembers a notification that comes before the wait; counts none.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Notified by any task of the shard, awaited by one.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the waiter, or lets the next wait return at once.
    pub(crate) fn notify(&self) {
        self.set.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Ready when notified since the last `Ready`; otherwise registers the task.
    pub(crate) fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.set.replace(false) {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        match waiter.as_mut() {
            Some(waiter) => waiter.clone_from(context.waker()),
            None => *waiter = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for a notification and consumes it.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await;
    }
}
