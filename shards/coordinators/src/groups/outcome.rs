//! What a step leaves behind: records to be written, and what happens when they are committed.
//!
//! Plain values; the coordinator performs them.

use chronik_protocol::Str;

use super::caller::Token;
use super::classic::member::Member;
use super::group::Group;
use super::records::GroupRecord;
use super::request::GroupReply;

/// What happens when the records of an outcome, and all before them, are committed.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nobody waits.
    Nothing,
    /// A caller is answered. If the records cannot be written, the runtime makes the failure of
    /// the same request out of the reply.
    Reply(Token, GroupReply),
    /// The leader's assignment counts (`SyncGroup`): members are told, the group is stable.
    Assigned { group: Str, generation: i32 },
    /// A static member has come back under a new id, without a rebalance.
    Replaced {
        group: Str,
        member: Str,
        leader_before: Option<Str>,
        /// KIP-814.
        skip_assignment: bool,
        /// What becomes of the group again if that cannot be written.
        before: Box<Replaced>,
    },
    /// A classic group has come into being.
    Created {
        group: Str,
        /// The group without members in whose place it is.
        before: Option<Box<Group>>,
    },
}

/// A static member before somebody took its place.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) member: Member,
    /// It had not asked for its share yet.
    pub(crate) was_pending_sync: bool,
}

/// What a step wants written.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Empty when nothing changes.
    pub(crate) records: Vec<GroupRecord>,
    /// The state does not have them yet: the runtime replays them once it knows that they fit.
    pub(crate) replay: bool,
    /// They count together or not at all, so they must fit into one batch.
    pub(crate) atomic: bool,
    pub(crate) then: Then,
}

impl Outcome {
    /// Nothing to write, nobody to answer.
    pub(crate) const NOTHING: Outcome = Outcome {
        records: Vec::new(),
        replay: false,
        atomic: true,
        then: Then::Nothing,
    };

    /// An answer without records: it waits for what was written before.
    pub(crate) fn reply(token: Token, reply: GroupReply) -> Outcome {
        Outcome {
            then: Then::Reply(token, reply),
            ..Outcome::NOTHING
        }
    }

    /// Records to be replayed and written as one, and an answer after them.
    pub(crate) fn replayed(records: Vec<GroupRecord>, token: Token, reply: GroupReply) -> Outcome {
        Outcome {
            records,
            replay: true,
            atomic: true,
            then: Then::Reply(token, reply),
        }
    }

    /// Records of a state that has them already (classic groups).
    pub(crate) fn written(records: Vec<GroupRecord>, then: Then) -> Outcome {
        Outcome {
            records,
            replay: false,
            atomic: true,
            then,
        }
    }
}
