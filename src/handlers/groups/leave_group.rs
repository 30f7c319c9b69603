//! LeaveGroup (key 13): one member, or from version 3 on several (KIP-345).

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::leave_group_request::MemberIdentity;
use chronik_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use chronik_shards::questions::LeaveGroup;

use super::{GONE, ask};
use crate::handlers::api::{Api, Later, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Context;

/// From this version on members stand in a list.
const MEMBERS_VERSION: i16 = 3;

/// Members that the coordinator takes leave of in one go.
const MEMBERS_AT_ONCE: usize = 1_000;

impl Api for LeaveGroupRequest {
    const SHAPE: Shape = Shape::Group;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> LeaveGroupResponse {
        refused(error)
    }
}

impl Later for LeaveGroupRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        mut request: Self,
    ) -> LeaveGroupResponse {
        if call.version < MEMBERS_VERSION {
            request.members = vec![MemberIdentity {
                member_id: std::mem::take(&mut request.member_id),
                ..MemberIdentity::default()
            }];
        }
        let mut response = LeaveGroupResponse::default();
        let mut members = std::mem::take(&mut request.members).into_iter();
        // Each is judged by itself, so that the coordinator may have some at a time.
        loop {
            let leave = LeaveGroupRequest {
                members: members.by_ref().take(MEMBERS_AT_ONCE).collect(),
                ..request.clone()
            };
            let some = match ask(context, LeaveGroup(leave)).await {
                Some(response) => response,
                None => refused(GONE),
            };
            if some.error_code != ErrorCode::None.as_i16() {
                response = some;
                break;
            }
            response.members.extend(some.members);
            if members.len() == 0 {
                break;
            }
            context.world.pause().await;
        }
        if call.version < MEMBERS_VERSION {
            let members = std::mem::take(&mut response.members);
            if response.error_code == ErrorCode::None.as_i16() {
                response.error_code = members.first().map_or(0, |member| member.error_code);
            }
        }
        response
    }
}

fn refused(error: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse {
        error_code: error.as_i16(),
        ..LeaveGroupResponse::default()
    }
}
