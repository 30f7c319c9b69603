//! `AppendFile`: the tail of one file, appended to in whole blocks over space zeroed ahead.
//!
//! Owns the unwritten bytes of one log file, the writes in flight, and how far the file is written and durable.
//! A synchronous state machine on the file's shard: it returns jobs (`WriteJob`, `ZeroJob`, `SyncJob`), and
//! takes their results through `complete`. Never awaits while it changes state, never has two jobs on the same
//! block, and never works again after a failed or short write or sync: the content of the disk is then unknown
//! until the next start scans it.
//! unknown, and only a scan at the next start can tell.
//!
//! Why over zeroed space: overwriting written blocks needs no new extents and no new file size, so a small write
//! is up to two times cheaper and a sync does not wait for the file system's metadata (measured; see
//! `examples/append_sync.rs`). Large writes do not pay for it, since zeros use the device as much as data does:
//! their space is only allocated (requests of 640 KiB: 0.95 GB/s over zeros, 1.5 to 1.8 over allocated space).

mod job;
mod options;
#[cfg(test)]
mod tests;

pub use job::{JobResult, SyncJob, WriteJob, ZeroJob};
pub use options::{AppendOptions, SyncMethod, SyncMode};

use crate::shortage::is_not_now;
use crate::storage::{BLOCK_BYTES, BlockBuffer, File, Preparation, block_ceiling, block_floor};
use crate::world::{OpenMode, OpenOptions, World};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why an [`AppendFile`] does not go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// A write or sync failed earlier; the file stays failed until it is opened and scanned anew.
    #[error("the file has failed: {0}")]
    Failed(Arc<io::Error>),
    /// No space to zero ahead, no descriptor or no memory ([`is_not_now`]). Nothing is lost: room stays as it was,
    /// and the next [`AppendFile::reserve`] tries again.
    #[error("the file cannot be changed now: {0}")]
    NoSpace(Arc<io::Error>),
}

/// Progress of a file after a job; positions in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Bytes below survive the end of the process.
    pub written: u64,
    /// Bytes below survive a power cut.
    pub durable: u64,
}

/// Appended bytes that no write has taken yet.
struct Pending<B> {
    buffer: B,
    /// Block-aligned file position of the buffer's first byte.
    position: u64,
    filled: usize,
}

/// Statistics of a file's write sizes.
#[derive(Default)]
struct WriteSizes {
    writes: u64,
    bytes: u64,
}

impl WriteSizes {
    fn note(&mut self, bytes: u64) {
        self.writes += 1;
        self.bytes += bytes;
    }

    /// The mean size in bytes since the last call; 0 without any write.
    fn take_mean_bytes(&mut self) -> u64 {
        let WriteSizes { writes, bytes } = std::mem::take(self);
        bytes.checked_div(writes).unwrap_or(0)
    }
}

/// The appending end of a file; see the module. Belongs to one shard.
pub struct AppendFile<F: File> {
    file: Rc<F>,
    options: AppendOptions,
    end: u64,
    written: u64,
    durable: u64,
    /// Below this the file's blocks exist, written or zeroed, and its size is durable.
    zeroed: u64,
    /// The writes since space was last made.
    writes: WriteSizes,
    /// The bytes of the last, incomplete block before the first pending one (less than a block).
    tail: Vec<u8>,
    pending: VecDeque<Pending<F::Buffer>>,
    /// End of the write in flight, if any.
    writing: Option<u64>,
    /// End of the zeroing in flight, if any.
    zeroing: Option<u64>,
    /// Tells the zeroing in flight that an append waits for it.
    hurry: Arc<AtomicBool>,
    syncing: bool,
    /// The end that callers have reserved room for.
    reserved: u64,
    /// The last zeroing found no space, and no caller has reserved since.
    space_refused: bool,
    /// The file is untouched: its excess is not cut off, and its last incomplete block is not in `tail`.
    resting: bool,
    /// The end at opening.
    opened: u64,
    next_capacity: usize,
    failed: Option<Arc<io::Error>>,
}

impl<F: File> AppendFile<F> {
    /// Opens (creates) `path` for appending after its first `valid_len` bytes. Excess bytes are cut off first, so
    /// that no stale byte is ever taken for a written one.
    ///
    /// # Errors
    /// Those of opening and truncating; `InvalidData` if the file is shorter than `valid_len`.
    pub async fn open<W: World<File = F>>(
        world: &W,
        path: &Path,
        valid_len: u64,
        options: AppendOptions,
    ) -> io::Result<AppendFile<F>> {
        let mut how = OpenOptions::from(OpenMode::ReadWriteCreate);
        how.write_through = options.writes_through();
        AppendFile::over(world.open_file(path, how).await?, valid_len, options).await
    }

    /// Like [`AppendFile::open`], over a file that is open already, with
    /// [`OpenOptions::write_through`] as [`AppendOptions::writes_through`] says.
    ///
    /// # Errors
    /// As for [`AppendFile::open`].
    pub async fn over(
        file: F,
        valid_len: u64,
        options: AppendOptions,
    ) -> io::Result<AppendFile<F>> {
        options.assert_sound();
        if file.len() < valid_len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the file has {} bytes, {valid_len} were expected",
                    file.len()
                ),
            ));
        }
        if file.len() > valid_len {
            file.set_len(valid_len).await?;
        } else if valid_len > 0 && !options.known_durable {
            // After a kill the kernel may hold valid bytes that were never synced: nothing may be built
            // on them before they are durable.
            file.sync_data().await?;
        }
        let tail = job::last_block(&file, valid_len).await?;
        let mut append = AppendFile::resting(file, valid_len, options);
        (append.tail, append.resting) = (tail, false);
        Ok(append)
    }

    /// Appends after the first `valid_len` bytes of a file that may be a [`World::resting_file`] and has at least as
    /// many, all durable. Nothing happens before the first append reserves room: then the file is opened, cut where
    /// it is longer, and its last block is read.
    ///
    /// # Panics
    /// If the file is shorter.
    #[must_use]
    pub fn resting(file: F, valid_len: u64, options: AppendOptions) -> AppendFile<F> {
        options.assert_sound();
        assert!(
            file.len() >= valid_len,
            "the file is shorter than its valid bytes"
        );
        AppendFile {
            file: Rc::new(file),
            end: valid_len,
            written: valid_len,
            durable: valid_len,
            zeroed: valid_len,
            writes: WriteSizes::default(),
            tail: Vec::new(),
            pending: VecDeque::new(),
            writing: None,
            zeroing: None,
            hurry: Arc::default(),
            syncing: false,
            reserved: valid_len,
            space_refused: false,
            resting: true,
            opened: valid_len,
            next_capacity: options.buffer_bytes_min,
            failed: None,
            options,
        }
    }

    /// The file itself, for reading below [`AppendFile::written`].
    #[must_use]
    pub fn file(&self) -> &Rc<F> {
        &self.file
    }

    /// Bytes appended, written or not.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes below survive the end of the process.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes below survive a power cut.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// True while a job handed out has not completed.
    #[must_use]
    pub fn has_job_in_flight(&self) -> bool {
        self.writing.is_some() || self.zeroing.is_some() || self.syncing
    }

    /// True while a write is in flight.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// True when [`AppendFile::take_write`] has bytes to write.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The failure that ended this file, if any.
    #[must_use]
    pub fn failure(&self) -> Option<&io::Error> {
        self.failed.as_deref()
    }

    fn check(&self) -> Result<(), AppendError> {
        match &self.failed {
            Some(error) => Err(AppendError::Failed(Arc::clone(error))),
            None => Ok(()),
        }
    }

    /// Bytes that wait for [`AppendFile::take_write`].
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.end - self.writing.unwrap_or(self.written)
    }

    /// Bytes that can be appended now: the zeroed space, less while [`AppendOptions::pending_bytes_max`] are waiting
    /// already.
    #[must_use]
    pub fn room(&self) -> u64 {
        let zeroed = self.zeroed.saturating_sub(self.end);
        let pending = self.pending_bytes();
        if pending == 0 {
            return zeroed;
        }
        zeroed.min(self.options.pending_bytes_max.saturating_sub(pending))
    }

    /// Asks for zeroed space for `bytes` more than [`AppendFile::end`]; it is there once the [`ZeroJob`] that may
    /// become due has completed. A file without a reservation has no job and no cost.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.max(self.end.saturating_add(bytes));
        self.space_refused = false;
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Bytes of the next zeroed chunk: as many as the file has, within the options.
    fn chunk(&self) -> u64 {
        block_ceiling(self.zeroed).clamp(
            self.options.zero_ahead_bytes_min,
            self.options.zero_ahead_bytes_max,
        )
    }

    fn zero_target(&self) -> Option<u64> {
        if self.failed.is_some() || self.zeroing.is_some() || self.space_refused {
            return None;
        }
        let from = block_ceiling(self.zeroed);
        let ahead = from
            .saturating_add(self.chunk())
            .min(block_ceiling(self.options.zero_until));
        if self.reserved > self.zeroed {
            return Some(ahead.max(block_ceiling(self.reserved)));
        }
        // Half a chunk before the space ends, so that a steady stream never waits for zeros; not before the first
        // append, so that idle files cost nothing.
        let streaming = self.end > self.opened;
        let low = self.zeroed.saturating_sub(self.end) < self.chunk() / 2;
        (streaming && low && ahead > from).then_some(ahead)
    }

    /// True when [`AppendFile::take_zero`] would return a job.
    #[must_use]
    pub fn wants_zeroing(&self) -> bool {
        self.zero_target().is_some()
    }

    /// The zeroing that is due, because room was reserved or the stream nears the end of the zeroed space. One at a
    /// time.
    pub fn take_zero(&mut self) -> Option<ZeroJob<F>> {
        let target = self.zero_target()?;
        self.zeroing = Some(target);
        let preparation = match self.writes.take_mean_bytes() {
            mean if mean >= self.options.allocate_from_write_bytes => Preparation::Allocate,
            _ if self.reserved > self.zeroed => Preparation::ZeroNow,
            _ => Preparation::ZeroGently(Arc::clone(&self.hurry)),
        };
        self.hurry.store(false, Ordering::Relaxed);
        Some(ZeroJob::new(
            Rc::clone(&self.file),
            // In a file cut to its exact end, the rest of the last block may have no space.
            self.zeroed,
            target,
            preparation,
            self.resting.then_some(self.end),
        ))
    }

    /// Appends `parts` in order, copying each byte once, and returns the new end in bytes.
    ///
    /// # Errors
    /// [`AppendError::Failed`] if the file failed earlier; nothing is appended then.
    ///
    /// # Panics
    /// If the parts are longer than [`AppendFile::room`]: the caller's mistake.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, AppendError> {
        self.check()?;
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        assert!(
            left as u64 <= self.room(),
            "appended {left} bytes into {} of room",
            self.room()
        );
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let target = self.pending_with_space(left);
                let free = &mut target.buffer.as_mut_slice()[target.filled..];
                let count = free.len().min(rest.len());
                free[..count].copy_from_slice(&rest[..count]);
                target.filled += count;
                self.end += count as u64;
                left -= count;
                rest = &rest[count..];
            }
        }
        Ok(self.end)
    }

    /// The pending buffer for the next byte; a new one, sized for `left` bytes, if need be.
    fn pending_with_space(&mut self, left: usize) -> &mut Pending<F::Buffer> {
        let full = match self.pending.back() {
            Some(last) => last.filled == last.buffer.as_slice().len(),
            None => true,
        };
        if full {
            if !self.pending.is_empty() {
                // One buffer was too small for the bytes that arrive during a write: take larger ones.
                self.next_capacity = (self.next_capacity * 2).min(self.options.buffer_bytes_max);
            }
            // A full buffer ends on a block boundary; only the first pending one carries a tail.
            let carried = if self.pending.is_empty() {
                self.tail.as_slice()
            } else {
                &[]
            };
            let wanted = left.saturating_add(carried.len()).max(self.next_capacity);
            let mut buffer = self.file.buffer(wanted.min(self.options.buffer_bytes_max));
            buffer.as_mut_slice()[..carried.len()].copy_from_slice(carried);
            let position = self.end - carried.len() as u64;
            debug_assert_eq!(position, block_floor(self.end));
            self.pending.push_back(Pending {
                buffer,
                position,
                filled: carried.len(),
            });
        }
        self.pending
            .back_mut()
            .expect("a buffer was just pushed or had space")
    }

    /// Everything appended since the last write, as one write. `None` while a write is in flight (later appends form
    /// the next one), with nothing to write, or after a failure.
    pub fn take_write(&mut self) -> Option<WriteJob<F>> {
        if self.failed.is_some() || self.writing.is_some() || self.pending.is_empty() {
            return None;
        }
        let mut buffers = Vec::with_capacity(self.pending.len());
        for mut pending in self.pending.drain(..) {
            let padded = pending.filled.next_multiple_of(BLOCK_BYTES);
            // Registered memory is recycled: without this its old content would reach the disk.
            pending.buffer.as_mut_slice()[pending.filled..padded].fill(0);
            pending.buffer.truncate(padded);
            let tail_start = pending.filled - pending.filled % BLOCK_BYTES;
            self.tail.clear();
            self.tail
                .extend_from_slice(&pending.buffer.as_slice()[tail_start..pending.filled]);
            buffers.push((pending.buffer, pending.position));
        }
        self.writes.note(self.end - self.written);
        self.writing = Some(self.end);
        let sync_after = self.options.syncs_after_write();
        Some(WriteJob::new(
            Rc::clone(&self.file),
            buffers,
            self.end,
            sync_after,
        ))
    }

    /// For files of [`SyncMode::None`]: the sync that makes all written bytes durable. `None` if they are, while a
    /// sync is in flight, or after a failure.
    pub fn take_sync(&mut self) -> Option<SyncJob<F>> {
        if self.failed.is_some() || self.syncing || self.durable == self.written {
            return None;
        }
        self.syncing = true;
        Some(SyncJob::new(Rc::clone(&self.file), self.written))
    }

    /// Takes the result of a performed job.
    ///
    /// # Errors
    /// [`AppendError::Failed`] from the first failed write or sync on; [`AppendError::NoSpace`] when zeroing ahead
    /// found no space.
    ///
    /// # Panics
    /// If the job was not handed out by this file.
    pub fn complete(&mut self, result: JobResult) -> Result<Completed, AppendError> {
        match result {
            JobResult::Write { end, outcome } => {
                assert_eq!(
                    self.writing.take(),
                    Some(end),
                    "a write that was not handed out"
                );
                if self.record(outcome) {
                    self.written = end;
                    if self.options.sync == SyncMode::Data {
                        self.durable = end;
                    }
                }
            }
            JobResult::Sync { end, outcome } => {
                assert!(
                    std::mem::take(&mut self.syncing),
                    "a sync that was not handed out"
                );
                if self.record(outcome) {
                    self.durable = self.durable.max(end);
                }
            }
            JobResult::Zero { end, outcome, tail } => {
                assert_eq!(
                    self.zeroing.take(),
                    Some(end),
                    "a zeroing that was not handed out"
                );
                if let Some(tail) = tail {
                    (self.tail, self.resting) = (tail, false);
                }
                match outcome {
                    Err(error)
                        if is_not_now(&error) || error.kind() == io::ErrorKind::FileTooLarge =>
                    {
                        self.space_refused = true; // No job is due again before the next reserve.
                        self.reserved = self.end;
                        self.check()?;
                        return Err(AppendError::NoSpace(Arc::new(error)));
                    }
                    // A failed sync may have lost appended bytes as well.
                    outcome => {
                        if self.record(outcome) {
                            self.zeroed = end;
                        }
                    }
                }
            }
        }
        self.check()?;
        Ok(Completed {
            written: self.written,
            durable: self.durable,
        })
    }

    /// True when the outcome counts: a success, and no failure before.
    fn record(&mut self, outcome: io::Result<()>) -> bool {
        if let Err(error) = outcome {
            self.failed.get_or_insert_with(|| Arc::new(error));
        }
        self.failed.is_none()
    }

    /// Frees the memory an idle file does not need; its last incomplete block stays, less than 4 KiB.
    pub fn idle(&mut self) {
        self.next_capacity = self.options.buffer_bytes_min;
        if self.pending.is_empty() {
            self.pending.shrink_to_fit();
            self.tail.shrink_to_fit();
        }
    }

    /// Writes the pending bytes, cuts the file to its exact end, makes it durable and returns it. The last operation
    /// on this end.
    ///
    /// # Errors
    /// [`AppendError::Failed`], earlier or now; [`AppendError::NoSpace`] when a shortage prevented the cut: nothing
    /// has changed, and the call may be repeated.
    ///
    /// # Panics
    /// If a job is still in flight.
    pub async fn seal(&mut self) -> Result<Rc<F>, AppendError> {
        self.seal_with(true).await
    }

    /// As [`AppendFile::seal`], but where every byte is durable already, the length is so only with the next
    /// [`crate::World::sync_file_system`]: thousands of files would sync one after the other.
    ///
    /// # Errors
    /// As [`AppendFile::seal`].
    ///
    /// # Panics
    /// If a job is still in flight.
    pub async fn seal_unsynced(&mut self) -> Result<Rc<F>, AppendError> {
        self.seal_with(false).await
    }

    async fn seal_with(&mut self, syncs: bool) -> Result<Rc<F>, AppendError> {
        assert!(!self.has_job_in_flight(), "sealed with a job in flight");
        if let Some(job) = self.take_write() {
            let result = job.perform().await;
            self.complete(result)?;
        }
        self.check()?;
        let cut = match self.file.len() == self.end && self.durable == self.end {
            true => Ok(()),
            false if !syncs && self.durable == self.end => {
                self.file.set_len_unsynced(self.end).await
            }
            false => self.file.set_len(self.end).await,
        };
        match cut {
            Ok(()) => Ok(Rc::clone(&self.file)),
            Err(error) if is_not_now(&error) => Err(AppendError::NoSpace(Arc::new(error))),
            // It includes a sync: the content of the disk is unknown.
            Err(error) => {
                self.failed = Some(Arc::new(error));
                self.check()?;
                Ok(Rc::clone(&self.file))
            }
        }
    }
}
