//! The pairing of produced with consumed batches: a batch is known by its partition and its first offset, which the
//! produce reply and the fetched batch both carry.
//!
//! Never reads records, so requests need no timestamp of their own. Either side may come first: a parked fetch can
//! be answered before the producer is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Batches seen on one side only.
#[derive(Debug, Default)]
pub(crate) struct EndToEnd {
    open: HashMap<(i32, i64), Half>,
}

#[derive(Clone, Copy, Debug)]
enum Half {
    Due(u64),
    Consumed(u64),
}

/// A batch seen on both sides, times in ns since the run started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journey {
    /// When its request was due.
    pub(crate) due_ns: u64,
    /// When a consumer had received it whole.
    pub(crate) consumed_ns: u64,
}

impl EndToEnd {
    /// A produce reply: the batch at `base_offset` was due at `due_ns`.
    pub(crate) fn produced(
        &mut self,
        partition: i32,
        base_offset: i64,
        due_ns: u64,
    ) -> Option<Journey> {
        self.pair(partition, base_offset, Half::Due(due_ns))
    }

    /// A fetch reply: the batch at `base_offset` was complete at `consumed_ns`.
    pub(crate) fn consumed(
        &mut self,
        partition: i32,
        base_offset: i64,
        consumed_ns: u64,
    ) -> Option<Journey> {
        self.pair(partition, base_offset, Half::Consumed(consumed_ns))
    }

    /// The number of batches seen on one side only.
    pub(crate) fn unpaired(&self) -> usize {
        self.open.len()
    }

    fn pair(&mut self, partition: i32, base_offset: i64, half: Half) -> Option<Journey> {
        match self.open.entry((partition, base_offset)) {
            Entry::Vacant(vacant) => {
                vacant.insert(half);
                None
            }
            Entry::Occupied(occupied) => match (occupied.remove(), half) {
                (Half::Due(due_ns), Half::Consumed(consumed_ns))
                | (Half::Consumed(consumed_ns), Half::Due(due_ns)) => Some(Journey {
                    due_ns,
                    consumed_ns,
                }),
                // The same side twice: the broker gave an offset two times. Nothing to measure.
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_whichever_comes_first() {
        let mut batches = EndToEnd::default();
        assert_eq!(batches.produced(0, 5, 100), None);
        assert_eq!(batches.consumed(1, 5, 150), None);
        let journey = Some(Journey {
            due_ns: 100,
            consumed_ns: 170,
        });
        assert_eq!(batches.consumed(0, 5, 170), journey);
        let journey = Some(Journey {
            due_ns: 90,
            consumed_ns: 150,
        });
        assert_eq!(batches.produced(1, 5, 90), journey);
        assert_eq!(batches.unpaired(), 0);
    }

    #[test]
    fn an_offset_given_twice_is_no_journey() {
        let mut batches = EndToEnd::default();
        assert_eq!(batches.produced(0, 5, 100), None);
        assert_eq!(batches.produced(0, 5, 200), None);
    }
}
