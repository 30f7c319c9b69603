//! AlterConfigs and IncrementalAlterConfigs: judged as by Kafka's `ConfigurationControlManager`,
//! turned into metadata records.
//!
//! Pure; runs on the designated shard.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chronik_protocol::configs::{self, Scope};
use chronik_protocol::messages::ConfigRecord;
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str};

use super::change::{ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource};
use super::config_rules::{BrokerChange, check_topic_configs, is_list};
use super::group_configs::check_group_configs;
use super::image::Image;
use super::names::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
use super::topic_name::check_topic_name;

/// `ConfigResource.Type.CLIENT_METRICS`: known, and not served.
const RESOURCE_METRICS: i8 = 16;

/// Judges each resource by itself; a resource named twice is refused both times.
pub(super) fn plan_configs(
    image: &Image,
    resources: &[ConfigChange],
) -> Vec<Result<Vec<MetadataRecord>, ApiError>> {
    let mut seen = HashSet::new();
    let twice: HashSet<&ConfigResource> = resources
        .iter()
        .map(|change| &change.resource)
        .filter(|resource| !seen.insert(*resource))
        .collect();
    resources
        .iter()
        .map(|change| {
            if twice.contains(&change.resource) {
                return Err(ApiError::new(
                    ErrorCode::InvalidRequest,
                    "Each resource must appear at most once.",
                ));
            }
            plan_one(image, change)
        })
        .collect()
}

fn plan_one(image: &Image, change: &ConfigChange) -> Result<Vec<MetadataRecord>, ApiError> {
    check_shape(&change.ops)?;
    check_kind(&change.resource)?;
    let current = current_configs(image, &change.resource)?;
    let mut next = if change.replace_all {
        BTreeMap::new()
    } else {
        current.clone()
    };
    let mut touched = BTreeSet::new();
    for op in &change.ops {
        touched.insert(op.name.clone());
        match new_value(image, &change.resource, &current, op)? {
            Some(value) => next.insert(op.name.detached(), value),
            None => next.remove(&op.name),
        };
    }
    touched.extend(
        current
            .keys()
            .filter(|name| !next.contains_key(*name))
            .cloned(),
    );
    match &change.resource {
        ConfigResource::Topic(name) => {
            check_topic(name)?;
            check_topic_configs(&next)?;
            check_exists(image, name)?;
        }
        ConfigResource::Broker(id) => {
            let change = BrokerChange {
                broker_id: *id,
                touched: &touched,
                next: &next,
            };
            change.check(image)?;
        }
        ConfigResource::Other(kind, name) => check_other(image, *kind, name, &next)?,
    }
    Ok(difference(&change.resource, &current, &next))
}

/// `ConfigAdminManager#preprocess`.
fn check_shape(ops: &[ConfigOp]) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    let nulls: Vec<&str> = ops
        .iter()
        .filter(|op| op.kind != ConfigOpKind::Delete && op.value.is_none())
        .map(|op| &*op.name)
        .collect();
    if !nulls.is_empty() {
        return invalid(format!(
            "Null value not supported for : {}",
            nulls.join(",")
        ));
    }
    let mut names = HashSet::new();
    if !ops.iter().all(|op| names.insert(&op.name)) {
        return invalid("Error due to duplicate config keys".to_owned());
    }
    Ok(())
}

/// Kinds that have no settings are refused before anything is asked of the settings.
fn check_kind(resource: &ConfigResource) -> Result<(), ApiError> {
    match resource {
        ConfigResource::Other(kind, _) if ![RESOURCE_GROUP, RESOURCE_METRICS].contains(kind) => {
            Err(unknown_kind(*kind))
        }
        _ => Ok(()),
    }
}

fn unknown_kind(kind: i8) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidRequest,
        format!("Unknown resource type {kind}"),
    )
}

fn check_topic(name: &Str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Default topic resources are not allowed.",
        ));
    }
    check_topic_name(name)
        .map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))
}

/// Asked last, as in Kafka: a setting that no topic can have is told of first.
fn check_exists(image: &Image, name: &Str) -> Result<(), ApiError> {
    match image.topic(name) {
        Some(_) => Ok(()),
        None => Err(ApiError::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("The topic '{name}' does not exist."),
        )),
    }
}

fn current_configs(
    image: &Image,
    resource: &ConfigResource,
) -> Result<BTreeMap<Str, Str>, ApiError> {
    match resource {
        ConfigResource::Topic(name) => {
            let configs = image.topic(name).map(|topic| topic.configs.clone());
            Ok(configs.unwrap_or_default())
        }
        ConfigResource::Broker(None) => Ok(image.broker_configs.dynamic_default.clone()),
        ConfigResource::Broker(Some(id)) if *id < 0 => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Invalid negative broker ID.",
        )),
        ConfigResource::Broker(Some(id)) => Ok(image.broker_configs.dynamic_broker(*id).clone()),
        ConfigResource::Other(kind, name) => Ok(image
            .other_configs(*kind, name)
            .cloned()
            .unwrap_or_default()),
    }
}

/// The value after one operation; `None` unsets.
fn new_value(
    image: &Image,
    resource: &ConfigResource,
    current: &BTreeMap<Str, Str>,
    op: &ConfigOp,
) -> Result<Option<Str>, ApiError> {
    let given = op.value.clone().unwrap_or_default();
    let verb = match op.kind {
        ConfigOpKind::Set => return Ok(Some(given.detached())),
        ConfigOpKind::Delete => return Ok(None),
        ConfigOpKind::Append => "APPEND",
        ConfigOpKind::Subtract => "SUBTRACT",
    };
    let scope = match resource {
        ConfigResource::Topic(_) => Some(Scope::Topic),
        ConfigResource::Broker(_) => Some(Scope::Broker),
        ConfigResource::Other(RESOURCE_GROUP, _) => Some(Scope::Group),
        ConfigResource::Other(..) => None,
    };
    if scope == Some(Scope::Broker) && configs::broker(&op.name).is_none() {
        return Err(ApiError::new(
            ErrorCode::InvalidConfig,
            format!("Unknown config name: {}", op.name),
        ));
    }
    if !scope.is_some_and(|scope| is_list(scope, &op.name)) {
        return Err(ApiError::new(
            ErrorCode::InvalidConfig,
            format!(
                "Can't {verb} to key {} because its type is not LIST.",
                op.name
            ),
        ));
    }
    let old = match current.get(&op.name) {
        Some(value) => value.clone(),
        None => inherited(image, resource, &op.name),
    };
    // A list may be as long as a request: each of its items is looked up once.
    let mut items: Vec<&str> = old
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect();
    if op.kind == ConfigOpKind::Subtract {
        let gone: HashSet<&str> = given.split(',').map(str::trim).collect();
        items.retain(|known| !gone.contains(known));
    } else {
        let mut known: HashSet<&str> = items.iter().copied().collect();
        let more = given.split(',').map(str::trim);
        items.extend(more.filter(|item| known.insert(item)));
    }
    Ok(Some(Str::from(items.join(","))))
}

/// What a list is when the resource itself says nothing: appending extends that.
fn inherited(image: &Image, resource: &ConfigResource, name: &str) -> Str {
    let none = BTreeMap::new();
    let (found, definition) = match resource {
        ConfigResource::Topic(_) => (image.layers(&none).effective(name), configs::topic(name)),
        _ => (
            image.broker_configs.static_broker.get(name).cloned(),
            configs::broker(name),
        ),
    };
    let default = || definition.and_then(|definition| definition.default);
    found
        .or_else(|| default().map(Str::from))
        .unwrap_or_default()
}

fn check_other(
    image: &Image,
    kind: i8,
    name: &str,
    next: &BTreeMap<Str, Str>,
) -> Result<(), ApiError> {
    if kind != RESOURCE_GROUP {
        return Err(unknown_kind(kind));
    }
    if name.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Default group resources are not allowed.",
        ));
    }
    check_group_configs(next, &image.broker_settings())
}

fn difference(
    resource: &ConfigResource,
    current: &BTreeMap<Str, Str>,
    next: &BTreeMap<Str, Str>,
) -> Vec<MetadataRecord> {
    let (resource_type, resource_name) = match resource {
        ConfigResource::Topic(name) => (RESOURCE_TOPIC, name.detached()),
        ConfigResource::Broker(None) => (RESOURCE_BROKER, Str::default()),
        ConfigResource::Broker(Some(id)) => (RESOURCE_BROKER, Str::from(id.to_string())),
        ConfigResource::Other(kind, name) => (*kind, name.detached()),
    };
    let record = |name: &Str, value: Option<Str>| {
        MetadataRecord::Config(ConfigRecord {
            resource_type,
            resource_name: resource_name.clone(),
            name: name.clone(),
            value,
            ..ConfigRecord::default()
        })
    };
    let removed = current
        .keys()
        .filter(|name| !next.contains_key(*name))
        .map(|n| record(n, None));
    let set = next
        .iter()
        .filter(|(name, value)| current.get(*name) != Some(*value))
        .map(|(name, value)| record(name, Some(value.clone())));
    removed.chain(set).collect()
}
