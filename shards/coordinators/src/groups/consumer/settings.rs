//! Settings of consumer groups: the broker's, and what a group has of its own.
//!
//! Pure. Values were validated when they were set. A group's value outside the broker's bounds, which may have changed since, counts as the bound
//! (`GroupConfig#evaluate`).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chronik_catalog::Image;
use chronik_protocol::Str;
use chronik_protocol::configs::Key;
use chronik_protocol::configs::keys::broker;

use super::assignor::Assignor;

/// Shortest time a classic and a consumer group may be turned into each other
/// (`group.consumer.migration.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MigrationPolicy {
    /// A classic group becomes a consumer group when a member of the new protocol joins.
    pub(crate) upgrade: bool,
    /// A consumer group becomes classic when its last member of the new protocol leaves.
    pub(crate) downgrade: bool,
}

impl MigrationPolicy {
    fn named(name: &str) -> MigrationPolicy {
        let is = |other: &str| name.trim().eq_ignore_ascii_case(other);
        MigrationPolicy {
            upgrade: is("upgrade") || is("bidirectional"),
            downgrade: is("downgrade") || is("bidirectional"),
        }
    }

    /// Members of both protocols are kept apart.
    pub(crate) fn is_disabled(self) -> bool {
        !self.upgrade && !self.downgrade
    }
}

/// `group.consumer.*` of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerSettings {
    /// `group.consumer.session.timeout.ms`.
    session_timeout_ms: i32,
    session_bounds_ms: RangeInclusive<i32>,
    /// `group.consumer.heartbeat.interval.ms`.
    heartbeat_interval_ms: i32,
    heartbeat_bounds_ms: RangeInclusive<i32>,
    /// `group.consumer.assignment.interval.ms`.
    assignment_interval_ms: i32,
    assignment_bounds_ms: RangeInclusive<i32>,
    /// `group.consumer.max.size`: members of one group.
    pub(crate) max_size: usize,
    /// `group.consumer.assignors`; the first one is the default.
    pub(crate) assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`.
    pub(crate) migration: MigrationPolicy,
    /// Between two looks at the topics that expressions match, ms; internal in Kafka
    /// (`CONSUMER_GROUP_REGEX_REFRESH_INTERVAL_MS_DEFAULT`).
    pub(crate) regex_refresh_ms: i64,
}

/// What holds for one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// A member that is silent for so long is fenced, ms.
    pub(crate) session_timeout_ms: i32,
    /// How often members are to be heard, ms.
    pub(crate) heartbeat_interval_ms: i32,
    /// Shortest time between two targets, ms (4.3).
    pub(crate) assignment_interval_ms: i32,
}

impl ConsumerSettings {
    /// From the broker's own settings (file, environment, command line).
    pub(crate) fn of(set: &BTreeMap<Str, Str>) -> ConsumerSettings {
        let bounds = |min: Key<i32>, max: Key<i32>| min.among(set)..=max.among(set);
        let named = broker::GROUP_CONSUMER_ASSIGNORS.among(set).into_iter();
        let mut assignors: Vec<Assignor> =
            named.filter_map(|name| Assignor::named(&name)).collect();
        if assignors.is_empty() {
            assignors.push(Assignor::Uniform);
        }
        let policy = broker::GROUP_CONSUMER_MIGRATION_POLICY.among(set);
        ConsumerSettings {
            session_timeout_ms: broker::GROUP_CONSUMER_SESSION_TIMEOUT_MS.among(set),
            session_bounds_ms: bounds(
                broker::GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS,
                broker::GROUP_CONSUMER_MAX_SESSION_TIMEOUT_MS,
            ),
            heartbeat_interval_ms: broker::GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS.among(set),
            heartbeat_bounds_ms: bounds(
                broker::GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS,
                broker::GROUP_CONSUMER_MAX_HEARTBEAT_INTERVAL_MS,
            ),
            assignment_interval_ms: broker::GROUP_CONSUMER_ASSIGNMENT_INTERVAL_MS.among(set),
            assignment_bounds_ms: bounds(
                broker::GROUP_CONSUMER_MIN_ASSIGNMENT_INTERVAL_MS,
                broker::GROUP_CONSUMER_MAX_ASSIGNMENT_INTERVAL_MS,
            ),
            max_size: usize::try_from(broker::GROUP_CONSUMER_MAX_SIZE.among(set)).unwrap_or(0),
            assignors,
            migration: MigrationPolicy::named(&policy),
            regex_refresh_ms: 600_000,
        }
    }

    /// What holds for a group: its own settings (KIP-848, type GROUP) before the broker's.
    pub(crate) fn timing(&self, image: &Image, group: &str) -> Timing {
        let own = image.group_config(group);
        let of = |own: Option<i32>, fallback: i32, bounds: &RangeInclusive<i32>| {
            // Bounds that contradict each other were refused at start.
            own.map_or(fallback, |own| own.min(*bounds.end()).max(*bounds.start()))
        };
        Timing {
            session_timeout_ms: of(
                own.session_timeout_ms,
                self.session_timeout_ms,
                &self.session_bounds_ms,
            ),
            heartbeat_interval_ms: of(
                own.heartbeat_interval_ms,
                self.heartbeat_interval_ms,
                &self.heartbeat_bounds_ms,
            ),
            assignment_interval_ms: of(
                own.assignment_interval_ms,
                self.assignment_interval_ms,
                &self.assignment_bounds_ms,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::consumer::testing::{configure_group, image_of, set_of_group};

    #[test]
    fn a_groups_own_settings_win_within_the_brokers_bounds() {
        let settings = ConsumerSettings::of(&BTreeMap::new());
        let mut image = image_of(&[]);
        let defaults = settings.timing(&image, "g");
        assert_eq!(defaults.session_timeout_ms, 45_000);
        assert_eq!(defaults.heartbeat_interval_ms, 5_000);
        assert_eq!(defaults.assignment_interval_ms, 1_000);
        configure_group(&mut image, "g", "consumer.session.timeout.ms", "50000");
        configure_group(&mut image, "g", "consumer.heartbeat.interval.ms", "99999");
        configure_group(&mut image, "g", "consumer.assignment.interval.ms", "0");
        let own = settings.timing(&image, "g");
        assert_eq!(own.session_timeout_ms, 50_000);
        assert_eq!(own.heartbeat_interval_ms, 15_000, "the bound");
        assert_eq!(own.assignment_interval_ms, 0);
        assert_eq!(settings.timing(&image, "h"), defaults);
        for setting in [
            "session.timeout",
            "heartbeat.interval",
            "assignment.interval",
        ] {
            set_of_group(&mut image, "g", &format!("consumer.{setting}.ms"), None);
        }
        assert_eq!(settings.timing(&image, "g"), defaults);
    }

    #[test]
    fn the_brokers_settings_are_read() {
        let set = [
            ("group.consumer.assignors", "range, uniform"),
            ("group.consumer.migration.policy", "Upgrade"),
            ("group.consumer.max.size", "3"),
        ];
        let set = set.map(|(name, value)| (Str::from(name), Str::from(value)));
        let settings = ConsumerSettings::of(&set.into());
        assert_eq!(settings.assignors, [Assignor::Range, Assignor::Uniform]);
        assert!(settings.migration.upgrade && !settings.migration.downgrade);
        assert_eq!(settings.max_size, 3);
        assert!(MigrationPolicy::named("DISABLED").is_disabled());
    }
}
