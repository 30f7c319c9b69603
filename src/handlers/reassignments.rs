//! AlterPartitionReassignments (key 45) and ListPartitionReassignments (key 46, KIP-455). With one
//! broker a partition's replicas are that broker already: nothing is ever under way. Answered from the
//! image; to another log directory of the broker a partition moves by AlterReplicaLogDirs.

use chronik_catalog::{Image, check_replicas};
use chronik_io::World;
use chronik_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use chronik_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use chronik_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Inline, Later, Shape};
use super::call::Call;
use super::context::Context;
use super::partitions;
use super::sentences::Sentences;
use super::slice::Slice;

impl Api for AlterPartitionReassignmentsRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> AlterPartitionReassignmentsResponse {
        let responses = self.topics.iter().map(|topic| ReassignableTopicResponse {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| result(partition.partition_index, error, None))
                .collect(),
            ..ReassignableTopicResponse::default()
        });
        AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: self.allow_replication_factor_change,
            error_code: error.as_i16(),
            error_message: None,
            responses: responses.collect(),
            ..AlterPartitionReassignmentsResponse::default()
        }
    }
}

impl Later for AlterPartitionReassignmentsRequest {
    /// Answers AlterPartitionReassignments.
    async fn answer<W: World>(
        context: &Context<W>,
        _: &Call,
        request: Self,
    ) -> AlterPartitionReassignmentsResponse {
        let image = context.image();
        // Kafka's controller is not asked about nothing, and the field keeps its default.
        let error_message = request.topics.is_empty().then(Str::default);
        let mut slice = Slice::begin(&context.world);
        let mut sentences = Sentences::new();
        let mut responses = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut judged = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let replicas = partition.replicas.as_deref();
                let verdict = judge(&image, (&topic, index), replicas, &mut sentences);
                let (error, error_message) = verdict.err().unwrap_or((ErrorCode::None, None));
                judged.push(result(index, error, error_message));
                slice.breathe(&context.world).await;
            }
            responses.push(ReassignableTopicResponse {
                name: topic.name,
                partitions: judged,
                ..ReassignableTopicResponse::default()
            });
        }
        AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: request.allow_replication_factor_change,
            error_message,
            responses,
            ..AlterPartitionReassignmentsResponse::default()
        }
    }
}

fn result(index: i32, error: ErrorCode, message: Option<Str>) -> ReassignablePartitionResponse {
    ReassignablePartitionResponse {
        partition_index: index,
        error_code: error.as_i16(),
        error_message: message,
        ..ReassignablePartitionResponse::default()
    }
}

/// Judges one partition as `ReplicationControlManager#alterPartitionReassignment`; null replicas
/// cancel what is under way.
fn judge(
    image: &Image,
    (topic, index): (&ReassignableTopic, i32),
    replicas: Option<&[i32]>,
    sentences: &mut Sentences,
) -> Result<(), (ErrorCode, Option<Str>)> {
    let name = &topic.name;
    let mut unknown = |sentence: String| {
        (
            ErrorCode::UnknownTopicOrPartition,
            sentences.say(|| sentence),
        )
    };
    let Some(found) = image.topic(name) else {
        return Err(unknown(format!("Unable to find a topic named {name}.")));
    };
    if partitions::of_topic(found, index).is_none() {
        return Err(unknown(format!("Unable to find partition {name}:{index}.")));
    }
    let Some(replicas) = replicas else {
        return Err((ErrorCode::NoReassignmentInProgress, None));
    };
    let mut ascending = replicas.to_vec();
    ascending.sort_unstable();
    // What passes is this broker and no other: where the partition is.
    check_replicas(image, &ascending)
        .map_err(|error| (error.code, sentences.say(|| error.message.to_string())))
}

impl Api for ListPartitionReassignmentsRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse {
            error_code: error.as_i16(),
            error_message: None,
            ..ListPartitionReassignmentsResponse::default()
        }
    }
}

impl Inline for ListPartitionReassignmentsRequest {
    /// None is under way.
    fn answer<W: World>(_: &Context<W>, _: &Call, _: Self) -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse {
            error_message: None,
            ..ListPartitionReassignmentsResponse::default()
        }
    }
}
