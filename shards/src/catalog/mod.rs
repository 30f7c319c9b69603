//! The catalogue: topics, settings and brokers, as immutable images.
//!
//! Never touches the state of a partition: shards follow the image.

mod change;
mod image;
mod replay;
mod topic_config;

pub use change::{
    ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply,
    ControllerRequest, CreatedTopic, NewPartitions, NewTopic, TopicRef,
};
pub use image::{
    BrokerConfigs, BrokerRegistration, Endpoint, Image, PartitionInfo, Topic, is_internal_topic,
};
pub use topic_config::{
    CleanupPolicy, ConfigLayers, ConfigSource, ConfigSynonym, Conversion, DURABILITY, Durability,
    TimestampKind, TopicCompression, TopicConfig, broker_synonyms,
};
