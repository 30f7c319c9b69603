//! How a request is refused as a whole, and how a reply becomes a failure.
//!
//! Each API has its own place for an error; this is where they are known.

use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup as ConsumerDescribedGroup;
use chronik_protocol::messages::delete_groups_response::DeletableGroupResult;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::{
    DeleteGroupsResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
    ListGroupsResponse, OffsetDeleteResponse, SyncGroupResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::admin::{deleted, not_described};
use super::commit::commit_refused;
use super::consumer;
use super::fetch::fetch_refused;
use super::refused::heartbeat_refused;
use super::refused::{join_refused, sync_refused};
use super::request::{GroupReply, GroupRequest};

impl GroupRequest {
    /// The group it is about; `None` when it may be about several.
    pub fn group(&self) -> Option<&Str> {
        match self {
            GroupRequest::Join { request, .. } => Some(&request.group_id),
            GroupRequest::Sync(request) => Some(&request.group_id),
            GroupRequest::Heartbeat(request) => Some(&request.group_id),
            GroupRequest::ConsumerHeartbeat { request, .. } => Some(&request.group_id),
            GroupRequest::Leave(request) => Some(&request.group_id),
            GroupRequest::CommitOffsets { request, .. } => Some(&request.group_id),
            GroupRequest::DeleteOffsets(request) => Some(&request.group_id),
            GroupRequest::Describe { .. }
            | GroupRequest::ConsumerDescribe(_)
            | GroupRequest::List { .. }
            | GroupRequest::Delete(_)
            | GroupRequest::FetchOffsets { .. }
            | GroupRequest::Committed(_)
            | GroupRequest::Stop => None,
        }
    }

    /// Its refusal as a whole, before any group was looked at.
    pub fn refused(&self, error: ErrorCode) -> GroupReply {
        match self {
            GroupRequest::Join { request, .. } => join_refused(request.member_id.clone(), error),
            GroupRequest::Sync(_) => sync_refused(error),
            GroupRequest::Heartbeat(_) => GroupReply::Heartbeat(HeartbeatResponse {
                // A member need not do anything while its group is being loaded.
                error_code: match error {
                    ErrorCode::CoordinatorLoadInProgress => ErrorCode::None,
                    error => error,
                }
                .as_i16(),
                ..HeartbeatResponse::default()
            }),
            GroupRequest::ConsumerHeartbeat { .. } => heartbeat_refused(error.into()),
            GroupRequest::ConsumerDescribe(groups) => {
                let refuse = |group: &Str| consumer::not_described(group, error, None);
                GroupReply::ConsumerDescribe(groups.iter().map(refuse).collect())
            }
            GroupRequest::Leave(_) => GroupReply::Leave(LeaveGroupResponse {
                error_code: error.as_i16(),
                ..LeaveGroupResponse::default()
            }),
            GroupRequest::Describe { groups, .. } => {
                let refuse = |group: &Str| not_described(group, error);
                GroupReply::Describe(groups.iter().map(refuse).collect())
            }
            GroupRequest::List { .. } => GroupReply::List(
                ListGroupsResponse {
                    error_code: error.as_i16(),
                    ..ListGroupsResponse::default()
                },
                None,
            ),
            GroupRequest::Delete(groups) => GroupReply::Delete(DeleteGroupsResponse {
                results: groups.iter().map(|group| deleted(group, error)).collect(),
                ..DeleteGroupsResponse::default()
            }),
            GroupRequest::CommitOffsets { request, .. } => {
                GroupReply::CommitOffsets(commit_refused(request, error))
            }
            GroupRequest::FetchOffsets { groups } => GroupReply::FetchOffsets(
                groups
                    .iter()
                    .map(|group| fetch_refused(&group.group_id, error))
                    .collect(),
            ),
            GroupRequest::DeleteOffsets(_) => GroupReply::DeleteOffsets(OffsetDeleteResponse {
                error_code: error.as_i16(),
                ..OffsetDeleteResponse::default()
            }),
            GroupRequest::Committed(_) => GroupReply::Committed(Err(error)),
            GroupRequest::Stop => GroupReply::Stopped,
        }
    }
}

impl GroupReply {
    /// The same reply after all it says turned out not to be so.
    #[must_use]
    pub(crate) fn spoiled(self, error: ErrorCode) -> GroupReply {
        let code = error.as_i16();
        match self {
            GroupReply::Join(reply) => GroupReply::Join(JoinGroupResponse {
                member_id: reply.member_id,
                error_code: code,
                ..JoinGroupResponse::default()
            }),
            GroupReply::Sync(_) => GroupReply::Sync(SyncGroupResponse {
                error_code: code,
                ..SyncGroupResponse::default()
            }),
            GroupReply::Heartbeat(mut reply) => {
                reply.error_code = code;
                GroupReply::Heartbeat(reply)
            }
            GroupReply::ConsumerHeartbeat(_) => heartbeat_refused(error.into()),
            GroupReply::ConsumerDescribe(groups) => {
                let spoil = |group: ConsumerDescribedGroup| {
                    consumer::not_described(&group.group_id, error, None)
                };
                GroupReply::ConsumerDescribe(groups.into_iter().map(spoil).collect())
            }
            GroupReply::Leave(_) => GroupReply::Leave(LeaveGroupResponse {
                error_code: code,
                ..LeaveGroupResponse::default()
            }),
            GroupReply::Describe(groups) => {
                let spoil = |group: DescribedGroup| not_described(&group.group_id, error);
                GroupReply::Describe(groups.into_iter().map(spoil).collect())
            }
            GroupReply::List(..) => GroupReply::List(
                ListGroupsResponse {
                    error_code: code,
                    ..ListGroupsResponse::default()
                },
                None,
            ),
            GroupReply::Delete(reply) => {
                let spoil = |result: DeletableGroupResult| deleted(&result.group_id, error);
                GroupReply::Delete(DeleteGroupsResponse {
                    results: reply.results.into_iter().map(spoil).collect(),
                    ..DeleteGroupsResponse::default()
                })
            }
            GroupReply::CommitOffsets(mut reply) => {
                let topics = reply.topics.iter_mut();
                for partition in topics.flat_map(|topic| &mut topic.partitions) {
                    partition.error_code = code;
                }
                GroupReply::CommitOffsets(reply)
            }
            GroupReply::FetchOffsets(groups) => GroupReply::FetchOffsets(
                groups
                    .into_iter()
                    .map(|group| fetch_refused(&group.group_id, error))
                    .collect(),
            ),
            GroupReply::DeleteOffsets(_) => GroupReply::DeleteOffsets(OffsetDeleteResponse {
                error_code: code,
                ..OffsetDeleteResponse::default()
            }),
            GroupReply::Committed(_) => GroupReply::Committed(Err(error)),
            GroupReply::Stopped => GroupReply::Stopped,
        }
    }
}
