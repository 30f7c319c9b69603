//! DescribeLogDirs (key 35): how large the logs are (KIP-113).

use std::collections::BTreeMap;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use chronik_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::catalog::Image;
use chronik_shards::{LogDescription, LogScope};
use tracing::warn;

use super::context::Context;
use super::partitions;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let image = context.image();
    let scope = scope(&image, &request);
    let Ok(logs) = context.router.describe_logs(&scope).await else {
        let error_code = ErrorCode::KafkaStorageError.as_i16();
        return DescribeLogDirsResponse {
            error_code,
            ..DescribeLogDirsResponse::default()
        };
    };
    let free_bytes = match context.world.free_bytes(&context.config.data_dir).await {
        Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        Err(error) => {
            warn!(%error, "the free space of the data directory is unknown");
            -1
        }
    };
    let used_bytes: i64 = logs.iter().map(|log| log.size_bytes).sum();
    let result = DescribeLogDirsResult {
        log_dir: Str::from(context.config.data_dir.display().to_string()),
        topics: by_topic(&image, logs),
        total_bytes: if free_bytes < 0 {
            -1
        } else {
            free_bytes.saturating_add(used_bytes)
        },
        usable_bytes: free_bytes,
        ..DescribeLogDirsResult::default()
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..DescribeLogDirsResponse::default()
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
