//! Requests that wait while a partition's log is closed for the last step of a move.
//!
//! State only. Appends that touch the partition wait, the group coordinator's among them, and those behind
//! them that touch what these touch, so that each partition gets its batches in the order in which they
//! came. Reads of it wait
//! once it is closed. Bounded: an append that finds no room is refused, for it would overtake those that
//! wait; what else finds none is let through, and refused by what it finds.

use std::collections::{BTreeSet, VecDeque};

use chronik_io::World;
use chronik_partition::AppendOutcome;
use chronik_protocol::ErrorCode;
use chronik_terms::{AppendPart, AppendResult, LogDescription, LogScope, PartitionId, ReadRequest};

use super::{Shard, Slot};
use crate::limits::{HELD_PER_SLICE, HELD_REQUESTS_MAX, UNDECIDED_APPEND_BYTES_MAX};
use crate::request::{Reply, Request};

/// What waits.
enum Waiting<R> {
    Request(Request, R),
    /// A batch of the group coordinator, and the write that it is of.
    Groups(AppendPart, u64),
}

/// See the module's text.
pub(super) struct Held<R> {
    /// The partitions whose appends wait.
    shut: BTreeSet<PartitionId>,
    waiting: VecDeque<Waiting<R>>,
    bytes: usize,
}

impl<R> Default for Held<R> {
    fn default() -> Self {
        Held {
            shut: BTreeSet::new(),
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<R> Held<R> {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= HELD_REQUESTS_MAX
    }

    /// Whether there is room for an append.
    fn takes_append(&self) -> bool {
        !self.is_full() && self.bytes < UNDECIDED_APPEND_BYTES_MAX
    }

    /// From now on appends to this partition wait.
    pub(super) fn shut(&mut self, id: PartitionId) {
        self.shut.insert(id);
    }

    /// Takes some of what waits out, the oldest first. Once nothing waits nothing is shut.
    fn take_some(&mut self) -> Vec<Waiting<R>> {
        let count = self.waiting.len().min(HELD_PER_SLICE);
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        for waiting in &taken {
            self.bytes = self.bytes.saturating_sub(waiting.bytes());
        }
        if self.waiting.is_empty() {
            self.shut.clear();
        }
        taken
    }

    fn push(&mut self, waiting: Waiting<R>) {
        self.bytes += waiting.bytes();
        self.waiting.push_back(waiting);
    }
}

impl<R> Waiting<R> {
    fn bytes(&self) -> usize {
        match self {
            Self::Request(request, _) => bytes_of(request),
            Self::Groups(part, _) => part.batch.bytes.len(),
        }
    }
}

fn bytes_of(request: &Request) -> usize {
    match request {
        Request::Append(request) => {
            let parts = request.parts.iter();
            parts.map(|part| part.batch.bytes.len()).sum()
        }
        _ => 0,
    }
}

impl<W: World, R> Shard<W, R> {
    /// Gives a request back unless it has to wait.
    pub(super) fn hold(&mut self, request: Request, responder: R) -> Option<(Request, R)> {
        if self.following.moves.held.shut.is_empty() {
            return Some((request, responder));
        }
        let (away, held) = (self.following.moves.away(), &mut self.following.moves.held);
        let is_away = |id: PartitionId| away == Some(id);
        let waits = match &request {
            Request::Append(request) => {
                let mut ids = request.parts.iter().map(|part| part.partition);
                let waits = ids.any(|id| held.shut.contains(&id));
                if waits && held.takes_append() {
                    held.shut
                        .extend(request.parts.iter().map(|part| part.partition));
                }
                waits
            }
            Request::DeleteRecords(parts) => {
                parts.iter().any(|part| held.shut.contains(&part.partition))
            }
            Request::ListOffsets(queries) => queries.iter().any(|query| is_away(query.partition)),
            Request::SegmentOffsets(queries) => {
                queries.iter().any(|query| is_away(query.partition))
            }
            Request::EpochEnds(queries) => queries.iter().any(|query| is_away(query.partition)),
            _ => false,
        };
        match request {
            request if !waits => Some((request, responder)),
            Request::Append(request) if !held.takes_append() => {
                let refused = |_| AppendResult::failed(ErrorCode::RequestTimedOut, None);
                let results = request.parts.iter().map(refused).collect();
                self.reply(responder, Reply::Append(results));
                None
            }
            request if held.is_full() => Some((request, responder)),
            request => {
                held.push(Waiting::Request(request, responder));
                None
            }
        }
    }

    /// As [`Shard::hold`], for a read that is not parked, or not any more.
    pub(super) fn hold_read(
        &mut self,
        mut request: ReadRequest,
        responder: R,
    ) -> Option<(ReadRequest, R)> {
        let Some(away) = self.following.moves.away() else {
            return Some((request, responder));
        };
        let waits = request.parts.iter().any(|part| part.partition == away);
        if !waits || self.following.moves.held.is_full() {
            return Some((request, responder));
        }
        request.wait = None;
        let waiting = Waiting::Request(Request::Read(request), responder);
        self.following.moves.held.push(waiting);
        None
    }

    /// Whether appends to this partition wait.
    pub(super) fn holds(&self, id: PartitionId) -> bool {
        self.following.moves.held.shut.contains(&id)
    }

    /// As [`Shard::hold`], for a batch of the group coordinator that has to wait. One that finds no room is
    /// refused: it would overtake those that wait.
    pub(super) fn hold_for_groups(&mut self, part: AppendPart, write: u64) -> AppendOutcome {
        let held = &mut self.following.moves.held;
        if !held.takes_append() {
            return AppendOutcome::Done(AppendResult::failed(ErrorCode::RequestTimedOut, None));
        }
        held.push(Waiting::Groups(part, write));
        AppendOutcome::Parked
    }

    /// Lets go of what was held, in order and some at a time; whether more is held.
    pub(super) fn release_held(&mut self) -> bool {
        for waiting in self.following.moves.held.take_some() {
            match waiting {
                Waiting::Request(request, responder) => self.serve(request, responder),
                Waiting::Groups(part, write) => self.append_held(part, write),
            }
        }
        !self.following.moves.held.is_empty()
    }

    /// Sizes of logs and of the copies that move them.
    pub(super) fn describe_logs(&self, scope: &LogScope) -> Vec<LogDescription> {
        let mut found = Vec::new();
        match scope {
            LogScope::All => {
                for id in self.partitions.keys() {
                    self.describe_log(*id, &mut found);
                }
            }
            LogScope::Only(ids) => ids.iter().for_each(|id| self.describe_log(*id, &mut found)),
        }
        found
    }

    fn describe_log(&self, id: PartitionId, found: &mut Vec<LogDescription>) {
        if id == chronik_terms::METADATA_PARTITION {
            return;
        }
        let of_size = |size_bytes, online| LogDescription {
            partition: id,
            size_bytes,
            offset_lag: 0,
            future_in: None,
            online,
        };
        let (described, log_end) = match self.partitions.get(&id) {
            Some(Slot::Online(partition)) => (partition.describe(), partition.log_end()),
            Some(slot) if slot.is_offline() => (of_size(0, false), 0),
            // Its directory is made in a moment.
            Some(Slot::Unopened { .. } | Slot::Reopening(_)) => (of_size(0, true), 0),
            Some(Slot::Moving) => {
                let (size_bytes, log_end) = self.following.moves.size_of(id).unwrap_or_default();
                (of_size(size_bytes, true), log_end)
            }
            _ => return,
        };
        if let Some((directory, copied)) = self
            .following
            .moves
            .future_of(id)
            .filter(|_| described.online)
        {
            found.push(LogDescription {
                size_bytes: i64::try_from(copied.bytes).unwrap_or(i64::MAX),
                offset_lag: log_end.saturating_sub(copied.next_offset).max(0),
                future_in: Some(directory),
                ..described.clone()
            });
        }
        found.push(described);
    }
}
