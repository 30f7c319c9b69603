//! The catalogue: topics, settings, brokers and producer ids, as a metadata log of Kafka's own
//! format and the immutable images it replays into.
//!
//! The controller and the log live on the designated shard; images are published to every shard.
//! Never touches the state of a partition: shards follow the image.

use chronik_protocol::Uuid;

use crate::request::PartitionId;

mod alter_configs;
mod batches;
mod change;
mod config_rules;
mod controller;
#[cfg(test)]
mod controller_tests;
mod create_topics;
mod features;
mod group_configs;
mod identity;
mod image;
mod judging;
mod metadata_log;
mod quorum;
mod reading;
mod replay;
mod snapshot;
mod topic_config;
mod topic_name;
mod versions;

pub use batches::FramingError;
pub use change::{
    ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply,
    ControllerRequest, CreatedTopic, FeatureUpdate, NewPartitions, NewTopic, TopicRef, UpgradeType,
};
pub use config_rules::{OF_LISTENERS, is_dynamic as is_dynamic_broker_config};
pub use create_topics::{METADATA_TOPIC, check_replicas};
pub use group_configs::broker_setting_behind;
pub use identity::{DirectoryIdentity, IdentityError, node_id_of};
pub use image::{
    BrokerConfigs, BrokerRegistration, Endpoint, Image, PartitionInfo, Topic, is_internal_topic,
};
pub use metadata_log::CatalogueError;
pub use replay::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, ReplayError};
pub use snapshot::SnapshotError;
pub use topic_config::{
    CleanupPolicy, ConfigLayers, ConfigSource, Conversion, DURABILITY, Durability, TimestampKind,
    TopicCompression, TopicConfig, broker_synonyms,
};
pub use topic_name::{TOPIC_NAME_CHARS_MAX, check_topic_name};
pub use versions::GROUP_VERSION_FEATURE;

pub(crate) use batches::atomic_batch as metadata_batch;
pub(crate) use controller::Controller;
pub(crate) use judging::{Change, Judged, Judging};
pub(crate) use metadata_log::{
    OpenedCatalogue, Registration, metadata_directory, open as open_catalogue,
};
pub(crate) use quorum::{LedEpoch, QuorumState};
pub(crate) use reading::{Reading, read_only as read_metadata};
pub(crate) use replay::RetainedKey;
pub(crate) use snapshot::{
    SnapshotId, remove_older as remove_older_snapshots, write as write_snapshot,
};
pub(crate) use versions::{KRAFT_VERSION_MAX, MetadataVersion, unknown_level};

/// The metadata log as a partition; Kafka reserves the id (`Uuid#METADATA_TOPIC_ID`).
pub(crate) const METADATA_PARTITION: PartitionId = PartitionId {
    topic_id: Uuid::ONE,
    index: 0,
};
