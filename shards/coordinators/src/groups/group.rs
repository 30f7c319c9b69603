//! A group, of whichever protocol.
//!
//! What both have in common; what requests do to one is `classic`'s and `consumer`'s.

use chronik_protocol::{ErrorCode, Str};

use super::caller::Token;
use super::classic::group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup, ClassicState};
use super::consumer::convert::tombstones;
use super::consumer::group::ConsumerGroup;
use super::offsets::OffsetExpiry;
use super::records::GroupRecord;
use super::request::GroupReply;

/// A group of either protocol.
#[derive(Clone, Debug)]
pub(crate) enum Group {
    /// JoinGroup and its relatives; also groups that only have offsets.
    Classic(Box<ClassicGroup>),
    /// ConsumerGroupHeartbeat (KIP-848), with or without classic members.
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    /// Kafka's name of its type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Group::Classic(_) => "classic",
            Group::Consumer(_) => "consumer",
        }
    }

    /// Kafka's name of its state.
    pub(crate) fn state_name(&self) -> &'static str {
        match self {
            Group::Classic(group) => group.state().name(),
            Group::Consumer(group) => group.state().name(),
        }
    }

    /// What its members call the way they assign; empty when there is none.
    pub(crate) fn protocol_type(&self) -> Str {
        match self {
            Group::Classic(group) => group.protocol_type().cloned().unwrap_or_default(),
            Group::Consumer(_) => Str::from_static(CONSUMER_PROTOCOL_TYPE),
        }
    }

    /// Members it has.
    pub(crate) fn member_count(&self) -> usize {
        match self {
            Group::Classic(group) => group.members().len(),
            Group::Consumer(group) => group.members.len(),
        }
    }

    /// Whether it has no members.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.members.is_empty(),
        }
    }

    /// Whether nobody would miss it if it had no offsets.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty() && group.size() == 0,
            Group::Consumer(group) => group.members.is_empty(),
        }
    }

    /// Whether a member wants records of a topic.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Consumer(group) => group.subscribes_to(topic),
        }
    }

    /// When its offsets may be forgotten, apart from those of topics it is subscribed to.
    pub(crate) fn offset_expiry(&self) -> OffsetExpiry {
        match self {
            Group::Classic(group) => match (group.protocol_type(), group.state()) {
                (None, _) => OffsetExpiry::SinceCommit,
                (Some(_), ClassicState::Empty) => group
                    .state_timestamp_ms()
                    .map_or(OffsetExpiry::SinceCommit, OffsetExpiry::Since),
                (Some(_), ClassicState::Stable)
                    if group.uses_consumer_protocol() && group.knows_subscriptions() =>
                {
                    OffsetExpiry::SinceCommit
                }
                _ => OffsetExpiry::Never,
            },
            Group::Consumer(_) => OffsetExpiry::SinceCommit,
        }
    }

    /// Removes it from the log.
    pub(crate) fn tombstones(&self, id: &Str, records: &mut Vec<GroupRecord>) {
        match self {
            Group::Classic(_) => records.push(GroupRecord::group_tombstone(id)),
            Group::Consumer(group) => tombstones(group, records),
        }
    }

    /// Refuses everybody who is parked in it.
    pub(super) fn refuse_waiting(&mut self, error: ErrorCode, out: &mut Vec<(Token, GroupReply)>) {
        match self {
            Group::Classic(group) => group.refuse_waiting(error, out),
            // Nobody is ever parked in one.
            Group::Consumer(_) => {}
        }
    }
}
