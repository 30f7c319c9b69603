//! JoinGroup (key 11): parked at the coordinator until the group is complete.

use std::rc::Rc;

use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::{GONE, caller};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on the time for a rebalance is told apart from the session's.
const REBALANCE_TIMEOUT_VERSION: i16 = 1;
/// From this version on new members come again with the id they are given (KIP-394).
const KNOWN_MEMBER_ID_VERSION: i16 = 4;
/// From this version on a response need not name a protocol.
const NULLABLE_PROTOCOL_VERSION: i16 = 7;
/// From this version on a leader can be told that nothing is to be assigned (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

/// Hands a member's wish to the coordinator; what is returned waits for the group.
pub(super) async fn begin<W: World>(
    context: &Context<W>,
    call: Rc<Call>,
    mut request: JoinGroupRequest,
) -> impl Future<Output = JoinGroupResponse> + use<W> {
    if call.version < REBALANCE_TIMEOUT_VERSION {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let asked = context.router.ask_group(GroupRequest::Join {
        request,
        caller: caller(&call),
        known_member_id: call.version >= KNOWN_MEMBER_ID_VERSION,
        skip_assignment: call.version >= SKIP_ASSIGNMENT_VERSION,
    });
    let asked = asked.await;
    async move {
        let mut response = match asked.reply().await {
            Ok(GroupReply::Join(response)) => response,
            Ok(_) => unreachable!("the coordinator answers what it was asked"),
            Err(_) => JoinGroupResponse {
                error_code: GONE.as_i16(),
                ..JoinGroupResponse::default()
            },
        };
        if response.error_code != 0 {
            response.protocol_name = None;
        }
        if call.version < NULLABLE_PROTOCOL_VERSION {
            response.protocol_name.get_or_insert_default();
        }
        response
    }
}
