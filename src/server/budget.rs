//! Bytes that requests of one shard may hold between the socket and their answer.
//!
//! What waits holds only what it needs: see [`Grant::shrink_to`]. Lives on one shard. Never refuses: a connection that
//! finds nothing left waits in line and its socket is not read meanwhile. A share is kept for requests that are coming
//! and are soon whole: the parts of those that never will be cannot use it up. Replies are only counted, because a
//! reply that exists cannot wait; fetches ask [`ByteBudget::reply_bytes_max`] how much they may still add.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::line::{Line, Place, Sort, Wish};
use super::signal::Signal;

/// However little is left, one fetch may always ask for this much, bytes: a reader never starves.
const FETCH_BYTES_MIN: usize = 64 << 10;
/// A fetch gets at most this share of what is left.
const FETCH_SHARE: usize = 4;
/// Requests that wait may keep so many times the limit of those that are being taken.
const PARKED_SHARE: usize = 2;
/// This share is kept for requests that are given the whole of what they need when the rest is used up.
const WHOLE_SHARE: usize = 4;

/// A request is short that is no more than such a part of that share.
const SHORT_SHARE: usize = 4;

/// The budget of a shard.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    limit: usize,
    requests: Cell<usize>,
    replies: Cell<usize>,
    parked: Cell<usize>,
    /// Given to requests of each sort that got the whole of what they need.
    wholes: [Cell<usize>; Sort::COUNT],
    line: RefCell<Line>,
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
            wholes: Default::default(),
            line: RefCell::default(),
            reply_taken: Signal::default(),
            answers_wait: Cell::new(false),
            pressed: Signal::default(),
        })
    }

    /// Takes `bytes` if nobody waits and anything at all is left.
    pub(crate) fn take_now(self: &Rc<Self>, bytes: usize) -> Option<Grant> {
        let is_free = self.line.borrow().is_empty() && self.requests.get() < self.parts_max();
        is_free.then(|| self.charge_request(bytes))
    }

    /// Takes what is wished as soon as anything at all is left, in the order of the line. When nothing is,
    /// the first of its sort may be given the whole of what it needs, so that parts of requests, each of them
    /// waiting for the rest, cannot lock each other out: see [`Sort`].
    pub(crate) async fn take(self: &Rc<Self>, wish: Wish) -> Grant {
        if let Some(grant) = self.take_now(wish.bytes) {
            return grant;
        }
        let sort = self.sort(&wish);
        let place = self.line.borrow_mut().place(&wish, sort);
        let waits = Waits {
            budget: self,
            place,
        };
        self.pressed.notify();
        let grant = poll_fn(|context| {
            let mut line = self.line.borrow_mut();
            if line.is_first(place) && self.requests.get() < self.parts_max() {
                return Poll::Ready(self.charge_request(wish.bytes));
            }
            if line.is_first_of_sort(place)
                && let Some(grant) = self.admit_whole(&wish, sort)
            {
                return Poll::Ready(grant);
            }
            line.stand(place, wish.bytes, context.waker());
            Poll::Pending
        })
        .await;
        drop(waits);
        grant
    }

    /// Bytes that may be given in parts.
    fn parts_max(&self) -> usize {
        self.limit - self.limit / WHOLE_SHARE
    }

    /// Whom a wish waits with. A request is short or long by the whole of it: one that has come nearly whole is
    /// as slow as it was.
    fn sort(&self, wish: &Wish) -> Sort {
        match wish.coming {
            None => Sort::Come,
            Some(bytes) if bytes <= self.limit / WHOLE_SHARE / SHORT_SHARE => Sort::Short,
            Some(_) => Sort::Long,
        }
    }

    /// What the first of its sort gets when the rest is used up.
    fn admit_whole(self: &Rc<Self>, wish: &Wish, sort: Sort) -> Option<Grant> {
        if self.requests.get() < self.parts_max() {
            return None; // Another sort's turn, which it takes at once.
        }
        let wholes = &self.wholes[sort as usize];
        let share = self.limit / WHOLE_SHARE;
        let fits = sort == Sort::Short && wholes.get().saturating_add(wish.whole) <= share;
        (wholes.get() == 0 || fits).then(|| {
            let mut grant = self.charge_request(wish.whole);
            let whole = wish.whole.max(1);
            grant.whole = Some((sort, whole));
            wholes.set(wholes.get() + whole);
            grant
        })
    }

    /// Takes `bytes` at once, whatever is left, for a request that has been let in and grew: who
    /// comes next waits for them.
    pub(crate) fn charge_request(self: &Rc<Self>, bytes: usize) -> Grant {
        let mut grant = Grant {
            budget: Rc::clone(self),
            bytes: 0,
            whole: None,
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
        !self.line.borrow().is_empty()
    }

    /// How many wait for bytes of requests, and for how many together.
    pub(crate) fn demand(&self) -> (usize, usize) {
        self.line.borrow().demand()
    }

    /// Whether so little is held that more may be given than is known to come.
    pub(crate) fn is_roomy(&self) -> bool {
        self.requests.get() < self.limit / 2 && !self.is_pressed()
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

    /// Bytes given to requests that got the whole of what they need.
    #[cfg(test)]
    fn wholes_held(&self) -> usize {
        self.wholes.iter().map(Cell::get).sum()
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
        let first = self.line.borrow().first();
        first.into_iter().flatten().for_each(Waker::wake);
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
struct Waits<'a> {
    budget: &'a ByteBudget,
    place: Place,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.budget.line.borrow_mut().leave(self.place);
        self.budget.wake_first();
    }
}

/// Request bytes held; given back when dropped.
#[derive(Debug)]
pub(crate) struct Grant {
    budget: Rc<ByteBudget>,
    bytes: usize,
    /// Of these, those that it was given because it needs no more, at least one byte, and its sort.
    whole: Option<(Sort, usize)>,
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
            self.settle_whole();
            self.budget.give_back(freed);
        }
    }

    fn settle_whole(&mut self) {
        if let Some((sort, whole)) = self.whole.take() {
            let wholes = &self.budget.wholes[sort as usize];
            wholes.set(wholes.get() - whole);
        }
    }

    /// Joins another grant of the same budget to this one.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        if let Some(whole) = other.whole.take() {
            debug_assert!(self.whole.is_none(), "who has the whole never asks again");
            self.whole = Some(whole);
        }
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.settle_whole();
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

    /// A request that has come whole.
    fn request(bytes: usize) -> Wish {
        Wish {
            bytes,
            whole: bytes,
            coming: None,
            since_ns: 0,
        }
    }

    #[test]
    fn the_first_in_line_goes_first_and_one_may_overshoot() {
        let budget = ByteBudget::new(100);
        let first = budget
            .take(request(150))
            .now_or_never()
            .expect("an empty budget grants anything");
        let beyond = budget
            .take(request(500))
            .now_or_never()
            .expect("one of any size may be beyond");
        let mut second = Box::pin(budget.take(request(10)));
        let mut third = Box::pin(budget.take(request(10)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(budget.demand(), (2, 20));
        drop((first, beyond));
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
        assert_eq!((budget.requests.get(), budget.wholes_held()), (0, 0));
        assert!(!budget.is_pressed());
    }

    #[test]
    fn whoever_leaves_the_line_does_not_block_it() {
        let budget = ByteBudget::new(1);
        let held: Vec<Grant> = (0..2)
            .map(|_| {
                let grant = budget.take(request(1)).now_or_never();
                grant.expect("granted, and one beyond")
            })
            .collect();
        let mut gone = Box::pin(budget.take(request(1)));
        let mut next = Box::pin(budget.take(request(1)));
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
        let budget = ByteBudget::new(400);
        let part = |whole| Wish {
            bytes: 20,
            whole,
            coming: Some(whole),
            since_ns: 0,
        };
        let parts: Vec<Grant> = (0..15)
            .map(|_| budget.take_now(20).expect("room"))
            .collect();
        assert!(budget.take_now(20).is_none(), "the rest is for others");
        let mut long = Box::pin(budget.take(part(4000)));
        let first = long.as_mut().now_or_never().expect("one of any size");
        assert_eq!(first.bytes(), 4000, "it never asks again");
        // Nor do others of its like keep the short ones out.
        let mut longer = Box::pin(budget.take(part(4000)));
        assert!(longer.as_mut().now_or_never().is_none(), "one at a time");
        let take = |whole| budget.take(part(whole)).now_or_never();
        let short: Vec<Grant> = (0..4).map(|_| take(24).expect("a share")).collect();
        assert!(take(24).is_none(), "it is used up");
        assert_eq!(take(4).expect("it is whole sooner").bytes(), 4);
        let mut come = Box::pin(budget.take(request(30)));
        let come = come.as_mut().now_or_never().expect("one that has come");
        drop(first);
        let longer = longer.now_or_never().expect("its turn");
        assert!(take(4000).is_none());
        drop((parts, short, longer, come));
        assert_eq!((budget.requests.get(), budget.wholes_held()), (0, 0));
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
