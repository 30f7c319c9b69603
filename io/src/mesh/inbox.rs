//! The inbox of a shard for threads that are no shard, and the cells in which their replies arrive.
//!
//! Bounded; never polls.

use super::Lost;
use super::lane::{Lane, lock};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// Requests of outside threads to one shard.
pub(super) struct Inbox<Request, Reply> {
    pub(super) lane: Lane<(Request, Arc<Cell<Reply>>)>,
    /// Callers that found the inbox full.
    pub(super) waiters: Mutex<Vec<Waker>>,
}

impl<Request, Reply> Inbox<Request, Reply> {
    pub(super) fn new() -> Inbox<Request, Reply> {
        Inbox {
            lane: Lane::new(),
            waiters: Mutex::new(Vec::new()),
        }
    }

    /// Wakes the callers that wait for room: entries were taken out, or the shard is gone.
    pub(super) fn wake_waiters(&self) {
        let waiters = std::mem::take(&mut *lock(&self.waiters));
        for waker in waiters {
            waker.wake();
        }
    }
}

/// The place of one outside caller's reply.
pub(super) struct Cell<Reply> {
    pub(super) state: Mutex<CellState<Reply>>,
}

pub(super) struct CellState<Reply> {
    pub(super) reply: Option<Result<Reply, Lost>>,
    pub(super) waker: Option<Waker>,
}

impl<Reply> Cell<Reply> {
    pub(super) fn new() -> Cell<Reply> {
        Cell {
            state: Mutex::new(CellState {
                reply: None,
                waker: None,
            }),
        }
    }

    pub(super) fn fill(&self, reply: Result<Reply, Lost>) {
        let mut state = lock(&self.state);
        state.reply = Some(reply);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Takes a batch out of a shard's inbox.
pub(super) fn take_inbox<Request, Reply>(
    inbox: &Inbox<Request, Reply>,
    into: &mut VecDeque<(Request, Arc<Cell<Reply>>)>,
) {
    inbox.lane.take(into);
    inbox.wake_waiters();
}
