//! OffsetCommit (key 8): topics and partitions are looked up here, the rest is the coordinator's.

use std::collections::HashMap;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use chronik_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use chronik_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::catalog::{Image, Topic};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask, has_partition};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on topics are named by id.
const TOPIC_ID_VERSION: i16 = 10;
/// From this version on clients know errors about groups and epochs (KIP-848).
const EPOCH_VERSION: i16 = 9;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = context.image();
    let by_id = call.version >= TOPIC_ID_VERSION;
    let mut refused = Vec::new();
    let asked = std::mem::take(&mut request.topics);
    for topic in asked {
        if let Some(known) = take_known(&image, by_id, topic, &mut refused) {
            request.topics.push(known);
        }
    }
    if request.topics.is_empty() {
        return respond(refused, Vec::new());
    }
    let asked = request.topics.clone();
    let commit = GroupRequest::CommitOffsets {
        request,
        knows_epochs: call.version >= EPOCH_VERSION,
    };
    let committed = match ask(&context, commit).await {
        Some(GroupReply::CommitOffsets(response)) => response.topics,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => asked.iter().map(|topic| refuse(topic, GONE)).collect(),
    };
    respond(refused, committed)
}

/// The part of a topic that exists; the rest is refused.
fn take_known(
    image: &Image,
    by_id: bool,
    mut topic: OffsetCommitRequestTopic,
    refused: &mut Vec<OffsetCommitResponseTopic>,
) -> Option<OffsetCommitRequestTopic> {
    let found: Option<&std::sync::Arc<Topic>> = if by_id {
        image.topic_by_id(topic.topic_id)
    } else {
        image.topic(&topic.name)
    };
    let Some(found) = found else {
        let error = if by_id {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        };
        refused.push(refuse(&topic, error));
        return None;
    };
    topic.name = found.name.clone();
    topic.topic_id = found.id;
    let (known, unknown) = std::mem::take(&mut topic.partitions)
        .into_iter()
        .partition(|partition| has_partition(found, partition.partition_index));
    topic.partitions = unknown;
    if !topic.partitions.is_empty() {
        refused.push(refuse(&topic, ErrorCode::UnknownTopicOrPartition));
    }
    topic.partitions = known;
    (!topic.partitions.is_empty()).then_some(topic)
}

fn refuse(topic: &OffsetCommitRequestTopic, error: ErrorCode) -> OffsetCommitResponseTopic {
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.as_i16(),
                ..OffsetCommitResponsePartition::default()
            })
            .collect(),
        ..OffsetCommitResponseTopic::default()
    }
}

/// One entry for each topic: what was refused and what was committed of it.
fn respond(
    refused: Vec<OffsetCommitResponseTopic>,
    committed: Vec<OffsetCommitResponseTopic>,
) -> OffsetCommitResponse {
    let mut places: HashMap<(Str, Uuid), usize> = HashMap::new();
    let mut topics: Vec<OffsetCommitResponseTopic> = Vec::new();
    for topic in refused.into_iter().chain(committed) {
        let free = topics.len();
        let key = (topic.name.clone(), topic.topic_id);
        match topics.get_mut(*places.entry(key).or_insert(free)) {
            Some(earlier) => earlier.partitions.extend(topic.partitions),
            None => topics.push(topic),
        }
    }
    OffsetCommitResponse {
        topics,
        ..OffsetCommitResponse::default()
    }
}
