//! Reply slots: the place of the reply to each outstanding call of one shard.
//!
//! Owns the slab of slots with their generations: a reply that comes after its caller has gone finds a newer
//! generation and is dropped. Used by one shard only; never crosses threads.

use super::Lost;
use std::task::{Context, Poll, Waker};

/// A reserved reply slot: names one call for as long as it is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId {
    index: u32,
    generation: u32,
}

enum State<Reply> {
    Free,
    Waiting(Option<Waker>),
    Answered(Result<Reply, Lost>),
}

struct Slot<Reply> {
    generation: u32,
    state: State<Reply>,
}

/// All slots of a shard.
pub(super) struct Slots<Reply> {
    slots: Vec<Slot<Reply>>,
    free: Vec<u32>,
}

impl<Reply> Slots<Reply> {
    pub(super) fn new() -> Slots<Reply> {
        Slots {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn reserve(&mut self) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("calls in flight are bounded");
            self.slots.push(Slot {
                generation: 0,
                state: State::Free,
            });
            index
        });
        let slot = &mut self.slots[index as usize];
        debug_assert!(matches!(slot.state, State::Free));
        slot.state = State::Waiting(None);
        SlotId {
            index,
            generation: slot.generation,
        }
    }

    fn get(&mut self, id: SlotId) -> Option<&mut Slot<Reply>> {
        let slot = &mut self.slots[id.index as usize];
        (slot.generation == id.generation).then_some(slot)
    }

    /// Stores the reply and returns the caller's waker; drops the reply of an abandoned call.
    pub(super) fn fill(&mut self, id: SlotId, reply: Result<Reply, Lost>) -> Option<Waker> {
        let slot = self.get(id)?;
        match std::mem::replace(&mut slot.state, State::Answered(reply)) {
            State::Waiting(waker) => waker,
            State::Free | State::Answered(_) => unreachable!("a slot is filled once"),
        }
    }

    /// Takes the reply out and frees the slot, or stores the waker.
    pub(super) fn poll(
        &mut self,
        id: SlotId,
        context: &mut Context<'_>,
    ) -> Poll<Result<Reply, Lost>> {
        let slot = self.get(id).expect("a call polled after its end");
        match &mut slot.state {
            State::Waiting(Some(known)) if known.will_wake(context.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            State::Answered(_) => match self.release(id) {
                Some(reply) => Poll::Ready(reply),
                None => unreachable!("the slot was answered"),
            },
            State::Free => unreachable!("freeing a slot changes its generation"),
        }
    }

    /// Frees the slot; a reply on its way to it will be dropped.
    pub(super) fn release(&mut self, id: SlotId) -> Option<Result<Reply, Lost>> {
        let slot = self.get(id)?;
        slot.generation = slot.generation.wrapping_add(1);
        let state = std::mem::replace(&mut slot.state, State::Free);
        self.free.push(id.index);
        match state {
            State::Answered(reply) => Some(reply),
            State::Waiting(_) | State::Free => None,
        }
    }
}
