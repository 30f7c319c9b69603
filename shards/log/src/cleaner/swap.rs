//! Puts a cleaned segment in the place of those it was made of, by names on the disk.
//!
//! Runs on the partition's shard, which reads the new segment by its open file meanwhile. Every step
//! is durable before the next, and every start finishes or undoes what it finds (`inventory`): until
//! the log is called `.swap` the old segments are the log, from then on the new one is.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chronik_io::World;
use tracing::warn;

use crate::LogError;
use crate::directory::{FileKind, Leftover, leftover_path, segment_path};
use crate::index::IndexBuilder;
use crate::inventory::mark_files;
use crate::segment::{SideFileSync, write_indexes};

/// A replacement.
pub struct Swap {
    /// Base offsets of the segments that go, ascending; the first is the new one's too.
    pub replaced: Vec<i64>,
    /// Of the new segment.
    pub index: Rc<IndexBuilder>,
    /// The new segment has a `.txnindex`.
    pub has_transaction_index: bool,
    /// How far it is.
    pub progress: Progress,
}

/// How far a swap is that something was too short for.
#[derive(Default)]
pub struct Progress {
    /// It was begun before.
    begun: Cell<bool>,
    /// The old segments' files have their new names.
    are_marked: Cell<bool>,
}

impl Swap {
    /// Performs it. Steps that were done before are passed over, so that it can be performed again
    /// after a shortage.
    ///
    /// # Errors
    /// When the disk refuses: what is called how is not known then.
    pub async fn perform<W: World>(&self, world: &W, dir: &Path) -> Result<(), LogError> {
        let Some(base) = self.replaced.first().copied() else {
            return Ok(());
        };
        let again = self.progress.begun.replace(true);
        let mut kinds = vec![FileKind::Log];
        if self.has_transaction_index {
            // The log last: with it the new segment is complete.
            kinds.insert(0, FileKind::TransactionIndex);
        }
        for kind in &kinds {
            let from = leftover_path(dir, base, *kind, Leftover::Cleaned);
            let to = leftover_path(dir, base, *kind, Leftover::Swap);
            rename(world, again, from, to).await?;
        }
        if !self.progress.are_marked.get() {
            for replaced in &self.replaced {
                // What the snapshot at the new segment's base tells still holds.
                mark_files(world, dir, *replaced, *replaced != base).await?;
            }
            if again {
                let synced = world.sync_dir(dir).await;
                synced.map_err(LogError::io("syncing", dir))?;
            }
            // Never again: by then the new files have these names.
            self.progress.are_marked.set(true);
        }
        // Now the log first: a start takes what it finds beside a log called `.swap` for the old one's.
        for kind in kinds.into_iter().rev() {
            let from = leftover_path(dir, base, kind, Leftover::Swap);
            rename(world, again, from, segment_path(dir, base, kind)).await?;
        }
        let (offsets, times) = (self.index.offsets.to_bytes(), self.index.times.to_bytes());
        let now = SideFileSync::Now;
        if let Err(error) = write_indexes(world, dir, base, (&offsets, &times), now).await {
            // Who needs them makes them again.
            warn!(dir = %dir.display(), base, %error, "the indexes of a cleaned segment were not written");
        }
        Ok(())
    }
}

/// Renames a file. If that was begun before it may have its new name, which is made durable then.
async fn rename<W: World>(
    world: &W,
    again: bool,
    from: PathBuf,
    to: PathBuf,
) -> Result<(), LogError> {
    let renamed = match (world.rename(&from, &to).await, to.parent()) {
        (Err(error), Some(dir)) if again && error.kind() == std::io::ErrorKind::NotFound => {
            world.sync_dir(dir).await
        }
        (renamed, _) => renamed,
    };
    renamed.map_err(LogError::io("renaming", &from))
}

/// Removes a cleaned segment that is not wanted after all. What cannot be removed now, the next
/// start removes.
pub async fn remove_cleaned<W: World>(world: &W, dir: &Path, base_offset: i64) {
    for kind in [FileKind::TransactionIndex, FileKind::Log] {
        let path = leftover_path(dir, base_offset, kind, Leftover::Cleaned);
        match world.remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(file = %path.display(), %error, "not removed");
            }
            _ => {}
        }
    }
}
