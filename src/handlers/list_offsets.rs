//! ListOffsets (key 2): offsets by timestamp, and the ends of logs.

mod segments;

use std::collections::{HashMap, HashSet};

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::messages::list_offsets_request::ListOffsetsPartition;
use chronik_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use chronik_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_terms::{Isolation, OffsetAnswer, OffsetQuery, OffsetTarget};

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, of_topics};
use super::partitions;

impl Api for ListOffsetsRequest {
    const SHAPE: Shape = Shape::Topics;

    /// Refused (`ListOffsetsRequest#duplicatePartitions`).
    fn settle(&mut self) {
        self.topics = of_topics(
            std::mem::take(&mut self.topics),
            Keep::Two,
            |topic| topic.name.clone(),
            |topic| &mut topic.partitions,
            |partition| partition.partition_index,
        );
    }

    fn refused(&self, call: &Call, error: ErrorCode) -> ListOffsetsResponse {
        let answer = OffsetAnswer::failed(error);
        let topics = self.topics.iter().map(|topic| ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| told(call.version, partition, &answer))
                .collect(),
            ..ListOffsetsTopicResponse::default()
        });
        ListOffsetsResponse {
            topics: topics.collect(),
            ..ListOffsetsResponse::default()
        }
    }
}

impl Later for ListOffsetsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> ListOffsetsResponse {
        if call.version == 0 {
            return segments::handle(context, &request).await;
        }
        let isolation = match request.isolation_level {
            0 => Isolation::ReadUncommitted,
            _ => Isolation::ReadCommitted,
        };
        let (image, version, is_large) = (context.image(), call.version, call.is_large);
        let planned = move || (plan(&image, version, isolation, &request), request);
        let ((queries, errors), request) = beside(&context.world, is_large, planned).await;
        let answers = context
            .router
            .list_offsets(&context.world, queries)
            .await
            .unwrap_or_default();
        let answered = move || response(version, &request, errors, answers);
        beside(&context.world, is_large, answered).await
    }
}

fn response(
    version: i16,
    request: &ListOffsetsRequest,
    errors: Vec<Option<ErrorCode>>,
    answers: Vec<OffsetAnswer>,
) -> ListOffsetsResponse {
    let mut answers = partitions::merge(errors, answers, OffsetAnswer::failed);
    let mut repeated = Repeated::of(request);
    let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .zip(&mut answers)
            .filter(|(asked, _)| repeated.tell(&topic.name, asked.partition_index))
            .map(|(partition, answer)| told(version, partition, &answer))
            .collect(),
        ..ListOffsetsTopicResponse::default()
    });
    ListOffsetsResponse {
        topics: topics
            .filter(|topic| !topic.partitions.is_empty())
            .collect(),
        ..ListOffsetsResponse::default()
    }
}

/// The queries of all partitions that can be asked, and for each partition why it cannot.
fn plan(
    image: &Image,
    version: i16,
    isolation: Isolation,
    request: &ListOffsetsRequest,
) -> (Vec<OffsetQuery>, Vec<Option<ErrorCode>>) {
    let twice = Repeated::of(request);
    let (mut queries, mut errors) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let planned = if twice.contains(&topic.name, index) {
                Err(ErrorCode::InvalidRequest)
            } else {
                partitions::by_name(image, &topic.name, index)
                    .and_then(|id| Ok((id, target(version, partition.timestamp)?)))
            };
            errors.push(planned.as_ref().err().copied());
            if let Ok((partition_id, target)) = planned {
                queries.push(OffsetQuery {
                    partition: partition_id,
                    current_leader_epoch: partition.current_leader_epoch,
                    isolation,
                    target,
                });
            }
        }
    }
    (queries, errors)
}

/// Partitions that a request names more than once: refused, each of them once. Of those the decoder
/// leaves two.
pub(super) struct Repeated<'a> {
    /// Whether it has been told.
    twice: HashMap<(&'a Str, i32), bool>,
}

impl<'a> Repeated<'a> {
    pub(super) fn of(request: &'a ListOffsetsRequest) -> Self {
        let mut seen = HashSet::new();
        let mut twice = HashMap::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                let key = (&topic.name, partition.partition_index);
                if !seen.insert(key) {
                    twice.insert(key, false);
                }
            }
        }
        Self { twice }
    }

    pub(super) fn contains(&self, name: &'a Str, index: i32) -> bool {
        self.twice.contains_key(&(name, index))
    }

    /// Whether a partition stands in the answer here: the first time.
    pub(super) fn tell(&mut self, name: &'a Str, index: i32) -> bool {
        let told = self.twice.get_mut(&(name, index));
        told.is_none_or(|told| !std::mem::replace(told, true))
    }
}

/// What a timestamp of the wire asks for; negative ones are names that came version by version.
fn target(version: i16, timestamp: i64) -> Result<OffsetTarget, ErrorCode> {
    let (target, since) = match timestamp {
        -1 => (OffsetTarget::Latest, 0),
        -2 => (OffsetTarget::Earliest, 0),
        -3 => (OffsetTarget::MaxTimestamp, 7),
        -4 => (OffsetTarget::EarliestLocal, 8),
        -5 => (OffsetTarget::LatestTiered, 9),
        -6 => (OffsetTarget::EarliestPendingUpload, 11),
        timestamp if timestamp >= 0 => (OffsetTarget::Timestamp(timestamp), 0),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    if version >= since {
        Ok(target)
    } else {
        Err(ErrorCode::UnsupportedVersion)
    }
}

fn told(
    version: i16,
    partition: &ListOffsetsPartition,
    answer: &OffsetAnswer,
) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index: partition.partition_index,
        error_code: answer.error.as_i16(),
        timestamp: answer.timestamp_ms,
        offset: answer.offset,
        // Versions before 4 have no epoch, and none to be wrong about.
        leader_epoch: if version >= 4 {
            answer.leader_epoch
        } else {
            -1
        },
        ..ListOffsetsPartitionResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_offsets_exist_from_their_version_on() {
        let cases = [
            (1, -1, Ok(OffsetTarget::Latest)),
            (1, -2, Ok(OffsetTarget::Earliest)),
            (6, -3, Err(ErrorCode::UnsupportedVersion)),
            (7, -3, Ok(OffsetTarget::MaxTimestamp)),
            (7, -4, Err(ErrorCode::UnsupportedVersion)),
            (8, -4, Ok(OffsetTarget::EarliestLocal)),
            (9, -5, Ok(OffsetTarget::LatestTiered)),
            (10, -6, Err(ErrorCode::UnsupportedVersion)),
            (11, -6, Ok(OffsetTarget::EarliestPendingUpload)),
            (11, -7, Err(ErrorCode::UnsupportedVersion)),
            (1, 0, Ok(OffsetTarget::Timestamp(0))),
        ];
        for (version, timestamp, expected) in cases {
            assert_eq!(
                target(version, timestamp),
                expected,
                "{timestamp} in version {version}"
            );
        }
    }
}
