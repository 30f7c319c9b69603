//! Where each leader epoch of a partition began, and the `leader-epoch-checkpoint` file.
//!
//! Semantics are `LeaderEpochFileCache`'s. The file is a convenience: every batch carries its epoch,
//! so the entries at and behind the recovery point come from the recovery scan, and a missing or
//! garbled file is rebuilt from the log. That is why it is written when a segment is sealed, and no
//! sooner.

use std::fmt::Write as _;

use super::checkpoint::{CheckpointError, checkpoint_lines};

/// "The client does not know", and "there is none".
pub const UNDEFINED_EPOCH: i32 = -1;
/// End offset of an epoch nobody knows.
pub const UNDEFINED_OFFSET: i64 = -1;

/// Start offsets of leader epochs, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<(i32, i64)>,
}

impl LeaderEpochs {
    /// Reads a file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut epochs = Self::default();
        for (line, text) in checkpoint_lines(bytes)? {
            let fail = |what| CheckpointError { line, what };
            let (epoch, start) = text.split_once(' ').ok_or(fail("not `epoch offset`"))?;
            let epoch: i32 = epoch
                .parse()
                .map_err(|_| fail("the epoch is not a number"))?;
            let start: i64 = start
                .parse()
                .map_err(|_| fail("the offset is not a number"))?;
            let last = epochs.entries.last();
            if epoch < 0 || start < 0 || last.is_some_and(|last| epoch <= last.0 || start < last.1)
            {
                return Err(fail("epochs and offsets must ascend"));
            }
            epochs.entries.push((epoch, start));
        }
        Ok(epochs)
    }

    /// The epochs with their start offsets, for a checkpoint.
    pub fn remember(&self) -> Vec<(i32, i64)> {
        self.entries.clone()
    }

    /// The reverse; `None` if they do not ascend.
    pub(crate) fn remembered(entries: &[(i32, i64)]) -> Option<Self> {
        let mut last = (-1, 0);
        for entry in entries {
            if entry.0 <= last.0 || entry.1 < last.1 {
                return None;
            }
            last = *entry;
        }
        Some(Self {
            entries: entries.to_vec(),
        })
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            let _ = writeln!(text, "{epoch} {start}");
        }
        text.into_bytes()
    }

    /// The epoch `epoch` begins at `start_offset`. Ignored unless newer than the last; entries that
    /// begin at or behind the new one held no record and vanish. Says whether anything changed.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|latest| epoch <= latest) {
            return false;
        }
        self.truncate_from_end(start_offset);
        self.entries.push((epoch, start_offset));
        true
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.0)
    }

    /// The epoch that `offset` belongs to.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let at = self.entries.partition_point(|entry| entry.1 <= offset);
        at.checked_sub(1)
            .and_then(|at| self.entries.get(at))
            .map(|entry| entry.0)
    }

    /// Epoch and end offset for a client that knows `requested`
    /// (`LeaderEpochFileCache#endOffsetFor`): the largest known epoch not above it and the start of
    /// the next one.
    pub fn end_offset_for(&self, requested: i32, log_end: i64) -> (i32, i64) {
        if requested == UNDEFINED_EPOCH {
            return (UNDEFINED_EPOCH, UNDEFINED_OFFSET);
        }
        if self.latest() == Some(requested) {
            return (requested, log_end);
        }
        let above = self.entries.partition_point(|entry| entry.0 <= requested);
        match (
            above.checked_sub(1).and_then(|at| self.entries.get(at)),
            self.entries.get(above),
        ) {
            (_, None) => (UNDEFINED_EPOCH, UNDEFINED_OFFSET),
            (None, Some(higher)) => (requested, higher.1),
            (Some(floor), Some(higher)) => (floor.0, higher.1),
        }
    }

    /// Forgets epochs that begin at or behind `end_offset`. Says whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let keep = self.entries.partition_point(|entry| entry.1 < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// Forgets epochs that end before `start_offset`; the one it falls into begins there now.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let above = self
            .entries
            .partition_point(|entry| entry.1 <= start_offset);
        let Some(floor) = above.checked_sub(1) else {
            return false;
        };
        self.entries.drain(..floor);
        match self.entries.first_mut() {
            Some(first) if first.1 < start_offset => {
                first.1 = start_offset;
                true
            }
            _ => floor > 0,
        }
    }

    /// Whether no epoch is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs {
            entries: entries.to_vec(),
        }
    }

    #[test]
    fn end_offsets_are_those_of_kafkas_cache() {
        let known = epochs(&[(2, 10), (4, 20), (7, 35)]);
        for (requested, expected) in [
            (-1, (-1, -1)),
            (0, (0, 10)),
            (1, (1, 10)),
            (2, (2, 20)),
            (3, (2, 20)),
            (4, (4, 35)),
            (6, (4, 35)),
            (7, (7, 50)),
            (8, (-1, -1)),
        ] {
            assert_eq!(known.end_offset_for(requested, 50), expected, "{requested}");
        }
        assert_eq!(epochs(&[]).end_offset_for(0, 50), (-1, -1));
    }

    #[test]
    fn empty_epochs_vanish_when_a_newer_one_begins_at_the_same_offset() {
        let mut known = LeaderEpochs::default();
        assert!(known.assign(0, 0));
        assert!(known.assign(1, 0));
        assert!(!known.assign(1, 5));
        assert!(!known.assign(0, 5));
        assert!(known.assign(3, 9));
        assert!(known.assign(4, 9));
        assert_eq!(known, epochs(&[(1, 0), (4, 9)]));
        assert_eq!(known.epoch_of(8), Some(1));
        assert_eq!(known.epoch_of(9), Some(4));
    }

    #[test]
    fn truncation_keeps_the_epoch_of_what_is_left() {
        let mut known = epochs(&[(2, 10), (4, 20), (7, 35)]);
        assert!(known.truncate_from_start(25));
        assert_eq!(known, epochs(&[(4, 25), (7, 35)]));
        assert!(!known.truncate_from_start(25));
        assert!(known.truncate_from_end(35));
        assert_eq!(known, epochs(&[(4, 25)]));
        assert_eq!(epochs(&[(2, 10)]).epoch_of(9), None);
    }

    #[test]
    fn the_file_is_kafkas_text() {
        let text = b"0\n2\n0 0\n3 15\n";
        let known = LeaderEpochs::parse(text).expect("valid");
        assert_eq!(known, epochs(&[(0, 0), (3, 15)]));
        assert_eq!(known.to_bytes(), text);
        for garbled in [
            &b"0\n1\n5\n"[..],
            b"0\n2\n3 0\n3 1\n",
            b"0\n2\n3 9\n4 1\n",
            b"0\n1\n-2 0\n",
        ] {
            assert!(LeaderEpochs::parse(garbled).is_err());
        }
    }
}
