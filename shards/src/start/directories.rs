//! The log directories at a start: whose they are, what the last run left in them, what is swept out.
//!
//! Runs on the designated shard, before anything is served. A directory that fails takes its own
//! partitions offline until the next start, whatever of it was read before (`LogManager#loadLogs`), but
//! for the first, which holds the catalogue. Where something is too short to change what the last run left,
//! that is left to the shards, which try it again. Where it is too short to look, the start ends with a
//! sentence, and the next one may go better: nothing is offline for want of a descriptor.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use chronik_catalog::{Image, METADATA_TOPIC};
use chronik_io::{DirEntry, World, is_not_now};
use chronik_log::checkpoint::{
    CLEAN_SHUTDOWN_FILE, CleanShutdown, PARTITION_METADATA_FILE, parse_partition_metadata,
    read_small,
};
use chronik_log::directory::{PartitionDir, PartitionDirState};
use chronik_partition::Partition;
use chronik_partition::remembered_logs::RememberedLogs;
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use super::{StartError, StartOptions, about};
use crate::checkpoint_files::{self, CheckpointOffsets, DeadNumbers, FoundFiles};
use crate::found_dirs::FoundDirs;
use crate::identity::{DirectoryIdentity, IdentityError};
use crate::internal::Leftover;
use crate::interrupted_moves::InterruptedMoves;
use crate::log_dirs::{LogDir, LogDirs};
use crate::metadata_log::OpenedCatalogue;
use crate::opening::{remove_behind, set_aside};
use crate::placing::{Placing, remove_all_beside};

/// Entries of a directory looked at before other tasks get their turn.
const ENTRIES_PER_SLICE: usize = 64;

/// Gives every directory after the first its identity, in the same cluster. Those that `failed` already
/// are left alone.
pub(super) async fn open_dirs<W: World>(
    world: &W,
    options: &StartOptions,
    first: &DirectoryIdentity,
    failed: &[PathBuf],
) -> Result<LogDirs, StartError> {
    let mut dirs = vec![LogDir {
        path: options.data.clone(),
        id: Some(first.directory_id),
    }];
    for path in &options.more_data {
        let opened = async {
            world.create_dir_all(path).await?;
            let cluster = Some(&first.cluster_id);
            DirectoryIdentity::load_or_create(world, path, options.node_id, cluster).await
        };
        let id = match failed.contains(path) {
            true => None,
            false => match opened.await {
                Ok(identity) => Some(identity.directory_id),
                Err(IdentityError::Io(error)) if is_not_now(&error) => {
                    return Err(about(path)(error));
                }
                Err(error) => {
                    tell_lost(path, &error);
                    None
                }
            },
        };
        let copied = dirs.iter().any(|dir| id.is_some() && dir.id == id);
        if let (true, Some(id)) = (copied, id) {
            tracing::error!(path = %path.display(), %id, "another log directory has this id: one is a copy");
        }
        dirs.push(LogDir {
            path: path.clone(),
            id: id.filter(|_| !copied),
        });
    }
    Ok(LogDirs::new(dirs))
}

/// Says that what lies in a directory is offline.
pub(super) fn tell_lost(path: &Path, error: impl std::fmt::Display) {
    tracing::error!(path = %path.display(), %error, "this log directory cannot be used; its partitions are offline");
}

/// Goes on without a directory.
///
/// # Errors
/// The error itself, if there is no start without that directory, or something is only too short.
fn lose(dirs: &mut LogDirs, path: &Path, error: StartError) -> Result<(), StartError> {
    if path == dirs.first() || error.is_not_now() {
        return Err(error);
    }
    tell_lost(path, &error);
    dirs.give_up(path);
    Ok(())
}

fn usable(dirs: &LogDirs) -> Vec<(PathBuf, Uuid)> {
    let usable = dirs.usable();
    usable.map(|(path, id)| (path.to_owned(), id)).collect()
}

/// What the last run left in the directories.
#[derive(Default)]
pub(super) struct Look {
    /// The broker epoch of the clean stop, if it left its marker everywhere.
    pub(super) clean: Option<i64>,
    looked: bool,
    files: Vec<FoundFiles>,
    pub(super) found: FoundDirs,
    /// The list of the first.
    pub(super) entries: Vec<DirEntry>,
    pub(super) remembered: RememberedLogs,
    /// The directories whose file systems were too short of something to make all they hold durable.
    pub(super) not_durable: BTreeSet<Uuid>,
}

/// The same, of one directory.
struct LookAt {
    clean: Option<i64>,
    files: FoundFiles,
    partitions: Vec<String>,
}

impl Look {
    /// Looks into those that can be used; one that fails meanwhile cannot.
    pub(super) async fn into<W: World>(world: &W, dirs: &mut LogDirs) -> Result<Look, StartError> {
        let mut look = Look::default();
        for (path, id) in usable(dirs) {
            let seen = match LookAt::take(world, &path, id).await {
                Ok(seen) => seen,
                Err(error) => {
                    lose(dirs, &path, error)?;
                    continue;
                }
            };
            look.clean = match look.looked {
                true => look.clean.filter(|epoch| seen.clean == Some(*epoch)),
                false => seen.clean,
            };
            look.looked = true;
            look.files.push(seen.files);
            for name in seen.partitions {
                look.found.insert(name, id);
            }
        }
        Ok(look)
    }

    /// Makes what the file systems hold durable. Where one cannot now, each of its logs is synced when it
    /// is opened.
    pub(super) async fn sync<W: World>(
        &mut self,
        world: &W,
        dirs: &mut LogDirs,
    ) -> Result<(), StartError> {
        for (path, id) in usable(dirs) {
            match world.sync_file_system(&path).await {
                Ok(()) => {}
                Err(error) if is_not_now(&error) => {
                    tracing::warn!(path = %path.display(), %error, "this log directory is not synced as a whole; its logs are");
                    self.not_durable.insert(id);
                }
                Err(error) => {
                    lose(dirs, &path, about(&path)(error))?;
                    self.forget(id);
                }
            }
        }
        Ok(())
    }

    /// See [`FoundDirs::settle`].
    pub(super) async fn settle<W: World>(
        &mut self,
        world: &W,
        dirs: &mut LogDirs,
        image: &Image,
    ) -> Result<(), StartError> {
        while let Err((path, id, error)) = self.found.settle(world, dirs, image).await {
            lose(dirs, &path, about(&path)(error))?;
            self.forget(id);
        }
        Ok(())
    }

    /// The moves that the last run did not end; what they found counts as found.
    pub(super) async fn moves<W: World>(
        &mut self,
        world: &W,
        dirs: &mut LogDirs,
        (image, is_foreign): (&Image, bool),
    ) -> Result<InterruptedMoves, StartError> {
        if is_foreign {
            return Ok(InterruptedMoves::default());
        }
        loop {
            let mut found = self.found.clone();
            match InterruptedMoves::find(world, dirs, image, &mut found).await {
                Ok(moves) => {
                    self.found = found;
                    return Ok(moves);
                }
                Err((path, id, error)) => {
                    lose(dirs, &path, about(&path)(error))?;
                    self.forget(id);
                }
            }
        }
    }

    /// See [`InterruptedMoves::settle`].
    pub(super) async fn end<W: World>(
        &mut self,
        world: &W,
        dirs: &mut LogDirs,
        moves: &mut InterruptedMoves,
        says: (&Image, &CheckpointOffsets),
    ) -> Result<(), StartError> {
        while let Err(refused) = moves.settle(world, (dirs, &mut self.found), says).await {
            let (path, id, error) = refused;
            lose(dirs, &path, about(&path)(error))?;
            self.forget(id);
        }
        Ok(())
    }

    /// What the checkpoint files say.
    pub(super) fn numbers(
        &mut self,
        dirs: &LogDirs,
        image: &Image,
    ) -> (CheckpointOffsets, DeadNumbers) {
        let files = std::mem::take(&mut self.files);
        checkpoint_files::adopt(files, (dirs, &self.found), image)
    }

    /// The directory is lost: nothing that was read of it counts at this start.
    fn forget(&mut self, directory: Uuid) {
        self.files.retain(|files| files.directory() != directory);
        self.found.forget(directory);
    }
}

impl LookAt {
    async fn take<W: World>(world: &W, dir: &Path, id: Uuid) -> Result<LookAt, StartError> {
        // Gone before anything changes: a crash from here on is an unclean stop.
        let clean = consume(world, &dir.join(CLEAN_SHUTDOWN_FILE)).await?;
        let files = FoundFiles::read(world, dir, id).await;
        let files = files.map_err(about(dir))?;
        let mut partitions = Vec::new();
        for entry in world.list_dir(dir).await.map_err(about(dir))? {
            let name = entry.name.to_str().filter(|_| entry.is_dir);
            let is_live = |name: &&str| {
                PartitionDir::parse(name).is_some_and(|dir| dir.state == PartitionDirState::Live)
            };
            partitions.extend(name.filter(is_live).map(str::to_owned));
        }
        Ok(LookAt {
            clean,
            files,
            partitions,
        })
    }
}

/// Removes the marker of a clean stop; gives the broker epoch it held, if it was there.
async fn consume<W: World>(world: &W, path: &Path) -> Result<Option<i64>, StartError> {
    let bytes = read_small(world, path).await.map_err(about(path))?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    world.remove_file(path).await.map_err(about(path))?;
    Ok(Some(CleanShutdown::parse(&bytes).broker_epoch))
}

/// Removes what deletions left behind and sets aside what nobody knows, in every directory, but where a
/// log waits there for the end of its move. Gives what something was too short to remove.
pub(super) async fn sweep_all<W: World>(
    world: &W,
    dirs: &mut LogDirs,
    (opened, placings): (&OpenedCatalogue<W>, &BTreeMap<PartitionId, Placing>),
) -> Result<Vec<Leftover>, StartError> {
    let mut left = Vec::new();
    for (path, id) in usable(dirs) {
        let swept = sweep(world, dirs, (&path, id), (opened, placings), &mut left);
        if let Err(error) = swept.await {
            lose(dirs, &path, error)?;
        }
    }
    Ok(left)
}

/// The same in one. Directories whose name the catalogue has here are left to whoever opens them: their id is looked at there.
async fn sweep<W: World>(
    world: &W,
    dirs: &LogDirs,
    (data, directory): (&Path, Uuid),
    (opened, placings): (&OpenedCatalogue<W>, &BTreeMap<PartitionId, Placing>),
    left: &mut Vec<Leftover>,
) -> Result<(), StartError> {
    let OpenedCatalogue { image, removed, .. } = opened;
    let (mut garbage, mut renamed) = (Vec::new(), Vec::new());
    let entries = world.list_dir(data).await.map_err(about(data))?;
    for (at, entry) in entries.iter().enumerate() {
        if at.is_multiple_of(ENTRIES_PER_SLICE) {
            world.pause().await;
        }
        let Some(name) = entry.name.to_str().filter(|_| entry.is_dir) else {
            continue;
        };
        let Some(found) = PartitionDir::parse(name) else {
            continue;
        };
        let path = data.join(name);
        match found.state {
            PartitionDirState::Live if found.topic == METADATA_TOPIC => {}
            PartitionDirState::Live => {
                let home = dirs.home_of(image, &found.topic, found.index);
                // That of a partition whose directory cannot be used stays, until a start can tell.
                let is_offline = home.is_none() && is_known(image, &found);
                let waits = placings.values().any(|placing| placing.from == path);
                if home != Some(directory) && !is_offline && !waits {
                    let of = (path.as_path(), found.index);
                    sweep_unknown(world, of, removed, (&mut renamed, left)).await?;
                }
            }
            PartitionDirState::Deleted => {
                garbage.push(path);
            }
            _ => {}
        }
    }
    // Those of large topics take the disk seconds.
    remove_all_beside(world, garbage);
    left.extend(remove_behind(world, renamed).await);
    Ok(())
}

/// Whether the image has a partition of this name.
fn is_known(image: &Image, found: &PartitionDir) -> bool {
    let topic = image.topic(&found.topic);
    let partitions = topic.map_or(0, |topic| topic.partitions.len());
    usize::try_from(found.index).is_ok_and(|index| index < partitions)
}

/// Whether a directory has no byte in it but what a creation begins with.
async fn holds_nothing<W: World>(world: &W, path: &Path) -> Result<bool, StartError> {
    let entries = world.list_dir(path).await.map_err(about(path))?;
    Ok(entries.iter().all(|entry| {
        let begun = entry
            .name
            .to_str()
            .and_then(|name| name.strip_suffix(".tmp"));
        !entry.is_dir && (entry.len == 0 || begun == Some(PARTITION_METADATA_FILE))
    }))
}

/// Renames the directory; it is still to be removed, or left where it is while something is too short for that.
async fn sweep_unknown<W: World>(
    world: &W,
    (path, index): (&Path, i32),
    removed: &BTreeSet<Uuid>,
    (renamed, lefts): (&mut Vec<Leftover>, &mut Vec<Leftover>),
) -> Result<(), StartError> {
    let file = path.join(PARTITION_METADATA_FILE);
    let id = match world
        .read_file(&file, crate::limits::SMALL_FILE_BYTES_MAX)
        .await
    {
        Ok(content) => parse_partition_metadata(&content).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(about(&file)(error)),
    };
    let goes = match id {
        Some(id) => removed.contains(&id),
        // Something was too short to create it, and its topic is gone.
        None => holds_nothing(world, path).await?,
    };
    let left = Leftover {
        id: PartitionId {
            // Without one it is removed for its name alone.
            topic_id: id.unwrap_or(Uuid::ZERO),
            index,
        },
        directory: path.to_owned(),
    };
    let swept = match goes {
        true => {
            let marked = Partition::mark_deleted_unsynced(world, path, left.id.topic_id);
            marked.await.map_err(StartError::from)
        }
        false => set_aside(world, path).await.map_err(about(path)),
    };
    match swept {
        Err(error) if error.is_not_now() && (goes || id.is_some()) => {
            tracing::warn!(directory = %path.display(), %error, "a directory that nobody knows stays for now");
            // What is another topic's is set aside when a log of its name is opened, or by the next start.
            lefts.extend(goes.then_some(left));
            Ok(())
        }
        Ok(()) => {
            renamed.extend(goes.then_some(left));
            Ok(())
        }
        Err(error) => Err(error),
    }
}
