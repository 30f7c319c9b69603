//! A door between threads: closed until somebody opens it, then open for ever.
//!
//! Usable from any thread and any shard. Says one thing once; it is no channel.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// How many more must arrive before it opens by itself.
    expected: usize,
    waiters: Vec<Waker>,
}

/// A door that opens once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

impl Gate {
    /// A gate that opens when `expected` have arrived.
    pub(crate) fn expecting(expected: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            expected,
            ..State::default()
        })))
    }

    /// Opens it.
    pub(crate) fn open(&self) {
        let waiters = {
            let mut state = self.lock();
            state.open = true;
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Counts one who arrived; the last of those expected opens it.
    pub(crate) fn arrive(&self) {
        let last = {
            let mut state = self.lock();
            state.expected = state.expected.saturating_sub(1);
            state.expected == 0
        };
        if last {
            self.open();
        }
    }

    /// Waits until it is open.
    pub(crate) async fn passed(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.open {
                return Poll::Ready(());
            }
            if !state
                .waiters
                .iter()
                .any(|waker| waker.will_wake(context.waker()))
            {
                state.waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn it_opens_for_those_who_wait_and_those_who_come_later() {
        let gate = Gate::default();
        let mut waits = Box::pin(gate.passed());
        assert!(waits.as_mut().now_or_never().is_none());
        gate.open();
        assert!(waits.now_or_never().is_some());
        assert!(gate.passed().now_or_never().is_some());
    }

    #[test]
    fn the_last_one_expected_opens_it() {
        let gate = Gate::expecting(2);
        gate.arrive();
        assert!(gate.passed().now_or_never().is_none());
        gate.arrive();
        assert!(gate.passed().now_or_never().is_some());
    }
}
