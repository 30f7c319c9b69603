//! What lies in the data directories, told before anything in them is changed.
//!
//! Owns the judgement whether a start may take them over: each reason against it is one sentence. A
//! start asks it first and `chronik doctor` prints it, so that both say the same. Runs on the
//! designated shard, or on a doctor's. Never writes, renames or removes anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chronik_catalog::versions::MetadataVersion;
use chronik_catalog::{Image, METADATA_TOPIC, PartitionInfo};
use chronik_io::{DirEntry, World, is_not_now};
use chronik_log::checkpoint::{CLEAN_SHUTDOWN_FILE, RECOVERY_POINT_FILE};
use chronik_log::directory::{PartitionDir, PartitionDirState};
use chronik_protocol::{Str, Uuid};

use crate::identity::{DirectoryIdentity, IdentityError};
use crate::metadata_log::{LedEpoch, QuorumState, metadata_directory, read_metadata};

mod absent;
mod judge;
mod logs;

pub use logs::LogsFound;

/// Sentences of one kind that are listed; the rest is counted.
const LISTED_MAX: usize = 3;
/// What a start that came to nothing leaves, and what a new file system has.
const OF_NOBODY: [&str; 2] = [".lock", "lost+found"];

/// What a start would be told of the directories.
#[derive(Clone, Copy, Debug)]
pub struct SurveyOptions<'a> {
    /// The first of `log.dirs`, absolute.
    pub data: &'a Path,
    /// The others.
    pub more_data: &'a [PathBuf],
    /// `node.id`, where it was configured.
    pub node_id: Option<i32>,
    /// The cluster's id, where it was configured.
    pub cluster_id: Option<&'a Str>,
    /// Look at every log, too, where this broker was the last to write: only for the numbers.
    pub count_logs: bool,
}

/// Who wrote a directory last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastWriter {
    /// It is empty, or does not exist.
    #[default]
    Nobody,
    /// This broker.
    Chronik,
    /// An Apache Kafka.
    Kafka,
}

/// One data directory.
#[derive(Clone, Debug)]
pub struct SurveyedDir {
    /// Absolute.
    pub path: PathBuf,
    /// From its `meta.properties`.
    pub identity: Option<DirectoryIdentity>,
    /// Its entries; none when it does not exist.
    entries: Vec<DirEntry>,
    /// It cannot be read now, for this reason: what lies there is offline.
    pub failure: Option<String>,
}

/// What was found; see the module's text.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// In the order of the configuration.
    pub dirs: Vec<SurveyedDir>,
    /// Who wrote the first one last.
    pub last_writer: LastWriter,
    /// There is a metadata log: a directory that was only formatted has none.
    pub has_begun: bool,
    /// The last run stopped in order.
    pub is_clean: bool,
    /// `metadata.version` as Kafka calls it; `None` for an empty directory.
    pub metadata_version: Option<&'static str>,
    /// Topics, the internal ones included.
    pub topics: usize,
    /// Partitions of them.
    pub partitions: usize,
    /// The logs' files.
    pub logs: LogsFound,
    /// Why a start refuses; empty when it would not.
    pub refusals: Vec<String>,
    /// What is offline because a log directory is not there.
    pub offline: Option<String>,
    /// What a start goes on in spite of, and somebody has to know.
    pub warnings: Vec<String>,
    /// What a start keeps without acting upon it, changes or removes.
    pub notes: Vec<String>,
}

impl Survey {
    /// Looks through the directories.
    pub async fn take<W: World>(world: &W, options: SurveyOptions<'_>) -> Survey {
        let mut survey = Survey::default();
        let paths = [options.data]
            .into_iter()
            .chain(options.more_data.iter().map(PathBuf::as_path));
        for path in paths {
            let dir = survey.look_at(world, path).await;
            survey.dirs.push(dir);
        }
        survey.judge_identities(options);
        survey.tell_of_strange_files();
        if !survey.refusals.is_empty() || survey.identity().is_none() {
            return survey;
        }
        survey.has_begun = survey.dirs.iter().any(SurveyedDir::has_metadata);
        survey.is_clean = survey
            .dirs
            .iter()
            .all(|dir| dir.failure.is_some() || dir.has(CLEAN_SHUTDOWN_FILE));
        survey.last_writer = match LedEpoch::is_last(world, options.data).await {
            true => LastWriter::Chronik,
            false => LastWriter::Kafka,
        };
        survey.look_at_metadata(world, options).await;
        survey
    }

    /// Of the first directory.
    pub fn identity(&self) -> Option<&DirectoryIdentity> {
        self.dirs.first()?.identity.as_ref()
    }

    fn refuse(&mut self, path: &Path, sentence: impl std::fmt::Display) {
        self.refusals
            .push(format!("{}: {sentence}", path.display()));
    }

    async fn look_at<W: World>(&mut self, world: &W, path: &Path) -> SurveyedDir {
        let mut dir = SurveyedDir {
            path: path.to_owned(),
            identity: None,
            entries: Vec::new(),
            failure: None,
        };
        match world.list_dir(path).await {
            Ok(entries) => dir.entries = entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return dir,
            Err(error) => {
                self.unreadable(&mut dir, &error);
                return dir;
            }
        }
        match DirectoryIdentity::load(world, path).await {
            Ok(identity) => dir.identity = identity,
            Err(error @ IdentityError::Unusable { .. }) => self.refuse(path, error),
            Err(IdentityError::Io(error)) => self.unreadable(&mut dir, &error),
        }
        dir
    }

    /// What lies there is offline; but nothing begins without the first directory, nor while something is
    /// only too short to judge one.
    fn unreadable(&mut self, dir: &mut SurveyedDir, error: &io::Error) {
        dir.failure = Some(error.to_string());
        // No disk that fails says so: somebody named the wrong thing.
        if error.kind() == io::ErrorKind::NotADirectory {
            let sentence = "it is a file, or below one, and not a directory: name a directory";
            return self.refuse(&dir.path, sentence);
        }
        if self.dirs.is_empty() || is_not_now(error) {
            let sentence = format!("it cannot be read now: {error}");
            self.refuse(&dir.path, sentence);
        }
    }

    /// Whether the directories belong together, and to whom the settings say.
    fn judge_identities(&mut self, options: SurveyOptions<'_>) {
        let dirs = std::mem::take(&mut self.dirs);
        // One that cannot be read is offline, whoever's it is: what it lacks says nothing.
        for dir in dirs.iter().filter(|dir| dir.failure.is_none()) {
            let sentence = dir.stranger(options).or_else(|| dir.misplaced(&dirs));
            if let Some(sentence) = sentence {
                self.refuse(&dir.path, sentence);
            }
        }
        self.dirs = dirs;
    }

    fn tell_of_strange_files(&mut self) {
        for dir in self.dirs.iter().filter(|dir| dir.identity.is_none()) {
            let Some(name) = dir.strange_file() else {
                continue;
            };
            self.warnings.push(format!(
                "{}: it is no log directory and not empty either ({name}, for one): a start makes a new \
                 log directory of it, and leaves what is there",
                dir.path.display()
            ));
        }
    }

    async fn look_at_metadata<W: World>(&mut self, world: &W, options: SurveyOptions<'_>) {
        let data = options.data;
        let Some(identity) = self.identity().cloned() else {
            return;
        };
        let empty = Image::new(identity.cluster_id, identity.node_id, BTreeMap::new());
        let reading = match read_metadata(world, data, empty).await {
            Ok(reading) => reading,
            Err(error) => return self.refuse(data, error),
        };
        let image = &reading.image;
        self.topics = image.topic_count();
        self.partitions = image.topics().map(|topic| topic.partitions.len()).sum();
        self.metadata_version = Some(MetadataVersion::of(&image.features).name());
        let quorum_state = QuorumState::load(world, &metadata_directory(data)).await;
        let quorum_state = match quorum_state {
            Ok(quorum_state) => quorum_state,
            Err(error) => return self.refuse(data, format!("quorum-state: {error}")),
        };
        judge::judge(self, data, &reading, quorum_state.as_ref());
        self.offline = absent::offline(&self.dirs, image);
        if options.count_logs || self.last_writer == LastWriter::Kafka {
            logs::look(self, world, image).await;
        }
    }
}

impl SurveyedDir {
    fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// Directories of partitions that are in use.
    fn partitions(&self) -> impl Iterator<Item = PartitionDir> {
        let dirs = self.entries.iter().filter(|entry| entry.is_dir);
        let parsed = dirs.filter_map(|entry| PartitionDir::parse(entry.name.to_str()?));
        parsed.filter(|dir| dir.state == PartitionDirState::Live)
    }

    fn has_metadata(&self) -> bool {
        self.has(&PartitionDir::name(METADATA_TOPIC, 0))
    }

    /// A broker has been at work here; one that was only formatted holds no more than its identity and
    /// what the metadata log begins with.
    fn is_used(&self) -> bool {
        let dirs = self.entries.iter().filter(|entry| entry.is_dir);
        let mut parsed = dirs.filter_map(|entry| PartitionDir::parse(entry.name.to_str()?));
        let is_any = parsed.any(|dir| dir.topic != METADATA_TOPIC);
        is_any
            || [CLEAN_SHUTDOWN_FILE, RECOVERY_POINT_FILE]
                .map(|name| self.has(name))
                .contains(&true)
    }

    /// The name of one that no broker and no file system puts into a new directory.
    fn strange_file(&self) -> Option<&str> {
        let names = self.entries.iter().filter_map(|entry| entry.name.to_str());
        let mut strange = names.filter(|name| {
            let is_ours = OF_NOBODY.contains(name) || name.ends_with(".tmp");
            !is_ours && PartitionDir::parse(name).is_none()
        });
        strange.next()
    }

    /// Why it is not this broker's; nothing for one that is, or that is nobody's yet.
    fn stranger(&self, options: SurveyOptions<'_>) -> Option<String> {
        let Some(identity) = &self.identity else {
            let found = self.partitions().next()?;
            let name = PartitionDir::name(&found.topic, found.index);
            return Some(format!(
                "there are logs of partitions ({name}, for one) but no meta.properties, so that nobody \
                 knows whose they are: format it with kafka-storage.sh, or choose another directory"
            ));
        };
        match options.node_id {
            Some(wanted) if wanted != identity.node_id => {
                return Some(format!(
                    "it belongs to node {} and node.id={wanted} is configured: leave node.id out, or \
                     set it to {}",
                    identity.node_id, identity.node_id
                ));
            }
            _ => {}
        }
        match options.cluster_id {
            Some(wanted) if *wanted != identity.cluster_id => Some(format!(
                "it belongs to the cluster {} and chronik.cluster.id={wanted} is configured: leave \
                 that out, or choose another directory",
                identity.cluster_id
            )),
            _ => None,
        }
    }

    /// Why it does not go with the others.
    fn misplaced(&self, dirs: &[SurveyedDir]) -> Option<String> {
        let first = dirs.first()?;
        let is_judged = first.identity.is_some() && !dirs.iter().any(SurveyedDir::has_metadata);
        let identity = self.identity.as_ref();
        // As if only formatted, it would begin a metadata log that knows nothing of what lies in it.
        if let Some(identity) = identity.filter(|_| is_judged && self.is_used()) {
            return Some(format!(
                "it is a log directory of the cluster {}, node {} (directory id {}), without the metadata \
                 log: name the directory that has it first",
                identity.cluster_id, identity.node_id, identity.directory_id
            ));
        }
        if std::ptr::eq(first, self) {
            let with_metadata = dirs.iter().find(|dir| dir.has_metadata())?;
            return (!first.has_metadata()).then(|| {
                format!(
                    "it has no metadata log, and {} does: name that directory first",
                    with_metadata.path.display()
                )
            });
        }
        if self.has_metadata() {
            return Some(format!(
                "it has a metadata log of its own beside that of {}: they are not of one broker",
                first.path.display()
            ));
        }
        let (ours, theirs) = (self.identity.as_ref()?, first.identity.as_ref());
        let Some(theirs) = theirs else {
            return Some(format!(
                "it belongs to the cluster {}, and {} is new: name the directory with the metadata log \
                 first",
                ours.cluster_id,
                first.path.display()
            ));
        };
        let of = |identity: &DirectoryIdentity| (identity.node_id, identity.cluster_id.clone());
        (of(ours) != of(theirs)).then(|| {
            format!(
                "it belongs to node {} of the cluster {}, and {} to node {} of {}: they are not of \
                 one broker",
                ours.node_id,
                ours.cluster_id,
                first.path.display(),
                theirs.node_id,
                theirs.cluster_id
            )
        })
    }
}

/// The ids of the directories, for partitions that say where they lie.
fn known_ids(dirs: &[SurveyedDir]) -> Vec<Uuid> {
    let identities = dirs.iter().filter_map(|dir| dir.identity.as_ref());
    identities.map(|identity| identity.directory_id).collect()
}

/// `one, two, three and 4 more`.
fn listed(names: &[String]) -> String {
    let shown = names.get(..names.len().min(LISTED_MAX)).unwrap_or_default();
    match names.len().saturating_sub(LISTED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What an image says of partitions, by the names of their directories.
fn partitions_of(image: &Image) -> impl Iterator<Item = (String, &PartitionInfo)> {
    image.topics().flat_map(|topic| {
        let partitions = (0..).zip(&topic.partitions);
        partitions.map(|(index, info)| (PartitionDir::name(&topic.name, index), info))
    })
}
