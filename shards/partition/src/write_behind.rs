//! Batches kept where the end of the process cannot take them, until their segments are written.
//!
//! One per shard, owned by it. What is in the ring (see `ring`) survives the process, so it is
//! acknowledged under the *process* promise at once, and the write to the segment follows behind: at
//! the latest [`LINGER_MS_MAX`](crate::limits::WRITE_BEHIND_LINGER_MS_MAX) later, sooner when much has
//! gathered. A ring without room (or none) takes nothing, and appends are answered after their write.
//! The file is made when the first batch wants it, so that brokers that never need one pay nothing.
//! What a process left behind is `left_behind`'s to find. Never waits, and never reads.

mod entry;
mod left_behind;
mod ring;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use chronik_io::World;
use chronik_protocol::record::BATCH_PREFIX_BYTES;
use chronik_terms::PartitionId;

use crate::limits::{WRITE_BEHIND_LINGER_MS_MAX, WRITE_BEHIND_RETRY_MS};

pub use left_behind::{LeftBehind, remove_all};
pub use ring::{Ring, WrittenMark};

/// A batch for the ring.
pub(crate) struct Kept<'a> {
    /// Whose it is.
    pub(crate) partition: PartitionId,
    /// How far that partition's segments are written.
    pub(crate) written: &'a WrittenMark,
    /// Behind the batch's last record.
    pub(crate) next_offset: i64,
    /// The batch's first bytes as they are stored.
    pub(crate) prefix: &'a [u8; BATCH_PREFIX_BYTES],
    /// The rest of it.
    pub(crate) body: &'a [u8],
}

enum State<W: World> {
    /// Switched off, or it cannot be had here.
    Off,
    /// Nobody has asked for it since this time (monotonic, ns) or may before.
    Absent {
        not_before_ns: u64,
    },
    /// To be made.
    Wanted,
    /// Being made.
    Coming,
    Ready(Ring<W::Mapping>),
}

/// A shard's write-behind; see the module's text.
pub struct WriteBehind<W: World> {
    state: State<W>,
    bytes: usize,
    /// Partitions with bytes that may wait, until `due_ns`.
    lingering: Vec<PartitionId>,
    due_ns: Option<u64>,
}

impl<W: World> WriteBehind<W> {
    /// One whose ring will have `bytes` (`chronik.writebehind.bytes`); 0 is none.
    pub fn new(bytes: usize) -> Self {
        let state = match bytes {
            0 => State::Off,
            _ => State::Absent { not_before_ns: 0 },
        };
        WriteBehind {
            state,
            bytes,
            lingering: Vec::new(),
            due_ns: None,
        }
    }

    /// One that takes nothing.
    pub fn off() -> Self {
        WriteBehind::new(0)
    }

    /// Keeps a batch if there is room; says whether it survives the process now.
    pub(crate) fn keep(&mut self, batch: &Kept<'_>, now_ns: u64) -> bool {
        match &mut self.state {
            State::Ready(ring) => match ring.push(batch) {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::error!(%error, "the write-behind ring has failed; from now on records are answered after their write");
                    self.state = State::Off;
                    false
                }
            },
            State::Absent { not_before_ns } if now_ns >= *not_before_ns => {
                self.state = State::Wanted;
                false
            }
            _ => false,
        }
    }

    /// Lets go what is written by now; to be called when a [`WrittenMark`] has moved.
    pub fn release(&mut self) {
        if let State::Ready(ring) = &mut self.state {
            ring.release();
        }
    }

    /// The bytes of the ring to be made now, if one is wanted; once.
    pub fn take_wanted(&mut self) -> Option<usize> {
        let wanted = matches!(self.state, State::Wanted);
        wanted.then(|| {
            self.state = State::Coming;
            self.bytes
        })
    }

    /// Whether the ring is being made.
    pub fn is_coming(&self) -> bool {
        matches!(self.state, State::Coming)
    }

    /// The wanted ring was made, or could not be.
    pub fn made(&mut self, result: std::io::Result<Ring<W::Mapping>>, now_ns: u64) {
        self.state = match result {
            Ok(ring) => State::Ready(ring),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                tracing::warn!(%error, "no write-behind ring here; records are answered after their write");
                State::Off
            }
            Err(error) => {
                tracing::warn!(%error, "no write-behind ring for now; records are answered after their write");
                let wait_ns = WRITE_BEHIND_RETRY_MS * 1_000_000;
                State::Absent {
                    not_before_ns: now_ns.saturating_add(wait_ns),
                }
            }
        };
    }

    /// The partition's write may wait for more. Gives the deadline for all who wait, ns, when a timer
    /// has to be set for it.
    pub fn linger(&mut self, partition: PartitionId, now_ns: u64) -> Option<u64> {
        self.lingering.push(partition);
        if self.due_ns.is_some() {
            return None;
        }
        let due_ns = now_ns.saturating_add(WRITE_BEHIND_LINGER_MS_MAX * 1_000_000);
        self.due_ns = Some(due_ns);
        self.due_ns
    }

    /// The deadline is there: the partitions whose writes have to start.
    pub fn take_lingering(&mut self) -> Vec<PartitionId> {
        self.due_ns = None;
        std::mem::take(&mut self.lingering)
    }
}

/// Makes a shard's ring in the data directory.
///
/// # Errors
/// Those of [`World::create_mapping`] and [`World::boot_id`].
pub async fn make<W: World>(
    world: &W,
    data: &Path,
    shard: usize,
    bytes: usize,
) -> std::io::Result<Ring<W::Mapping>> {
    let boot_id = world.boot_id().await?;
    let incarnation = world.random_u64();
    let path = path(data, shard, incarnation);
    let mapping = world.create_mapping(&path, bytes).await?;
    Ok(Ring::new(mapping, boot_id, incarnation))
}

const NAME_START: &str = "chronik-writebehind-";
const NAME_END: &str = ".ring";

/// A plain file beside the partitions' directories, which a real Kafka passes over.
fn path(data: &Path, shard: usize, incarnation: u64) -> PathBuf {
    data.join(format!("{NAME_START}{incarnation:016x}-{shard}{NAME_END}"))
}
