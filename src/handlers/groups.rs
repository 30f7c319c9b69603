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

use chronik_catalog::Topic;
use chronik_catalog::versions::GROUP_VERSION_FEATURE;
use chronik_coordinators::groups::Caller;
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_shards::questions::Designated;

use super::call::Call;
use super::context::Context;

/// What a client is told when the coordinator's shard has ended.
const GONE: ErrorCode = ErrorCode::CoordinatorNotAvailable;

/// What a request keeps that waits for the rest of its group, bytes.
const WAITING_BYTES: usize = 1024;

/// Groups that the coordinator is asked about at once: the others have their turn in between.
const GROUPS_AT_ONCE: usize = 16;

/// Asks the coordinator; `None` when its shard has ended.
async fn ask<W: World, Q: Designated>(context: &Context<W>, question: Q) -> Option<Q::Answer> {
    context.router.ask_designated(question).await.await.ok()
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
        client_host: call.client_host().clone(),
    }
}

/// Whether a topic has a partition of this number.
fn has_partition(topic: &Topic, index: i32) -> bool {
    usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
}
