//! AlterReplicaLogDirs (key 34, KIP-113): in which log directory a partition shall lie. Answered once
//! that is agreed to; DescribeLogDirs tells how far a move is.

use std::collections::{BTreeMap, BTreeSet};

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use chronik_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::LogDirs;
use chronik_terms::PartitionId;

use super::api::{Api, Later, Shape};
use super::call::Call;
use super::context::Context;
use super::partitions;
use super::slice::Slice;

impl Api for AlterReplicaLogDirsRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> AlterReplicaLogDirsResponse {
        let mut topics: BTreeMap<&Str, BTreeSet<i32>> = BTreeMap::new();
        for topic in self.dirs.iter().flat_map(|dir| &dir.topics) {
            topics
                .entry(&topic.name)
                .or_default()
                .extend(&topic.partitions);
        }
        let results = topics
            .into_iter()
            .map(|(name, partitions)| AlterReplicaLogDirTopicResult {
                topic_name: name.clone(),
                partitions: partitions
                    .into_iter()
                    .map(|index| result(index, error))
                    .collect(),
                ..AlterReplicaLogDirTopicResult::default()
            });
        AlterReplicaLogDirsResponse {
            results: results.collect(),
            ..AlterReplicaLogDirsResponse::default()
        }
    }
}

impl Later for AlterReplicaLogDirsRequest {
    /// Answers. A partition that is named several times is sent to the last of the directories, and
    /// answered once, as in Kafka.
    async fn answer<W: World>(
        context: &Context<W>,
        _: &Call,
        request: Self,
    ) -> AlterReplicaLogDirsResponse {
        let image = context.image();
        let dirs = context.router.log_dirs();
        let mut slice = Slice::begin(&context.world);
        let mut wanted: BTreeMap<&str, BTreeMap<i32, &str>> = BTreeMap::new();
        for dir in &request.dirs {
            for topic in &dir.topics {
                for index in &topic.partitions {
                    let topic = wanted.entry(&topic.name).or_default();
                    topic.insert(*index, &dir.path);
                    slice.breathe(&context.world).await;
                }
            }
        }
        let (mut errors, mut moves) = (Vec::new(), Vec::new());
        for (name, partitions) in &wanted {
            for (index, path) in partitions {
                match judge(&image, dirs, (name, *index), path) {
                    Ok(wish) => {
                        moves.push(wish);
                        errors.push(None);
                    }
                    Err(error) => errors.push(Some(error)),
                }
                slice.breathe(&context.world).await;
            }
        }
        let answers = context.router.move_logs(&context.world, moves).await;
        let answers = answers.unwrap_or_default();
        let mut codes = partitions::merge(errors, answers, |error| error);
        let mut results = Vec::with_capacity(wanted.len());
        for (name, partitions) in wanted {
            let mut judged = Vec::with_capacity(partitions.len());
            for (index, error) in partitions.into_keys().zip(&mut codes) {
                judged.push(result(index, error));
                slice.breathe(&context.world).await;
            }
            results.push(AlterReplicaLogDirTopicResult {
                topic_name: name.to_owned().into(),
                partitions: judged,
                ..AlterReplicaLogDirTopicResult::default()
            });
        }
        AlterReplicaLogDirsResponse {
            results,
            ..AlterReplicaLogDirsResponse::default()
        }
    }
}

fn result(index: i32, error: ErrorCode) -> AlterReplicaLogDirPartitionResult {
    AlterReplicaLogDirPartitionResult {
        partition_index: index,
        error_code: error.as_i16(),
        ..AlterReplicaLogDirPartitionResult::default()
    }
}

/// Judges in the order of `ReplicaManager#alterReplicaLogDirs`: the directory, then the partition.
/// A directory is meant by the very path that DescribeLogDirs tells.
fn judge(
    image: &Image,
    dirs: &LogDirs,
    (topic, index): (&str, i32),
    path: &str,
) -> Result<(PartitionId, Uuid), ErrorCode> {
    let mut known = dirs.all().iter();
    let dir = known
        .find(|dir| dir.path.as_os_str() == path)
        .ok_or(ErrorCode::LogDirNotFound)?;
    let target = dir.id.ok_or(ErrorCode::KafkaStorageError)?;
    let found = image
        .topic(topic)
        .and_then(|topic| partitions::of_topic(topic, index));
    let (partition, info) = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    match dirs.home(&info.directories) {
        Some(_) => Ok((partition, target)),
        None => Err(ErrorCode::KafkaStorageError),
    }
}
