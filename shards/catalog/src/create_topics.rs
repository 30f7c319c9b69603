//! CreateTopics and CreatePartitions: judged as by Kafka's `ReplicationControlManager`, turned into
//! metadata records.
//!
//! Pure; runs on the designated shard. It changes nothing itself: see `controller`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chronik_protocol::configs::Key;
use chronik_protocol::configs::keys::broker;
use chronik_protocol::messages::{ConfigRecord, PartitionRecord, TopicRecord};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::change::{ApiError, NewPartitions, NewTopic};
use super::config_rules::check_topic_configs;
use super::image::{Image, Topic};
use super::names::{METADATA_TOPIC, RESOURCE_TOPIC};
use super::spread::Spread;
use super::topic_name::{check_topic_name, collision_name, has_collision_chars};
use crate::limits::PARTITIONS_PER_REQUEST_MAX;

/// Judges one request's topics against an image.
pub(super) struct TopicPlanner<'a> {
    image: &'a Image,
    random: &'a mut dyn FnMut() -> u128,
    spread: BTreeMap<i32, Spread>,
    /// Topics with dots or underscores, by the name they have where those are the same; made when
    /// the first name could collide.
    colliding: Option<HashMap<String, &'a Str>>,
}

/// One topic that can be created: its id and records.
pub(super) struct PlannedTopic {
    pub(super) id: Uuid,
    pub(super) records: Vec<MetadataRecord>,
}

impl<'a> TopicPlanner<'a> {
    pub(super) fn new(image: &'a Image, random: &'a mut dyn FnMut() -> u128) -> Self {
        TopicPlanner {
            image,
            random,
            spread: spread(image),
            colliding: None,
        }
    }

    /// Judges every topic by itself, in the order of the request.
    pub(super) fn plan(&mut self, topics: &[NewTopic]) -> Vec<Result<PlannedTopic, ApiError>> {
        let mut seen: HashMap<&Str, usize> = HashMap::new();
        for topic in topics {
            *seen.entry(&topic.name).or_default() += 1;
        }
        let wanted: u64 = topics.iter().map(|topic| self.partitions_of(topic)).sum();
        let excessive = wanted > PARTITIONS_PER_REQUEST_MAX;
        topics
            .iter()
            .map(|topic| {
                if seen.get(&topic.name).is_some_and(|count| *count > 1) {
                    return Err(ApiError::new(
                        ErrorCode::InvalidRequest,
                        "Duplicate topic name.",
                    ));
                }
                if excessive {
                    return Err(excessive_partitions());
                }
                self.plan_one(topic)
            })
            .collect()
    }

    fn partitions_of(&self, topic: &NewTopic) -> u64 {
        if !topic.assignments.is_empty() {
            return topic.assignments.len() as u64;
        }
        match topic.partition_count {
            -1 => u64::from(self.default_partitions()),
            count => u64::try_from(count).unwrap_or(0),
        }
    }

    fn default_partitions(&self) -> u32 {
        broker_number(self.image, broker::NUM_PARTITIONS)
    }

    fn plan_one(&mut self, topic: &NewTopic) -> Result<PlannedTopic, ApiError> {
        if topic.name == METADATA_TOPIC {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("Creation of internal topic {METADATA_TOPIC} is prohibited."),
            ));
        }
        check_topic_name(&topic.name)
            .map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))?;
        if self.image.topic(&topic.name).is_some() {
            return Err(ApiError::new(
                ErrorCode::TopicAlreadyExists,
                format!("Topic '{}' already exists.", topic.name),
            ));
        }
        self.check_collision(&topic.name)?;
        let configs = new_configs(topic)?;
        let assignments = self.assignments(topic)?;
        let id = self.fresh_id();
        let mut records = Vec::with_capacity(1 + configs.len() + assignments.len());
        records.push(MetadataRecord::Topic(TopicRecord {
            name: topic.name.detached(),
            topic_id: id,
            ..TopicRecord::default()
        }));
        for (name, value) in configs {
            records.push(MetadataRecord::Config(ConfigRecord {
                resource_type: RESOURCE_TOPIC,
                resource_name: topic.name.detached(),
                name: name.detached(),
                value: Some(value.detached()),
                ..ConfigRecord::default()
            }));
        }
        for (index, replicas) in assignments.into_iter().enumerate() {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            records.push(self.partition_record(id, index, replicas));
        }
        Ok(PlannedTopic { id, records })
    }

    fn check_collision(&mut self, name: &str) -> Result<(), ApiError> {
        if !has_collision_chars(name) {
            return Ok(());
        }
        let image = self.image;
        let colliding = self.colliding.get_or_insert_with(|| {
            let topics = image.topics().map(|topic| &topic.name);
            let able = topics.filter(|name| has_collision_chars(name));
            able.map(|name| (collision_name(name), name)).collect()
        });
        match colliding.get(&collision_name(name)) {
            Some(existing) => Err(ApiError::new(
                ErrorCode::InvalidTopicException,
                format!("Topic '{name}' collides with existing topic: {existing}"),
            )),
            None => Ok(()),
        }
    }

    /// Replicas of each partition, by index.
    fn assignments(&self, topic: &NewTopic) -> Result<Vec<Vec<i32>>, ApiError> {
        if !topic.assignments.is_empty() {
            return self.manual_assignments(topic);
        }
        let invalid_factor =
            |message: String| ApiError::new(ErrorCode::InvalidReplicationFactor, message);
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return Err(invalid_factor(
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned(),
            ));
        }
        if topic.partition_count < -1 || topic.partition_count == 0 {
            return Err(ApiError::new(
                ErrorCode::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
        let factor = match topic.replication_factor {
            -1 => broker_number(self.image, broker::DEFAULT_REPLICATION_FACTOR),
            factor => u32::from(factor.unsigned_abs()),
        };
        let brokers = self.image.brokers.len();
        if usize::try_from(factor).unwrap_or(usize::MAX) > brokers {
            return Err(invalid_factor(format!(
                "Unable to replicate the partition {factor} time(s): The target replication \
                 factor of {factor} cannot be reached because only {brokers} broker(s) are \
                 registered or some brokers have all their log directories cordoned."
            )));
        }
        let count = usize::try_from(self.partitions_of(topic)).unwrap_or(0);
        Ok(vec![vec![self.image.node_id]; count])
    }

    fn manual_assignments(&self, topic: &NewTopic) -> Result<Vec<Vec<i32>>, ApiError> {
        let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
        if topic.replication_factor != -1 {
            return invalid(
                "A manual partition assignment was specified, but replication factor was not set \
                 to -1.",
            );
        }
        if topic.partition_count != -1 {
            return invalid(
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            );
        }
        let mut found: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        let mut factor = None;
        for (index, replicas) in &topic.assignments {
            if found.contains_key(index) {
                return Err(ApiError::new(
                    ErrorCode::InvalidReplicaAssignment,
                    format!("Found multiple manual partition assignments for partition {index}"),
                ));
            }
            check_assignment(self.image, replicas, factor)?;
            factor = Some(replicas.len());
            found.insert(*index, replicas.clone());
        }
        if !found.keys().copied().eq((0..).take(found.len())) {
            return Err(ApiError::new(
                ErrorCode::InvalidReplicaAssignment,
                "partitions should be a consecutive 0-based integer sequence",
            ));
        }
        Ok(found.into_values().collect())
    }

    fn partition_record(&mut self, id: Uuid, index: i32, replicas: Vec<i32>) -> MetadataRecord {
        partition_record(&mut self.spread, id, index, replicas)
    }

    fn fresh_id(&mut self) -> Uuid {
        loop {
            let id = Uuid::from_random((self.random)());
            if self.image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }
}

/// The first state of a partition: led by the first of its replicas, which are all in sync.
fn partition_record(
    spread: &mut BTreeMap<i32, Spread>,
    id: Uuid,
    index: i32,
    replicas: Vec<i32>,
) -> MetadataRecord {
    let directory_of = |broker: &i32| spread.get_mut(broker).map_or(Uuid::ZERO, Spread::next);
    MetadataRecord::Partition(PartitionRecord {
        partition_id: index,
        topic_id: id,
        isr: replicas.clone(),
        leader: replicas.first().copied().unwrap_or(-1),
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(directory_of).collect(),
        replicas,
        ..PartitionRecord::default()
    })
}

/// Every broker's directories.
fn spread(image: &Image) -> BTreeMap<i32, Spread> {
    let brokers = image.brokers.iter();
    brokers
        .map(|(id, broker)| (*id, Spread::over(&broker.directories, image)))
        .collect()
}

fn excessive_partitions() -> ApiError {
    ApiError::new(
        ErrorCode::PolicyViolation,
        "Excessively large number of partitions per request.",
    )
}

/// A positive number among the broker's settings; the default where it is none.
fn broker_number(image: &Image, key: Key<i32>) -> u32 {
    let number = image.broker_configs.get(image.node_id, key);
    let number = Some(number).filter(|number| *number > 0);
    number.unwrap_or_else(|| key.default()).unsigned_abs()
}

fn new_configs(topic: &NewTopic) -> Result<BTreeMap<Str, Str>, ApiError> {
    let mut nulls: Vec<&str> = Vec::new();
    let mut configs = BTreeMap::new();
    for (name, value) in &topic.configs {
        match value {
            Some(value) => {
                configs.insert(name.clone(), value.clone());
            }
            None => nulls.push(name),
        }
    }
    if !nulls.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidConfig,
            format!(
                "Null value not supported for topic configs: {}",
                nulls.join(",")
            ),
        ));
    }
    check_topic_configs(&configs)?;
    Ok(configs)
}

/// Judges the replicas that a partition shall have, ascending, as a reassignment names them.
///
/// # Errors
/// INVALID_REPLICA_ASSIGNMENT, with Kafka's sentence.
pub fn check_replicas(image: &Image, replicas: &[i32]) -> Result<(), ApiError> {
    check_assignment(image, replicas, None)
}

fn check_assignment(
    image: &Image,
    replicas: &[i32],
    factor: Option<usize>,
) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return refuse(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        );
    }
    let mut seen = BTreeSet::new();
    for broker in replicas {
        if !image.brokers.contains_key(broker) {
            return refuse(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is \
                 registered."
            ));
        }
        if !seen.insert(broker) {
            return refuse(format!(
                "The manual partition assignment includes the broker {broker} more than once."
            ));
        }
    }
    match factor {
        Some(factor) if factor != replicas.len() => refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is \
             not consistent with previous partitions, which have {factor} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

/// Judges the partitions to be added, each topic by itself.
pub(super) fn plan_partitions(
    image: &Image,
    topics: &[NewPartitions],
) -> Vec<Result<Vec<MetadataRecord>, ApiError>> {
    let mut seen: HashMap<&Str, usize> = HashMap::new();
    for topic in topics {
        *seen.entry(&topic.name).or_default() += 1;
    }
    let mut budget = PARTITIONS_PER_REQUEST_MAX;
    let mut spread = spread(image);
    topics
        .iter()
        .map(|wanted| {
            if seen.get(&wanted.name).is_some_and(|count| *count > 1) {
                return Err(ApiError::new(
                    ErrorCode::InvalidRequest,
                    "Duplicate topic name.",
                ));
            }
            let topic = image.topic(&wanted.name).ok_or_else(unknown_topic)?;
            let records = plan_added(image, topic, wanted, budget, &mut spread)?;
            budget = budget.saturating_sub(records.len() as u64);
            Ok(records)
        })
        .collect()
}

/// `UNKNOWN_TOPIC_OR_PARTITION` with Kafka's sentence.
pub(super) fn unknown_topic() -> ApiError {
    ApiError::new(
        ErrorCode::UnknownTopicOrPartition,
        "This server does not host this topic-partition.",
    )
}

fn plan_added(
    image: &Image,
    topic: &Topic,
    wanted: &NewPartitions,
    budget: u64,
    spread: &mut BTreeMap<i32, Spread>,
) -> Result<Vec<MetadataRecord>, ApiError> {
    let current = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidPartitions, message));
    if wanted.count == current {
        return invalid(format!("Topic already has {current} partition(s)."));
    }
    if wanted.count < current {
        return invalid(format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase.",
            topic.name, wanted.count
        ));
    }
    let added = wanted.count.abs_diff(current);
    if let Some(assignments) = &wanted.assignments
        && assignments.len() != usize::try_from(added).unwrap_or(usize::MAX)
    {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicaAssignment,
            format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were \
                 specified.",
                assignments.len()
            ),
        ));
    }
    if u64::from(added) > budget {
        return Err(excessive_partitions());
    }
    let factor = topic.partitions.first().map(|first| first.replicas.len());
    let mut records = Vec::with_capacity(usize::try_from(added).unwrap_or(0));
    for index in current..wanted.count {
        let place = usize::try_from(index.abs_diff(current)).unwrap_or(usize::MAX);
        let replicas = match &wanted.assignments {
            Some(assignments) => {
                let replicas = assignments.get(place).cloned().unwrap_or_default();
                check_assignment(image, &replicas, factor)?;
                replicas
            }
            None => vec![image.node_id],
        };
        records.push(partition_record(spread, topic.id, index, replicas));
    }
    Ok(records)
}
