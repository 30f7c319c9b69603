//! The classic protocol: members join, one of them assigns, all fetch their share.
//!
//! State of one group, and in the files beside this one what requests and deadlines do to it
//! (`GroupMetadataManager.classicGroup*` of Kafka 4.3). Members and generations are decided here;
//! assignments by the group's leader, unread.

pub(super) mod group;
mod heartbeat;
mod join;
mod leave;
pub(super) mod member;
mod rebalance;
mod replaying;
mod sync;

pub(crate) use group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup, ClassicState};
pub(crate) use join::{Join, refusal as join_refusal};
pub(crate) use leave::nobody_left;
