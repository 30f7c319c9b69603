//! The table of APIs: of each key that is advertised, the type of its request and when it is answered.
//!
//! The `match` is over the rows of `protocol::versions`: the compiler refuses a row without a line here, a
//! line without a row, and a line whose request is another key's or is answered at another time.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::*;
use chronik_protocol::versions::ServedApi;
use chronik_protocol::{Reader, Request};

use super::call::Call;
use super::context::Context;
use super::pipeline::{inline, later, staged};
use crate::server::service::Admitted;

/// Gives the table to a macro: a line for each API.
macro_rules! for_each_api {
    ($visit:ident) => {
        $visit! {
            Produce => staged ProduceRequest,
            Fetch => staged FetchRequest,
            ListOffsets => later ListOffsetsRequest,
            Metadata => later MetadataRequest,
            OffsetCommit => later OffsetCommitRequest,
            OffsetFetch => later OffsetFetchRequest,
            FindCoordinator => later FindCoordinatorRequest,
            JoinGroup => staged JoinGroupRequest,
            Heartbeat => later HeartbeatRequest,
            LeaveGroup => later LeaveGroupRequest,
            SyncGroup => staged SyncGroupRequest,
            DescribeGroups => later DescribeGroupsRequest,
            ListGroups => later ListGroupsRequest,
            ApiVersions => inline ApiVersionsRequest,
            CreateTopics => later CreateTopicsRequest,
            DeleteTopics => later DeleteTopicsRequest,
            DeleteRecords => later DeleteRecordsRequest,
            InitProducerId => later InitProducerIdRequest,
            OffsetForLeaderEpoch => later OffsetForLeaderEpochRequest,
            DescribeAcls => inline DescribeAclsRequest,
            CreateAcls => inline CreateAclsRequest,
            DeleteAcls => inline DeleteAclsRequest,
            DescribeConfigs => later DescribeConfigsRequest,
            AlterConfigs => later AlterConfigsRequest,
            AlterReplicaLogDirs => later AlterReplicaLogDirsRequest,
            DescribeLogDirs => later DescribeLogDirsRequest,
            CreatePartitions => later CreatePartitionsRequest,
            CreateDelegationToken => inline CreateDelegationTokenRequest,
            RenewDelegationToken => inline RenewDelegationTokenRequest,
            ExpireDelegationToken => inline ExpireDelegationTokenRequest,
            DescribeDelegationToken => inline DescribeDelegationTokenRequest,
            DeleteGroups => later DeleteGroupsRequest,
            ElectLeaders => later ElectLeadersRequest,
            IncrementalAlterConfigs => later IncrementalAlterConfigsRequest,
            AlterPartitionReassignments => later AlterPartitionReassignmentsRequest,
            ListPartitionReassignments => inline ListPartitionReassignmentsRequest,
            OffsetDelete => later OffsetDeleteRequest,
            DescribeQuorum => later DescribeQuorumRequest,
            UpdateFeatures => later UpdateFeaturesRequest,
            DescribeCluster => inline DescribeClusterRequest,
            ConsumerGroupHeartbeat => later ConsumerGroupHeartbeatRequest,
            ConsumerGroupDescribe => later ConsumerGroupDescribeRequest,
            ListConfigResources => inline ListConfigResourcesRequest,
            DescribeTopicPartitions => later DescribeTopicPartitionsRequest,
        }
    };
}

macro_rules! dispatch {
    ($($key:ident => $when:ident $request:ident,)*) => {
        /// Takes a request: stage one.
        pub(super) async fn handle<W: World>(
            context: Rc<Context<W>>,
            call: Call,
            body: Reader,
        ) -> Admitted {
            match call.api {
                $(ServedApi::$key => $when::<W, $request>(context, call, body).await,)*
            }
        }

        $(const _: () = assert!(
            <$request as Request>::KEY as i16 == ServedApi::$key.range().key as i16
        );)*
    };
}

for_each_api!(dispatch);
#[cfg(test)]
pub(super) use for_each_api;
