//! What one step of a partition's group state may use, and what it leaves behind.
//!
//! Plain values; nothing is performed here.

use std::sync::Arc;

use chronik_protocol::{ErrorCode, Str};

use super::classic::Member;
use super::consumer::Programs;
use super::deadlines::DeadlineWishes;
use super::partition::Group;
use super::records::{GroupRecord, pack};
use super::request::GroupReply;
use super::settings::GroupSettings;
use super::sweep::DeletedTopics;
use crate::catalog::Image;
use crate::partition::Now;

/// A caller that waits. The coordinator knows who it is; each is answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) usize);

/// What a new image says of topics, apart from how they are now.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicChanges {
    /// Topics that are not in it any more.
    pub(crate) gone: DeletedTopics,
    /// Some of them are new.
    pub(crate) created: bool,
}

/// A refusal: Kafka's code, and a sentence where the response has room for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<Str>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal {
            code,
            message: None,
        }
    }
}

#[allow(
    dead_code,
    reason = "for the new protocol, whose responses have room for sentences"
)]
impl Refusal {
    /// A refusal with a sentence.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: Some(Str::from(message.into())),
        }
    }
}

/// What a step may use.
pub(crate) struct Step<'a> {
    pub(crate) now: Now,
    pub(crate) settings: &'a GroupSettings,
    /// Expressions that are being resolved, of all groups.
    pub(crate) programs: &'a Programs,
    pub(crate) image: &'a Arc<Image>,
    pub(crate) random: &'a mut dyn FnMut() -> u128,
    pub(crate) timers: DeadlineWishes,
    /// The largest batch the topic takes.
    pub(crate) batch_bytes_max: usize,
    /// Callers answered by this step without waiting for anything.
    pub(crate) replies: Vec<(Token, GroupReply)>,
}

impl Step<'_> {
    /// Answers a caller at once.
    pub(crate) fn reply(&mut self, token: Token, reply: GroupReply) {
        self.replies.push((token, reply));
    }

    /// Whether records that count together fit into one batch. For the few decisions that depend on
    /// it; whatever does not fit is refused later in any case.
    pub(crate) fn has_room_for(&self, records: &[GroupRecord]) -> bool {
        pack(records, true, self.batch_bytes_max, self.now.wall_ms).is_ok()
    }

    /// A random id in the form of Java's `UUID.randomUUID().toString()`.
    pub(crate) fn random_uuid(&mut self) -> String {
        let version_4 = (self.random)() & !(0xf << 76) | 0x4 << 76;
        let id = version_4 & !(0b11 << 62) | 0b10 << 62;
        let hex = format!("{id:032x}");
        let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
        format!(
            "{}-{}-{}-{}-{}",
            part(0..8),
            part(8..12),
            part(12..16),
            part(16..20),
            part(20..32)
        )
    }
}

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
