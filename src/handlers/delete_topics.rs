//! DeleteTopics (key 20). The controller decides; this module translates.

use std::cell::Cell;
use std::collections::HashSet;

use chronik_catalog::{ApiError, Image, TopicRef};
use chronik_io::World;
use chronik_protocol::messages::delete_topics_response::DeletableTopicResult;
use chronik_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::questions::DeleteTopics;

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, keep};

/// Topics that the controller deletes in one go.
const TOPICS_AT_ONCE: usize = 500;
/// From this version on topics are in a list of structures and may be named by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 6;

impl Api for DeleteTopicsRequest {
    const SHAPE: Shape = Shape::Topics;

    /// Refused, once.
    fn settle(&mut self) {
        keep(&mut self.topic_names, Keep::Two, Str::clone);
        // Those that name nothing are refused each for itself.
        let nameless = Cell::new(0_usize);
        keep(&mut self.topics, Keep::Two, |topic| {
            if topic.name.is_none() && topic.topic_id.is_zero() {
                nameless.set(nameless.get() + 1);
                return (None, Uuid::ZERO, nameless.get());
            }
            (topic.name.clone(), topic.topic_id, 0)
        });
    }

    fn refused(&self, call: &Call, error: ErrorCode) -> DeleteTopicsResponse {
        let topics = asked(call.version, self).into_iter();
        let responses = topics.map(|(name, topic_id)| DeletableTopicResult {
            name,
            topic_id,
            error_code: error.as_i16(),
            ..DeletableTopicResult::default()
        });
        DeleteTopicsResponse {
            responses: responses.collect(),
            ..DeleteTopicsResponse::default()
        }
    }
}

impl Later for DeleteTopicsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DeleteTopicsResponse {
        let (image, version) = (context.image(), call.version);
        let may_delete = context.config.delete_topic_enable;
        let plan = move || plan(&image, version, may_delete, &request);
        let (plan, topics) = beside(&context.world, call.is_large, plan).await;
        let mut deleted = Vec::with_capacity(topics.len());
        let mut topics = topics.into_iter();
        // None is named twice any more, so that the controller may have some at a time.
        while topics.len() > 0 {
            let some = topics.by_ref().take(TOPICS_AT_ONCE).collect();
            let change = DeleteTopics { topics: some };
            match context.router.ask_designated(change).await.await {
                Ok(some) => deleted.extend(some),
                Err(_) => break,
            }
            if topics.len() > 0 {
                context.world.pause().await;
            }
        }
        beside(&context.world, call.is_large, move || told(plan, deleted)).await
    }
}

/// What was asked, why it is refused before the controller is asked, and what was named twice.
type Plan = (Vec<Asked>, Vec<Option<ApiError>>, HashSet<Asked>);

fn plan(
    image: &Image,
    version: i16,
    may_delete: bool,
    request: &DeleteTopicsRequest,
) -> (Plan, Vec<TopicRef>) {
    let (asked, mut twice) = without_duplicates(asked(version, request));
    let asked = without_aliases(image, asked, &mut twice);
    let refused: Vec<Option<ApiError>> = asked
        .iter()
        .map(|(name, id)| refusal(may_delete, version, name.as_ref(), *id))
        .collect();
    let topics = asked
        .iter()
        .zip(&refused)
        .filter(|(_, refused)| refused.is_none())
        .map(|((name, id), _)| match name {
            Some(name) => TopicRef::Name(name.detached()),
            None => TopicRef::Id(*id),
        })
        .collect();
    ((asked, refused, twice), topics)
}

fn told(
    (asked, refused, twice): Plan,
    deleted: Vec<(Str, Uuid, Result<(), ApiError>)>,
) -> DeleteTopicsResponse {
    let mut deleted = deleted.into_iter();
    let responses = asked.into_iter().zip(refused).map(|((name, id), refused)| {
        let (told_name, told_id, result) = match refused {
            Some(error) => (name, id, Err(error)),
            None => deleted.next().map_or_else(
                || (name.clone(), id, Err(stopping())),
                |(told, id, result)| (Some(told).filter(|told| !told.is_empty()), id, result),
            ),
        };
        response(told_name, told_id, result)
    });
    let duplicates = twice.into_iter().map(|(name, id)| {
        let error = ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
        response(name, id, Err(error))
    });
    DeleteTopicsResponse {
        responses: responses.chain(duplicates).collect(),
        ..DeleteTopicsResponse::default()
    }
}

/// The topics of a request, by name or by id.
fn asked(version: i16, request: &DeleteTopicsRequest) -> Vec<Asked> {
    if version >= TOPIC_ID_VERSION {
        request
            .topics
            .iter()
            .map(|topic| (topic.name.clone(), topic.topic_id))
            .collect()
    } else {
        request
            .topic_names
            .iter()
            .map(|name| (Some(name.clone()), Uuid::ZERO))
            .collect()
    }
}

/// A topic by name, by id, or wrongly by both or neither.
type Asked = (Option<Str>, Uuid);

/// Topics that are named twice are refused altogether, and answered once.
fn without_duplicates(asked: Vec<Asked>) -> (Vec<Asked>, HashSet<Asked>) {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &asked {
        let is_named = topic.0.is_some() || !topic.1.is_zero();
        if is_named && !seen.insert(topic) {
            twice.insert(topic.clone());
        }
    }
    let single = asked
        .iter()
        .filter(|topic| !twice.contains(*topic))
        .cloned()
        .collect();
    (single, twice)
}

/// A topic by its name and by its id is the same topic twice, refused and answered once.
fn without_aliases(image: &Image, asked: Vec<Asked>, twice: &mut HashSet<Asked>) -> Vec<Asked> {
    let by_id = |asked: &Asked| asked.0.is_none() && !asked.1.is_zero();
    let ids: HashSet<Uuid> = asked.iter().filter(|it| by_id(it)).map(|it| it.1).collect();
    let mut aliased = HashSet::new();
    for (name, id) in &asked {
        let topic = name.as_ref().filter(|_| id.is_zero());
        let topic = topic.and_then(|name| image.topic(name));
        if let Some(topic) = topic.filter(|topic| ids.contains(&topic.id)) {
            aliased.insert(topic.id);
            twice.insert((Some(topic.name.clone()), topic.id));
        }
    }
    let is_single = |(name, id): &Asked| match name {
        None => !aliased.contains(id),
        Some(name) if id.is_zero() => {
            let topic = image.topic(name);
            topic.is_none_or(|topic| !aliased.contains(&topic.id))
        }
        Some(_) => true,
    };
    asked.into_iter().filter(is_single).collect()
}

/// What is refused before the controller is asked (`ControllerApis#deleteTopics`).
fn refusal(may_delete: bool, version: i16, name: Option<&Str>, id: Uuid) -> Option<ApiError> {
    if !may_delete {
        // Clients before version 3 know no code of its own.
        let code = if version < 3 {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TopicDeletionDisabled
        };
        return Some(ApiError::new(code, "Topic deletion is disabled."));
    }
    match (name, id.is_zero()) {
        (None, true) => Some(ApiError::new(
            ErrorCode::InvalidRequest,
            "Neither topic name nor id were specified.",
        )),
        (Some(_), false) => Some(ApiError::new(
            ErrorCode::InvalidRequest,
            "You may not specify both topic name and topic id.",
        )),
        _ => None,
    }
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::NotController, "The controller is shutting down.")
}

fn response(
    name: Option<Str>,
    topic_id: Uuid,
    result: Result<(), ApiError>,
) -> DeletableTopicResult {
    let (error_code, error_message) = match result {
        Ok(()) => (ErrorCode::None, None),
        Err(error) => (error.code, Some(error.message)),
    };
    DeletableTopicResult {
        name,
        topic_id,
        error_code: error_code.as_i16(),
        error_message,
        ..DeletableTopicResult::default()
    }
}
