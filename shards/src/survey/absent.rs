//! Which partitions a start leaves offline because the log directory they lie in is not there.
//!
//! Pure: holds the catalogue against the directories that were found. A disk that is not mounted leaves its
//! mount point behind, an empty directory like any new one.

use std::collections::BTreeSet;

use chronik_catalog::Image;
use chronik_log::directory::PartitionDir;
use chronik_protocol::Uuid;

use super::{SurveyedDir, known_ids, listed};
use crate::log_dirs::is_assigned;

/// One sentence for all partitions whose directory is not among `dirs`; nothing when there are none.
pub(super) fn offline(dirs: &[SurveyedDir], image: &Image) -> Option<String> {
    let known = known_ids(dirs);
    let mut missing = BTreeSet::<Uuid>::new();
    let (mut partitions, mut topics) = (0_usize, 0_usize);
    for topic in image.topics() {
        let before = partitions;
        for (index, info) in (0..).zip(&topic.partitions) {
            let is_known = |id: &Uuid| !is_assigned(*id) || known.contains(id);
            // Who moved it by hand is followed.
            let is_found = || {
                let name = PartitionDir::name(&topic.name, index);
                dirs.iter().any(|dir| dir.has(&name))
            };
            if info.directories.is_empty() || info.directories.iter().any(is_known) || is_found() {
                continue;
            }
            partitions += 1;
            missing.extend(&info.directories);
        }
        topics += usize::from(partitions > before);
    }
    let missing: Vec<String> = missing.iter().map(Uuid::to_string).collect();
    (partitions > 0).then(|| {
        format!(
            "the log directory with the id {} is missing{}: {} of {} are offline; mount it, name it in \
             log.dirs, and restart",
            listed(&missing),
            instead(dirs),
            counted(partitions, "partition"),
            counted(topics, "topic"),
        )
    })
}

/// The directories that may be the missing ones.
fn instead(dirs: &[SurveyedDir]) -> String {
    let mut text = String::new();
    for dir in dirs.iter().filter(|dir| dir.identity.is_none()) {
        let how = match dir.failure {
            Some(_) => "cannot be read",
            None => "is empty, as where its disk is not mounted",
        };
        text.push_str(&format!(", and {} {how}", dir.path.display()));
    }
    text
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
