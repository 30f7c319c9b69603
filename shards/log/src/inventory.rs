//! What lies in a partition's directory: segments, snapshots, and leftovers of unfinished changes.
//!
//! Runs on the shard that opens the partition. Finishes or undoes what a crash interrupted
//! (`LogLoader#load`), removes files that must not be revived, and never touches a name it does
//! not know.

use std::collections::BTreeSet;
use std::path::Path;

use chronik_io::{DirEntry, File, OpenMode, World};
use tracing::{info, warn};

use super::LogError;
use super::checkpoint::{PARTITION_METADATA_FILE, read_if_present};
use super::directory::{FileKind, Leftover, SegmentFile, leftover_path, segment_path};
use super::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::scan::{LogScan, ScanStep};
use crate::limits::SIDE_FILE_BYTES_MAX;
use crate::producer_state::ProducerStates;

/// A segment as the directory shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its name.
    pub base_offset: i64,
    pub(crate) log_bytes: u64,
    /// When its `.log` was changed last, ns since the epoch.
    pub modified_ns: i64,
    pub(crate) index_bytes: Option<u64>,
    pub(crate) time_index_bytes: Option<u64>,
}

impl SegmentEntry {
    /// Whether both index files are there and have a possible length. Their content is judged when
    /// it is used.
    pub(crate) fn has_sound_indexes(&self) -> bool {
        let whole = |bytes: Option<u64>, entry: usize| {
            bytes.is_some_and(|bytes| bytes.is_multiple_of(entry as u64))
        };
        whole(self.index_bytes, OFFSET_ENTRY_BYTES)
            && whole(self.time_index_bytes, TIME_ENTRY_BYTES)
    }
}

/// The directory's content.
#[derive(Debug, Default)]
pub struct Inventory {
    /// By base offset.
    pub(crate) segments: Vec<SegmentEntry>,
    snapshots: BTreeSet<i64>,
    /// Base offsets of segments beside which there is a `.txnindex`.
    pub(crate) transaction_indexes: Vec<i64>,
}

/// The directory as it was found, before anything in it is touched.
#[derive(Debug, Default)]
pub struct Listing {
    files: Vec<Listed>,
    /// Halves of atomic replacements that did not happen.
    unfinished: Vec<String>,
    /// It says which topic it belongs to.
    pub has_metadata: bool,
}

impl Listing {
    /// Lists the directory; `None` if there is none.
    pub async fn take<W: World>(world: &W, dir: &Path) -> Result<Option<Listing>, LogError> {
        match world.list_dir(dir).await {
            Ok(entries) => Ok(Some(Listing::of(entries))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("listing", dir)(error)),
        }
    }

    fn of(entries: Vec<DirEntry>) -> Listing {
        let mut listing = Listing::default();
        for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
            let Some(name) = entry.name.to_str() else {
                continue;
            };
            if name.ends_with(".tmp") {
                listing.unfinished.push(name.to_owned());
            } else if name == PARTITION_METADATA_FILE {
                listing.has_metadata = true;
            } else if let Some(file) = SegmentFile::parse(name) {
                listing.files.push(Listed {
                    name: name.to_owned(),
                    file,
                    bytes: entry.len,
                    modified_ns: entry.modified_ns,
                });
            }
        }
        listing
    }

    fn has_leftovers(&self) -> bool {
        self.files
            .iter()
            .any(|listed| listed.file.leftover.is_some())
    }

    /// The segments, if nothing was left half done.
    pub fn segments(&self) -> Option<Vec<SegmentEntry>> {
        (!self.has_leftovers()).then(|| Inventory::of(&self.files).segments)
    }
}

impl Inventory {
    /// What the directory holds after leftovers were dealt with.
    pub async fn settle<W: World>(
        world: &W,
        dir: &Path,
        mut listing: Listing,
    ) -> Result<Inventory, LogError> {
        for name in std::mem::take(&mut listing.unfinished) {
            remove(world, &dir.join(name)).await?;
        }
        if listing.has_leftovers() {
            settle_leftovers(world, dir, &listing.files).await?;
            listing = Listing::take(world, dir).await?.unwrap_or_default();
        }
        let inventory = Inventory::of(&listing.files);
        for listed in &listing.files {
            let SegmentFile { offset, kind, .. } = listed.file;
            let of_segment = !matches!(kind, FileKind::Log | FileKind::Snapshot);
            if of_segment && !inventory.has_segment(offset) {
                // `LogLoader#loadSegmentFiles`: an index without its log.
                remove(world, &segment_path(dir, offset, kind)).await?;
            }
        }
        Ok(inventory)
    }

    fn has_segment(&self, base_offset: i64) -> bool {
        self.segments
            .binary_search_by_key(&base_offset, |segment| segment.base_offset)
            .is_ok()
    }

    fn of(files: &[Listed]) -> Inventory {
        let mut inventory = Inventory::default();
        let length = |offset, kind| {
            let wanted = SegmentFile {
                offset,
                kind,
                leftover: None,
            };
            files
                .iter()
                .find(|listed| listed.file == wanted)
                .map(|listed| listed.bytes)
        };
        for listed in files {
            let offset = listed.file.offset;
            match listed.file.kind {
                FileKind::Log => inventory.segments.push(SegmentEntry {
                    base_offset: offset,
                    log_bytes: listed.bytes,
                    modified_ns: listed.modified_ns,
                    index_bytes: length(offset, FileKind::Index),
                    time_index_bytes: length(offset, FileKind::TimeIndex),
                }),
                FileKind::Snapshot => {
                    inventory.snapshots.insert(offset);
                }
                FileKind::TransactionIndex => inventory.transaction_indexes.push(offset),
                FileKind::Index | FileKind::TimeIndex => {}
            }
        }
        inventory
            .segments
            .sort_by_key(|segment| segment.base_offset);
        inventory
    }

    /// Whether there is a producer snapshot of everything below `offset`.
    pub(crate) fn has_snapshot(&self, offset: i64) -> bool {
        self.snapshots.contains(&offset)
    }

    /// A producer snapshot of everything below `offset` was written.
    pub(crate) fn note_snapshot(&mut self, offset: i64) {
        self.snapshots.insert(offset);
    }

    /// The newest readable producer snapshot at or below `offset_max`, and its offset.
    pub(crate) async fn newest_snapshot<W: World>(
        &self,
        world: &W,
        dir: &Path,
        offset_max: i64,
        now_ms: i64,
    ) -> Result<(ProducerStates, Option<i64>), LogError> {
        for offset in self.snapshots.range(..=offset_max).rev() {
            let path = segment_path(dir, *offset, FileKind::Snapshot);
            let bytes = read_if_present(world, &path, SIDE_FILE_BYTES_MAX).await;
            let Some(bytes) = bytes.map_err(LogError::io("reading", &path))? else {
                continue;
            };
            match ProducerStates::from_snapshot(&bytes, now_ms) {
                Ok(states) => return Ok((states, Some(*offset))),
                Err(fault) => {
                    warn!(file = %path.display(), %fault, "producer snapshot not usable; removing it");
                    remove(world, &path).await?;
                }
            }
        }
        Ok((ProducerStates::default(), None))
    }

    /// Removes snapshots of offsets above `log_end`: were they found later, they would tell of
    /// batches that were cut. Also older ones that stand at no segment's base, left by clean stops;
    /// the newest stays.
    pub(crate) async fn remove_stray_snapshots<W: World>(
        &mut self,
        world: &W,
        dir: &Path,
        log_end: i64,
    ) -> Result<(), LogError> {
        let newest = self.snapshots.range(..=log_end).next_back().copied();
        let at_base = |offset| self.segments.iter().any(|s| s.base_offset == offset);
        let stray =
            |offset: &i64| *offset > log_end || (Some(*offset) != newest && !at_base(*offset));
        let strays: Vec<i64> = self.snapshots.iter().copied().filter(stray).collect();
        for offset in strays {
            self.snapshots.remove(&offset);
            remove(world, &segment_path(dir, offset, FileKind::Snapshot)).await?;
        }
        Ok(())
    }

    /// Removes a segment: the log last, so that a crash on the way leaves a log without indexes,
    /// which can be mended, and not the reverse.
    pub(crate) async fn remove_segment<W: World>(
        &mut self,
        world: &W,
        dir: &Path,
        base_offset: i64,
    ) -> Result<(), LogError> {
        self.snapshots.remove(&base_offset);
        self.segments
            .retain(|segment| segment.base_offset != base_offset);
        remove_segment_files(world, dir, base_offset).await
    }
}

/// Removes all files of a segment and the snapshot at its base.
pub(crate) async fn remove_segment_files<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
) -> Result<(), LogError> {
    use FileKind::{Index, Log, Snapshot, TimeIndex, TransactionIndex};
    for kind in [Snapshot, TransactionIndex, TimeIndex, Index, Log] {
        remove(world, &segment_path(dir, base_offset, kind)).await?;
    }
    Ok(())
}

/// Gives all files of a segment that is not part of the log any more the suffix `.deleted`. The log
/// first: once it is gone by that name, a start removes what stands beside it.
pub async fn mark_segment_files<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
) -> Result<(), LogError> {
    mark_files(world, dir, base_offset, true).await
}

/// As [`mark_segment_files`], with or without the snapshot at the segment's base.
pub(crate) async fn mark_files<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
    with_snapshot: bool,
) -> Result<(), LogError> {
    let wanted = |kind: &FileKind| with_snapshot || *kind != FileKind::Snapshot;
    for kind in SEGMENT_FILES.into_iter().filter(wanted) {
        let from = segment_path(dir, base_offset, kind);
        let to = leftover_path(dir, base_offset, kind, Leftover::Deleted);
        match world.rename(&from, &to).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LogError::io("renaming", &from)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the files that [`mark_segment_files`] has renamed.
pub async fn discard_segment_files<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
) -> Result<(), LogError> {
    for kind in SEGMENT_FILES {
        let path = leftover_path(dir, base_offset, kind, Leftover::Deleted);
        remove(world, &path).await?;
    }
    Ok(())
}

/// The files of a segment and the snapshot at its base.
const SEGMENT_FILES: [FileKind; 5] = [
    FileKind::Log,
    FileKind::Index,
    FileKind::TimeIndex,
    FileKind::TransactionIndex,
    FileKind::Snapshot,
];

#[derive(Debug)]
struct Listed {
    name: String,
    file: SegmentFile,
    bytes: u64,
    modified_ns: i64,
}

async fn remove<W: World>(world: &W, path: &Path) -> Result<(), LogError> {
    match world.remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes what was to be removed, and finishes replacements whose new files are complete: a
/// `.swap` is complete unless a `.cleaned` with a smaller or equal offset is still there.
async fn settle_leftovers<W: World>(
    world: &W,
    dir: &Path,
    files: &[Listed],
) -> Result<(), LogError> {
    let with = |leftover| {
        files
            .iter()
            .filter(move |listed| listed.file.leftover == Some(leftover))
    };
    let cleaned_min = with(Leftover::Cleaned)
        .map(|listed| listed.file.offset)
        .min();
    for listed in with(Leftover::Deleted).chain(with(Leftover::Cleaned)) {
        info!(dir = %dir.display(), name = listed.name, "removing what an earlier run left over");
        remove(world, &dir.join(&listed.name)).await?;
    }
    let (undone, complete): (Vec<&Listed>, Vec<&Listed>) = with(Leftover::Swap)
        .partition(|listed| cleaned_min.is_some_and(|min| listed.file.offset >= min));
    for listed in undone {
        remove(world, &dir.join(&listed.name)).await?;
    }
    for swap in complete
        .iter()
        .filter(|listed| listed.file.kind == FileKind::Log)
    {
        let covered = swap.file.offset..swap_end(world, dir, swap).await?;
        for old in files.iter().filter(|listed| {
            listed.file.leftover.is_none()
                && listed.file.kind == FileKind::Log
                && covered.contains(&listed.file.offset)
        }) {
            remove_segment_files(world, dir, old.file.offset).await?;
        }
        // The old log of that name may have gone without what stood beside it.
        for kind in [
            FileKind::Index,
            FileKind::TimeIndex,
            FileKind::TransactionIndex,
        ] {
            remove(world, &segment_path(dir, swap.file.offset, kind)).await?;
        }
    }
    for swap in complete {
        let to = segment_path(dir, swap.file.offset, swap.file.kind);
        info!(file = %to.display(), "finishing a replacement that an earlier run began");
        let renamed = world.rename(&dir.join(&swap.name), &to).await;
        renamed.map_err(LogError::io("renaming to", &to))?;
    }
    Ok(())
}

/// The offset behind the last batch of a `.log.swap`.
async fn swap_end<W: World>(world: &W, dir: &Path, swap: &Listed) -> Result<i64, LogError> {
    let path = dir.join(&swap.name);
    let file = world
        .open_file(&path, OpenMode::Read)
        .await
        .map_err(LogError::io("opening", &path))?;
    let base = swap.file.offset;
    let mut scan = LogScan::new(world, &file, base, (0, file.len()), base);
    while let ScanStep::Batch { .. } = scan.step().await.map_err(LogError::io("reading", &path))? {}
    Ok(scan.next_offset().max(base.saturating_add(1)))
}
