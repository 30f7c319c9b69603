//! What the rings of a process that ended hold: found, checked, handed to the partitions, dropped.
//!
//! Runs at start on the designated shard, before anything is served. Believes nothing that was
//! stored in another boot or that a checksum does not vouch for, and says what it passes over. A
//! ring is removed only when all its batches are in their logs, on stable storage: an end on the way
//! changes nothing, and the next start does the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chronik_io::{DirEntry, World};
use chronik_protocol::record::{Scan, scan};
use chronik_terms::PartitionId;

use super::entry::{
    DATA_BYTES_MAX, DATA_START, ENTRY_HEADER_BYTES, EntryHeader, FileHeader, TAIL_WORD, Tail,
    entry_bytes,
};
use super::{NAME_END, NAME_START};

/// Bytes of batches checked before other tasks get their turn.
const SLICE_BYTES: usize = 256 << 10;
/// Partitions named in one line of the log.
const NAMED_MAX: usize = 8;

/// See the module's text.
#[derive(Debug, Default)]
pub struct LeftBehind {
    files: Vec<(PathBuf, BTreeSet<PartitionId>)>,
    /// Whole batches with their offsets, ascending.
    batches: BTreeMap<PartitionId, Vec<(i64, Bytes)>>,
}

impl LeftBehind {
    /// Reads every ring in the data directory.
    ///
    /// # Errors
    /// When the directory or a ring cannot be read.
    pub async fn find<W: World>(
        world: &W,
        data: &Path,
        entries: &[DirEntry],
    ) -> io::Result<LeftBehind> {
        let mut found = LeftBehind::default();
        let paths = rings(data, entries);
        if paths.is_empty() {
            return Ok(found);
        }
        let boot_id = world.boot_id().await?;
        for path in paths {
            let file = world.read_file(&path, DATA_START + DATA_BYTES_MAX).await?;
            let mut partitions = BTreeMap::new();
            let same_boot = FileHeader::parse(&file).is_some_and(|ring| ring.boot_id == boot_id);
            let mut walk = Walk::new(file);
            let mut slice = 0;
            while let Some((partition, base_offset, batch)) = walk.next() {
                *partitions.entry(partition).or_insert(0usize) += 1;
                slice += batch.len();
                if same_boot {
                    // Out of the whole ring's memory.
                    let batch = Bytes::copy_from_slice(&batch);
                    let batches = found.batches.entry(partition).or_default();
                    batches.push((base_offset, batch));
                }
                if slice > SLICE_BYTES {
                    slice = 0;
                    world.pause().await;
                }
            }
            if !same_boot && !partitions.is_empty() {
                passed_over(
                    &path,
                    &partitions,
                    "it was written before the machine started",
                );
            }
            found.files.push((path, partitions.into_keys().collect()));
        }
        for batches in found.batches.values_mut() {
            batches.sort_by_key(|(base_offset, _)| *base_offset);
        }
        Ok(found)
    }

    /// Passes over what belongs to partitions that are gone.
    pub fn retain_known(&mut self, known: impl Fn(PartitionId) -> bool) {
        self.batches.retain(|partition, batches| {
            let known = known(*partition);
            if !known {
                let (topic, index) = (partition.topic_id, partition.index);
                let count = batches.len();
                tracing::info!(%topic, partition = index, count, "batches written behind for a deleted topic are dropped");
            }
            known
        });
    }

    /// The batches of one partition, ascending.
    pub fn of(&self, partition: PartitionId) -> Vec<Bytes> {
        let batches = self.batches.get(&partition).map_or(&[][..], Vec::as_slice);
        batches.iter().map(|(_, batch)| batch.clone()).collect()
    }

    /// Removes the rings, but those that hold batches of partitions that could not take them.
    ///
    /// # Errors
    /// When the directory does not let go of one.
    pub async fn remove<W: World>(
        &self,
        world: &W,
        failed: &BTreeSet<PartitionId>,
    ) -> io::Result<()> {
        for (path, partitions) in &self.files {
            if partitions.is_disjoint(failed) {
                world.remove_file(path).await?;
            } else {
                tracing::warn!(ring = %path.display(), "kept for partitions that are offline");
            }
        }
        Ok(())
    }
}

/// Removes every ring of a data directory whose logs were all closed.
///
/// # Errors
/// When the directory does not let go of one.
pub async fn remove_all<W: World>(world: &W, data: &Path) -> io::Result<()> {
    for path in rings(data, &world.list_dir(data).await?) {
        world.remove_file(&path).await?;
    }
    Ok(())
}

fn rings(data: &Path, entries: &[DirEntry]) -> Vec<PathBuf> {
    let ours = entries.iter().filter(|entry| {
        let name = entry.name.to_str().unwrap_or_default();
        !entry.is_dir && name.starts_with(NAME_START) && name.ends_with(NAME_END)
    });
    ours.map(|entry| data.join(&entry.name)).collect()
}

fn passed_over(path: &Path, partitions: &BTreeMap<PartitionId, usize>, why: &str) {
    let batches: usize = partitions.values().sum();
    let named: Vec<String> = partitions
        .iter()
        .take(NAMED_MAX)
        .map(|(id, count)| format!("{}-{}: {count}", id.topic_id, id.index))
        .collect();
    tracing::warn!(
        ring = %path.display(), batches, partitions = partitions.len(), first = named.join(", "), why,
        "batches written behind are dropped; what the logs hold stays"
    );
}

/// A walk over a ring's live entries.
pub(super) struct Walk {
    data: Bytes,
    incarnation: u64,
    at: usize,
    expected: Tail,
    /// What may still come: a ring holds no more than one lap.
    left: usize,
}

impl Walk {
    /// Over a whole file; one that is no ring has no entries.
    pub(super) fn new(file: Bytes) -> Walk {
        let nothing = Walk {
            data: Bytes::new(),
            incarnation: 0,
            at: 0,
            expected: Tail { at: 0, sequence: 0 },
            left: 0,
        };
        let Some(header) = FileHeader::parse(&file) else {
            return nothing;
        };
        let tail = file.get(TAIL_WORD..TAIL_WORD + size_of::<u64>());
        let tail = tail.and_then(|word| word.try_into().ok());
        let end = usize::try_from(header.data_bytes).ok();
        let end = end.and_then(|bytes| bytes.checked_add(DATA_START));
        let (Some(tail), Some(end)) = (tail, end.filter(|end| *end <= file.len())) else {
            return nothing;
        };
        let expected = Tail::from_word(u64::from_le_bytes(tail));
        let data = file.slice(DATA_START..end);
        Walk {
            incarnation: header.incarnation,
            at: expected.at,
            expected,
            left: data.len(),
            data,
        }
    }

    /// The next entry's partition, base offset and batch.
    pub(super) fn next(&mut self) -> Option<(PartitionId, i64, Bytes)> {
        loop {
            if self.at == self.data.len() {
                self.at = 0;
            }
            let entry = EntryHeader::parse(self.data.get(self.at..)?)?;
            if entry.incarnation != self.incarnation || !self.expected.is(entry.sequence) {
                return None;
            }
            let next = entry.sequence.checked_add(1)?;
            // Only the low bits are in the file's tail.
            self.expected = Tail::from_word(
                Tail {
                    at: 0,
                    sequence: next,
                }
                .to_word(),
            );
            let Some(length) = entry.batch_bytes else {
                self.left = self.left.checked_sub(self.data.len() - self.at)?;
                self.at = 0;
                continue;
            };
            let length = usize::try_from(length).ok()?;
            let start = self.at + ENTRY_HEADER_BYTES;
            let end = start.checked_add(length)?;
            if end > self.data.len() {
                return None;
            }
            let size = entry_bytes(length);
            self.left = self.left.checked_sub(size)?;
            let batch = self.data.slice(start..end);
            let Scan::Complete(header) = scan(&batch) else {
                return None;
            };
            if header.size_bytes() != length {
                return None;
            }
            self.at += size;
            return Some((entry.partition, header.base_offset, batch));
        }
    }
}
