//! Files on their way out: renamed at once, removed after `file.delete.delay.ms`.
//!
//! Part of the partition's state, on its shard. A segment that is not part of the log any more gets
//! Kafka's suffix `.deleted`, which every start removes, oldest first, so that a crash leaves no
//! gap. Whoever still reads it has it open.

use std::collections::VecDeque;

use chronik_io::World;
use tracing::warn;

use super::{Now, Partition};
use crate::log::LogError;
use crate::log::segment::SealedSegment;

/// See the module's text.
#[derive(Default)]
pub(super) struct Removal {
    /// Segments to be renamed, by base offset.
    to_mark: Vec<i64>,
    /// Could not be renamed: tried again, before any other, when the next one is added.
    held: Vec<i64>,
    /// The snapshot behind the last of them and its offset, where it has not been written yet.
    unsaved_snapshot: Option<(i64, Vec<u8>)>,
    /// One rename or removal at a time: those that overtake each other could leave a gap.
    under_way: bool,
    /// Renamed, and when they go (monotonic, ns).
    marked: VecDeque<(u64, i64)>,
    /// Their time has come.
    to_discard: Vec<i64>,
}

/// What is to be done next.
pub(super) enum RemovalStep {
    /// Rename the files of these segments, after this producer snapshot was written.
    Mark {
        bases: Vec<i64>,
        snapshot: Option<(i64, Vec<u8>)>,
    },
    /// Remove the renamed files of these segments.
    Discard(Vec<i64>),
}

impl Removal {
    /// A segment is not part of the log any more.
    pub(super) fn add<W: World>(&mut self, segment: SealedSegment<W>) {
        self.to_mark.append(&mut self.held);
        self.to_mark.push(segment.base_offset);
        let unsaved = segment.unsaved_snapshot;
        self.unsaved_snapshot = unsaved.map(|snapshot| (segment.next_offset, snapshot));
    }

    /// Whether files are being renamed or removed, or will be next.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way || !self.to_mark.is_empty() || !self.to_discard.is_empty()
    }

    /// When the next renamed file has to go.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.marked.front().map(|(due_ns, _)| *due_ns)
    }

    pub(super) fn on_timer(&mut self, now: Now) {
        while let Some((due_ns, base_offset)) = self.marked.front().copied()
            && due_ns <= now.mono_ns
        {
            self.to_discard.push(base_offset);
            self.marked.pop_front();
        }
    }
}

impl<W: World> Partition<W> {
    /// What is to be done next, once the step before it is done.
    pub(super) fn take_removal(&mut self) -> Option<RemovalStep> {
        let removal = &mut self.removal;
        if removal.under_way {
            return None;
        }
        let step = if !removal.to_mark.is_empty() {
            RemovalStep::Mark {
                bases: std::mem::take(&mut removal.to_mark),
                snapshot: removal.unsaved_snapshot.clone(),
            }
        } else if !removal.to_discard.is_empty() {
            RemovalStep::Discard(std::mem::take(&mut removal.to_discard))
        } else {
            return None;
        };
        removal.under_way = true;
        Some(step)
    }

    /// Segments were renamed, or not.
    pub(super) fn marked(&mut self, bases: Vec<i64>, result: Result<(), LogError>, now: Now) {
        self.removal.under_way = false;
        if let Err(error) = result {
            // They lie below the log start: the next start removes them, if nobody does before.
            warn!(partition = self.name(), %error, "old segment files not renamed");
            let later = std::mem::replace(&mut self.removal.held, bases);
            self.removal.held.extend(later);
            self.removal.held.append(&mut self.removal.to_mark);
            return;
        }
        let delay_ns = self.config.file_delete_delay_ms.saturating_mul(1_000_000);
        let due_ns = now.mono_ns.saturating_add(delay_ns);
        let marked = bases.into_iter().map(|base_offset| (due_ns, base_offset));
        self.removal.marked.extend(marked);
        // Without a delay there is nothing to wait for.
        self.removal.on_timer(now);
    }

    /// Renamed files were removed, or not.
    pub(super) fn discarded(&mut self, result: Result<(), LogError>) {
        self.removal.under_way = false;
        if let Err(error) = result {
            // The next start removes them.
            warn!(partition = self.name(), %error, "deleted segment files not removed");
        }
    }
}
