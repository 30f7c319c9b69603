//! Kafka's small text files: offset checkpoints of a data directory, `leader-epoch-checkpoint`'s
//! shape, `partition.metadata` and the clean-shutdown marker.
//!
//! Parsing is total: garbage is an error with a sentence, never a panic, because the files survive
//! crashes and other people's brokers. Writing goes through the world's atomic replace
//! (`CheckpointFile`: temporary file, sync, rename, directory sync).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use chronik_io::World;
use chronik_protocol::{Str, Uuid};

/// Offsets below which everything is known to be on disk and whole.
pub const RECOVERY_POINT_FILE: &str = "recovery-point-offset-checkpoint";
/// First offsets that may be read.
pub const LOG_START_FILE: &str = "log-start-offset-checkpoint";
/// Offsets below which compacted logs have been cleaned.
pub const CLEANER_FILE: &str = "cleaner-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARK_FILE: &str = "replication-offset-checkpoint";
/// Present only between a clean stop and the next start.
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// In each partition's directory: which topic id it belongs to.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";
/// In each partition's directory: where each leader epoch began.
pub const LEADER_EPOCH_FILE: &str = "leader-epoch-checkpoint";

/// Largest checkpoint that is read: a million partitions with the longest names.
const CHECKPOINT_BYTES_MAX: usize = 512 << 20;
/// Largest of the files that hold one value.
const SMALL_FILE_BYTES_MAX: usize = 64 << 10;

/// A checkpoint file that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointError {
    /// 1-based; 0 when the file as a whole is at fault.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for CheckpointError {}

/// Splits a checkpoint into its entries' lines, after the version and the count were checked.
pub(crate) fn checkpoint_lines(
    bytes: &[u8],
) -> Result<impl Iterator<Item = (usize, &str)>, CheckpointError> {
    let fail = |line, what| Err(CheckpointError { line, what });
    let Ok(text) = std::str::from_utf8(bytes) else {
        return fail(0, "not UTF-8");
    };
    let mut lines = text.lines();
    if lines.next() != Some("0") {
        return fail(1, "the version is not 0");
    }
    let Some(count) = lines.next().and_then(|line| line.parse::<usize>().ok()) else {
        return fail(2, "the number of entries is not a number");
    };
    if lines.clone().count() != count {
        return fail(
            2,
            "the number of entries is not the number of lines that follow",
        );
    }
    Ok(lines.enumerate().map(|(at, line)| (at + 3, line)))
}

/// One of the data directory's `topic partition offset` files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetCheckpoint(pub BTreeMap<(Str, i32), i64>);

impl OffsetCheckpoint {
    /// Reads a file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut offsets = BTreeMap::new();
        for (line, text) in checkpoint_lines(bytes)? {
            let entry = parse_entry(text);
            let what = "not `topic partition offset`";
            let (key, offset) = entry.ok_or(CheckpointError { line, what })?;
            if offset < 0 {
                return Err(CheckpointError {
                    line,
                    what: "a negative offset",
                });
            }
            offsets.insert(key, offset);
        }
        Ok(Self(offsets))
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("0\n{}\n", self.0.len());
        for ((topic, index), offset) in &self.0 {
            let _ = writeln!(text, "{} {index} {offset}", &**topic);
        }
        text.into_bytes()
    }

    /// Reads the file at `path`: `None` when there is none, the inner error when it is garbled.
    pub async fn read<W: World>(
        world: &W,
        path: &Path,
    ) -> io::Result<Option<Result<Self, CheckpointError>>> {
        let bytes = read_if_present(world, path, CHECKPOINT_BYTES_MAX).await?;
        Ok(bytes.map(|bytes| Self::parse(&bytes)))
    }

    /// Replaces the file at `path`; durable when this returns.
    pub async fn write<W: World>(&self, world: &W, path: &Path) -> io::Result<()> {
        world.write_file_atomic(path, &self.to_bytes()).await
    }
}

fn parse_entry(text: &str) -> Option<((Str, i32), i64)> {
    let mut words = text.split_ascii_whitespace();
    let topic = words.next()?.to_owned();
    let index = words.next()?.parse().ok()?;
    let offset = words.next()?.parse().ok()?;
    words
        .next()
        .is_none()
        .then(|| ((Str::from(topic), index), offset))
}

/// `.kafka_cleanshutdown`: the broker epoch of the run that ended cleanly
/// (`CleanShutdownFileHandler`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// −1 when the broker never got one.
    pub broker_epoch: i64,
}

impl CleanShutdown {
    /// Reads the file's bytes; an older Kafka's empty file counts as clean, with epoch −1.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let number = text.split("\"brokerEpoch\"").nth(1).and_then(|rest| {
            let rest = rest.trim_start().strip_prefix(':')?.trim_start();
            let end = rest
                .find(|c: char| c != '-' && !c.is_ascii_digit())
                .unwrap_or(rest.len());
            rest.get(..end)?.parse().ok()
        });
        Self {
            broker_epoch: number.unwrap_or(-1),
        }
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{{\"version\":0,\"brokerEpoch\":{}}}", self.broker_epoch).into_bytes()
    }
}

/// `partition.metadata`: the id of the topic a partition's directory belongs to
/// (`PartitionMetadataFile`).
pub fn partition_metadata_bytes(topic_id: Uuid) -> Vec<u8> {
    format!("version: 0\ntopic_id: {topic_id}").into_bytes()
}

/// The topic id in `partition.metadata`.
pub fn parse_partition_metadata(bytes: &[u8]) -> Result<Uuid, CheckpointError> {
    let fail = |line, what| CheckpointError { line, what };
    let text = std::str::from_utf8(bytes).map_err(|_| fail(0, "not UTF-8"))?;
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("version: 0") {
        return Err(fail(1, "the version is not 0"));
    }
    let id = lines.next().and_then(|line| line.strip_prefix("topic_id:"));
    let id = id.ok_or(fail(2, "not `topic_id: <id>`"))?;
    id.trim()
        .parse()
        .map_err(|_| fail(2, "the topic id is not 16 bytes in URL-safe base64"))
}

/// A small file's bytes; `None` when it does not exist.
pub async fn read_if_present<W: World>(
    world: &W,
    path: &Path,
    bytes_max: usize,
) -> io::Result<Option<bytes::Bytes>> {
    match world.read_file(path, bytes_max).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`read_if_present`], for files of a line or two.
pub async fn read_small<W: World>(world: &W, path: &Path) -> io::Result<Option<bytes::Bytes>> {
    read_if_present(world, path, SMALL_FILE_BYTES_MAX).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_checkpoints_are_kafkas_text() {
        let text = b"0\n2\norders 0 17\npayments 11 0\n";
        let checkpoint = OffsetCheckpoint::parse(text).expect("valid");
        assert_eq!(checkpoint.0.get(&(Str::from("orders"), 0)), Some(&17));
        assert_eq!(checkpoint.to_bytes(), text);
        assert_eq!(OffsetCheckpoint::default().to_bytes(), b"0\n0\n");
    }

    #[test]
    fn garbled_checkpoints_are_refused_with_the_line() {
        for (text, line) in [
            (&b""[..], 1),
            (b"1\n0\n", 1),
            (b"0\nx\n", 2),
            (b"0\n2\na 0 1\n", 2),
            (b"0\n1\na 0 1\nb 0 1\n", 2),
            (b"0\n1\na 0\n", 3),
            (b"0\n1\na 0 1 2\n", 3),
            (b"0\n2\na 0 1\nb 0 -1\n", 4),
            (b"0\n1\n\xff 0 1\n", 0),
        ] {
            let error = OffsetCheckpoint::parse(text).expect_err("garbled");
            assert_eq!(
                error.line,
                line,
                "{error} in {:?}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn the_clean_shutdown_marker_carries_the_broker_epoch() {
        let marker = CleanShutdown { broker_epoch: 42 };
        assert_eq!(marker.to_bytes(), br#"{"version":0,"brokerEpoch":42}"#);
        assert_eq!(CleanShutdown::parse(&marker.to_bytes()), marker);
        assert_eq!(
            CleanShutdown::parse(br#"{"version": 0, "brokerEpoch": -1}"#).broker_epoch,
            -1
        );
        assert_eq!(CleanShutdown::parse(b"").broker_epoch, -1);
    }

    #[test]
    fn partition_metadata_names_the_topic_id() {
        let id = Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let bytes = partition_metadata_bytes(id);
        assert_eq!(parse_partition_metadata(&bytes), Ok(id));
        for text in [
            "",
            "version: 1\ntopic_id: x",
            "version: 0\n",
            "version: 0\ntopic_id: !!",
        ] {
            assert!(parse_partition_metadata(text.as_bytes()).is_err(), "{text}");
        }
    }
}
