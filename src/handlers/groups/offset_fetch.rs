//! OffsetFetch (key 9): of one group, or from version 8 on of several (KIP-709).
//!
//! Names and ids of topics are looked up here; old forms are brought to the newest and back.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use chronik_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use chronik_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::catalog::Image;
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on a response has an error for the group as a whole.
const GROUP_ERROR_VERSION: i16 = 2;
/// From this version on several groups can be asked for.
const GROUPS_VERSION: i16 = 8;
/// From this version on topics are named by id.
const TOPIC_ID_VERSION: i16 = 10;

/// Answers. Whether offsets are stable need not be asked (`RequireStable`): a reply waits for
/// everything that was written before it.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let image = context.image();
    let by_id = call.version >= TOPIC_ID_VERSION;
    let mut groups = if call.version >= GROUPS_VERSION {
        request.groups
    } else {
        vec![single_group(&request)]
    };
    let mut unknown = Vec::with_capacity(groups.len());
    for group in &mut groups {
        unknown.push(if by_id {
            name_topics(&image, group)
        } else {
            Vec::new()
        });
    }
    let fetch = GroupRequest::FetchOffsets {
        groups: groups.clone(),
    };
    let mut fetched = match ask(&context, fetch).await {
        Some(GroupReply::FetchOffsets(fetched)) => fetched,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => groups.iter().map(gone).collect(),
    };
    for (group, unknown) in fetched.iter_mut().zip(unknown) {
        if group.error_code == ErrorCode::None.as_i16() {
            if by_id {
                // A topic that is gone has no name a client of this version could be told.
                group.topics.retain(|topic| !topic.topic_id.is_zero());
            }
            group.topics.extend(unknown);
        }
    }
    if call.version >= GROUPS_VERSION {
        return OffsetFetchResponse {
            groups: fetched,
            ..OffsetFetchResponse::default()
        };
    }
    let group = fetched.into_iter().next().unwrap_or_default();
    single_response(call.version, &request.topics.unwrap_or_default(), group)
}

fn gone(group: &OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        error_code: GONE.as_i16(),
        ..OffsetFetchResponseGroup::default()
    }
}

fn single_group(request: &OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topic = |topic: &OffsetFetchRequestTopic| OffsetFetchRequestTopics {
        name: topic.name.clone(),
        partition_indexes: topic.partition_indexes.clone(),
        ..OffsetFetchRequestTopics::default()
    };
    OffsetFetchRequestGroup {
        group_id: request.group_id.clone(),
        topics: request
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(topic).collect()),
        ..OffsetFetchRequestGroup::default()
    }
}

/// Gives topics that were asked for by id their names; takes out those that have none.
fn name_topics(
    image: &Image,
    group: &mut OffsetFetchRequestGroup,
) -> Vec<OffsetFetchResponseTopics> {
    let mut unknown = Vec::new();
    if let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match image.topic_by_id(topic.topic_id) {
            Some(found) => {
                topic.name = found.name.clone();
                true
            }
            None => {
                unknown.push(refused(topic));
                false
            }
        });
    }
    unknown
}

fn refused(topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partition = |index: &i32| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: -1,
        metadata: Some(Str::default()),
        error_code: ErrorCode::UnknownTopicId.as_i16(),
        ..OffsetFetchResponsePartitions::default()
    };
    OffsetFetchResponseTopics {
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

/// The form for one group. Before version 2 its error stands at every partition that was asked for.
fn single_response(
    version: i16,
    asked: &[OffsetFetchRequestTopic],
    group: OffsetFetchResponseGroup,
) -> OffsetFetchResponse {
    let failed = group.error_code != ErrorCode::None.as_i16();
    let topics = if failed && version < GROUP_ERROR_VERSION {
        asked
            .iter()
            .map(|topic| all_failed(topic, group.error_code))
            .collect()
    } else {
        group.topics.into_iter().map(single_topic).collect()
    };
    OffsetFetchResponse {
        topics,
        error_code: group.error_code,
        ..OffsetFetchResponse::default()
    }
}

fn all_failed(topic: &OffsetFetchRequestTopic, error_code: i16) -> OffsetFetchResponseTopic {
    let partition = |index: &i32| OffsetFetchResponsePartition {
        partition_index: *index,
        committed_offset: -1,
        metadata: Some(Str::default()),
        error_code,
        ..OffsetFetchResponsePartition::default()
    };
    OffsetFetchResponseTopic {
        name: topic.name.clone(),
        partitions: topic.partition_indexes.iter().map(partition).collect(),
        ..OffsetFetchResponseTopic::default()
    }
}

fn single_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..OffsetFetchResponsePartition::default()
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..OffsetFetchResponseTopic::default()
    }
}
