//! What may be asked of a shard: plain `Send` values that cross cores, and their replies.
//!
//! Everything a connection wants from the state of partitions or of the catalogue is one of these.
//! Runs on no core by itself. Replies come in the order of the request's parts. The parts themselves are
//! [`chronik_terms`].

use std::sync::Arc;

use chronik_catalog::{ControllerReply, ControllerRequest, Image};
use chronik_coordinators::groups::{GroupReply, GroupRequest};
use chronik_protocol::{ErrorCode, Uuid};
use chronik_terms::{
    AppendRequest, AppendResult, AwaitRequest, DeleteRecordsPart, DeleteRecordsResult, EpochAnswer,
    EpochQuery, LogDescription, LogScope, OffsetAnswer, OffsetQuery, ParkToken, PartitionId,
    ReadRequest, ReadResult, SegmentOffsets, SegmentOffsetsQuery, Wake,
};

use crate::internal::{InternalReply, InternalRequest};

/// One message to a shard.
#[derive(Debug)]
pub enum Request {
    /// Appends batches; answered when `acks` is satisfied for every part.
    Append(AppendRequest),
    /// Reads batches; may park when [`ReadRequest::wait`] is set.
    Read(ReadRequest),
    /// Parks until enough bytes can be read or the deadline is reached (for fetches over several
    /// shards).
    Await(AwaitRequest),
    /// Ends a parked `Read` or `Await` early; unknown tokens are ignored.
    Cancel(ParkToken),
    /// Offsets by timestamp or position.
    ListOffsets(Vec<OffsetQuery>),
    /// Where segments begin, for version 0 of ListOffsets.
    SegmentOffsets(Vec<SegmentOffsetsQuery>),
    /// Where leader epochs end (KIP-101, KIP-320).
    EpochEnds(Vec<EpochQuery>),
    /// Moves log start offsets forward (KIP-107).
    DeleteRecords(Vec<DeleteRecordsPart>),
    /// Sizes of the logs on this shard.
    DescribeLogs(LogScope),
    /// Moves logs to other log directories of this broker, by their ids; answered as soon as that is
    /// agreed to. The directory where a log lies ends a move of it.
    MoveLogs(Vec<(PartitionId, Uuid)>),
    /// A new image from the controller; answered once this shard's partitions agree with it.
    Publish(Arc<Image>),
    /// A change of the catalogue; for the designated shard only.
    Control(ControllerRequest),
    /// Something for the group coordinator; for the designated shard only.
    Group(Box<GroupRequest>),
    /// Flush, seal and close everything on this shard; answered with `Stopped` when that is on disk.
    /// The clean-shutdown marker is the business of [`crate::ShardHandle::stop`].
    Stop,
    /// Between shards only: nobody outside this package can make one.
    Internal(InternalRequest),
}

/// The answer to a [`Request`] of the same name.
#[derive(Debug)]
pub enum Reply {
    /// One result for each part.
    Append(Vec<AppendResult>),
    /// One result for each part.
    Read(Vec<ReadResult>),
    /// Why the parked request was woken.
    Await(Wake),
    /// One answer for each query.
    ListOffsets(Vec<OffsetAnswer>),
    /// One answer for each query.
    SegmentOffsets(Vec<SegmentOffsets>),
    /// One answer for each query.
    EpochEnds(Vec<EpochAnswer>),
    /// One result for each part.
    DeleteRecords(Vec<DeleteRecordsResult>),
    /// The logs found; those asked for and not here are left out.
    DescribeLogs(Vec<LogDescription>),
    /// What became of each wish; `None` when it is agreed to.
    MoveLogs(Vec<ErrorCode>),
    /// What the controller says; sent after every shard has applied the change.
    Control(ControllerReply),
    /// What the group coordinator says; sent when what it tells is committed.
    Group(Box<GroupReply>),
    /// Between shards only.
    Internal(InternalReply),
    /// The broker has stopped.
    Stopped {
        /// The directories say that they were left in order: the next start need not look through the logs.
        in_order: bool,
    },
    /// `Publish` and `Cancel` have nothing to say.
    Done,
}
