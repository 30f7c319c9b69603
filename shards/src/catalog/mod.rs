//! The catalogue: topics, settings, brokers and producer ids, as a metadata log of Kafka's own
//! format and the immutable images it replays into.
//!
//! The controller and the log live on the designated shard; images are published to every shard.
//! Never touches the state of a partition: shards follow the image.

mod alter_configs;
pub(crate) mod batches;
mod change;
mod config_rules;
mod controller;
#[cfg(test)]
mod controller_tests;
mod create_topics;
mod features;
mod group_configs;
mod image;
mod judging;
mod names;
mod quorum;
pub(crate) mod replay;
pub(crate) mod snapshot;
mod spread;
mod topic_name;
pub(crate) mod versions;

pub use batches::FramingError;
pub use change::{
    ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply,
    ControllerRequest, CreatedTopic, FeatureUpdate, NewPartitions, NewTopic, TopicRef, UpgradeType,
};
pub use config_rules::{OF_LISTENERS, is_dynamic as is_dynamic_broker_config};
pub use create_topics::check_replicas;
pub use group_configs::broker_setting_behind;
pub use image::{
    BrokerConfigs, BrokerRegistration, Endpoint, Image, PartitionInfo, Topic, is_internal_topic,
};
pub use names::{METADATA_TOPIC, RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
pub use replay::ReplayError;
pub use topic_name::{TOPIC_NAME_CHARS_MAX, check_topic_name};
pub use versions::GROUP_VERSION_FEATURE;

pub(crate) use batches::atomic_batch as metadata_batch;
pub(crate) use controller::Controller;
pub(crate) use judging::{Change, Judged, Judging};
pub(crate) use names::RetainedKey;
pub(crate) use snapshot::SnapshotId;
pub(crate) use versions::{KRAFT_VERSION_MAX, MetadataVersion, unknown_level};
