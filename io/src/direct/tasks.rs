//! The spawned tasks of one shard, so that all of them can be dropped when it ends.
//!
//! Owns the futures; glommio's own tasks only borrow them for each poll. Stays on its shard. Never drops a task
//! during its poll.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Slot = Rc<RefCell<Option<Task>>>;

#[derive(Default)]
pub(super) struct Tasks {
    slots: Rc<RefCell<BTreeMap<u64, Slot>>>,
    next: Cell<u64>,
    ended: Cell<bool>,
}

impl Tasks {
    /// Adds a task; the returned future runs it, and ends early with the shard.
    pub(super) fn add(
        &self,
        task: impl Future<Output = ()> + 'static,
    ) -> impl Future<Output = ()> + 'static {
        let id = self.next.get();
        self.next.set(id + 1);
        let slot: Slot = Rc::new(RefCell::new(None));
        // Tasks spawned by the dropped tasks of an ending shard are dropped as well.
        if !self.ended.get() {
            *slot.borrow_mut() = Some(Box::pin(task));
            self.slots.borrow_mut().insert(id, Rc::clone(&slot));
        }
        let slots = Rc::clone(&self.slots);
        async move {
            poll_fn(|context| match slot.borrow_mut().as_mut() {
                Some(task) => task.as_mut().poll(context),
                None => Poll::Ready(()),
            })
            .await;
            let task = slot.borrow_mut().take();
            drop(task);
            slots.borrow_mut().remove(&id);
        }
    }

    /// Drops all tasks. Called by the shard's main future, so none is being polled.
    pub(super) fn end(&self) {
        self.ended.set(true);
        loop {
            let first = self.slots.borrow_mut().pop_first();
            let Some((_, slot)) = first else { return };
            let task = slot.borrow_mut().take();
            drop(task);
        }
    }
}
