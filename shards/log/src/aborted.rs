//! The aborted transactions of a log, as `.txnindex` files beside its segments tell them.
//!
//! Owns the bytes of the files (`TransactionIndex`, `AbortedTxn`) and what readers of committed
//! records are told. An entry stands beside the segment that holds its transaction's marker, and goes
//! with it. Transactions are few where there are any, so all of a log's are in memory.

use std::path::Path;

use chronik_io::World;

use super::LogError;
use super::checkpoint::read_if_present;
use super::directory::{FileKind, segment_path};
use crate::limits::SIDE_FILE_BYTES_MAX;

/// Bytes of one entry of a `.txnindex`.
pub(crate) const ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Its marker's.
    pub(crate) last_offset: i64,
    /// Behind the marker.
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

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct AbortedTransactions {
    /// By last offset.
    entries: Vec<Aborted>,
}

impl AbortedTransactions {
    /// Reads the indexes of these segments of a log that ends at `log_end`.
    ///
    /// # Errors
    /// When a file cannot be read: records that were aborted must not pass for committed.
    pub(crate) async fn read<W: World>(
        world: &W,
        dir: &Path,
        segments: &[i64],
        log_end: i64,
    ) -> Result<Self, LogError> {
        let mut entries = Vec::new();
        for base_offset in segments {
            let path = segment_path(dir, *base_offset, FileKind::TransactionIndex);
            let bytes = read_if_present(world, &path, SIDE_FILE_BYTES_MAX).await;
            if let Some(bytes) = bytes.map_err(LogError::io("reading", &path))? {
                let found = Aborted::parse_all(&bytes).into_iter();
                entries.extend(found.filter(|entry| entry.last_offset < log_end));
            }
        }
        entries.sort_by_key(|entry: &Aborted| entry.last_offset);
        Ok(Self { entries })
    }

    /// Whether there is one whose marker lies at or behind this offset.
    pub fn any_from(&self, offset: i64) -> bool {
        self.entries
            .last()
            .is_some_and(|entry| entry.last_offset >= offset)
    }

    /// Producer ids and first offsets of those that a reader of these offsets has to know, up to the
    /// first behind which there can be none (`LogSegment#collectAbortedTxns`).
    pub fn within(&self, offsets: std::ops::Range<i64>) -> Vec<(i64, i64)> {
        let first = self
            .entries
            .partition_point(|entry| entry.last_offset < offsets.start);
        let mut found = Vec::new();
        for entry in self.entries.get(first..).unwrap_or_default() {
            if entry.first_offset < offsets.end {
                found.push((entry.producer_id, entry.first_offset));
            }
            if entry.last_stable_offset >= offsets.end {
                break;
            }
        }
        found
    }

    /// A compaction has left these of the entries with markers at these offsets.
    pub fn replace(&mut self, offsets: std::ops::Range<i64>, kept: &[Aborted]) {
        let from = self
            .entries
            .partition_point(|entry| entry.last_offset < offsets.start);
        let to = self
            .entries
            .partition_point(|entry| entry.last_offset < offsets.end);
        self.entries
            .splice(from..to.max(from), kept.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(producer_id: i64, first_offset: i64, last_offset: i64, stable: i64) -> Aborted {
        Aborted {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: stable,
        }
    }

    #[test]
    fn the_index_is_kafkas_bytes() {
        let one = entry(7, 10, 20, 15);
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

    #[test]
    fn a_reader_learns_of_those_that_reach_into_what_it_reads() {
        let entries = vec![
            entry(1, 10, 20, 12),
            entry(2, 12, 30, 31),
            entry(1, 40, 50, 51),
        ];
        let mut aborted = AbortedTransactions { entries };
        assert_eq!(aborted.within(0..10), [] as [(i64, i64); 0]);
        assert_eq!(aborted.within(0..11), [(1, 10)]);
        assert_eq!(aborted.within(20..25), [(1, 10), (2, 12)]);
        assert_eq!(aborted.within(21..41), [(2, 12), (1, 40)]);
        assert!(aborted.any_from(50) && !aborted.any_from(51));
        aborted.replace(15..35, &[entry(2, 12, 30, 31)]);
        assert_eq!(aborted.within(0..100), [(2, 12), (1, 40)]);
        aborted.replace(0..60, &[]);
        assert!(!aborted.any_from(0));
    }
}
