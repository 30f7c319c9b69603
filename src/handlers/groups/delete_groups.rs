//! DeleteGroups (key 42): groups without members, with all they have committed.

use chronik_io::World;
use chronik_protocol::messages::delete_groups_response::DeletableGroupResult;
use chronik_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::DeleteGroups;

use super::{GONE, ask};
use crate::handlers::api::{Api, Later, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::distinct::{Keep, keep};

/// Groups that the coordinator deletes in one go.
const DELETED_AT_ONCE: usize = 500;

impl Api for DeleteGroupsRequest {
    const SHAPE: Shape = Shape::Groups;

    /// A set of names.
    fn settle(&mut self) {
        keep(&mut self.groups_names, Keep::First, Str::clone);
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> DeleteGroupsResponse {
        let groups = self.groups_names.iter().cloned();
        DeleteGroupsResponse {
            results: groups.map(|group| refused(group, error)).collect(),
            ..DeleteGroupsResponse::default()
        }
    }
}

impl Later for DeleteGroupsRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        _: &Call,
        request: Self,
    ) -> DeleteGroupsResponse {
        let groups = request.groups_names;
        let mut results = Vec::with_capacity(groups.len());
        // Each is judged by itself, so that the coordinator may have some at a time.
        while let Some(rest) = groups.get(results.len()..).filter(|rest| !rest.is_empty()) {
            let some: Vec<Str> = rest.iter().take(DELETED_AT_ONCE).cloned().collect();
            let groups = some.clone();
            match ask(context, DeleteGroups { groups }).await {
                Some(response) => results.extend(response.results),
                None => results.extend(some.into_iter().map(|group| refused(group, GONE))),
            }
            context.world.pause().await;
        }
        DeleteGroupsResponse {
            results,
            ..DeleteGroupsResponse::default()
        }
    }
}

fn refused(group_id: Str, error: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id,
        error_code: error.as_i16(),
        ..DeletableGroupResult::default()
    }
}
