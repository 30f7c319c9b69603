//! The directories that hold logs (`log.dirs`), and in which of them a partition lies.
//!
//! The first holds the catalogue as well, and what belongs to the broker as a whole. Which directory
//! holds a partition stands in the catalogue by the directory's id (KIP-858), never by its place in
//! the list. One that cannot be used at start is left alone until the next: what lies there is
//! offline, and nothing of it is begun anew elsewhere. Plain values, the same on every shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chronik_catalog::Image;
use chronik_protocol::Uuid;
use chronik_terms::PartitionId;

use chronik_log::checkpoint::OffsetCheckpoint;
use chronik_log::directory::PartitionDir;

/// Ids below this one stand for "not assigned", "lost" and the like (`DirectoryId`).
const RESERVED_IDS: u128 = 100;
/// Of a partition that the catalogue assigns to no directory, and that may lie in one which cannot be used.
pub(crate) const LOST: Uuid = Uuid(1);

/// Whether an id is that of a directory.
pub(crate) fn is_assigned(id: Uuid) -> bool {
    id.0 >= RESERVED_IDS
}

/// One directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// As configured, absolute.
    pub path: PathBuf,
    /// From its `meta.properties`; `None` when it could not be used at this start.
    pub id: Option<Uuid>,
}

/// All of them, in the order of the configuration; see the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDirs(Vec<LogDir>);

impl LogDirs {
    /// These, the one with the catalogue first.
    pub(crate) fn new(dirs: Vec<LogDir>) -> LogDirs {
        LogDirs(dirs)
    }

    /// Every directory, usable or not.
    pub fn all(&self) -> &[LogDir] {
        &self.0
    }

    /// Those that can be used, with their ids.
    pub(crate) fn usable(&self) -> impl Iterator<Item = (&Path, Uuid)> {
        self.0
            .iter()
            .filter_map(|dir| Some((dir.path.as_path(), dir.id?)))
    }

    /// The one at this path cannot be used any more.
    pub(crate) fn give_up(&mut self, path: &Path) {
        for dir in self.0.iter_mut().filter(|dir| dir.path == path) {
            dir.id = None;
        }
    }

    /// The ids of those that can be used.
    pub(crate) fn ids(&self) -> Vec<Uuid> {
        self.usable().map(|(_, id)| id).collect()
    }

    /// Where the directory with this id is, if it can be used.
    pub(crate) fn path_of(&self, id: Uuid) -> Option<&Path> {
        let found = self.usable().find(|(_, ours)| *ours == id);
        found.map(|(path, _)| path)
    }

    /// The one that holds the catalogue; empty before the first image.
    pub(crate) fn first(&self) -> &Path {
        self.0.first().map_or(Path::new(""), |dir| &dir.path)
    }

    /// Where a partition lies whose replica here is in one of these directories; `None` if that
    /// cannot be used, or is none of ours.
    pub fn home(&self, directories: &[Uuid]) -> Option<&Path> {
        let known = |id: &Uuid| self.usable().find(|(_, ours)| ours == id);
        let found = directories.iter().find_map(known).map(|(path, _)| path);
        let is_elsewhere = |id: Uuid| is_assigned(id) || id == LOST;
        match found {
            None if !directories.iter().copied().any(is_elsewhere) => Some(self.first()),
            found => found,
        }
    }

    /// The id of the directory where a partition lies, as [`LogDirs::home`] finds it.
    pub(crate) fn home_id(&self, directories: &[Uuid]) -> Option<Uuid> {
        let home = self.home(directories)?;
        self.usable()
            .find(|(path, _)| *path == home)
            .map(|(_, id)| id)
    }

    /// The id of the directory where a partition of the image lies.
    pub(crate) fn home_of(&self, image: &Image, topic: &str, index: i32) -> Option<Uuid> {
        let topic = image.topic(topic)?;
        let info = topic.partitions.get(usize::try_from(index).ok()?)?;
        self.home_id(&info.directories)
    }

    /// A partition's own directory.
    pub(crate) fn partition(
        &self,
        directories: &[Uuid],
        topic: &str,
        index: i32,
    ) -> Option<PathBuf> {
        Some(
            self.home(directories)?
                .join(PartitionDir::name(topic, index)),
        )
    }

    /// The part of a checkpoint that belongs into one directory, by the names of the image's topics.
    pub(crate) fn part(
        &self,
        image: &Image,
        offsets: &BTreeMap<PartitionId, i64>,
        dir: &Path,
    ) -> OffsetCheckpoint {
        let named = |id: &PartitionId| {
            let topic = image.topic_by_id(id.topic_id)?;
            let info = topic.partitions.get(usize::try_from(id.index).ok()?)?;
            let is_here = self.home(&info.directories) == Some(dir);
            is_here.then(|| (topic.name.clone(), id.index))
        };
        let here = offsets
            .iter()
            .filter_map(|(id, offset)| Some((named(id)?, *offset)));
        OffsetCheckpoint(here.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> LogDirs {
        let dir = |path: &str, id: Option<u128>| LogDir {
            path: PathBuf::from(path),
            id: id.map(Uuid),
        };
        LogDirs::new(vec![
            dir("/a", Some(1000)),
            dir("/b", Some(2000)),
            dir("/c", None),
        ])
    }

    #[test]
    fn a_partition_lies_where_its_directorys_id_says_or_nowhere() {
        let dirs = dirs();
        assert_eq!(dirs.home(&[Uuid(2000)]), Some(Path::new("/b")));
        assert_eq!(dirs.home(&[Uuid(3000)]), None);
        assert_eq!(dirs.home(&[Uuid::ZERO]), Some(Path::new("/a")));
        assert_eq!(dirs.home(&[LOST]), None);
        assert_eq!(dirs.home(&[]), Some(Path::new("/a")));
        assert_eq!(dirs.home_id(&[]), Some(Uuid(1000)));
        assert_eq!(dirs.home_id(&[Uuid(2000)]), Some(Uuid(2000)));
        assert_eq!(dirs.home_id(&[Uuid(3000)]), None);
    }
}
