//! Our codec against a third one, `kafka-wire` 0.1.0, generated from the schemas of a Kafka newer than 4.3 and
//! proven against bytes that Kafka wrote. Its package lacks those bytes, so the codec itself is the oracle. It
//! covers every request and response of ours up to its last version, the headers and the control records, but
//! not the records of the internal logs.
//!
//! Three questions, in every version that both sides have:
//!
//! * Random bytes made from our schemas: through theirs, then through ours, nothing changes.
//! * The default value: both write the same bytes.
//! * The same random bytes, damaged: both refuse them, or both read them alike.
//!
//! What differs, and why:
//!
//! * Messages of theirs that we do not speak: [`NOT_COMPARED`].
//! * Versions they have and Kafka 4.3 has not: ApiVersions 5, DeleteGroups 3,
//!   StreamsGroupDescribe 1, StreamsGroupHeartbeat 1, TxnOffsetCommit 6.
//! * They refuse two things that Kafka's classes read, and we read too: [`tolerated`].
//! * We allow one structure [`TAGS_MAX`] tagged fields; they allow 4096, Kafka any number. No
//!   schema defines ten, and each one costs memory before authentication.
//!
//! `the_differences_are_those_we_list` holds both sides to the last two.

mod support;

use bytes::Bytes;
use chronik_protocol::codec::TAGS_MAX;
use chronik_protocol::{Message, Writer, messages};
use fastrand::Rng;
use kafka_wire::KafkaMessage;
use kafka_wire_core::{ApiVersion, DecodeLimits};
use support::schema::{Message as Schema, Versions};
use support::wire::Maker;

/// Random values per message and version.
const ROUNDS: u64 = 6;

/// Damaged values per message and version.
const DAMAGED_ROUNDS: u64 = 40;

/// Messages of theirs that we do not speak, and why.
const NOT_COMPARED: [(&str, &str); 2] = [
    (
        "StreamsGroupTopologyDescriptionUpdateRequest",
        "newer than Kafka 4.3",
    ),
    (
        "StreamsGroupTopologyDescriptionUpdateResponse",
        "newer than Kafka 4.3",
    ),
];

/// One message as both sides have it.
struct Pair {
    name: &'static str,
    /// The versions in the other codec.
    versions: Versions,
    transcode: fn(i16, &Bytes) -> Result<Bytes, String>,
    /// The bytes of our default value, then of theirs.
    our_default: fn(i16) -> Result<Bytes, String>,
    their_default: fn(i16) -> Result<Bytes, String>,
}

impl Pair {
    fn of<Ours: Message, Theirs: KafkaMessage + Default>() -> Pair {
        assert_eq!(Ours::NAME, Theirs::NAME);
        Pair {
            name: Ours::NAME,
            versions: Versions {
                first: Theirs::SUPPORTED_VERSIONS.min().value(),
                last: Theirs::SUPPORTED_VERSIONS.max().value(),
            },
            transcode: transcode_as::<Theirs>,
            our_default: our_default_of::<Ours>,
            their_default: their_default_of::<Theirs>,
        }
    }

    /// The versions both sides have, with our schema of the message.
    fn shared<'a>(&self, schemas: &'a [Schema]) -> (&'a Schema, Versions) {
        let schema = schemas.iter().find(|schema| schema.name == self.name);
        let schema = schema.expect("a schema");
        let first = self.versions.first.max(schema.versions.first);
        let last = self.versions.last.min(schema.versions.last);
        (schema, Versions { first, last })
    }
}

/// Reads and writes the message with the other codec.
fn transcode_as<M: KafkaMessage>(version: i16, bytes: &Bytes) -> Result<Bytes, String> {
    let version = ApiVersion::new(version);
    let message = M::decode_from_bytes(bytes.clone(), version, DecodeLimits::default());
    let message = message.map_err(|error| error.to_string())?;
    message
        .encode_to_bytes(version)
        .map_err(|error| error.to_string())
}

fn our_default_of<M: Message>(version: i16) -> Result<Bytes, String> {
    let mut writer = Writer::new();
    let written = M::default().encode(&mut writer, version);
    written.map_err(|error| error.to_string())?;
    Ok(writer.into_parts().concat().into())
}

fn their_default_of<M: KafkaMessage + Default>(version: i16) -> Result<Bytes, String> {
    let bytes = M::default().encode_to_bytes(ApiVersion::new(version));
    bytes.map_err(|error| error.to_string())
}

macro_rules! pairs {
    ($($name:ident)*) => {
        /// Every message both sides have.
        fn pairs() -> Vec<Pair> {
            vec![$(Pair::of::<messages::$name, kafka_wire::$name>()),*]
        }
    };
}

pairs! {
    AddOffsetsToTxnRequest AddOffsetsToTxnResponse AddPartitionsToTxnRequest
    AddPartitionsToTxnResponse AddRaftVoterRequest AddRaftVoterResponse
    AllocateProducerIdsRequest AllocateProducerIdsResponse AlterClientQuotasRequest
    AlterClientQuotasResponse AlterConfigsRequest AlterConfigsResponse
    AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
    AlterPartitionRequest AlterPartitionResponse AlterReplicaLogDirsRequest
    AlterReplicaLogDirsResponse AlterShareGroupOffsetsRequest AlterShareGroupOffsetsResponse
    AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse ApiVersionsRequest
    ApiVersionsResponse AssignReplicasToDirsRequest AssignReplicasToDirsResponse
    BeginQuorumEpochRequest BeginQuorumEpochResponse BrokerHeartbeatRequest
    BrokerHeartbeatResponse BrokerRegistrationRequest BrokerRegistrationResponse
    ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse ConsumerGroupHeartbeatRequest
    ConsumerGroupHeartbeatResponse ConsumerProtocolAssignment ConsumerProtocolSubscription
    ControlRecordTypeSchema ControllerRegistrationRequest ControllerRegistrationResponse
    CreateAclsRequest CreateAclsResponse CreateDelegationTokenRequest
    CreateDelegationTokenResponse CreatePartitionsRequest CreatePartitionsResponse
    CreateTopicsRequest CreateTopicsResponse DefaultPrincipalData DeleteAclsRequest
    DeleteAclsResponse DeleteGroupsRequest DeleteGroupsResponse DeleteRecordsRequest
    DeleteRecordsResponse DeleteShareGroupOffsetsRequest DeleteShareGroupOffsetsResponse
    DeleteShareGroupStateRequest DeleteShareGroupStateResponse DeleteTopicsRequest
    DeleteTopicsResponse DescribeAclsRequest DescribeAclsResponse DescribeClientQuotasRequest
    DescribeClientQuotasResponse DescribeClusterRequest DescribeClusterResponse
    DescribeConfigsRequest DescribeConfigsResponse DescribeDelegationTokenRequest
    DescribeDelegationTokenResponse DescribeGroupsRequest DescribeGroupsResponse
    DescribeLogDirsRequest DescribeLogDirsResponse DescribeProducersRequest
    DescribeProducersResponse DescribeQuorumRequest DescribeQuorumResponse
    DescribeShareGroupOffsetsRequest DescribeShareGroupOffsetsResponse
    DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse DescribeTransactionsRequest
    DescribeTransactionsResponse DescribeUserScramCredentialsRequest
    DescribeUserScramCredentialsResponse ElectLeadersRequest ElectLeadersResponse
    EndQuorumEpochRequest EndQuorumEpochResponse EndTxnMarker EndTxnRequest EndTxnResponse
    EnvelopeRequest EnvelopeResponse ExpireDelegationTokenRequest ExpireDelegationTokenResponse
    FetchRequest FetchResponse FetchSnapshotRequest FetchSnapshotResponse
    FindCoordinatorRequest FindCoordinatorResponse GetTelemetrySubscriptionsRequest
    GetTelemetrySubscriptionsResponse HeartbeatRequest HeartbeatResponse
    IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse InitProducerIdRequest
    InitProducerIdResponse InitializeShareGroupStateRequest InitializeShareGroupStateResponse
    JoinGroupRequest JoinGroupResponse KRaftVersionRecord LeaderChangeMessage LeaveGroupRequest
    LeaveGroupResponse ListConfigResourcesRequest ListConfigResourcesResponse ListGroupsRequest
    ListGroupsResponse ListOffsetsRequest ListOffsetsResponse ListPartitionReassignmentsRequest
    ListPartitionReassignmentsResponse ListTransactionsRequest ListTransactionsResponse
    MetadataRequest MetadataResponse OffsetCommitRequest OffsetCommitResponse
    OffsetDeleteRequest OffsetDeleteResponse OffsetFetchRequest OffsetFetchResponse
    OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse ProduceRequest ProduceResponse
    PushTelemetryRequest PushTelemetryResponse ReadShareGroupStateRequest
    ReadShareGroupStateResponse ReadShareGroupStateSummaryRequest
    ReadShareGroupStateSummaryResponse RemoveRaftVoterRequest RemoveRaftVoterResponse
    RenewDelegationTokenRequest RenewDelegationTokenResponse RequestHeader ResponseHeader
    SaslAuthenticateRequest SaslAuthenticateResponse SaslHandshakeRequest SaslHandshakeResponse
    ShareAcknowledgeRequest ShareAcknowledgeResponse ShareFetchRequest ShareFetchResponse
    ShareGroupDescribeRequest ShareGroupDescribeResponse ShareGroupHeartbeatRequest
    ShareGroupHeartbeatResponse SnapshotFooterRecord SnapshotHeaderRecord
    StreamsGroupDescribeRequest StreamsGroupDescribeResponse StreamsGroupHeartbeatRequest
    StreamsGroupHeartbeatResponse SyncGroupRequest SyncGroupResponse TxnOffsetCommitRequest
    TxnOffsetCommitResponse UnregisterBrokerRequest UnregisterBrokerResponse
    UpdateFeaturesRequest UpdateFeaturesResponse UpdateRaftVoterRequest UpdateRaftVoterResponse
    VoteRequest VoteResponse VotersRecord WriteShareGroupStateRequest
    WriteShareGroupStateResponse WriteTxnMarkersRequest WriteTxnMarkersResponse
}

/// Asks `question` of every message version both sides have, `rounds` times; `None` is agreement.
fn compare(rounds: u64, question: impl Fn(&Pair, &Schema, i16, u64) -> Option<String>) {
    let schemas = support::schemas();
    let mut compared = 0;
    let mut differences = Vec::new();
    for pair in pairs() {
        let (schema, versions) = pair.shared(&schemas);
        for version in versions.iter() {
            for seed in 0..rounds {
                let difference = question(&pair, schema, version, seed);
                let difference = difference.map(|text| format!("{} {version}: {text}", pair.name));
                differences.extend(difference);
            }
            compared += 1;
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared >= 625, "only {compared} message versions compared");
}

#[test]
fn what_one_codec_writes_the_other_reads() {
    compare(ROUNDS, |pair, schema, version, seed| {
        let bytes = Bytes::from(Maker::new(schema, version, seed).bytes());
        let theirs = (pair.transcode)(version, &bytes);
        let ours = theirs
            .clone()
            .and_then(|theirs| support::transcode(pair.name, version, &theirs));
        let back = support::transcode(pair.name, version, &bytes)
            .and_then(|ours| (pair.transcode)(version, &ours));
        let wrong = theirs.as_ref() != Ok(&bytes)
            || ours.as_ref() != Ok(&bytes)
            || back.as_ref() != Ok(&bytes);
        wrong.then(|| format!("{bytes:?}: theirs {theirs:?}, then ours {ours:?}; back {back:?}"))
    });
}

#[test]
fn both_have_the_same_defaults() {
    compare(1, |pair, _, version, _| {
        let ours = (pair.our_default)(version);
        let theirs = (pair.their_default)(version);
        let agree = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => false,
        };
        (!agree).then(|| format!("default ours {ours:?}, theirs {theirs:?}"))
    });
}

#[test]
fn both_refuse_the_same_damage() {
    compare(DAMAGED_ROUNDS, |pair, schema, version, seed| {
        let mut bytes = Maker::new(schema, version, seed).bytes();
        // Includes the message's name, so that messages are not all damaged at one place.
        let salt = pair
            .name
            .bytes()
            .fold(u64::from(version.unsigned_abs()), |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(byte))
            });
        damage(&mut bytes, &mut Rng::with_seed(salt ^ seed));
        let bytes = Bytes::from(bytes);
        let ours = support::transcode(pair.name, version, &bytes);
        let theirs = (pair.transcode)(version, &bytes);
        let agree = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            (Err(_), Err(_)) => true,
            (Ok(_), Err(error)) => tolerated(error),
            (Err(_), Ok(_)) => false,
        };
        (!agree).then(|| format!("ours {ours:?}, theirs {theirs:?} {bytes:?}"))
    });
}

/// True when they refuse what we rightly read. Kafka's classes read both of these, too:
///
/// * a boolean that is neither 0 nor 1: every byte but 0 is true;
/// * tags that do not ascend: KIP-482 asks writers for the order, Kafka's readers do not check.
fn tolerated(error: &str) -> bool {
    error.starts_with("invalid boolean byte")
        || (error.starts_with("tagged field ") && error.contains(" followed "))
}

#[test]
fn the_differences_are_those_we_list() {
    let pairs = pairs();
    let both = |name: &str, version, bytes: &[u8]| {
        let pair = pairs.iter().find(|pair| pair.name == name);
        let bytes = Bytes::copy_from_slice(bytes);
        let theirs = (pair.expect("a pair").transcode)(version, &bytes);
        (support::transcode(name, version, &bytes), theirs)
    };

    let (ours, theirs) = both("DescribeClusterRequest", 0, &[2, 0]);
    assert_eq!(ours.as_deref(), Ok(&[1, 0][..]));
    assert!(tolerated(&theirs.expect_err("a boolean of 2")));

    // Two tags with empty values, 9 before 8.
    let (ours, theirs) = both("DescribeClusterRequest", 0, &[1, 2, 9, 0, 8, 0]);
    assert_eq!(ours.as_deref(), Ok(&[1, 2, 8, 0, 9, 0][..]));
    assert!(tolerated(&theirs.expect_err("tags that descend")));

    // One tag more than we allow, which is far above what any schema defines.
    let count = u8::try_from(TAGS_MAX + 1).expect("a varint of one byte");
    let mut bytes = vec![1, count];
    bytes.extend((0..count).flat_map(|tag| [10 + tag, 0]));
    let (ours, theirs) = both("DescribeClusterRequest", 0, &bytes);
    assert!(ours.is_err());
    assert_eq!(theirs.as_deref(), Ok(&bytes[..]));
}

/// Changes one byte, cuts the message off, or adds a byte.
fn damage(bytes: &mut Vec<u8>, random: &mut Rng) {
    let place = random.usize(..bytes.len().max(1));
    match (random.u8(..4), bytes.get_mut(place)) {
        (0, Some(_)) => bytes.truncate(place),
        (1..=2, Some(byte)) => *byte = random.u8(..),
        _ => bytes.push(0),
    }
}

#[test]
fn no_api_of_theirs_is_forgotten() {
    let pairs = pairs();
    let schemas = support::schemas();
    for api in kafka_wire::API_DESCRIPTORS {
        for name in [api.request.name, api.response.name] {
            let compared = pairs.iter().any(|pair| pair.name == name);
            let ours = schemas.iter().any(|schema| schema.name == name);
            assert_eq!(compared, ours, "{name}");
            assert_ne!(
                ours,
                NOT_COMPARED.iter().any(|(other, _)| *other == name),
                "{name}"
            );
        }
    }
}
