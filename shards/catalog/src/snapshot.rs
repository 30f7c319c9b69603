//! What a snapshot of the catalogue holds: its name, and the records of an image in their order.
//!
//! Pure; the files are `metadata_log::snapshots`'.

use chronik_protocol::Str;
use chronik_protocol::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord,
    TopicRecord, register_broker_record,
};
use chronik_protocol::records_of::MetadataRecord;

use super::image::{BrokerRegistration, Image, Topic};
use super::names::{RESOURCE_BROKER, RESOURCE_TOPIC};
use super::versions::METADATA_VERSION_FEATURE;

/// Which snapshot: it holds every record below `end_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// Exclusive.
    pub end_offset: i64,
    /// Leader epoch of the last record in it.
    pub epoch: i32,
}

impl SnapshotId {
    /// The name Kafka gives the file (`Snapshots#filenameFromSnapshotId`).
    pub fn file_name(self) -> String {
        format!("{:020}-{:010}.checkpoint", self.end_offset, self.epoch)
    }

    /// What a file's name says; `None` for other files.
    pub fn parse(name: &str) -> Option<SnapshotId> {
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

/// The records of an image, some at a time, in an order that replays.
pub struct Sections<'a> {
    image: &'a Image,
    head: bool,
    topics: Box<dyn Iterator<Item = &'a std::sync::Arc<Topic>> + 'a>,
}

/// Topics put into one section, so that no section is long work.
const TOPICS_PER_SECTION: usize = 64;

impl<'a> Sections<'a> {
    /// Those of this image.
    pub fn new(image: &'a Image) -> Self {
        Sections {
            image,
            head: true,
            topics: Box::new(image.topics()),
        }
    }
}

impl Iterator for Sections<'_> {
    type Item = Vec<MetadataRecord>;

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
pub fn registration_record(id: i32, broker: &BrokerRegistration) -> RegisterBrokerRecord {
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
