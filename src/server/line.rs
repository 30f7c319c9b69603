//! The line of those who wait for bytes of a shard's budget, and in which order they are let in.
//!
//! Lives on one shard, inside the budget. Only who has something to be read stands here: its reader sees to
//! that. Grants nothing itself.

use std::collections::BTreeMap;
use std::task::Waker;

/// What is still to come of a request puts it behind those who came a second later and ask for so many bytes
/// less: who is done soon gives back soon, and a long one has its turn nevertheless.
const BYTES_PER_SECOND_LATER: u64 = 8 << 20;

/// What somebody wants of the budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Bytes for now.
    pub(crate) bytes: usize,
    /// Bytes until it never asks again.
    pub(crate) whole: usize,
    /// Whether the request has still to come: such a one may have a share of its own.
    pub(crate) is_to_come: bool,
    /// Since when it waits, ns of the world's monotonic clock; for a frame in parts, since its first wait.
    pub(crate) since_ns: u64,
}

/// A place in the line, by the order in which places are served.
pub(crate) type Place = (u64, u64);

/// Those who wait, in order.
#[derive(Debug, Default)]
pub(crate) struct Line {
    next_ticket: u64,
    waiting: BTreeMap<Place, (usize, Waker)>,
}

impl Line {
    /// The place that `wish` has, to be taken with [`Line::stand`].
    pub(crate) fn place(&mut self, wish: &Wish) -> Place {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let whole = u64::try_from(wish.whole).unwrap_or(u64::MAX);
        let later_ns = whole.saturating_mul(1_000_000_000 / BYTES_PER_SECOND_LATER);
        (wish.since_ns.saturating_add(later_ns), ticket)
    }

    /// Waits for `bytes` at `place`.
    pub(crate) fn stand(&mut self, place: Place, bytes: usize, waker: &Waker) {
        let own = self.waiting.entry(place);
        own.and_modify(|(_, known)| known.clone_from(waker))
            .or_insert_with(|| (bytes, waker.clone()));
    }

    /// Gives the place up.
    pub(crate) fn leave(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    /// Whether nobody is before `place`.
    pub(crate) fn is_first(&self, place: Place) -> bool {
        self.waiting
            .first_key_value()
            .is_none_or(|(front, _)| *front >= place)
    }

    /// Who has to be woken when there is room.
    pub(crate) fn first(&self) -> Option<Waker> {
        let (_, (_, waker)) = self.waiting.first_key_value()?;
        Some(waker.clone())
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait, and for how many bytes together.
    pub(crate) fn demand(&self) -> (usize, usize) {
        let bytes = self.waiting.values().map(|(bytes, _)| *bytes);
        (self.waiting.len(), bytes.fold(0, usize::saturating_add))
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
                is_to_come: true,
                since_ns,
            };
            let place = line.place(&wish);
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
