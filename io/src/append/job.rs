//! The jobs of an `AppendFile`: I/O on the file, apart from the state.
//!
//! Runs on the file's shard, in the task that awaits it. A job owns all it needs, so it may outlive a borrow of
//! its `AppendFile`; it never changes that state itself. A job dropped unperformed leaves its file waiting for
//! ever: perform every job taken.

use crate::storage::{File, Preparation, block_floor};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// The result of a performed job, for [`super::AppendFile::complete`].
#[derive(Debug)]
#[must_use = "the file waits for it"]
pub enum JobResult {
    /// A write of everything below `end`.
    Write {
        /// Position in the file, in bytes.
        end: u64,
        /// A short write counts as an error.
        outcome: io::Result<()>,
    },
    /// Zeroing up to `end`.
    Zero {
        /// Position in the file, in bytes.
        end: u64,
        /// `StorageFull` is not a failure of the file.
        outcome: io::Result<()>,
        /// The last incomplete block of a file that was untouched until now.
        tail: Option<Vec<u8>>,
    },
    /// A sync of everything that was written below `end`.
    Sync {
        /// Position in the file, in bytes.
        end: u64,
        /// The sync's own result.
        outcome: io::Result<()>,
    },
}

/// A group commit: all pending bytes, in whole blocks.
#[must_use = "the file waits for it"]
pub struct WriteJob<F: File> {
    file: Rc<F>,
    buffers: Vec<(F::Buffer, u64)>,
    end: u64,
    sync_after: bool,
}

impl<F: File> WriteJob<F> {
    pub(super) fn new(
        file: Rc<F>,
        buffers: Vec<(F::Buffer, u64)>,
        end: u64,
        sync_after: bool,
    ) -> WriteJob<F> {
        WriteJob {
            file,
            buffers,
            end,
            sync_after,
        }
    }

    /// Writes all buffers concurrently (they share no block), then syncs if the file's method requires it. A sync
    /// covers completed writes only, so it comes after all of them.
    pub async fn perform(self) -> JobResult {
        let WriteJob {
            file,
            mut buffers,
            end,
            sync_after,
        } = self;
        let mut outcome = match buffers.len() {
            1 => match buffers.pop() {
                Some((buffer, position)) => file.write_at(buffer, position).await,
                None => Ok(()),
            },
            _ => write_concurrently(&file, buffers).await,
        };
        if outcome.is_ok() && sync_after {
            outcome = file.sync_data().await;
        }
        JobResult::Write { end, outcome }
    }
}

/// Performs all writes and awaits every one, also after an error: no write may be in flight when its result is
/// reported.
async fn write_concurrently<F: File>(
    file: &Rc<F>,
    buffers: Vec<(F::Buffer, u64)>,
) -> io::Result<()> {
    type Write<'a> = Option<Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>>;
    let mut writes: Vec<Write<'_>> = Vec::with_capacity(buffers.len());
    for (buffer, position) in buffers {
        writes.push(Some(Box::pin(file.write_at(buffer, position))));
    }
    let mut outcome = Ok(());
    poll_fn(|context| {
        let mut waiting = false;
        for slot in &mut writes {
            let Some(write) = slot else { continue };
            match write.as_mut().poll(context) {
                Poll::Pending => waiting = true,
                Poll::Ready(result) => {
                    *slot = None;
                    if outcome.is_ok() {
                        outcome = result;
                    }
                }
            }
        }
        if waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    outcome
}

/// Space for the next chunk of a file, which reads as zeros.
#[must_use = "the file waits for it"]
pub struct ZeroJob<F: File> {
    file: Rc<F>,
    from: u64,
    to: u64,
    preparation: Preparation,
    /// End of the valid bytes of a file that was untouched until now.
    wakes_at: Option<u64>,
}

impl<F: File> ZeroJob<F> {
    pub(super) fn new(
        file: Rc<F>,
        from: u64,
        to: u64,
        preparation: Preparation,
        wakes_at: Option<u64>,
    ) -> ZeroJob<F> {
        ZeroJob {
            file,
            from,
            to,
            preparation,
            wakes_at,
        }
    }

    /// Bytes this job makes space for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to - self.from
    }

    /// Makes the space, and the new size durable.
    pub async fn perform(self) -> JobResult {
        let bytes = self.to - self.from;
        let tail = match self.wakes_at {
            Some(valid_len) => wake(&*self.file, valid_len).await.map(Some),
            None => Ok(None),
        };
        let (outcome, tail) = match tail {
            Ok(tail) => (
                self.file.prepare(self.from, bytes, self.preparation).await,
                tail,
            ),
            Err(error) => (Err(error), None),
        };
        JobResult::Zero {
            end: self.to,
            outcome,
            tail,
        }
    }
}

/// Cuts off the bytes after the valid ones, so that no stale byte is ever taken for a written one, and returns
/// those of the last incomplete block.
async fn wake<F: File>(file: &F, valid_len: u64) -> io::Result<Vec<u8>> {
    if file.len() > valid_len {
        file.set_len(valid_len).await?;
    }
    last_block(file, valid_len).await
}

/// The bytes of the last, incomplete block below `valid_len`.
pub(super) async fn last_block<F: File>(file: &F, valid_len: u64) -> io::Result<Vec<u8>> {
    let start = block_floor(valid_len);
    // Less than a block, so the cast keeps the value.
    let len = (valid_len - start) as usize;
    if len == 0 {
        return Ok(Vec::new());
    }
    let tail = file.read_at(start, len).await?.to_vec();
    if tail.len() != len {
        let what = "the last block is missing";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(tail)
}

/// A sync of the bytes written so far.
#[must_use = "the file waits for it"]
pub struct SyncJob<F: File> {
    file: Rc<F>,
    end: u64,
}

impl<F: File> SyncJob<F> {
    pub(super) fn new(file: Rc<F>, end: u64) -> SyncJob<F> {
        SyncJob { file, end }
    }

    /// Syncs the file's data.
    pub async fn perform(self) -> JobResult {
        let outcome = self.file.sync_data().await;
        JobResult::Sync {
            end: self.end,
            outcome,
        }
    }
}
