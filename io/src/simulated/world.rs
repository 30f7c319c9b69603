//! `SimulatedWorld`: the `World` of a simulation.
//!
//! Owns the seeded latency between a call and the disk, so that completions come out of order, and the faults
//! due. Runs on the simulation's only thread; never touches a real file or clock.

use super::Core;
use super::disk::{Change, Disk, Node};
use super::executor::Sleep;
use super::fault::{Fault, Operation};
use super::mapping::SimulatedMapping;
use crate::open_names::Name;
use crate::shortage::is_not_now;
use crate::storage::{BLOCK_BYTES, BlockBuffer, File, Preparation, block_ceiling};
use crate::world::{DirEntry, OpenMode, OpenOptions, World};
use bytes::Bytes;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Pause between two attempts to reopen a file.
const REOPENING_PAUSE: Duration = Duration::from_millis(10);

/// The world of a [`super::Simulation`]; clones are further shards on the same disk.
#[derive(Clone)]
pub struct SimulatedWorld {
    pub(super) core: Rc<Core>,
}

impl SimulatedWorld {
    pub(super) fn disk<T>(&self, access: impl FnOnce(&mut Disk) -> T) -> T {
        self.core.disk(access)
    }

    fn below(&self, bound: u64) -> u64 {
        self.core.random.borrow_mut().below(bound)
    }

    /// Waits as long as a device might: mostly some 10 µs, now and then milliseconds.
    async fn latency(&self) {
        let bound_ns = if self.below(32) == 0 {
            5_000_000
        } else {
            150_000
        };
        let wait_ns = 5_000 + self.below(bound_ns);
        let _outstanding = self.core.begin_io();
        Sleep::new(Rc::clone(&self.core), self.core.executor.now_ns() + wait_ns).await;
    }

    pub(super) fn fault(&self, operation: Operation, path: &Path) -> Option<Fault> {
        self.core.fault(operation, path)
    }

    /// True when the file was closed since its last use, because others needed its descriptor.
    fn closes_file(&self) -> bool {
        let ppm = self.core.closing_ppm.get();
        ppm > 0 && self.core.random.borrow_mut().chance(ppm)
    }

    /// Waits the latency, then returns the fault due, if any.
    async fn begin(&self, operation: Operation, path: &Path) -> io::Result<()> {
        assert!(path.is_absolute(), "{} is not absolute", path.display());
        self.latency().await;
        match self.fault(operation, path) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    /// Makes the changes in the directory of `path` durable.
    async fn sync_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) => self.sync_dir(parent).await,
            None => Ok(()),
        }
    }

    async fn change(&self, change: Change) -> io::Result<()> {
        let (Change::Create(path, _) | Change::Remove(path) | Change::Rename(path, _)) = &change;
        self.begin(Operation::Directory, path).await?;
        self.disk(|disk| disk.change(change.clone()))?;
        match &change {
            Change::Create(..) => {}
            Change::Remove(path) => self.core.names.removed(path),
            Change::Rename(from, to) => self.core.names.renamed(from, to),
        }
        Ok(())
    }

    /// Cuts the excess of a write in whole blocks after the end.
    async fn cut_unsynced(&self, file: &SimulatedFile, len: u64) -> io::Result<()> {
        let inode = file.inode().await?;
        self.disk(|disk| disk.inode(inode).cut_unsynced(len));
        Ok(())
    }

    /// The free bytes of the disk, when the growth does not fit.
    fn space_for(&self, inode: u64, range: Range<u64>) -> Option<u64> {
        let space = self.core.faults.borrow().space()?;
        let block_bytes = self.core.faults.borrow().block_bytes();
        self.disk(|disk| {
            let growth = disk.inode(inode).growth_bytes(range, block_bytes);
            let free = space.saturating_sub(disk.used_bytes(block_bytes));
            (growth > free).then_some(free)
        })
    }
}

impl World for SimulatedWorld {
    type File = SimulatedFile;
    type Mapping = SimulatedMapping;
    type Sleep = Sleep;

    fn now_ms(&self) -> i64 {
        let since_ms = self.core.executor.now_ns() / 1_000_000;
        self.core.wall_origin_ms.get() + i64::try_from(since_ms).unwrap_or(i64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        self.core.executor.now_ns()
    }

    fn sleep_until(&self, deadline_ns: u64) -> Sleep {
        Sleep::new(Rc::clone(&self.core), deadline_ns)
    }

    async fn pause(&self) {
        self.sleep_until(self.monotonic_ns() + 1_000).await;
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.pause().await;
        Ok(work())
    }

    async fn compute_long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.latency().await;
        Ok(work())
    }

    fn random_u64(&self) -> u64 {
        self.core.random.borrow_mut().next_u64()
    }

    fn random_u128(&self) -> u128 {
        u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.core.executor.spawn(Box::pin(task));
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        for ancestor in path.ancestors() {
            match self.disk(|disk| disk.lookup(ancestor)) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => missing.push(ancestor.to_owned()),
            }
        }
        for dir in missing.into_iter().rev() {
            self.begin(Operation::Directory, &dir).await?;
            // Another call may have created it while this one waited.
            if self.disk(|disk| disk.lookup(&dir)).is_none() {
                self.disk(|disk| disk.change(Change::Create(dir.clone(), Node::Dir)))?;
            }
            self.sync_parent(&dir).await?;
        }
        Ok(())
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.disk(|disk| disk.lookup(path)) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        for name in self.disk(|disk| disk.below(path)) {
            self.change(Change::Remove(name)).await?;
        }
        self.sync_parent(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
            .await?;
        if from.parent() != to.parent() {
            self.sync_parent(from).await?;
        }
        self.sync_parent(to).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk(|disk| disk.file(path))?;
        self.change(Change::Remove(path.to_owned())).await?;
        self.sync_parent(path).await
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.begin(Operation::Read, path).await?;
        self.disk(|disk| disk.list(path))
    }

    async fn read_file(&self, path: &Path, max_bytes: usize) -> io::Result<Bytes> {
        self.begin(Operation::Read, path).await?;
        self.disk(|disk| {
            let inode = disk.file(path)?;
            let inode = disk.inode(inode);
            if inode.len() > max_bytes as u64 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(Bytes::copy_from_slice(inode.read(0, max_bytes)))
        })
    }

    async fn write_bytes_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mode = OpenOptions::from(OpenMode::ReadWriteCreate).without_entry_sync();
        let file = self.open_file(&temporary, mode).await?;
        file.set_len(0).await?;
        let mut buffer = file.buffer(content.len());
        buffer.as_mut_slice().fill(0);
        buffer.as_mut_slice()[..content.len()].copy_from_slice(&content);
        file.write_at(buffer, 0).await?;
        file.sync_data().await?;
        file.set_len(content.len() as u64).await?;
        file.close().await?;
        self.rename(&temporary, path).await
    }

    async fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mode = OpenOptions::from(OpenMode::ReadWriteCreate).without_entry_sync();
        let file = self.open_file(&temporary, mode).await?;
        file.set_len(content.len() as u64).await?;
        let mut buffer = file.buffer(content.len());
        buffer.as_mut_slice().fill(0);
        buffer.as_mut_slice()[..content.len()].copy_from_slice(content);
        file.write_at(buffer, 0).await?;
        self.cut_unsynced(&file, content.len() as u64).await?;
        self.change(Change::Rename(temporary, path.to_owned()))
            .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.begin(Operation::Directory, path).await?;
        self.disk(|disk| disk.sync_dir(path));
        Ok(())
    }

    async fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.latency().await;
        if let Some(fault) = self.fault(Operation::Sync, path) {
            return Err(fault.error());
        }
        self.disk(Disk::sync_all);
        Ok(())
    }

    fn resting_file(
        &self,
        path: &Path,
        options: impl Into<OpenOptions>,
        len: u64,
    ) -> SimulatedFile {
        SimulatedFile {
            world: self.clone(),
            opened: Cell::new(None),
            resting_len: len,
            path: path.to_owned(),
            name: Name::new(path.to_owned()),
            options: options.into(),
        }
    }

    async fn open_file(
        &self,
        path: &Path,
        options: impl Into<OpenOptions>,
    ) -> io::Result<SimulatedFile> {
        let options = options.into();
        self.begin(Operation::Open, path).await?;
        let creates = options.mode == OpenMode::ReadWriteCreate;
        let inode = match self.disk(|disk| disk.file(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && creates => {
                self.disk(|disk| disk.create_file(path))?
            }
            found => found?,
        };
        if creates && options.sync_entry {
            self.sync_parent(path).await?;
        }
        let name = Name::new(path.to_owned());
        self.core.names.follow(&name);
        Ok(SimulatedFile {
            world: self.clone(),
            opened: Cell::new(Some(inode)),
            resting_len: 0,
            path: path.to_owned(),
            name,
            options,
        })
    }

    async fn create_mapping(&self, path: &Path, len: usize) -> io::Result<SimulatedMapping> {
        if self.disk(|disk| disk.lookup(path)).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.open_file(path, OpenMode::ReadWriteCreate).await?;
        if let Err(error) = file
            .prepare(0, block_ceiling(len as u64), Preparation::ZeroNow)
            .await
        {
            self.remove_file(path).await?;
            return Err(error);
        }
        Ok(SimulatedMapping {
            core: Rc::clone(&self.core),
            inode: file.inode().await?,
            path: path.to_owned(),
            len,
        })
    }

    async fn boot_id(&self) -> io::Result<u128> {
        Ok(self.core.boot_id)
    }

    async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.begin(Operation::Read, path).await?;
        let (space, block_bytes) = {
            let faults = self.core.faults.borrow();
            (faults.space(), faults.block_bytes())
        };
        Ok(space.map_or(u64::MAX, |space| {
            self.disk(|disk| space.saturating_sub(disk.used_bytes(block_bytes)))
        }))
    }
}

/// A file of a [`SimulatedWorld`].
pub struct SimulatedFile {
    world: SimulatedWorld,
    /// `None` for a file that rests.
    opened: Cell<Option<u64>>,
    resting_len: u64,
    /// The path it was opened at.
    path: PathBuf,
    /// The current name.
    name: Rc<Name>,
    options: OpenOptions,
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
    async fn inode(&self) -> io::Result<u64> {
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
