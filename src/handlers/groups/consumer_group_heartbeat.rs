//! ConsumerGroupHeartbeat (key 68, KIP-848).

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use chronik_shards::questions::ConsumerHeartbeat;

use super::{GONE, ask, caller, consumer_groups_are_on};
use crate::handlers::api::{Api, Later, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on members make their own ids (KIP-1082).
const ID_REQUIRED_VERSION: i16 = 1;

impl Api for ConsumerGroupHeartbeatRequest {
    const SHAPE: Shape = Shape::Group;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> ConsumerGroupHeartbeatResponse {
        refused(error)
    }
}

impl Later for ConsumerGroupHeartbeatRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> ConsumerGroupHeartbeatResponse {
        if !consumer_groups_are_on(context) {
            return refused(ErrorCode::UnsupportedVersion);
        }
        let heartbeat = ConsumerHeartbeat {
            request,
            id_required: call.version >= ID_REQUIRED_VERSION,
            caller: caller(call),
        };
        let asked = ask(context, heartbeat).await;
        asked.unwrap_or_else(|| refused(GONE))
    }
}

fn refused(error: ErrorCode) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: error.as_i16(),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
