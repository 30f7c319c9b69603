//! Settings of groups: what may be set, within which bounds of the broker, and what then holds.
//!
//! Pure; runs on the designated shard. The sentences are Kafka's (`GroupConfig#validate`). Bounds are
//! broker settings named after the group's: `group.consumer.min.session.timeout.ms` is the least
//! `consumer.session.timeout.ms`.

use std::collections::BTreeMap;

use chronik_protocol::configs::keys::{broker, group};
use chronik_protocol::configs::{self, ConfigType, Scope};
use chronik_protocol::{ErrorCode, Str};

use super::change::ApiError;

/// Whether a group's bound stands under another name: `group.streams.max.standby.replicas`.
const BOUND_BY_ANOTHER_NAME: (&str, &str) = (
    group::STREAMS_NUM_STANDBY_REPLICAS.name(),
    broker::GROUP_STREAMS_MAX_STANDBY_REPLICAS.name(),
);
/// A member must be able to miss a heartbeat: the first of each pair is greater than the second.
const GREATER: [(&str, &str); 3] = [
    (
        group::CONSUMER_SESSION_TIMEOUT_MS.name(),
        group::CONSUMER_HEARTBEAT_INTERVAL_MS.name(),
    ),
    (
        group::SHARE_SESSION_TIMEOUT_MS.name(),
        group::SHARE_HEARTBEAT_INTERVAL_MS.name(),
    ),
    (
        group::STREAMS_SESSION_TIMEOUT_MS.name(),
        group::STREAMS_HEARTBEAT_INTERVAL_MS.name(),
    ),
];

/// The broker's setting behind a group's: what holds for groups that have none of their own.
pub fn broker_setting_behind(group_setting: &str) -> Option<&'static configs::ConfigDef> {
    configs::broker(&format!("group.{group_setting}"))
}

/// The broker's setting that bounds a group's; `side` is `min` or `max`.
fn bound(group_setting: &str, side: &str) -> Option<&'static configs::ConfigDef> {
    let (setting, name) = BOUND_BY_ANOTHER_NAME;
    if group_setting == setting && side == "max" {
        return configs::broker(name);
    }
    let (kind, rest) = group_setting.split_once('.')?;
    configs::broker(&format!("group.{kind}.{side}.{rest}"))
}

fn number(definition: &configs::ConfigDef, given: &BTreeMap<Str, Str>) -> Option<i64> {
    let given = given.get(definition.name).map(|value| value.trim());
    given.or(definition.default)?.parse().ok()
}

/// Checks all settings of one group together, under the broker's own.
///
/// # Errors
/// `INVALID_CONFIG` for an unknown name, a value out of its range or out of the broker's bounds, and
/// for values that contradict each other.
pub(super) fn check_group_configs(
    own: &BTreeMap<Str, Str>,
    broker: &BTreeMap<Str, Str>,
) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidConfig, message));
    for (setting, value) in own {
        let Some(definition) = configs::group(setting) else {
            return invalid(format!("Unknown group config name: {setting}"));
        };
        if let Err(error) = definition.validate(value) {
            return invalid(error.to_string());
        }
    }
    for definition in configs::all(Scope::Group) {
        let (name, value) = (definition.name, own.get(definition.name));
        let Some(value) = value.and_then(|value| value.trim().parse::<i64>().ok()) else {
            continue;
        };
        if definition.kind != ConfigType::Int {
            continue;
        }
        for (side, relation) in [("min", "greater"), ("max", "less")] {
            let Some(bound) = bound(name, side) else {
                continue;
            };
            let limit = number(bound, broker);
            let beyond = limit.is_some_and(|limit| match side {
                "min" => value < limit,
                _ => value > limit,
            });
            if beyond {
                return invalid(format!(
                    "{name} must be {relation} than or equal to {}",
                    bound.name
                ));
            }
        }
    }
    let effective = |name: &str| {
        let own = own.get(name).and_then(|value| value.trim().parse().ok());
        own.or_else(|| number(broker_setting_behind(name)?, broker))
    };
    for (greater, less) in GREATER {
        let (a, b): (Option<i64>, Option<i64>) = (effective(greater), effective(less));
        if a.zip(b).is_some_and(|(a, b)| a <= b) {
            return invalid(format!("{greater} must be greater than {less}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<Str, Str> {
        let pairs = pairs.iter().map(|(k, v)| (Str::from(*k), Str::from(*v)));
        pairs.collect()
    }

    fn refusal(own: &[(&str, &str)], broker: &[(&str, &str)]) -> String {
        let result = check_group_configs(&settings(own), &settings(broker));
        result.expect_err("a refusal").message.to_string()
    }

    #[test]
    fn settings_are_held_against_the_brokers_bounds() {
        for (own, sentence) in [
            (
                ("consumer.session.timeout.ms", "5"),
                "consumer.session.timeout.ms must be greater than or equal to \
                 group.consumer.min.session.timeout.ms",
            ),
            (
                ("consumer.heartbeat.interval.ms", "15001"),
                "consumer.heartbeat.interval.ms must be less than or equal to \
                 group.consumer.max.heartbeat.interval.ms",
            ),
            (
                ("consumer.assignment.interval.ms", "15001"),
                "consumer.assignment.interval.ms must be less than or equal to \
                 group.consumer.max.assignment.interval.ms",
            ),
            (
                ("streams.num.standby.replicas", "3"),
                "streams.num.standby.replicas must be less than or equal to \
                 group.streams.max.standby.replicas",
            ),
            (
                ("share.delivery.count.limit", "11"),
                "share.delivery.count.limit must be less than or equal to \
                 group.share.max.delivery.count.limit",
            ),
            (("no.such", "1"), "Unknown group config name: no.such"),
        ] {
            assert_eq!(refusal(&[own], &[]), sentence);
        }
        let wide = [
            ("group.consumer.min.session.timeout.ms", "1"),
            ("group.consumer.min.heartbeat.interval.ms", "1"),
        ];
        assert_eq!(
            refusal(&[("consumer.session.timeout.ms", "5000")], &wide),
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        );
        let fine = settings(&[
            ("consumer.session.timeout.ms", "50000"),
            ("consumer.assignment.interval.ms", "0"),
            ("share.isolation.level", "read_committed"),
        ]);
        assert!(check_group_configs(&fine, &settings(&[])).is_ok());
    }
}
