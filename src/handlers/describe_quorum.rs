//! DescribeQuorum (key 55, KIP-595): who keeps the metadata log, which is this broker alone. Answered
//! from the image.

use chronik_catalog::{Image, METADATA_TOPIC};
use chronik_io::World;
use chronik_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use chronik_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Later, Shape};
use super::call::Call;
use super::context::Context;
use super::sentences::Sentences;
use super::slice::Slice;

/// From this version on the answer says where the nodes listen (KIP-853).
const NODES_VERSION: i16 = 2;

impl Api for DescribeQuorumRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeQuorumResponse {
        DescribeQuorumResponse {
            error_code: error.as_i16(),
            error_message: None,
            ..DescribeQuorumResponse::default()
        }
    }
}

impl Later for DescribeQuorumRequest {
    /// Answers. Anything but the metadata log's one partition, once, is unknown altogether
    /// (`KafkaRaftClient#handleDescribeQuorumRequest`).
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DescribeQuorumResponse {
        let image = context.image();
        let is_metadata_log = names_metadata_log(&request);
        let mut sentences = Sentences::new();
        let mut slice = Slice::begin(&context.world);
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                partitions.push(match is_metadata_log {
                    true => metadata_log(&image, context.world.now_ms()),
                    false => unknown(partition.partition_index, &mut sentences),
                });
                slice.breathe(&context.world).await;
            }
            topics.push(TopicData {
                topic_name: topic.topic_name,
                partitions,
                ..TopicData::default()
            });
        }
        let nodes = match is_metadata_log && call.version >= NODES_VERSION {
            true => vec![node(&image)],
            false => Vec::new(),
        };
        DescribeQuorumResponse {
            error_message: Some(Str::default()),
            topics,
            nodes,
            ..DescribeQuorumResponse::default()
        }
    }
}

/// Whether the metadata log's one partition is asked for and nothing else.
fn names_metadata_log(request: &DescribeQuorumRequest) -> bool {
    let [topic] = &request.topics[..] else {
        return false;
    };
    let mut indexes = topic
        .partitions
        .iter()
        .map(|partition| partition.partition_index);
    &*topic.topic_name == METADATA_TOPIC && indexes.next() == Some(0) && indexes.next().is_none()
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

fn unknown(index: i32, sentences: &mut Sentences) -> PartitionData {
    let sentence = || "This server does not host this topic-partition.".to_owned();
    PartitionData {
        partition_index: index,
        error_code: ErrorCode::UnknownTopicOrPartition.as_i16(),
        error_message: sentences.say(sentence),
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
