//! ListGroups (key 16): every group, or those of some states (KIP-518) and types (KIP-848).

use chronik_coordinators::groups::{GroupPage, NameFilter};
use chronik_io::World;
use chronik_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::ListGroups;

use super::{GONE, ask};
use crate::handlers::api::{Api, Handled, Lengthy, Shape};
use crate::handlers::beside::beside;
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::distinct::{Keep, keep};

/// From so many groups on the answer is encoded beside the shard.
const GROUPS_AT_ONCE: usize = 4_000;

impl Api for ListGroupsRequest {
    const SHAPE: Shape = Shape::Groups;

    /// Sets of names.
    fn settle(&mut self) {
        keep(&mut self.states_filter, Keep::First, Str::clone);
        keep(&mut self.types_filter, Keep::First, Str::clone);
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> ListGroupsResponse {
        refused(error)
    }
}

impl Lengthy for ListGroupsRequest {
    /// Answers, with what the coordinator has page by page.
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<ListGroupsResponse> {
        let filters = move || {
            let states = NameFilter::of(&request.states_filter);
            (states, NameFilter::of(&request.types_filter))
        };
        let (states, types) = beside(&context.world, call.is_large, filters).await;
        let mut listed = ListGroupsResponse::default();
        let mut page = GroupPage::FIRST;
        loop {
            let list = ListGroups {
                states: states.clone(),
                types: types.clone(),
                page,
            };
            let (more, next) = match ask(context, list).await {
                Some((more, next)) => (more, next),
                None => (refused(GONE), None),
            };
            if more.error_code != ErrorCode::None.as_i16() {
                return Handled::Short(more);
            }
            listed.groups.extend(more.groups);
            if next.is_none() {
                break;
            }
            page = GroupPage { after: next };
            context.world.pause().await;
        }
        match listed.groups.len() > GROUPS_AT_ONCE {
            true => Handled::Long(listed),
            false => Handled::Short(listed),
        }
    }
}

fn refused(error: ErrorCode) -> ListGroupsResponse {
    ListGroupsResponse {
        error_code: error.as_i16(),
        ..ListGroupsResponse::default()
    }
}
