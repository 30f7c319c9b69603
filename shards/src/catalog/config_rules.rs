//! Which settings topics and brokers may be given, beyond what each value must look like.
//!
//! Pure; runs on the designated shard. The sentences are Kafka's (`LogConfig#validate`,
//! `ConfigDef`, `DynamicBrokerConfig`).

use std::collections::BTreeMap;

use chronik_protocol::configs::{self, ConfigType, Scope};
use chronik_protocol::{ErrorCode, Str};

use super::change::ApiError;
use super::topic_config::{DURABILITY, broker_synonyms};

fn invalid_config(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, message)
}

/// Checks all settings of one topic together.
///
/// # Errors
/// `INVALID_CONFIG` for an unknown name, a value out of its range, or values that contradict each
/// other.
pub(super) fn check_topic_configs(configs: &BTreeMap<Str, Str>) -> Result<(), ApiError> {
    for (name, value) in configs {
        if &**name == DURABILITY {
            check_durability(value).map_err(invalid_config)?;
            continue;
        }
        let Some(definition) = configs::topic(name) else {
            return Err(invalid_config(format!("Unknown topic config name: {name}")));
        };
        definition
            .validate(value)
            .map_err(|error| invalid_config(error.to_string()))?;
    }
    check_lags(configs)?;
    if configs
        .get("remote.storage.enable")
        .is_some_and(|value| value.trim() == "true")
    {
        return Err(invalid_config(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage."
                .to_owned(),
        ));
    }
    Ok(())
}

/// A topic never compacts records before it may.
fn check_lags(configs: &BTreeMap<Str, Str>) -> Result<(), ApiError> {
    let number = |name: &str| {
        configs
            .get(name)
            .and_then(|value| value.trim().parse::<i64>().ok())
    };
    let least = number("min.compaction.lag.ms").unwrap_or(0);
    let greatest = number("max.compaction.lag.ms").unwrap_or(i64::MAX);
    if least > greatest {
        return Err(invalid_config(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > \
             max.compaction.lag.ms ({greatest})"
        )));
    }
    Ok(())
}

fn check_durability(value: &str) -> Result<(), String> {
    match value {
        "disk" | "process" => Ok(()),
        other => Err(format!(
            "Invalid value {other} for configuration {DURABILITY}: String must be one of: disk, \
             process"
        )),
    }
}

/// Whether a topic's setting is a list, so that values can be appended and subtracted.
pub(super) fn is_list(scope: Scope, name: &str) -> bool {
    configs::find(scope, name).is_some_and(|definition| definition.kind == ConfigType::List)
}

/// Broker settings besides those behind topic settings that Kafka lets change at run time and for
/// every broker (`DynamicBrokerConfig#ALL_DYNAMIC_CONFIGS`).
const DYNAMIC: &[&str] = &[
    "background.threads",
    "compression.type",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.threads",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "message.max.bytes",
    "metric.reporters",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "producer.id.expiration.ms",
    "remote.fetch.max.wait.ms",
    "remote.log.manager.copy.max.bytes.per.second",
    "remote.log.manager.fetch.max.bytes.per.second",
    "remote.log.index.file.cache.total.size.bytes",
    "transaction.partition.verification.enable",
    DURABILITY,
];

/// Whether a broker's setting can change at run time. Names Kafka does not know are kept as they
/// are, for plug-ins.
pub fn is_dynamic(name: &str) -> bool {
    let behind_topic = configs::all(Scope::Topic).any(|definition| {
        // Only the strongest synonym is dynamic: log.retention.ms is, log.retention.hours is not.
        broker_synonyms(definition.name)
            .first()
            .is_some_and(|(first, _)| *first == name)
    });
    behind_topic
        || is_per_broker(name)
        || DYNAMIC.contains(&name)
        || configs::broker(name).is_none()
}

/// Settings that each broker has its own of: listeners and their security
/// (`DynamicBrokerConfig#PER_BROKER_CONFIGS`; `advertised.listeners` is fixed since Kafka 4.0).
fn is_per_broker(name: &str) -> bool {
    name.starts_with("listener.name.")
        || name.starts_with("ssl.")
        || matches!(name, "listeners" | "listener.security.protocol.map")
}

/// Checks what is about to be set on one broker, or on all (`broker_id` is then `None`).
///
/// # Errors
/// `INVALID_REQUEST` for settings that need a restart, that cannot be the same for all, and for
/// values out of their range (`DynamicBrokerConfig#validate`).
pub(super) fn check_broker_configs(
    configs: &BTreeMap<Str, Str>,
    broker_id: Option<i32>,
) -> Result<(), ApiError> {
    let fixed: Vec<&str> = configs
        .keys()
        .map(|name| &**name)
        .filter(|n| !is_dynamic(n))
        .collect();
    if !fixed.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!(
                "Cannot update these configs dynamically: [{}]",
                fixed.join(", ")
            ),
        ));
    }
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidRequest, message);
    let own: Vec<&str> = configs
        .keys()
        .map(|name| &**name)
        .filter(|name| is_per_broker(name))
        .collect();
    if broker_id.is_none() && !own.is_empty() {
        return Err(invalid(format!(
            "Cannot update these configs at default cluster level, broker id must be specified: \
             [{}]",
            own.join(", ")
        )));
    }
    for (name, value) in configs {
        if &**name == DURABILITY {
            check_durability(value).map_err(invalid)?;
        } else if let Some(definition) = configs::broker(name) {
            definition
                .validate(value)
                .map_err(|error| invalid(error.to_string()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kafka 4.3.1 answers DescribeConfigs of a broker and refuses to alter it.
    #[test]
    fn listeners_change_at_run_time_and_what_is_advertised_does_not() {
        assert!(is_dynamic("listeners"));
        assert!(is_dynamic("listener.security.protocol.map"));
        assert!(!is_dynamic("advertised.listeners"));
    }
}
