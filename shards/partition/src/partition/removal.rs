//! Files on their way out: renamed at once, removed after `file.delete.delay.ms`.
//!
//! Part of the partition's state, on its shard. A segment that is not part of the log any more gets
//! Kafka's suffix `.deleted`, which every start removes, oldest first, so that a crash leaves no
//! gap. Whoever still reads it has it open.

use std::collections::VecDeque;
use std::path::Path;

use chronik_io::{World, is_not_now};
use chronik_log::LogError;
use chronik_log::cleaner::Swap;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::inventory::{discard_segment_files, mark_segment_files};
use chronik_log::segment::SealedSegment;
use tracing::warn;

use super::{Now, Partition, PartitionEvent};
use crate::backoff;

/// When files that could not be renamed or removed are tried again, ns.
const RETRY_NS: u64 = 30_000_000_000;

/// See the module's text.
#[derive(Default)]
pub(super) struct Removal {
    /// A cleaned segment is to take the place of others.
    swap: Option<Swap>,
    /// The same, half done: something was too short for it, and from then on (monotonic, ns) it goes
    /// on. Nothing else happens to files before it is done.
    swap_later: Option<(u64, Swap)>,
    /// Tries of it in a row that came to nothing.
    swap_failures: u32,
    /// When what is held is tried again although nothing was added (monotonic, ns).
    held_due_ns: Option<u64>,
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
    /// Put a cleaned segment in the place of these.
    Swap(Swap),
    /// Rename the files of these segments, after this producer snapshot was written.
    Mark {
        bases: Vec<i64>,
        snapshot: Option<(i64, Vec<u8>)>,
    },
    /// Remove the renamed files of these segments.
    Discard(Vec<i64>),
}

/// What became of a step.
pub(super) enum RemovalDone {
    Swapped(Swap, Result<(), LogError>),
    Marked(Vec<i64>, Result<(), LogError>),
    Discarded(Vec<i64>, Result<(), LogError>),
}

impl RemovalStep {
    /// Performs it.
    pub(super) async fn perform<W: World>(self, world: &W, dir: &Path) -> RemovalDone {
        let mut result = Ok(());
        // The oldest first, so that a crash on the way leaves no gap.
        match self {
            Self::Swap(swap) => {
                let swapped = swap.perform(world, dir).await;
                RemovalDone::Swapped(swap, swapped)
            }
            Self::Mark { bases, snapshot } => {
                if let Some((offset, bytes)) = snapshot {
                    let path = segment_path(dir, offset, FileKind::Snapshot);
                    result = match world.write_file_atomic(&path, &bytes).await {
                        // Space is what the removal is to make; what a start does not learn of
                        // producers costs one of them an error at worst.
                        Err(error) if is_not_now(&error) => Ok(()),
                        written => written.map_err(LogError::io("writing", &path)),
                    };
                }
                for base in &bases {
                    if result.is_ok() {
                        result = mark_segment_files(world, dir, *base).await;
                    }
                }
                RemovalDone::Marked(bases, result)
            }
            Self::Discard(bases) => {
                for base in &bases {
                    if result.is_ok() {
                        result = discard_segment_files(world, dir, *base).await;
                    }
                }
                RemovalDone::Discarded(bases, result)
            }
        }
    }
}

impl Removal {
    /// A segment is not part of the log any more.
    pub(super) fn add<W: World>(&mut self, segment: SealedSegment<W>) {
        self.to_mark.append(&mut self.held);
        self.to_mark.push(segment.base_offset);
        let unsaved = segment.unsaved_snapshot;
        self.unsaved_snapshot = unsaved.map(|snapshot| (segment.next_offset, snapshot));
    }

    /// A cleaned segment takes the place of others.
    pub(super) fn swap(&mut self, swap: Swap) {
        self.swap = Some(swap);
    }

    /// Whether files are being renamed or removed, or will be next.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way || !self.to_mark.is_empty() || !self.to_discard.is_empty()
    }

    /// When the next renamed file has to go.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let marked = self.marked.front().map(|(due_ns, _)| *due_ns);
        let swap = self.swap_later.as_ref().map(|(due_ns, _)| *due_ns);
        marked.into_iter().chain(swap).chain(self.held_due_ns).min()
    }

    /// The swap that waits, if there is one.
    pub(super) fn take_waiting_swap(&mut self) -> Option<Swap> {
        self.swap_later.take().map(|(_, swap)| swap)
    }

    pub(super) fn on_timer(&mut self, now: Now) {
        if self
            .swap_later
            .as_ref()
            .is_some_and(|(due, _)| *due <= now.mono_ns)
        {
            self.swap = self.take_waiting_swap();
        }
        if self.held_due_ns.is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.held_due_ns = None;
            let later = std::mem::replace(&mut self.to_mark, std::mem::take(&mut self.held));
            self.to_mark.extend(later);
        }
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
        if removal.under_way || removal.swap_later.is_some() {
            return None;
        }
        let step = if let Some(swap) = removal.swap.take() {
            // Before any other: what has its place may have to go already.
            RemovalStep::Swap(swap)
        } else if !removal.to_mark.is_empty() {
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

    /// Takes a step's result in.
    pub(super) fn removal_done(
        &mut self,
        done: RemovalDone,
        now: Now,
        events: &mut Vec<PartitionEvent>,
    ) {
        match done {
            RemovalDone::Swapped(swap, result) => self.swap_done(swap, result, now, events),
            RemovalDone::Marked(bases, result) => self.marked(bases, result, now),
            RemovalDone::Discarded(bases, result) => self.discarded(bases, result, now),
        }
    }

    /// A cleaned segment has its place, or not.
    fn swap_done(
        &mut self,
        swap: Swap,
        result: Result<(), LogError>,
        now: Now,
        events: &mut Vec<PartitionEvent>,
    ) {
        self.removal.under_way = false;
        if let Err(error) = &result
            && error.is_not_now()
        {
            // Its segment is read by its open file meanwhile, and each step may be done again.
            if self.removal.swap_failures == 0 {
                warn!(partition = self.name(), %error, "a cleaned segment is not in its place yet");
            }
            self.removal.swap_failures = self.removal.swap_failures.saturating_add(1);
            let due_ns = backoff::due_ns(now.mono_ns, self.removal.swap_failures);
            self.removal.swap_later = Some((due_ns, swap));
            return;
        }
        self.removal.swap_failures = 0;
        if result.is_ok() {
            self.discard_later(swap.replaced.iter().copied(), now);
        }
        self.swapped(&swap, result, events);
    }

    fn discard_later(&mut self, bases: impl Iterator<Item = i64>, now: Now) {
        let delay_ns = self.config.file_delete_delay_ms.saturating_mul(1_000_000);
        let due_ns = now.mono_ns.saturating_add(delay_ns);
        self.removal.marked.extend(bases.map(|base| (due_ns, base)));
        // Without a delay there is nothing to wait for.
        self.removal.on_timer(now);
    }

    /// Segments were renamed, or not.
    fn marked(&mut self, bases: Vec<i64>, result: Result<(), LogError>, now: Now) {
        self.removal.under_way = false;
        if let Err(error) = result {
            // They lie below the log start: the next start removes them, if nobody does before.
            warn!(partition = self.name(), %error, "old segment files not renamed");
            let later = std::mem::replace(&mut self.removal.held, bases);
            self.removal.held.extend(later);
            self.removal.held.append(&mut self.removal.to_mark);
            self.removal.held_due_ns = Some(now.mono_ns.saturating_add(RETRY_NS));
            return;
        }
        self.discard_later(bases.into_iter(), now);
    }

    /// Renamed files were removed, or not.
    fn discarded(&mut self, bases: Vec<i64>, result: Result<(), LogError>, now: Now) {
        self.removal.under_way = false;
        if let Err(error) = result {
            // The next start removes them, if nobody does before.
            warn!(partition = self.name(), %error, "deleted segment files not removed");
            if error.is_not_now() {
                let due_ns = now.mono_ns.saturating_add(RETRY_NS);
                let marked = &mut self.removal.marked;
                marked.extend(bases.into_iter().map(|base| (due_ns, base)));
            }
        }
    }
}
