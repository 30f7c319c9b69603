//! Answers of single requests that were refused.
//!
//! Plain values; which request gets which is `refusals`'.

use chronik_protocol::messages::{
    ConsumerGroupHeartbeatResponse, JoinGroupResponse, SyncGroupResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::caller::Refusal;
use super::request::GroupReply;

/// A refused join.
pub(crate) fn join_refused(member_id: Str, error: ErrorCode) -> GroupReply {
    GroupReply::Join(JoinGroupResponse {
        member_id,
        error_code: error.as_i16(),
        ..JoinGroupResponse::default()
    })
}

/// A SyncGroup without an assignment.
pub(crate) fn sync_refused(error: ErrorCode) -> GroupReply {
    GroupReply::Sync(SyncGroupResponse {
        error_code: error.as_i16(),
        ..SyncGroupResponse::default()
    })
}

/// A refused ConsumerGroupHeartbeat.
pub(crate) fn heartbeat_refused(refusal: Refusal) -> GroupReply {
    GroupReply::ConsumerHeartbeat(ConsumerGroupHeartbeatResponse {
        error_code: refusal.code.as_i16(),
        error_message: refusal.message,
        ..ConsumerGroupHeartbeatResponse::default()
    })
}
