//! Metadata (key 3): brokers, topics and who leads their partitions.
//!
//! Answered from the image; a missing topic may be created first. The topic that was created is
//! described at once, because the controller answers after every shard knows it.

use std::collections::{HashMap, HashSet};

use chronik_catalog::{Image, NewTopic, PartitionInfo, Topic, check_topic_name};
use chronik_io::World;
use chronik_protocol::messages::metadata_request::MetadataRequestTopic;
use chronik_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use chronik_protocol::messages::{MetadataRequest, MetadataResponse};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::questions::CreateTopics;
use tracing::info;

use super::api::{Api, Handled, Lengthy, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, keep};
use super::operations;

/// From this version on topics can be asked for by id, and a name may be null.
const TOPIC_ID_VERSION: i16 = 12;

/// Partitions that are described on the shard; more are beside it.
const PARTITIONS_AT_ONCE: usize = 2_000;
/// Topics that are: each may have many partitions.
const NAMES_AT_ONCE: usize = 200;

impl Api for MetadataRequest {
    const SHAPE: Shape = Shape::Topics;

    /// A set of names, a set of ids.
    fn settle(&mut self) {
        if let Some(topics) = &mut self.topics {
            keep(topics, Keep::First, |topic| {
                (topic.name.clone(), topic.topic_id)
            });
        }
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> MetadataResponse {
        let topics = self.topics.iter().flatten();
        let topics = topics.map(|topic| MetadataResponseTopic {
            error_code: error.as_i16(),
            name: Some(topic.name.clone().unwrap_or_default()),
            topic_id: topic.topic_id,
            ..MetadataResponseTopic::default()
        });
        MetadataResponse {
            topics: topics.collect(),
            ..MetadataResponse::default()
        }
    }
}

impl Lengthy for MetadataRequest {
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<MetadataResponse> {
        let mut is_large = call.is_large;
        let describe = Describe {
            with_operations: request.include_topic_authorized_operations,
        };
        let version = call.version;
        let (wanted, request) = beside(&context.world, is_large, move || {
            (Wanted::of(version, &request), request)
        })
        .await;
        let topics = match wanted {
            // Nothing but the error, as of a request that Kafka cannot handle.
            Wanted::Refused => {
                return Handled::Response(request.refused(call, ErrorCode::InvalidRequest));
            }
            Wanted::All => {
                let image = context.image();
                let partitions: usize = image.topics().map(|topic| topic.partitions.len()).sum();
                is_large |= partitions > PARTITIONS_AT_ONCE;
                let all = move || {
                    let topics = image.topics();
                    topics.map(|topic| describe.topic(topic)).collect()
                };
                beside(&context.world, is_large, all).await
            }
            Wanted::Ids(ids) => {
                let image = context.image();
                is_large |= ids.len() > NAMES_AT_ONCE;
                beside(&context.world, is_large, move || {
                    describe.by_ids(&image, &ids)
                })
                .await
            }
            Wanted::Names(names) => {
                let create = request.allow_auto_topic_creation && context.config.auto_create_topics;
                let errors = if create {
                    create_missing(context, &names).await
                } else {
                    HashMap::new()
                };
                let image = context.image();
                is_large |= names.len() > NAMES_AT_ONCE;
                let by_names = move || describe.by_names(&image, &names, &errors);
                beside(&context.world, is_large, by_names).await
            }
        };
        let asked = request.include_cluster_authorized_operations;
        let response = described(context, call, topics, asked);
        match is_large {
            true => Handled::Long(response),
            false => Handled::Short(response),
        }
    }
}

/// These topics, and the broker they are on.
fn described<W: World>(
    context: &Context<W>,
    call: &Call,
    topics: Vec<MetadataResponseTopic>,
    with_operations: bool,
) -> MetadataResponse {
    let image = context.image();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: image.node_id,
            host: call.advertised().host.clone(),
            port: call.advertised().port,
            rack: context.config.rack.clone().map(Str::from),
            ..MetadataResponseBroker::default()
        }],
        cluster_id: Some(image.cluster_id.clone()),
        controller_id: image.node_id,
        topics,
        cluster_authorized_operations: if with_operations {
            operations::CLUSTER
        } else {
            operations::NOT_ASKED
        },
        ..MetadataResponse::default()
    }
}

/// Which topics a request asks for.
enum Wanted {
    All,
    Names(Vec<Str>),
    Ids(Vec<Uuid>),
    /// Ids or null names in a version that has none.
    Refused,
}

impl Wanted {
    fn of(version: i16, request: &MetadataRequest) -> Self {
        let topics = match &request.topics {
            None => return Self::All,
            // Version 0 has no null and says "all" by an empty list.
            Some(topics) if topics.is_empty() && version == 0 => return Self::All,
            Some(topics) => topics,
        };
        let by_id = |topic: &MetadataRequestTopic| !topic.topic_id.is_zero();
        let unnamed = |topic: &MetadataRequestTopic| topic.name.is_none();
        if version < TOPIC_ID_VERSION && topics.iter().any(|topic| by_id(topic) || unnamed(topic)) {
            return Self::Refused;
        }
        if topics.iter().any(by_id) {
            let mut seen = HashSet::new();
            let ids = topics.iter().map(|topic| topic.topic_id);
            return Self::Ids(ids.filter(|id| !id.is_zero() && seen.insert(*id)).collect());
        }
        let mut seen = HashSet::new();
        let names = topics.iter().filter_map(|topic| topic.name.clone());
        Self::Names(names.filter(|name| seen.insert(name.clone())).collect())
    }
}

/// Creates the topics of these names that do not exist and may; the errors of those that could not.
async fn create_missing<W: World>(context: &Context<W>, names: &[Str]) -> HashMap<Str, ErrorCode> {
    let image = context.image();
    let topics: Vec<NewTopic> = names
        .iter()
        .filter(|name| image.topic(name).is_none() && check_topic_name(name).is_ok())
        .filter(|name| !chronik_catalog::is_internal_topic(name))
        .map(|name| NewTopic::with_defaults(name.detached()))
        .collect();
    if topics.is_empty() {
        return HashMap::new();
    }
    let created: Vec<Str> = topics.iter().map(|topic| topic.name.clone()).collect();
    let request = CreateTopics {
        topics,
        validate_only: false,
    };
    let results = match context.router.ask_designated(request).await.await {
        Ok(results) => results,
        Err(_) => {
            let error = ErrorCode::LeaderNotAvailable;
            return created.into_iter().map(|name| (name, error)).collect();
        }
    };
    let mut errors = HashMap::new();
    for created in results {
        match created.result {
            Ok(_) => info!(topic = %created.name, "created because a client asked for it"),
            // Somebody else was faster; the image has it.
            Err(error) if error.code == ErrorCode::TopicAlreadyExists => {}
            Err(error) => {
                errors.insert(created.name, error.code);
            }
        }
    }
    errors
}

#[derive(Clone, Copy)]
struct Describe {
    with_operations: bool,
}

impl Describe {
    fn by_ids(&self, image: &Image, ids: &[Uuid]) -> Vec<MetadataResponseTopic> {
        let describe = |id: &Uuid| match image.topic_by_id(*id) {
            Some(topic) => self.topic(topic),
            None => MetadataResponseTopic {
                error_code: ErrorCode::UnknownTopicId.as_i16(),
                name: None,
                topic_id: *id,
                ..MetadataResponseTopic::default()
            },
        };
        ids.iter().map(describe).collect()
    }

    fn by_names(
        &self,
        image: &Image,
        names: &[Str],
        errors: &HashMap<Str, ErrorCode>,
    ) -> Vec<MetadataResponseTopic> {
        let describe = |name: &Str| match image.topic(name) {
            Some(topic) => self.topic(topic),
            None => MetadataResponseTopic {
                error_code: missing(name, errors).as_i16(),
                name: Some(name.clone()),
                ..MetadataResponseTopic::default()
            },
        };
        names.iter().map(describe).collect()
    }

    fn topic(&self, topic: &Topic) -> MetadataResponseTopic {
        let operations = if self.with_operations {
            operations::TOPIC
        } else {
            operations::NOT_ASKED
        };
        MetadataResponseTopic {
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal,
            partitions: (0..)
                .zip(&topic.partitions)
                .map(|(index, info)| partition(index, info))
                .collect(),
            topic_authorized_operations: operations,
            ..MetadataResponseTopic::default()
        }
    }
}

fn missing(name: &Str, errors: &HashMap<Str, ErrorCode>) -> ErrorCode {
    if check_topic_name(name).is_err() {
        return ErrorCode::InvalidTopicException;
    }
    let error = errors.get(name).copied();
    error.unwrap_or(ErrorCode::UnknownTopicOrPartition)
}

fn partition(index: i32, info: &PartitionInfo) -> MetadataResponsePartition {
    let error = if info.leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else {
        ErrorCode::None
    };
    MetadataResponsePartition {
        error_code: error.as_i16(),
        partition_index: index,
        leader_id: info.leader,
        leader_epoch: info.leader_epoch,
        replica_nodes: info.replicas.clone(),
        isr_nodes: info.isr.clone(),
        ..MetadataResponsePartition::default()
    }
}
