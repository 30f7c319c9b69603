//! CreatePartitions (key 37). The controller decides; this module translates.

use std::collections::HashSet;

use chronik_catalog::{ApiError, NewPartitions};
use chronik_io::World;
use chronik_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use chronik_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use chronik_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::CreatePartitions;

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, keep};

/// Topics that the controller judges in one go.
const TOPICS_AT_ONCE: usize = 500;

impl Api for CreatePartitionsRequest {
    const SHAPE: Shape = Shape::Topics;

    /// Refused, once.
    fn settle(&mut self) {
        keep(&mut self.topics, Keep::Two, |topic| topic.name.clone());
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: error.as_i16(),
            ..CreatePartitionsTopicResult::default()
        });
        CreatePartitionsResponse {
            results: results.collect(),
            ..CreatePartitionsResponse::default()
        }
    }
}

impl Later for CreatePartitionsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> CreatePartitionsResponse {
        let (validate_only, is_large) = (request.validate_only, call.is_large);
        let single = move || without_duplicates(request.topics);
        let (topics, twice) = beside(&context.world, is_large, single).await;
        let mut outcomes = Vec::with_capacity(topics.len());
        let mut topics = topics.into_iter();
        // Each is judged by itself, so that the controller may have some at a time.
        while topics.len() > 0 {
            let some: Vec<NewPartitions> = topics.by_ref().take(TOPICS_AT_ONCE).collect();
            outcomes.extend(create(context, some, validate_only).await);
            if topics.len() > 0 {
                context.world.pause().await;
            }
        }
        beside(&context.world, is_large, move || response(outcomes, twice)).await
    }
}

async fn create<W: World>(
    context: &Context<W>,
    topics: Vec<NewPartitions>,
    validate_only: bool,
) -> Vec<(Str, Result<(), ApiError>)> {
    let names: Vec<Str> = topics.iter().map(|topic| topic.name.clone()).collect();
    let change = CreatePartitions {
        topics,
        validate_only,
    };
    match context.router.ask_designated(change).await.await {
        Ok(outcomes) => outcomes,
        Err(_) => {
            let gone =
                || ApiError::new(ErrorCode::NotController, "The controller is shutting down.");
            names.into_iter().map(|name| (name, Err(gone()))).collect()
        }
    }
}

fn response(
    outcomes: Vec<(Str, Result<(), ApiError>)>,
    twice: HashSet<Str>,
) -> CreatePartitionsResponse {
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
