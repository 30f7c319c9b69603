//! DeleteGroups (key 42): groups without members, with all they have committed.

use std::rc::Rc;

use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::Str;
use chronik_protocol::messages::delete_groups_response::DeletableGroupResult;
use chronik_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::{GONE, ask};
use crate::handlers::context::Context;

/// Groups that the coordinator deletes in one go.
const DELETED_AT_ONCE: usize = 500;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let groups = request.groups_names;
    let mut results = Vec::with_capacity(groups.len());
    // Each is judged by itself, so that the coordinator may have some at a time.
    while let Some(rest) = groups.get(results.len()..).filter(|rest| !rest.is_empty()) {
        let some: Vec<Str> = rest.iter().take(DELETED_AT_ONCE).cloned().collect();
        match ask(&context, GroupRequest::Delete(some.clone())).await {
            Some(GroupReply::Delete(response)) => results.extend(response.results),
            Some(_) => unreachable!("the coordinator answers what it was asked"),
            None => results.extend(some.into_iter().map(gone)),
        }
        context.world.pause().await;
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}

fn gone(group_id: Str) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id,
        error_code: GONE.as_i16(),
        ..DeletableGroupResult::default()
    }
}
