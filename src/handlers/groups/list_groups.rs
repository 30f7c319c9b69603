//! ListGroups (key 16): every group, or those of some states (KIP-518) and types (KIP-848).

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask};
use crate::handlers::context::Context;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let list = GroupRequest::List {
        states: request.states_filter,
        types: request.types_filter,
    };
    match ask(&context, list).await {
        Some(GroupReply::List(response)) => response,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => ListGroupsResponse {
            error_code: GONE.as_i16(),
            ..ListGroupsResponse::default()
        },
    }
}
