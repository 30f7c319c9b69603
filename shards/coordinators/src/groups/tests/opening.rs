//! The moment between the creation of `__consumer_offsets` and the opening of its partitions: a client
//! is told to come again soon, by the word on which every client waits.

use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    OffsetCommitRequest, OffsetDeleteRequest, SyncGroupRequest,
};
use chronik_protocol::{ErrorCode, Str};

use super::super::{GroupPage, NameFilter};
use super::rig::Rig;
use crate::groups::{Caller, CommittedQuery, GroupReply, GroupRequest};

fn caller() -> Caller {
    Caller {
        client_id: Str::default(),
        client_host: Str::default(),
    }
}

/// One request of every API.
fn requests() -> Vec<GroupRequest> {
    let group_id = Str::from("g");
    let commit = OffsetCommitRequest {
        group_id: group_id.clone(),
        topics: vec![OffsetCommitRequestTopic {
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let fetch = OffsetFetchRequestGroup {
        group_id: group_id.clone(),
        ..OffsetFetchRequestGroup::default()
    };
    vec![
        GroupRequest::Join {
            request: JoinGroupRequest::default(),
            caller: caller(),
            known_member_id: true,
            skip_assignment: false,
        },
        GroupRequest::Sync(SyncGroupRequest::default()),
        GroupRequest::Heartbeat(HeartbeatRequest::default()),
        GroupRequest::ConsumerHeartbeat {
            request: ConsumerGroupHeartbeatRequest::default(),
            id_required: true,
            caller: caller(),
        },
        GroupRequest::Leave(LeaveGroupRequest::default()),
        GroupRequest::CommitOffsets {
            request: commit,
            knows_epochs: true,
        },
        GroupRequest::FetchOffsets {
            groups: vec![fetch],
        },
        GroupRequest::DeleteOffsets(OffsetDeleteRequest::default()),
        GroupRequest::Describe {
            groups: vec![group_id.clone()],
            missing_is_error: true,
        },
        GroupRequest::ConsumerDescribe(vec![group_id.clone()]),
        GroupRequest::List {
            states: NameFilter::default(),
            types: NameFilter::default(),
            page: GroupPage::FIRST,
        },
        GroupRequest::Delete(vec![group_id]),
        GroupRequest::Committed(CommittedQuery {
            after: None,
            groups_max: 10,
        }),
    ]
}

#[test]
fn what_has_not_opened_yet_is_being_loaded() {
    let mut rig = Rig::unopened(1);
    for request in requests() {
        let expected = request.refused(ErrorCode::CoordinatorLoadInProgress);
        let found = rig.ask(request);
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
    rig.open_all();
    let list = GroupRequest::List {
        states: NameFilter::default(),
        types: NameFilter::default(),
        page: GroupPage::FIRST,
    };
    match rig.ask(list) {
        GroupReply::List(reply, _) => assert_eq!(reply.error_code, 0),
        other => panic!("{other:?}"),
    }
}
