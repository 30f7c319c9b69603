//! From refusals and append results to a Produce response in the request's order.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use chronik_protocol::messages::{ProduceRequest, ProduceResponse};
use chronik_terms::AppendResult;

use super::refusal::Refusal;

/// A response that says the same of every partition.
pub(super) fn all_refused(request: &ProduceRequest, refusal: &Refusal) -> ProduceResponse {
    let count = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len())
        .sum();
    response(request, vec![Some(refusal.clone()); count], Vec::new())
}

/// The response: `refusals` has an entry for each partition of the request; `results` belong, in
/// order, to those without a refusal.
pub(super) fn response(
    request: &ProduceRequest,
    refusals: Vec<Option<Refusal>>,
    results: Vec<AppendResult>,
) -> ProduceResponse {
    let mut refusals = refusals.into_iter();
    let mut results = results.into_iter();
    let mut next = |index: i32| match refusals.next().flatten() {
        Some(refusal) => refused(index, refusal),
        // A shard that is gone has promised nothing; the producer may try again.
        None => results.next().map_or_else(
            || refused(index, Refusal::of(ErrorCode::NotLeaderOrFollower)),
            |result| appended(index, result),
        ),
    };
    let responses = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: topic
            .partition_data
            .iter()
            .map(|partition| next(partition.index))
            .collect(),
        ..TopicProduceResponse::default()
    });
    ProduceResponse {
        responses: responses.collect(),
        ..ProduceResponse::default()
    }
}

/// The first error of a response.
pub(super) fn first_error(response: &ProduceResponse) -> Option<ErrorCode> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    let code = partitions
        .map(|partition| partition.error_code)
        .find(|code| *code != 0)?;
    Some(ErrorCode::try_from(code).unwrap_or(ErrorCode::UnknownServerError))
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    let record_errors = refusal.records.into_iter();
    let record_errors = record_errors.map(|(batch_index, message)| BatchIndexAndErrorMessage {
        batch_index,
        batch_index_error_message: message,
        ..BatchIndexAndErrorMessage::default()
    });
    PartitionProduceResponse {
        index,
        error_code: refusal.error.as_i16(),
        base_offset: -1,
        record_errors: record_errors.collect(),
        error_message: refusal.message,
        ..PartitionProduceResponse::default()
    }
}

fn appended(index: i32, result: AppendResult) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: result.error.as_i16(),
        base_offset: result.base_offset,
        log_append_time_ms: result.log_append_time_ms,
        log_start_offset: result.log_start_offset,
        error_message: result.message,
        ..PartitionProduceResponse::default()
    }
}
