//! ElectLeaders (key 43): a partition of one broker is led by it and by nobody else, so that an
//! election is never needed (`ReplicationControlManager#electLeaders`). Answered from the image.

use chronik_catalog::Topic;
use chronik_io::World;
use chronik_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use chronik_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Later, Shape};
use super::call::Call;
use super::context::Context;
use super::partitions;
use super::sentences::Sentences;
use super::slice::Slice;

/// From this version on the answer has an error for the request as a whole.
const WHOLE_ERROR_VERSION: i16 = 1;
/// `ElectionType`: the preferred replica, or any that lives.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

impl Api for ElectLeadersRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, call: &Call, error: ErrorCode) -> ElectLeadersResponse {
        let topics = self.topic_partitions.iter().flatten();
        let results = topics.map(|topic| ReplicaElectionResult {
            topic: topic.topic.clone(),
            partition_result: topic
                .partitions
                .iter()
                .map(|index| result(*index, error, None))
                .collect(),
            ..ReplicaElectionResult::default()
        });
        ElectLeadersResponse {
            error_code: match call.version {
                ..WHOLE_ERROR_VERSION => 0,
                _ => error.as_i16(),
            },
            replica_election_results: results.collect(),
            ..ElectLeadersResponse::default()
        }
    }
}

impl Later for ElectLeadersRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        _: &Call,
        request: Self,
    ) -> ElectLeadersResponse {
        let image = context.image();
        let kind = request.election_type;
        let is_known = ELECTION_TYPES.contains(&kind);
        let mut slice = Slice::begin(&context.world);
        let mut results = Vec::new();
        match request.topic_partitions {
            // Of all partitions only those are told that were elected: none.
            None if is_known => {
                for topic in image.topics() {
                    results.push(ReplicaElectionResult {
                        topic: topic.name.clone(),
                        ..ReplicaElectionResult::default()
                    });
                    slice.breathe(&context.world).await;
                }
            }
            None => {}
            Some(asked) => {
                let mut sentences = Sentences::new();
                for asked in asked {
                    let topic = image.topic(&asked.topic);
                    let mut partition_result = Vec::with_capacity(asked.partitions.len());
                    for index in asked.partitions {
                        let name = &asked.topic;
                        let (error, message) = match topic {
                            _ if !is_known => (
                                ErrorCode::InvalidRequest,
                                sentences.say(|| format!("Unknown election type {kind}")),
                            ),
                            None => (
                                ErrorCode::UnknownTopicOrPartition,
                                sentences.say(|| format!("No such topic as {name}")),
                            ),
                            Some(topic) => {
                                let error = judge(topic, index);
                                (error, sentences.say(|| sentence(error, topic, index)))
                            }
                        };
                        partition_result.push(result(index, error, message));
                        slice.breathe(&context.world).await;
                    }
                    results.push(ReplicaElectionResult {
                        topic: asked.topic,
                        partition_result,
                        ..ReplicaElectionResult::default()
                    });
                }
            }
        }
        let error = match is_known {
            true => ErrorCode::None,
            false => ErrorCode::InvalidRequest,
        };
        ElectLeadersResponse {
            error_code: error.as_i16(),
            replica_election_results: results,
            ..ElectLeadersResponse::default()
        }
    }
}

fn result(index: i32, error: ErrorCode, message: Option<Str>) -> PartitionResult {
    PartitionResult {
        partition_id: index,
        error_code: error.as_i16(),
        error_message: message,
        ..PartitionResult::default()
    }
}

fn judge(topic: &Topic, index: i32) -> ErrorCode {
    match partitions::of_topic(topic, index) {
        None => ErrorCode::UnknownTopicOrPartition,
        Some((_, info)) if info.leader >= 0 => ErrorCode::ElectionNotNeeded,
        Some(_) => ErrorCode::PreferredLeaderNotAvailable,
    }
}

fn sentence(error: ErrorCode, topic: &Topic, index: i32) -> String {
    match error {
        ErrorCode::UnknownTopicOrPartition => {
            format!("No such partition as {}-{index}", topic.name)
        }
        ErrorCode::ElectionNotNeeded => {
            "Leader election not needed for topic partition.".to_owned()
        }
        _ => "The preferred leader was not available.".to_owned(),
    }
}
