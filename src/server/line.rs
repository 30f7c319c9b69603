//! The line of those who wait for bytes of a shard's budget, and in which order they are let in.
//!
//! Lives on one shard, inside the budget. Only who has something to be read stands here: its reader sees to
//! that. Grants nothing itself.

use std::collections::BTreeMap;
use std::task::Waker;

/// What is still to come of a request puts it behind those who came a second later and ask for so many bytes
/// less: who is done soon gives back soon, and a long one has its turn nevertheless.
const BYTES_PER_SECOND_LATER: u64 = 8 << 20;

/// Those who wait, by how they may be let in when the budget is used up: none of one sort stands in the way of
/// another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// Requests that have come whole: one at a time, for nobody knows how long they stay.
    Come,
    /// Short ones that are coming: they share a part of the limit, and are soon done.
    Short,
    /// Long ones that are coming: one at a time.
    Long,
}

impl Sort {
    /// How many there are.
    pub(crate) const COUNT: usize = 3;
}

/// What somebody wants of the budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Bytes for now.
    pub(crate) bytes: usize,
    /// Bytes until it never asks again.
    pub(crate) whole: usize,
    /// Bytes of the whole request, if it has still to come.
    pub(crate) coming: Option<usize>,
    /// Since when it waits, ns of the world's monotonic clock; for a frame in parts, since its first wait.
    pub(crate) since_ns: u64,
}

/// A place in the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    sort: Sort,
    /// Its time and its ticket: the order in which places are served.
    order: (u64, u64),
}

/// Those who wait, in order.
#[derive(Debug, Default)]
pub(crate) struct Line {
    next_ticket: u64,
    waiting: [BTreeMap<(u64, u64), (usize, Waker)>; Sort::COUNT],
}

impl Line {
    /// The place that `wish` has, to be taken with [`Line::stand`].
    pub(crate) fn place(&mut self, wish: &Wish, sort: Sort) -> Place {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let whole = u64::try_from(wish.whole).unwrap_or(u64::MAX);
        let later_ns = whole.saturating_mul(1_000_000_000 / BYTES_PER_SECOND_LATER);
        let order = (wish.since_ns.saturating_add(later_ns), ticket);
        Place { sort, order }
    }

    /// Waits for `bytes` at `place`.
    pub(crate) fn stand(&mut self, place: Place, bytes: usize, waker: &Waker) {
        let own = self.waiting[place.sort as usize].entry(place.order);
        own.and_modify(|(_, known)| known.clone_from(waker))
            .or_insert_with(|| (bytes, waker.clone()));
    }

    /// Gives the place up.
    pub(crate) fn leave(&mut self, place: Place) {
        self.waiting[place.sort as usize].remove(&place.order);
    }

    /// Whether nobody is before `place`.
    pub(crate) fn is_first(&self, place: Place) -> bool {
        let mut fronts = self.waiting.iter().filter_map(BTreeMap::first_key_value);
        fronts.all(|(front, _)| *front >= place.order)
    }

    /// Whether nobody of the same sort is before `place`.
    pub(crate) fn is_first_of_sort(&self, place: Place) -> bool {
        let front = self.waiting[place.sort as usize].first_key_value();
        front.is_none_or(|(front, _)| *front >= place.order)
    }

    /// Who has to be woken when there is room: the first of each sort.
    pub(crate) fn first(&self) -> [Option<Waker>; Sort::COUNT] {
        let front = |sort: &BTreeMap<_, (usize, Waker)>| Some(sort.first_key_value()?.1.1.clone());
        [&self.waiting[0], &self.waiting[1], &self.waiting[2]].map(front)
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.iter().all(BTreeMap::is_empty)
    }

    /// How many wait, and for how many bytes together.
    pub(crate) fn demand(&self) -> (usize, usize) {
        let all = || self.waiting.iter().flat_map(BTreeMap::values);
        let bytes = all().fold(0, |sum: usize, (bytes, _)| sum.saturating_add(*bytes));
        (all().count(), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_done_soon_goes_first_and_a_long_one_not_last_for_ever() {
        let mut line = Line::default();
        let mut stand = |whole: usize, since_ns| {
            let wish = Wish {
                bytes: 1,
                whole,
                coming: Some(whole),
                since_ns,
            };
            let place = line.place(&wish, Sort::Short);
            line.stand(place, wish.bytes, Waker::noop());
            place
        };
        let long = stand(80 << 20, 0);
        let short = stand(1 << 20, 1_000_000_000);
        let same = stand(1 << 20, 1_000_000_000);
        let late = stand(1 << 20, 11_000_000_000);
        assert_eq!(line.demand(), (4, 4));
        for place in [short, same, long, late] {
            assert!(line.is_first(place));
            line.leave(place);
        }
        assert!(line.is_empty());
    }
}
