//! The settings of group coordination, parsed once.
//!
//! Pure. Values were validated when they were set.

use std::collections::BTreeMap;

use chronik_protocol::Str;
use chronik_protocol::configs::keys::broker;

use super::consumer::settings::ConsumerSettings;

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
        let retention_minutes = i64::from(broker::OFFSETS_RETENTION_MINUTES.among(set));
        let check_ms = broker::OFFSETS_RETENTION_CHECK_INTERVAL_MS.among(set);
        GroupSettings {
            min_session_timeout_ms: broker::GROUP_MIN_SESSION_TIMEOUT_MS.among(set),
            max_session_timeout_ms: broker::GROUP_MAX_SESSION_TIMEOUT_MS.among(set),
            initial_rebalance_delay_ms: broker::GROUP_INITIAL_REBALANCE_DELAY_MS.among(set).max(0),
            max_size: size(broker::GROUP_MAX_SIZE.among(set)),
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max: size(broker::OFFSET_METADATA_MAX_BYTES.among(set)),
            offsets_retention_ms: retention_minutes.saturating_mul(60_000),
            offsets_retention_check_ms: check_ms.max(1),
            consumer: ConsumerSettings::of(set),
        }
    }
}

/// A count; below none is none.
fn size(count: i32) -> usize {
    usize::try_from(count).unwrap_or(0)
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
