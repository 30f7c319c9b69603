//! One simulated file: its visible content, its durable content, and every version in between.
//!
//! Owns the sectors of one file and decides, by the seed, which unsynced ones survive a power cut: each 512-byte
//! sector on its own, so that a cut also tears a single write. Never knows the file's name.

use super::random::Random;
use std::collections::BTreeMap;
use std::ops::Range;

/// The unit a disk writes atomically; a power cut never tears it.
pub(super) const SECTOR_BYTES: usize = 512;

/// Kept versions of a mapped sector, from which a power cut chooses one.
const STORED_VERSIONS_MAX: usize = 8;

type Sector = [u8; SECTOR_BYTES];

/// A moment in the order of changes to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// A file without its name.
#[derive(Clone, Default)]
pub(super) struct Inode {
    /// The visible content.
    current: Vec<u8>,
    /// The content certain to be on the medium, whatever the length.
    durable: Vec<u8>,
    durable_len: u64,
    /// Later versions by sector, oldest first; the last is the current one.
    unsynced: BTreeMap<u64, Vec<(u64, Sector)>>,
    /// Later lengths, oldest first.
    unsynced_lens: Vec<(u64, u64)>,
    changes: u64,
    /// Unwritten range between the old end and a write after it.
    hole: Range<u64>,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    /// Bytes in use, in blocks of `block_bytes`.
    pub(super) fn used_bytes(&self, block_bytes: u64) -> u64 {
        self.len().next_multiple_of(block_bytes) - self.hole_bytes(block_bytes)
    }

    fn hole_bytes(&self, block_bytes: u64) -> u64 {
        let first = self.hole.start.next_multiple_of(block_bytes);
        self.hole.end.saturating_sub(first)
    }

    /// Bytes that a write of this range allocates.
    pub(super) fn growth_bytes(&self, range: Range<u64>, block_bytes: u64) -> u64 {
        let held = self.len().next_multiple_of(block_bytes);
        let end = range.end.next_multiple_of(block_bytes);
        let filled = match range.start < self.hole.end {
            true => self.hole_bytes(block_bytes),
            false => 0,
        };
        end.saturating_sub(held.max(range.start)) + filled
    }

    /// Another value after every change.
    pub(super) fn modified_ns(&self) -> i64 {
        i64::try_from(self.changes).unwrap_or(i64::MAX)
    }

    /// Changes the content on the medium without a trace.
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.current);
        self.durable.clone_from(&self.current);
        self.durable_len = self.current.len() as u64;
        self.unsynced.clear();
        self.unsynced_lens.clear();
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.changes)
    }

    /// Up to `len` bytes at `position`, clamped to the file.
    pub(super) fn read(&self, position: u64, len: usize) -> &[u8] {
        let start = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(self.current.len());
        let end = start.saturating_add(len).min(self.current.len());
        &self.current[start..end]
    }

    /// A completed write of whole sectors.
    pub(super) fn write(&mut self, position: u64, data: &[u8]) {
        assert!(
            position.is_multiple_of(SECTOR_BYTES as u64) && data.len().is_multiple_of(SECTOR_BYTES)
        );
        self.changes += 1;
        let start = usize::try_from(position).expect("simulated files are small");
        let end = start + data.len();
        if position > self.len() {
            self.hole = self.len()..position;
        } else if position < self.hole.end {
            self.hole = 0..0;
        }
        if end > self.current.len() {
            set_len(&mut self.current, end);
            self.unsynced_lens.push((self.changes, end as u64));
        }
        self.current[start..end].copy_from_slice(data);
        for (index, sector) in data.chunks_exact(SECTOR_BYTES).enumerate() {
            let number = position / SECTOR_BYTES as u64 + index as u64;
            let sector = Sector::try_from(sector).expect("a chunk of that size");
            self.unsynced
                .entry(number)
                .or_default()
                .push((self.changes, sector));
        }
    }

    /// Stores into the mapped file, which the kernel writes back sector by sector, when it likes.
    pub(super) fn store(&mut self, at: usize, data: &[u8]) {
        self.current[at..at + data.len()].copy_from_slice(data);
        self.changes += 1;
        for number in at / SECTOR_BYTES..(at + data.len()).div_ceil(SECTOR_BYTES) {
            let mut sector = [0; SECTOR_BYTES];
            let start = number * SECTOR_BYTES;
            let held = &self.current[start..self.current.len().min(start + SECTOR_BYTES)];
            sector[..held.len()].copy_from_slice(held);
            let versions = self.unsynced.entry(number as u64).or_default();
            if versions.len() == STORED_VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push((self.changes, sector));
        }
    }

    /// Makes every change up to `moment` durable.
    pub(super) fn sync(&mut self, moment: Moment) {
        self.settle(moment, 0..u64::MAX, |_| true);
    }

    /// Makes every change so far in `[position, position + len)` durable, and the length: the effect of a write of
    /// that range to a file opened with `O_DSYNC`.
    pub(super) fn sync_range(&mut self, position: u64, len: u64) {
        let first = position / SECTOR_BYTES as u64;
        let end = (position + len).div_ceil(SECTOR_BYTES as u64);
        self.settle(self.now(), first..end, |_| true);
    }

    /// Fails a sync: each sector up to `moment` may have reached the medium or not, and the kernel takes all of them
    /// for clean, so that no later sync writes them.
    pub(super) fn lose(&mut self, moment: Moment, random: &mut Random) {
        self.settle(moment, 0..u64::MAX, |_| random.chance(500_000));
    }

    /// Removes the changes up to `moment` from the unsynced ones; `reaches` decides whether a sector (or, for `None`,
    /// the length) gets to the medium.
    fn settle(
        &mut self,
        moment: Moment,
        sectors: Range<u64>,
        mut reaches: impl FnMut(Option<u64>) -> bool,
    ) {
        let Moment(until) = moment;
        for (number, versions) in self.unsynced.range_mut(sectors) {
            let count = versions
                .iter()
                .take_while(|(change, _)| *change <= until)
                .count();
            if let Some((_, sector)) = versions.drain(..count).next_back()
                && reaches(Some(*number))
            {
                put(&mut self.durable, *number, &sector);
            }
        }
        self.unsynced.retain(|_, versions| !versions.is_empty());
        let count = self
            .unsynced_lens
            .iter()
            .take_while(|(change, _)| *change <= until)
            .count();
        if let Some((_, len)) = self.unsynced_lens.drain(..count).next_back()
            && reaches(None)
        {
            self.durable_len = len;
        }
    }

    /// Cuts or extends with zeros; durable, with all pending changes.
    pub(super) fn set_len(&mut self, len: u64) {
        self.changes += 1;
        let bytes = usize::try_from(len).expect("simulated files are small");
        if len <= self.hole.end {
            self.hole = 0..0;
        }
        set_len(&mut self.current, bytes);
        self.durable.clone_from(&self.current);
        self.durable_len = len;
        self.unsynced.clear();
        self.unsynced_lens.clear();
    }

    /// Extends with zeros, not durably, with allocated blocks.
    pub(super) fn grow(&mut self, len: u64) {
        let bytes = usize::try_from(len).expect("simulated files are small");
        if bytes > self.current.len() {
            self.changes += 1;
            set_len(&mut self.current, bytes);
            self.unsynced_lens.push((self.changes, len));
        }
    }

    /// Cuts, not durably: a power cut may leave any earlier length.
    pub(super) fn cut_unsynced(&mut self, len: u64) {
        self.changes += 1;
        self.current
            .truncate(usize::try_from(len).expect("simulated files are small"));
        self.unsynced_lens.push((self.changes, len));
    }

    /// The file after a power cut: each unsynced sector, and the length, in any of its versions.
    pub(super) fn after_power_cut(mut self, random: &mut Random) -> Inode {
        let lost = !self.unsynced.is_empty() || !self.unsynced_lens.is_empty();
        let changes = self.changes + u64::from(lost);
        for (number, versions) in std::mem::take(&mut self.unsynced) {
            let pick = random.index(versions.len() + 1);
            if let Some((_, sector)) = pick.checked_sub(1).and_then(|at| versions.get(at)) {
                put(&mut self.durable, number, sector);
            }
        }
        let pick = random.index(self.unsynced_lens.len() + 1);
        let picked = pick
            .checked_sub(1)
            .and_then(|at| self.unsynced_lens.get(at));
        let len = picked.map_or(self.durable_len, |(_, len)| *len);
        set_len(&mut self.durable, len as usize);
        Inode {
            current: self.durable.clone(),
            durable: self.durable,
            durable_len: len,
            changes,
            ..Inode::default()
        }
    }
}

fn put(medium: &mut Vec<u8>, number: u64, sector: &Sector) {
    let start = number as usize * SECTOR_BYTES;
    if medium.len() < start + SECTOR_BYTES {
        set_len(medium, start + SECTOR_BYTES);
    }
    medium[start..start + SECTOR_BYTES].copy_from_slice(sector);
}

/// `Vec::resize` with zeros, whose loop is slow in debug builds.
fn set_len(bytes: &mut Vec<u8>, len: usize) {
    match len.checked_sub(bytes.len()) {
        Some(more) => bytes.append(&mut vec![0; more]),
        None => bytes.truncate(len),
    }
}
