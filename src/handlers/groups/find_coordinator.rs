//! FindCoordinator (key 10): this broker, once the coordinator's topic exists.
//!
//! Where Kafka tells the first client to ask again while it creates the topic, this waits for it.

use chronik_catalog::NewTopic;
use chronik_coordinators::groups::OFFSETS_TOPIC;
use chronik_io::World;
use chronik_protocol::configs::keys::topic;
use chronik_protocol::messages::find_coordinator_response::Coordinator;
use chronik_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::CreateTopics;
use tracing::{error, info};

use crate::handlers::api::{Api, Handled, Lengthy, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::{Advertised, Context};
use crate::handlers::pieces::Pieces;

/// From this version on several keys can be asked for (KIP-699).
const BATCHED_VERSION: i16 = 4;
/// From this version on there are share groups (KIP-932).
const SHARE_VERSION: i16 = 6;

/// `CoordinatorType`.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

impl Api for FindCoordinatorRequest {
    const SHAPE: Shape = Shape::Groups;

    fn settle(&mut self) {}

    fn refused(&self, call: &Call, error: ErrorCode) -> FindCoordinatorResponse {
        if call.version < BATCHED_VERSION {
            return single(error, None);
        }
        let keys = self.coordinator_keys.iter().cloned();
        FindCoordinatorResponse {
            coordinators: keys.map(|key| coordinator(key, error, None)).collect(),
            ..FindCoordinatorResponse::default()
        }
    }
}

impl Lengthy for FindCoordinatorRequest {
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<FindCoordinatorResponse> {
        let error = match request.key_type {
            GROUP => ensure_topic(context).await,
            // There is no such coordinator yet: Kafka says the same while it has none.
            TRANSACTION => ErrorCode::CoordinatorNotAvailable,
            SHARE if call.version >= SHARE_VERSION => ErrorCode::CoordinatorNotAvailable,
            _ => ErrorCode::InvalidRequest,
        };
        let node = (error == ErrorCode::None).then(|| (context.image().node_id, call.advertised()));
        if call.version < BATCHED_VERSION {
            return Handled::Short(single(error, node));
        }
        let keys = request.coordinator_keys;
        let mut pieces =
            Pieces::of_array::<FindCoordinatorResponse>(context, call, true, keys.len());
        for key in keys {
            pieces.push(&coordinator(key, error, node)).await;
        }
        Handled::Reply(pieces.finish(call))
    }
}

/// Where the coordinator of one key is: a node and its address, unless there is an error.
fn coordinator(key: Str, error: ErrorCode, node: Option<(i32, &Advertised)>) -> Coordinator {
    Coordinator {
        key,
        node_id: node.map_or(-1, |(id, _)| id),
        host: node.map_or_else(Str::default, |(_, at)| at.host.clone()),
        port: node.map_or(-1, |(_, at)| at.port),
        error_code: error.as_i16(),
        ..Coordinator::default()
    }
}

/// The same for versions that ask for one key.
fn single(error: ErrorCode, node: Option<(i32, &Advertised)>) -> FindCoordinatorResponse {
    let Coordinator {
        node_id,
        host,
        port,
        error_code,
        ..
    } = coordinator(Str::default(), error, node);
    FindCoordinatorResponse {
        error_code,
        error_message: message(error),
        node_id,
        host,
        port,
        ..FindCoordinatorResponse::default()
    }
}

/// What old versions are told besides the code, Kafka's word for no error included.
fn message(error: ErrorCode) -> Option<Str> {
    Some(Str::from_static(match error {
        ErrorCode::None => "NONE",
        ErrorCode::InvalidRequest => "There is no coordinator of this kind.",
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        _ => return None,
    }))
}

/// Creates `__consumer_offsets` when it is first needed.
async fn ensure_topic<W: World>(context: &Context<W>) -> ErrorCode {
    if context.image().topic(OFFSETS_TOPIC).is_some() {
        return ErrorCode::None;
    }
    let setting =
        |name: &'static str, value: String| (Str::from_static(name), Some(Str::from(value)));
    let segment_bytes = context.config.offsets_topic.segment_bytes.to_string();
    let topic = NewTopic {
        name: Str::from_static(OFFSETS_TOPIC),
        partition_count: context.config.offsets_topic.partitions,
        // There is one broker; `offsets.topic.replication.factor` is for when there are more.
        replication_factor: 1,
        configs: vec![
            setting(topic::CLEANUP_POLICY.name(), "compact".to_owned()),
            setting(topic::COMPRESSION_TYPE.name(), "producer".to_owned()),
            setting(topic::SEGMENT_BYTES.name(), segment_bytes),
        ],
        ..NewTopic::default()
    };
    let request = CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    let created = match context.router.ask_designated(request).await.await {
        Ok(created) => created,
        Err(_) => return ErrorCode::CoordinatorNotAvailable,
    };
    for topic in created {
        match topic.result {
            Ok(_) => info!(topic = OFFSETS_TOPIC, "created for the group coordinator"),
            // Somebody else was faster.
            Err(error) if error.code == ErrorCode::TopicAlreadyExists => {}
            Err(error) => {
                error!(topic = OFFSETS_TOPIC, %error, "not created");
                return ErrorCode::CoordinatorNotAvailable;
            }
        }
    }
    ErrorCode::None
}
