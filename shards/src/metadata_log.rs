//! The catalogue's log at start: found, replayed into an image, and begun anew with a higher epoch.
//!
//! Runs on the designated shard before anything is served. Afterwards the log is a partition like
//! any other on that shard, and `shard::control` appends to it.

mod quorum_state;
mod reading;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronik_catalog::batches::{FramingError, atomic_batch, leader_change, some_batch};
use chronik_catalog::limits::METADATA_BATCH_BYTES_MAX;
use chronik_catalog::replay::{LEADER_UNCHANGED, ReplayError};
use chronik_catalog::snapshot::{SnapshotId, registration_record};
use chronik_catalog::versions::{
    GROUP_VERSION, GROUP_VERSION_FEATURE, METADATA_VERSION_FEATURE, MetadataVersion, supported,
    unknown_level,
};
use chronik_catalog::{BrokerRegistration, Endpoint, Image, METADATA_TOPIC};
use chronik_io::World;
use chronik_log::LogError;
use chronik_log::recovery::RecoveryHint;
use chronik_partition::cache::BatchCache;
use chronik_partition::write_behind::WriteBehind;
use chronik_partition::{
    AppendOutcome, CheckTimes, Partition, PartitionEvent, PartitionOptions, ReadPlan, Shared,
};
use chronik_protocol::messages::{
    AbortTransactionRecord, FeatureLevelRecord, PartitionChangeRecord, RegisterControllerRecord,
};
use chronik_protocol::record::CheckedBatch;
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TopicConfig};
use chronik_terms::{
    Acks, AppendPart, Isolation, METADATA_PARTITION, Now, ReadPart, ReadResult, Waiter,
};

use crate::found_dirs::FoundDirs;
use crate::identity::DirectoryIdentity;
use crate::limits::{METADATA_READ_BYTES, METADATA_SEGMENT_BYTES};
use crate::log_dirs::LogDirs;
pub(crate) use quorum_state::{LedEpoch, QuorumState};
use reading::bootstrap;
pub(crate) use reading::{Reading, read_only as read_metadata};
pub use snapshots::SnapshotError;
pub(crate) use snapshots::{remove_older as remove_older_snapshots, write as write_snapshot};

/// Why the catalogue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A file of the metadata log's directory could not be read or written.
    #[error("the metadata log: {0}")]
    Io(#[from] io::Error),
    /// The log itself cannot be opened.
    #[error("the metadata log: {0}")]
    Log(#[from] LogError),
    /// A batch or record cannot be read.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The records contradict each other.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A read was refused.
    #[error("the metadata log answers {0:?}")]
    Refused(ErrorCode),
    /// An append was refused.
    #[error("the metadata log answers {0:?}: {1}")]
    NotAppended(ErrorCode, Str),
    /// The log begins after the newest snapshot ends.
    #[error(
        "the metadata log begins at offset {log_start}, but no readable snapshot reaches it (the \
         newest ends at {snapshot_end})"
    )]
    Gap {
        /// First offset in the log.
        log_start: i64,
        /// End of the newest readable snapshot; 0 without one.
        snapshot_end: i64,
    },
    /// Written by a Kafka that is too old or too new.
    #[error("the metadata log: {0}")]
    Level(String),
}

/// The opened log and what it says.
pub(crate) struct OpenedCatalogue<W: World> {
    pub(crate) partition: Partition<W>,
    pub(crate) image: Image,
    /// Topics removed by records that are still in the log.
    pub(crate) removed: BTreeSet<Uuid>,
    /// Bytes of log not covered by a snapshot.
    pub(crate) uncovered_bytes: u64,
    /// The log ends within a transaction of its last controller.
    unfinished: bool,
    /// What a log that begins is to begin with.
    bootstrap: Vec<MetadataRecord>,
}

/// What the broker says of itself when it registers.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) rack: Option<Str>,
    pub(crate) identity: DirectoryIdentity,
    pub(crate) dirs: Arc<LogDirs>,
    pub(crate) found: FoundDirs,
}

/// The directory of the metadata log.
pub(crate) fn metadata_directory(data: &Path) -> PathBuf {
    data.join(format!("{METADATA_TOPIC}-0"))
}

/// Settings of the metadata log: always durable, never expired; snapshots let it go.
fn metadata_config() -> TopicConfig {
    TopicConfig {
        segment_bytes: METADATA_SEGMENT_BYTES,
        max_message_bytes: u32::try_from(METADATA_BATCH_BYTES_MAX * 2).unwrap_or(u32::MAX),
        retention_ms: None,
        retention_bytes: None,
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: false,
        },
        durability: Durability::Disk,
        ..TopicConfig::default()
    }
}

/// Opens the log and replays snapshot and log into `empty`.
///
/// # Errors
/// See [`CatalogueError`]: without a catalogue nothing can be served.
pub(crate) async fn open_catalogue<W: World>(
    world: &W,
    cache: &mut BatchCache,
    data: &Path,
    empty: Image,
    (clean, durable): (bool, bool),
) -> Result<OpenedCatalogue<W>, CatalogueError> {
    let directory = metadata_directory(data);
    world.create_dir_all(&directory).await?;
    let mut image = empty;
    let snapshot = snapshots::load_newest(world, &directory, &mut image).await?;
    let quorum = QuorumState::load(world, &directory).await?;
    let start = snapshot.map_or(0, |id| id.end_offset);
    let options = PartitionOptions {
        id: METADATA_PARTITION,
        topic: Str::from(METADATA_TOPIC),
        leader_epoch: quorum.map_or(image.epoch, |state| state.leader_epoch.max(image.epoch)),
        config: Arc::new(metadata_config()),
        recovery: RecoveryHint {
            clean,
            recovery_point: 0,
            log_start_offset: start,
            durable,
        },
        remembered: None,
        left_behind: Vec::new(),
        // Nothing of it expires.
        check_times: CheckTimes {
            origin_ns: 0,
            interval_ms: u64::MAX,
        },
        cleaned_offset: 0,
    };
    let (partition, report) = Partition::open(world, &directory, options).await?;
    if report.cut_bytes > 0 {
        tracing::info!(
            cut_bytes = report.cut_bytes,
            "the metadata log's torn tail was cut"
        );
    }
    let mut opened = OpenedCatalogue {
        partition,
        image,
        removed: BTreeSet::new(),
        uncovered_bytes: 0,
        unfinished: false,
        bootstrap: Vec::new(),
    };
    opened.replay(cache, snapshot).await?;
    opened.bootstrap = bootstrap(world, data, &opened.image).await?;
    match unknown_level(&opened.image.features) {
        Some(sentence) => Err(CatalogueError::Level(sentence)),
        None => Ok(opened),
    }
}

impl<W: World> OpenedCatalogue<W> {
    async fn replay(
        &mut self,
        cache: &mut BatchCache,
        snapshot: Option<SnapshotId>,
    ) -> Result<(), CatalogueError> {
        let snapshot_end = snapshot.map_or(0, |id| id.end_offset);
        let log_start = self.partition.log_start();
        if log_start > snapshot_end {
            return Err(CatalogueError::Gap {
                log_start,
                snapshot_end,
            });
        }
        let empty = Image::new(Str::default(), self.image.node_id, BTreeMap::new());
        let mut reading = Reading::new(std::mem::replace(&mut self.image, empty), snapshot_end);
        let mut offset = snapshot_end;
        while offset < self.partition.high_watermark() {
            let result = self.read(cache, offset).await?;
            let mut rest = result.records.into_bytes();
            let before = offset;
            while !rest.is_empty() {
                let (batch, after) = CheckedBatch::parse_first(rest).map_err(FramingError::from)?;
                rest = after;
                self.uncovered_bytes += batch.bytes.len() as u64;
                reading.batch(&batch)?;
                offset = batch.header.next_offset();
            }
            if offset == before {
                return Err(CatalogueError::Refused(ErrorCode::CorruptMessage));
            }
        }
        self.unfinished = reading.is_unfinished();
        self.image = reading.image;
        self.removed = reading.removed;
        self.image.settle();
        Ok(())
    }

    async fn read(
        &mut self,
        cache: &mut BatchCache,
        offset: i64,
    ) -> Result<ReadResult, CatalogueError> {
        let part = ReadPart {
            partition: METADATA_PARTITION,
            fetch_offset: offset,
            max_bytes: METADATA_READ_BYTES,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        let isolation = Isolation::ReadUncommitted;
        let mut plan = self
            .partition
            .plan_read(cache, &part, isolation, METADATA_READ_BYTES, true);
        let result = loop {
            match plan {
                ReadPlan::Ready(result) => break result,
                ReadPlan::Disk(job) => {
                    let done = job.perform().await;
                    plan = self.partition.complete_read(cache, done);
                }
            }
        };
        match result.error {
            ErrorCode::None => Ok(result),
            error => Err(CatalogueError::Refused(error)),
        }
    }

    /// Begins this start's epoch: the quorum's new leader, this broker's registration, and a new
    /// leader epoch for every partition it leads. Durable when it returns.
    pub(crate) async fn begin_epoch(
        &mut self,
        world: &W,
        cache: &mut BatchCache,
        data: &Path,
        registration: &Registration,
    ) -> Result<(), CatalogueError> {
        let node_id = registration.identity.node_id;
        let epoch = self
            .partition
            .leader_epoch()
            .max(self.image.epoch)
            .saturating_add(1);
        let directory = metadata_directory(data);
        // First the promise never to use the epoch again, then the epoch.
        QuorumState::leading(node_id, epoch)
            .store(world, &directory, self.image.quorum.version)
            .await?;
        LedEpoch(epoch).store(world, data).await?;
        self.partition.set_leader_epoch(epoch);
        let now_ms = world.now_ms();
        self.append(world, cache, leader_change(node_id, now_ms)?)
            .await?;

        let records = self.registrations(world, registration);
        let version = self.version();
        let batch = atomic_batch(version, &records, now_ms)?;
        self.append_records(world, cache, &records, batch).await?;

        let changes = new_leader_epochs(&self.image, registration);
        let mut left = &changes[..];
        while !left.is_empty() {
            let (batch, taken) = some_batch(version, left, (0, -1), now_ms)?;
            let (these, rest) = left.split_at(taken.min(left.len()));
            self.append_records(world, cache, these, batch).await?;
            left = rest;
            world.pause().await;
        }
        self.image.settle();
        Ok(())
    }

    /// What a log that begins begins with: what its directory was formatted for, or our own levels.
    fn first_records(&self) -> Vec<MetadataRecord> {
        if self.image.features.contains_key(METADATA_VERSION_FEATURE) {
            return Vec::new();
        }
        match self.bootstrap.iter().any(is_metadata_version) {
            true => self.bootstrap.clone(),
            false => first_levels().into(),
        }
    }

    /// What the log is written in.
    fn version(&self) -> MetadataVersion {
        let mut image = self.image.clone();
        let of_features =
            |record: &MetadataRecord| matches!(record, MetadataRecord::FeatureLevel(_));
        for record in self
            .first_records()
            .iter()
            .filter(|record| of_features(record))
        {
            let applied = image.apply(record);
            debug_assert!(applied.is_ok(), "a level contradicts nothing");
        }
        MetadataVersion::of(&image.features)
    }

    /// What a start writes once: the end of a transaction that nobody will end, the levels of a log
    /// that begins, this controller, this broker.
    fn registrations(&self, world: &W, registration: &Registration) -> Vec<MetadataRecord> {
        let node_id = registration.identity.node_id;
        let mut records = Vec::new();
        if self.unfinished {
            let reason = Some(Str::from_static("its controller ended"));
            records.push(MetadataRecord::AbortTransaction(AbortTransactionRecord {
                reason,
                ..AbortTransactionRecord::default()
            }));
        }
        records.extend(self.first_records());
        if self.version().has_controllers() {
            let incarnation_id = Uuid::from_random(world.random_u128());
            let controller = RegisterControllerRecord {
                controller_id: node_id,
                incarnation_id,
                ..RegisterControllerRecord::default()
            };
            records.push(MetadataRecord::RegisterController(controller));
        }
        // A broker's epoch is the offset of its registration.
        let position = i64::try_from(records.len()).unwrap_or(i64::MAX);
        let broker_epoch = self.partition.log_end().saturating_add(position);
        let features =
            supported().map(|(name, least, greatest)| (Str::from(name), least, greatest));
        let broker = BrokerRegistration {
            epoch: broker_epoch,
            incarnation_id: Uuid::from_random(world.random_u128()),
            endpoints: registration.endpoints.clone(),
            rack: registration.rack.clone(),
            fenced: false,
            in_controlled_shutdown: false,
            directories: registration.dirs.ids(),
            features: features.into(),
        };
        records.push(MetadataRecord::RegisterBroker(registration_record(
            node_id, &broker,
        )));
        records
    }

    async fn append_records(
        &mut self,
        world: &W,
        cache: &mut BatchCache,
        records: &[MetadataRecord],
        batch: CheckedBatch,
    ) -> Result<(), CatalogueError> {
        self.append(world, cache, batch).await?;
        for record in records {
            self.image.apply(record)?;
        }
        Ok(())
    }

    /// Appends one batch and waits until it is durable. Nobody else uses the log yet.
    async fn append(
        &mut self,
        world: &W,
        cache: &mut BatchCache,
        batch: CheckedBatch,
    ) -> Result<(), CatalogueError> {
        let (bytes, count) = (batch.bytes.len(), batch.header.last_offset_delta);
        let timestamp_ms = batch.header.max_timestamp;
        let part = AppendPart {
            partition: METADATA_PARTITION,
            batch,
        };
        let now = Now {
            wall_ms: world.now_ms(),
            mono_ns: world.monotonic_ns(),
        };
        let (mut jobs, mut events) = (Vec::new(), Vec::new());
        // Its promise is the disk: nothing is written behind.
        let mut write_behind = WriteBehind::off();
        let mut shared = Shared {
            cache,
            write_behind: &mut write_behind,
            events: &mut events,
        };
        let mut outcome =
            match self
                .partition
                .append(&mut shared, part, Acks::All, now, Waiter::Catalogue)
            {
                AppendOutcome::Done(result) => Some(result),
                AppendOutcome::Parked => None,
            };
        loop {
            self.partition.take_jobs(&mut jobs);
            if jobs.is_empty() {
                break;
            }
            for job in jobs.drain(..) {
                let done = job.perform().await;
                self.partition.complete(&mut shared, done, now);
            }
            for event in shared.events.drain(..) {
                if let PartitionEvent::Acked { result, .. } = event {
                    outcome = Some(result);
                }
            }
        }
        let result = outcome.ok_or(CatalogueError::Refused(ErrorCode::KafkaStorageError))?;
        if result.error != ErrorCode::None {
            let why = result.message.unwrap_or_default();
            return Err(CatalogueError::NotAppended(result.error, why));
        }
        self.uncovered_bytes += bytes as u64;
        self.image.offset = result.base_offset.saturating_add(i64::from(count));
        self.image.epoch = self.partition.leader_epoch();
        self.image.timestamp_ms = timestamp_ms;
        Ok(())
    }
}

fn is_metadata_version(record: &MetadataRecord) -> bool {
    match record {
        MetadataRecord::FeatureLevel(record) => &*record.name == METADATA_VERSION_FEATURE,
        _ => false,
    }
}

/// The levels of a log that begins. What a log of Kafka's says stays as it is.
fn first_levels() -> [MetadataRecord; 2] {
    let levels = [
        (METADATA_VERSION_FEATURE, MetadataVersion::NEWEST.level()),
        (GROUP_VERSION_FEATURE, GROUP_VERSION),
    ];
    levels.map(|(name, feature_level)| {
        MetadataRecord::FeatureLevel(FeatureLevelRecord {
            name: Str::from(name),
            feature_level,
            ..FeatureLevelRecord::default()
        })
    })
}

/// A record for every partition this broker has a replica of, which makes it the leader anew and so
/// moves the leader epoch: what another epoch wrote can be told apart for ever.
fn new_leader_epochs(image: &Image, registration: &Registration) -> Vec<MetadataRecord> {
    let node_id = image.node_id;
    let mut records = Vec::new();
    for topic in image.topics() {
        for (index, info) in topic.partitions.iter().enumerate() {
            if !info.replicas.contains(&node_id) {
                continue;
            }
            debug_assert_ne!(node_id, LEADER_UNCHANGED);
            let alone = [node_id];
            let partition_id = i32::try_from(index).unwrap_or(i32::MAX);
            let Registration { dirs, found, .. } = registration;
            let moved = found
                .moved(dirs, &info.directories, &topic.name, partition_id)
                .filter(|_| info.replicas == alone);
            let clear = |list: &Vec<i32>| (!list.is_empty()).then(Vec::new);
            records.push(MetadataRecord::PartitionChange(PartitionChangeRecord {
                partition_id,
                topic_id: topic.id,
                isr: (info.isr != alone).then(|| alone.to_vec()),
                leader: node_id,
                directories: moved.map(|directory| vec![directory]),
                eligible_leader_replicas: clear(&info.eligible_leader_replicas),
                last_known_elr: clear(&info.last_known_elr),
                ..PartitionChangeRecord::default()
            }));
        }
    }
    records
}
