//! The gate that holds clients while the broker is down, instead of a retry loop.

use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug, Default)]
struct State {
    open: bool,
    over: bool,
    /// How often the gate was opened.
    times: u64,
}

/// Opened when a broker serves, closed before it is killed.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        let mut state = self.state();
        state.open = true;
        state.times += 1;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.state().open = false;
    }

    /// Ends the run: clients finish their requests in flight and end.
    pub(crate) fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Waits until the gate is open for another time than the `seen`-th and returns which it is, or
    /// `None` when there will be no other.
    pub(crate) fn wait(&self, seen: u64) -> Option<u64> {
        let again = |state: &State| state.open && state.times != seen;
        let state = self
            .changed
            .wait_while(self.state(), |state| !again(state) && !state.over)
            .expect("nobody panics with the lock");
        again(&state).then_some(state.times)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}
