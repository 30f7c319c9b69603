//! CreatePartitions (key 37). The controller decides; this module translates.

use std::collections::HashSet;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use chronik_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use chronik_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::catalog::{ApiError, ControllerReply, ControllerRequest, NewPartitions};

use super::context::Context;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let (topics, twice) = without_duplicates(request.topics);
    let names: Vec<Str> = topics.iter().map(|topic| topic.name.clone()).collect();
    let validate_only = request.validate_only;
    let change = ControllerRequest::CreatePartitions {
        topics,
        validate_only,
    };
    let outcomes = match context.router.control(change).await {
        Ok(ControllerReply::CreatePartitions(outcomes)) => outcomes,
        Ok(_) => unreachable!("the controller answers what it was asked"),
        Err(_) => {
            let gone =
                || ApiError::new(ErrorCode::NotController, "The controller is shutting down.");
            names.into_iter().map(|name| (name, Err(gone()))).collect()
        }
    };
    let duplicates = twice.into_iter().map(|name| {
        (
            name,
            Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name.",
            )),
        )
    });
    let results = outcomes
        .into_iter()
        .chain(duplicates)
        .map(|(name, outcome)| result(name, outcome));
    CreatePartitionsResponse {
        results: results.collect(),
        ..CreatePartitionsResponse::default()
    }
}

/// Topics named more than once are refused altogether (`ControllerApis#createPartitions`).
fn without_duplicates(topics: Vec<CreatePartitionsTopic>) -> (Vec<NewPartitions>, HashSet<Str>) {
    let mut seen = HashSet::new();
    let names = topics.iter().map(|topic| topic.name.detached());
    let twice: HashSet<Str> = names.filter(|name| !seen.insert(name.clone())).collect();
    let single = topics
        .into_iter()
        .filter(|topic| !twice.contains(&topic.name));
    let single = single.map(|topic| NewPartitions {
        name: topic.name.detached(),
        count: topic.count,
        assignments: topic.assignments.map(|given| {
            given
                .into_iter()
                .map(|assignment| assignment.broker_ids)
                .collect()
        }),
    });
    (single.collect(), twice)
}

fn result(name: Str, outcome: Result<(), ApiError>) -> CreatePartitionsTopicResult {
    let (error, error_message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        // Of this alone Kafka says nothing more.
        Err(error) if error.code == ErrorCode::UnknownTopicOrPartition => (error.code, None),
        Err(error) => (error.code, Some(error.message)),
    };
    CreatePartitionsTopicResult {
        name,
        error_code: error.as_i16(),
        error_message,
        ..CreatePartitionsTopicResult::default()
    }
}
