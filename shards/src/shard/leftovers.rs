//! Directories of deleted partitions that something was too short to remove.
//!
//! State of the designated shard, between the changes of the catalogue: whoever could not remove a
//! directory says so with the image in which its topic is gone. It is tried again by a deadline, and
//! before its name may be a topic's again. No change is made while directories get their names of
//! deleted ones, and one that holds another topic's id is left alone: a new log is never hit.

use chronik_catalog::Image;
use chronik_io::World;
use chronik_log::directory::PartitionDir;
use chronik_partition::backoff;

use super::timers::Timer;
use super::{CatalogueEffect, Effect, Shard};
use crate::internal::Leftover;

/// See the module's text.
#[derive(Default)]
pub(super) struct Leftovers {
    /// To be tried again.
    waiting: Vec<Leftover>,
    /// They are getting other names.
    is_renaming: bool,
    /// They have these, and are being removed.
    in_removal: usize,
    /// The deadline is set.
    is_timed: bool,
    /// It came while a change was under way.
    is_due: bool,
    /// Tries in a row after which something was left.
    failures: u32,
}

impl Leftovers {
    /// Whether no change of the catalogue may begin.
    pub(super) fn is_renaming(&self) -> bool {
        self.is_renaming
    }

    /// Whether nothing is left, or on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.is_renaming && self.in_removal == 0
    }

    /// Whether a topic of this image would come into a directory that is still a deleted one's.
    pub(super) fn is_in_the_way_of(&self, next: &Image) -> bool {
        self.waiting.iter().any(|left| {
            let name = left.directory.file_name().and_then(|name| name.to_str());
            let parsed = name.and_then(PartitionDir::parse);
            parsed.is_some_and(|parsed| next.topic(&parsed.topic).is_some())
        })
    }

    /// Tries them now.
    fn begin(&mut self) -> Vec<Leftover> {
        (self.is_renaming, self.is_due) = (true, false);
        std::mem::take(&mut self.waiting)
    }
}

impl<W: World, R> Shard<W, R> {
    /// These could not be removed with the topics that are gone.
    pub(crate) fn left_over(&mut self, left: Vec<Leftover>) {
        if let Some(leftovers) = self.leftovers()
            && !left.is_empty()
        {
            leftovers.waiting.extend(left);
            leftovers.failures = leftovers.failures.saturating_add(1);
            self.time_leftovers();
        }
    }

    fn leftovers(&mut self) -> Option<&mut Leftovers> {
        self.designated
            .control
            .as_mut()
            .map(|control| &mut control.leftovers)
    }

    fn time_leftovers(&mut self) {
        let now_ns = self.now().mono_ns;
        if let Some(leftovers) = self.leftovers()
            && !std::mem::replace(&mut leftovers.is_timed, true)
        {
            let due_ns = backoff::due_ns(now_ns, leftovers.failures);
            self.waiting.timers.add(due_ns, Timer::Leftovers);
        }
    }

    /// The deadline has come: they are tried as soon as no change is under way.
    pub(super) fn leftovers_due(&mut self) {
        if let Some(leftovers) = self.leftovers() {
            leftovers.is_timed = false;
            leftovers.is_due = !leftovers.waiting.is_empty();
            self.run_control();
        }
    }

    /// Between two changes: begins if it is time to; says whether the next change has to wait.
    pub(super) fn begin_due_leftovers(&mut self) -> bool {
        let is_due = self.leftovers().is_some_and(|left| left.is_due);
        if is_due {
            self.rename_leftovers();
        }
        is_due
    }

    /// Tries them all, between two changes.
    pub(super) fn rename_leftovers(&mut self) {
        if let Some(leftovers) = self.leftovers() {
            let left = leftovers.begin();
            self.out
                .effects
                .push(Effect::Catalogue(CatalogueEffect::RemoveLeftovers(left)));
        }
    }

    /// All but these have other names, and so many are being removed.
    pub(super) fn leftovers_renamed(&mut self, still: Vec<Leftover>, in_removal: usize) {
        if let Some(leftovers) = self.leftovers() {
            leftovers.is_renaming = false;
            leftovers.in_removal += in_removal;
            if still.is_empty() && in_removal > 0 {
                leftovers.failures = 0;
            }
            self.left_over(still);
            self.run_control();
        }
    }

    /// Those with other names are gone, but these.
    pub(super) fn leftovers_removed(&mut self, still: Vec<Leftover>, in_removal: usize) {
        if let Some(leftovers) = self.leftovers() {
            leftovers.in_removal -= in_removal;
            if still.is_empty() && in_removal > 0 {
                tracing::info!(
                    removed = in_removal,
                    "directories of deleted partitions are gone"
                );
            }
            self.left_over(still);
            self.snapshot_if_due();
        }
    }
}
