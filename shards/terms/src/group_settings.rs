//! The settings of a group that are its own, parsed.
//!
//! Pure; worked out when one is set, for members are heard of more often. What holds where a group has none, and
//! within which bounds, is the coordinator's to say.

use std::collections::BTreeMap;

use chronik_protocol::Str;
use chronik_protocol::configs::Key;
use chronik_protocol::configs::keys::group;

/// What a group has of its own; `None` where the broker's setting holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupConfig {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: Option<i32>,
    /// `consumer.assignment.interval.ms`.
    pub assignment_interval_ms: Option<i32>,
}

impl GroupConfig {
    /// Parses what was set; a text that is no number counts as not set.
    pub fn of(set: &BTreeMap<Str, Str>) -> GroupConfig {
        let own = |key: Key<i32>| key.parse(set.get(key.name())?);
        GroupConfig {
            session_timeout_ms: own(group::CONSUMER_SESSION_TIMEOUT_MS),
            heartbeat_interval_ms: own(group::CONSUMER_HEARTBEAT_INTERVAL_MS),
            assignment_interval_ms: own(group::CONSUMER_ASSIGNMENT_INTERVAL_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_parsed_and_garbage_is_not_set() {
        let set = [
            ("consumer.session.timeout.ms", " 50000"),
            ("consumer.heartbeat.interval.ms", "often"),
        ];
        let set = set.map(|(name, value)| (Str::from(name), Str::from(value)));
        let expected = GroupConfig {
            session_timeout_ms: Some(50_000),
            ..GroupConfig::default()
        };
        assert_eq!(GroupConfig::of(&set.into()), expected);
    }
}
