//! The one table of API versions this broker speaks.
//!
//! ApiVersions answers from it, dispatch refuses by it, and a test proves that every row decodes, is handled
//! and encodes. Never lists an API that is not served.

use crate::keys::ApiKey;

/// One row: an API and the versions advertised and served.
///
/// The least versions are those of Kafka 3.9, the last one that serves clients from before 0.11; the
/// greatest are Kafka 4's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// The API.
    pub key: ApiKey,
    /// The least version.
    pub min: i16,
    /// The greatest version.
    pub max: i16,
}

impl ApiRange {
    const fn new(key: ApiKey, min: i16, max: i16) -> ApiRange {
        ApiRange { key, min, max }
    }

    /// True when `version` is served: any other is answered with an error.
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// Every API the broker advertises, ascending by key.
pub const ADVERTISED: [ApiRange; 44] = [
    ApiRange::new(ApiKey::Produce, 0, 13),
    ApiRange::new(ApiKey::Fetch, 0, 18),
    ApiRange::new(ApiKey::ListOffsets, 0, 11),
    ApiRange::new(ApiKey::Metadata, 0, 13),
    ApiRange::new(ApiKey::OffsetCommit, 0, 10),
    ApiRange::new(ApiKey::OffsetFetch, 0, 10),
    ApiRange::new(ApiKey::FindCoordinator, 0, 6),
    ApiRange::new(ApiKey::JoinGroup, 0, 9),
    ApiRange::new(ApiKey::Heartbeat, 0, 4),
    ApiRange::new(ApiKey::LeaveGroup, 0, 5),
    ApiRange::new(ApiKey::SyncGroup, 0, 5),
    ApiRange::new(ApiKey::DescribeGroups, 0, 6),
    ApiRange::new(ApiKey::ListGroups, 0, 5),
    ApiRange::new(ApiKey::ApiVersions, 0, 4),
    ApiRange::new(ApiKey::CreateTopics, 0, 7),
    ApiRange::new(ApiKey::DeleteTopics, 0, 6),
    ApiRange::new(ApiKey::DeleteRecords, 0, 2),
    ApiRange::new(ApiKey::InitProducerId, 0, 5),
    ApiRange::new(ApiKey::OffsetForLeaderEpoch, 0, 4),
    ApiRange::new(ApiKey::DescribeAcls, 0, 3),
    ApiRange::new(ApiKey::CreateAcls, 0, 3),
    ApiRange::new(ApiKey::DeleteAcls, 0, 3),
    ApiRange::new(ApiKey::DescribeConfigs, 0, 4),
    ApiRange::new(ApiKey::AlterConfigs, 0, 2),
    ApiRange::new(ApiKey::AlterReplicaLogDirs, 0, 2),
    ApiRange::new(ApiKey::DescribeLogDirs, 0, 5),
    ApiRange::new(ApiKey::CreatePartitions, 0, 3),
    ApiRange::new(ApiKey::CreateDelegationToken, 0, 3),
    ApiRange::new(ApiKey::RenewDelegationToken, 0, 2),
    ApiRange::new(ApiKey::ExpireDelegationToken, 0, 2),
    ApiRange::new(ApiKey::DescribeDelegationToken, 0, 3),
    ApiRange::new(ApiKey::DeleteGroups, 0, 2),
    ApiRange::new(ApiKey::ElectLeaders, 0, 2),
    ApiRange::new(ApiKey::IncrementalAlterConfigs, 0, 1),
    ApiRange::new(ApiKey::AlterPartitionReassignments, 0, 1),
    ApiRange::new(ApiKey::ListPartitionReassignments, 0, 0),
    ApiRange::new(ApiKey::OffsetDelete, 0, 0),
    ApiRange::new(ApiKey::DescribeQuorum, 0, 2),
    ApiRange::new(ApiKey::UpdateFeatures, 0, 2),
    ApiRange::new(ApiKey::DescribeCluster, 0, 2),
    ApiRange::new(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    ApiRange::new(ApiKey::ConsumerGroupDescribe, 0, 1),
    ApiRange::new(ApiKey::ListConfigResources, 0, 1),
    ApiRange::new(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// The row of one API; `None` when it is not advertised.
pub fn of(key: ApiKey) -> Option<&'static ApiRange> {
    ADVERTISED.iter().find(|range| range.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_and_stay_inside_the_schema() {
        assert!(ADVERTISED.windows(2).all(|rows| rows[0].key < rows[1].key));
        for row in &ADVERTISED {
            let schema = row.key.schema_versions().expect("a body");
            assert!(
                schema.contains(&row.min) && schema.contains(&row.max),
                "{row:?}"
            );
            assert!(row.min <= row.max, "{row:?}");
            assert!(row.key.on_broker_listener(), "{row:?}");
        }
    }

    #[test]
    fn unstable_versions_are_not_advertised() {
        for row in &ADVERTISED {
            assert!(
                row.key
                    .unstable_version()
                    .is_none_or(|version| version > row.max),
                "{row:?}"
            );
        }
    }
}
