//! The names inside a data directory: partition directories and the files of a segment.
//!
//! Pure parsing and formatting; nothing here touches a disk. The rules are Kafka's
//! (`LocalLog#parseTopicPartitionName`, `LogFileUtils`), because Kafka and its tools open the
//! same directories.

use std::path::{Path, PathBuf};

/// What the suffix of a partition directory says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionDirState {
    /// `<topic>-<partition>`: a log in use.
    Live,
    /// `….<32 hex>-delete`: renamed because its topic was deleted, to be removed.
    Deleted,
    /// `….<32 hex>-stray`: the catalogue does not know it; kept for the operator.
    Stray,
    /// `….<32 hex>-future`: a half-finished move between data directories.
    Future,
}

impl PartitionDirState {
    fn suffix(self) -> &'static str {
        match self {
            Self::Live => "",
            Self::Deleted => "-delete",
            Self::Stray => "-stray",
            Self::Future => "-future",
        }
    }
}

/// A directory name that Kafka would take for a partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDir {
    /// Topic name; may be cut short when the state is not `Live`.
    pub topic: String,
    /// Partition index, never negative.
    pub index: i32,
    /// From the suffix.
    pub state: PartitionDirState,
}

/// Longest file name most file systems take, bytes; marked names are cut to it as Kafka does.
const NAME_BYTES_MAX: usize = 255;

impl PartitionDir {
    /// Reads a directory's name; `None` for names Kafka would refuse to start with.
    pub fn parse(name: &str) -> Option<PartitionDir> {
        let (stem, state) = split_state(name)?;
        let (topic, index) = stem.rsplit_once('-')?;
        // Java's parseInt takes a sign too, but no broker ever wrote one.
        if topic.is_empty() || index.is_empty() || !index.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(PartitionDir {
            topic: topic.to_owned(),
            index: index.parse().ok()?,
            state,
        })
    }

    /// `<topic>-<index>`.
    pub fn name(topic: &str, index: i32) -> String {
        format!("{topic}-{index}")
    }

    /// `<topic>-<index>.<32 hex>-<state>`, the topic cut so that the name is at most 255 bytes.
    pub fn marked_name(topic: &str, index: i32, unique: u128, state: PartitionDirState) -> String {
        let tail = format!("-{index}.{unique:032x}{}", state.suffix());
        let mut keep = topic.len().min(NAME_BYTES_MAX.saturating_sub(tail.len()));
        while !topic.is_char_boundary(keep) {
            keep -= 1;
        }
        format!("{}{tail}", topic.get(..keep).unwrap_or_default())
    }
}

fn split_state(name: &str) -> Option<(&str, PartitionDirState)> {
    use PartitionDirState::{Deleted, Future, Stray};
    for state in [Deleted, Stray, Future] {
        if let Some(marked) = name.strip_suffix(state.suffix()) {
            let (stem, unique) = marked.rsplit_once('.')?;
            return (!unique.is_empty()).then_some((stem, state));
        }
    }
    Some((name, PartitionDirState::Live))
}

/// The kinds of file a segment or a partition directory may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offsets to positions.
    Index,
    /// `.timeindex`: timestamps to offsets.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TransactionIndex,
    /// `.snapshot`: producer state of everything below the offset in the name.
    Snapshot,
}

impl FileKind {
    /// The extension with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::Index => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TransactionIndex => ".txnindex",
            Self::Snapshot => ".snapshot",
        }
    }

    fn from_extension(extension: &str) -> Option<FileKind> {
        [
            Self::Log,
            Self::Index,
            Self::TimeIndex,
            Self::TransactionIndex,
            Self::Snapshot,
        ]
        .into_iter()
        .find(|kind| kind.extension().strip_prefix('.') == Some(extension))
    }
}

impl Leftover {
    /// The suffix behind the extension.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Deleted => ".deleted",
            Self::Cleaned => ".cleaned",
            Self::Swap => ".swap",
        }
    }
}

/// What is left of an unfinished change to a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// `.deleted`: would have been removed next.
    Deleted,
    /// `.cleaned`: half-written output of a cleaner.
    Cleaned,
    /// `.swap`: complete output of a cleaner, about to replace what it covers.
    Swap,
}

/// A file of a partition directory whose name carries an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Base offset, or the snapshot's offset.
    pub offset: i64,
    /// From the extension.
    pub kind: FileKind,
    /// From the suffix behind it.
    pub leftover: Option<Leftover>,
}

impl SegmentFile {
    /// Reads a file's name; `None` for anything that is not part of a segment.
    pub fn parse(name: &str) -> Option<SegmentFile> {
        let (name, leftover) = [Leftover::Deleted, Leftover::Cleaned, Leftover::Swap]
            .into_iter()
            .find_map(|leftover| Some((name.strip_suffix(leftover.suffix())?, Some(leftover))))
            .unwrap_or((name, None));
        let (offset, extension) = name.split_once('.')?;
        if offset.len() != 20 || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let kind = FileKind::from_extension(extension)?;
        Some(SegmentFile {
            offset: offset.parse().ok()?,
            kind,
            leftover,
        })
    }
}

/// `<dir>/<20-digit offset><extension>`.
pub fn segment_path(dir: &Path, offset: i64, kind: FileKind) -> PathBuf {
    dir.join(format!("{offset:020}{}", kind.extension()))
}

/// `<dir>/<20-digit offset><extension><suffix>`.
pub fn leftover_path(dir: &Path, offset: i64, kind: FileKind, leftover: Leftover) -> PathBuf {
    let extension = kind.extension();
    dir.join(format!("{offset:020}{extension}{}", leftover.suffix()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_directories_parse_as_kafka_parses_them() {
        let live = |topic: &str, index| {
            Some(PartitionDir {
                topic: topic.into(),
                index,
                state: PartitionDirState::Live,
            })
        };
        assert_eq!(PartitionDir::parse("orders-0"), live("orders", 0));
        assert_eq!(PartitionDir::parse("a-b.c-12"), live("a-b.c", 12));
        assert_eq!(
            PartitionDir::parse("__cluster_metadata-0"),
            live("__cluster_metadata", 0)
        );
        for refused in [
            "orders",
            "-1",
            "orders-",
            "orders-x",
            "orders--delete",
            "orders-+1",
            "",
        ] {
            assert_eq!(PartitionDir::parse(refused), None, "{refused}");
        }
        let name = PartitionDir::marked_name("orders", 3, 0xab, PartitionDirState::Deleted);
        assert_eq!(name, "orders-3.000000000000000000000000000000ab-delete");
        let parsed = PartitionDir::parse(&name).expect("own names parse");
        assert_eq!((parsed.topic.as_str(), parsed.index), ("orders", 3));
        assert_eq!(parsed.state, PartitionDirState::Deleted);
    }

    #[test]
    fn marked_names_never_exceed_what_a_file_system_takes() {
        let topic = "t".repeat(249);
        let name = PartitionDir::marked_name(&topic, 2_147_483_647, 7, PartitionDirState::Stray);
        assert_eq!(name.len(), 255);
        assert_eq!(
            PartitionDir::parse(&name).map(|dir| dir.state),
            Some(PartitionDirState::Stray)
        );
    }

    #[test]
    fn segment_files_parse_with_their_leftover_suffixes() {
        let parse = SegmentFile::parse;
        let plain = SegmentFile {
            offset: 15,
            kind: FileKind::Log,
            leftover: None,
        };
        assert_eq!(parse("00000000000000000015.log"), Some(plain));
        let swap = SegmentFile {
            leftover: Some(Leftover::Swap),
            ..plain
        };
        assert_eq!(parse("00000000000000000015.log.swap"), Some(swap));
        for other in [
            "partition.metadata",
            "15.log",
            "00000000000000000015.txt",
            "x.log.deleted",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(
            segment_path(Path::new("/d"), 15, FileKind::TimeIndex),
            Path::new("/d/00000000000000000015.timeindex")
        );
    }
}
