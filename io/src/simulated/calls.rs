//! What the broker calls of a `SimulatedWorld`: the `World` of a simulation.
//!
//! Owns what each call does to the names and files of the simulated disk, and in which steps, between which the
//! machine may end. Runs on the simulation's only thread; never touches a real file or clock.

use super::disk::{Change, Disk, Node};
use super::executor::Sleep;
use super::fault::Operation;
use super::file::SimulatedFile;
use super::mapping::SimulatedMapping;
use super::world::SimulatedWorld;
use crate::open_names::Name;
use crate::storage::{BlockBuffer, File, Preparation, block_ceiling};
use crate::world::{DirEntry, OpenMode, OpenOptions, World};
use bytes::Bytes;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

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
        self.rename_unsynced(from, to).await?;
        if from.parent() != to.parent() {
            self.sync_parent(from).await?;
        }
        self.sync_parent(to).await
    }

    async fn rename_unsynced(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
            .await
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
        self.cut_unsynced(file.inode().await?, content.len() as u64);
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
