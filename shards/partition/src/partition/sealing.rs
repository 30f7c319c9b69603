//! Sealing: a segment that nothing is appended to any more is cut to its length, and gets its indexes.
//!
//! Part of the partition's state, on its shard. One at a time, so that the recovery point moves in
//! order. A seal that something is too short for is put off; nobody waits for it.

use std::path::PathBuf;
use std::sync::Arc;

use chronik_io::{AppendError, World};
use chronik_log::checkpoint::LEADER_EPOCH_FILE;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::segment::{SealJob, Sealed, SealedSegment, SideFileSync};
use tracing::warn;

use super::{Closing, Now, Partition, SealingSegment};
use crate::backoff;

/// Seals a segment and writes what belongs to its end.
pub(super) struct Seal<W: World> {
    world: W,
    job: SealJob<W>,
    base_offset: i64,
    snapshot: (PathBuf, Vec<u8>),
    epochs: (PathBuf, Vec<u8>),
}

/// Whether the files beside a sealed segment were written; if not, the snapshot that belongs behind it.
pub(super) type Beside = Result<(), (std::io::Error, Vec<u8>)>;

/// Why a segment is not sealed.
pub(super) enum NotSealed<W: World> {
    /// Something is short; the job is to be performed again.
    Later(Box<Seal<W>>, Arc<std::io::Error>),
    Failed(AppendError),
}

/// A seal that something was too short for.
pub(super) struct SealLater<W: World> {
    seal: Box<Seal<W>>,
    failures: u32,
    /// `None` once it may be tried again.
    pub(super) due_ns: Option<u64>,
}

impl<W: World> Seal<W> {
    /// Base offset of the segment.
    pub(super) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(super) async fn perform(
        mut self: Box<Self>,
    ) -> Result<(SealedSegment<W>, Beside), NotSealed<W>> {
        let performed = self.job.perform(&self.world, SideFileSync::Now).await;
        let Sealed { segment, indexes } = match performed {
            Ok(sealed) => sealed,
            Err(AppendError::NoSpace(why)) => return Err(NotSealed::Later(self, why)),
            Err(failed @ AppendError::Failed(_)) => return Err(NotSealed::Failed(failed)),
        };
        let Seal {
            world,
            snapshot,
            epochs,
            ..
        } = *self;
        let mut beside = indexes;
        for (path, bytes) in [&snapshot, &epochs] {
            if beside.is_ok() {
                beside = world.write_file_atomic(path, bytes).await;
            }
        }
        Ok((segment, beside.map_err(|error| (error, snapshot.1))))
    }
}

impl<W: World> Partition<W> {
    /// The oldest closing segment's seal, once it is drained. One at a time, so that the recovery
    /// point moves in order.
    pub(super) fn take_seal(&mut self) -> Option<Box<Seal<W>>> {
        if let Some(later) = &self.seal_later {
            return match later.due_ns {
                Some(_) => None,
                None => self.seal_again(),
            };
        }
        let drained = matches!(
            self.closing.front(),
            Some(Closing::Draining { segment, .. })
                if !segment.is_busy() && segment.written_offset() == segment.next_offset()
        );
        if !drained {
            return None;
        }
        let Some(Closing::Draining { segment, snapshot }) = self.closing.pop_front() else {
            return None;
        };
        let (base_offset, next_offset) = (segment.base_offset(), segment.next_offset());
        let durable_offset = segment.durable_offset();
        let readable = SealedSegment {
            base_offset,
            next_offset,
            size_bytes: segment.size_bytes(),
            max_timestamp: Some(segment.max_timestamp()),
            since_ms: self.world.now_ms(),
            unsaved_snapshot: None,
            first_timestamp: segment.first_timestamp(),
            pinned: None,
            file: Some(segment.file().clone()),
        };
        let job = segment.seal(&self.dir);
        self.closing.push_front(Closing::Sealing(SealingSegment {
            segment: readable,
            index: job.index().clone(),
            durable_offset,
        }));
        let snapshot_path = segment_path(&self.dir, next_offset, FileKind::Snapshot);
        Some(Box::new(Seal {
            world: self.world.clone(),
            job,
            base_offset,
            snapshot: (snapshot_path, snapshot),
            epochs: (self.dir.join(LEADER_EPOCH_FILE), self.epochs.to_bytes()),
        }))
    }

    /// The seal that was put off, now.
    pub(super) fn seal_again(&mut self) -> Option<Box<Seal<W>>> {
        let later = self.seal_later.take()?;
        self.seal_failures = later.failures;
        Some(later.seal)
    }

    /// A segment could not be cut to its length: it is read as it is, and cut later.
    pub(super) fn put_off(&mut self, seal: Box<Seal<W>>, why: &std::io::Error, now: Now) {
        if self.seal_failures == 0 {
            let base = seal.base_offset;
            warn!(partition = self.name(), base, %why, "a segment is not sealed yet");
        }
        let failures = self.seal_failures.saturating_add(1);
        self.seal_later = Some(SealLater {
            seal,
            failures,
            due_ns: Some(backoff::due_ns(now.mono_ns, failures)),
        });
    }
}
