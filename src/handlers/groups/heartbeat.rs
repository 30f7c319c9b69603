//! Heartbeat (key 12).

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use chronik_shards::questions::Heartbeat;

use super::{GONE, ask};
use crate::handlers::api::{Api, Later, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

impl Api for HeartbeatRequest {
    const SHAPE: Shape = Shape::Group;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> HeartbeatResponse {
        refused(error)
    }
}

impl Later for HeartbeatRequest {
    async fn answer<W: World>(context: &Context<W>, _: &Call, request: Self) -> HeartbeatResponse {
        let asked = ask(context, Heartbeat(request)).await;
        asked.unwrap_or_else(|| refused(GONE))
    }
}

fn refused(error: ErrorCode) -> HeartbeatResponse {
    HeartbeatResponse {
        error_code: error.as_i16(),
        ..HeartbeatResponse::default()
    }
}
