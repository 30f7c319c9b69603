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

use chronik_io::World;
use chronik_protocol::{ApiKey, ErrorCode, Reader};
use chronik_shards::catalog::{GROUP_VERSION_FEATURE, Image, Topic};
use chronik_shards::groups::{Caller, GroupReply, GroupRequest};

use super::call::Call;
use super::context::Context;
use super::{closed, in_pieces, later, parked};
use crate::server::service::Admitted;

/// What a client is told when the coordinator's shard has ended.
const GONE: ErrorCode = ErrorCode::CoordinatorNotAvailable;

/// Takes a request of one of these APIs.
pub(super) async fn admit<W: World>(context: Rc<Context<W>>, call: Call, body: Reader) -> Admitted {
    match call.key {
        ApiKey::FindCoordinator => in_pieces(call, body, move |call, request| {
            find_coordinator::handle(context, call, request)
        }),
        ApiKey::JoinGroup => {
            let begin = async move |call, request| join_group::begin(&context, call, request).await;
            parked(call, body, begin).await
        }
        ApiKey::SyncGroup => {
            let begin = async move |call, request| sync_group::begin(&context, call, request).await;
            parked(call, body, begin).await
        }
        ApiKey::Heartbeat => later(call, body, move |_, request| {
            heartbeat::handle(context, request)
        }),
        ApiKey::LeaveGroup => later(call, body, move |call, request| {
            leave_group::handle(context, call, request)
        }),
        ApiKey::DescribeGroups => in_pieces(call, body, move |call, request| {
            describe_groups::handle(context, call, request)
        }),
        ApiKey::ListGroups => later(call, body, move |_, request| {
            list_groups::handle(context, request)
        }),
        ApiKey::DeleteGroups => later(call, body, move |_, request| {
            delete_groups::handle(context, request)
        }),
        ApiKey::OffsetCommit => later(call, body, move |call, request| {
            offset_commit::handle(context, call, request)
        }),
        ApiKey::OffsetFetch => in_pieces(call, body, move |call, request| {
            offset_fetch::handle(context, call, request)
        }),
        ApiKey::OffsetDelete => later(call, body, move |_, request| {
            offset_delete::handle(context, request)
        }),
        ApiKey::ConsumerGroupHeartbeat => later(call, body, move |call, request| {
            consumer_group_heartbeat::handle(context, call, request)
        }),
        ApiKey::ConsumerGroupDescribe => in_pieces(call, body, move |call, request| {
            consumer_group_describe::handle(context, call, request)
        }),
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
fn consumer_groups_are_on(image: &Image) -> bool {
    let set = &image.broker_configs.static_broker;
    let protocols = set.get("group.coordinator.rebalance.protocols");
    let mut protocols = protocols
        .map_or("classic,consumer", |set| set.as_str())
        .split(',');
    let level = image.features.get(GROUP_VERSION_FEATURE).copied();
    level.is_some_and(|level| level >= 1) && protocols.any(|name| name.trim() == "consumer")
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
