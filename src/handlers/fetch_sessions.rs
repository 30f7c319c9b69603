//! Incremental fetch sessions (KIP-227): a client says only what changed, and so does the broker.
//!
//! One cache per shard, for the connections of that shard. Bounded in sessions and in partitions;
//! a fetch that finds no place is simply answered in full every time. The rules are those of
//! Kafka's `FetchSession`.

use std::collections::{HashMap, HashSet};

use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_protocol::{ErrorCode, Str, Uuid};

/// The session id of a fetch without a session.
pub(super) const NO_SESSION: i32 = 0;
/// The epoch of a fetch that begins a session (or is the full fetch of none).
const EPOCH_INITIAL: i32 = 0;
/// The epoch of a fetch that wants no session.
const EPOCH_FINAL: i32 = -1;
/// A session is safe from eviction for this long after it was used, ms
/// (`FetchSession.MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const EVICTION_MS: i64 = 120_000;
/// Partitions remembered by all sessions of a shard.
const PARTITIONS_MAX: usize = 200_000;
/// Above this many comparisons an index is made first.
const LINEAR_SEARCH_MAX: usize = 4096;

/// How a client names a topic: by id from version 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    /// By name.
    Name(Str),
    /// By id.
    Id(Uuid),
}

/// One partition a client wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FetchPart {
    pub(super) topic: TopicKey,
    pub(super) partition: i32,
    pub(super) fetch_offset: i64,
    pub(super) max_bytes: i32,
    pub(super) current_leader_epoch: i32,
    pub(super) last_fetched_epoch: i32,
}

/// What a request says about its session.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) session_id: i32,
    pub(super) epoch: i32,
    pub(super) parts: Vec<FetchPart>,
    pub(super) forgotten: Vec<(TopicKey, i32)>,
    pub(super) uses_ids: bool,
}

impl Ask {
    /// Reads it from a request.
    pub(super) fn of(request: &FetchRequest, uses_ids: bool) -> Self {
        // A name that is kept in a session must not keep its frame in memory.
        let key = |name: &Str, id: Uuid| match uses_ids {
            true => TopicKey::Id(id),
            false => TopicKey::Name(name.detached()),
        };
        let mut parts = Vec::new();
        for topic in &request.topics {
            let topic_key = key(&topic.topic, topic.topic_id);
            parts.extend(topic.partitions.iter().map(|partition| FetchPart {
                topic: topic_key.clone(),
                partition: partition.partition,
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            }));
        }
        let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
            let topic_key = key(&topic.topic, topic.topic_id);
            topic
                .partitions
                .iter()
                .map(move |partition| (topic_key.clone(), *partition))
        });
        Self {
            session_id: request.session_id,
            epoch: request.session_epoch,
            parts,
            forgotten: forgotten.collect(),
            uses_ids,
        }
    }
}

/// A fetch whose session is known.
#[derive(Debug)]
pub(super) struct Opened {
    /// 0 when there is none.
    pub(super) session_id: i32,
    /// Whether partitions without news may be left out of the response.
    pub(super) incremental: bool,
    /// All partitions to read, in their order.
    pub(super) parts: Vec<FetchPart>,
    /// The epoch that the session then waits for.
    next_epoch: i32,
}

/// What a client was told last about a partition; −1 makes the next answer news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) high_watermark: i64,
    pub(super) log_start_offset: i64,
}

#[derive(Debug)]
struct Cached {
    part: FetchPart,
    told: Told,
}

/// What is remembered for one client.
#[derive(Debug)]
pub(super) struct Session {
    next_epoch: i32,
    uses_ids: bool,
    created_ms: i64,
    used_ms: i64,
    parts: Vec<Cached>,
}

/// Where a session is.
#[derive(Debug)]
enum Slot {
    There(Session),
    /// With the request that it serves, which may be looked at beside the shard.
    Away {
        /// As [`SessionCache::partitions`] counts it meanwhile.
        partitions: usize,
    },
}

impl Slot {
    fn there(&self) -> Option<&Session> {
        match self {
            Slot::There(session) => Some(session),
            Slot::Away { .. } => None,
        }
    }

    fn partitions(&self) -> usize {
        match self {
            Slot::There(session) => session.parts.len(),
            Slot::Away { partitions } => *partitions,
        }
    }
}

/// The sessions of a shard.
#[derive(Debug)]
pub(crate) struct SessionCache {
    slots: usize,
    partitions: usize,
    sessions: HashMap<i32, Slot>,
}

/// A request with its session: what follows costs what both of them have, and needs no cache.
#[derive(Debug)]
pub(super) struct Opening {
    ask: Ask,
    /// 0 when there is none.
    session_id: i32,
    session: Option<Session>,
    incremental: bool,
}

impl Opening {
    /// Partitions that are looked at.
    pub(super) fn len(&self) -> usize {
        let known = self.session.as_ref();
        self.ask.parts.len() + known.map_or(0, |session| session.parts.len())
    }

    /// The session that is away with it.
    pub(super) fn session_id(&self) -> i32 {
        self.session_id
    }

    /// Brings the session up to date; it goes back by [`SessionCache::give_back`].
    pub(super) fn run(self) -> (Opened, Option<Session>) {
        let Opening {
            ask,
            session_id,
            mut session,
            incremental,
        } = self;
        if let Some(session) = &mut session {
            session.update(&ask.parts);
            session.forget(&ask.forgotten);
        }
        let parts = match &session {
            Some(session) if incremental => {
                let parts = session.parts.iter();
                parts.map(|cached| cached.part.clone()).collect()
            }
            _ => ask.parts,
        };
        let opened = Opened {
            // One without partitions ends.
            session_id: if parts.is_empty() {
                NO_SESSION
            } else {
                session_id
            },
            incremental,
            parts,
            next_epoch: session
                .as_ref()
                .map_or(EPOCH_INITIAL, |session| session.next_epoch),
        };
        (opened, session)
    }
}

impl SessionCache {
    /// At most `slots` sessions.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots,
            partitions: 0,
            sessions: HashMap::new(),
        }
    }

    /// Begins, continues or ends a session. What it gives has the session with it.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR: the
    /// client then begins again with a full fetch.
    pub(super) fn open(
        &mut self,
        ask: Ask,
        now_ms: i64,
        random: impl FnMut() -> u64,
    ) -> Result<Opening, ErrorCode> {
        let incremental = ask.epoch != EPOCH_INITIAL && ask.epoch != EPOCH_FINAL;
        let (session_id, session) = match incremental {
            true => (ask.session_id, Some(self.go_on(&ask, now_ms)?)),
            false => {
                self.remove(ask.session_id);
                match ask.epoch {
                    EPOCH_INITIAL => self.create(&ask, now_ms, random),
                    _ => (NO_SESSION, None),
                }
            }
        };
        Ok(Opening {
            ask,
            session_id,
            session,
            incremental,
        })
    }

    fn go_on(&mut self, ask: &Ask, now_ms: i64) -> Result<Session, ErrorCode> {
        let session = self.sessions.get(&ask.session_id).and_then(Slot::there);
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.next_epoch != ask.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_ids != ask.uses_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let session = self.lend(ask.session_id);
        let mut session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        session.used_ms = now_ms;
        // Epochs wrap within the positive numbers.
        session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
        Ok(session)
    }

    fn create(
        &mut self,
        ask: &Ask,
        now_ms: i64,
        mut random: impl FnMut() -> u64,
    ) -> (i32, Option<Session>) {
        let size = ask.parts.len();
        if size == 0 || !self.make_room(size, now_ms) {
            return (NO_SESSION, None);
        }
        let session_id = loop {
            let candidate = i32::try_from(random() >> 33).unwrap_or(NO_SESSION);
            if candidate != NO_SESSION && !self.sessions.contains_key(&candidate) {
                break candidate;
            }
        };
        let session = Session {
            next_epoch: 1,
            uses_ids: ask.uses_ids,
            created_ms: now_ms,
            used_ms: now_ms,
            parts: Vec::with_capacity(size),
        };
        self.partitions += size;
        let away = Slot::Away { partitions: size };
        self.sessions.insert(session_id, away);
        (session_id, Some(session))
    }

    /// Takes a session out until it is given back, or removed; `None` when it was evicted, or is with
    /// another request.
    pub(super) fn lend(&mut self, session_id: i32) -> Option<Session> {
        let slot = self.sessions.get_mut(&session_id)?;
        let partitions = slot.partitions();
        let away = Slot::Away { partitions };
        match std::mem::replace(slot, away) {
            Slot::There(session) => Some(session),
            Slot::Away { .. } => None,
        }
    }

    /// Puts a session back; one that was ended meanwhile, or has no partition any more, is dropped, and so
    /// is one that grew beyond what all of them may have: its client begins again with a full fetch.
    pub(super) fn give_back(&mut self, session_id: i32, session: Session) {
        let Some(Slot::Away { partitions }) = self.sessions.get(&session_id) else {
            return;
        };
        let others = self.partitions - partitions;
        let is_too_large = others.saturating_add(session.parts.len()) > PARTITIONS_MAX;
        if session.parts.is_empty() || is_too_large {
            self.partitions = others;
            self.sessions.remove(&session_id);
        } else {
            self.partitions = others + session.parts.len();
            self.sessions.insert(session_id, Slot::There(session));
        }
    }

    /// Evicts at most one session: one that was not used for long, else a smaller one that had
    /// its time.
    fn make_room(&mut self, size: usize, now_ms: i64) -> bool {
        let fits = |cache: &Self| {
            cache.sessions.len() < cache.slots
                && cache.partitions.saturating_add(size) <= PARTITIONS_MAX
        };
        if fits(self) {
            return true;
        }
        let there = || {
            let slots = self.sessions.iter();
            slots.filter_map(|(id, slot)| Some((id, slot.there()?)))
        };
        let oldest = there().min_by_key(|(_, session)| session.used_ms);
        let stale = oldest.filter(|(_, session)| now_ms - session.used_ms > EVICTION_MS);
        let smaller = || {
            let aged = there().filter(|(_, session)| now_ms - session.created_ms > EVICTION_MS);
            aged.min_by_key(|(_, session)| session.parts.len())
                .filter(|(_, session)| session.parts.len() < size)
        };
        let victim = stale.or_else(smaller).map(|(id, _)| *id);
        if let Some(victim) = victim {
            self.remove(victim);
        }
        fits(self)
    }

    /// Forgets a session, wherever it is.
    pub(super) fn remove(&mut self, session_id: i32) {
        if let Some(slot) = self.sessions.remove(&session_id) {
            self.partitions -= slot.partitions();
        }
    }
}

impl Session {
    /// Whether no other request has used the session since `opened` did: its partitions are still those,
    /// in that order.
    pub(super) fn is_as_for(&self, opened: &Opened) -> bool {
        self.next_epoch == opened.next_epoch
    }

    /// What the client was told about the partitions, in their order; to be changed to what it is told
    /// now.
    pub(super) fn told(&mut self) -> impl Iterator<Item = &mut Told> {
        self.parts.iter_mut().map(|cached| &mut cached.told)
    }

    /// Moves the partitions that had records behind the others: they wait their turn.
    pub(super) fn rotate(&mut self, had_records: &[bool]) {
        if !had_records.contains(&true) || had_records.len() != self.parts.len() {
            return;
        }
        let mut flags = had_records.iter();
        let all = std::mem::take(&mut self.parts);
        let (behind, before): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|_| flags.next().copied().unwrap_or(false));
        self.parts = before;
        self.parts.extend(behind);
    }

    /// Adds partitions, or changes what is known of them.
    fn update(&mut self, parts: &[FetchPart]) {
        let costly = parts
            .len()
            .saturating_mul(self.parts.len().max(parts.len()))
            > LINEAR_SEARCH_MAX;
        let mut index: HashMap<(TopicKey, i32), usize> = HashMap::new();
        if costly {
            let known = self.parts.iter().enumerate();
            index.extend(known.map(|(place, cached)| (cached.part.key(), place)));
        }
        for part in parts {
            let place = match costly {
                true => index.get(&part.key()).copied(),
                false => self
                    .parts
                    .iter()
                    .position(|cached| cached.part.is_same(part)),
            };
            match place.and_then(|place| self.parts.get_mut(place)) {
                Some(cached) => cached.part = part.clone(),
                None => {
                    if costly {
                        index.insert(part.key(), self.parts.len());
                    }
                    let told = Told {
                        high_watermark: -1,
                        log_start_offset: -1,
                    };
                    self.parts.push(Cached {
                        part: part.clone(),
                        told,
                    });
                }
            }
        }
    }

    fn forget(&mut self, forgotten: &[(TopicKey, i32)]) {
        if !forgotten.is_empty() {
            let forgotten: HashSet<&(TopicKey, i32)> = forgotten.iter().collect();
            self.parts
                .retain(|cached| !forgotten.contains(&cached.part.key()));
        }
    }
}

impl FetchPart {
    fn key(&self) -> (TopicKey, i32) {
        (self.topic.clone(), self.partition)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.partition == other.partition && self.topic == other.topic
    }
}

#[cfg(test)]
mod tests;
