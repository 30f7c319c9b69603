//! The checkpoints of a data directory: what its logs are, in one file for each shard that wrote.
//!
//! Written by every shard of a run, read at start by the designated one. Which shard wrote a file
//! says nothing: entries are found by partition, the youngest counts, so the number of shards may
//! change. A file that is torn, of another version or of another machine's start is passed over, with
//! one line in the log; what a file says is believed by `log::remembered`'s rules only. Never the only
//! copy of anything.
//!
//! ```text
//!  magic 8 · version 4 · CRC-32C of all behind 4 · broker epoch 8 · boot id 16 · entries 4
//!  entry: topic id 16 · partition 4 · length 4 · a `RememberedLog`
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use chronik_io::{DirEntry, World};
use chronik_protocol::Uuid;
use chronik_protocol::record::crc32c;
use chronik_terms::PartitionId;

use chronik_log::remembered::RememberedLog;

const MAGIC: u64 = u64::from_le_bytes(*b"chronlgs");
/// To be raised when a [`chronik_log::remembered::RememberedLog`] changes in any way.
const VERSION: u32 = 1;
const SUMMED_FROM: usize = 16;
/// Bytes of an entry besides its log.
pub const ENTRY_BYTES: usize = 24;
/// Largest file that is read.
const FILE_BYTES_MAX: usize = 1 << 30;
const NAME_START: &str = "chronik-logs-";
const NAME_END: &str = ".checkpoint";

/// What a run writes into its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its start: grows from run to run, a real Kafka's runs included.
    pub broker_epoch: i64,
    /// The machine's.
    pub boot_id: u128,
}

impl Writer {
    /// Where a shard's file is.
    pub fn path(&self, data: &Path, shard: usize) -> PathBuf {
        let broker_epoch = self.broker_epoch;
        data.join(format!("{NAME_START}{broker_epoch}-{shard}{NAME_END}"))
    }

    /// A file's bytes. Takes tens of milliseconds where there are many logs: not on a shard.
    pub fn to_bytes(self, logs: &[(PartitionId, Vec<u8>)]) -> Vec<u8> {
        let sizes = logs.iter().map(|(_, log)| ENTRY_BYTES + log.len());
        let mut bytes = Vec::with_capacity(SUMMED_FROM + 24 + sizes.sum::<usize>());
        bytes.put_u64_le(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u32_le(0);
        bytes.put_i64_le(self.broker_epoch);
        bytes.put_u128_le(self.boot_id);
        for (partition, log) in logs {
            let Ok(length) = u32::try_from(log.len()) else {
                continue;
            };
            bytes.put_u128_le(partition.topic_id.0);
            bytes.put_i32_le(partition.index);
            bytes.put_u32_le(length);
            bytes.put_slice(log);
        }
        let sum = bytes.get(SUMMED_FROM..).map_or(0, crc32c);
        if let Some(field) = bytes.get_mut(SUMMED_FROM - 4..SUMMED_FROM) {
            field.copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }
}

/// One log of a checkpoint.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Who wrote it.
    pub writer: Writer,
    /// A `RememberedLog`'s bytes.
    log: Bytes,
}

impl Remembered {
    /// As a file would have it.
    #[cfg(test)]
    pub(crate) fn new(writer: Writer, log: Bytes) -> Self {
        Remembered { writer, log }
    }

    /// What it says, in a machine's start: what may be gone since another one is not believed.
    pub(crate) fn read(&self, boot_id: u128) -> Option<RememberedLog> {
        let log = RememberedLog::parse(&self.log)?;
        (log.durable || self.writer.boot_id == boot_id).then_some(log)
    }
}

/// Everything the checkpoints of a directory say.
#[derive(Debug, Default)]
pub struct RememberedLogs {
    logs: BTreeMap<PartitionId, Remembered>,
}

impl RememberedLogs {
    /// Reads the checkpoints among a data directory's entries, and removes those that say nothing
    /// which a younger one does not.
    ///
    /// # Errors
    /// When a file can be neither read nor removed.
    pub async fn find<W: World>(
        world: &W,
        data: &Path,
        entries: &[DirEntry],
    ) -> io::Result<RememberedLogs> {
        let mut found = RememberedLogs::default();
        let mut files = Vec::new();
        for path in checkpoints(data, entries) {
            let parsed = match world.read_file(&path, FILE_BYTES_MAX).await {
                Ok(bytes) => parse(bytes),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
                Err(error) => return Err(error),
            };
            let Some((writer, logs)) = parsed else {
                tracing::warn!(
                    file = %path.display(),
                    "this checkpoint of the logs is torn or of another version; their files are read"
                );
                world.remove_file(&path).await?;
                continue;
            };
            for (partition, log) in logs {
                let entry = Remembered { writer, log };
                found
                    .logs
                    .entry(partition)
                    .and_modify(|known| {
                        if known.writer.broker_epoch < writer.broker_epoch {
                            *known = entry.clone();
                        }
                    })
                    .or_insert(entry);
            }
            files.push((path, writer));
        }
        for (path, writer) in files {
            let is_used = |entry: &Remembered| entry.writer == writer;
            if !found.logs.values().any(is_used) {
                world.remove_file(&path).await?;
            }
        }
        Ok(found)
    }

    /// Whether they are what the run of this broker epoch left.
    pub fn are_of_run(&self, broker_epoch: i64) -> bool {
        let mut logs = self.logs.values();
        logs.all(|told| told.writer.broker_epoch == broker_epoch)
    }

    /// What is said of one partition's log.
    pub fn of(&self, partition: PartitionId) -> Option<&Remembered> {
        self.logs.get(&partition)
    }
}

/// Removes the checkpoints of earlier runs.
///
/// # Errors
/// When the directory cannot be listed or does not let go of one.
pub async fn remove_older<W: World>(world: &W, data: &Path, broker_epoch: i64) -> io::Result<()> {
    let ours = format!("{NAME_START}{broker_epoch}-");
    for path in checkpoints(data, &world.list_dir(data).await?) {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_none_or(|name| !name.starts_with(&ours)) {
            world.remove_file(&path).await?;
        }
    }
    Ok(())
}

fn checkpoints(data: &Path, entries: &[DirEntry]) -> Vec<PathBuf> {
    let ours = entries.iter().filter(|entry| {
        let name = entry.name.to_str().unwrap_or_default();
        !entry.is_dir && name.starts_with(NAME_START) && name.ends_with(NAME_END)
    });
    ours.map(|entry| data.join(&entry.name)).collect()
}

fn parse(file: Bytes) -> Option<(Writer, Vec<(PartitionId, Bytes)>)> {
    let mut rest = file;
    if rest.len() < SUMMED_FROM {
        return None;
    }
    let (magic, version, sum) = (rest.get_u64_le(), rest.get_u32_le(), rest.get_u32_le());
    if (magic, version) != (MAGIC, VERSION) || sum != crc32c(&rest) {
        return None;
    }
    let writer = Writer {
        broker_epoch: rest.try_get_i64_le().ok()?,
        boot_id: rest.try_get_u128_le().ok()?,
    };
    let mut logs = Vec::new();
    while rest.has_remaining() {
        let partition = PartitionId {
            topic_id: Uuid(rest.try_get_u128_le().ok()?),
            index: rest.try_get_i32_le().ok()?,
        };
        let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        if length > rest.len() {
            return None;
        }
        logs.push((partition, rest.split_to(length)));
    }
    Some((writer, logs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Writer = Writer {
        broker_epoch: 17,
        boot_id: 0xb007,
    };

    fn entries() -> Vec<(PartitionId, Vec<u8>)> {
        let one = |index: i32| {
            let topic_id = Uuid(u128::from(index.unsigned_abs()) << 70 | 5);
            let log = vec![index.to_le_bytes()[0]; 10 * usize::try_from(index).expect("small")];
            (PartitionId { topic_id, index }, log)
        };
        (0..5).map(one).collect()
    }

    #[test]
    fn a_file_gives_back_what_was_put_in() {
        let entries = entries();
        let bytes = WRITER.to_bytes(&entries);
        let (writer, logs) = parse(Bytes::from(bytes)).expect("own bytes");
        assert_eq!(writer, WRITER);
        let logs: Vec<_> = logs
            .into_iter()
            .map(|(id, log)| (id, log.to_vec()))
            .collect();
        assert_eq!(logs, entries);
    }

    #[test]
    fn no_damaged_file_is_believed() {
        let entries = entries();
        let bytes = WRITER.to_bytes(&entries);
        for at in 0..bytes.len() {
            assert!(
                parse(Bytes::from(bytes[..at].to_vec())).is_none(),
                "cut at {at}"
            );
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(parse(Bytes::from(flipped)).is_none(), "flipped at {at}");
        }
        assert!(parse(Bytes::from(vec![0; 4096])).is_none());
    }
}
