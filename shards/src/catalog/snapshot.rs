//! Snapshots of the catalogue: `<end offset>-<epoch>.checkpoint` beside the metadata log.
//!
//! Owns the order of records in them and which file counts. Runs on the designated shard, at start,
//! at a clean stop and when the log has grown enough.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use chronik_io::World;
use chronik_protocol::Str;
use chronik_protocol::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord,
    TopicRecord, register_broker_record,
};
use chronik_protocol::record::{CheckedBatch, ControlType};
use chronik_protocol::records_of::MetadataRecord;

use super::batches::{
    FramingError, read_batch, read_control, snapshot_footer, snapshot_header, some_batch,
};
use super::image::{BrokerRegistration, Image, Topic};
use super::replay::{RESOURCE_BROKER, RESOURCE_TOPIC, ReplayError};
use super::versions::{METADATA_VERSION_FEATURE, MetadataVersion};
use crate::limits::METADATA_SNAPSHOT_BYTES_MAX;

/// Which snapshot: it holds every record below `end_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SnapshotId {
    /// Exclusive.
    pub(crate) end_offset: i64,
    /// Leader epoch of the last record in it.
    pub(crate) epoch: i32,
}

impl SnapshotId {
    /// The name Kafka gives the file (`Snapshots#filenameFromSnapshotId`).
    pub(crate) fn file_name(self) -> String {
        format!("{:020}-{:010}.checkpoint", self.end_offset, self.epoch)
    }

    fn parse(name: &str) -> Option<SnapshotId> {
        let (end_offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
        if end_offset.len() != 20 || epoch.len() != 10 {
            return None;
        }
        Some(SnapshotId {
            end_offset: end_offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
        })
    }
}

/// What went wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its batches are not sound.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Its records contradict each other.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It has no header or no footer: a write that did not end.
    #[error("the snapshot has no {0}")]
    Missing(&'static str),
}

/// The snapshots of a directory, the newest first.
pub(crate) async fn list<W: World>(world: &W, directory: &Path) -> io::Result<Vec<SnapshotId>> {
    let entries = match world.list_dir(directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<SnapshotId> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| SnapshotId::parse(entry.name.to_str()?))
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    Ok(found)
}

/// Loads the newest snapshot that can be read into `image`; says which. One that cannot be read is
/// passed over with a warning: the log may still hold what an older one needs.
pub(crate) async fn load_newest<W: World>(
    world: &W,
    directory: &Path,
    image: &mut Image,
) -> io::Result<Option<SnapshotId>> {
    for id in list(world, directory).await? {
        let path = directory.join(id.file_name());
        let mut candidate = image.clone();
        match load(world, &path, &mut candidate).await {
            Ok(()) => {
                candidate.offset = id.end_offset.saturating_sub(1);
                candidate.epoch = id.epoch;
                *image = candidate;
                return Ok(Some(id));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "metadata snapshot passed over");
            }
        }
    }
    Ok(None)
}

async fn load<W: World>(world: &W, path: &Path, image: &mut Image) -> Result<(), SnapshotError> {
    let mut rest: Bytes = world.read_file(path, METADATA_SNAPSHOT_BYTES_MAX).await?;
    let (mut began, mut ended) = (false, false);
    while !rest.is_empty() {
        let (batch, after) = CheckedBatch::parse_first(rest).map_err(FramingError::from)?;
        rest = after;
        for control in read_control(&batch)? {
            match control.control_type {
                ControlType::SnapshotHeader => {
                    began = true;
                    image.timestamp_ms = header_timestamp(&control.value);
                }
                ControlType::SnapshotFooter => ended = true,
                _ => image.apply_control(&batch, &control)?,
            }
        }
        for (_, record) in read_batch(&batch)? {
            image.apply(&record)?;
        }
        world.pause().await;
    }
    match (began, ended) {
        (false, _) => Err(SnapshotError::Missing("header")),
        (_, false) => Err(SnapshotError::Missing("footer")),
        _ => Ok(()),
    }
}

/// `SnapshotHeaderRecord` v0: int16 version, int64 timestamp.
fn header_timestamp(value: &[u8]) -> i64 {
    value
        .get(2..10)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i64::from_be_bytes)
}

/// Writes a snapshot of `image`; durable when this returns. Older ones stay.
pub(crate) async fn write<W: World>(
    world: &W,
    directory: &Path,
    image: &Image,
) -> Result<SnapshotId, SnapshotError> {
    let id = SnapshotId {
        end_offset: image.offset.saturating_add(1),
        epoch: image.epoch,
    };
    let now_ms = world.now_ms();
    let mut content = BytesMut::new();
    let header = snapshot_header(&image.quorum, id.epoch, image.timestamp_ms, now_ms)?;
    content.extend_from_slice(&header.bytes);
    let mut offset = header.header.next_offset();
    let version = MetadataVersion::of(image);
    let mut sections = Sections::new(image);
    while let Some(records) = sections.next() {
        let mut left = &records[..];
        while !left.is_empty() {
            let (batch, taken) = some_batch(version, left, (offset, id.epoch), now_ms)?;
            content.extend_from_slice(&batch.bytes);
            offset = batch.header.next_offset();
            left = left.get(taken..).unwrap_or_default();
            world.pause().await;
        }
    }
    content.extend_from_slice(&snapshot_footer(offset, id.epoch, now_ms)?.bytes);
    world
        .write_file_atomic(&directory.join(id.file_name()), &content)
        .await?;
    Ok(id)
}

/// Removes every snapshot older than `kept`.
pub(crate) async fn remove_older<W: World>(
    world: &W,
    directory: &Path,
    kept: SnapshotId,
) -> io::Result<()> {
    for id in list(world, directory).await? {
        if id < kept {
            let path: PathBuf = directory.join(id.file_name());
            world.remove_file(&path).await?;
        }
    }
    Ok(())
}

/// The records of an image, some at a time, in an order that replays.
struct Sections<'a> {
    image: &'a Image,
    head: bool,
    topics: Box<dyn Iterator<Item = &'a std::sync::Arc<Topic>> + 'a>,
}

/// Topics put into one section, so that no section is long work.
const TOPICS_PER_SECTION: usize = 64;

impl<'a> Sections<'a> {
    fn new(image: &'a Image) -> Self {
        Sections {
            image,
            head: true,
            topics: Box::new(image.topics()),
        }
    }

    fn next(&mut self) -> Option<Vec<MetadataRecord>> {
        if std::mem::take(&mut self.head) {
            return Some(head_records(self.image));
        }
        let mut records = Vec::new();
        for topic in self.topics.by_ref().take(TOPICS_PER_SECTION) {
            topic_records(topic, &mut records);
        }
        (!records.is_empty()).then_some(records)
    }
}

/// Everything but topics. The metadata version comes first: it decides how the rest is read.
fn head_records(image: &Image) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    let mut features: Vec<_> = image.features.iter().collect();
    features.sort_by_key(|(name, _)| (**name != METADATA_VERSION_FEATURE, (*name).clone()));
    for (name, level) in features {
        records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord {
            name: name.clone(),
            feature_level: *level,
            ..FeatureLevelRecord::default()
        }));
    }
    for (id, broker) in &image.brokers {
        records.push(MetadataRecord::RegisterBroker(registration_record(
            *id, broker,
        )));
    }
    let configs = &image.broker_configs;
    for (name, value) in &configs.dynamic_default {
        records.push(config_record(RESOURCE_BROKER, Str::default(), name, value));
    }
    for (id, settings) in &configs.dynamic_brokers {
        for (name, value) in settings {
            let id = Str::from(id.to_string());
            records.push(config_record(RESOURCE_BROKER, id, name, value));
        }
    }
    for ((kind, resource), settings) in &image.other_configs {
        for (name, value) in settings {
            records.push(config_record(*kind, resource.clone(), name, value));
        }
    }
    if image.next_producer_id > 0 {
        records.push(MetadataRecord::ProducerIds(ProducerIdsRecord {
            broker_id: image.node_id,
            broker_epoch: image.broker_epoch,
            next_producer_id: image.next_producer_id,
            ..ProducerIdsRecord::default()
        }));
    }
    records.extend(image.retained.values().cloned());
    records
}

/// The record that registers a broker as it is in the picture.
pub(super) fn registration_record(id: i32, broker: &BrokerRegistration) -> RegisterBrokerRecord {
    let endpoints = broker
        .endpoints
        .iter()
        .map(|end| register_broker_record::BrokerEndpoint {
            name: end.name.clone(),
            host: end.host.clone(),
            port: end.port,
            security_protocol: end.security_protocol,
            ..Default::default()
        });
    let features = broker.features.iter().map(|(name, least, greatest)| {
        register_broker_record::BrokerFeature {
            name: name.clone(),
            min_supported_version: *least,
            max_supported_version: *greatest,
            ..Default::default()
        }
    });
    RegisterBrokerRecord {
        broker_id: id,
        incarnation_id: broker.incarnation_id,
        broker_epoch: broker.epoch,
        end_points: endpoints.collect(),
        features: features.collect(),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.directories.clone(),
        ..RegisterBrokerRecord::default()
    }
}

fn config_record(kind: i8, resource: Str, name: &Str, value: &Str) -> MetadataRecord {
    MetadataRecord::Config(ConfigRecord {
        resource_type: kind,
        resource_name: resource,
        name: name.clone(),
        value: Some(value.clone()),
        ..ConfigRecord::default()
    })
}

fn topic_records(topic: &Topic, records: &mut Vec<MetadataRecord>) {
    records.push(MetadataRecord::Topic(TopicRecord {
        name: topic.name.clone(),
        topic_id: topic.id,
        ..TopicRecord::default()
    }));
    for (name, value) in &topic.configs {
        records.push(config_record(
            RESOURCE_TOPIC,
            topic.name.clone(),
            name,
            value,
        ));
    }
    let some = |list: &Vec<i32>| (!list.is_empty()).then(|| list.clone());
    for (index, info) in topic.partitions.iter().enumerate() {
        records.push(MetadataRecord::Partition(PartitionRecord {
            partition_id: i32::try_from(index).unwrap_or(i32::MAX),
            topic_id: topic.id,
            replicas: info.replicas.clone(),
            isr: info.isr.clone(),
            removing_replicas: info.removing_replicas.clone(),
            adding_replicas: info.adding_replicas.clone(),
            leader: info.leader,
            leader_recovery_state: info.leader_recovery_state,
            leader_epoch: info.leader_epoch,
            partition_epoch: info.partition_epoch,
            directories: info.directories.clone(),
            eligible_leader_replicas: some(&info.eligible_leader_replicas),
            last_known_elr: some(&info.last_known_elr),
            ..PartitionRecord::default()
        }));
    }
}
