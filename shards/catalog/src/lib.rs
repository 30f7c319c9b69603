//! `chronik-catalog`: topics, settings, brokers and producer ids, as a metadata log of Kafka's own
//! format and the immutable images it replays into.
//!
//! Pure: no file, no clock, no channel, nothing that awaits. The controller is run by the designated shard,
//! which also keeps the log; images are published to every shard. Never touches the state of a partition:
//! shards follow the image.

mod alter_configs;
pub mod batches;
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
pub mod limits;
mod names;
mod quorum;
pub mod replay;
pub mod snapshot;
mod spread;
mod topic_name;
pub mod versions;

pub use change::{
    ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply,
    ControllerRequest, CreatedTopic, FeatureUpdate, NewPartitions, NewTopic, TopicRef, UpgradeType,
};
pub use config_rules::{OF_LISTENERS, is_dynamic as is_dynamic_broker_config};
pub use controller::Controller;
pub use create_topics::check_replicas;
pub use group_configs::broker_setting_behind;
pub use image::{
    BrokerConfigs, BrokerRegistration, Endpoint, Image, PartitionInfo, Topic, is_internal_topic,
};
pub use judging::{Change, Judged, Judging};
pub use names::{METADATA_TOPIC, RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, RetainedKey};
pub use topic_name::{TOPIC_NAME_CHARS_MAX, check_topic_name};
