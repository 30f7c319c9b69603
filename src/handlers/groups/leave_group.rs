//! LeaveGroup (key 13): one member, or from version 3 on several (KIP-345).

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::leave_group_request::MemberIdentity;
use chronik_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on members stand in a list.
const MEMBERS_VERSION: i16 = 3;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    mut request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    if call.version < MEMBERS_VERSION {
        request.members = vec![MemberIdentity {
            member_id: std::mem::take(&mut request.member_id),
            ..MemberIdentity::default()
        }];
    }
    let mut response = match ask(&context, GroupRequest::Leave(request)).await {
        Some(GroupReply::Leave(response)) => response,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => LeaveGroupResponse {
            error_code: GONE.as_i16(),
            ..LeaveGroupResponse::default()
        },
    };
    if call.version < MEMBERS_VERSION {
        let members = std::mem::take(&mut response.members);
        if response.error_code == ErrorCode::None.as_i16() {
            response.error_code = members.first().map_or(0, |member| member.error_code);
        }
    }
    response
}
