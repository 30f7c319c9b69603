//! Requests that wait while a partition's log is closed for the last step of a move.
//!
//! State only. Appends that touch the partition wait, and those behind them that touch what these
//! touch, so that each partition gets its batches in the order in which they came. Reads of it wait
//! once it is closed. Bounded; what finds no room is let through, and refused by what it finds.

use std::collections::{BTreeSet, VecDeque};

use chronik_io::World;

use super::{Shard, Slot};
use crate::limits::{HELD_PER_SLICE, HELD_REQUESTS_MAX, UNDECIDED_APPEND_BYTES_MAX};
use crate::request::Request;
use crate::terms::{LogDescription, LogScope, PartitionId, ReadRequest};

/// See the module's text.
pub(super) struct Held<R> {
    /// The partitions whose appends wait.
    shut: BTreeSet<PartitionId>,
    requests: VecDeque<(Request, R)>,
    bytes: usize,
}

impl<R> Default for Held<R> {
    fn default() -> Self {
        Held {
            shut: BTreeSet::new(),
            requests: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<R> Held<R> {
    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// From now on appends to this partition wait.
    pub(super) fn shut(&mut self, id: PartitionId) {
        self.shut.insert(id);
    }

    /// Takes some of the requests out, the oldest first. Once none waits nothing is shut.
    pub(super) fn take_some(&mut self) -> Vec<(Request, R)> {
        let count = self.requests.len().min(HELD_PER_SLICE);
        let taken: Vec<_> = self.requests.drain(..count).collect();
        for (request, _) in &taken {
            self.bytes = self.bytes.saturating_sub(bytes_of(request));
        }
        if self.requests.is_empty() {
            self.shut.clear();
        }
        taken
    }

    fn push(&mut self, request: Request, responder: R) {
        self.bytes += bytes_of(&request);
        self.requests.push_back((request, responder));
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
        if self.moves.held.shut.is_empty() {
            return Some((request, responder));
        }
        let (away, held) = (self.moves.away(), &mut self.moves.held);
        let is_away = |id: PartitionId| away == Some(id);
        let waits = match &request {
            Request::Append(request) => {
                let mut ids = request.parts.iter().map(|part| part.partition);
                let waits = ids.any(|id| held.shut.contains(&id));
                let is_full = held.bytes >= UNDECIDED_APPEND_BYTES_MAX;
                if waits && !is_full && held.requests.len() < HELD_REQUESTS_MAX {
                    held.shut
                        .extend(request.parts.iter().map(|part| part.partition));
                }
                waits && !is_full
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
        if !waits || held.requests.len() >= HELD_REQUESTS_MAX {
            return Some((request, responder));
        }
        held.push(request, responder);
        None
    }

    /// As [`Shard::hold`], for a read that is not parked, or not any more.
    pub(super) fn hold_read(
        &mut self,
        mut request: ReadRequest,
        responder: R,
    ) -> Option<(ReadRequest, R)> {
        let Some(away) = self.moves.away() else {
            return Some((request, responder));
        };
        let waits = request.parts.iter().any(|part| part.partition == away);
        if !waits || self.moves.held.requests.len() >= HELD_REQUESTS_MAX {
            return Some((request, responder));
        }
        request.wait = None;
        self.moves.held.push(Request::Read(request), responder);
        None
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
        if id == crate::terms::METADATA_PARTITION {
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
            Some(Slot::Moving) => {
                let (size_bytes, log_end) = self.moves.size_of(id).unwrap_or_default();
                (of_size(size_bytes, true), log_end)
            }
            _ => return,
        };
        if let Some((directory, copied)) = self.moves.future_of(id).filter(|_| described.online) {
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
