//! Directory operations and whole files, each durable when it returns where its name does not say otherwise.
//!
//! Owns the order of system calls that makes them so. Plain blocking code for a shard's helper threads; never
//! runs on a shard.

use super::open_files::Identity;
use crate::shortage::is_not_now;
use crate::storage::BLOCK_BYTES;
use crate::world::{DirEntry, OpenMode, OpenOptions};
use bytes::{BufMut, Bytes, BytesMut};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes read at a time from a file.
const READ_CHUNK_BYTES: usize = 64 * 1024;

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs a written file of its own afterwards, or an existing one where no block is free: a file system with
/// nothing to write would not flush the device.
pub(super) fn sync_file_system(path: &Path) -> io::Result<()> {
    let dir = File::open(path)?;
    rustix::fs::syncfs(&dir)?;
    match written_probe(path) {
        Err(error) if is_not_now(&error) => flush_without_space(path, &dir),
        probed => probed.map(drop),
    }
}

/// Flushes the device without a block of its own. The directory's new times make a transaction of the
/// journal, and a sync of a file flushes though nothing of it is new (`ext4_sync_file`, `xfs_file_fsync`).
fn flush_without_space(path: &Path, dir: &File) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::futimens(dir, &times)?;
    dir.sync_all()?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            return File::open(entry.path())?.sync_all();
        }
    }
    Ok(())
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Opens the parent directory before a change in it, for the sync after it: without a free descriptor nothing
/// has happened then, and the change can be tried again.
fn open_parent(path: &Path) -> io::Result<Option<File>> {
    path.parent().map(File::open).transpose()
}

fn sync_opened(dir: Option<File>) -> io::Result<()> {
    dir.map_or(Ok(()), |dir| dir.sync_all())
}

pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.is_dir()).collect();
    for dir in missing.into_iter().rev() {
        let parent = open_parent(dir)?;
        match fs::create_dir(dir) {
            Ok(()) => sync_opened(parent)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn remove_dir_all(path: &Path) -> io::Result<()> {
    let parent = open_parent(path)?;
    fs::remove_dir_all(path)?;
    sync_opened(parent)
}

/// Renames. The outer error: not renamed; the inner one: renamed, perhaps not durably.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<io::Result<()>> {
    let (old, new) = (open_parent(from)?, open_parent(to)?);
    fs::rename(from, to)?;
    let synced = match from.parent() == to.parent() {
        true => Ok(()),
        false => sync_opened(old),
    };
    Ok(synced.and_then(|()| sync_opened(new)))
}

/// Removes a file. One of more than `keeps_from` bytes is returned open, with its length: closing the last
/// descriptor takes time by the length.
pub(super) fn remove_file(path: &Path, keeps_from: u64) -> io::Result<Option<(File, u64)>> {
    let parent = open_parent(path)?;
    let metadata = fs::symlink_metadata(path)?;
    let kept = match metadata.is_file() && metadata.len() > keeps_from {
        // A file that cannot be opened is removed at once.
        true => fs::OpenOptions::new().write(true).open(path).ok(),
        false => None,
    };
    fs::remove_file(path)?;
    sync_opened(parent)?;
    Ok(kept.map(|file| (file, metadata.len())))
}

/// The files in and below a directory that have more than `bytes`.
pub(super) fn files_longer_than(path: &Path, bytes: u64) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![path.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && entry.metadata().is_ok_and(|it| it.len() > bytes) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

pub(super) fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the listing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = metadata.is_dir();
        let len = if is_dir { 0 } else { metadata.len() };
        entries.push(DirEntry {
            name: entry.file_name(),
            is_dir,
            len,
            modified_ns: metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec()),
        });
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

pub(super) fn read_file(path: &Path, max_bytes: usize) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let too_large = || {
        let message = format!("{} has more than {max_bytes} bytes", path.display());
        io::Error::new(io::ErrorKind::FileTooLarge, message)
    };
    let expected = usize::try_from(len).ok().filter(|len| *len <= max_bytes);
    let mut content = BytesMut::with_capacity(expected.ok_or_else(too_large)?);
    let mut chunk = vec![0; READ_CHUNK_BYTES];
    let mut file = file;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok(content.freeze());
        }
        if content.len() + count > max_bytes {
            return Err(too_large());
        }
        content.put_slice(&chunk[..count]);
    }
}

pub(super) fn write_file_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    rename(&temporary, path)?
}

/// As [`write_file_atomic`], without the syncs.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}

/// The kernel's id of this boot.
pub(super) fn boot_id() -> io::Result<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|char| *char != '-').collect();
    u128::from_str_radix(&digits, 16)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A file opened by its name.
pub(super) struct Named {
    pub(super) descriptor: OwnedFd,
    /// Length, bytes.
    pub(super) len: u64,
    /// Device and inode.
    pub(super) identity: Identity,
}

/// Opens as asked.
pub(super) fn open(path: &Path, options: OpenOptions) -> io::Result<Named> {
    let mut how = fs::OpenOptions::new();
    how.read(true).write(options.mode != OpenMode::Read);
    let creates = options.mode == OpenMode::ReadWriteCreate;
    let file = match how.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && creates => {
            how.create(true).open(path)?
        }
        opened => opened?,
    };
    if creates && options.sync_entry {
        sync_parent(path)?;
    }
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(Named {
        descriptor: OwnedFd::from(file),
        len: metadata.len(),
        identity: (metadata.dev(), metadata.ino()),
    })
}

/// The path of an open descriptor of this process, whatever the file's name is by now.
pub(super) fn descriptor_path(descriptor: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{descriptor}"))
}

/// Looks at a device as glommio does with a thread's first file there, with one more descriptor held for that file:
/// glommio panics where this is too short of something.
pub(super) fn look_at_device(device: u64) -> io::Result<()> {
    let short = |error: io::Error| is_not_now(&error).then_some(error).map_or(Ok(()), Err);
    let _file = File::open("/proc/self")?;
    // The whole disk of a partition, as glommio has it; what is no disk has no such entry.
    let disk = format!("/sys/dev/block/{}:0", rustix::fs::major(device));
    let read = fs::canonicalize(disk).and_then(|disk| fs::read(disk.join("queue/rotational")));
    read.map(drop).or_else(short)
}

/// An unnamed file in `dir` with one written block that is not all zeros.
pub(super) fn written_probe(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(descriptor) => File::from(descriptor),
        // Not every file system has unnamed files.
        Err(_) => {
            let path = dir.join(format!(".probe-{}.tmp", std::process::id()));
            let mut how = fs::OpenOptions::new();
            let file = how
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            fs::remove_file(&path)?;
            file
        }
    };
    file.write_all_at(&[0x5a; BLOCK_BYTES], 0)?;
    file.sync_all()?;
    Ok(file)
}
