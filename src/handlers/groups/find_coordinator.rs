//! FindCoordinator (key 10): this broker, once the coordinator's topic exists.
//!
//! Where Kafka tells the first client to ask again while it creates the topic, this waits for it.

use std::rc::Rc;

use chronik_catalog::{ControllerReply, ControllerRequest, NewTopic};
use chronik_coordinators::groups::OFFSETS_TOPIC;
use chronik_io::World;
use chronik_protocol::configs::keys::topic;
use chronik_protocol::messages::find_coordinator_response::Coordinator;
use chronik_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use chronik_protocol::{ErrorCode, Str};
use tracing::{error, info};

use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::pieces::Pieces;
use crate::server::service::Reply;

/// From this version on several keys can be asked for (KIP-699).
const BATCHED_VERSION: i16 = 4;
/// From this version on there are share groups (KIP-932).
const SHARE_VERSION: i16 = 6;

/// `CoordinatorType`.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    request: FindCoordinatorRequest,
) -> Reply {
    let error = match request.key_type {
        GROUP => ensure_topic(&context).await,
        // There is no such coordinator yet: Kafka says the same while it has none.
        TRANSACTION => ErrorCode::CoordinatorNotAvailable,
        SHARE if call.version >= SHARE_VERSION => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::InvalidRequest,
    };
    let (node_id, host, port) = if error == ErrorCode::None {
        let advertised = &call.advertised;
        (
            context.image().node_id,
            advertised.host.clone(),
            advertised.port,
        )
    } else {
        (-1, Str::default(), -1)
    };
    if call.version < BATCHED_VERSION {
        return call.reply(&FindCoordinatorResponse {
            error_code: error.as_i16(),
            error_message: message(error),
            node_id,
            host,
            port,
            ..FindCoordinatorResponse::default()
        });
    }
    let keys = request.coordinator_keys;
    let mut pieces = Pieces::of_array::<FindCoordinatorResponse>(&context, &call, true, keys.len());
    for key in keys {
        let coordinator = Coordinator {
            key,
            node_id,
            host: host.clone(),
            port,
            error_code: error.as_i16(),
            ..Coordinator::default()
        };
        pieces.push(&coordinator).await;
    }
    pieces.finish(&call)
}

/// What old versions are told besides the code, Kafka's word for no error included.
fn message(error: ErrorCode) -> Option<Str> {
    Some(Str::from_static(match error {
        ErrorCode::None => "NONE",
        ErrorCode::InvalidRequest => "There is no coordinator of this kind.",
        _ => "The coordinator is not available.",
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
    let request = ControllerRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    let created = match context.router.control(request).await {
        Ok(ControllerReply::CreateTopics(created)) => created,
        Ok(_) => unreachable!("the controller answers what it was asked"),
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
