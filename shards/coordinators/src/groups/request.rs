//! What may be asked of the group coordinator, and its answers.
//!
//! Plain `Send` values that cross cores. Messages are used as they are decoded, the same structure
//! for every version; where behaviour depends on a version, a field says so by name.

use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup as ConsumerDescribedGroup;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use chronik_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsResponse,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
};
use chronik_protocol::messages::{
    HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, SyncGroupResponse,
};
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::name_filter::NameFilter;

/// Who asks, as groups show their members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// What the client calls itself; empty when it has no name.
    pub client_id: Str,
    /// Its address as Java writes one: `/127.0.0.1`.
    pub client_host: Str,
}

/// A request to the group coordinator; for the designated shard only. Answered when what it
/// changed, and what was changed before it, is committed.
#[derive(Clone, Debug)]
pub enum GroupRequest {
    /// JoinGroup: parked until the group is complete.
    Join {
        /// As decoded; protocols of one name only once.
        request: JoinGroupRequest,
        /// Who joins.
        caller: Caller,
        /// A new member has to come again with the id it is given (KIP-394).
        known_member_id: bool,
        /// The leader can be told that there is nothing to assign (KIP-814).
        skip_assignment: bool,
    },
    /// SyncGroup: parked until the leader has assigned.
    Sync(SyncGroupRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// ConsumerGroupHeartbeat (KIP-848).
    ConsumerHeartbeat {
        /// As decoded.
        request: ConsumerGroupHeartbeatRequest,
        /// Members make their own ids (version 1 on).
        id_required: bool,
        /// Who asks.
        caller: Caller,
    },
    /// ConsumerGroupDescribe: the groups' names, in the request's order.
    ConsumerDescribe(Vec<Str>),
    /// LeaveGroup; a single member of old versions stands in `members`.
    Leave(LeaveGroupRequest),
    /// DescribeGroups.
    Describe {
        /// In the request's order.
        groups: Vec<Str>,
        /// An unknown group is an error rather than a dead group (version 6 on).
        missing_is_error: bool,
    },
    /// ListGroups.
    List {
        /// Names of states, any case; none for all.
        states: NameFilter,
        /// Names of types, any case; none for all.
        types: NameFilter,
        /// Which of them.
        page: GroupPage,
    },
    /// DeleteGroups; each name once.
    Delete(Vec<Str>),
    /// OffsetCommit. Every topic has name and id, both of which exist, and so do the partitions.
    CommitOffsets {
        /// As decoded, completed.
        request: OffsetCommitRequest,
        /// The client knows errors about groups and epochs (version 9 on).
        knows_epochs: bool,
    },
    /// OffsetFetch. Every topic has its name; `topics` of `None` asks for all.
    FetchOffsets {
        /// In the request's order.
        groups: Vec<OffsetFetchRequestGroup>,
    },
    /// OffsetDelete; topics and partitions exist.
    DeleteOffsets(OffsetDeleteRequest),
    /// What groups have committed, a page of it; for [`crate::group_lag`], not for a client.
    Committed(CommittedQuery),
    /// The broker stops: everybody who is parked is told to look for another coordinator, and so
    /// is everybody who comes later.
    Stop,
}

/// The answer to a [`GroupRequest`] of the same name.
#[derive(Clone, Debug)]
pub enum GroupReply {
    /// See [`GroupRequest::Join`].
    Join(JoinGroupResponse),
    /// See [`GroupRequest::Sync`].
    Sync(SyncGroupResponse),
    /// See [`GroupRequest::Heartbeat`].
    Heartbeat(HeartbeatResponse),
    /// See [`GroupRequest::ConsumerHeartbeat`].
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    /// One for each group asked for, in order.
    ConsumerDescribe(Vec<ConsumerDescribedGroup>),
    /// See [`GroupRequest::Leave`].
    Leave(LeaveGroupResponse),
    /// One for each group asked for, in order.
    Describe(Vec<DescribedGroup>),
    /// See [`GroupRequest::List`]; with the last group of the page, unless there are no more.
    List(ListGroupsResponse, Option<Str>),
    /// Results of the first groups, in order; the others are to be asked for again, for there was too
    /// much to forget.
    Delete(DeleteGroupsResponse),
    /// See [`GroupRequest::CommitOffsets`].
    CommitOffsets(OffsetCommitResponse),
    /// One for each group asked for, in order.
    FetchOffsets(Vec<OffsetFetchResponseGroup>),
    /// See [`GroupRequest::DeleteOffsets`].
    DeleteOffsets(OffsetDeleteResponse),
    /// See [`GroupRequest::Committed`].
    Committed(Result<Vec<GroupCommitted>, ErrorCode>),
    /// See [`GroupRequest::Stop`].
    Stopped,
}

/// Some of the groups, in the coordinator's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPage {
    /// The last group of the page before; `None` for the first page.
    pub after: Option<Str>,
}

impl GroupPage {
    /// The first groups.
    pub const FIRST: GroupPage = GroupPage { after: None };
}

/// Which groups' offsets are asked for.
#[derive(Clone, Debug, Default)]
pub struct CommittedQuery {
    /// The last group of the page before; `None` for the first page.
    pub after: Option<Str>,
    /// Most groups in the answer.
    pub groups_max: usize,
}

/// What one group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCommitted {
    /// The group.
    pub group: Str,
    /// Its state by Kafka's name, `Stable` for example.
    pub state: Str,
    /// Members it has.
    pub members: usize,
    /// By topic and partition.
    pub partitions: Vec<CommittedPartition>,
}

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedPartition {
    /// The topic's name.
    pub topic: Str,
    /// Its id when it was committed; zero when a client of old committed by name.
    pub topic_id: Uuid,
    /// Partition index.
    pub partition: i32,
    /// The next record the group wants.
    pub committed_offset: i64,
    /// When it was committed, ms since the epoch.
    pub commit_timestamp_ms: i64,
}
