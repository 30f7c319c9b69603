//! Opening and removing a partition's directory: the I/O, without the shard's state.
//!
//! Runs on the partition's shard, as a task of the driver's. A directory of the same name that is another topic's
//! is never opened: it is removed when that topic is known to be deleted, and set aside otherwise.

use std::io;
use std::path::Path;

use chronik_io::World;
use chronik_log::LogError;
use chronik_log::directory::{PartitionDir, PartitionDirState};
use chronik_partition::Partition;

use crate::internal::Leftover;
use crate::shard::{OpenTask, Opened};

/// Removes the directory of a deleted topic's partition.
pub(crate) async fn remove<W: World>(world: &W, left: &Leftover) -> Result<(), LogError> {
    let (directory, topic_id) = (&left.directory, left.id.topic_id);
    Partition::mark_deleted(world, directory, topic_id).await?;
    Partition::remove_marked(world, directory, topic_id).await
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
