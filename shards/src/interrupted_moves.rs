//! What a start does with moves between log directories that the last run did not end.
//!
//! On the designated shard, before anything is opened. The catalogue decides: where it says that the log
//! lies in the directory of a copy, the copy is whole, and takes its place; every other copy is given
//! up, for the log is whole where it was (`moving.rs`). Copies that a Kafka has left are not touched:
//! there a copy may be behind its log.

use std::io;
use std::path::PathBuf;

use chronik_io::World;
use chronik_protocol::Uuid;

use crate::catalog::Image;
use crate::checkpoint_files::{AlsoIn, CheckpointOffsets};
use crate::found_dirs::FoundDirs;
use crate::log::copying::{discard, futures, topic_of};
use crate::log::directory::PartitionDir;
use crate::log_dirs::LogDirs;
use crate::terms::PartitionId;

/// A copy that takes its place.
struct Ended {
    id: PartitionId,
    future: PathBuf,
    live: PathBuf,
    /// Where the log was, if it is still there.
    from: Vec<(PathBuf, Uuid)>,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct InterruptedMoves {
    ended: Vec<Ended>,
    given_up: Vec<PathBuf>,
}

impl InterruptedMoves {
    /// Looks for them. From now on what ended counts as found in its new directory.
    ///
    /// # Errors
    /// When the disk refuses: which directory, and its id.
    pub(crate) async fn find<W: World>(
        world: &W,
        dirs: &LogDirs,
        image: &Image,
        found: &mut FoundDirs,
    ) -> Result<InterruptedMoves, (PathBuf, Uuid, io::Error)> {
        let mut moves = InterruptedMoves::default();
        for (parent, directory) in dirs.usable() {
            let refused = |error| (parent.to_owned(), directory, error);
            for future in futures(world, parent).await.map_err(refused)? {
                let index = future.dir.index;
                let topic = topic_of(world, &future.path).await.map_err(refused)?;
                let topic = topic.and_then(|id| image.topic_by_id(id)).filter(|topic| {
                    let home = dirs.home_of(image, &topic.name, index);
                    home == Some(directory) && !found.have(&topic.name, index, directory)
                });
                let Some(topic) = topic else {
                    moves.given_up.push(future.path);
                    continue;
                };
                let name = PartitionDir::name(&topic.name, index);
                let others = dirs.usable().filter(|(_, other)| *other != directory);
                let others = others.filter(|(_, other)| found.have(&topic.name, index, *other));
                let from = others.map(|(path, other)| (path.join(&name), other));
                moves.ended.push(Ended {
                    id: PartitionId {
                        topic_id: topic.id,
                        index,
                    },
                    future: future.path,
                    live: parent.join(&name),
                    from: from.collect(),
                });
                found.insert(name, directory);
            }
        }
        Ok(moves)
    }

    /// Ends them. The checkpoints of the new directories learn the logs' numbers before anything of the
    /// old ones goes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) async fn settle<W: World>(
        self,
        world: &W,
        dirs: &LogDirs,
        (image, offsets): (&Image, &CheckpointOffsets),
    ) -> io::Result<()> {
        if !self.ended.is_empty() {
            let mut also_in = AlsoIn::new();
            for ended in &self.ended {
                also_in.extend(ended.from.first().map(|(_, from)| (ended.id, *from)));
            }
            let written = offsets.write(world, dirs, (image, &also_in)).await;
            if !written.refused.is_empty() {
                return Err(io::Error::other("offset checkpoints were not written"));
            }
        }
        for ended in self.ended {
            for (from, _) in &ended.from {
                discard(world, from).await?;
            }
            world.rename(&ended.future, &ended.live).await?;
            tracing::info!(log = %ended.live.display(), "the move of a log was ended");
        }
        for future in self.given_up {
            tracing::warn!(directory = %future.display(), "the move of a log is given up");
            discard(world, &future).await?;
        }
        Ok(())
    }
}
