//! The ring: entries stored one behind the other into a mapped file, let go in the same order.
//!
//! Owned by a shard's write-behind. Bounded by its file: without room nothing is stored. Order of
//! stores: the batch, the header, and last the word with the CRC, so that an entry either is there
//! as a whole or is not believed; and what a lap before left there has another sequence number.
//! Stays at the front of its file while it holds little, for pages that are in use already cost
//! neither a fault nor memory. Never reads what it stored.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use chronik_io::Mapping;
use chronik_protocol::Uuid;
use chronik_protocol::record::BATCH_PREFIX_BYTES;
use chronik_terms::PartitionId;

use super::Kept;
use super::entry::{
    BATCH_FRONT_BYTES, DATA_BYTES_MAX, DATA_START, ENTRY_HEADER_BYTES, ENTRY_WORD, EntryHeader,
    FileHeader, TAIL_WORD, Tail, UNIT_BYTES, entry_bytes,
};

/// With this much free at the front, and twice of what is live, a lap ends early.
const EARLY_LAP_BYTES: usize = 256 << 10;
/// Bytes brought into memory at a time, ahead of the stores.
const PREPARED_BYTES: usize = 128 << 10;

/// How far a partition's segments are written: an offset. Its batches leave the ring when it has
/// passed them.
#[derive(Clone, Debug)]
pub struct WrittenMark(Rc<Cell<i64>>);

impl WrittenMark {
    /// A mark at an offset.
    pub(crate) fn new(offset: i64) -> Self {
        WrittenMark(Rc::new(Cell::new(offset)))
    }

    /// Moves it.
    pub(crate) fn set(&self, offset: i64) {
        self.0.set(offset);
    }

    /// The partition is deleted: nobody needs its batches.
    pub(crate) fn forgo(&self) {
        self.0.set(i64::MAX);
    }
}

/// An entry that may still be needed.
struct Live {
    at: usize,
    sequence: u64,
    next_offset: i64,
    written: WrittenMark,
}

/// See the module's text.
pub struct Ring<M> {
    mapping: M,
    incarnation: u64,
    data_bytes: usize,
    /// Where the next entry goes, from the data's start.
    head: usize,
    /// The next entry's number.
    sequence: u64,
    /// Oldest first.
    live: VecDeque<Live>,
    /// Stores below this place have been prepared in this lap.
    prepared: usize,
}

impl<M: Mapping> Ring<M> {
    /// An empty ring in a file of zeros.
    pub(crate) fn new(mut mapping: M, boot_id: u128, incarnation: u64) -> Self {
        let data_bytes = mapping.len().saturating_sub(DATA_START).min(DATA_BYTES_MAX);
        let data_bytes = data_bytes - data_bytes % UNIT_BYTES;
        let header = FileHeader {
            boot_id,
            incarnation,
            data_bytes: data_bytes as u64,
        };
        let tail = Tail { at: 0, sequence: 1 };
        mapping.store(TAIL_WORD, &tail.to_word().to_le_bytes());
        mapping.store(0, &header.to_bytes());
        Ring {
            mapping,
            incarnation,
            data_bytes,
            head: 0,
            sequence: tail.sequence,
            live: VecDeque::new(),
            prepared: 0,
        }
    }

    /// Stores a batch, or says that there is no room for it now.
    ///
    /// # Errors
    /// When the file's memory has failed; nothing was stored, and nothing may be any more.
    pub(crate) fn push(&mut self, batch: &Kept<'_>) -> io::Result<bool> {
        let batch_bytes = BATCH_PREFIX_BYTES + batch.body.len();
        let size = entry_bytes(batch_bytes);
        // One batch must not hold up everybody's.
        let (Ok(length), true) = (u32::try_from(batch_bytes), size <= self.data_bytes / 4) else {
            return Ok(false);
        };
        let Some(at) = self.place(size) else {
            return Ok(false);
        };
        self.prepare(at, size)?;
        self.go_to(at);
        let header = EntryHeader {
            batch_bytes: Some(length),
            incarnation: self.incarnation,
            sequence: self.sequence,
            partition: batch.partition,
        };
        let mut front = [0; BATCH_FRONT_BYTES];
        let (prefix, rest) = front.split_at_mut(BATCH_PREFIX_BYTES);
        prefix.copy_from_slice(batch.prefix);
        rest.copy_from_slice(&batch.body[..BATCH_FRONT_BYTES - BATCH_PREFIX_BYTES]);
        let body_at = at + ENTRY_HEADER_BYTES + BATCH_PREFIX_BYTES;
        self.store(body_at, batch.body);
        self.store(at + ENTRY_HEADER_BYTES, batch.prefix);
        self.seal(at, &header.to_bytes(&front));
        self.live.push_back(Live {
            at,
            sequence: self.sequence,
            next_offset: batch.next_offset,
            written: batch.written.clone(),
        });
        self.sequence += 1;
        self.head = at + size;
        Ok(true)
    }

    /// Where an entry of `size` goes.
    fn place(&self, size: usize) -> Option<usize> {
        let Some(oldest) = self.live.front() else {
            return Some(0);
        };
        let tail = oldest.at;
        if self.head <= tail {
            // The head must not catch up with the tail: a full ring would look like an empty one.
            return (self.head + size < tail).then_some(self.head);
        }
        let live = self.head - tail;
        let fits = self.head + size <= self.data_bytes;
        let early = tail >= EARLY_LAP_BYTES.max(2 * live);
        let front = size < tail;
        match (fits, early && front) {
            (true, false) => Some(self.head),
            (_, true) => Some(0),
            (false, false) => front.then_some(0),
        }
    }

    fn prepare(&mut self, at: usize, size: usize) -> io::Result<()> {
        if at < self.head {
            self.prepared = 0;
        }
        // What ends a lap behind the entry included.
        let end = (at + size + UNIT_BYTES).min(self.data_bytes);
        if end > self.prepared {
            let from = self.prepared.max(at);
            let to = (end + PREPARED_BYTES).min(self.data_bytes);
            self.mapping.prepare(DATA_START + from, to - from)?;
            self.prepared = to;
        }
        Ok(())
    }

    /// Makes readers find the next entry at `at`.
    fn go_to(&mut self, at: usize) {
        if at == self.head {
            return;
        }
        if self.live.is_empty() {
            self.publish_tail(at);
        } else if self.head < self.data_bytes {
            let header = EntryHeader {
                batch_bytes: None,
                incarnation: self.incarnation,
                sequence: self.sequence,
                partition: PartitionId {
                    topic_id: Uuid::ZERO,
                    index: 0,
                },
            };
            self.seal(self.head, &header.to_bytes(&[]));
            self.sequence += 1;
        }
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        self.mapping.store(DATA_START + at, bytes);
    }

    /// Stores a header, the word with its CRC last.
    fn seal(&mut self, at: usize, header: &[u8; ENTRY_HEADER_BYTES]) {
        let (rest, word) = header.split_at(ENTRY_WORD);
        self.store(at, rest);
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        self.mapping.publish(DATA_START + at + ENTRY_WORD, word);
    }

    /// Lets go, from the oldest on, what is written by now.
    pub(crate) fn release(&mut self) {
        let before = self.live.len();
        while let Some(oldest) = self.live.front()
            && oldest.next_offset <= oldest.written.0.get()
        {
            self.live.pop_front();
        }
        if self.live.len() < before {
            self.publish_tail(self.head);
        }
    }

    /// Says where the oldest entry is; without one, that the next comes at `next`.
    fn publish_tail(&mut self, next: usize) {
        let tail = match self.live.front() {
            Some(oldest) => Tail {
                at: oldest.at,
                sequence: oldest.sequence,
            },
            None => Tail {
                // The end of the data is its start: no entry can begin there.
                at: next % self.data_bytes,
                sequence: self.sequence,
            },
        };
        self.mapping.publish(TAIL_WORD, tail.to_word());
    }

    /// Entries that may still be needed.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }
}
