//! What a move to another log directory wants of a partition.
//!
//! Part of the partition's state, on its shard. Nothing here awaits; the move's steps are performed
//! beside it (`moving.rs` of the shards), and its order is `shard/moves.rs`'s.

use std::sync::Arc;

use chronik_io::World;

use super::{Closing, Now, Partition, PartitionOptions, RecoveryHint};
use crate::log::cleaner::Cancel;
use crate::log::copying::Settled;

impl<W: World> Partition<W> {
    /// Up to where its files do not change any more, compaction and retention aside.
    pub(crate) fn settled(&self) -> Settled {
        match self.closing.front().map(Closing::base_offset) {
            Some(base_offset) => Settled {
                base_offset,
                bytes: 0,
            },
            None => Settled {
                base_offset: self.active.base_offset(),
                bytes: self.active.written_bytes(),
            },
        }
    }

    /// Whether it can be closed now: nobody waits for it, and nothing is on its way or due.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_quiet()
            // A seal that was put off is not due, and the log cannot be closed without it.
            && self.closing.is_empty()
            && self.parked_committed.is_empty()
            && self.parked_written.is_empty()
            && self.admission.is_empty()
            && !self.rolling.is_under_way()
            && !self.epochs_to_save
            && !self.has_chores()
            && !self.is_cleaning()
    }

    /// Its log may be compacted again.
    pub(crate) fn resume_cleaning(&mut self, now: Now) {
        self.cleaning.cancel = Cancel::default();
        self.plan_cleaning(now);
    }

    /// How it is opened again, as a log that was not closed whole.
    pub(crate) fn reopen_options(&self) -> PartitionOptions {
        PartitionOptions {
            id: self.id,
            topic: self.topic.clone(),
            leader_epoch: self.leader_epoch,
            config: Arc::clone(&self.config),
            recovery: RecoveryHint {
                clean: false,
                recovery_point: self.recovery_point,
                log_start_offset: self.log_start,
                durable: true,
            },
            remembered: None,
            left_behind: Vec::new(),
            check_times: self.retention.check_times,
            cleaned_offset: self.cleaning.first_dirty,
        }
    }

    /// Grows whenever what was found by the names of files before is not to be believed.
    pub(crate) fn layout(&self) -> u64 {
        self.layout
    }

    /// It was opened anew: what was found before in its files, or in others' of its name, is looked for
    /// again.
    pub(crate) fn succeed(&mut self, layout: u64) {
        self.layout = layout.saturating_add(1);
    }
}
