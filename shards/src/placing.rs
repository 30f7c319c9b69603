//! The last steps of a move between log directories: a copy takes its log's place, or is put away.
//!
//! Runs where the log is opened, by its shard, and where a start ends what the last run did not. May be
//! done again after an error; nobody waits for the removal of what is left over. Which of the two counts
//! is the catalogue's to say.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chronik_io::{World, is_not_now};
use chronik_log::LogError;
use chronik_log::copying::{discard, is_garbage};
use chronik_partition::Bequest;
use chronik_partition::backoff;

use crate::limits::REMOVAL_TRIES_MAX;

/// What is done to the directories before a log is opened again whose move came to its last step. May be
/// done again after an error.
#[derive(Clone, Debug)]
pub(crate) struct Placing {
    pub(crate) from: PathBuf,
    pub(crate) future: PathBuf,
    pub(crate) live: PathBuf,
    /// The log stays where it was. Else the catalogue says that it is the copy's.
    pub(crate) goes_back: bool,
    /// Of the partition that was closed, if this process has closed it.
    bequest: Option<Bequest>,
    /// Only the opening is to be done.
    is_done: bool,
    garbage: Option<PathBuf>,
}

impl Placing {
    /// Nothing done yet.
    pub(crate) fn new(
        (from, future, live): (&Path, &Path, &Path),
        bequest: Option<Bequest>,
    ) -> Placing {
        Placing {
            from: from.to_owned(),
            future: future.to_owned(),
            live: live.to_owned(),
            goes_back: false,
            bequest,
            is_done: false,
            garbage: None,
        }
    }

    /// Where the log is opened.
    pub(crate) fn opens(&self) -> &Path {
        match self.goes_back {
            true => &self.from,
            false => &self.live,
        }
    }

    /// Which directories are to go if the log is not wanted any more; the second may be there or not.
    pub(crate) fn left(&self) -> (&Path, Option<&Path>) {
        match (self.goes_back, self.is_done) {
            (true, true) => (&self.from, None),
            (false, true) => (&self.live, None),
            (_, false) => (&self.from, Some(&self.future)),
        }
    }

    /// Puts the copy in the log's place, or away. The other of the two goes first and durably: there are
    /// never two that a start could take for the log.
    pub(crate) async fn perform<W: World>(&mut self, world: &W) -> Result<(), LogError> {
        if self.is_done {
            return Ok(());
        }
        let goes = match self.goes_back {
            true => &self.future,
            false => &self.from,
        };
        let discarded = discard(world, goes).await;
        match discarded.map_err(LogError::io("renaming", goes))? {
            Some(garbage) => self.garbage = Some(garbage),
            // An earlier try may have renamed it, and not known whether that lasts.
            None => sync_parent(world, goes).await?,
        }
        if self.goes_back {
            let synced = world.sync_file_system(&self.from).await;
            synced.map_err(LogError::io("syncing", &self.from))?;
        } else {
            match world.rename(&self.future, &self.live).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let found = world.list_dir(&self.live).await;
                    found.map_err(LogError::io("looking for", &self.live))?;
                    sync_parent(world, &self.live).await?;
                }
                renamed => renamed.map_err(LogError::io("renaming", &self.future))?,
            }
        }
        self.is_done = true;
        Ok(())
    }

    /// The log is open, or not wanted any more: what was renamed away goes. Gives what the partition that
    /// was closed has left to the one that is open.
    pub(crate) fn clear<W: World>(self, world: &W) -> Option<Bequest> {
        remove_beside(world, self.garbage);
        self.bequest
    }
}

async fn sync_parent<W: World>(world: &W, path: &Path) -> Result<(), LogError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let synced = world.sync_dir(parent).await;
    synced.map_err(LogError::io("syncing", parent))
}

/// Removes a partition's directory that is not wanted any more. Nobody waits for it: it is tried again for
/// some minutes while something is too short, and the next start removes what is left.
pub(crate) fn remove_beside<W: World>(world: &W, directory: Option<PathBuf>) {
    remove_all_beside(world, directory.into_iter().collect());
}

/// As [`remove_beside`], one after the other.
pub(crate) fn remove_all_beside<W: World>(world: &W, directories: Vec<PathBuf>) {
    if directories.is_empty() {
        return;
    }
    let world_of_task = world.clone();
    world.spawn(async move {
        for directory in directories {
            remove_patiently(&world_of_task, directory).await;
        }
    });
}

async fn remove_patiently<W: World>(world: &W, mut directory: PathBuf) {
    for failures in 1..=REMOVAL_TRIES_MAX {
        match remove(world, &mut directory).await {
            Err(error) if is_not_now(&error) && failures < REMOVAL_TRIES_MAX => {
                let wait = Duration::from_nanos(backoff::due_ns(0, failures));
                world.sleep_for(wait).await;
            }
            Err(error) => return not_removed(&directory, &error),
            Ok(()) => return,
        }
    }
}

/// May be done again after an error; `directory` is its name by then.
async fn remove<W: World>(world: &W, directory: &mut PathBuf) -> io::Result<()> {
    if !is_garbage(directory) {
        match discard(world, directory).await? {
            Some(garbage) => *directory = garbage,
            None => return Ok(()),
        }
    }
    match world.remove_dir_all(directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(crate) fn not_removed(directory: &Path, error: &io::Error) {
    tracing::warn!(directory = %directory.display(), %error, "a directory that is not wanted any more was not removed");
}
