//! Changes of the catalogue as they are asked for, and what the controller answers.
//!
//! Plain values that cross cores; no rule is here.

use std::fmt;
use std::sync::Arc;

use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_terms::PartitionId;

use super::Topic;

/// A change of the catalogue.
#[derive(Clone, Debug)]
pub enum ControllerRequest {
    /// CreateTopics. Every topic is judged by itself; what can be created is, in one atomic step.
    CreateTopics {
        /// In the request's order.
        topics: Vec<NewTopic>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// DeleteTopics.
    DeleteTopics(Vec<TopicRef>),
    /// CreatePartitions.
    CreatePartitions {
        /// In the request's order.
        topics: Vec<NewPartitions>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// AlterConfigs and IncrementalAlterConfigs.
    AlterConfigs {
        /// In the request's order.
        resources: Vec<ConfigChange>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// A producer id nobody had before (InitProducerId).
    AllocateProducerId,
    /// UpdateFeatures: all of them or none.
    UpdateFeatures {
        /// In the request's order.
        updates: Vec<FeatureUpdate>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// A replica's log lies in another log directory of this broker from now on; the shard that owns
    /// it asks, once the copy there is whole (as Kafka's brokers do, KIP-858).
    MovePartition {
        /// Whose log.
        partition: PartitionId,
        /// The directory's id.
        directory: Uuid,
    },
    /// Changes nothing; answered once every change that was asked for before is made. A log that moves
    /// is closed only then, so as not to be closed behind a topic of thousands of partitions.
    AwaitTurn,
}

/// The answer to a [`ControllerRequest`], each list in the order of the request. An answer to a
/// change is sent only when its records are durable and every shard has applied the image.
#[derive(Clone, Debug)]
pub enum ControllerReply {
    /// For each topic, what it became.
    CreateTopics(Vec<CreatedTopic>),
    /// Name (empty when unknown), id (zero when unknown) and outcome.
    DeleteTopics(Vec<(Str, Uuid, Result<(), ApiError>)>),
    /// Name and outcome.
    CreatePartitions(Vec<(Str, Result<(), ApiError>)>),
    /// Outcome for each resource.
    AlterConfigs(Vec<Result<(), ApiError>>),
    /// The id.
    ProducerId(Result<i64, ApiError>),
    /// Outcome of all updates together.
    UpdateFeatures(Result<(), ApiError>),
    /// Outcome.
    MovePartition(Result<(), ApiError>),
    /// Whether changes are taken.
    Turn(Result<(), ApiError>),
}

impl ControllerRequest {
    /// Whether a log may be afterwards where there was none: it may have to wait for what was there.
    pub(crate) fn places_logs(&self) -> bool {
        use ControllerRequest::{CreatePartitions, CreateTopics, MovePartition};
        matches!(
            self,
            CreateTopics { .. } | CreatePartitions { .. } | MovePartition { .. }
        )
    }

    /// The partition whose directory it changes.
    pub(crate) fn moves(&self) -> Option<PartitionId> {
        match self {
            ControllerRequest::MovePartition { partition, .. } => Some(*partition),
            _ => None,
        }
    }

    /// The same refusal for everything that is asked for.
    pub fn refused(&self, error: &ApiError) -> ControllerReply {
        match self {
            ControllerRequest::CreateTopics { topics, .. } => {
                let created = topics.iter().map(|topic| CreatedTopic {
                    name: topic.name.clone(),
                    result: Err(error.clone()),
                });
                ControllerReply::CreateTopics(created.collect())
            }
            ControllerRequest::DeleteTopics(topics) => {
                let named = topics.iter().map(|topic| match topic {
                    TopicRef::Name(name) => (name.clone(), Uuid::ZERO, Err(error.clone())),
                    TopicRef::Id(id) => (Str::default(), *id, Err(error.clone())),
                });
                ControllerReply::DeleteTopics(named.collect())
            }
            ControllerRequest::CreatePartitions { topics, .. } => {
                let named = topics
                    .iter()
                    .map(|topic| (topic.name.clone(), Err(error.clone())));
                ControllerReply::CreatePartitions(named.collect())
            }
            ControllerRequest::AlterConfigs { resources, .. } => ControllerReply::AlterConfigs(
                resources.iter().map(|_| Err(error.clone())).collect(),
            ),
            ControllerRequest::AllocateProducerId => {
                ControllerReply::ProducerId(Err(error.clone()))
            }
            ControllerRequest::UpdateFeatures { .. } => {
                ControllerReply::UpdateFeatures(Err(error.clone()))
            }
            ControllerRequest::MovePartition { .. } => {
                ControllerReply::MovePartition(Err(error.clone()))
            }
            ControllerRequest::AwaitTurn => ControllerReply::Turn(Err(error.clone())),
        }
    }
}

impl ControllerReply {
    /// The same with failures for successes.
    pub fn failed(mut self, error: &ApiError) -> ControllerReply {
        fn spoil<T>(result: &mut Result<T, ApiError>, error: &ApiError) {
            if result.is_ok() {
                *result = Err(error.clone());
            }
        }
        match &mut self {
            ControllerReply::CreateTopics(topics) => {
                topics
                    .iter_mut()
                    .for_each(|topic| spoil(&mut topic.result, error));
            }
            ControllerReply::DeleteTopics(topics) => {
                topics
                    .iter_mut()
                    .for_each(|(_, _, result)| spoil(result, error));
            }
            ControllerReply::CreatePartitions(topics) => {
                topics
                    .iter_mut()
                    .for_each(|(_, result)| spoil(result, error));
            }
            ControllerReply::AlterConfigs(results) => {
                results.iter_mut().for_each(|result| spoil(result, error));
            }
            ControllerReply::ProducerId(result) => spoil(result, error),
            ControllerReply::UpdateFeatures(result)
            | ControllerReply::MovePartition(result)
            | ControllerReply::Turn(result) => spoil(result, error),
        }
        self
    }
}

/// A new level of a feature.
#[derive(Clone, Debug)]
pub struct FeatureUpdate {
    /// The feature's name.
    pub name: Str,
    /// The level it shall have; 0 disables it.
    pub level: i16,
    /// Which way it may go.
    pub kind: UpgradeType,
}

/// `FeatureUpdate.UpgradeType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeType {
    /// Only up.
    Upgrade,
    /// Down, if nothing is forgotten by it.
    SafeDowngrade,
    /// Down in any case; Kafka refuses to forget all the same.
    UnsafeDowngrade,
    /// None of these.
    Unknown,
}

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name, not yet checked.
    pub name: Str,
    /// −1 for `num.partitions`, and when there are assignments.
    pub partition_count: i32,
    /// −1 for `default.replication.factor`, and when there are assignments.
    pub replication_factor: i16,
    /// Partition index and broker ids; empty to let the controller choose.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings; a null value is refused.
    pub configs: Vec<(Str, Option<Str>)>,
}

impl NewTopic {
    /// A topic of this name with everything left to the broker's defaults, as auto-creation makes.
    pub fn with_defaults(name: Str) -> NewTopic {
        NewTopic {
            name,
            partition_count: -1,
            replication_factor: -1,
            ..NewTopic::default()
        }
    }
}

/// What became of a [`NewTopic`].
#[derive(Clone, Debug)]
pub struct CreatedTopic {
    /// As asked for.
    pub name: Str,
    /// The topic as created (or as it would be).
    pub result: Result<Arc<Topic>, ApiError>,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// By name.
    Name(Str),
    /// By id.
    Id(Uuid),
}

/// Partitions to be added.
#[derive(Clone, Debug)]
pub struct NewPartitions {
    /// The topic.
    pub name: Str,
    /// Partitions it shall have in all.
    pub count: i32,
    /// Broker ids of each added partition, when they are given.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Whose settings change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConfigResource {
    /// A topic's.
    Topic(Str),
    /// A broker's; `None` for all brokers.
    Broker(Option<i32>),
    /// Anything else: `ConfigResource.Type`'s number and the resource's name.
    Other(i8, Str),
}

/// Changes of one resource's settings.
#[derive(Clone, Debug)]
pub struct ConfigChange {
    /// Whose.
    pub resource: ConfigResource,
    /// Applied together or not at all.
    pub ops: Vec<ConfigOp>,
    /// Settings that are not named are unset (AlterConfigs); otherwise they stay
    /// (IncrementalAlterConfigs).
    pub replace_all: bool,
}

/// One change of one setting.
#[derive(Clone, Debug)]
pub struct ConfigOp {
    /// Which setting.
    pub name: Str,
    /// What to do.
    pub kind: ConfigOpKind,
    /// To set, append or subtract; ignored by `Delete`.
    pub value: Option<Str>,
}

/// `AlterConfigOp.OpType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOpKind {
    /// Sets the value.
    Set,
    /// Goes back to the default.
    Delete,
    /// Adds to a list.
    Append,
    /// Takes from a list.
    Subtract,
}

/// A refusal: Kafka's code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// For clients.
    pub code: ErrorCode,
    /// For people.
    pub message: Str,
}

impl ApiError {
    /// A refusal with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: Str::from(message.into()),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}
