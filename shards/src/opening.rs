//! Opening and removing a partition's directory: the I/O, without the shard's state.
//!
//! Runs on the partition's shard, as a task of the driver's. A directory of the same name that is another topic's
//! is never opened: it is removed when that topic is known to be deleted, and set aside otherwise.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chronik_io::{World, is_not_now};
use chronik_log::LogError;
use chronik_log::directory::{PartitionDir, PartitionDirState};
use chronik_partition::Partition;

use crate::internal::Leftover;
use crate::placing::remove_all_beside;
use crate::shard::{OpenTask, Opened};

/// Makes the new names of deleted partitions' directories durable, with one sync for all that lie together,
/// and lets the directories go behind it: removing takes the disk milliseconds for each. Gives those that
/// something is too short for.
pub(crate) async fn remove_behind<W: World>(world: &W, renamed: Vec<Leftover>) -> Vec<Leftover> {
    let mut together: BTreeMap<PathBuf, Vec<Leftover>> = BTreeMap::new();
    for left in renamed {
        let parent = left.directory.parent().unwrap_or(&left.directory);
        together.entry(parent.to_owned()).or_default().push(left);
    }
    let (mut garbage, mut still) = (Vec::new(), Vec::new());
    for (parent, renamed) in together {
        match world.sync_dir(&parent).await {
            Ok(()) => {
                let marked = |left: &Leftover| {
                    Partition::<W>::name_when_deleted(&left.directory, left.id.topic_id)
                };
                garbage.extend(renamed.iter().map(marked));
            }
            Err(error) if is_not_now(&error) => still.extend(renamed),
            // The next start finds them, by either name.
            Err(error) => {
                let directory = parent.display();
                tracing::error!(%directory, %error, "directories of deleted partitions stay");
            }
        }
    }
    remove_all_beside(world, garbage);
    still
}

/// Opens a partition. A directory of the same name that belongs to another topic is removed when
/// that topic is known to be deleted, and else renamed as Kafka renames strays.
pub(crate) async fn open<W: World>(world: &W, mut task: Box<OpenTask>) -> Opened<W> {
    if let Some(placing) = &mut task.placing
        && let Err(error) = placing.perform(world).await
    {
        return Err((error, task));
    }
    match try_open(world, &task).await {
        Ok(mut partition) => {
            if let Some(bequest) = task.placing.and_then(|placing| placing.clear(world)) {
                partition.succeed(bequest);
            }
            Ok(partition)
        }
        Err(error) => Err((error, task)),
    }
}

async fn try_open<W: World>(world: &W, task: &OpenTask) -> Result<Box<Partition<W>>, LogError> {
    let found = match Partition::open(world, &task.directory, task.options.clone()).await {
        Err(LogError::TopicIdMismatch { found, .. }) => found,
        // What recovery did is logged there.
        opened => return opened.map(|(partition, _)| Box::new(partition)),
    };
    let boot = task.boot.as_ref();
    if boot.is_some_and(|boot| boot.removed.contains(&found)) {
        Partition::<W>::delete(world, &task.directory, world.random_u128()).await?;
    } else {
        set_aside(world, &task.directory)
            .await
            .map_err(|source| LogError::Io {
                what: format!("renaming {}", task.directory.display()),
                source,
            })?;
    }
    let options = task.options.clone();
    let (partition, _) = Partition::open(world, &task.directory, options).await?;
    Ok(Box::new(partition))
}

/// Renames a directory nobody knows, so that nothing is lost.
pub(crate) async fn set_aside<W: World>(world: &W, directory: &Path) -> io::Result<()> {
    let name = directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some(live) = PartitionDir::parse(name) else {
        return Ok(());
    };
    let stray = PartitionDirState::Stray;
    let unique = world.random_u128();
    let renamed = PartitionDir::marked_name(&live.topic, live.index, unique, stray);
    tracing::warn!(directory = %directory.display(), %renamed, "a partition nobody knows is set aside");
    world
        .rename(directory, &directory.with_file_name(renamed))
        .await
}
