//! Which batches belong to aborted transactions, while a log is read from front to back.
//!
//! Owned by one round of cleaning. The rules are `CleanedTransactionMetadata`'s. Does no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_protocol::record::{BatchHeader, ControlType};

use crate::aborted::Aborted;

/// An aborted transaction whose marker has not been read yet.
struct Ongoing {
    transaction: Aborted,
    /// Some batch of it is still in the log.
    seen: bool,
}

/// See the module's text.
#[derive(Default)]
pub struct Transactions {
    /// By first offset.
    aborted: VecDeque<Aborted>,
    ongoing_aborted: BTreeMap<i64, Ongoing>,
    ongoing_committed: BTreeSet<i64>,
    /// What the index of the segment being written has to hold.
    kept: Vec<Aborted>,
}

impl Transactions {
    /// Before the first batch is read.
    pub(crate) fn new(mut aborted: Vec<Aborted>) -> Self {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        Self {
            aborted: aborted.into(),
            ..Self::default()
        }
    }

    /// Takes note of a batch of data; says whether its transaction was aborted.
    pub(crate) fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.ongoing_aborted.get_mut(&header.producer_id) {
            Some(ongoing) => {
                ongoing.seen = true;
                true
            }
            None => {
                self.ongoing_committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Takes note of a marker; says whether nothing is left of its transaction.
    pub(crate) fn ends_nothing(&mut self, header: &BatchHeader, control: ControlType) -> bool {
        self.begin_up_to(header.last_offset());
        let producer_id = header.producer_id;
        match control {
            ControlType::Abort => match self.ongoing_aborted.remove(&producer_id) {
                Some(Ongoing {
                    transaction,
                    seen: true,
                }) => {
                    self.kept.push(transaction);
                    false
                }
                _ => true,
            },
            ControlType::Commit => !self.ongoing_committed.remove(&producer_id),
            _ => false,
        }
    }

    /// What belongs into the index of the segment written so far.
    pub(crate) fn take_kept(&mut self) -> Vec<Aborted> {
        std::mem::take(&mut self.kept)
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(transaction) = self.aborted.front().copied()
            && transaction.first_offset <= offset
        {
            self.aborted.pop_front();
            let producer_id = transaction.producer_id;
            let ongoing = Ongoing {
                transaction,
                seen: false,
            };
            self.ongoing_aborted.entry(producer_id).or_insert(ongoing);
        }
    }
}
