//! Groups and their offsets: one module per API, and the way to the coordinator.
//!
//! Runs on every shard; the coordinator is on the designated one. Translates versions, and answers
//! itself only what concerns topics.

mod consumer_group_describe;
mod consumer_group_heartbeat;
mod delete_groups;
mod describe_groups;
mod find_coordinator;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_groups;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod sync_group;

use std::rc::Rc;

use chronik_catalog::Topic;
use chronik_catalog::versions::GROUP_VERSION_FEATURE;
use chronik_coordinators::groups::{Caller, GroupReply, GroupRequest};
use chronik_io::World;
use chronik_protocol::{ApiKey, ErrorCode, Reader};

use super::call::Call;
use super::context::Context;
use super::{answered, closed, in_pieces, later, parked};
use crate::server::service::Admitted;

/// What a client is told when the coordinator's shard has ended.
const GONE: ErrorCode = ErrorCode::CoordinatorNotAvailable;

/// Takes a request of one of these APIs.
pub(super) async fn admit<W: World>(context: Rc<Context<W>>, call: Call, body: Reader) -> Admitted {
    let world = &context.world.clone();
    match call.key {
        ApiKey::FindCoordinator => {
            answered!(context, call, body, in_pieces, find_coordinator::handle)
        }
        ApiKey::JoinGroup => {
            let begin = async move |call, request| join_group::begin(&context, call, request).await;
            parked(world, call, body, begin).await
        }
        ApiKey::SyncGroup => {
            let begin = async move |call, request| sync_group::begin(&context, call, request).await;
            parked(world, call, body, begin).await
        }
        ApiKey::Heartbeat => answered!(context, call, body, later, alone heartbeat::handle),
        ApiKey::LeaveGroup => answered!(context, call, body, later, leave_group::handle),
        ApiKey::DescribeGroups => {
            answered!(context, call, body, in_pieces, describe_groups::handle)
        }
        ApiKey::ListGroups => answered!(context, call, body, in_pieces, list_groups::handle),
        ApiKey::DeleteGroups => answered!(context, call, body, later, alone delete_groups::handle),
        ApiKey::OffsetCommit => answered!(context, call, body, later, offset_commit::handle),
        ApiKey::OffsetFetch => answered!(context, call, body, in_pieces, offset_fetch::handle),
        ApiKey::OffsetDelete => answered!(context, call, body, later, offset_delete::handle),
        ApiKey::ConsumerGroupHeartbeat => {
            answered!(context, call, body, later, consumer_group_heartbeat::handle)
        }
        ApiKey::ConsumerGroupDescribe => answered!(
            context,
            call,
            body,
            in_pieces,
            consumer_group_describe::handle
        ),
        other => closed(format!("{other} has no handler")),
    }
}

/// Groups that the coordinator is asked about at once: the others have their turn in between.
const GROUPS_AT_ONCE: usize = 16;

/// Asks the coordinator; `None` when its shard has ended.
async fn ask<W: World>(context: &Context<W>, request: GroupRequest) -> Option<GroupReply> {
    context.router.group(request).await.ok()
}

/// Whether groups of the new protocol are coordinated: the feature is on, and so is the setting
/// (`group.coordinator.rebalance.protocols`).
fn consumer_groups_are_on<W: World>(context: &Context<W>) -> bool {
    let level = context.image().features.get(GROUP_VERSION_FEATURE).copied();
    level.is_some_and(|level| level >= 1) && context.config.serves_consumer_groups
}

fn caller(call: &Call) -> Caller {
    Caller {
        client_id: call.client_id.clone().unwrap_or_default(),
        client_host: call.client_host.clone(),
    }
}

/// Whether a topic has a partition of this number.
fn has_partition(topic: &Topic, index: i32) -> bool {
    usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
}
