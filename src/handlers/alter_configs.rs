//! AlterConfigs (key 33) and IncrementalAlterConfigs (key 44, KIP-339): one replaces all settings
//! of a resource, the other changes some. The controller decides; this module translates.

use std::collections::HashSet;

use chronik_catalog::{ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, Image};
use chronik_io::World;
use chronik_protocol::configs::Scope;
use chronik_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as ReplaceResult;
use chronik_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use chronik_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as ChangeResult;
use chronik_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::AlterConfigs;
use tracing::warn;

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::configs::{RESOURCE_BROKER, RESOURCE_TOPIC};
use super::context::Context;
use super::distinct::{Keep, keep};
use crate::config::states;

/// Resources that the controller judges in one go.
const RESOURCES_AT_ONCE: usize = 500;
/// Settings of one resource that are told of when they do nothing.
const NOTES_MAX: usize = 10;

/// One resource of a request, and what shall be done with it unless it is refused at once.
struct Asked {
    resource_type: i8,
    resource_name: Str,
    change: Result<ConfigChange, ApiError>,
}

impl Api for AlterConfigsRequest {
    const SHAPE: Shape = Shape::Resources;

    /// Resources and settings that are named twice are refused, each time (`ConfigAdminManager`).
    fn settle(&mut self) {
        for resource in &mut self.resources {
            keep(&mut resource.configs, Keep::Two, |config| {
                config.name.clone()
            });
        }
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> AlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| ReplaceResult {
            error_code: error.as_i16(),
            error_message: None,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..ReplaceResult::default()
        });
        AlterConfigsResponse {
            responses: responses.collect(),
            ..AlterConfigsResponse::default()
        }
    }
}

impl Later for AlterConfigsRequest {
    /// Answers AlterConfigs.
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> AlterConfigsResponse {
        let (image, validate_only) = (context.image(), request.validate_only);
        let asked = move || replacing(&image, request);
        let asked = beside(&context.world, call.is_large, asked).await;
        let outcomes = alter(context, call.is_large, asked, validate_only).await;
        let responses = outcomes.into_iter().map(|outcome| ReplaceResult {
            error_code: outcome.error.as_i16(),
            error_message: outcome.message,
            resource_type: outcome.resource_type,
            resource_name: outcome.resource_name,
            ..ReplaceResult::default()
        });
        AlterConfigsResponse {
            responses: responses.collect(),
            ..AlterConfigsResponse::default()
        }
    }
}

fn replacing(image: &Image, request: AlterConfigsRequest) -> Vec<Asked> {
    let asked = request.resources.into_iter().map(|resource| {
        let ops = resource
            .configs
            .into_iter()
            .map(|config| match config.value {
                Some(value) => Ok(op(&config.name, ConfigOpKind::Set, Some(&value))),
                None => Err(null_value(&config.name)),
            });
        let change = ops.collect::<Result<Vec<_>, _>>().and_then(|ops| {
            let resource = named(image, resource.resource_type, &resource.resource_name)?;
            Ok(ConfigChange {
                resource,
                ops,
                replace_all: true,
            })
        });
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name);
        Asked {
            resource_type,
            resource_name,
            change,
        }
    });
    asked.collect()
}

impl Api for IncrementalAlterConfigsRequest {
    const SHAPE: Shape = Shape::Resources;

    /// As AlterConfigs, whatever the operation.
    fn settle(&mut self) {
        for resource in &mut self.resources {
            keep(&mut resource.configs, Keep::Two, |config| {
                config.name.clone()
            });
        }
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> IncrementalAlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| ChangeResult {
            error_code: error.as_i16(),
            error_message: None,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..ChangeResult::default()
        });
        IncrementalAlterConfigsResponse {
            responses: responses.collect(),
            ..IncrementalAlterConfigsResponse::default()
        }
    }
}

impl Later for IncrementalAlterConfigsRequest {
    /// Answers IncrementalAlterConfigs.
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> IncrementalAlterConfigsResponse {
        let (image, validate_only) = (context.image(), request.validate_only);
        let asked = move || changing(&image, request);
        let asked = beside(&context.world, call.is_large, asked).await;
        let outcomes = alter(context, call.is_large, asked, validate_only).await;
        let responses = outcomes.into_iter().map(|outcome| ChangeResult {
            error_code: outcome.error.as_i16(),
            error_message: outcome.message,
            resource_type: outcome.resource_type,
            resource_name: outcome.resource_name,
            ..ChangeResult::default()
        });
        IncrementalAlterConfigsResponse {
            responses: responses.collect(),
            ..IncrementalAlterConfigsResponse::default()
        }
    }
}

fn changing(image: &Image, request: IncrementalAlterConfigsRequest) -> Vec<Asked> {
    let asked = request.resources.into_iter().map(|resource| {
        let change = ops(&resource.configs).and_then(|ops| {
            let resource = named(image, resource.resource_type, &resource.resource_name)?;
            Ok(ConfigChange {
                resource,
                ops,
                replace_all: false,
            })
        });
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name);
        Asked {
            resource_type,
            resource_name,
            change,
        }
    });
    asked.collect()
}

/// What became of one resource.
struct Outcome {
    resource_type: i8,
    resource_name: Str,
    error: ErrorCode,
    message: Option<Str>,
}

async fn alter<W: World>(
    context: &Context<W>,
    is_large: bool,
    asked: Vec<Asked>,
    validate_only: bool,
) -> Vec<Outcome> {
    let judged = beside(&context.world, is_large, move || judged(asked)).await;
    let (resources, refused) = judged;
    let mut results = Vec::with_capacity(resources.len());
    let mut resources = resources.into_iter();
    // Each is judged by itself, so that the controller may have some at a time.
    while resources.len() > 0 {
        let request = AlterConfigs {
            resources: resources.by_ref().take(RESOURCES_AT_ONCE).collect(),
            validate_only,
        };
        match context.router.ask_designated(request).await.await {
            Ok(some) => results.extend(some),
            Err(_) => break,
        }
        if resources.len() > 0 {
            context.world.pause().await;
        }
    }
    let outcomes = move || outcomes(refused, results, validate_only);
    beside(&context.world, is_large, outcomes).await
}

/// Resource and name, and what is to be said of a change or why it is refused at once.
type Judged = (i8, Str, Result<Vec<String>, ApiError>);

/// What the controller is asked, and all that was asked.
fn judged(asked: Vec<Asked>) -> (Vec<ConfigChange>, Vec<Judged>) {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for one in &asked {
        let key = (one.resource_type, one.resource_name.clone());
        if !seen.insert(key.clone()) {
            twice.insert(key);
        }
    }
    let mut resources = Vec::new();
    let mut refused = Vec::with_capacity(asked.len());
    for one in asked {
        let change = if twice.contains(&(one.resource_type, one.resource_name.clone())) {
            let message = "Each resource must appear at most once.";
            Err(ApiError::new(ErrorCode::InvalidRequest, message))
        } else {
            one.change
        };
        refused.push((
            one.resource_type,
            one.resource_name,
            change.as_ref().map(notes_of).map_err(ApiError::clone),
        ));
        resources.extend(change);
    }
    (resources, refused)
}

fn outcomes(
    refused: Vec<Judged>,
    results: Vec<Result<(), ApiError>>,
    validate_only: bool,
) -> Vec<Outcome> {
    let mut results = results.into_iter();
    let outcomes = refused
        .into_iter()
        .map(|(resource_type, resource_name, refused)| {
            let result = refused.and_then(|notes| {
                let result = results.next();
                result
                    .unwrap_or_else(|| Err(shutting_down()))
                    .map(|()| notes)
            });
            let (error, message) = match result {
                Ok(notes) => {
                    let told = notes.iter().filter(|_| !validate_only);
                    told.for_each(|note| warn!(%resource_name, "set at run time: {note}"));
                    (ErrorCode::None, None)
                }
                Err(error) => (error.code, Some(error.message)),
            };
            Outcome {
                resource_type,
                resource_name,
                error,
                message,
            }
        });
    outcomes.collect()
}

fn shutting_down() -> ApiError {
    ApiError::new(ErrorCode::NotController, "The controller is shutting down.")
}

/// What is to be said of a change, if it comes about: settings that do nothing here.
fn notes_of(change: &ConfigChange) -> Vec<String> {
    let scope = match &change.resource {
        ConfigResource::Topic(_) => Scope::Topic,
        ConfigResource::Broker(_) => Scope::Broker,
        ConfigResource::Other(..) => Scope::Group,
    };
    let set = change
        .ops
        .iter()
        .filter(|op| op.kind != ConfigOpKind::Delete);
    let notes = set.filter_map(|op| states::note(scope, &op.name, op.value.as_deref()?));
    notes.take(NOTES_MAX).collect()
}

/// The resource a request means.
fn named(image: &Image, resource_type: i8, name: &Str) -> Result<ConfigResource, ApiError> {
    match resource_type {
        RESOURCE_TOPIC => Ok(ConfigResource::Topic(name.detached())),
        RESOURCE_BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        RESOURCE_BROKER => match name.parse::<i32>() {
            Ok(id) if id == image.node_id => Ok(ConfigResource::Broker(Some(id))),
            Ok(_) => {
                let message = format!(
                    "Unexpected broker id, expected {}, but received {name}",
                    image.node_id
                );
                Err(ApiError::new(ErrorCode::InvalidRequest, message))
            }
            Err(_) => {
                let message = format!("Node id must be an integer, but it is: {name}");
                Err(ApiError::new(ErrorCode::InvalidRequest, message))
            }
        },
        other => Ok(ConfigResource::Other(other, name.detached())),
    }
}

fn ops(configs: &[AlterableConfig]) -> Result<Vec<ConfigOp>, ApiError> {
    let mut seen = HashSet::new();
    let mut ops = Vec::with_capacity(configs.len());
    for config in configs {
        if !seen.insert(&config.name) {
            let message = "Error due to duplicate config keys";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        let kind = match config.config_operation {
            0 => ConfigOpKind::Set,
            1 => ConfigOpKind::Delete,
            2 => ConfigOpKind::Append,
            3 => ConfigOpKind::Subtract,
            other => {
                let message = format!("Unknown operation type {other} for config {}", config.name);
                return Err(ApiError::new(ErrorCode::InvalidRequest, message));
            }
        };
        if kind != ConfigOpKind::Delete && config.value.is_none() {
            return Err(null_value(&config.name));
        }
        ops.push(op(&config.name, kind, config.value.as_ref()));
    }
    Ok(ops)
}

/// Strings of a request must not keep its frame in memory once they are settings.
fn op(name: &Str, kind: ConfigOpKind, value: Option<&Str>) -> ConfigOp {
    ConfigOp {
        name: name.detached(),
        kind,
        value: value.map(Str::detached),
    }
}

fn null_value(name: &Str) -> ApiError {
    let message = format!("Null value not supported for : {name}");
    ApiError::new(ErrorCode::InvalidRequest, message)
}
