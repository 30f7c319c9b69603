//! OffsetCommit (key 8): topics and partitions are looked up here, the rest is the coordinator's.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use chronik_catalog::{Image, Topic};
use chronik_io::World;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use chronik_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::questions::CommitOffsets;

use super::{GONE, ask, has_partition};
use crate::handlers::api::{Api, Later, Shape};
use crate::handlers::beside::beside;
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::server::signal::Signal;

/// From this version on topics are named by id.
const TOPIC_ID_VERSION: i16 = 10;
/// From this version on clients know errors about groups and epochs (KIP-848).
const EPOCH_VERSION: i16 = 9;

/// Partitions whose offsets the coordinator takes in one go, as one batch of its log: about a
/// microsecond each.
const PARTITIONS_AT_ONCE: usize = 2_000;

impl Api for OffsetCommitRequest {
    const SHAPE: Shape = Shape::Group;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> OffsetCommitResponse {
        let topics = self.topics.iter().map(|topic| refuse(topic, error));
        OffsetCommitResponse {
            topics: topics.collect(),
            ..OffsetCommitResponse::default()
        }
    }
}

impl Later for OffsetCommitRequest {
    /// Answers. What is more than the coordinator takes in one go is committed part by part, each judged by
    /// itself and none left out, where Kafka refuses what is more than one batch of its log.
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        mut request: Self,
    ) -> OffsetCommitResponse {
        let (image, is_large) = (context.image(), call.is_large);
        let by_id = call.version >= TOPIC_ID_VERSION;
        let knows_epochs = call.version >= EPOCH_VERSION;
        let topics = std::mem::take(&mut request.topics);
        let plan = move || {
            let mut refused = Vec::new();
            let known = topics
                .into_iter()
                .filter_map(|topic| take_known(&image, by_id, topic, &mut refused));
            let known: Vec<OffsetCommitRequestTopic> = known.collect();
            (parts(known), refused)
        };
        let (parts, refused) = beside(&context.world, is_large, plan).await;
        let commit = Commit {
            context: context.shared(),
            request,
            knows_epochs,
        };
        let committed = match parts.len() {
            0 | 1 => commit.run(parts).await,
            _ => commit.whole(parts).await,
        };
        beside(&context.world, is_large, move || {
            respond(refused, committed)
        })
        .await
    }
}

/// A commit on its way to the coordinator.
struct Commit<W: World> {
    context: Rc<Context<W>>,
    /// Without topics.
    request: OffsetCommitRequest,
    knows_epochs: bool,
}

impl<W: World> Commit<W> {
    /// Commits part by part, to the end even when the client leaves meanwhile: as in Kafka, it is not half
    /// done for that. What is left then is held against the budget like a request.
    async fn whole(
        self,
        parts: Vec<Vec<OffsetCommitRequestTopic>>,
    ) -> Vec<OffsetCommitResponseTopic> {
        let world = self.context.world.clone();
        let bytes = parts.len() * PARTITIONS_AT_ONCE * size_of::<OffsetCommitRequestPartition>();
        let held = self.context.budget.charge_request(bytes);
        let done: Rc<(Signal, Cell<Vec<OffsetCommitResponseTopic>>)> = Rc::default();
        let told = Rc::clone(&done);
        world.spawn(async move {
            told.1.set(self.run(parts).await);
            told.0.notify();
            drop(held);
        });
        done.0.wait().await;
        done.1.take()
    }

    async fn run(
        self,
        parts: Vec<Vec<OffsetCommitRequestTopic>>,
    ) -> Vec<OffsetCommitResponseTopic> {
        let mut committed = Vec::new();
        let mut parts = parts.into_iter();
        while let Some(topics) = parts.next() {
            let request = OffsetCommitRequest {
                topics,
                ..self.request.clone()
            };
            let gone = gone(&request.topics);
            let commit = CommitOffsets {
                request,
                knows_epochs: self.knows_epochs,
            };
            match ask(&self.context, commit).await {
                Some(response) => committed.extend(response.topics),
                None => committed.extend(gone),
            }
            if parts.len() > 0 {
                self.context.world.pause().await;
            }
        }
        committed
    }
}

fn gone(topics: &[OffsetCommitRequestTopic]) -> Vec<OffsetCommitResponseTopic> {
    topics.iter().map(|topic| refuse(topic, GONE)).collect()
}

/// The same in parts of at most [`PARTITIONS_AT_ONCE`]; one topic may be in several.
fn parts(topics: Vec<OffsetCommitRequestTopic>) -> Vec<Vec<OffsetCommitRequestTopic>> {
    let mut parts = Vec::new();
    let (mut part, mut left) = (Vec::new(), PARTITIONS_AT_ONCE);
    for mut topic in topics {
        while topic.partitions.len() > left {
            let rest = topic.partitions.split_off(left);
            let now = OffsetCommitRequestTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: std::mem::replace(&mut topic.partitions, rest),
                ..OffsetCommitRequestTopic::default()
            };
            part.push(now);
            parts.push(std::mem::take(&mut part));
            left = PARTITIONS_AT_ONCE;
        }
        left -= topic.partitions.len();
        part.push(topic);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_commit_goes_in_parts_that_are_the_whole() {
        let most = PARTITIONS_AT_ONCE;
        for sizes in [
            vec![],
            vec![1],
            vec![most],
            vec![most + 1, 3],
            vec![1; 2 * most + 3],
            vec![3, 3 * most, 1],
        ] {
            let topic = |(n, size): (usize, &usize)| OffsetCommitRequestTopic {
                name: Str::from(n.to_string()),
                partitions: (0..)
                    .take(*size)
                    .map(|partition_index| OffsetCommitRequestPartition {
                        partition_index,
                        ..OffsetCommitRequestPartition::default()
                    })
                    .collect(),
                ..OffsetCommitRequestTopic::default()
            };
            let topics: Vec<_> = sizes.iter().enumerate().map(topic).collect();
            let named = |topics: &[OffsetCommitRequestTopic]| -> Vec<(Str, i32)> {
                let of = |topic: &OffsetCommitRequestTopic| {
                    let name = topic.name.clone();
                    let partitions = topic.partitions.iter();
                    partitions
                        .map(|partition| (name.clone(), partition.partition_index))
                        .collect::<Vec<_>>()
                };
                topics.iter().flat_map(of).collect()
            };
            let whole = named(&topics);
            let parts = parts(topics);
            assert!(parts.iter().all(|part| named(part).len() <= most));
            assert!(parts.iter().all(|part| !part.is_empty()));
            let joined: Vec<_> = parts.iter().flat_map(|part| named(part)).collect();
            assert_eq!(joined, whole, "{sizes:?}");
        }
    }
}
