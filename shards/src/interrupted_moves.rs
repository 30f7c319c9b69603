//! What a start does with moves between log directories that the last run did not end.
//!
//! On the designated shard, before anything is opened. The catalogue decides: where it says that the log
//! lies in the directory of a copy, the copy is whole, and takes its place; every other copy is given
//! up, for the log is whole where it was (`moving.rs`). Copies that a Kafka has left are not touched:
//! there a copy may be behind its log.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use chronik_catalog::Image;
use chronik_io::{World, is_not_now};
use chronik_log::copying::{discard, futures, topic_of};
use chronik_log::directory::{PartitionDir, PartitionDirState};
use chronik_protocol::{Str, Uuid};
use chronik_terms::PartitionId;

use crate::checkpoint_files::{AlsoIn, CheckpointOffsets};
use crate::found_dirs::FoundDirs;
use crate::log_dirs::LogDirs;
use crate::placing::{Placing, remove_beside};

/// A copy that takes its place.
struct Ended {
    id: PartitionId,
    topic: Str,
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
    /// Something was too short to end them: whoever opens the log tries it again.
    late: BTreeMap<PartitionId, Placing>,
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
                    topic: topic.name.clone(),
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
    /// old ones goes; where they cannot now, they have the log starts since before the catalogue knew of
    /// the move. Of a move with a directory that cannot be used any more only the other side is
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
            if let Some(failure) = written.first_failure(dirs) {
                return Err(failure);
            }
        }
        while let Some(ended) = self.ended.last() {
            let placed = ended.place(world, dirs, found).await;
            match placed {
                Ok(()) => {}
                Err((.., error)) if is_not_now(&error) && ended.from.len() < 2 => {
                    tracing::warn!(copy = %ended.future.display(), %error, "the move of a log is not ended yet");
                    self.late.insert(ended.id, ended.placing(world));
                }
                failed => return failed,
            }
            self.ended.pop();
        }
        while let Some((future, (parent, id))) = self.given_up.last() {
            tracing::warn!(directory = %future.display(), "the move of a log is given up");
            match discard(world, future).await {
                // Else the next start removes it.
                Ok(_) => {}
                Err(error) if is_not_now(&error) => remove_beside(world, Some(future.clone())),
                Err(error) => return Err((parent.clone(), *id, error)),
            }
            self.given_up.pop();
        }
        Ok(())
    }

    /// The moves that are still to be ended.
    pub(crate) fn late(self) -> BTreeMap<PartitionId, Placing> {
        self.late
    }
}

impl Ended {
    /// Puts the copy in the log's place. May be done again after an error.
    async fn place<W: World>(
        &self,
        world: &W,
        dirs: &LogDirs,
        found: &mut FoundDirs,
    ) -> Result<(), (PathBuf, Uuid, io::Error)> {
        for (parent, id) in &self.from {
            if dirs.ids().contains(id) {
                let gone = discard(world, &parent.join(&self.name)).await;
                gone.map_err(|error| (parent.clone(), *id, error))?;
                found.forget_one(&self.name, *id);
            }
        }
        let (parent, id) = &self.to;
        let live = parent.join(&self.name);
        let renamed = world.rename(&self.future, &live).await;
        renamed.map_err(|error| (parent.clone(), *id, error))?;
        tracing::info!(log = %live.display(), "the move of a log was ended");
        Ok(())
    }

    /// The same for whoever opens the log.
    fn placing<W: World>(&self, world: &W) -> Placing {
        let (parent, _) = &self.to;
        let live = parent.join(&self.name);
        let from = match self.from.first() {
            Some((parent, _)) => parent.join(&self.name),
            // It is gone: a name that nothing has.
            None => {
                let state = PartitionDirState::Deleted;
                let (topic, index) = (self.topic.as_ref(), self.id.index);
                let name = PartitionDir::marked_name(topic, index, world.random_u128(), state);
                parent.join(name)
            }
        };
        Placing::new((&from, &self.future, &live), None)
    }
}
