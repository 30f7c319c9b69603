//! DescribeGroups (key 15): state, protocol and members of classic groups.

use chronik_io::World;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::DescribeGroups;

use super::{GONE, GROUPS_AT_ONCE, ask};
use crate::handlers::api::{Api, Handled, Lengthy, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::operations;
use crate::handlers::pieces::Pieces;

/// From this version on a group that is not there is an error (KIP-1043).
const MISSING_IS_ERROR_VERSION: i16 = 6;

/// From this version on a response begins with a throttle time.
const THROTTLE_VERSION: i16 = 1;

impl Api for DescribeGroupsRequest {
    const SHAPE: Shape = Shape::Groups;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeGroupsResponse {
        let groups = self.groups.iter().cloned();
        DescribeGroupsResponse {
            groups: groups.map(|group| refused(group, error)).collect(),
            ..DescribeGroupsResponse::default()
        }
    }
}

impl Lengthy for DescribeGroupsRequest {
    /// Answers. A group that is named again and again is answered each time and looked at once.
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<DescribeGroupsResponse> {
        let groups = &request.groups;
        let throttle = call.version >= THROTTLE_VERSION;
        let mut pieces =
            Pieces::of_array::<DescribeGroupsResponse>(context, call, throttle, groups.len());
        let with_operations = request.include_authorized_operations;
        let ask = async |names| {
            let mut described = describe(context, call, names).await;
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
        Handled::Reply(pieces.finish(call))
    }
}

async fn describe<W: World>(
    context: &Context<W>,
    call: &Call,
    groups: Vec<Str>,
) -> Vec<DescribedGroup> {
    let describe = DescribeGroups {
        groups: groups.clone(),
        missing_is_error: call.version >= MISSING_IS_ERROR_VERSION,
    };
    match ask(context, describe).await {
        Some(described) => described,
        None => groups
            .into_iter()
            .map(|group| refused(group, GONE))
            .collect(),
    }
}

fn refused(group_id: Str, error: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        group_id,
        error_code: error.as_i16(),
        ..DescribedGroup::default()
    }
}
