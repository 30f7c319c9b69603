//! What metadata records mean: each changes an [`Image`], exactly as Kafka's own images change
//! (`TopicsDelta`, `ClusterDelta`, `ConfigurationsDelta`, …).
//!
//! Pure; runs on the designated shard, at start and after each change. It never refuses for
//! reasons of policy: what is in the log has been decided.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chronik_protocol::messages::{
    BrokerRegistrationChangeRecord, ConfigRecord, PartitionChangeRecord, PartitionRecord,
    RegisterBrokerRecord, TopicRecord,
};
use chronik_protocol::record::{CheckedBatch, ControlRecord};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{Str, Uuid};
use chronik_terms::group_settings::GroupConfig;
use chronik_terms::topic_settings::TopicConfig;

use super::batches::FramingError;
use super::image::{
    BrokerRegistration, Endpoint, Image, PartitionInfo, Stale, Topic, is_internal_topic,
};
use super::names::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, RetainedKey};

/// `PartitionChangeRecord`'s leader when it does not change.
pub const LEADER_UNCHANGED: i32 = -2;

/// A record that contradicts the records before it: the log is not one that Kafka or we wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayError(pub String);

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the metadata log contradicts itself: {}", self.0)
    }
}

impl std::error::Error for ReplayError {}

impl Image {
    /// Applies one record found at `offset`.
    ///
    /// # Errors
    /// When it names a topic, partition or broker that is not there, or a topic that is there
    /// already under another id.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        use MetadataRecord as R;
        match record {
            R::RegisterBroker(record) => self.register_broker(record),
            R::UnregisterBroker(record) => {
                self.brokers.remove(&record.broker_id);
            }
            R::Topic(record) => self.add_topic(record)?,
            R::Partition(record) => self.add_partition(record)?,
            R::Config(record) => self.set_config(record),
            R::PartitionChange(record) => self.change_partition(record)?,
            R::FenceBroker(record) => self.fence(record.id, true),
            R::UnfenceBroker(record) => self.fence(record.id, false),
            R::RemoveTopic(record) => self.remove_topic(record.topic_id)?,
            R::FeatureLevel(record) if record.feature_level == 0 => {
                self.features.remove(&record.name);
            }
            R::FeatureLevel(record) => {
                self.features
                    .insert(record.name.clone(), record.feature_level);
            }
            R::ProducerIds(record) => {
                self.next_producer_id = self.next_producer_id.max(record.next_producer_id);
            }
            R::BrokerRegistrationChange(record) => self.change_broker(record)?,
            R::ClearElr(record) => self.clear_elr(&record.topic_name),
            other => self.retain(other),
        }
        Ok(())
    }

    /// Takes over a control record of `batch`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn apply_control(
        &mut self,
        batch: &CheckedBatch,
        control: &ControlRecord,
    ) -> Result<(), FramingError> {
        let offset = batch.header.base_offset;
        let applied = self.quorum.apply(control);
        applied.map_err(|source| FramingError::Control { offset, source })
    }

    fn register_broker(&mut self, record: &RegisterBrokerRecord) {
        let endpoints = record.end_points.iter().map(|endpoint| Endpoint {
            name: endpoint.name.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = record.features.iter().map(|feature| {
            (
                feature.name.clone(),
                feature.min_supported_version,
                feature.max_supported_version,
            )
        });
        if record.broker_id == self.node_id {
            self.broker_epoch = record.broker_epoch;
        }
        self.brokers.insert(
            record.broker_id,
            BrokerRegistration {
                epoch: record.broker_epoch,
                incarnation_id: record.incarnation_id,
                endpoints: endpoints.collect(),
                rack: record.rack.clone(),
                fenced: record.fenced,
                in_controlled_shutdown: record.in_controlled_shutdown,
                directories: record.log_dirs.clone(),
                features: features.collect(),
            },
        );
    }

    fn fence(&mut self, broker_id: i32, fenced: bool) {
        if let Some(broker) = self.brokers.get_mut(&broker_id) {
            broker.fenced = fenced;
        }
    }

    fn change_broker(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
    ) -> Result<(), ReplayError> {
        let Some(broker) = self.brokers.get_mut(&record.broker_id) else {
            return Err(ReplayError(format!(
                "change of unknown broker {}",
                record.broker_id
            )));
        };
        match record.fenced {
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            _ => {}
        }
        if record.in_controlled_shutdown == 1 {
            broker.in_controlled_shutdown = true;
        }
        if !record.log_dirs.is_empty() {
            broker.directories = record.log_dirs.clone();
        }
        Ok(())
    }

    fn add_topic(&mut self, record: &TopicRecord) -> Result<(), ReplayError> {
        if self.topics.contains_key(&record.topic_id) || self.ids_by_name.contains_key(&record.name)
        {
            return Err(ReplayError(format!(
                "topic {} ({}) is there already",
                record.name, record.topic_id
            )));
        }
        self.ids_by_name
            .insert(record.name.clone(), record.topic_id);
        self.topics.insert(
            record.topic_id,
            Arc::new(Topic {
                name: record.name.clone(),
                id: record.topic_id,
                partitions: Vec::new(),
                // Settings may come before the topic in the same batch.
                configs: self
                    .other_configs
                    .remove(&(RESOURCE_TOPIC, record.name.clone()))
                    .unwrap_or_default(),
                config: Arc::new(TopicConfig::default()),
                is_internal: is_internal_topic(&record.name),
            }),
        );
        self.mark_stale(record.topic_id);
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid) -> Result<(), ReplayError> {
        let Some(topic) = self.topics.remove(&id) else {
            return Err(ReplayError(format!("removal of unknown topic {id}")));
        };
        self.ids_by_name.remove(&topic.name);
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut Topic, ReplayError> {
        match self.topics.get_mut(&id) {
            Some(topic) => Ok(Arc::make_mut(topic)),
            None => Err(ReplayError(format!("partition of unknown topic {id}"))),
        }
    }

    fn add_partition(&mut self, record: &PartitionRecord) -> Result<(), ReplayError> {
        let topic = self.topic_mut(record.topic_id)?;
        let info = PartitionInfo {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            leader_recovery_state: record.leader_recovery_state,
            directories: record.directories.clone(),
            eligible_leader_replicas: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
        };
        let index = usize::try_from(record.partition_id).unwrap_or(usize::MAX);
        if let Some(known) = topic.partitions.get_mut(index) {
            *known = info;
        } else if index == topic.partitions.len() {
            topic.partitions.push(info);
        } else {
            return Err(ReplayError(format!(
                "partition {} of topic {} leaves a gap",
                record.partition_id, topic.name
            )));
        }
        Ok(())
    }

    /// `PartitionRegistration#merge`: the leader epoch grows when the record names a leader, the
    /// partition epoch always.
    fn change_partition(&mut self, record: &PartitionChangeRecord) -> Result<(), ReplayError> {
        let topic = self.topic_mut(record.topic_id)?;
        let index = usize::try_from(record.partition_id).unwrap_or(usize::MAX);
        let Some(info) = topic.partitions.get_mut(index) else {
            return Err(ReplayError(format!(
                "change of unknown partition {}-{}",
                topic.name, record.partition_id
            )));
        };
        if record.leader != LEADER_UNCHANGED {
            info.leader = record.leader;
            info.leader_epoch = info.leader_epoch.saturating_add(1);
        }
        info.partition_epoch = info.partition_epoch.saturating_add(1);
        let lists = [
            (&record.isr, &mut info.isr),
            (&record.replicas, &mut info.replicas),
            (&record.removing_replicas, &mut info.removing_replicas),
            (&record.adding_replicas, &mut info.adding_replicas),
            (
                &record.eligible_leader_replicas,
                &mut info.eligible_leader_replicas,
            ),
            (&record.last_known_elr, &mut info.last_known_elr),
        ];
        for (change, list) in lists {
            if let Some(change) = change {
                list.clone_from(change);
            }
        }
        if record.leader_recovery_state >= 0 {
            info.leader_recovery_state = record.leader_recovery_state;
        }
        if let Some(directories) = &record.directories {
            info.directories.clone_from(directories);
        }
        Ok(())
    }

    fn clear_elr(&mut self, topic_name: &str) {
        let wanted = |topic: &Topic| topic_name.is_empty() || &*topic.name == topic_name;
        for topic in self.topics.values_mut().filter(|topic| wanted(topic)) {
            for info in &mut Arc::make_mut(topic).partitions {
                info.eligible_leader_replicas.clear();
                info.last_known_elr.clear();
            }
        }
    }

    fn set_config(&mut self, record: &ConfigRecord) {
        let (name, value) = (&record.name, &record.value);
        match record.resource_type {
            RESOURCE_TOPIC => match self.ids_by_name.get(&record.resource_name).copied() {
                Some(id) => {
                    if let Some(topic) = self.topics.get_mut(&id) {
                        assign(&mut Arc::make_mut(topic).configs, name, value);
                    }
                    self.mark_stale(id);
                }
                None => self.set_other_config(record),
            },
            RESOURCE_BROKER => {
                let configs = Arc::make_mut(&mut self.broker_configs);
                let layer = match record.resource_name.parse::<i32>() {
                    Ok(id) => configs.dynamic_brokers.entry(id).or_default(),
                    Err(_) => &mut configs.dynamic_default,
                };
                assign(layer, name, value);
                configs
                    .dynamic_brokers
                    .retain(|_, settings| !settings.is_empty());
                self.stale = Stale::Every;
            }
            _ => self.set_other_config(record),
        }
    }

    fn set_other_config(&mut self, record: &ConfigRecord) {
        let key = (record.resource_type, record.resource_name.clone());
        let settings = self.other_configs.entry(key.clone()).or_default();
        assign(settings, &record.name, &record.value);
        if key.0 == RESOURCE_GROUP {
            match settings.is_empty() {
                true => self.group_configs.remove(&key.1),
                false => self
                    .group_configs
                    .insert(key.1.clone(), GroupConfig::of(settings)),
            };
        }
        if settings.is_empty() {
            self.other_configs.remove(&key);
        }
    }

    fn mark_stale(&mut self, id: Uuid) {
        if let Stale::Only(ids) = &mut self.stale {
            ids.insert(id);
        }
    }

    /// Keeps records nobody here acts on, so that a snapshot (and a Kafka that takes over) has them.
    fn retain(&mut self, record: &MetadataRecord) {
        use MetadataRecord as R;
        let (key, keep) = match record {
            R::RegisterController(r) => (RetainedKey::Controller(r.controller_id), true),
            R::ZkMigrationState(_) => (RetainedKey::ZkMigration, true),
            R::DelegationToken(r) => (RetainedKey::DelegationToken(r.token_id.clone()), true),
            R::RemoveDelegationToken(r) => {
                (RetainedKey::DelegationToken(r.token_id.clone()), false)
            }
            R::UserScramCredential(r) => (
                RetainedKey::ScramCredential(r.name.clone(), r.mechanism),
                true,
            ),
            R::RemoveUserScramCredential(r) => (
                RetainedKey::ScramCredential(r.name.clone(), r.mechanism),
                false,
            ),
            R::ClientQuota(r) => {
                let mut entity: Vec<_> = r
                    .entity
                    .iter()
                    .map(|part| (part.entity_type.clone(), part.entity_name.clone()))
                    .collect();
                entity.sort();
                (RetainedKey::ClientQuota(entity, r.key.clone()), !r.remove)
            }
            R::AccessControlEntry(r) => (RetainedKey::Access(r.id), true),
            R::RemoveAccessControlEntry(r) => (RetainedKey::Access(r.id), false),
            // NoOp and the transaction markers leave no trace in the picture.
            _ => return,
        };
        if keep {
            self.retained.insert(key, record.clone());
        } else {
            self.retained.remove(&key);
        }
    }
}

fn assign(settings: &mut BTreeMap<Str, Str>, name: &Str, value: &Option<Str>) {
    match value {
        Some(value) => settings.insert(name.clone(), value.clone()),
        None => settings.remove(name),
    };
}

/// Holds back the records of a metadata transaction until it ends (KIP-868). One that is open where
/// the log ends was not finished by its controller, and does not count.
#[derive(Debug, Default)]
pub struct Transactions {
    open: Option<Vec<MetadataRecord>>,
}

impl Transactions {
    /// Whether one has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Applies a record, or keeps it until its transaction ends.
    ///
    /// # Errors
    /// As [`Image::apply`].
    pub fn apply(&mut self, image: &mut Image, record: MetadataRecord) -> Result<(), ReplayError> {
        match (&mut self.open, record) {
            (_, MetadataRecord::BeginTransaction(_)) => self.open = Some(Vec::new()),
            (_, MetadataRecord::AbortTransaction(_)) => self.open = None,
            (_, MetadataRecord::EndTransaction(_)) => {
                for record in self.open.take().unwrap_or_default() {
                    image.apply(&record)?;
                }
            }
            (Some(open), record) => open.push(record),
            (None, record) => image.apply(&record)?,
        }
        Ok(())
    }
}
