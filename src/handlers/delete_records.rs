//! DeleteRecords (key 21): moves the start of logs (KIP-107).

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use chronik_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use chronik_terms::{DeleteRecordsPart, DeleteRecordsResult, PartitionId};

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, of_topics};
use super::partitions;

impl Api for DeleteRecordsRequest {
    const SHAPE: Shape = Shape::Topics;

    /// `KafkaApis#handleDeleteRecordsRequest` makes a map of offsets.
    fn settle(&mut self) {
        self.topics = of_topics(
            std::mem::take(&mut self.topics),
            Keep::Last,
            |topic| topic.name.clone(),
            |topic| &mut topic.partitions,
            |partition| partition.partition_index,
        );
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> DeleteRecordsResponse {
        let parts = self.topics.iter().map(|topic| topic.partitions.len());
        let errors = vec![Some(error); parts.sum()];
        response(self, errors, Vec::new())
    }
}

impl Later for DeleteRecordsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DeleteRecordsResponse {
        let (image, is_large) = (context.image(), call.is_large);
        let planned = move || (plan(&image, &request), request);
        let ((parts, errors), request) = beside(&context.world, is_large, planned).await;
        let results = context
            .router
            .delete_records(&context.world, parts)
            .await
            .unwrap_or_default();
        let answered = move || response(&request, errors, results);
        beside(&context.world, is_large, answered).await
    }
}

/// The parts that can be asked for, and for each partition why it cannot.
fn plan(
    image: &Image,
    request: &DeleteRecordsRequest,
) -> (Vec<DeleteRecordsPart>, Vec<Option<ErrorCode>>) {
    let (mut parts, mut errors) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            let found = deletable(image, &topic.name, partition.partition_index);
            errors.push(found.err());
            if let Ok(id) = found {
                parts.push(DeleteRecordsPart {
                    partition: id,
                    offset: partition.offset,
                });
            }
        }
    }
    (parts, errors)
}

fn response(
    request: &DeleteRecordsRequest,
    errors: Vec<Option<ErrorCode>>,
    results: Vec<DeleteRecordsResult>,
) -> DeleteRecordsResponse {
    let mut results = partitions::merge(errors, results, DeleteRecordsResult::failed);
    let topics = request.topics.iter().map(|topic| DeleteRecordsTopicResult {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .zip(&mut results)
            .map(|(partition, result)| DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark: result.low_watermark,
                error_code: result.error.as_i16(),
                ..DeleteRecordsPartitionResult::default()
            })
            .collect(),
        ..DeleteRecordsTopicResult::default()
    });
    DeleteRecordsResponse {
        topics: topics.collect(),
        ..DeleteRecordsResponse::default()
    }
}

/// A partition whose records may be deleted: not of Kafka's own topics, and not of a topic that is
/// only compacted (`ReplicaManager#deleteRecordsOnLocalLog`, `UnifiedLog`).
fn deletable(image: &Image, name: &str, index: i32) -> Result<PartitionId, ErrorCode> {
    let topic = image
        .topic(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let found = partitions::by_name(image, name, index)?;
    if topic.is_internal {
        return Err(ErrorCode::InvalidTopicException);
    }
    if !topic.config.cleanup_policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    Ok(found)
}
