//! The controller: turns a request and an image into a refusal or metadata records.
//!
//! A state machine without I/O on the designated shard; the only one that decides what the
//! catalogue may become. What it decides counts once its records are durable: see `metadata_log`.

use chronik_protocol::messages::{PartitionChangeRecord, ProducerIdsRecord, RemoveTopicRecord};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_terms::PartitionId;

use super::alter_configs::plan_configs;
use super::change::{
    ApiError, ControllerReply, ControllerRequest, CreatedTopic, NewPartitions, NewTopic, TopicRef,
};
use super::create_topics::{TopicPlanner, plan_partitions, unknown_topic};
use super::features::plan_features;
use super::image::Image;
use super::replay::{LEADER_UNCHANGED, ReplayError};
use crate::limits::PRODUCER_ID_BLOCK_LEN;

/// What the controller remembers beyond the image.
#[derive(Debug, Default)]
pub struct Controller {
    /// Ids of the last durable block that are still free.
    producer_ids: std::ops::Range<i64>,
}

/// What is to happen before a reply may be sent.
#[derive(Debug)]
pub struct Decision {
    /// The answer, to be held back until the records count.
    pub reply: ControllerReply,
    /// To be appended in one batch; empty when nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The image with the records applied, its offset not yet set; `None` when nothing changes.
    pub next: Option<Image>,
}

impl Controller {
    /// Ids come in durable blocks, so that a crash wastes some but never gives one out twice.
    ///
    /// # Errors
    /// As [`judge`].
    pub fn allocate_producer_id(&mut self, image: &Image) -> Result<Decision, ReplayError> {
        let mut records = Vec::new();
        if self.producer_ids.is_empty() {
            let first = image.next_producer_id;
            let Some(end) = first.checked_add(PRODUCER_ID_BLOCK_LEN) else {
                let error = ApiError::new(
                    ErrorCode::UnknownServerError,
                    format!(
                        "Exhausted all producerIds as the next block's end producerId is will has exceeded long type limit, the current producerId is {first}"
                    ),
                );
                return decision(
                    image,
                    records,
                    false,
                    ControllerReply::ProducerId(Err(error)),
                );
            };
            self.producer_ids = first..end;
            records.push(MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: image.node_id,
                broker_epoch: image.broker_epoch,
                next_producer_id: end,
                ..ProducerIdsRecord::default()
            }));
        }
        let id = self.producer_ids.start;
        self.producer_ids.start = id.saturating_add(1);
        decision(image, records, false, ControllerReply::ProducerId(Ok(id)))
    }

    /// Forgets what a record that could not be made durable would have given: after a failed append
    /// nobody knows whether it will be found at the next start.
    pub fn forget_producer_ids(&mut self) {
        self.producer_ids = 0..0;
    }
}

/// Judges a request that needs nothing but the image; ids of producers are the controller's own.
///
/// # Errors
/// When the records made here do not apply to the image: a bug of ours, and nothing changes.
pub(super) fn judge(
    image: &Image,
    request: &ControllerRequest,
    random: &mut dyn FnMut() -> u128,
) -> Result<Decision, ReplayError> {
    match request {
        ControllerRequest::CreateTopics {
            topics,
            validate_only,
        } => create_topics(image, topics, *validate_only, random),
        ControllerRequest::DeleteTopics(topics) => delete_topics(image, topics),
        ControllerRequest::CreatePartitions {
            topics,
            validate_only,
        } => create_partitions(image, topics, *validate_only),
        ControllerRequest::AlterConfigs {
            resources,
            validate_only,
        } => {
            let (results, records) = gather(plan_configs(image, resources));
            let reply = ControllerReply::AlterConfigs(results);
            decision(image, records, *validate_only, reply)
        }
        ControllerRequest::UpdateFeatures {
            updates,
            validate_only,
        } => {
            let (records, outcome) = match plan_features(image, updates) {
                Ok(records) => (records, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
            let reply = ControllerReply::UpdateFeatures(outcome);
            decision(image, records, *validate_only, reply)
        }
        ControllerRequest::MovePartition {
            partition,
            directory,
        } => move_partition(image, *partition, *directory),
        ControllerRequest::AwaitTurn => {
            decision(image, Vec::new(), true, ControllerReply::Turn(Ok(())))
        }
        ControllerRequest::AllocateProducerId => {
            let error = ApiError::new(ErrorCode::UnknownServerError, "has another way");
            decision(image, Vec::new(), true, request.refused(&error))
        }
    }
}

fn decision(
    image: &Image,
    records: Vec<MetadataRecord>,
    validate_only: bool,
    reply: ControllerReply,
) -> Result<Decision, ReplayError> {
    if records.is_empty() || validate_only {
        return Ok(Decision {
            reply,
            records: Vec::new(),
            next: None,
        });
    }
    let next = applied(image, &records)?;
    Ok(Decision {
        reply,
        records,
        next: Some(next),
    })
}

fn applied(image: &Image, records: &[MetadataRecord]) -> Result<Image, ReplayError> {
    let mut next = image.clone();
    for record in records {
        next.apply(record)?;
    }
    next.settle();
    Ok(next)
}

/// Splits plans into outcomes and the records of those that succeeded.
fn gather(
    plans: Vec<Result<Vec<MetadataRecord>, ApiError>>,
) -> (Vec<Result<(), ApiError>>, Vec<MetadataRecord>) {
    let mut records = Vec::new();
    let outcomes = plans
        .into_iter()
        .map(|plan| plan.map(|planned| records.extend(planned)))
        .collect();
    (outcomes, records)
}

fn create_topics(
    image: &Image,
    topics: &[NewTopic],
    validate_only: bool,
    random: &mut dyn FnMut() -> u128,
) -> Result<Decision, ReplayError> {
    let plans = TopicPlanner::new(image, random).plan(topics);
    let mut records = Vec::new();
    let mut outcomes: Vec<(Str, Result<Uuid, ApiError>)> = Vec::with_capacity(topics.len());
    for (topic, plan) in topics.iter().zip(plans) {
        let outcome = plan.map(|planned| {
            records.extend(planned.records);
            planned.id
        });
        outcomes.push((topic.name.clone(), outcome));
    }
    // Replies show the topic as it is (or would be), settings worked out.
    let next = applied(image, &records)?;
    let created = outcomes.into_iter().map(|(name, outcome)| CreatedTopic {
        name,
        result: outcome.and_then(|id| next.topic_by_id(id).cloned().ok_or_else(unknown_topic)),
    });
    let reply = ControllerReply::CreateTopics(created.collect());
    let next = (!records.is_empty() && !validate_only).then_some(next);
    if next.is_none() {
        records.clear();
    }
    Ok(Decision {
        reply,
        records,
        next,
    })
}

fn move_partition(
    image: &Image,
    partition: PartitionId,
    directory: Uuid,
) -> Result<Decision, ReplayError> {
    let info = image
        .topic_by_id(partition.topic_id)
        .zip(usize::try_from(partition.index).ok())
        .and_then(|(topic, index)| topic.partitions.get(index));
    let (records, outcome) = match info {
        // Elsewhere are no replicas: a list of one directory is that of this broker's.
        Some(info) if info.replicas == [image.node_id] => {
            let record = PartitionChangeRecord {
                partition_id: partition.index,
                topic_id: partition.topic_id,
                leader: LEADER_UNCHANGED,
                directories: Some(vec![directory]),
                ..PartitionChangeRecord::default()
            };
            (vec![MetadataRecord::PartitionChange(record)], Ok(()))
        }
        _ => (Vec::new(), Err(unknown_topic())),
    };
    decision(
        image,
        records,
        false,
        ControllerReply::MovePartition(outcome),
    )
}

fn delete_topics(image: &Image, topics: &[TopicRef]) -> Result<Decision, ReplayError> {
    let mut records = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut outcomes = Vec::with_capacity(topics.len());
    for wanted in topics {
        let (found, name, id, missing) = match wanted {
            TopicRef::Name(name) => {
                let found = image.topic(name);
                (found, name.clone(), Uuid::ZERO, unknown_topic())
            }
            TopicRef::Id(id) => {
                let missing = ApiError::new(
                    ErrorCode::UnknownTopicId,
                    "This server does not host this topic ID.",
                );
                (image.topic_by_id(*id), Str::default(), *id, missing)
            }
        };
        let Some(topic) = found else {
            outcomes.push((name, id, Err(missing)));
            continue;
        };
        if !seen.insert(topic.id) {
            let what = match wanted {
                TopicRef::Name(_) => "Duplicate topic name.",
                TopicRef::Id(_) => "Duplicate topic id.",
            };
            let error = ApiError::new(ErrorCode::InvalidRequest, what);
            outcomes.push((name, id, Err(error)));
            continue;
        }
        records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord {
            topic_id: topic.id,
            ..RemoveTopicRecord::default()
        }));
        outcomes.push((topic.name.clone(), topic.id, Ok(())));
    }
    decision(
        image,
        records,
        false,
        ControllerReply::DeleteTopics(outcomes),
    )
}

fn create_partitions(
    image: &Image,
    topics: &[NewPartitions],
    validate_only: bool,
) -> Result<Decision, ReplayError> {
    let (outcomes, records) = gather(plan_partitions(image, topics));
    let named = topics
        .iter()
        .map(|topic| topic.name.clone())
        .zip(outcomes)
        .collect();
    decision(
        image,
        records,
        validate_only,
        ControllerReply::CreatePartitions(named),
    )
}
