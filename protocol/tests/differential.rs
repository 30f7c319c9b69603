//! Our codec against two others, `kafka-protocol` 0.15.1 (Kafka 3.9, every legacy version) and
//! 0.18 (Kafka 4.1): the same bytes go in, the same bytes must come out, in every version that
//! both sides have.
//!
//! The bytes are random, made from our schemas, with nulls, empty and long values, nested
//! arrays and tagged fields. What differs, and why:
//!
//! * Versions outside the other codec's table, and APIs it lacks, are not compared.
//! * `kafka-protocol` has no coordinator or metadata records; the golden bytes cover them.
//! * Messages in [`EXPLAINED`], each with its reason.

mod support;

use bytes::{Buf, Bytes, BytesMut};
use support::schema::Versions;
use support::wire::Maker;

/// Messages the other codecs read wrongly, and why. Kafka's own bytes (`tests/golden/messages.txt`) prove ours in
/// each.
const EXPLAINED: [(&str, &str); 2] = [
    (
        "LeaderChangeMessage",
        "its field `Version` takes the place of the message's version",
    ),
    (
        "VotersRecord",
        "its field `Version` takes the place of the message's version",
    ),
];

/// Random values per message and version.
const ROUNDS: u64 = 4;

macro_rules! codec {
    ($module:ident, $codec:ident: $($name:ident)*) => {
        mod $module {
            use super::*;
            use $codec::messages;
            use $codec::protocol::{Decodable, Encodable, Message};

            /// The versions of a message in the other codec; `None` without any.
            pub(super) fn versions(name: &str) -> Option<(i16, i16)> {
                let range = match name {
                    $(stringify!($name) => <messages::$name as Message>::VERSIONS,)*
                    _ => return None,
                };
                Some((range.min, range.max))
            }

            /// Reads and writes the message with the other codec.
            pub(super) fn transcode(name: &str, version: i16, bytes: Bytes) -> Result<Bytes, String> {
                match name {
                    $(stringify!($name) => transcode_as::<messages::$name>(version, bytes),)*
                    _ => panic!("no message {name}"),
                }
            }

            fn transcode_as<M: Decodable + Encodable>(
                version: i16,
                mut bytes: Bytes,
            ) -> Result<Bytes, String> {
                let message = M::decode(&mut bytes, version).map_err(|error| error.to_string())?;
                if bytes.has_remaining() {
                    return Err(format!("{} bytes left", bytes.remaining()));
                }
                let mut out = BytesMut::new();
                message.encode(&mut out, version).map_err(|error| error.to_string())?;
                Ok(out.freeze())
            }
        }
    };
}

macro_rules! codecs {
    ($($name:ident)* ; $($newer:ident)*) => {
        codec!(v015, kafka_protocol_015: $($name)*);
        codec!(v018, kafka_protocol_018: $($name)* $($newer)*);
    };
}

codecs! {
        AddOffsetsToTxnRequest AddOffsetsToTxnResponse AddPartitionsToTxnRequest
        AddPartitionsToTxnResponse AddRaftVoterRequest AddRaftVoterResponse
        AllocateProducerIdsRequest AllocateProducerIdsResponse AlterClientQuotasRequest
        AlterClientQuotasResponse AlterConfigsRequest AlterConfigsResponse
        AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
        AlterPartitionRequest AlterPartitionResponse AlterReplicaLogDirsRequest
        AlterReplicaLogDirsResponse AlterUserScramCredentialsRequest
        AlterUserScramCredentialsResponse ApiVersionsRequest ApiVersionsResponse
        AssignReplicasToDirsRequest AssignReplicasToDirsResponse BeginQuorumEpochRequest
        BeginQuorumEpochResponse BrokerHeartbeatRequest BrokerHeartbeatResponse
        BrokerRegistrationRequest BrokerRegistrationResponse ConsumerGroupDescribeRequest
        ConsumerGroupDescribeResponse ConsumerGroupHeartbeatRequest
        ConsumerGroupHeartbeatResponse ConsumerProtocolAssignment ConsumerProtocolSubscription
        ControllerRegistrationRequest ControllerRegistrationResponse CreateAclsRequest
        CreateAclsResponse CreateDelegationTokenRequest CreateDelegationTokenResponse
        CreatePartitionsRequest CreatePartitionsResponse CreateTopicsRequest
        CreateTopicsResponse DefaultPrincipalData DeleteAclsRequest DeleteAclsResponse
        DeleteGroupsRequest DeleteGroupsResponse DeleteRecordsRequest DeleteRecordsResponse
        DeleteTopicsRequest DeleteTopicsResponse DescribeAclsRequest DescribeAclsResponse
        DescribeClientQuotasRequest DescribeClientQuotasResponse DescribeClusterRequest
        DescribeClusterResponse DescribeConfigsRequest DescribeConfigsResponse
        DescribeDelegationTokenRequest DescribeDelegationTokenResponse DescribeGroupsRequest
        DescribeGroupsResponse DescribeLogDirsRequest DescribeLogDirsResponse
        DescribeProducersRequest DescribeProducersResponse DescribeQuorumRequest
        DescribeQuorumResponse DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
        DescribeTransactionsRequest DescribeTransactionsResponse
        DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse
        ElectLeadersRequest ElectLeadersResponse EndQuorumEpochRequest EndQuorumEpochResponse
        EndTxnRequest EndTxnResponse EnvelopeRequest EnvelopeResponse
        ExpireDelegationTokenRequest ExpireDelegationTokenResponse FetchRequest FetchResponse
        FetchSnapshotRequest FetchSnapshotResponse FindCoordinatorRequest
        FindCoordinatorResponse GetTelemetrySubscriptionsRequest
        GetTelemetrySubscriptionsResponse HeartbeatRequest HeartbeatResponse
        IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse InitProducerIdRequest
        InitProducerIdResponse JoinGroupRequest JoinGroupResponse KRaftVersionRecord
        LeaderChangeMessage LeaveGroupRequest LeaveGroupResponse ListGroupsRequest
        ListGroupsResponse ListOffsetsRequest ListOffsetsResponse
        ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse
        ListTransactionsRequest ListTransactionsResponse MetadataRequest MetadataResponse
        OffsetCommitRequest OffsetCommitResponse OffsetDeleteRequest OffsetDeleteResponse
        OffsetFetchRequest OffsetFetchResponse OffsetForLeaderEpochRequest
        OffsetForLeaderEpochResponse ProduceRequest ProduceResponse PushTelemetryRequest
        PushTelemetryResponse RemoveRaftVoterRequest RemoveRaftVoterResponse
        RenewDelegationTokenRequest RenewDelegationTokenResponse RequestHeader ResponseHeader
        SaslAuthenticateRequest SaslAuthenticateResponse SaslHandshakeRequest
        SaslHandshakeResponse SnapshotFooterRecord SnapshotHeaderRecord SyncGroupRequest
        SyncGroupResponse TxnOffsetCommitRequest TxnOffsetCommitResponse UnregisterBrokerRequest
        UnregisterBrokerResponse UpdateFeaturesRequest UpdateFeaturesResponse
        UpdateRaftVoterRequest UpdateRaftVoterResponse VoteRequest VoteResponse VotersRecord
        WriteTxnMarkersRequest WriteTxnMarkersResponse
        ;
        AlterShareGroupOffsetsRequest AlterShareGroupOffsetsResponse
        DeleteShareGroupOffsetsRequest DeleteShareGroupOffsetsResponse
        DeleteShareGroupStateRequest DeleteShareGroupStateResponse
        DescribeShareGroupOffsetsRequest DescribeShareGroupOffsetsResponse EndTxnMarker
        InitializeShareGroupStateRequest InitializeShareGroupStateResponse
        ListConfigResourcesRequest ListConfigResourcesResponse ReadShareGroupStateRequest
        ReadShareGroupStateResponse ReadShareGroupStateSummaryRequest
        ReadShareGroupStateSummaryResponse ShareAcknowledgeRequest ShareAcknowledgeResponse
        ShareFetchRequest ShareFetchResponse ShareGroupDescribeRequest
        ShareGroupDescribeResponse ShareGroupHeartbeatRequest ShareGroupHeartbeatResponse
        WriteShareGroupStateRequest WriteShareGroupStateResponse
}

/// Compares every version both sides have; returns their number.
fn compare(
    versions: fn(&str) -> Option<(i16, i16)>,
    transcode: fn(&str, i16, Bytes) -> Result<Bytes, String>,
) -> usize {
    let mut compared = 0;
    let mut differences = Vec::new();
    for message in &support::schemas() {
        let name = &message.name;
        let explained = EXPLAINED.iter().any(|(other, _)| other == name);
        let Some((first, last)) = versions(name).filter(|_| !explained) else {
            continue;
        };
        let first = first.max(message.versions.first);
        let last = last.min(message.versions.last);
        for version in (Versions { first, last }).iter() {
            for seed in 0..ROUNDS {
                let bytes = Bytes::from(Maker::new(message, version, seed).bytes());
                let theirs = transcode(name, version, bytes.clone());
                let ours = support::transcode(name, version, &bytes);
                if theirs.as_ref() != Ok(&bytes) || ours.as_ref() != Ok(&bytes) {
                    let difference = format!("{name} {version}: {theirs:?}, ours {ours:?}");
                    differences.push(difference);
                }
            }
            compared += 1;
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    compared
}

#[test]
fn we_agree_with_the_codec_of_kafka_3_9() {
    let compared = compare(v015::versions, v015::transcode);
    assert!(compared > 450, "only {compared} message versions compared");
}

#[test]
fn we_agree_with_the_codec_of_kafka_4_1() {
    let compared = compare(v018::versions, v018::transcode);
    assert!(compared > 450, "only {compared} message versions compared");
}
