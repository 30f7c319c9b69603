//! What a start does with moves between log directories that the last run did not end.
//!
//! On the designated shard, before anything is opened. The catalogue decides: where it says that the log
//! lies in the directory of a copy, the copy is whole, and takes its place; every other copy is given
//! up, for the log is whole where it was (`moving.rs`). Copies that a Kafka has left are not touched:
//! there a copy may be behind its log.

use std::io;
use std::path::PathBuf;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use crate::checkpoint_files::{AlsoIn, CheckpointOffsets};
use crate::found_dirs::FoundDirs;
use crate::log::copying::{discard, futures, topic_of};
use crate::log::directory::PartitionDir;
use crate::log_dirs::LogDirs;

/// A copy that takes its place.
struct Ended {
    id: PartitionId,
    /// The name of the log's own directory.
    name: String,
    future: PathBuf,
    /// The log directory of the copy.
    to: (PathBuf, Uuid),
    /// The log directories where the log was, if it is still there.
    from: Vec<(PathBuf, Uuid)>,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct InterruptedMoves {
    ended: Vec<Ended>,
    /// Copies, and the log directory of each.
    given_up: Vec<(PathBuf, (PathBuf, Uuid))>,
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
                    let parent = (parent.to_owned(), directory);
                    moves.given_up.push((future.path, parent));
                    continue;
                };
                let name = PartitionDir::name(&topic.name, index);
                let others = dirs.usable().filter(|(_, other)| *other != directory);
                let others = others.filter(|(_, other)| found.have(&topic.name, index, *other));
                let from = others.map(|(path, other)| (path.to_owned(), other));
                moves.ended.push(Ended {
                    id: PartitionId {
                        topic_id: topic.id,
                        index,
                    },
                    name: name.clone(),
                    future: future.path,
                    to: (parent.to_owned(), directory),
                    from: from.collect(),
                });
                found.insert(name, directory);
            }
        }
        Ok(moves)
    }

    /// Ends them. The checkpoints of the new directories learn the logs' numbers before anything of the
    /// old ones goes. Of a move with a directory that cannot be used any more only the other side is
    /// ended: the next start finds the rest. To be called again after an error, without that directory.
    ///
    /// # Errors
    /// When the disk refuses: which directory, and its id. What was not ended by then is still to be.
    pub(crate) async fn settle<W: World>(
        &mut self,
        world: &W,
        (dirs, found): (&LogDirs, &mut FoundDirs),
        (image, offsets): (&Image, &CheckpointOffsets),
    ) -> Result<(), (PathBuf, Uuid, io::Error)> {
        let is_usable = |(_, id): &(PathBuf, Uuid)| dirs.ids().contains(id);
        self.ended.retain(|ended| is_usable(&ended.to));
        self.given_up.retain(|(_, parent)| is_usable(parent));
        if !self.ended.is_empty() {
            let mut also_in = AlsoIn::new();
            for ended in &self.ended {
                also_in.extend(ended.from.first().map(|(_, id)| (ended.id, *id)));
            }
            let written = offsets.write(world, dirs, (image, &also_in)).await;
            if let Some(refusal) = written.first_refusal(dirs) {
                return Err(refusal);
            }
        }
        while let Some(ended) = self.ended.last() {
            for (parent, id) in &ended.from {
                if is_usable(&(parent.clone(), *id)) {
                    let gone = discard(world, &parent.join(&ended.name)).await;
                    gone.map_err(|error| (parent.clone(), *id, error))?;
                    found.forget_one(&ended.name, *id);
                }
            }
            let (parent, id) = &ended.to;
            let live = parent.join(&ended.name);
            let renamed = world.rename(&ended.future, &live).await;
            renamed.map_err(|error| (parent.clone(), *id, error))?;
            tracing::info!(log = %live.display(), "the move of a log was ended");
            self.ended.pop();
        }
        while let Some((future, (parent, id))) = self.given_up.last() {
            tracing::warn!(directory = %future.display(), "the move of a log is given up");
            let gone = discard(world, future).await;
            gone.map_err(|error| (parent.clone(), *id, error))?;
            self.given_up.pop();
        }
        Ok(())
    }
}
