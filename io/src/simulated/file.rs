//! `SimulatedFile`: an open file of a simulation.
//!
//! Owns a file's reads, writes, cuts and syncs, each with the latency and the faults of its world, and its reopening
//! after it was closed for others. Runs on the simulation's only thread; never touches a real file.

use super::fault::{Fault, Operation};
use super::world::SimulatedWorld;
use crate::open_names::Name;
use crate::shortage::is_not_now;
use crate::storage::{BLOCK_BYTES, BlockBuffer, File, Preparation, block_ceiling};
use crate::world::{OpenMode, OpenOptions, World};
use bytes::Bytes;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Pause between two attempts to reopen a file.
const REOPENING_PAUSE: Duration = Duration::from_millis(10);

/// A file of a [`SimulatedWorld`].
pub struct SimulatedFile {
    pub(super) world: SimulatedWorld,
    /// `None` for a file that rests.
    pub(super) opened: Cell<Option<u64>>,
    pub(super) resting_len: u64,
    /// The path it was opened at.
    pub(super) path: PathBuf,
    /// The current name.
    pub(super) name: Rc<Name>,
    pub(super) options: OpenOptions,
}

/// A write handed to the device. If its future is dropped it may or may not happen, as with io_uring.
struct UnderWay<'a> {
    world: &'a SimulatedWorld,
    id: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let len = self.world.disk(|disk| disk.write_len(self.id));
        if len > 0 {
            let done = if self.world.below(2) == 0 { 0 } else { len };
            self.world.disk(|disk| disk.finish_write(self.id, done));
        }
    }
}

impl SimulatedFile {
    fn writable(&self) -> io::Result<()> {
        match self.options.mode {
            OpenMode::Read => Err(io::ErrorKind::PermissionDenied.into()),
            OpenMode::ReadWrite | OpenMode::ReadWriteCreate => Ok(()),
        }
    }

    /// The inode, found by the first use, and by name again where the file was closed for others.
    pub(super) async fn inode(&self) -> io::Result<u64> {
        match self.opened.get() {
            None => self.open_first().await,
            // A file without a name stays open.
            Some(inode) if self.world.closes_file() && self.name.exists() => {
                self.open_again(inode).await
            }
            Some(inode) => Ok(inode),
        }
    }

    async fn open_first(&self) -> io::Result<u64> {
        self.world.begin(Operation::Read, &self.path).await?;
        let path = self.name.path().ok_or(io::ErrorKind::NotFound)?;
        let inode = self.world.disk(|disk| disk.file(&path))?;
        let (len, expected) = (
            self.world.disk(|disk| disk.inode(inode).len()),
            self.resting_len,
        );
        if self.opened.get().is_none() && len != expected {
            let what = format!("{} has {len} bytes, not {expected}", self.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if self.opened.replace(Some(inode)).is_none() {
            self.world.core.names.follow(&self.name);
        }
        Ok(inode)
    }

    /// Reopens the file however long that takes: an acknowledged promise must not fail because the file was closed.
    async fn open_again(&self, inode: u64) -> io::Result<u64> {
        while let Err(error) = self.world.begin(Operation::Read, &self.path).await {
            if !is_not_now(&error) {
                return Err(error);
            }
            self.world.sleep_for(REOPENING_PAUSE).await;
        }
        let Some(path) = self.name.path() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let found = self.world.disk(|disk| disk.file(&path))?;
        if found != inode {
            let what = format!("{} is another file than it was", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(inode)
    }

    async fn write(
        &self,
        data: Vec<u8>,
        position: u64,
        operation: Operation,
        write_through: bool,
    ) -> io::Result<()> {
        self.writable()?;
        assert!(
            position.is_multiple_of(BLOCK_BYTES as u64) && data.len().is_multiple_of(BLOCK_BYTES)
        );
        let len = data.len();
        let inode = self.inode().await?;
        let under_way = UnderWay {
            world: &self.world,
            id: self
                .world
                .disk(|disk| disk.begin_write(inode, position, data)),
        };
        self.world.latency().await;
        let fault = match self.world.space_for(inode, position..position + len as u64) {
            Some(free) => Some((
                Fault::NoSpace,
                len.min(usize::try_from(free).unwrap_or(len)),
            )),
            None => self
                .world
                .fault(operation, &self.path)
                .map(|fault| match fault {
                    Fault::Broken | Fault::Short => (fault, self.world.below(len as u64) as usize),
                    _ => (fault, 0),
                }),
        };
        let done = fault.map_or(len, |(_, done)| done);
        self.world.disk(|disk| {
            disk.finish_write(under_way.id, done);
            if write_through && done > 0 {
                disk.inode(inode).sync_range(position, done as u64);
            }
        });
        fault.map_or(Ok(()), |(fault, _)| Err(fault.error()))
    }

    /// Allocates up to the next whole block.
    async fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        let inode = self.inode().await?;
        if self.world.space_for(inode, range.clone()).is_some() {
            return Err(Fault::NoSpace.error());
        }
        self.world.disk(|disk| disk.inode(inode).grow(range.end));
        Ok(())
    }
}

impl File for SimulatedFile {
    type Buffer = SimulatedBuffer;

    fn buffer(&self, capacity: usize) -> SimulatedBuffer {
        let used = self.opened.get().is_some();
        assert!(used, "a resting file is used before it is written to");
        let len = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        // Not zeros, so that a writer that forgets the padding is detected.
        SimulatedBuffer(vec![0xa5; len])
    }

    async fn write_at(&self, buffer: SimulatedBuffer, position: u64) -> io::Result<()> {
        self.write(
            buffer.0,
            position,
            Operation::Write,
            self.options.write_through,
        )
        .await
    }

    async fn prepare(&self, position: u64, len: u64, _how: Preparation) -> io::Result<()> {
        let (first, end) = (block_ceiling(position), position + len);
        if first > position {
            self.allocate(position..first).await?;
        }
        let zeros = usize::try_from(end.saturating_sub(first)).map_err(io::Error::other)?;
        self.write(vec![0; zeros], first, Operation::Zero, false)
            .await?;
        self.sync_data().await
    }

    async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let inode = self.inode().await?;
        self.world.begin(Operation::Read, &self.path).await?;
        Ok(self
            .world
            .disk(|disk| Bytes::copy_from_slice(disk.inode(inode).read(position, len))))
    }

    async fn sync_data(&self) -> io::Result<()> {
        let inode = self.inode().await?;
        let moment = self.world.disk(|disk| disk.inode(inode).now());
        self.world.latency().await;
        match self.world.fault(Operation::Sync, &self.path) {
            None => {
                self.world.disk(|disk| disk.inode(inode).sync(moment));
                Ok(())
            }
            Some(fault) => {
                let mut random = self.world.core.random.borrow_mut();
                self.world
                    .disk(|disk| disk.inode(inode).lose(moment, &mut random));
                Err(fault.error())
            }
        }
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let inode = self.inode().await?;
        self.world.begin(Operation::SetLen, &self.path).await?;
        self.world.disk(|disk| disk.inode(inode).set_len(len));
        self.world.latency().await;
        Ok(())
    }

    async fn set_len_unsynced(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let inode = self.inode().await?;
        self.world.begin(Operation::SetLen, &self.path).await?;
        self.world.cut_unsynced(inode, len);
        self.world.latency().await;
        Ok(())
    }

    fn len(&self) -> u64 {
        match self.opened.get() {
            Some(inode) => self.world.disk(|disk| disk.inode(inode).len()),
            None => self.resting_len,
        }
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.world.core.names.forget(&self.name);
    }
}

/// Memory of a simulated write.
pub struct SimulatedBuffer(Vec<u8>);

impl BlockBuffer for SimulatedBuffer {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn truncate(&mut self, len: usize) {
        assert!(len.is_multiple_of(BLOCK_BYTES) && len <= self.0.len());
        self.0.truncate(len);
    }
}
