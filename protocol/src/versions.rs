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
    /// True when `version` is served: any other is answered with an error.
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// Writes the table in its three forms: for ApiVersions, for the compiler, and from key to row.
macro_rules! advertised {
    ($($key:ident $min:literal $max:literal;)*) => {
        /// An API that the broker advertises. The table of handlers is a `match` over this, so that the
        /// compiler refuses a row without a handler and a handler without a row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ServedApi {
            $(
                #[doc = concat!("`", stringify!($key), "`.")]
                $key,
            )*
        }

        impl ServedApi {
            /// The API of a key; `None` when it is not advertised.
            pub const fn of(key: ApiKey) -> Option<Self> {
                match key {
                    $(ApiKey::$key => Some(Self::$key),)*
                    _ => None,
                }
            }

            /// Its row.
            pub const fn range(self) -> ApiRange {
                match self {
                    $(Self::$key => ApiRange { key: ApiKey::$key, min: $min, max: $max },)*
                }
            }
        }

        /// Every API the broker advertises, ascending by key.
        pub const ADVERTISED: [ApiRange; [$(ApiKey::$key),*].len()] =
            [$(ServedApi::$key.range()),*];
    };
}

advertised! {
    Produce 0 13;
    Fetch 0 18;
    ListOffsets 0 11;
    Metadata 0 13;
    OffsetCommit 0 10;
    OffsetFetch 0 10;
    FindCoordinator 0 6;
    JoinGroup 0 9;
    Heartbeat 0 4;
    LeaveGroup 0 5;
    SyncGroup 0 5;
    DescribeGroups 0 6;
    ListGroups 0 5;
    ApiVersions 0 4;
    CreateTopics 0 7;
    DeleteTopics 0 6;
    DeleteRecords 0 2;
    InitProducerId 0 5;
    OffsetForLeaderEpoch 0 4;
    DescribeAcls 0 3;
    CreateAcls 0 3;
    DeleteAcls 0 3;
    DescribeConfigs 0 4;
    AlterConfigs 0 2;
    AlterReplicaLogDirs 0 2;
    DescribeLogDirs 0 5;
    CreatePartitions 0 3;
    CreateDelegationToken 0 3;
    RenewDelegationToken 0 2;
    ExpireDelegationToken 0 2;
    DescribeDelegationToken 0 3;
    DeleteGroups 0 2;
    ElectLeaders 0 2;
    IncrementalAlterConfigs 0 1;
    AlterPartitionReassignments 0 1;
    ListPartitionReassignments 0 0;
    OffsetDelete 0 0;
    DescribeQuorum 0 2;
    UpdateFeatures 0 2;
    DescribeCluster 0 2;
    ConsumerGroupHeartbeat 0 1;
    ConsumerGroupDescribe 0 1;
    ListConfigResources 0 1;
    DescribeTopicPartitions 0 0;
}

/// The row of one API; `None` when it is not advertised.
pub fn of(key: ApiKey) -> Option<ApiRange> {
    ServedApi::of(key).map(ServedApi::range)
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
