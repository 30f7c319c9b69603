//! The headers of batches that follow one another, in parts that may be cut anywhere.
//!
//! Goes from header to header; never reads a record, copies no more than a header.

use bytes::Bytes;

use super::{BATCH_HEADER_BYTES, BatchHeader};
use crate::Records;

/// The iterator of [`Records::batch_headers`].
pub struct BatchHeaders<'a> {
    parts: std::slice::Iter<'a, Bytes>,
    rest: &'a [u8],
    /// Bytes to pass over: the rest of the batch whose header was given last.
    skip: usize,
}

impl Records {
    /// The headers of consecutive batches, unchecked but for the header itself. Ends before bytes that are no batch
    /// of magic 2, and before an incomplete header.
    pub fn batch_headers(&self) -> BatchHeaders<'_> {
        BatchHeaders {
            parts: self.parts().iter(),
            rest: &[],
            skip: 0,
        }
    }
}

impl BatchHeaders<'_> {
    /// Moves on to a part with bytes left; false at the end.
    fn fill(&mut self) -> bool {
        while self.rest.is_empty() {
            let Some(part) = self.parts.next() else {
                return false;
            };
            self.rest = part;
        }
        true
    }

    /// Cuts off at most `count` bytes of the current part.
    fn cut(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

impl Iterator for BatchHeaders<'_> {
    type Item = BatchHeader;

    fn next(&mut self) -> Option<BatchHeader> {
        while self.skip > 0 {
            if !self.fill() {
                return None;
            }
            self.skip -= self.cut(self.skip).len();
        }
        let mut bytes = [0_u8; BATCH_HEADER_BYTES];
        let mut room = &mut bytes[..];
        while !room.is_empty() {
            if !self.fill() {
                return None;
            }
            let taken = self.cut(room.len());
            let (filled, left) = room.split_at_mut(taken.len());
            filled.copy_from_slice(taken);
            room = left;
        }
        let header = BatchHeader::peek(&bytes).ok()?;
        self.skip = header.size_bytes().saturating_sub(BATCH_HEADER_BYTES);
        Some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, NewRecord};
    use super::*;

    #[test]
    fn every_header_is_found_wherever_the_parts_are_cut() {
        let batch = |base: i64, count: usize| {
            let mut builder = BatchBuilder::new(base);
            for _ in 0..count {
                let value = Some(&b"some value"[..]);
                let record = NewRecord {
                    value,
                    ..NewRecord::default()
                };
                builder.push(&record).expect("small");
            }
            builder.build().expect("small").bytes
        };
        let all = [&batch(5, 1)[..], &batch(6, 3), &batch(9, 2)].concat();
        for first in 0..all.len() {
            for second in [first, (first + 40).min(all.len())] {
                let parts = [&all[..first], &all[first..second], &all[second..]];
                let records: Records = parts.iter().map(|p| Bytes::copy_from_slice(p)).collect();
                let found: Vec<_> = records
                    .batch_headers()
                    .map(|header| (header.base_offset, header.next_offset()))
                    .collect();
                assert_eq!(found, [(5, 6), (6, 9), (9, 11)], "cut at {first}, {second}");
            }
        }
        assert_eq!(Records::default().batch_headers().count(), 0);
    }
}
