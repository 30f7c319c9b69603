//! `Lane`: a first-in-first-out queue between two threads.
//!
//! Owns its entries and one flag that is read without the lock. Never wakes a task: the pusher notifies.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: every critical section here is a push or a swap, which leaves the queue
/// whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A first-in-first-out queue with one producing and one consuming side.
pub(super) struct Lane<T> {
    queue: Mutex<Queue<T>>,
    /// The queue is not empty. Written under the lock, read without it.
    ready: AtomicBool,
}

struct Queue<T> {
    entries: VecDeque<T>,
    closed: bool,
}

impl<T> Lane<T> {
    pub(super) fn new() -> Lane<T> {
        let queue = Queue {
            entries: VecDeque::new(),
            closed: false,
        };
        Lane {
            queue: Mutex::new(queue),
            ready: AtomicBool::new(false),
        }
    }

    /// Appends; gives the entry back if the consumer is gone.
    pub(super) fn push(&self, entry: T) -> Result<(), T> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(entry);
        }
        queue.entries.push_back(entry);
        self.ready.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Appends if fewer than `capacity` entries wait.
    pub(super) fn push_bounded(&self, entry: T, capacity: usize) -> Result<(), PushError<T>> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(PushError::Closed(entry));
        }
        if queue.entries.len() >= capacity {
            return Err(PushError::Full(entry));
        }
        queue.entries.push_back(entry);
        self.ready.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// True when [`Lane::take`] would find an entry.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Swaps all entries into `into`, which is empty: one lock for a batch, and no allocation.
    pub(super) fn take(&self, into: &mut VecDeque<T>) {
        debug_assert!(into.is_empty());
        let mut queue = lock(&self.queue);
        std::mem::swap(&mut queue.entries, into);
        self.ready.store(false, Ordering::SeqCst);
    }

    /// Refuses further entries and returns the untaken ones.
    pub(super) fn close(&self) -> VecDeque<T> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        self.ready.store(false, Ordering::SeqCst);
        std::mem::take(&mut queue.entries)
    }
}

/// Why a bounded push was refused; both give the entry back.
pub(super) enum PushError<T> {
    Full(T),
    Closed(T),
}
