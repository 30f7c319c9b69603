//! Heartbeat (key 12).

use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

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
        match ask(context, GroupRequest::Heartbeat(request)).await {
            Some(GroupReply::Heartbeat(response)) => response,
            Some(_) => unreachable!("the coordinator answers what it was asked"),
            None => refused(GONE),
        }
    }
}

fn refused(error: ErrorCode) -> HeartbeatResponse {
    HeartbeatResponse {
        error_code: error.as_i16(),
        ..HeartbeatResponse::default()
    }
}
