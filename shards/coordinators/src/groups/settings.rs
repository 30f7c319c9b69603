//! The settings of group coordination, parsed once.
//!
//! Pure. Values were validated when they were set; defaults are Kafka's (`schema/configs.tsv`).

use std::collections::BTreeMap;

use chronik_protocol::Str;

use super::consumer::settings::ConsumerSettings;
use super::numbers::number;

/// `group.*`, `offsets.*` and `offset.*` of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`.
    pub(crate) min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub(crate) max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub(crate) initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one classic group.
    pub(crate) max_size: usize,
    /// How long a member that has not got its id yet may wait in a join, ms; not configurable in
    /// Kafka (`CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS`).
    pub(crate) new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`, counted as Kafka does: in UTF-16 units.
    pub(crate) offset_metadata_max: usize,
    /// `offsets.retention.minutes`, as ms.
    pub(crate) offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub(crate) offsets_retention_check_ms: i64,
    /// `group.consumer.*`.
    pub(crate) consumer: ConsumerSettings,
}

impl GroupSettings {
    /// From the broker's own settings (file, environment, command line).
    pub fn of(set: &BTreeMap<Str, Str>) -> GroupSettings {
        let int = |name: &str, fallback: i32| number(set, name).unwrap_or(fallback);
        let size = |name: &str, fallback: usize| number(set, name).unwrap_or(fallback);
        let long = |name: &str, fallback: i64| number(set, name).unwrap_or(fallback);
        let retention_minutes = long("offsets.retention.minutes", 10_080);
        GroupSettings {
            min_session_timeout_ms: int("group.min.session.timeout.ms", 6_000),
            max_session_timeout_ms: int("group.max.session.timeout.ms", 1_800_000),
            initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms", 3_000).max(0),
            max_size: size("group.max.size", 2_147_483_647),
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max: size("offset.metadata.max.bytes", 4_096),
            offsets_retention_ms: retention_minutes.saturating_mul(60_000),
            offsets_retention_check_ms: long("offsets.retention.check.interval.ms", 600_000).max(1),
            consumer: ConsumerSettings::of(set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kafkas_and_can_be_overridden() {
        let defaults = GroupSettings::of(&BTreeMap::new());
        assert_eq!(defaults.max_session_timeout_ms, 1_800_000);
        assert_eq!(defaults.offsets_retention_ms, 7 * 86_400_000);
        let set = BTreeMap::from([
            (Str::from("group.max.size"), Str::from("3")),
            (Str::from("offsets.retention.minutes"), Str::from(" 2 ")),
        ]);
        let settings = GroupSettings::of(&set);
        assert_eq!(
            (settings.max_size, settings.offsets_retention_ms),
            (3, 120_000)
        );
    }
}
