//! SyncGroup (key 14): parked at the coordinator until the leader has assigned.

use std::rc::Rc;

use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::GONE;
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on members say which protocol they mean (KIP-559).
const PROTOCOL_VERSION: i16 = 5;

/// Hands a member's question to the coordinator; what is returned waits for the leader's answer.
pub(super) async fn begin<W: World>(
    context: &Context<W>,
    call: Rc<Call>,
    request: SyncGroupRequest,
) -> impl Future<Output = SyncGroupResponse> + use<W> {
    let refused = |error: ErrorCode| SyncGroupResponse {
        error_code: error.as_i16(),
        ..SyncGroupResponse::default()
    };
    let says_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    let asked = if call.version >= PROTOCOL_VERSION && !says_protocol {
        Err(ErrorCode::InconsistentGroupProtocol)
    } else {
        Ok(context.router.ask_group(GroupRequest::Sync(request)).await)
    };
    async move {
        match asked {
            Err(error) => refused(error),
            Ok(asked) => match asked.reply().await {
                Ok(GroupReply::Sync(response)) => response,
                Ok(_) => unreachable!("the coordinator answers what it was asked"),
                Err(_) => refused(GONE),
            },
        }
    }
}
