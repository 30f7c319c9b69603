//! DeleteGroups (key 42): groups without members, with all they have committed.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::Str;
use chronik_protocol::messages::delete_groups_response::DeletableGroupResult;
use chronik_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask};
use crate::handlers::context::Context;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let groups = request.groups_names;
    match ask(&context, GroupRequest::Delete(groups.clone())).await {
        Some(GroupReply::Delete(response)) => response,
        Some(_) => unreachable!("the coordinator answers what it was asked"),
        None => DeleteGroupsResponse {
            results: groups.into_iter().map(gone).collect(),
            ..DeleteGroupsResponse::default()
        },
    }
}

fn gone(group_id: Str) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id,
        error_code: GONE.as_i16(),
        ..DeletableGroupResult::default()
    }
}
