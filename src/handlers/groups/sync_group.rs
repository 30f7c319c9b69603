//! SyncGroup (key 14): parked at the coordinator until the leader has assigned.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on members say which protocol they mean (KIP-559).
const PROTOCOL_VERSION: i16 = 5;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let refused = |error: ErrorCode| SyncGroupResponse {
        error_code: error.as_i16(),
        ..SyncGroupResponse::default()
    };
    let says_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if call.version >= PROTOCOL_VERSION && !says_protocol {
        return refused(ErrorCode::InconsistentGroupProtocol);
    }
    match ask(&context, GroupRequest::Sync(request)).await {
        Some(GroupReply::Sync(response)) => response,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => refused(GONE),
    }
}
