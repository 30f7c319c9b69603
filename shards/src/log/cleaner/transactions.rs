//! Which batches belong to aborted transactions, while a log is read from front to back; and the
//! `.txnindex` file that says so.
//!
//! Owned by one round of cleaning. The rules are `CleanedTransactionMetadata`'s, the bytes
//! `TransactionIndex`'s and `AbortedTxn`'s. Does no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_protocol::record::{BatchHeader, ControlType};

/// Bytes of one entry of a `.txnindex`.
const ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) last_stable_offset: i64,
}

impl Aborted {
    /// The whole entries of a `.txnindex`, as far as they are of a known version.
    pub(crate) fn parse_all(bytes: &[u8]) -> Vec<Aborted> {
        let mut found = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            let field = |at: usize| {
                let bytes = entry
                    .get(at..at + 8)
                    .and_then(|bytes| bytes.try_into().ok());
                bytes.map(i64::from_be_bytes)
            };
            let version = entry
                .first_chunk::<2>()
                .map(|bytes| i16::from_be_bytes(*bytes));
            let (Some(VERSION), Some(producer_id)) = (version, field(2)) else {
                break;
            };
            let (Some(first_offset), Some(last_offset), Some(last_stable_offset)) =
                (field(10), field(18), field(26))
            else {
                break;
            };
            found.push(Aborted {
                producer_id,
                first_offset,
                last_offset,
                last_stable_offset,
            });
        }
        found
    }

    /// Adds the entry to a file's bytes.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        for field in [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
    }
}

/// An aborted transaction whose marker has not been read yet.
struct Ongoing {
    transaction: Aborted,
    /// Some batch of it is still in the log.
    seen: bool,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Transactions {
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
    pub(crate) fn take_kept(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.kept.len() * ENTRY_BYTES);
        for transaction in self.kept.drain(..) {
            transaction.write(&mut bytes);
        }
        bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_kafkas_bytes() {
        let one = Aborted {
            producer_id: 7,
            first_offset: 10,
            last_offset: 20,
            last_stable_offset: 15,
        };
        let mut bytes = Vec::new();
        one.write(&mut bytes);
        let expected = [
            &[0, 0][..],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0, 0, 10],
            &[0, 0, 0, 0, 0, 0, 0, 20],
            &[0, 0, 0, 0, 0, 0, 0, 15],
        ];
        assert_eq!(bytes, expected.concat());
        bytes.extend_from_slice(&[0; 33]);
        assert_eq!(Aborted::parse_all(&bytes), [one]);
    }
}
