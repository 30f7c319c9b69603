//! What of the partition is in the write-behind ring, and which writes may wait because of it.
//!
//! Part of the partition's state, on its shard. A batch in the ring survives the process if everything
//! before it does: the next start puts batches back one behind the other, and stops at a gap.

use chronik_io::World;
use chronik_log::segment::BatchFacts;
use chronik_protocol::record::BATCH_PREFIX_BYTES;
use chronik_terms::Acks;
use chronik_terms::topic_settings::Durability;

use super::{Closing, Now, Partition};
use crate::limits::WRITE_BEHIND_WRITE_BYTES;
use crate::write_behind::{Kept, WriteBehind, WrittenMark};

/// See the module's text.
pub(super) struct Behind {
    /// Batches from here on are in the ring, without a gap …
    from: i64,
    /// … to here.
    to: i64,
    written: WrittenMark,
    /// The write was due: it does not wait any more.
    due: bool,
    /// The shard knows that a write waits.
    lingering: bool,
}

impl Behind {
    /// Nothing in the ring; segments written up to `log_end`.
    pub(super) fn new(log_end: i64) -> Behind {
        Behind {
            from: log_end,
            to: log_end,
            written: WrittenMark::new(log_end),
            due: false,
            lingering: false,
        }
    }
}

impl<W: World> Partition<W> {
    /// Offsets below survive the end of the process.
    pub(super) fn surviving_offset(&self) -> i64 {
        let written = self.written_offset();
        if self.behind.from <= written {
            written.max(self.behind.to)
        } else {
            written
        }
    }

    /// Keeps a batch that was just appended in the ring, if somebody is promised that it survives the
    /// process and no more.
    pub(super) fn keep(
        &mut self,
        ring: &mut WriteBehind<W>,
        facts: &BatchFacts,
        (prefix, body): (&[u8; BATCH_PREFIX_BYTES], &[u8]),
        acks: Acks,
        now: Now,
    ) {
        let wanted = self.config.durability == Durability::Process || acks == Acks::Leader;
        if !wanted {
            return;
        }
        let batch = Kept {
            partition: self.id,
            written: &self.behind.written,
            next_offset: facts.last_offset.saturating_add(1),
            prefix,
            body,
        };
        if ring.keep(&batch, now.mono_ns) {
            if self.behind.to != facts.base_offset {
                self.behind.from = facts.base_offset;
            }
            self.behind.to = batch.next_offset;
        }
    }

    /// Lets the ring go what is written by now.
    pub(super) fn let_go(&mut self, ring: &mut WriteBehind<W>) {
        // What a failed log holds is not known: the next start has to find the batches.
        if self.failure.is_none() {
            self.behind.written.set(self.written_offset());
            ring.release();
        }
    }

    /// The partition is deleted: the ring need not keep its batches.
    pub fn forgo(&mut self) {
        self.behind.written.forgo();
    }

    /// Whether the active segment's next write may wait for more: nobody waits for it, and everything
    /// it would write survives the process.
    pub(super) fn may_linger(&self) -> bool {
        !self.behind.due
            && self.config.durability == Durability::Process
            && self.admission.is_empty()
            && self.parked_written.is_empty()
            && self.parked_committed.is_empty()
            && !self.flush.is_under_way()
            && !self.rolling.is_under_way()
            && self.active.pending_bytes() < WRITE_BEHIND_WRITE_BYTES
            && self.surviving_offset() == self.log_end()
    }

    /// Whether the shard should call [`Partition::write_now`] some time later: it has not been told.
    pub fn begins_to_linger(&mut self) -> bool {
        let waits = self.active.pending_bytes() > 0 && !self.active.is_writing();
        waits && self.failure.is_none() && !std::mem::replace(&mut self.behind.lingering, true)
    }

    /// What waits is written now; call [`Partition::take_jobs`] afterwards.
    pub fn write_now(&mut self) {
        self.behind.due = true;
        self.behind.lingering = false;
    }

    /// A write was handed out.
    pub(super) fn wrote(&mut self) {
        self.behind.due &= self.active.pending_bytes() > 0;
    }

    /// Whether everything visible is in the segments' files, for those who search there.
    pub fn is_written_up_to(&self, offset: i64) -> bool {
        self.written_offset() >= offset
    }

    /// Whether nothing is on its way to the disk and nothing has to go there.
    pub fn is_quiet(&self) -> bool {
        // A segment that is closed has its seal to come, also between two jobs, unless that is put off
        // until the log is closed.
        let waits = |closing: &Closing<W>| match closing {
            Closing::Draining { segment, .. } => {
                self.seal_later.is_none() || segment.pending_bytes() > 0
            }
            Closing::Sealing(_) => self.seal_later.is_none(),
        };
        let idle = self.active.pending_bytes() == 0 && !self.closing.iter().any(waits);
        self.jobs_in_flight == 0 && (self.failure.is_some() || idle)
    }
}
