//! DescribeQuorum (key 55, KIP-595): who keeps the metadata log, which is this broker alone. Answered
//! from the image.

use chronik_io::World;
use chronik_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use chronik_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::catalog::{Image, METADATA_TOPIC};

use super::call::Call;
use super::context::Context;

/// From this version on the answer says where the nodes listen (KIP-853).
const NODES_VERSION: i16 = 2;

/// Answers. Anything but the metadata log's one partition, once, is unknown altogether
/// (`KafkaRaftClient#handleDescribeQuorumRequest`).
pub(super) fn handle<W: World>(
    context: &Context<W>,
    call: &Call,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let image = context.image();
    let asked = request.topics.iter().map(|topic| {
        let indexes = topic.partitions.iter();
        (
            &*topic.topic_name,
            indexes.map(|partition| partition.partition_index),
        )
    });
    let asked = asked.flat_map(|(name, indexes)| indexes.map(move |index| (name, index)));
    let is_metadata_log = asked.eq([(METADATA_TOPIC, 0)]) && request.topics.len() == 1;
    let nodes = match is_metadata_log && call.version >= NODES_VERSION {
        true => vec![node(&image)],
        false => Vec::new(),
    };
    let topics = request.topics.into_iter().map(|topic| TopicData {
        topic_name: topic.topic_name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| match is_metadata_log {
                true => metadata_log(&image, context.world.now_ms()),
                false => unknown(partition.partition_index),
            })
            .collect(),
        ..TopicData::default()
    });
    DescribeQuorumResponse {
        error_message: Some(Str::default()),
        topics: topics.collect(),
        nodes,
        ..DescribeQuorumResponse::default()
    }
}

fn metadata_log(image: &Image, now_ms: i64) -> PartitionData {
    let end_offset = image.offset.saturating_add(1);
    PartitionData {
        partition_index: 0,
        error_message: Some(Str::default()),
        leader_id: image.node_id,
        leader_epoch: image.epoch,
        high_watermark: end_offset,
        current_voters: vec![ReplicaState {
            replica_id: image.node_id,
            replica_directory_id: image.voter_directory(image.node_id),
            log_end_offset: end_offset,
            last_fetch_timestamp: now_ms,
            last_caught_up_timestamp: now_ms,
            ..ReplicaState::default()
        }],
        ..PartitionData::default()
    }
}

fn unknown(index: i32) -> PartitionData {
    PartitionData {
        partition_index: index,
        error_code: ErrorCode::UnknownTopicOrPartition.as_i16(),
        error_message: Some(Str::from_static(
            "This server does not host this topic-partition.",
        )),
        ..PartitionData::default()
    }
}

/// Kafka names the controllers' listeners; here the broker's own are those that answer.
fn node(image: &Image) -> Node {
    let broker = image.brokers.get(&image.node_id);
    let endpoints = broker.into_iter().flat_map(|broker| &broker.endpoints);
    let listeners = endpoints.map(|endpoint| Listener {
        name: endpoint.name.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        ..Listener::default()
    });
    Node {
        node_id: image.node_id,
        listeners: listeners.collect(),
        ..Node::default()
    }
}
