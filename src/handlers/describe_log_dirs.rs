//! DescribeLogDirs (key 35): how large the logs are (KIP-113).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use chronik_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::{LogDir, LogDirs};
use chronik_terms::{LogDescription, LogScope, PartitionId};
use tracing::warn;

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, of_topics};
use super::partitions;
use super::slice::Slice;

/// Logs that are told of on the shard; more are beside it.
const LOGS_AT_ONCE: usize = 1_000;

impl Api for DescribeLogDirsRequest {
    const SHAPE: Shape = Shape::Cluster;

    /// A set of partitions.
    fn settle(&mut self) {
        if let Some(topics) = &mut self.topics {
            *topics = of_topics(
                std::mem::take(topics),
                Keep::First,
                |topic| topic.topic.clone(),
                |topic| &mut topic.partitions,
                |partition| *partition,
            );
        }
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeLogDirsResponse {
        refused(error)
    }
}

impl Later for DescribeLogDirsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DescribeLogDirsResponse {
        let image = context.image();
        let found = Arc::clone(&image);
        let scope = move || scope(&found, &request);
        let scope = beside(&context.world, call.is_large, scope).await;
        let Ok(logs) = context.router.describe_logs(&context.world, &scope).await else {
            return refused(ErrorCode::KafkaStorageError);
        };
        let dirs = context.router.log_dirs();
        let mut slice = Slice::begin(&context.world);
        let mut by_dir: BTreeMap<PathBuf, Vec<LogDescription>> = BTreeMap::new();
        for log in logs {
            let home = match log.future_in {
                Some(directory) => path_of(dirs, directory),
                None => home(&image, dirs, log.partition),
            };
            if let Some(home) = home {
                by_dir.entry(home.to_owned()).or_default().push(log);
            }
            slice.breathe(&context.world).await;
        }
        let mut results = Vec::with_capacity(dirs.all().len());
        for dir in dirs.all() {
            let logs = by_dir.remove(&dir.path).unwrap_or_default();
            results.push(describe(context, &image, dir, logs).await);
        }
        DescribeLogDirsResponse {
            results,
            ..DescribeLogDirsResponse::default()
        }
    }
}

fn refused(error: ErrorCode) -> DescribeLogDirsResponse {
    DescribeLogDirsResponse {
        error_code: error.as_i16(),
        ..DescribeLogDirsResponse::default()
    }
}

fn home<'a>(image: &Image, dirs: &'a LogDirs, partition: PartitionId) -> Option<&'a Path> {
    let topic = image.topic_by_id(partition.topic_id)?;
    let index = usize::try_from(partition.index).ok()?;
    dirs.home(&topic.partitions.get(index)?.directories)
}

fn path_of(dirs: &LogDirs, directory: Uuid) -> Option<&Path> {
    let found = dirs.all().iter().find(|dir| dir.id == Some(directory));
    found.map(|dir| dir.path.as_path())
}

/// As Kafka tells of a directory that cannot be used: by name, with an error, and nothing in it.
async fn describe<W: World>(
    context: &Context<W>,
    image: &Arc<Image>,
    dir: &LogDir,
    logs: Vec<LogDescription>,
) -> DescribeLogDirsResult {
    let log_dir = Str::from(dir.path.display().to_string());
    let offline = |log_dir| DescribeLogDirsResult {
        error_code: ErrorCode::KafkaStorageError.as_i16(),
        log_dir,
        ..DescribeLogDirsResult::default()
    };
    if dir.id.is_none() || logs.iter().any(|log| !log.online) {
        return offline(log_dir);
    }
    let usable_bytes = match context.world.free_bytes(&dir.path).await {
        Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        Err(error) => {
            warn!(dir = %dir.path.display(), %error, "the log directory does not answer");
            return offline(log_dir);
        }
    };
    let used_bytes: i64 = logs.iter().map(|log| log.size_bytes).sum();
    let (image, is_large) = (Arc::clone(image), logs.len() > LOGS_AT_ONCE);
    let topics = beside(&context.world, is_large, move || by_topic(&image, logs)).await;
    DescribeLogDirsResult {
        log_dir,
        topics,
        total_bytes: usable_bytes.saturating_add(used_bytes),
        usable_bytes,
        ..DescribeLogDirsResult::default()
    }
}

fn scope(image: &Image, request: &DescribeLogDirsRequest) -> LogScope {
    let Some(topics) = &request.topics else {
        return LogScope::All;
    };
    let asked = topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter();
        indexes.filter_map(|index| partitions::by_name(image, &topic.topic, *index).ok())
    });
    LogScope::Only(asked.collect())
}

fn by_topic(image: &Image, logs: Vec<LogDescription>) -> Vec<DescribeLogDirsTopic> {
    let mut topics: BTreeMap<Str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for log in logs {
        let Some(topic) = image.topic_by_id(log.partition.topic_id) else {
            continue;
        };
        topics
            .entry(topic.name.clone())
            .or_default()
            .push(DescribeLogDirsPartition {
                partition_index: log.partition.index,
                partition_size: log.size_bytes,
                offset_lag: log.offset_lag,
                is_future_key: log.future_in.is_some(),
                ..DescribeLogDirsPartition::default()
            });
    }
    let described = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic {
            name,
            partitions,
            ..DescribeLogDirsTopic::default()
        }
    });
    described.collect()
}
