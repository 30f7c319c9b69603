//! What a move to another log directory wants of a partition.
//!
//! Part of the partition's state, on its shard. Nothing here awaits; the move's steps are performed
//! beside it (`moving.rs` of the shards), and its order is `shard/moves.rs`'s.

use std::sync::Arc;

use chronik_io::World;
use chronik_log::cleaner::Cancel;
use chronik_log::copying::Settled;
use chronik_log::producer_state::ProducerStates;
use chronik_log::recovery::RecoveryHint;

use super::{Closing, Now, Partition, PartitionOptions};

/// What a partition that is closed leaves to the one that is opened in its place.
#[derive(Clone, Debug)]
pub struct Bequest {
    layout: u64,
    /// Where the log ended when it was closed.
    log_end: i64,
    /// As of that end.
    producers: ProducerStates,
}

impl<W: World> Partition<W> {
    /// Up to where its files do not change any more, compaction and retention aside.
    pub fn settled(&self) -> Settled {
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
    pub fn is_at_rest(&self) -> bool {
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
    pub fn resume_cleaning(&mut self, now: Now) {
        self.cleaning.cancel = Cancel::default();
        self.plan_cleaning(now);
    }

    /// How it is opened again, as a log that was not closed whole.
    pub fn reopen_options(&self) -> PartitionOptions {
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

    /// What whoever is opened in its place is to know of it.
    pub fn bequeath(&self) -> Bequest {
        Bequest {
            layout: self.layout,
            log_end: self.log_end(),
            producers: self.producers.clone(),
        }
    }

    /// It was opened anew: what was found before in its files, or in others' of its name, is looked for
    /// again. Producers keep all their last batches, of which a snapshot file has but one each, unless the
    /// log that was found is not the one that was closed.
    pub fn succeed(&mut self, bequest: Bequest) {
        self.layout = bequest.layout.saturating_add(1);
        if bequest.log_end == self.log_end() {
            self.producers = bequest.producers;
        }
    }
}
