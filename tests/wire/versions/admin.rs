//! The APIs of administrators, in every version. The one answer that a broker without authorizer gives to everything
//! counts as none.

use chronik_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, CreateAclsRequest,
    CreateDelegationTokenRequest, DeleteAclsRequest, DescribeAclsRequest,
    DescribeDelegationTokenRequest, DescribeQuorumRequest, ElectLeadersRequest,
    ExpireDelegationTokenRequest, ListPartitionReassignmentsRequest, RenewDelegationTokenRequest,
    UpdateFeaturesRequest, alter_partition_reassignments_request, alter_replica_log_dirs_request,
    create_acls_request, delete_acls_request, describe_quorum_request, elect_leaders_request,
};
use chronik_protocol::{ErrorCode, Str};

use super::Scene;

/// Nothing when it is the code that is right.
fn only(right: ErrorCode, error_code: i16) -> i16 {
    if error_code == right.as_i16() {
        0
    } else {
        error_code.max(1)
    }
}

pub(super) fn admin_apis(scene: &mut Scene) {
    acl_apis(scene);
    token_apis(scene);
    replica_apis(scene);
    scene.every(
        |_, _| UpdateFeaturesRequest::default(),
        |response| vec![response.error_code],
    );
    scene.every(
        |_, _| DescribeQuorumRequest {
            topics: vec![describe_quorum_request::TopicData {
                topic_name: Str::from_static("__cluster_metadata"),
                partitions: vec![describe_quorum_request::PartitionData::default()],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| vec![response.topics[0].partitions[0].error_code],
    );
}

fn acl_apis(scene: &mut Scene) {
    let disabled = |code| only(ErrorCode::SecurityDisabled, code);
    scene.every(
        |_, _| DescribeAclsRequest {
            resource_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        },
        move |response| vec![disabled(response.error_code)],
    );
    scene.every(
        |_, _| CreateAclsRequest {
            creations: vec![create_acls_request::AclCreation {
                resource_type: 2,
                operation: 3,
                permission_type: 3,
                ..Default::default()
            }],
            ..Default::default()
        },
        move |response| vec![disabled(response.results[0].error_code)],
    );
    scene.every(
        |_, _| DeleteAclsRequest {
            filters: vec![delete_acls_request::DeleteAclsFilter {
                resource_type_filter: 1,
                operation: 1,
                permission_type: 1,
                ..Default::default()
            }],
            ..Default::default()
        },
        move |response| vec![disabled(response.filter_results[0].error_code)],
    );
}

fn token_apis(scene: &mut Scene) {
    let refused = |code| only(ErrorCode::DelegationTokenRequestNotAllowed, code);
    scene.every(
        |_, _| CreateDelegationTokenRequest::default(),
        move |response| vec![refused(response.error_code)],
    );
    scene.every(
        |_, _| RenewDelegationTokenRequest::default(),
        move |response| vec![refused(response.error_code)],
    );
    scene.every(
        |_, _| ExpireDelegationTokenRequest::default(),
        move |response| vec![refused(response.error_code)],
    );
    scene.every(
        |_, _| DescribeDelegationTokenRequest::default(),
        move |response| vec![refused(response.error_code)],
    );
}

fn replica_apis(scene: &mut Scene) {
    scene.every(
        |scene, _| ElectLeadersRequest {
            topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
                topic: scene.topic_name(),
                partitions: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        },
        |response| {
            let result = &response.replica_election_results[0].partition_result[0];
            vec![only(ErrorCode::ElectionNotNeeded, result.error_code)]
        },
    );
    scene.every(
        |scene, _| AlterReplicaLogDirsRequest {
            dirs: vec![alter_replica_log_dirs_request::AlterReplicaLogDir {
                path: Str::from_static("/no/such/directory"),
                topics: vec![alter_replica_log_dirs_request::AlterReplicaLogDirTopic {
                    name: scene.topic_name(),
                    partitions: vec![0],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| {
            let result = &response.results[0].partitions[0];
            vec![only(ErrorCode::LogDirNotFound, result.error_code)]
        },
    );
    scene.every(
        |scene, _| AlterPartitionReassignmentsRequest {
            topics: vec![alter_partition_reassignments_request::ReassignableTopic {
                name: scene.topic_name(),
                partitions: vec![
                    alter_partition_reassignments_request::ReassignablePartition {
                        replicas: Some(vec![1]),
                        ..Default::default()
                    },
                ],
                ..Default::default()
            }],
            ..Default::default()
        },
        |response| {
            vec![
                response.error_code,
                response.responses[0].partitions[0].error_code,
            ]
        },
    );
    scene.every(
        |_, _| ListPartitionReassignmentsRequest::default(),
        |response| vec![response.error_code],
    );
}
