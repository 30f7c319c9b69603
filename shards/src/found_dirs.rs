//! In which log directory the partitions' own directories were found.
//!
//! Made at start on the designated shard, before the catalogue says where partitions lie. A directory
//! that lies elsewhere than the catalogue says is a partition's only if its `partition.metadata` names
//! the topic: that of a deleted topic may come back with a disk, under a name that another topic has.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_log::checkpoint::{PARTITION_METADATA_FILE, parse_partition_metadata, read_small};
use chronik_log::directory::PartitionDir;
use chronik_protocol::Uuid;

use crate::log_dirs::{LOST, LogDirs, is_assigned};

/// The directories that hold each partition's own, by the name of that.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundDirs(pub(crate) BTreeMap<String, BTreeSet<Uuid>>);

impl FoundDirs {
    /// A partition's directory lies here.
    pub(crate) fn insert(&mut self, name: String, directory: Uuid) {
        self.0.entry(name).or_default().insert(directory);
    }

    /// What was found in this directory does not count.
    pub(crate) fn forget(&mut self, directory: Uuid) {
        self.0.retain(|_, found| {
            found.remove(&directory);
            !found.is_empty()
        });
    }

    /// A partition's directory does not lie here any more.
    pub(crate) fn forget_one(&mut self, name: &str, directory: Uuid) {
        if let Some(found) = self.0.get_mut(name) {
            found.remove(&directory);
        }
    }

    /// Whether a partition's directory was found in this one.
    pub(crate) fn have(&self, topic: &str, index: i32, directory: Uuid) -> bool {
        let found = self.0.get(&PartitionDir::name(topic, index));
        found.is_some_and(|found| found.contains(&directory))
    }

    /// Forgets directories that lie where the catalogue does not expect them and are another topic's.
    ///
    /// # Errors
    /// When the disk refuses: which directory, and its id.
    pub(crate) async fn settle<W: World>(
        &mut self,
        world: &W,
        dirs: &LogDirs,
        image: &Image,
    ) -> Result<(), (PathBuf, Uuid, io::Error)> {
        for topic in image.topics() {
            for (index, info) in (0..).zip(&topic.partitions) {
                let name = PartitionDir::name(&topic.name, index);
                let Some(found) = self.0.get_mut(&name) else {
                    continue;
                };
                let expected = dirs.home_id(&info.directories);
                if found.iter().all(|directory| Some(*directory) == expected) {
                    continue;
                }
                for (path, directory) in dirs.usable() {
                    if !found.contains(&directory) {
                        continue;
                    }
                    let file = path.join(&name).join(PARTITION_METADATA_FILE);
                    let bytes = read_small(world, &file).await;
                    let bytes = bytes.map_err(|error| (path.to_owned(), directory, error))?;
                    let id = bytes.and_then(|bytes| parse_partition_metadata(&bytes).ok());
                    if id.is_some_and(|id| id != topic.id) {
                        found.remove(&directory);
                    }
                }
            }
        }
        Ok(())
    }

    /// Where the catalogue should say that a partition lies; `None` for what it says already, or for a
    /// directory that is not there now: what another one has of it may be what a move has left, and older.
    pub(crate) fn moved(
        &self,
        dirs: &LogDirs,
        directories: &[Uuid],
        topic: &str,
        index: i32,
    ) -> Option<Uuid> {
        let found = self.0.get(&PartitionDir::name(topic, index));
        let is_assigned = directories.iter().copied().any(is_assigned);
        let is_found = |directory: &Uuid| found.is_some_and(|found| found.contains(directory));
        if directories.iter().any(is_found) {
            return None;
        }
        let known = dirs.ids();
        let any_is_lost = dirs.all().iter().any(|dir| dir.id.is_none());
        // One that cannot be used may be the one that the catalogue names.
        if is_assigned && any_is_lost && !directories.iter().any(|id| known.contains(id)) {
            return None;
        }
        // In the order of the configuration.
        let wanted = match known.iter().copied().find(is_found) {
            Some(found) => Some(found),
            None if is_assigned => None,
            // Or, where it names none, the one that holds the log: it is begun anew nowhere.
            None if any_is_lost => Some(LOST),
            None => known.first().copied(),
        };
        wanted.filter(|wanted| directories != [*wanted])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_dirs::LogDir;

    #[test]
    fn what_was_found_elsewhere_moves_and_what_is_missing_does_not() {
        let dir = |path: &str, id: u128| LogDir {
            path: PathBuf::from(path),
            id: Some(Uuid(id)),
        };
        let dirs = LogDirs::new(vec![dir("/a", 1000), dir("/b", 2000)]);
        let mut found = FoundDirs::default();
        found.insert("t-0".to_owned(), Uuid(2000));
        assert_eq!(found.moved(&dirs, &[Uuid(1000)], "t", 0), Some(Uuid(2000)));
        assert_eq!(found.moved(&dirs, &[Uuid(2000)], "t", 0), None);
        assert_eq!(found.moved(&dirs, &[Uuid(3000)], "t", 1), None);
        assert_eq!(found.moved(&dirs, &[Uuid::ZERO], "t", 1), Some(Uuid(1000)));
        found.insert("t-0".to_owned(), Uuid(1000));
        assert_eq!(found.moved(&dirs, &[Uuid(2000)], "t", 0), None);
        assert_eq!(found.moved(&dirs, &[Uuid(3000)], "t", 0), Some(Uuid(1000)));
    }

    #[test]
    fn what_lies_in_a_directory_that_is_lost_is_taken_from_no_other() {
        let dir = |path: &str, id: Option<u128>| LogDir {
            path: PathBuf::from(path),
            id: id.map(Uuid),
        };
        let dirs = vec![
            dir("/a", Some(1000)),
            dir("/b", Some(2000)),
            dir("/c", None),
        ];
        let dirs = LogDirs::new(dirs);
        let mut found = FoundDirs::default();
        found.insert("t-0".to_owned(), Uuid(1000));
        assert_eq!(found.moved(&dirs, &[Uuid(3000)], "t", 0), None);
        assert_eq!(found.moved(&dirs, &[Uuid(2000)], "t", 0), Some(Uuid(1000)));
    }

    /// A Kafka before directory ids has assigned it to none.
    #[test]
    fn what_is_assigned_to_no_directory_is_begun_nowhere_while_one_is_lost() {
        let dirs = |other: Option<u128>| {
            let dir = |path: &str, id: Option<u128>| LogDir {
                path: PathBuf::from(path),
                id: id.map(Uuid),
            };
            LogDirs::new(vec![dir("/a", Some(1000)), dir("/b", other)])
        };
        let (whole, one_lost) = (dirs(Some(2000)), dirs(None));
        let mut found = FoundDirs::default();
        for directories in [&[][..], &[Uuid::ZERO]] {
            let moved = found.moved(&one_lost, directories, "t", 0);
            assert_eq!(moved, Some(LOST));
            assert_eq!(one_lost.home(&[LOST]), None, "it is offline");
        }
        assert_eq!(found.moved(&one_lost, &[LOST], "t", 0), None);
        // The directory is back, with the log or, if it was in neither, without.
        assert_eq!(found.moved(&whole, &[LOST], "t", 0), Some(Uuid(1000)));
        found.insert("t-0".to_owned(), Uuid(2000));
        assert_eq!(found.moved(&whole, &[LOST], "t", 0), Some(Uuid(2000)));
    }
}
