//! Writes the file of a cleaned segment, front to back.
//!
//! Runs on the partition's shard. Holds one buffer and has one write on its way. Nothing is durable
//! before [`SegmentWriter::finish`], and nobody knows of the file before that.

use std::io;
use std::path::Path;
use std::rc::Rc;

use chronik_io::storage::block_ceiling;
use chronik_io::{BlockBuffer, File, OpenMode, OpenOptions, World};

/// Bytes of one write.
const WRITE_BYTES: usize = 256 << 10;

/// See the module's text.
pub(super) struct SegmentWriter<W: World> {
    file: W::File,
    buffer: Option<<W::File as File>::Buffer>,
    filled: usize,
    /// Where the buffer goes.
    position: u64,
}

impl<W: World> SegmentWriter<W> {
    /// Creates the file, or empties what an earlier try has left.
    pub(super) async fn create(world: &W, path: &Path) -> io::Result<Self> {
        let options = OpenOptions::from(OpenMode::ReadWriteCreate).without_entry_sync();
        let file = world.open_file(path, options).await?;
        if !file.is_empty() {
            file.set_len(0).await?;
        }
        Ok(Self {
            file,
            buffer: None,
            filled: 0,
            position: 0,
        })
    }

    /// Bytes so far.
    pub(super) fn end(&self) -> u64 {
        self.position + self.filled as u64
    }

    /// Adds bytes; says how many were written to the disk meanwhile.
    pub(super) async fn append(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while !bytes.is_empty() {
            let file = &self.file;
            let buffer = self.buffer.get_or_insert_with(|| file.buffer(WRITE_BYTES));
            let space = buffer.as_mut_slice();
            let room = space.get_mut(self.filled..WRITE_BYTES).unwrap_or_default();
            let taken = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            if let Some(room) = room.get_mut(..taken) {
                room.copy_from_slice(now);
            }
            self.filled += taken;
            bytes = later;
            if self.filled == WRITE_BYTES {
                written += self.write().await?;
            }
        }
        Ok(written)
    }

    async fn write(&mut self) -> io::Result<usize> {
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(0);
        };
        let padded = usize::try_from(block_ceiling(self.filled as u64)).unwrap_or(WRITE_BYTES);
        buffer.truncate(padded);
        if let Some(padding) = buffer.as_mut_slice().get_mut(self.filled..) {
            padding.fill(0);
        }
        self.file.write_at(buffer, self.position).await?;
        self.position += self.filled as u64;
        self.filled = 0;
        Ok(padded)
    }

    /// Writes the rest, cuts the padding, and makes everything durable.
    pub(super) async fn finish(mut self) -> io::Result<Rc<W::File>> {
        let end = self.end();
        self.write().await?;
        if self.file.len() != end {
            self.file.set_len(end).await?;
        }
        self.file.sync_data().await?;
        Ok(Rc::new(self.file))
    }
}
