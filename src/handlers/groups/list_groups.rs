//! ListGroups (key 16): every group, or those of some states (KIP-518) and types (KIP-848).

use std::rc::Rc;

use chronik_coordinators::groups::{GroupPage, GroupReply, GroupRequest, NameFilter};
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::{GONE, ask};
use crate::handlers::beside::beside;
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::server::service::Reply;

/// From so many groups on the answer is encoded beside the shard.
const GROUPS_AT_ONCE: usize = 4_000;

/// Answers, with what the coordinator has page by page.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    call: Rc<Call>,
    request: ListGroupsRequest,
) -> Reply {
    let filters = move || {
        let states = NameFilter::of(&request.states_filter);
        (states, NameFilter::of(&request.types_filter))
    };
    let (states, types) = beside(&context.world, call.is_large, filters).await;
    let mut listed = ListGroupsResponse::default();
    let mut page = GroupPage::FIRST;
    loop {
        let list = GroupRequest::List {
            states: states.clone(),
            types: types.clone(),
            page,
        };
        let (more, next) = match ask(&context, list).await {
            Some(GroupReply::List(more, next)) => (more, next),
            Some(_) => unreachable!("the coordinator answers what it was asked"),
            None => {
                let error_code = GONE.as_i16();
                let gone = ListGroupsResponse {
                    error_code,
                    ..ListGroupsResponse::default()
                };
                (gone, None)
            }
        };
        if more.error_code != ErrorCode::None.as_i16() {
            return call.reply(&more);
        }
        listed.groups.extend(more.groups);
        if next.is_none() {
            break;
        }
        page = GroupPage { after: next };
        context.world.pause().await;
    }
    match listed.groups.len() > GROUPS_AT_ONCE {
        true => call.reply_long(&context.world, listed).await,
        false => call.reply(&listed),
    }
}
