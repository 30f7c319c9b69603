//! OffsetDelete (key 47): offsets of topics a group does not want any more (KIP-496).

use std::collections::HashMap;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use chronik_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use chronik_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::DeleteOffsets;

use super::{GONE, ask, has_partition};
use crate::handlers::api::{Api, Later, Shape};
use crate::handlers::beside::beside;
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// Partitions whose offsets the coordinator forgets in one go, as one batch of its log.
const PARTITIONS_AT_ONCE: usize = 2_000;

impl Api for OffsetDeleteRequest {
    const SHAPE: Shape = Shape::Group;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> OffsetDeleteResponse {
        refused(error)
    }
}

impl Later for OffsetDeleteRequest {
    /// Answers. What is more than the coordinator takes in one go is forgotten part by part.
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> OffsetDeleteResponse {
        let (image, is_large) = (context.image(), call.is_large);
        let group_id = request.group_id.clone();
        let plan = move || plan(&image, request.topics);
        let (parts, mut told) = beside(&context.world, is_large, plan).await;
        let mut parts = parts.into_iter();
        while let Some(topics) = parts.next() {
            let request = OffsetDeleteRequest {
                group_id: group_id.clone(),
                topics,
            };
            let response = match ask(context, DeleteOffsets(request)).await {
                Some(response) => response,
                None => refused(GONE),
            };
            if response.error_code != ErrorCode::None.as_i16() {
                return response;
            }
            told.extend(response.topics);
            if parts.len() > 0 {
                context.world.pause().await;
            }
        }
        let topics = beside(&context.world, is_large, move || merged(told.into_iter())).await;
        OffsetDeleteResponse {
            topics,
            ..OffsetDeleteResponse::default()
        }
    }
}

fn refused(error: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse {
        error_code: error.as_i16(),
        ..OffsetDeleteResponse::default()
    }
}

/// What exists, in parts of at most [`PARTITIONS_AT_ONCE`] of which there is one at least, and the
/// refusal of the rest.
fn plan(
    image: &Image,
    asked: Vec<OffsetDeleteRequestTopic>,
) -> (
    Vec<Vec<OffsetDeleteRequestTopic>>,
    Vec<OffsetDeleteResponseTopic>,
) {
    let mut refused: Vec<OffsetDeleteResponseTopic> = Vec::new();
    let mut parts = Vec::new();
    let (mut part, mut left) = (Vec::new(), PARTITIONS_AT_ONCE);
    for mut topic in asked {
        let found = image.topic(&topic.name);
        let exists = |partition: &OffsetDeleteRequestPartition| {
            found.is_some_and(|found| has_partition(found, partition.partition_index))
        };
        let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition(exists);
        if !unknown.is_empty() || found.is_none() {
            refused.push(refuse(&topic, &unknown));
        }
        let mut known = known.into_iter();
        while known.len() > 0 {
            let some: Vec<_> = known.by_ref().take(left).collect();
            left -= some.len();
            part.push(OffsetDeleteRequestTopic {
                name: topic.name.clone(),
                partitions: some,
            });
            if left == 0 {
                parts.push(std::mem::take(&mut part));
                left = PARTITIONS_AT_ONCE;
            }
        }
    }
    // The group is judged also where nothing of what is asked exists.
    if !part.is_empty() || parts.is_empty() {
        parts.push(part);
    }
    (parts, refused)
}

/// One entry for each topic.
fn merged(
    parts: impl Iterator<Item = OffsetDeleteResponseTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut places: HashMap<Str, usize> = HashMap::new();
    let mut topics: Vec<OffsetDeleteResponseTopic> = Vec::new();
    for part in parts {
        let free = topics.len();
        match topics.get_mut(*places.entry(part.name.clone()).or_insert(free)) {
            Some(earlier) => earlier.partitions.extend(part.partitions),
            None => topics.push(part),
        }
    }
    topics
}

fn refuse(
    topic: &OffsetDeleteRequestTopic,
    partitions: &[OffsetDeleteRequestPartition],
) -> OffsetDeleteResponseTopic {
    let partition = |partition: &OffsetDeleteRequestPartition| OffsetDeleteResponsePartition {
        partition_index: partition.partition_index,
        error_code: ErrorCode::UnknownTopicOrPartition.as_i16(),
    };
    OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions: partitions.iter().map(partition).collect(),
    }
}
