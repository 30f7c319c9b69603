//! The offset checkpoints of the data directories: Kafka's files, which name partitions by topic name,
//! and what they say of partitions by what they are.
//!
//! Read at start and written by the designated shard. A name may be given to another topic, so a number
//! counts for the topic that the catalogue has under the name, in the file of the directory where that
//! topic's partition lies; every other is dead. The catalogue's shard takes dead numbers out of the
//! files, durably, before the catalogue may give their name to another topic (`shard/checkpoints.rs`):
//! that is why the numbers of a known name are that topic's. Believes no garbled file.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use chronik_catalog::Image;
use chronik_io::{World, is_not_now};
use chronik_log::checkpoint::{
    CLEANER_FILE, LOG_START_FILE, OffsetCheckpoint, RECOVERY_POINT_FILE,
};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::{Str, Uuid};
use chronik_terms::PartitionId;

use crate::found_dirs::FoundDirs;
use crate::log_dirs::LogDirs;

/// Offsets of one kind.
pub(crate) type Offsets = BTreeMap<PartitionId, i64>;

/// Directories whose files have a partition's numbers although it does not lie there: it comes, or has
/// left and may still be asked for there.
pub(crate) type AlsoIn = BTreeSet<(PartitionId, Uuid)>;

/// What the checkpoint files hold or should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointOffsets {
    /// Everything below is on disk and whole.
    pub(crate) recovery_points: Offsets,
    /// First offsets that may be read; 0 is left out of the file, as Kafka does.
    pub(crate) log_starts: Offsets,
    /// Everything below has been compacted.
    pub(crate) cleaned: Offsets,
}

impl CheckpointOffsets {
    /// Takes out everything of a topic; gives the partitions there was something of.
    pub(crate) fn remove_topic(&mut self, topic_id: Uuid) -> BTreeSet<i32> {
        let mut indexes = BTreeSet::new();
        let every = |index| PartitionId { topic_id, index };
        let range = every(i32::MIN)..=every(i32::MAX);
        for offsets in [
            &mut self.recovery_points,
            &mut self.log_starts,
            &mut self.cleaned,
        ] {
            let found: Vec<PartitionId> = offsets.range(range.clone()).map(|(id, _)| *id).collect();
            for id in found {
                offsets.remove(&id);
                indexes.insert(id.index);
            }
        }
        indexes
    }

    /// What recovery is told of each partition that the files speak of.
    pub(crate) fn hints(
        &self,
        (clean, durable): (bool, bool),
    ) -> BTreeMap<PartitionId, RecoveryHint> {
        let offset = |of: &Offsets, id| of.get(id).copied().unwrap_or(0);
        let hint = |id| RecoveryHint {
            clean,
            recovery_point: offset(&self.recovery_points, id),
            log_start_offset: offset(&self.log_starts, id),
            durable,
        };
        let known = self.recovery_points.keys().chain(self.log_starts.keys());
        known.map(|id| (*id, hint(id))).collect()
    }

    /// Writes the files of every directory; says which refused, and logs nothing. `image` names
    /// the partitions and says where they lie; what it does not know is left out. Numbers of those that come or have left are in
    /// the files of both directories: a power cut may come between two files.
    pub(crate) async fn write<W: World>(
        &self,
        world: &W,
        dirs: &LogDirs,
        (image, also_in): (&Image, &AlsoIn),
    ) -> CheckpointsWritten {
        let mut written = CheckpointsWritten::default();
        for (dir, id) in dirs.usable() {
            for (name, offsets) in [
                (RECOVERY_POINT_FILE, &self.recovery_points),
                (LOG_START_FILE, &self.log_starts),
                (CLEANER_FILE, &self.cleaned),
            ] {
                let mut here = dirs.part(image, offsets, dir);
                for (partition, _) in also_in.iter().filter(|(_, there)| *there == id) {
                    let topic = image.topic_by_id(partition.topic_id);
                    if let Some((topic, offset)) = topic.zip(offsets.get(partition)) {
                        let key = (topic.name.clone(), partition.index);
                        here.0.insert(key, *offset);
                    }
                }
                if name == LOG_START_FILE {
                    here.0.retain(|_, offset| *offset > 0);
                }
                // One that fails does not keep the others from knowing theirs.
                if let Err(error) = here.write(world, &dir.join(name)).await {
                    if is_not_now(&error) {
                        written.short.push(id);
                    }
                    written.refused.push(id);
                    let why = format!("{}: {error}", dir.display());
                    written.why.push(why);
                    break;
                }
            }
        }
        written
    }
}

/// What became of a write of the checkpoint files.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckpointsWritten {
    /// The directories whose files are not written.
    pub(crate) refused: Vec<Uuid>,
    /// Those of them that are too short of something now ([`chronik_io::is_not_now`]).
    pub(crate) short: Vec<Uuid>,
    /// Why they refused, each in a sentence.
    pub(crate) why: Vec<String>,
}

impl CheckpointsWritten {
    /// The first directory that refused though it is not too short of anything, its id, and why.
    pub(crate) fn first_failure(self, dirs: &LogDirs) -> Option<(PathBuf, Uuid, io::Error)> {
        let mut refused = self.refused.into_iter().zip(self.why);
        let (id, why) = refused.find(|(id, _)| !self.short.contains(id))?;
        let path = dirs.path_of(id)?.to_owned();
        let why = format!("offset checkpoints were not written: {why}");
        Some((path, id, io::Error::other(why)))
    }
}

/// Numbers in the files that are no partition's, by name and index, and the directories whose files
/// may hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeadNumbers(BTreeMap<(Str, i32), BTreeSet<Uuid>>);

impl DeadNumbers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, topic: &Str, index: i32, directory: Uuid) {
        let directories = self.0.entry((topic.clone(), index)).or_default();
        directories.insert(directory);
    }

    /// As well as the others'.
    pub(crate) fn extend(&mut self, others: DeadNumbers) {
        for (key, directories) in others.0 {
            self.0.entry(key).or_default().extend(directories);
        }
    }

    /// Only what is in these directories' files.
    pub(crate) fn retain(&mut self, directories: &[Uuid]) {
        self.0.retain(|_, held| {
            held.retain(|directory| directories.contains(directory));
            !held.is_empty()
        });
    }

    /// Whether a partition of this image would take one of them for its own.
    pub(crate) fn mislead(&self, dirs: &LogDirs, image: &Image) -> bool {
        self.0.iter().any(|((topic, index), held)| {
            let home = dirs.home_of(image, topic, *index);
            home.is_some_and(|home| held.contains(&home))
        })
    }
}

/// The files of one directory, as they were found.
#[derive(Debug)]
pub(crate) struct FoundFiles {
    directory: Uuid,
    recovery_points: OffsetCheckpoint,
    log_starts: OffsetCheckpoint,
    cleaned: OffsetCheckpoint,
}

impl FoundFiles {
    /// Whose they are.
    pub(crate) fn directory(&self) -> Uuid {
        self.directory
    }

    /// Reads a directory's files; one that is garbled says nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) async fn read<W: World>(
        world: &W,
        dir: &Path,
        directory: Uuid,
    ) -> io::Result<FoundFiles> {
        Ok(FoundFiles {
            directory,
            recovery_points: read(world, &dir.join(RECOVERY_POINT_FILE)).await?,
            log_starts: read(world, &dir.join(LOG_START_FILE)).await?,
            cleaned: read(world, &dir.join(CLEANER_FILE)).await?,
        })
    }
}

/// What the files say of the image's partitions, and what in them is dead. A partition is where the
/// catalogue says, or where it was found, which the catalogue is yet to learn.
pub(crate) fn adopt(
    files: Vec<FoundFiles>,
    (dirs, found_dirs): (&LogDirs, &FoundDirs),
    image: &Image,
) -> (CheckpointOffsets, DeadNumbers) {
    let (mut known, mut dead) = (CheckpointOffsets::default(), DeadNumbers::default());
    for found in files {
        for (read, offsets) in [
            (found.recovery_points, &mut known.recovery_points),
            (found.log_starts, &mut known.log_starts),
            (found.cleaned, &mut known.cleaned),
        ] {
            for ((topic, index), offset) in read.0 {
                let known = image.topic(&topic).filter(|known| {
                    usize::try_from(index).is_ok_and(|index| index < known.partitions.len())
                });
                let home = dirs.home_of(image, &topic, index);
                let is_here = home == Some(found.directory)
                    || found_dirs.have(&topic, index, found.directory);
                match known {
                    Some(known) if is_here => {
                        let topic_id = known.id;
                        // Where two directories know a number it only grew in the one that is ahead.
                        let known = offsets
                            .entry(PartitionId { topic_id, index })
                            .or_insert(offset);
                        *known = offset.max(*known);
                    }
                    _ => dead.insert(&topic, index, found.directory),
                }
            }
        }
    }
    (known, dead)
}

async fn read<W: World>(world: &W, path: &Path) -> io::Result<OffsetCheckpoint> {
    match OffsetCheckpoint::read(world, path).await? {
        Some(Ok(found)) => Ok(found),
        Some(Err(error)) => {
            tracing::warn!(path = %path.display(), %error, "checkpoint passed over");
            Ok(OffsetCheckpoint::default())
        }
        None => Ok(OffsetCheckpoint::default()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use chronik_protocol::messages::{PartitionRecord, TopicRecord};
    use chronik_protocol::records_of::MetadataRecord;

    use super::*;
    use crate::log_dirs::LogDir;

    const HERE: Uuid = Uuid(1000);
    const THERE: Uuid = Uuid(2000);

    fn dirs() -> LogDirs {
        let dir = |path: &str, id| LogDir {
            path: PathBuf::from(path),
            id: Some(id),
        };
        LogDirs::new(vec![dir("/here", HERE), dir("/there", THERE)])
    }

    /// A topic with one partition, in this directory.
    fn image(topic_id: u128, name: &'static str, directory: Uuid) -> Image {
        let mut image = Image::new(Str::from("cluster"), 1, BTreeMap::new());
        let topic_id = Uuid(topic_id);
        let topic = MetadataRecord::Topic(TopicRecord {
            name: Str::from_static(name),
            topic_id,
            ..TopicRecord::default()
        });
        let partition = MetadataRecord::Partition(PartitionRecord {
            partition_id: 0,
            topic_id,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            directories: vec![directory],
            ..PartitionRecord::default()
        });
        for record in [topic, partition] {
            image.apply(&record).expect("it fits");
        }
        image.settle();
        image
    }

    fn found(directory: Uuid, text: &str) -> FoundFiles {
        let starts = OffsetCheckpoint::parse(text.as_bytes()).expect("a checkpoint");
        FoundFiles {
            directory,
            recovery_points: OffsetCheckpoint::default(),
            log_starts: starts,
            cleaned: OffsetCheckpoint::default(),
        }
    }

    #[test]
    fn a_number_counts_for_the_topic_that_is_there_in_the_file_of_its_directory() {
        let (dirs, image) = (dirs(), image(7, "foo", THERE));
        let files = vec![
            found(HERE, "0\n2\nfoo 0 30\nbar 0 5\n"),
            found(THERE, "0\n2\nfoo 0 3\nfoo 1 4\n"),
        ];
        let (known, mut dead) = adopt(files, (&dirs, &FoundDirs::default()), &image);
        let id = PartitionId {
            topic_id: Uuid(7),
            index: 0,
        };
        assert_eq!(known.log_starts, Offsets::from([(id, 3)]));
        assert!(
            !dead.mislead(&dirs, &image),
            "foo is in the other directory"
        );
        let next = super::tests::image(8, "bar", HERE);
        assert!(dead.mislead(&dirs, &next), "bar would begin at 5");
        let elsewhere = super::tests::image(8, "bar", THERE);
        assert!(!dead.mislead(&dirs, &elsewhere));
        dead.retain(&[THERE]);
        assert!(!dead.mislead(&dirs, &next), "its file was written");
        assert!(!dead.is_empty(), "foo-1 is still in the other");
    }

    #[test]
    fn nothing_is_left_of_a_topic_that_is_removed() {
        let id = |topic_id, index| PartitionId {
            topic_id: Uuid(topic_id),
            index,
        };
        let mut offsets = CheckpointOffsets {
            recovery_points: Offsets::from([(id(7, 0), 1), (id(8, 0), 2)]),
            log_starts: Offsets::from([(id(7, 3), 1)]),
            cleaned: Offsets::new(),
        };
        assert_eq!(offsets.remove_topic(Uuid(7)), BTreeSet::from([0, 3]));
        let left = Offsets::from([(id(8, 0), 2)]);
        assert_eq!(offsets.recovery_points, left);
        assert!(offsets.log_starts.is_empty());
    }
}
