//! DescribeGroups (key 15): state, protocol and members of classic groups.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::operations;

/// From this version on a group that is not there is an error (KIP-1043).
const MISSING_IS_ERROR_VERSION: i16 = 6;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let describe = GroupRequest::Describe {
        groups: request.groups.clone(),
        missing_is_error: call.version >= MISSING_IS_ERROR_VERSION,
    };
    let mut groups = match ask(&context, describe).await {
        Some(GroupReply::Describe(groups)) => groups,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => request.groups.into_iter().map(gone).collect(),
    };
    if request.include_authorized_operations {
        for group in &mut groups {
            if group.error_code == ErrorCode::None.as_i16() {
                group.authorized_operations = operations::GROUP;
            }
        }
    }
    DescribeGroupsResponse {
        groups,
        ..DescribeGroupsResponse::default()
    }
}

fn gone(group_id: Str) -> DescribedGroup {
    DescribedGroup {
        group_id,
        error_code: GONE.as_i16(),
        ..DescribedGroup::default()
    }
}
