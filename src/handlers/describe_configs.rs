//! DescribeConfigs (key 32): settings of topics and brokers, with where they come from.
//!
//! Answered from the image (`ConfigHelper`).

use chronik_catalog::{ApiError, Image, check_topic_name};
use chronik_io::World;
use chronik_protocol::messages::describe_configs_request::DescribeConfigsResource;
use chronik_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use chronik_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Handled, Lengthy, Shape};
use super::beside::beside;
use super::call::Call;
use super::configs::{
    self, RESOURCE_BROKER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP, RESOURCE_TOPIC, Setting, Wanted,
};
use super::context::Context;
use super::distinct::{Keep, keep};
use super::pieces::{Pieces, Repeated};

impl Api for DescribeConfigsRequest {
    const SHAPE: Shape = Shape::Resources;

    /// Resources are answered one by one; the keys of each are a set.
    fn settle(&mut self) {
        for resource in &mut self.resources {
            if let Some(keys) = &mut resource.configuration_keys {
                keep(keys, Keep::First, Str::clone);
            }
        }
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| DescribeConfigsResult {
            error_code: error.as_i16(),
            error_message: None,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..DescribeConfigsResult::default()
        });
        DescribeConfigsResponse {
            results: results.collect(),
            ..DescribeConfigsResponse::default()
        }
    }
}

impl Lengthy for DescribeConfigsRequest {
    /// Answers. A resource that is named again and again is answered each time and looked at once.
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<DescribeConfigsResponse> {
        let image = context.image();
        let count = request.resources.len();
        let mut pieces = Pieces::of_array::<DescribeConfigsResponse>(context, call, true, count);
        let resources = request.resources.iter();
        let all: Vec<_> = resources.filter(|it| asks_for_all(it)).map(key).collect();
        let among = move || Repeated::among(all.into_iter());
        let mut repeated = beside(&context.world, call.is_large, among).await;
        for resource in &request.resources {
            if pieces.has_failed() {
                break;
            }
            if !asks_for_all(resource) {
                pieces.push(&describe(&image, &request, resource)).await;
                continue;
            }
            let key = key(resource);
            match repeated.made(&key) {
                Some(made) => pieces.push_encoded(&made).await,
                None => {
                    let described = describe(&image, &request, resource);
                    repeated.push(&mut pieces, &key, &described).await;
                }
            }
        }
        Handled::Reply(pieces.finish(call))
    }
}

/// No keys and an empty list of keys both ask for everything.
fn asks_for_all(resource: &DescribeConfigsResource) -> bool {
    resource
        .configuration_keys
        .as_ref()
        .is_none_or(Vec::is_empty)
}

fn key(resource: &DescribeConfigsResource) -> (i8, Str) {
    (resource.resource_type, resource.resource_name.clone())
}

fn describe(
    image: &Image,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> DescribeConfigsResult {
    let mut result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..DescribeConfigsResult::default()
    };
    let wanted = Wanted::of(resource.configuration_keys.as_deref());
    match settings(image, resource, &wanted) {
        Ok(settings) => {
            let settings = settings.into_iter();
            let synonyms = request.include_synonyms;
            result.configs = settings.map(|setting| entry(setting, synonyms)).collect();
        }
        Err(error) => {
            result.error_code = error.code.as_i16();
            result.error_message = Some(error.message);
        }
    }
    result
}

fn settings(
    image: &Image,
    resource: &DescribeConfigsResource,
    wanted: &Wanted<'_>,
) -> Result<Vec<Setting>, ApiError> {
    let name = &resource.resource_name;
    match resource.resource_type {
        RESOURCE_TOPIC => topic(image, name, wanted),
        RESOURCE_BROKER if name.is_empty() => Ok(configs::of_all_brokers(image, wanted)),
        RESOURCE_BROKER => broker(image, name, wanted),
        RESOURCE_GROUP if name.is_empty() => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Group name must not be empty",
        )),
        RESOURCE_GROUP => Ok(configs::of_group(image, name, wanted)),
        RESOURCE_CLIENT_METRICS if name.is_empty() => {
            let message = "Client metrics subscription name must not be empty";
            Err(ApiError::new(ErrorCode::InvalidRequest, message))
        }
        RESOURCE_CLIENT_METRICS => Ok(Vec::new()),
        other => {
            let message = format!("Unsupported resource type: {other}");
            Err(ApiError::new(ErrorCode::InvalidRequest, message))
        }
    }
}

fn topic(image: &Image, name: &str, wanted: &Wanted<'_>) -> Result<Vec<Setting>, ApiError> {
    if let Err(sentence) = check_topic_name(name) {
        return Err(ApiError::new(ErrorCode::InvalidTopicException, sentence));
    }
    let topic = image.topic(name).ok_or_else(|| {
        let message = "This server does not host this topic-partition.";
        ApiError::new(ErrorCode::UnknownTopicOrPartition, message)
    })?;
    Ok(configs::of_topic(image, topic, wanted))
}

fn broker(image: &Image, name: &str, wanted: &Wanted<'_>) -> Result<Vec<Setting>, ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    match name.parse::<i32>() {
        Ok(id) if id == image.node_id => Ok(configs::of_broker(image, wanted)),
        Ok(_) => invalid(format!(
            "Unexpected broker id, expected {} or empty string, but received {name}",
            image.node_id
        )),
        Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
    }
}

fn entry(setting: Setting, with_synonyms: bool) -> DescribeConfigsResourceResult {
    let synonyms = if with_synonyms {
        setting.synonyms
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult {
        name: setting.name,
        value: setting.value,
        read_only: setting.read_only,
        config_source: setting.source,
        is_sensitive: setting.is_sensitive,
        synonyms: synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name,
                value: synonym.value,
                source: synonym.source,
                ..DescribeConfigsSynonym::default()
            })
            .collect(),
        config_type: configs::type_number(setting.definition.kind),
        ..DescribeConfigsResourceResult::default()
    }
}
