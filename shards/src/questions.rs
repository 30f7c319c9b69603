//! What is asked of a shard, each with the type of its answer.
//!
//! Runs on the shard that asks. A question goes out as a [`Request`] and its answer comes back as the
//! [`Reply`] of the same name; that they belong together is written here and nowhere else. Never decides
//! which shard is asked, save that the designated one has the catalogue and the coordinators.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use chronik_catalog::{
    ApiError, ConfigChange, ControllerReply, ControllerRequest, CreatedTopic, FeatureUpdate,
    NewPartitions, NewTopic, TopicRef,
};
use chronik_coordinators::groups::{
    Caller, CommittedQuery, GroupCommitted, GroupPage, GroupReply, GroupRequest, NameFilter,
};
use chronik_io::{Call, Lost};
use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup as ConsumerDescribedGroup;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use chronik_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsResponse,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_terms::{
    AppendRequest, AppendResult, AwaitRequest, DeleteRecordsPart, DeleteRecordsResult, EpochAnswer,
    EpochQuery, LogDescription, LogScope, OffsetAnswer, OffsetQuery, PartitionId, ReadRequest,
    ReadResult, SegmentOffsets, SegmentOffsetsQuery, Wake,
};

use crate::request::{Reply, Request};

/// What is asked of a shard.
pub trait Question {
    /// What it answers.
    type Answer;

    /// The message that asks.
    fn into_request(self) -> Request;

    /// The answer in the message that comes back; `None` when that answers something else.
    fn answer(reply: Reply) -> Option<Self::Answer>;
}

/// A question that only the designated shard answers ([`crate::COORDINATOR_SHARD`]).
pub trait Designated: Question {}

/// An answer under way.
#[must_use = "the answer arrives here"]
pub struct Asked<Q> {
    call: Call<Reply>,
    question: PhantomData<fn() -> Q>,
}

impl<Q: Question> Asked<Q> {
    /// The answer to the request of a `Q`, whose call this is.
    pub(crate) fn new(call: Call<Reply>) -> Asked<Q> {
        Asked {
            call,
            question: PhantomData,
        }
    }
}

impl<Q: Question> Future for Asked<Q> {
    /// Fails when the shard has ended.
    type Output = Result<Q::Answer, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.call).poll(context));
        Poll::Ready(reply.map(|reply| Q::answer(reply).expect("a shard answers what it was asked")))
    }
}

/// Questions that are the content of a request of the same name.
macro_rules! of_parts {
    ($($question:ty => $name:ident -> $answer:ty;)*) => {
        $(impl Question for $question {
            type Answer = $answer;

            fn into_request(self) -> Request {
                Request::$name(self)
            }

            fn answer(reply: Reply) -> Option<$answer> {
                match reply {
                    Reply::$name(answer) => Some(answer),
                    _ => None,
                }
            }
        })*
    };
}

of_parts! {
    AppendRequest => Append -> Vec<AppendResult>;
    ReadRequest => Read -> Vec<ReadResult>;
    AwaitRequest => Await -> Wake;
    Vec<OffsetQuery> => ListOffsets -> Vec<OffsetAnswer>;
    Vec<SegmentOffsetsQuery> => SegmentOffsets -> Vec<SegmentOffsets>;
    Vec<EpochQuery> => EpochEnds -> Vec<EpochAnswer>;
    Vec<DeleteRecordsPart> => DeleteRecords -> Vec<DeleteRecordsResult>;
    LogScope => DescribeLogs -> Vec<LogDescription>;
    Vec<(PartitionId, Uuid)> => MoveLogs -> Vec<ErrorCode>;
}

/// Questions for the controller: what is matched of the question, and what it answers.
macro_rules! of_controller {
    ($($question:ident $fields:tt => $request:ident $sent:tt, $reply:ident -> $answer:ty;)*) => {
        $(impl Designated for $question {}

        impl Question for $question {
            type Answer = $answer;

            fn into_request(self) -> Request {
                let $question $fields = self;
                Request::Control(ControllerRequest::$request $sent)
            }

            fn answer(reply: Reply) -> Option<$answer> {
                match reply {
                    Reply::Control(ControllerReply::$reply(answer)) => Some(answer),
                    _ => None,
                }
            }
        })*
    };
}

/// Questions for the coordinator of groups, likewise.
macro_rules! of_groups {
    ($($question:ident $fields:tt => $request:ident $sent:tt, $reply:ident $told:tt -> $answer:ty = $taken:expr;)*) => {
        $(impl Designated for $question {}

        impl Question for $question {
            type Answer = $answer;

            fn into_request(self) -> Request {
                let $question $fields = self;
                Request::Group(Box::new(GroupRequest::$request $sent))
            }

            fn answer(reply: Reply) -> Option<$answer> {
                match reply {
                    Reply::Group(reply) => match *reply {
                        GroupReply::$reply $told => Some($taken),
                        _ => None,
                    },
                    _ => None,
                }
            }
        })*
    };
}

/// See [`ControllerRequest::CreateTopics`].
pub struct CreateTopics {
    /// In the request's order.
    pub topics: Vec<NewTopic>,
    /// Judge, but change nothing.
    pub validate_only: bool,
}

/// See [`ControllerRequest::DeleteTopics`].
pub struct DeleteTopics {
    /// In the request's order.
    pub topics: Vec<TopicRef>,
}

/// See [`ControllerRequest::CreatePartitions`].
pub struct CreatePartitions {
    /// In the request's order.
    pub topics: Vec<NewPartitions>,
    /// Judge, but change nothing.
    pub validate_only: bool,
}

/// See [`ControllerRequest::AlterConfigs`].
pub struct AlterConfigs {
    /// In the request's order.
    pub resources: Vec<ConfigChange>,
    /// Judge, but change nothing.
    pub validate_only: bool,
}

/// See [`ControllerRequest::AllocateProducerId`].
pub struct AllocateProducerId {}

/// See [`ControllerRequest::UpdateFeatures`].
pub struct UpdateFeatures {
    /// In the request's order.
    pub updates: Vec<FeatureUpdate>,
    /// Judge, but change nothing.
    pub validate_only: bool,
}

of_controller! {
    CreateTopics { topics, validate_only } =>
        CreateTopics { topics, validate_only }, CreateTopics -> Vec<CreatedTopic>;
    DeleteTopics { topics } =>
        DeleteTopics (topics), DeleteTopics -> Vec<(Str, Uuid, Result<(), ApiError>)>;
    CreatePartitions { topics, validate_only } =>
        CreatePartitions { topics, validate_only }, CreatePartitions -> Vec<(Str, Result<(), ApiError>)>;
    AlterConfigs { resources, validate_only } =>
        AlterConfigs { resources, validate_only }, AlterConfigs -> Vec<Result<(), ApiError>>;
    AllocateProducerId {} =>
        AllocateProducerId {}, ProducerId -> Result<i64, ApiError>;
    UpdateFeatures { updates, validate_only } =>
        UpdateFeatures { updates, validate_only }, UpdateFeatures -> Result<(), ApiError>;
}

/// See [`GroupRequest::Join`].
pub struct JoinGroup {
    /// As decoded; protocols of one name only once.
    pub request: JoinGroupRequest,
    /// Who joins.
    pub caller: Caller,
    /// A new member has to come again with the id it is given (KIP-394).
    pub known_member_id: bool,
    /// The leader can be told that there is nothing to assign (KIP-814).
    pub skip_assignment: bool,
}

/// See [`GroupRequest::Sync`].
pub struct SyncGroup(pub SyncGroupRequest);

/// See [`GroupRequest::Heartbeat`].
pub struct Heartbeat(pub HeartbeatRequest);

/// See [`GroupRequest::Leave`].
pub struct LeaveGroup(pub LeaveGroupRequest);

/// See [`GroupRequest::DeleteOffsets`].
pub struct DeleteOffsets(pub OffsetDeleteRequest);

/// See [`GroupRequest::ConsumerHeartbeat`].
pub struct ConsumerHeartbeat {
    /// As decoded.
    pub request: ConsumerGroupHeartbeatRequest,
    /// Members make their own ids (version 1 on).
    pub id_required: bool,
    /// Who asks.
    pub caller: Caller,
}

/// See [`GroupRequest::ConsumerDescribe`].
pub struct DescribeConsumerGroups {
    /// In the request's order.
    pub groups: Vec<Str>,
}

/// See [`GroupRequest::Describe`].
pub struct DescribeGroups {
    /// In the request's order.
    pub groups: Vec<Str>,
    /// An unknown group is an error rather than a dead group (version 6 on).
    pub missing_is_error: bool,
}

/// See [`GroupRequest::List`]; answered with the last group of the page, unless there are no more.
pub struct ListGroups {
    /// Names of states, any case; none for all.
    pub states: NameFilter,
    /// Names of types, any case; none for all.
    pub types: NameFilter,
    /// Which of them.
    pub page: GroupPage,
}

/// See [`GroupRequest::Delete`].
pub struct DeleteGroups {
    /// Each name once.
    pub groups: Vec<Str>,
}

/// See [`GroupRequest::CommitOffsets`].
pub struct CommitOffsets {
    /// As decoded, completed.
    pub request: OffsetCommitRequest,
    /// The client knows errors about groups and epochs (version 9 on).
    pub knows_epochs: bool,
}

/// See [`GroupRequest::FetchOffsets`].
pub struct FetchOffsets {
    /// In the request's order.
    pub groups: Vec<OffsetFetchRequestGroup>,
}

of_groups! {
    JoinGroup { request, caller, known_member_id, skip_assignment } =>
        Join { request, caller, known_member_id, skip_assignment },
        Join (told) -> JoinGroupResponse = told;
    SyncGroup (request) => Sync (request), Sync (told) -> SyncGroupResponse = told;
    Heartbeat (request) => Heartbeat (request), Heartbeat (told) -> HeartbeatResponse = told;
    LeaveGroup (request) => Leave (request), Leave (told) -> LeaveGroupResponse = told;
    DeleteOffsets (request) =>
        DeleteOffsets (request), DeleteOffsets (told) -> OffsetDeleteResponse = told;
    ConsumerHeartbeat { request, id_required, caller } =>
        ConsumerHeartbeat { request, id_required, caller },
        ConsumerHeartbeat (told) -> ConsumerGroupHeartbeatResponse = told;
    DescribeConsumerGroups { groups } =>
        ConsumerDescribe (groups), ConsumerDescribe (told) -> Vec<ConsumerDescribedGroup> = told;
    DescribeGroups { groups, missing_is_error } =>
        Describe { groups, missing_is_error }, Describe (told) -> Vec<DescribedGroup> = told;
    ListGroups { states, types, page } =>
        List { states, types, page },
        List (told, last) -> (ListGroupsResponse, Option<Str>) = (told, last);
    DeleteGroups { groups } => Delete (groups), Delete (told) -> DeleteGroupsResponse = told;
    CommitOffsets { request, knows_epochs } =>
        CommitOffsets { request, knows_epochs },
        CommitOffsets (told) -> OffsetCommitResponse = told;
    FetchOffsets { groups } =>
        FetchOffsets { groups }, FetchOffsets (told) -> Vec<OffsetFetchResponseGroup> = told;
    CommittedQuery { after, groups_max } =>
        Committed (CommittedQuery { after, groups_max }),
        Committed (told) -> Result<Vec<GroupCommitted>, ErrorCode> = told;
}
