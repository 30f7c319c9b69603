//! Copies a log's files from one directory to another, while the log is served and after that.
//!
//! Runs on the partition's shard, in pieces of [`COPY_PIECE_BYTES`], one on its way at a time. While
//! the log is served only what does not change any more is taken: sealed segments, and whole blocks
//! of the active one. Once it is closed [`Copy::finish`] holds every file against what was taken, and
//! makes the copy durable. Changes nothing where it copies from, and never says that a copy counts.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chronik_io::storage::{block_ceiling, block_floor};
use chronik_io::{BlockBuffer, DirEntry, File, OpenMode, OpenOptions, World};
use chronik_protocol::Uuid;

use super::checkpoint::{
    PARTITION_METADATA_FILE, parse_partition_metadata, partition_metadata_bytes, read_small,
};
use super::cleaner::{CleanError, Pace};
use super::directory::{FileKind, PartitionDir, PartitionDirState, SegmentFile};
use crate::limits::COPY_PIECE_BYTES;

/// Up to where a log that is served does not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Segments with smaller base offsets are sealed.
    pub base_offset: i64,
    /// Bytes of the segment with this base offset that are written.
    pub bytes: u64,
}

/// What is taken of one file.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// Bytes from the file's start.
    bytes: u64,
    /// When all of it was taken: the length and time its directory told before.
    whole: Option<(u64, i64)>,
}

/// A log that is copied; see the module's text.
#[derive(Debug)]
pub struct Copy {
    pub(crate) from: PathBuf,
    /// The directory of the copy, `-future`.
    pub to: PathBuf,
    taken: BTreeMap<String, Taken>,
    progress: Rc<Cell<Progress>>,
}

/// How far a copy is, for whoever asks meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of segments copied so far.
    pub bytes: u64,
    /// Everything below is in the copy.
    pub next_offset: i64,
}

impl Copy {
    /// Nothing copied yet.
    pub fn new(from: &Path, to: &Path) -> Copy {
        Copy {
            from: from.to_owned(),
            to: to.to_owned(),
            taken: BTreeMap::new(),
            progress: Rc::default(),
        }
    }

    /// How far it is, also while a step of it is on its way.
    pub fn progress(&self) -> Rc<Cell<Progress>> {
        Rc::clone(&self.progress)
    }

    fn note(&self, file: SegmentFile) {
        let logs = self
            .taken
            .iter()
            .filter(|(name, _)| name.ends_with(FileKind::Log.extension()));
        let next_offset = self.progress.get().next_offset.max(file.offset);
        let bytes = logs.map(|(_, taken)| taken.bytes).sum();
        self.progress.set(Progress { bytes, next_offset });
    }

    /// Makes the directory that is copied to. Other copies of the same partition beside it, which an
    /// earlier try has left, are renamed away first: no start may take one of them for this one.
    ///
    /// # Errors
    /// When the disk refuses, or where the partition's live directory should go something lies.
    pub async fn begin<W: World>(&self, world: &W, topic_id: Uuid) -> io::Result<()> {
        let (name, parent) = (name_of(&self.to), self.to.parent());
        let (Some(ours), Some(parent)) = (PartitionDir::parse(name), parent) else {
            return Err(io::Error::other("not the name of a copy"));
        };
        for found in &futures(world, parent).await? {
            let is_same = found.dir.topic == ours.topic && found.dir.index == ours.index;
            if is_same
                || topic_of(world, &found.path).await? == Some(topic_id)
                    && found.dir.index == ours.index
            {
                // The space is wanted for the new one.
                if let Some(garbage) = discard(world, &found.path).await? {
                    world.remove_dir_all(&garbage).await?;
                }
            }
        }
        world.create_dir_all(&self.to).await?;
        let metadata = partition_metadata_bytes(topic_id);
        let path = self.to.join(PARTITION_METADATA_FILE);
        world.write_file_atomic(&path, &metadata).await
    }

    /// Takes what is settled and not taken yet; says how many bytes that was.
    ///
    /// # Errors
    /// [`CleanError::Cancelled`] when the pace says so, else when the disk refuses.
    pub async fn take<W: World>(
        &mut self,
        world: &W,
        settled: Settled,
        (pace, rests): (&mut Pace<W>, bool),
    ) -> Result<u64, CleanError> {
        let mut moved = 0;
        for entry in world.list_dir(&self.from).await? {
            let Some((name, file)) = segment_file(&entry) else {
                continue;
            };
            if file.offset > settled.base_offset {
                continue;
            }
            let taken = self.taken.get(name).copied();
            let end = match file.offset == settled.base_offset {
                false if is_taken(taken, &entry) => continue,
                false => None,
                true if file.kind == FileKind::Log => Some(block_floor(settled.bytes)),
                true => continue,
            };
            let from = taken.map_or(0, |taken| taken.bytes);
            let from = if taken.is_some_and(|taken| taken.whole.is_some()) {
                0
            } else {
                from
            };
            match self
                .copy_file(
                    world,
                    (name, &entry),
                    (from, end),
                    Some((&mut *pace, rests)),
                )
                .await
            {
                Ok(bytes) => moved += bytes,
                // Retention was faster.
                Err(CleanError::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            if file.kind == FileKind::Log {
                self.note(file);
            }
        }
        Ok(moved)
    }

    /// Takes the rest of a log that is closed, removes what it does not have any more, and makes
    /// everything durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn finish<W: World>(&mut self, world: &W) -> io::Result<()> {
        let entries = world.list_dir(&self.from).await?;
        let wanted = |entry: &&DirEntry| {
            let name = entry.name.to_str().unwrap_or_default();
            let is_leftover = SegmentFile::parse(name).is_some_and(|file| file.leftover.is_some());
            let is_half = Path::new(name).extension().is_some_and(|end| end == "tmp");
            !entry.is_dir && !name.is_empty() && !is_leftover && !is_half
        };
        let wanted: Vec<&DirEntry> = entries.iter().filter(wanted).collect();
        for entry in &wanted {
            let name = entry.name.to_str().unwrap_or_default();
            let taken = self.taken.get(name).copied();
            if is_taken(taken, entry) {
                continue;
            }
            let begun = taken.filter(|taken| taken.whole.is_none());
            let from = begun.map_or(0, |taken| taken.bytes);
            let copied = self.copy_file(world, (name, entry), (from, None), None);
            copied.await.map_err(|error| match error {
                CleanError::Io(error) => error,
                other => io::Error::other(format!("{other:?}")),
            })?;
        }
        for entry in world.list_dir(&self.to).await? {
            if !wanted.iter().any(|wanted| wanted.name == entry.name) && !entry.is_dir {
                world.remove_file(&self.to.join(&entry.name)).await?;
            }
        }
        world.sync_dir(&self.to).await
    }

    /// Copies a file from a byte on, to its end or to another, and makes the copy durable.
    async fn copy_file<W: World>(
        &mut self,
        world: &W,
        (name, entry): (&str, &DirEntry),
        (from, end): (u64, Option<u64>),
        mut pace: Option<(&mut Pace<W>, bool)>,
    ) -> Result<u64, CleanError> {
        let end_byte = end.unwrap_or(entry.len);
        let mut position = block_floor(from.min(end_byte));
        if end.is_some() && position >= end_byte {
            return Ok(0);
        }
        let source = world
            .open_file(&self.from.join(name), OpenMode::Read)
            .await?;
        let options = OpenOptions::from(OpenMode::ReadWriteCreate).without_entry_sync();
        let target = world.open_file(&self.to.join(name), options).await?;
        let began = position;
        while position < end_byte {
            let len = usize::try_from(end_byte - position)
                .unwrap_or(usize::MAX)
                .min(COPY_PIECE_BYTES);
            let bytes = source.read_at(position, len).await?;
            if bytes.len() < len {
                let error = format!("{name} ends before byte {end_byte}");
                return Err(CleanError::Io(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    error,
                )));
            }
            let padded = usize::try_from(block_ceiling(len as u64)).unwrap_or(COPY_PIECE_BYTES);
            let mut buffer = target.buffer(padded);
            buffer.truncate(padded);
            let (filled, padding) = buffer.as_mut_slice().split_at_mut(len);
            filled.copy_from_slice(&bytes);
            padding.fill(0);
            target.write_at(buffer, position).await?;
            position += len as u64;
            match &mut pace {
                Some((pace, true)) => pace.moved(len).await?,
                Some((pace, false)) => pace.rest().await?,
                None => world.pause().await,
            }
        }
        if target.len() != end_byte {
            target.set_len(end_byte).await?;
        }
        target.sync_data().await?;
        target.close().await?;
        source.close().await?;
        let whole = end.is_none().then_some((entry.len, entry.modified_ns));
        let taken = Taken {
            bytes: end_byte,
            whole,
        };
        self.taken.insert(name.to_owned(), taken);
        Ok(end_byte - began)
    }
}

fn is_taken(taken: Option<Taken>, entry: &DirEntry) -> bool {
    taken.is_some_and(|taken| taken.whole == Some((entry.len, entry.modified_ns)))
}

/// A file of a segment, by its directory's entry; nothing that is only left over.
fn segment_file(entry: &DirEntry) -> Option<(&str, SegmentFile)> {
    let name = entry.name.to_str().filter(|_| !entry.is_dir)?;
    let file = SegmentFile::parse(name).filter(|file| file.leftover.is_none())?;
    Some((name, file))
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// A copy that is not in use.
#[derive(Clone, Debug)]
pub struct Future {
    /// Its directory.
    pub path: PathBuf,
    /// What the directory's name says.
    pub dir: PartitionDir,
}

/// The copies in a log directory that are not in use (`-future`).
pub async fn futures<W: World>(world: &W, parent: &Path) -> io::Result<Vec<Future>> {
    let mut found = Vec::new();
    for entry in world.list_dir(parent).await? {
        let Some(name) = entry.name.to_str().filter(|_| entry.is_dir) else {
            continue;
        };
        let dir = PartitionDir::parse(name);
        if let Some(dir) = dir.filter(|dir| dir.state == PartitionDirState::Future) {
            let path = parent.join(name);
            found.push(Future { path, dir });
        }
    }
    Ok(found)
}

/// Whose log a directory holds, if it says so.
pub async fn topic_of<W: World>(world: &W, dir: &Path) -> io::Result<Option<Uuid>> {
    let bytes = read_small(world, &dir.join(PARTITION_METADATA_FILE)).await?;
    Ok(bytes.and_then(|bytes| parse_partition_metadata(&bytes).ok()))
}

/// Whether a partition's directory has the name of a deleted one.
pub fn is_garbage(path: &Path) -> bool {
    PartitionDir::parse(name_of(path)).is_some_and(|dir| dir.state == PartitionDirState::Deleted)
}

/// Renames a partition's directory, whatever its state, so that from then on it is garbage, and gives
/// its new path; `None` where there is none.
///
/// # Errors
/// When the disk refuses: then nobody knows under which name a power cut leaves it.
pub async fn discard<W: World>(world: &W, path: &Path) -> io::Result<Option<PathBuf>> {
    let Some(dir) = PartitionDir::parse(name_of(path)) else {
        return Err(io::Error::other("not a partition's directory"));
    };
    let state = PartitionDirState::Deleted;
    let name = PartitionDir::marked_name(&dir.topic, dir.index, world.random_u128(), state);
    let renamed = path.with_file_name(name);
    match world.rename(path, &renamed).await {
        Ok(()) => Ok(Some(renamed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
