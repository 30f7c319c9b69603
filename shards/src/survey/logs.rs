//! The files of the partitions: how many there are, and whether one holds what cannot be served.
//!
//! Reads directory lists; of a directory that Kafka wrote also the first bytes of each segment, the
//! newest producer snapshot of each log, and the transaction coordinator's logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chronik_catalog::{Image, METADATA_TOPIC};
use chronik_coordinators::unfold::Unfolding;
use chronik_io::{File, OpenMode, World};
use chronik_log::directory::{FileKind, PartitionDir, PartitionDirState, SegmentFile};
use chronik_log::producer_state::ProducerStates;
use chronik_log::scan::{LogScan, ScanStep};
use chronik_protocol::Str;
use chronik_protocol::record::Record;
use chronik_protocol::records_of::{TransactionKey, TransactionValue, decode_key, decode_value};

use super::{LastWriter, Survey, listed};
use crate::limits::SMALL_FILE_BYTES_MAX;

const TRANSACTION_TOPIC: &str = "__transaction_state";
/// Where a batch or message says which format it has, bytes from its beginning.
const MAGIC_AT: usize = 16;
/// The first format that is served in place.
const MAGIC: u8 = 2;
/// `TransactionState`s in which nothing is to be done any more: Empty, CompleteCommit, CompleteAbort,
/// Dead.
const SETTLED: [i8; 4] = [0, 4, 5, 6];

/// What the logs come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogsFound {
    /// Directories of partitions.
    pub count: usize,
    /// Their segments' bytes.
    pub bytes: u64,
}

/// What was found that cannot be served, by the names of the partitions.
#[derive(Default)]
struct Found {
    old_formats: Vec<String>,
    open: Vec<String>,
    transactions: BTreeMap<Str, i8>,
    unreadable: Vec<String>,
    unknown: Vec<String>,
    deleted: usize,
    moving: usize,
}

/// Looks at every log of the directories.
pub(super) async fn look<W: World>(survey: &mut Survey, world: &W, image: &Image) {
    let mut found = Found::default();
    let dirs: Vec<PathBuf> = survey.dirs.iter().map(|dir| dir.path.clone()).collect();
    for (at, data) in dirs.iter().enumerate() {
        let entries = survey
            .dirs
            .get(at)
            .map(|dir| dir.entries.clone())
            .unwrap_or_default();
        let names = entries.iter().filter(|entry| entry.is_dir);
        for name in names.filter_map(|entry| entry.name.to_str()) {
            let Some(dir) = PartitionDir::parse(name) else {
                continue;
            };
            world.pause().await;
            match dir.state {
                PartitionDirState::Deleted => found.deleted += 1,
                PartitionDirState::Future => found.moving += 1,
                PartitionDirState::Stray => {}
                PartitionDirState::Live if dir.topic == METADATA_TOPIC => {}
                PartitionDirState::Live if !is_known(image, &dir) => {
                    found.unknown.push(name.to_owned())
                }
                PartitionDirState::Live => {
                    let path = data.join(name);
                    let log = Log {
                        name,
                        path: &path,
                        is_clean: survey.is_clean,
                    };
                    let is_foreign = survey.last_writer == LastWriter::Kafka;
                    let bytes = log.look(world, is_foreign, &mut found).await;
                    survey.logs.count += 1;
                    survey.logs.bytes = survey.logs.bytes.saturating_add(bytes);
                }
            }
        }
    }
    if let Some(data) = dirs.first() {
        found.tell(survey, data);
    }
}

fn is_known(image: &Image, dir: &PartitionDir) -> bool {
    image.topic(&dir.topic).is_some_and(|topic| {
        usize::try_from(dir.index).is_ok_and(|index| index < topic.partitions.len())
    })
}

impl Found {
    fn tell(self, survey: &mut Survey, data: &Path) {
        if !self.old_formats.is_empty() {
            let sentence = format!(
                "logs hold messages of the formats before Kafka 0.11 ({}): copy these topics with \
                 clients instead",
                listed(&self.old_formats)
            );
            survey.refuse(data, sentence);
        }
        let unsettled = self
            .transactions
            .iter()
            .filter(|(_, state)| !SETTLED.contains(state));
        let unsettled: Vec<String> = unsettled.map(|(id, _)| id.to_string()).collect();
        if !unsettled.is_empty() {
            let sentence = format!(
                "transactions are open ({}), and Chronik does not serve transactions yet: start Kafka \
                 again and let their producers, or transaction.timeout.ms, end them",
                listed(&unsettled)
            );
            survey.refuse(data, sentence);
        }
        if !self.open.is_empty() {
            let sentence = format!(
                "logs end within transactions ({}): start Kafka again and end them, with \
                 kafka-transactions.sh abort if need be",
                listed(&self.open)
            );
            survey.refuse(data, sentence);
        }
        if !self.unreadable.is_empty() {
            survey.refuse(
                data,
                format!("logs cannot be read: {}", listed(&self.unreadable)),
            );
        }
        if !self.unknown.is_empty() {
            let sentence = format!(
                "directories of partitions that no topic has are set aside under the suffix -stray, or \
                 removed where the topic was deleted: {}",
                listed(&self.unknown)
            );
            survey.notes.push(sentence);
        }
        if self.deleted > 0 {
            let count = self.deleted;
            survey.notes.push(format!(
                "what is left of deleted partitions is removed: {count}"
            ));
        }
        if self.moving > 0 {
            let count = self.moving;
            let sentence = format!(
                "moves between log directories that did not end are given up, or ended where the \
                 catalogue says so; a Kafka's are left as they are, under the suffix -future: {count}"
            );
            survey.notes.push(sentence);
        }
    }
}

/// The directory of one partition.
struct Log<'a> {
    name: &'a str,
    path: &'a Path,
    is_clean: bool,
}

impl Log<'_> {
    /// Looks at it, more closely if Kafka wrote it; gives the bytes of its segments.
    async fn look<W: World>(&self, world: &W, is_foreign: bool, found: &mut Found) -> u64 {
        match self.try_look(world, is_foreign, found).await {
            Ok(bytes) => bytes,
            Err(reason) => {
                found.unreadable.push(format!("{} ({reason})", self.name));
                0
            }
        }
    }

    async fn try_look<W: World>(
        &self,
        world: &W,
        is_foreign: bool,
        found: &mut Found,
    ) -> Result<u64, String> {
        let said = |error: std::io::Error| error.to_string();
        let entries = world.list_dir(self.path).await.map_err(said)?;
        let files = entries.iter().filter_map(|entry| {
            let file = SegmentFile::parse(entry.name.to_str()?)?;
            file.leftover.is_none().then_some((file, entry))
        });
        let mut bytes = 0_u64;
        let mut newest_snapshot = None;
        let mut is_any_old = false;
        for (file, entry) in files {
            let path = self.path.join(&entry.name);
            match file.kind {
                FileKind::Log => {
                    bytes = bytes.saturating_add(entry.len);
                    if is_foreign && is_old(world, &path, entry.len).await.map_err(said)? {
                        is_any_old = true;
                    }
                    if is_foreign && self.name.starts_with(TRANSACTION_TOPIC) {
                        let segment = (file.offset, &*path, entry.len);
                        transactions(world, segment, &mut found.transactions).await?;
                    }
                }
                FileKind::Snapshot => {
                    newest_snapshot = newest_snapshot.max(Some((file.offset, path)))
                }
                _ => {}
            }
        }
        if is_any_old {
            found.old_formats.push(self.name.to_owned());
        }
        // After a kill the newest snapshot may be older than the end of what it tells of.
        if let (Some((_, path)), true, true) = (newest_snapshot, is_foreign, self.is_clean) {
            let content = world
                .read_file(&path, SMALL_FILE_BYTES_MAX)
                .await
                .map_err(said)?;
            let states = ProducerStates::from_snapshot(&content, world.now_ms());
            if states.is_ok_and(|states| states.first_open_transaction().is_some()) {
                found.open.push(self.name.to_owned());
            }
        }
        Ok(bytes)
    }
}

/// Whether a segment begins with a message of an older format; they come before newer ones.
async fn is_old<W: World>(world: &W, path: &Path, len: u64) -> std::io::Result<bool> {
    if len <= MAGIC_AT as u64 {
        return Ok(false);
    }
    let file = world.open_file(path, OpenMode::Read).await?;
    let start = file.read_at(0, MAGIC_AT + 1).await?;
    file.close().await?;
    // Space that was made ahead of the first batch reads as zeros.
    let is_empty = start.iter().all(|byte| *byte == 0);
    Ok(!is_empty && start.get(MAGIC_AT).is_some_and(|magic| *magic < MAGIC))
}

/// The last state of each transactional id, as the coordinator's log goes on.
async fn transactions<W: World>(
    world: &W,
    (base_offset, path, len): (i64, &Path, u64),
    states: &mut BTreeMap<Str, i8>,
) -> Result<(), String> {
    let file = world.open_file(path, OpenMode::Read).await;
    let file = file.map_err(|error| error.to_string())?;
    let mut scan = LogScan::new(world, &file, base_offset, (0, len), base_offset);
    while let ScanStep::Batch { .. } = scan.step().await.map_err(|error| error.to_string())? {
        let bytes = scan.batch_bytes().await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        let mut unfolding = Unfolding::of(bytes);
        loop {
            // A codec at work knows no slices, and what comes out of it no bound.
            let step = world.compute_long(|| unfolding.step_beside()).await;
            let step = step.map_err(|error| error.to_string())?;
            let some = step.some.map_err(|error| error.to_string())?;
            for record in some.records {
                note(record, states)?;
            }
            if some.is_last {
                break;
            }
            unfolding = step.unfolding;
        }
    }
    file.close().await.map_err(|error| error.to_string())
}

/// What a record of the coordinator says.
fn note(record: Record, states: &mut BTreeMap<Str, i8>) -> Result<(), String> {
    let Some(key) = record.key else {
        return Ok(());
    };
    let Ok(TransactionKey::TransactionLog(key)) = decode_key::<TransactionKey>(key) else {
        return Ok(());
    };
    let id = key.transactional_id.detached();
    let Some(value) = record.value else {
        states.remove(&id);
        return Ok(());
    };
    let value = decode_value::<TransactionValue>(0, value);
    let (TransactionValue::TransactionLog(value), _) =
        value.map_err(|error| format!("the state of transaction {id}: {error}"))?;
    states.insert(id, value.transaction_status);
    Ok(())
}
