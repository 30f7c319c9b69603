//! What one step of a partition's group state may use.
//!
//! Nothing is performed here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::{Str, Uuid};
use chronik_terms::Now;

use super::caller::Token;
use super::consumer::regex::Programs;
use super::deadlines::DeadlineWishes;
use super::records::{GroupRecord, pack};
use super::request::GroupReply;
use super::settings::GroupSettings;

/// Topics that are gone, by name, with the ids they had.
pub(crate) type DeletedTopics = BTreeMap<Str, BTreeSet<Uuid>>;

/// What a new image says of topics, apart from how they are now.
#[derive(Clone, Debug, Default)]
pub struct TopicChanges {
    /// Topics that are not in it any more.
    pub gone: DeletedTopics,
    /// Some of them are new.
    pub created: bool,
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
