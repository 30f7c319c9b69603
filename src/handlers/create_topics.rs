//! CreateTopics (key 19). The controller decides; this module translates.

use std::collections::HashSet;

use chronik_catalog::{ApiError, CreatedTopic, Image, NewTopic, Topic};
use chronik_io::World;
use chronik_protocol::configs::Scope;
use chronik_protocol::messages::create_topics_request::CreatableTopic;
use chronik_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use chronik_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::CreateTopics;
use tracing::warn;

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::configs;
use super::context::Context;
use super::distinct::{Keep, keep};
use super::slice::Slice;
use crate::config::states;

/// From this version on the response tells partitions, replicas and settings (KIP-525).
const DETAILS_VERSION: i16 = 5;

impl Api for CreateTopicsRequest {
    const SHAPE: Shape = Shape::Topics;

    /// Topics that are named twice are refused, once. Of a setting the last counts; partitions that
    /// are assigned twice are refused.
    fn settle(&mut self) {
        keep(&mut self.topics, Keep::Two, |topic| topic.name.clone());
        for topic in &mut self.topics {
            keep(&mut topic.configs, Keep::Last, |config| config.name.clone());
            keep(&mut topic.assignments, Keep::Two, |given| {
                given.partition_index
            });
        }
    }

    fn refused(&self, call: &Call, error: ErrorCode) -> CreateTopicsResponse {
        let topics = self.topics.iter();
        CreateTopicsResponse {
            topics: topics
                .map(|topic| refused(call.version, topic.name.clone(), error, None))
                .collect(),
            ..CreateTopicsResponse::default()
        }
    }
}

impl Later for CreateTopicsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> CreateTopicsResponse {
        let validate_only = request.validate_only;
        let new_topics = move || {
            let names = request.topics.iter().map(|topic| topic.name.clone());
            let names: Vec<Str> = names.collect();
            (names, request.topics.into_iter().map(new_topic).collect())
        };
        let (names, topics) = beside(&context.world, call.is_large, new_topics).await;
        let change = CreateTopics {
            topics,
            validate_only,
        };
        let created = match context.router.ask_designated(change).await.await {
            Ok(created) => created,
            Err(_) => names.into_iter().map(gone).collect(),
        };
        let image = context.image();
        let made = created
            .iter()
            .filter_map(|created| created.result.as_ref().ok());
        for topic in made.filter(|_| !validate_only) {
            let notes = topic
                .configs
                .iter()
                .filter_map(|(name, value)| states::note(Scope::Topic, name, value));
            notes.for_each(|note| warn!(topic = %topic.name, "{note}"));
        }
        // A topic that is named twice was refused twice and is told of once.
        let mut told = HashSet::new();
        let mut slice = Slice::begin(&context.world);
        let mut topics = Vec::with_capacity(created.len());
        for created in created {
            if told.insert(created.name.clone()) {
                topics.push(result(&image, call.version, created));
            }
            slice.breathe(&context.world).await;
        }
        CreateTopicsResponse {
            topics,
            ..CreateTopicsResponse::default()
        }
    }
}

fn gone(name: Str) -> CreatedTopic {
    let error = ApiError::new(ErrorCode::NotController, "The controller is shutting down.");
    CreatedTopic {
        name,
        result: Err(error),
    }
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.into_iter();
    NewTopic {
        name: topic.name.detached(),
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments
            .map(|given| (given.partition_index, given.broker_ids))
            .collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| {
                (
                    config.name.detached(),
                    config.value.as_ref().map(Str::detached),
                )
            })
            .collect(),
    }
}

fn result(image: &Image, version: i16, created: CreatedTopic) -> CreatableTopicResult {
    let CreatedTopic { name, result } = created;
    match result {
        Ok(topic) => CreatableTopicResult {
            name,
            topic_id: topic.id,
            num_partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            replication_factor: replication_factor(&topic),
            configs: (version >= DETAILS_VERSION).then(|| settings(image, &topic)),
            ..CreatableTopicResult::default()
        },
        Err(error) => refused(version, name, error.code, Some(error.message)),
    }
}

fn refused(
    version: i16,
    name: Str,
    error: ErrorCode,
    message: Option<Str>,
) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.as_i16(),
        error_message: message,
        configs: (version >= DETAILS_VERSION).then(Vec::new),
        ..CreatableTopicResult::default()
    }
}

fn replication_factor(topic: &Topic) -> i16 {
    let replicas = topic
        .partitions
        .first()
        .map_or(0, |partition| partition.replicas.len());
    i16::try_from(replicas).unwrap_or(i16::MAX)
}

fn settings(image: &Image, topic: &Topic) -> Vec<CreatableTopicConfigs> {
    let all = configs::of_topic(image, topic, &configs::Wanted::ALL).into_iter();
    all.map(|setting| CreatableTopicConfigs {
        name: setting.name,
        value: setting.value,
        read_only: setting.read_only,
        config_source: setting.source,
        is_sensitive: setting.is_sensitive,
        ..CreatableTopicConfigs::default()
    })
    .collect()
}
