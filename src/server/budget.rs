//! Bytes that requests of one shard may hold between the socket and their answer.
//!
//! What waits holds only what it needs: see [`Grant::shrink_to`]. Lives on one shard. Never refuses: a connection that finds nothing left waits in line and its
//! socket is not read meanwhile. Replies are only counted, because a reply that exists cannot wait;
//! fetches ask [`ByteBudget::reply_bytes_max`] how much they may still add.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::signal::Signal;

/// However little is left, one fetch may always ask for this much, bytes: a reader never starves.
const FETCH_BYTES_MIN: usize = 64 << 10;
/// A fetch gets at most this share of what is left.
const FETCH_SHARE: usize = 4;
/// Requests that wait may keep so many times the limit of those that are being taken.
const PARKED_SHARE: usize = 2;

/// The budget of a shard.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    limit: usize,
    requests: Cell<usize>,
    replies: Cell<usize>,
    parked: Cell<usize>,
    /// Somebody has been given more than is left.
    overdrawn: Cell<bool>,
    next_ticket: Cell<u64>,
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    /// Notified when a reply has been taken.
    reply_taken: Signal,
    /// A large answer waits until others have been taken.
    answers_wait: Cell<bool>,
    /// Notified when somebody begins to wait: unfinished frames are then watched.
    pub(crate) pressed: Signal,
}

impl ByteBudget {
    /// A budget of `limit` bytes for requests and as many for replies.
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            limit,
            requests: Cell::new(0),
            replies: Cell::new(0),
            parked: Cell::new(0),
            overdrawn: Cell::new(false),
            next_ticket: Cell::new(0),
            waiting: RefCell::default(),
            reply_taken: Signal::default(),
            answers_wait: Cell::new(false),
            pressed: Signal::default(),
        })
    }

    /// Takes `bytes` as soon as anything at all is left, first come first served. One grant may
    /// overdraw: the request that is larger than the budget, and the frame that could not come whole
    /// because parts of others use everything up, each of them waiting for the rest.
    pub(crate) async fn take(self: &Rc<Self>, bytes: usize) -> Grant {
        let is_free = || self.requests.get() < self.limit || !self.overdrawn.get();
        if self.requests.get() >= self.limit || !self.waiting.borrow().is_empty() {
            let ticket = self.next_ticket.get();
            self.next_ticket.set(ticket + 1);
            let place = Place {
                budget: self,
                ticket,
            };
            self.pressed.notify();
            poll_fn(|context| {
                let mut waiting = self.waiting.borrow_mut();
                let first = waiting.front().is_none_or(|(front, _)| *front == ticket);
                if first && is_free() {
                    return Poll::Ready(());
                }
                match waiting.iter_mut().find(|(other, _)| *other == ticket) {
                    Some((_, waker)) => waker.clone_from(context.waker()),
                    None => waiting.push_back((ticket, context.waker().clone())),
                }
                Poll::Pending
            })
            .await;
            drop(place);
        }
        let mut grant = self.charge_request(bytes);
        let is_beyond = self.requests.get() >= self.limit;
        grant.overdraws = is_beyond && !self.overdrawn.replace(true);
        self.wake_first();
        grant
    }

    /// Takes `bytes` at once, whatever is left, for a request that has been let in and grew: who
    /// comes next waits for them.
    pub(crate) fn charge_request(self: &Rc<Self>, bytes: usize) -> Grant {
        let mut grant = Grant {
            budget: Rc::clone(self),
            bytes: 0,
            overdraws: false,
        };
        grant.add(bytes);
        grant
    }

    /// Counts the bytes of a reply until the returned charge is dropped.
    pub(crate) fn charge_reply(self: &Rc<Self>, bytes: usize) -> ReplyCharge {
        self.replies.set(self.replies.get().saturating_add(bytes));
        ReplyCharge {
            budget: Rc::clone(self),
            bytes,
        }
    }

    /// Counts what a request that waits for others keeps, until the returned charge is dropped. It
    /// takes nothing from those that are still to come: whoever only waits keeps nobody out.
    pub(crate) fn charge_parked(self: &Rc<Self>, bytes: usize) -> ParkedCharge {
        self.parked.set(self.parked.get().saturating_add(bytes));
        ParkedCharge {
            budget: Rc::clone(self),
            bytes,
        }
    }

    /// Whether so much waits that one more request should be answered with what is there.
    pub(crate) fn has_too_much_parked(&self) -> bool {
        self.parked.get() >= self.limit.saturating_mul(PARKED_SHARE)
    }

    /// Most record bytes one more fetch should ask for: plenty normally, little while many replies
    /// wait for slow readers.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        (self.limit.saturating_sub(self.replies.get()) / FETCH_SHARE).max(FETCH_BYTES_MIN)
    }

    /// Waits until replies hold less than the limit. For one task at a time: who makes large answers
    /// takes turns. Meanwhile those who do not take theirs are watched.
    pub(crate) async fn reply_room(&self) {
        let _ends = AnswerWait(&self.answers_wait);
        while self.replies.get() >= self.limit {
            self.answers_wait.set(true);
            self.pressed.notify();
            self.reply_taken.wait().await;
        }
    }

    /// Whether somebody waits for bytes of requests.
    pub(crate) fn is_pressed(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether an answer waits until others have been taken.
    pub(crate) fn answers_wait(&self) -> bool {
        self.answers_wait.get()
    }

    /// Request bytes held now.
    #[cfg(test)]
    pub(crate) fn requests_held(&self) -> usize {
        self.requests.get()
    }

    /// Bytes that waiting requests keep now.
    #[cfg(test)]
    pub(crate) fn parked_held(&self) -> usize {
        self.parked.get()
    }

    fn give_back(&self, bytes: usize) {
        let left = self.requests.get().checked_sub(bytes);
        self.requests
            .set(left.expect("a grant gives back only what it took"));
        self.wake_first();
    }

    fn wake_first(&self) {
        if self.requests.get() < self.limit || !self.overdrawn.get() {
            let first = self
                .waiting
                .borrow()
                .front()
                .map(|(_, waker)| waker.clone());
            if let Some(waker) = first {
                waker.wake();
            }
        }
    }
}

/// An answer that waits for others to be taken, until it does not or is given up.
struct AnswerWait<'a>(&'a Cell<bool>);

impl Drop for AnswerWait<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A place in the line; given up when the wait ends or is dropped.
struct Place<'a> {
    budget: &'a ByteBudget,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget
            .waiting
            .borrow_mut()
            .retain(|(ticket, _)| *ticket != self.ticket);
        self.budget.wake_first();
    }
}

/// Request bytes held; given back when dropped.
#[derive(Debug)]
pub(crate) struct Grant {
    budget: Rc<ByteBudget>,
    bytes: usize,
    /// It is the one that may be beyond what is left.
    overdraws: bool,
}

impl Grant {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        let held = self.budget.requests.get().saturating_add(bytes);
        self.budget.requests.set(held);
    }

    /// Gives back all but `bytes`; a grant never grows by this.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        if freed > 0 {
            self.bytes -= freed;
            self.settle_overdraft();
            self.budget.give_back(freed);
        }
    }

    /// Whether it may go on to take more than is left.
    pub(crate) fn overdraws(&self) -> bool {
        self.overdraws
    }

    fn settle_overdraft(&mut self) {
        if std::mem::take(&mut self.overdraws) {
            self.budget.overdrawn.set(false);
        }
    }

    /// Joins another grant of the same budget to this one.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.overdraws |= std::mem::take(&mut other.overdraws);
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.settle_overdraft();
        self.budget.give_back(self.bytes);
    }
}

/// Reply bytes counted; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct ReplyCharge {
    budget: Rc<ByteBudget>,
    bytes: usize,
}

impl Drop for ReplyCharge {
    fn drop(&mut self) {
        self.budget
            .replies
            .set(self.budget.replies.get().saturating_sub(self.bytes));
        if self.budget.answers_wait.get() {
            self.budget.reply_taken.notify();
        }
    }
}

/// Bytes of a request that waits; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct ParkedCharge {
    budget: Rc<ByteBudget>,
    bytes: usize,
}

impl Drop for ParkedCharge {
    fn drop(&mut self) {
        self.budget
            .parked
            .set(self.budget.parked.get().saturating_sub(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_first_in_line_goes_first_and_one_may_overshoot() {
        let budget = ByteBudget::new(100);
        let first = budget
            .take(150)
            .now_or_never()
            .expect("an empty budget grants anything");
        let mut second = Box::pin(budget.take(10));
        let mut third = Box::pin(budget.take(10));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(budget.is_pressed());
        drop(first);
        assert!(
            third.as_mut().now_or_never().is_none(),
            "not before the second"
        );
        let second = second.now_or_never().expect("room again");
        let third = third.now_or_never().expect("still room");
        assert_eq!(
            (second.bytes(), third.bytes(), budget.requests.get()),
            (10, 10, 20)
        );
        drop((second, third));
        assert_eq!(budget.requests.get(), 0);
        assert!(!budget.is_pressed());
    }

    #[test]
    fn whoever_leaves_the_line_does_not_block_it() {
        let budget = ByteBudget::new(1);
        let held = budget.take(1).now_or_never().expect("granted");
        let mut gone = Box::pin(budget.take(1));
        let mut next = Box::pin(budget.take(1));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(next.as_mut().now_or_never().is_none());
        drop(gone);
        drop(held);
        assert!(next.now_or_never().is_some());
    }

    #[test]
    fn large_answers_wait_until_others_are_taken_and_no_longer() {
        let budget = ByteBudget::new(100);
        assert!(budget.reply_room().now_or_never().is_some());
        let (one, other) = (budget.charge_reply(60), budget.charge_reply(60));
        let mut given_up = Box::pin(budget.reply_room());
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(budget.answers_wait());
        drop(given_up);
        assert!(!budget.answers_wait(), "nobody waits any more");
        let mut waits = Box::pin(budget.reply_room());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(one);
        assert!(waits.as_mut().now_or_never().is_some());
        drop(waits);
        assert!(!budget.answers_wait());
        drop(other);
    }

    #[test]
    fn parts_of_frames_do_not_lock_each_other_out() {
        let budget = ByteBudget::new(100);
        let mut parts: Vec<Grant> = (0..5)
            .map(|_| budget.take(20).now_or_never().expect("room"))
            .collect();
        assert_eq!(budget.requests.get(), 100, "all of it, in parts");
        let overdraws: Vec<bool> = parts.iter().map(Grant::overdraws).collect();
        assert_eq!(
            overdraws.iter().filter(|one| **one).count(),
            1,
            "one may go on"
        );
        // When that one is done, the next in line may.
        let mut next = Box::pin(budget.take(20));
        assert!(next.as_mut().now_or_never().is_none());
        parts.retain(|grant| !grant.overdraws());
        let next = next.now_or_never().expect("the other has ended");
        assert!(next.overdraws());
    }

    #[test]
    fn replies_that_wait_make_fetches_smaller_but_never_nothing() {
        let budget = ByteBudget::new(40 << 20);
        assert_eq!(budget.reply_bytes_max(), 10 << 20);
        let charge = budget.charge_reply(39 << 20);
        assert_eq!(budget.reply_bytes_max(), 256 << 10);
        let more = budget.charge_reply(90 << 20);
        assert_eq!(budget.reply_bytes_max(), FETCH_BYTES_MIN);
        drop((charge, more));
        assert_eq!(budget.reply_bytes_max(), 10 << 20);
    }
}
