//! DescribeTopicPartitions (key 75): partitions page by page (KIP-966). Answered from the image.

use chronik_catalog::{Image, PartitionInfo, Topic, check_topic_name};
use chronik_io::World;
use chronik_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use chronik_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, keep};
use super::operations;

impl Api for DescribeTopicPartitionsRequest {
    const SHAPE: Shape = Shape::Topics;

    /// A sorted set of names.
    fn settle(&mut self) {
        keep(&mut self.topics, Keep::First, |topic| topic.name.clone());
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeTopicPartitionsResponse {
        refused(self, error)
    }
}

impl Later for DescribeTopicPartitionsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DescribeTopicPartitionsResponse {
        let asked = usize::try_from(request.response_partition_limit).unwrap_or(0);
        let limit = asked.min(context.config.described_partitions_max).max(1);
        let image = context.image();
        let answer = move || match has_wrong_cursor(&request) {
            true => refused(&request, ErrorCode::InvalidRequest),
            false => page(&image, &request, limit),
        };
        beside(&context.world, call.is_large, answer).await
    }
}

/// A cursor stands at one of the topics that are asked for, and at a partition
/// (`DescribeTopicPartitionsRequestHandler`).
fn has_wrong_cursor(request: &DescribeTopicPartitionsRequest) -> bool {
    let topics = &request.topics;
    request.cursor.as_ref().is_some_and(|cursor| {
        let is_named = || topics.iter().any(|topic| topic.name == cursor.topic_name);
        cursor.partition_index < 0 || !(topics.is_empty() || is_named())
    })
}

fn refused(
    request: &DescribeTopicPartitionsRequest,
    error: ErrorCode,
) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter();
    let topics = topics.map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: error.as_i16(),
        name: Some(topic.name.clone()),
        ..DescribeTopicPartitionsResponseTopic::default()
    });
    DescribeTopicPartitionsResponse {
        topics: topics.collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}

/// The topics asked for, sorted, from the cursor on, until `limit` partitions are in the answer.
fn page(
    image: &Image,
    request: &DescribeTopicPartitionsRequest,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let (first_name, first_index) = match &request.cursor {
        Some(cursor) => (
            cursor.topic_name.clone(),
            usize::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => (Str::default(), 0),
    };
    let every_topic = request.topics.is_empty();
    let mut names: Vec<Str> = if every_topic {
        // One topic more than fits is enough to know where the next page begins.
        image
            .topics_from(&first_name)
            .take(limit + 1)
            .map(|topic| topic.name.clone())
            .collect()
    } else {
        request
            .topics
            .iter()
            .map(|topic| topic.name.clone())
            .filter(|name| *name >= first_name)
            .collect()
    };
    names.sort_unstable();
    names.dedup();
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in names {
        let start = if name == first_name { first_index } else { 0 };
        if left == 0 {
            response.next_cursor = Some(cursor(name, start));
            break;
        }
        let Some(topic) = image.topic(&name) else {
            if !every_topic {
                response.topics.push(missing(name));
            }
            continue;
        };
        let described = describe(topic, start, left);
        left -= described.partitions.len();
        let end = start.saturating_add(described.partitions.len());
        response.topics.push(described);
        if end < topic.partitions.len() {
            response.next_cursor = Some(cursor(name, end));
            break;
        }
    }
    response
}

fn cursor(topic_name: Str, index: usize) -> Cursor {
    let partition_index = i32::try_from(index).unwrap_or(i32::MAX);
    Cursor {
        topic_name,
        partition_index,
        ..Cursor::default()
    }
}

fn missing(name: Str) -> DescribeTopicPartitionsResponseTopic {
    let valid = check_topic_name(&name).is_ok();
    let error = if valid {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.as_i16(),
        name: Some(name),
        topic_authorized_operations: operations::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn describe(topic: &Topic, start: usize, limit: usize) -> DescribeTopicPartitionsResponseTopic {
    let partitions = (0..).zip(&topic.partitions).skip(start).take(limit);
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal,
        partitions: partitions
            .map(|(index, info)| partition(index, info))
            .collect(),
        topic_authorized_operations: operations::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn partition(index: i32, info: &PartitionInfo) -> DescribeTopicPartitionsResponsePartition {
    let error = if info.leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else {
        ErrorCode::None
    };
    DescribeTopicPartitionsResponsePartition {
        error_code: error.as_i16(),
        partition_index: index,
        leader_id: info.leader,
        leader_epoch: info.leader_epoch,
        replica_nodes: info.replicas.clone(),
        isr_nodes: info.isr.clone(),
        eligible_leader_replicas: Some(info.eligible_leader_replicas.clone()),
        last_known_elr: Some(info.last_known_elr.clone()),
        ..DescribeTopicPartitionsResponsePartition::default()
    }
}
