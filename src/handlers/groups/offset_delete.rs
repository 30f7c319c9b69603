//! OffsetDelete (key 47): offsets of topics a group does not want any more (KIP-496).

use std::collections::HashMap;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use chronik_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use chronik_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask, has_partition};
use crate::handlers::context::Context;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = context.image();
    let mut refused: Vec<OffsetDeleteResponseTopic> = Vec::new();
    let asked = std::mem::take(&mut request.topics);
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
        if !known.is_empty() {
            topic.partitions = known;
            request.topics.push(topic);
        }
    }
    let mut response = match ask(&context, GroupRequest::DeleteOffsets(request)).await {
        Some(GroupReply::DeleteOffsets(response)) => response,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => OffsetDeleteResponse {
            error_code: GONE.as_i16(),
            ..OffsetDeleteResponse::default()
        },
    };
    if response.error_code == ErrorCode::None.as_i16() {
        let deleted = std::mem::take(&mut response.topics);
        response.topics = merged(refused.into_iter().chain(deleted));
    }
    response
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
