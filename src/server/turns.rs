//! Turns: something that one task of a shard does at a time, first come, first served.
//!
//! Lives on one shard. Whoever comes again stands behind those who wait already, so that no number of
//! others who come again and again keeps anybody from its turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Whose turn it is, and who comes next.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Cell<bool>,
    next_ticket: Cell<u64>,
    /// Ascending by ticket.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.wake_first();
    }
}

/// A place in the line; given up when the wait ends or is dropped.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting.borrow_mut();
        if let Ok(place) = waiting.binary_search_by_key(&self.ticket, |(ticket, _)| *ticket) {
            waiting.remove(place);
        }
        drop(waiting);
        if !self.turns.taken.get() {
            self.turns.wake_first();
        }
    }
}

impl Turns {
    /// Waits for everybody who came before.
    pub(crate) async fn lock(&self) -> Turn<'_> {
        if self.taken.get() || !self.waiting.borrow().is_empty() {
            let ticket = self.next_ticket.get();
            self.next_ticket.set(ticket + 1);
            let place = Place {
                turns: self,
                ticket,
            };
            poll_fn(|context| {
                let mut waiting = self.waiting.borrow_mut();
                let first = waiting.front().is_none_or(|(front, _)| *front == ticket);
                if first && !self.taken.get() {
                    self.taken.set(true);
                    return Poll::Ready(());
                }
                match waiting.binary_search_by_key(&ticket, |(other, _)| *other) {
                    Ok(own) => {
                        if let Some((_, waker)) = waiting.get_mut(own) {
                            waker.clone_from(context.waker());
                        }
                    }
                    // Nobody has a higher ticket who has waited before.
                    Err(own) => waiting.insert(own, (ticket, context.waker().clone())),
                }
                Poll::Pending
            })
            .await;
            drop(place);
        }
        self.taken.set(true);
        Turn(self)
    }

    fn wake_first(&self) {
        let first = self.waiting.borrow();
        let first = first.front().map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Context;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Turn<'a>> + 'a>>;

    fn poll<'a>(waiting: &mut Waiting<'a>) -> Option<Turn<'a>> {
        match waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_who_gives_up_keeps_nobody() {
        let turns = Turns::default();
        let mut first: Waiting<'_> = Box::pin(turns.lock());
        let turn = poll(&mut first).expect("nobody else");
        let mut waiting: Vec<Waiting<'_>> = (0..4)
            .map(|_| -> Waiting<'_> { Box::pin(turns.lock()) })
            .collect();
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
        drop(waiting.remove(0));
        drop(turn);
        let mut late: Waiting<'_> = Box::pin(turns.lock());
        assert!(poll(&mut late).is_none(), "others wait");
        for mut waiting in waiting {
            assert!(poll(&mut late).is_none(), "others came before");
            drop(poll(&mut waiting).expect("its turn"));
        }
        assert!(poll(&mut late).is_some());
        assert!(turns.waiting.borrow().is_empty());
    }

    #[test]
    fn who_comes_again_and_again_keeps_nobody_away() {
        let turns = Turns::default();
        let mut busy: VecDeque<Waiting<'_>> = VecDeque::new();
        let mut first: Waiting<'_> = Box::pin(turns.lock());
        let mut turn = poll(&mut first);
        for _ in 0..3 {
            busy.push_back(Box::pin(turns.lock()));
        }
        busy.iter_mut()
            .for_each(|waiting| assert!(poll(waiting).is_none()));
        let mut honest: Waiting<'_> = Box::pin(turns.lock());
        assert!(poll(&mut honest).is_none());
        for round in 0.. {
            drop(turn.take());
            if poll(&mut honest).is_some() {
                assert_eq!(round, 3, "after those who were there before");
                return;
            }
            let mut next = busy.pop_front().expect("three come again and again");
            turn = poll(&mut next);
            assert!(turn.is_some(), "in their order");
            let mut again: Waiting<'_> = Box::pin(turns.lock());
            assert!(poll(&mut again).is_none());
            busy.push_back(again);
        }
    }
}
