//! DescribeGroups (key 15): state, protocol and members of classic groups.

use std::rc::Rc;

use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use chronik_protocol::{ErrorCode, Str};

use super::{GONE, GROUPS_AT_ONCE, ask};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::operations;
use crate::handlers::pieces::Pieces;
use crate::server::service::Reply;

/// From this version on a group that is not there is an error (KIP-1043).
const MISSING_IS_ERROR_VERSION: i16 = 6;

/// From this version on a response begins with a throttle time.
const THROTTLE_VERSION: i16 = 1;

/// Answers. A group that is named again and again is answered each time and looked at once.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    request: DescribeGroupsRequest,
) -> Reply {
    let groups = &request.groups;
    let throttle = call.version >= THROTTLE_VERSION;
    let mut pieces =
        Pieces::of_array::<DescribeGroupsResponse>(&context, &call, throttle, groups.len());
    let with_operations = request.include_authorized_operations;
    let ask = async |names| {
        let mut described = describe(&context, &call, names).await;
        let none = ErrorCode::None.as_i16();
        for group in described
            .iter_mut()
            .filter(|group| with_operations && group.error_code == none)
        {
            group.authorized_operations = operations::GROUP;
        }
        described
    };
    pieces.push_each(groups, GROUPS_AT_ONCE, ask).await;
    pieces.finish(&call)
}

async fn describe<W: World>(
    context: &Context<W>,
    call: &Call,
    groups: Vec<Str>,
) -> Vec<DescribedGroup> {
    let describe = GroupRequest::Describe {
        groups: groups.clone(),
        missing_is_error: call.version >= MISSING_IS_ERROR_VERSION,
    };
    match ask(context, describe).await {
        Some(GroupReply::Describe(described)) => described,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => groups.into_iter().map(gone).collect(),
    }
}

fn gone(group_id: Str) -> DescribedGroup {
    DescribedGroup {
        group_id,
        error_code: GONE.as_i16(),
        ..DescribedGroup::default()
    }
}
