//! Every request refused as a whole, in every version: the answer can be encoded, and says the error in
//! every place that a client looks into.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use chronik_protocol::frame::RequestHeader;
use chronik_protocol::messages::*;
use chronik_protocol::versions::ServedApi;
use chronik_protocol::{ErrorCode, Message, Str, Writer};

use crate::handlers::api::{Api, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Advertised;
use crate::handlers::session::{Peer, Session};
use crate::handlers::table::for_each_api;

const PARTITIONS: [i32; 3] = [0, 1, 7];

fn names() -> [Str; 2] {
    [Str::from_static("a"), Str::from_static("b")]
}

/// Requests by their types.
type Named = HashMap<TypeId, Box<dyn Any>>;

fn add<Q: Api>(all: &mut Named, request: Q) {
    all.insert(TypeId::of::<Q>(), Box::new(request));
}

/// A request of two topics with three partitions each.
macro_rules! of_partitions {
    ($all:ident, $request:ident, $module:ident::$topic:ident, $topics:ident, $name:ident,
     $partitions:ident, $partition:ident, $index:ident) => {{
        let partitions = PARTITIONS.map(|index| $module::$partition {
            $index: index,
            ..$module::$partition::default()
        });
        let topics = names().map(|name| $module::$topic {
            $name: name,
            $partitions: partitions.to_vec(),
            ..$module::$topic::default()
        });
        let $topics = topics.to_vec();
        add(
            $all,
            $request {
                $topics,
                ..$request::default()
            },
        );
    }};
}

/// A request of two elements with names.
macro_rules! of_names {
    ($all:ident, $request:ident, $array:ident, $module:ident::$element:ident, $name:ident) => {{
        let elements = names().map(|name| $module::$element {
            $name: name.into(),
            ..$module::$element::default()
        });
        let $array = elements.to_vec().into();
        add(
            $all,
            $request {
                $array,
                ..$request::default()
            },
        );
    }};
}

fn add_those_of_partitions(all: &mut Named) {
    of_partitions!(
        all,
        ProduceRequest,
        produce_request::TopicProduceData,
        topic_data,
        name,
        partition_data,
        PartitionProduceData,
        index
    );
    of_partitions!(
        all,
        FetchRequest,
        fetch_request::FetchTopic,
        topics,
        topic,
        partitions,
        FetchPartition,
        partition
    );
    of_partitions!(
        all,
        ListOffsetsRequest,
        list_offsets_request::ListOffsetsTopic,
        topics,
        name,
        partitions,
        ListOffsetsPartition,
        partition_index
    );
    of_partitions!(
        all,
        OffsetCommitRequest,
        offset_commit_request::OffsetCommitRequestTopic,
        topics,
        name,
        partitions,
        OffsetCommitRequestPartition,
        partition_index
    );
    of_partitions!(
        all,
        DeleteRecordsRequest,
        delete_records_request::DeleteRecordsTopic,
        topics,
        name,
        partitions,
        DeleteRecordsPartition,
        partition_index
    );
    of_partitions!(
        all,
        OffsetForLeaderEpochRequest,
        offset_for_leader_epoch_request::OffsetForLeaderTopic,
        topics,
        topic,
        partitions,
        OffsetForLeaderPartition,
        partition
    );
}

fn add_those_of_topics(all: &mut Named) {
    of_names!(
        all,
        MetadataRequest,
        topics,
        metadata_request::MetadataRequestTopic,
        name
    );
    of_names!(
        all,
        CreateTopicsRequest,
        topics,
        create_topics_request::CreatableTopic,
        name
    );
    of_names!(
        all,
        CreatePartitionsRequest,
        topics,
        create_partitions_request::CreatePartitionsTopic,
        name
    );
    of_names!(
        all,
        DescribeTopicPartitionsRequest,
        topics,
        describe_topic_partitions_request::TopicRequest,
        name
    );
    of_names!(
        all,
        OffsetFetchRequest,
        groups,
        offset_fetch_request::OffsetFetchRequestGroup,
        group_id
    );
    let topics = names().map(|name| delete_topics_request::DeleteTopicState {
        name: Some(name),
        ..Default::default()
    });
    add(
        all,
        DeleteTopicsRequest {
            topics: topics.to_vec(),
            topic_names: names().to_vec(),
            ..Default::default()
        },
    );
}

fn add_those_of_replicas(all: &mut Named) {
    let topics = names().map(|topic| elect_leaders_request::TopicPartitions {
        topic,
        partitions: PARTITIONS.to_vec(),
        ..Default::default()
    });
    add(
        all,
        ElectLeadersRequest {
            topic_partitions: Some(topics.to_vec()),
            ..Default::default()
        },
    );
    let topics = names().map(
        |name| alter_replica_log_dirs_request::AlterReplicaLogDirTopic {
            name,
            partitions: PARTITIONS.to_vec(),
            ..Default::default()
        },
    );
    let dir = alter_replica_log_dirs_request::AlterReplicaLogDir {
        topics: topics.to_vec(),
        ..Default::default()
    };
    add(
        all,
        AlterReplicaLogDirsRequest {
            dirs: vec![dir],
            ..Default::default()
        },
    );
}

fn add_those_of_others(all: &mut Named) {
    of_partitions!(
        all,
        AlterPartitionReassignmentsRequest,
        alter_partition_reassignments_request::ReassignableTopic,
        topics,
        name,
        partitions,
        ReassignablePartition,
        partition_index
    );
    of_names!(
        all,
        DescribeConfigsRequest,
        resources,
        describe_configs_request::DescribeConfigsResource,
        resource_name
    );
    of_names!(
        all,
        AlterConfigsRequest,
        resources,
        alter_configs_request::AlterConfigsResource,
        resource_name
    );
    of_names!(
        all,
        IncrementalAlterConfigsRequest,
        resources,
        incremental_alter_configs_request::AlterConfigsResource,
        resource_name
    );
    of_names!(
        all,
        CreateAclsRequest,
        creations,
        create_acls_request::AclCreation,
        resource_name
    );
    of_names!(
        all,
        DeleteAclsRequest,
        filters,
        delete_acls_request::DeleteAclsFilter,
        resource_name_filter
    );
}

fn add_those_of_groups(all: &mut Named) {
    let groups = names().to_vec();
    add(
        all,
        FindCoordinatorRequest {
            coordinator_keys: groups.clone(),
            ..Default::default()
        },
    );
    add(
        all,
        DescribeGroupsRequest {
            groups: groups.clone(),
            ..Default::default()
        },
    );
    add(
        all,
        ConsumerGroupDescribeRequest {
            group_ids: groups.clone(),
            ..Default::default()
        },
    );
    add(
        all,
        DeleteGroupsRequest {
            groups_names: groups,
            ..Default::default()
        },
    );
}

/// The places of an answer that say the error.
fn places(api: ServedApi, version: i16) -> usize {
    let by_partition = names().len() * PARTITIONS.len();
    match (api, version) {
        (
            ServedApi::Produce
            | ServedApi::ListOffsets
            | ServedApi::OffsetCommit
            | ServedApi::DeleteRecords
            | ServedApi::OffsetForLeaderEpoch
            | ServedApi::AlterReplicaLogDirs,
            _,
        )
        | (ServedApi::Fetch, ..7)
        | (ServedApi::ElectLeaders, ..1) => by_partition,
        (ServedApi::Fetch, ..13)
        | (ServedApi::ElectLeaders | ServedApi::AlterPartitionReassignments, _) => by_partition + 1,
        (
            ServedApi::Metadata
            | ServedApi::DescribeGroups
            | ServedApi::ConsumerGroupDescribe
            | ServedApi::DeleteGroups
            | ServedApi::CreateTopics
            | ServedApi::DeleteTopics
            | ServedApi::CreatePartitions
            | ServedApi::DescribeTopicPartitions
            | ServedApi::DescribeConfigs
            | ServedApi::AlterConfigs
            | ServedApi::IncrementalAlterConfigs
            | ServedApi::CreateAcls
            | ServedApi::DeleteAcls,
            _,
        )
        | (ServedApi::FindCoordinator, 4..)
        | (ServedApi::OffsetFetch, 8..) => names().len(),
        // Nothing is asked for here, and there is no place for the whole.
        (ServedApi::OffsetFetch, ..2) | (ServedApi::DescribeLogDirs, ..3) => 0,
        _ => 1,
    }
}

fn call(api: ServedApi, version: i16) -> Call {
    let peer = Peer {
        advertised: Advertised {
            host: Str::from_static("localhost"),
            port: 9092,
        },
        host: Str::from_static("/127.0.0.1"),
    };
    let header = RequestHeader {
        api_key: api.range().key.as_i16(),
        api_version: version,
        ..RequestHeader::default()
    };
    let mut session = Session::begin(peer);
    Call::new(api, header, &Rc::clone(session.open()), 0)
}

fn encoded<M: Message>(response: &M, version: i16) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    response.encode(&mut writer, version).expect("encodes");
    writer.into_bytes()
}

/// Two errors, so that the bytes in which their answers differ are the places where they are told.
fn refuse_every_version<Q: Api>(named: &mut Named, denial: ErrorCode) {
    let request = named.remove(&TypeId::of::<Q>());
    let request = request.map_or_else(Q::default, |it| *it.downcast::<Q>().expect("of its type"));
    let api = ServedApi::of(Q::KEY).expect("advertised");
    let range = api.range();
    for version in range.min..=range.max {
        let call = call(api, version);
        let other = encoded(&request.refused(&call, ErrorCode::InvalidConfig), version);
        let refused = encoded(&request.refused(&call, denial), version);
        assert_eq!(refused.len(), other.len(), "{api:?} {version}");
        let differing = refused.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert_eq!(differing, places(api, version), "{api:?} {version}");
    }
}

macro_rules! refuse_each_api {
    ($($key:ident => $when:ident $request:ident,)*) => {
        fn refuse_each(named: &mut Named) {
            $(
                let denial = match <$request as Api>::SHAPE {
                    Shape::Free => ErrorCode::ClusterAuthorizationFailed,
                    shape => shape.denial(),
                };
                refuse_every_version::<$request>(named, denial);
            )*
        }
    };
}
for_each_api!(refuse_each_api);

#[test]
fn a_refused_request_says_so_in_every_place_and_version() {
    let mut named = Named::new();
    add_those_of_partitions(&mut named);
    add_those_of_topics(&mut named);
    add_those_of_replicas(&mut named);
    add_those_of_others(&mut named);
    add_those_of_groups(&mut named);
    assert_eq!(named.len(), 24);
    refuse_each(&mut named);
    assert!(named.is_empty(), "requests of no API: {}", named.len());
}
