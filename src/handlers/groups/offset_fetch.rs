//! OffsetFetch (key 9): of one group, or from version 8 on of several (KIP-709).
//!
//! Names and ids of topics are looked up here; old forms are brought to the newest and back.

use chronik_catalog::Image;
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
use chronik_shards::questions::FetchOffsets;

use super::{GONE, ask};
use crate::handlers::api::{Api, Handled, Lengthy, Shape};
use crate::handlers::beside::beside;
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::pieces::{Pieces, Repeated};

/// From this version on a response has an error for the group as a whole.
const GROUP_ERROR_VERSION: i16 = 2;
/// From this version on several groups can be asked for.
const GROUPS_VERSION: i16 = 8;
/// From this version on topics are named by id.
const TOPIC_ID_VERSION: i16 = 10;

/// Partitions that the coordinator is asked about at once: the others have their turn in between.
const PARTITIONS_AT_ONCE: usize = 4096;

impl Api for OffsetFetchRequest {
    const SHAPE: Shape = Shape::Groups;

    fn settle(&mut self) {}

    fn refused(&self, call: &Call, error: ErrorCode) -> OffsetFetchResponse {
        if call.version < GROUPS_VERSION {
            let asked = self.topics.as_deref().unwrap_or_default();
            let group = failed(&single_group(self), error);
            return single_response(call.version, asked, group);
        }
        let groups = self.groups.iter().map(|group| failed(group, error));
        OffsetFetchResponse {
            groups: groups.collect(),
            ..OffsetFetchResponse::default()
        }
    }
}

impl Lengthy for OffsetFetchRequest {
    /// Answers. Whether offsets are stable need not be asked (`RequireStable`): a reply waits for
    /// everything that was written before it. A group all of whose offsets are asked for again and again
    /// is answered each time and looked at once.
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<OffsetFetchResponse> {
        let (version, is_large) = (call.version, call.is_large);
        if version < GROUPS_VERSION {
            let single = move || (single_group(&request), request);
            let (group, request) = beside(&context.world, is_large, single).await;
            let group = fetch(context, call, group).await;
            let asked = request.topics.unwrap_or_default();
            let respond = move || single_response(version, &asked, group);
            let response = beside(&context.world, is_large, respond).await;
            return Handled::Response(response);
        }
        let count = request.groups.len();
        let among = move || {
            let groups = request.groups;
            let whole = groups.iter().filter(|group| group.topics.is_none());
            (Repeated::among(whole.map(key)), groups)
        };
        let (mut repeated, groups) = beside(&context.world, is_large, among).await;
        let mut pieces = Pieces::of_array::<OffsetFetchResponse>(context, call, true, count);
        for group in groups {
            if pieces.has_failed() {
                break;
            }
            if group.topics.is_some() {
                let is_long = is_large && has_many(&group);
                let fetched = fetch(context, call, group).await;
                if is_long {
                    pieces.push_long(fetched).await;
                } else {
                    pieces.push(&fetched).await;
                }
                continue;
            }
            let key = key(&group);
            match repeated.made(&key) {
                Some(made) => pieces.push_encoded(&made).await,
                None => {
                    let fetched = fetch(context, call, group).await;
                    repeated.push(&mut pieces, &key, &fetched).await;
                }
            }
        }
        Handled::Reply(pieces.finish(call))
    }
}

/// Whether so much is asked of a group that the answer is encoded beside the shard.
fn has_many(group: &OffsetFetchRequestGroup) -> bool {
    let topics = group.topics.iter().flatten();
    let partitions: usize = topics.map(|topic| topic.partition_indexes.len() + 1).sum();
    partitions > PARTITIONS_AT_ONCE
}

/// Who asks for all offsets of a group, and of which.
fn key(group: &OffsetFetchRequestGroup) -> (Str, Option<Str>, i32) {
    (
        group.group_id.clone(),
        group.member_id.clone(),
        group.member_epoch,
    )
}

/// Offsets of one group.
async fn fetch<W: World>(
    context: &Context<W>,
    call: &Call,
    mut group: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let by_id = call.version >= TOPIC_ID_VERSION;
    let (image, is_large) = (context.image(), call.is_large && has_many(&group));
    let plan = move || {
        let unknown = match by_id {
            true => name_topics(&image, &mut group),
            false => Vec::new(),
        };
        (parts(group), unknown)
    };
    let (parts, unknown) = beside(&context.world, is_large, plan).await;
    let mut fetched = OffsetFetchResponseGroup::default();
    for (place, part) in parts.into_iter().enumerate() {
        let goes_on = part.goes_on;
        let more = ask_for(context, part.group).await;
        if place == 0 || more.error_code != ErrorCode::None.as_i16() {
            fetched = more;
        } else {
            join(&mut fetched.topics, more.topics, goes_on);
        }
        if fetched.error_code != ErrorCode::None.as_i16() {
            return fetched;
        }
        if is_large {
            context.world.pause().await;
        }
    }
    if by_id {
        // A topic that is gone has no name a client of this version could be told.
        fetched.topics.retain(|topic| !topic.topic_id.is_zero());
    }
    fetched.topics.extend(unknown);
    fetched
}

async fn ask_for<W: World>(
    context: &Context<W>,
    group: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let refused = failed(&group, GONE);
    let fetch = FetchOffsets {
        groups: vec![group],
    };
    match ask(context, fetch).await {
        Some(fetched) => fetched.into_iter().next().unwrap_or(refused),
        None => refused,
    }
}

/// A part of what is asked of a group.
struct Part {
    group: OffsetFetchRequestGroup,
    /// Its first topic is the last one of the part before.
    goes_on: bool,
}

/// What is asked of a group, in parts of at most [`PARTITIONS_AT_ONCE`].
fn parts(group: OffsetFetchRequestGroup) -> Vec<Part> {
    let only = |topics: Vec<OffsetFetchRequestTopics>| OffsetFetchRequestGroup {
        group_id: group.group_id.clone(),
        member_id: group.member_id.clone(),
        member_epoch: group.member_epoch,
        topics: Some(topics),
        ..OffsetFetchRequestGroup::default()
    };
    let size = |topics: &[OffsetFetchRequestTopics]| -> usize {
        topics
            .iter()
            .map(|topic| topic.partition_indexes.len() + 1)
            .sum()
    };
    let all = group.topics.as_deref().unwrap_or_default();
    if size(all) <= PARTITIONS_AT_ONCE {
        let goes_on = false;
        return vec![Part { group, goes_on }];
    }
    let mut parts = Vec::new();
    let mut topics: Vec<OffsetFetchRequestTopics> = Vec::new();
    let (mut left, mut goes_on) = (PARTITIONS_AT_ONCE, false);
    for topic in all {
        let mut indexes = topic.partition_indexes.as_slice();
        loop {
            let (now, later) = indexes.split_at(indexes.len().min(left));
            topics.push(OffsetFetchRequestTopics {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partition_indexes: now.to_vec(),
                ..OffsetFetchRequestTopics::default()
            });
            left = left.saturating_sub(now.len() + 1);
            indexes = later;
            if left == 0 {
                let group = only(std::mem::take(&mut topics));
                parts.push(Part { group, goes_on });
                (left, goes_on) = (PARTITIONS_AT_ONCE, !indexes.is_empty());
            }
            if indexes.is_empty() {
                break;
            }
        }
    }
    if !topics.is_empty() {
        let group = only(topics);
        parts.push(Part { group, goes_on });
    }
    parts
}

/// Puts the topics of a part behind those of the parts before.
fn join(
    topics: &mut Vec<OffsetFetchResponseTopics>,
    more: Vec<OffsetFetchResponseTopics>,
    goes_on: bool,
) {
    let mut more = more.into_iter();
    if goes_on && let (Some(last), Some(first)) = (topics.last_mut(), more.next()) {
        last.partitions.extend(first.partitions);
    }
    topics.extend(more);
}

fn failed(group: &OffsetFetchRequestGroup, error: ErrorCode) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        error_code: error.as_i16(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, count: usize) -> OffsetFetchRequestTopics {
        OffsetFetchRequestTopics {
            name: Str::from(name),
            partition_indexes: (0..).take(count).collect(),
            ..OffsetFetchRequestTopics::default()
        }
    }

    fn answer(group: &OffsetFetchRequestGroup) -> Vec<OffsetFetchResponseTopics> {
        let topics = group.topics.iter().flatten();
        topics.map(refused).collect()
    }

    #[test]
    fn what_is_asked_in_parts_is_answered_as_a_whole() {
        let most = PARTITIONS_AT_ONCE;
        for sizes in [
            vec![],
            vec![0],
            vec![3, 0, 2],
            vec![most - 1],
            vec![most],
            vec![most + 1, 0, 1],
            vec![3 * most + 5, 2, 2 * most, 1],
            vec![0; 2 * most + 3],
            vec![1; 2 * most + 3],
        ] {
            let topics = sizes
                .iter()
                .enumerate()
                .map(|(n, size)| topic(&n.to_string(), *size));
            let group = OffsetFetchRequestGroup {
                topics: Some(topics.collect()),
                ..OffsetFetchRequestGroup::default()
            };
            let whole = answer(&group);
            let mut joined = Vec::new();
            for part in parts(group) {
                let topics = part.group.topics.iter().flatten();
                let count: usize = topics.map(|topic| topic.partition_indexes.len()).sum();
                assert!(count <= most);
                join(&mut joined, answer(&part.group), part.goes_on);
            }
            assert_eq!(joined, whole, "{sizes:?}");
        }
    }
}
