//! A directory as files: any change in it, and the complaints of Kafka's reader of log files.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::{Program, Report};

/// Every file and directory below a directory but the lock: for files their size, the time of the last change, and a
/// digest.
pub(crate) fn digest(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    for path in walk(directory) {
        if path.ends_with(".lock") {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).expect("a file's metadata");
        let mut told = (0, 0, 0, 0);
        if metadata.is_file() {
            let mut hasher = DefaultHasher::new();
            fs::read(&path).expect("a readable file").hash(&mut hasher);
            told = (
                metadata.len(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                hasher.finish(),
            );
        }
        found.insert(path, told);
    }
    found
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            found.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

/// Copies a directory as it is.
pub(crate) fn copy(from: &Path, to: &Path) {
    for path in walk(from) {
        let target = to.join(path.strip_prefix(from).expect("it lies below"));
        if path.is_dir() {
            fs::create_dir_all(target).expect("a directory");
        } else {
            fs::copy(&path, target).expect("a copy");
        }
    }
}

/// What `kafka-dump-log` prints when a file is not as Kafka would have written it.
const COMPLAINTS: [&str; 7] = [
    "isvalid: false",
    "Mismatches in",
    "mismatch in",
    "out of order",
    "corrupt",
    "Exception",
    "Could not",
];

/// Has Kafka's reader look at every file of a kind that it knows.
///
/// # Panics
/// When it complains.
pub(crate) fn dump_everything(directory: &Path) {
    let of_kind = |kind: &'static str| {
        let is_it = move |path: &PathBuf| path.extension().is_some_and(|found| found == kind);
        walk(directory).into_iter().filter(is_it)
    };
    let of_topic = |path: &PathBuf, topic: &str| path.to_string_lossy().contains(topic);
    let of_metadata = |path: &PathBuf| of_topic(path, "__cluster_metadata");
    let of_groups = |path: &PathBuf| of_topic(path, "__consumer_offsets");
    let logs: Vec<_> = of_kind("log").collect();
    dump(logs.iter().cloned(), &["--deep-iteration"]);
    let metadata = of_kind("log").chain(of_kind("checkpoint").filter(|path| {
        // Only the metadata log's checkpoints are snapshots that Kafka reads.
        of_metadata(path)
    }));
    dump(
        metadata.filter(of_metadata),
        &["--cluster-metadata-decoder"],
    );
    dump(
        logs.iter().filter(|path| of_groups(path)).cloned(),
        &["--offsets-decoder"],
    );
    dump(
        of_kind("index").chain(of_kind("timeindex")),
        &["--index-sanity-check"],
    );
    dump(
        of_kind("index").chain(of_kind("timeindex")),
        &["--verify-index-only"],
    );
    dump(of_kind("snapshot"), &[]);
}

fn dump(files: impl Iterator<Item = PathBuf>, words: &[&str]) {
    let list: Vec<_> = files
        .map(|file| file.to_string_lossy().into_owned())
        .collect();
    if list.is_empty() {
        return;
    }
    let program = Program::kafka_tool("kafka-dump-log").args(["--files", &list.join(",")]);
    let Report { out, err, .. } = program.args(words).run().expect("the tools are there");
    let all = out + &err;
    assert_eq!(
        all.matches("Dumping ").count(),
        list.len(),
        "{words:?}: {all}"
    );
    for line in all.lines() {
        let complaint = COMPLAINTS
            .iter()
            .find(|complaint| line.contains(**complaint));
        assert!(complaint.is_none(), "kafka-dump-log {words:?}: {line}");
    }
}
