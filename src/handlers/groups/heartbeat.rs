//! Heartbeat (key 12).

use std::rc::Rc;

use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{GONE, ask};
use crate::handlers::context::Context;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    match ask(&context, GroupRequest::Heartbeat(request)).await {
        Some(GroupReply::Heartbeat(response)) => response,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => HeartbeatResponse {
            error_code: GONE.as_i16(),
            ..HeartbeatResponse::default()
        },
    }
}
