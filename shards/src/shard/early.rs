//! Requests for partitions that are new and not open yet: they wait a moment instead of being refused.
//!
//! State only. A client learns of a topic as soon as the catalogue has it; its first batch would be refused,
//! and come again after its backoff of 100 ms, where the log is open a few milliseconds later. So what asks for
//! such a partition waits until it is open or a deadline comes, and is then served by what it finds. Appends
//! behind those that wait, and that touch what these touch, wait as well: each partition gets its batches in the
//! order in which they came. A read does not wait where it asks for much that is new beside
//! what is there. Bounded: an append that finds no room behind others is refused, for it would overtake them;
//! what else finds none is served at once.

use std::collections::{BTreeSet, VecDeque};

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_terms::{AppendResult, ParkToken, PartitionId, ReadResult, Wake};

use super::timers::Timer;
use super::{Shard, Slot};
use crate::limits::{
    EARLY_BYTES_MAX, EARLY_IN_READ_MAX, EARLY_PARTS_MAX, EARLY_REQUESTS_MAX, EARLY_WAIT_MS_MAX,
    HELD_PER_SLICE,
};
use crate::request::{Reply, Request};

struct Waiting<R> {
    request: Request,
    responder: R,
    due_ns: u64,
}

/// See the module's text.
pub(super) struct Early<R> {
    /// The oldest first, which is due first.
    waiting: VecDeque<Waiting<R>>,
    /// The partitions of the appends among them.
    shut: BTreeSet<PartitionId>,
    /// The partitions they wait for.
    awaited: BTreeSet<PartitionId>,
    parts: usize,
    bytes: usize,
    is_timed: bool,
}

impl<R> Default for Early<R> {
    fn default() -> Self {
        Early {
            waiting: VecDeque::new(),
            shut: BTreeSet::new(),
            awaited: BTreeSet::new(),
            parts: 0,
            bytes: 0,
            is_timed: false,
        }
    }
}

impl<R> Early<R> {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether something waits for this partition.
    pub(super) fn awaits(&self, id: PartitionId) -> bool {
        self.awaited.contains(&id)
    }

    /// This partition is open, or will not be soon; whether something waited for it.
    pub(super) fn is_settled(&mut self, id: PartitionId) -> bool {
        self.awaited.remove(&id)
    }

    /// Takes a wait out that nobody is there for any more.
    fn find(&mut self, token: ParkToken) -> Option<Waiting<R>> {
        let wait_of = |waiting: &Waiting<R>| match &waiting.request {
            Request::Read(request) => request.wait.map(|wait| wait.token),
            Request::Await(request) => Some(request.wait.token),
            _ => None,
        };
        let mut waiting = self.waiting.iter();
        let place = waiting.position(|waiting| wait_of(waiting) == Some(token))?;
        let found = self.waiting.remove(place)?;
        self.parts -= parts_of(&found.request).count();
        Some(found)
    }

    fn has_room_for(&self, request: &Request) -> bool {
        self.waiting.len() < EARLY_REQUESTS_MAX
            && self.parts.saturating_add(parts_of(request).count()) <= EARLY_PARTS_MAX
            && self.bytes < EARLY_BYTES_MAX
    }

    fn push(&mut self, waiting: Waiting<R>) {
        self.parts += parts_of(&waiting.request).count();
        self.bytes += bytes_of(&waiting.request);
        if let Request::Append(request) = &waiting.request {
            let parts = request.parts.iter();
            self.shut.extend(parts.map(|part| part.partition));
        }
        self.waiting.push_back(waiting);
    }

    /// Takes everything out; what waits on is put back.
    fn take(&mut self) -> VecDeque<Waiting<R>> {
        self.shut.clear();
        (self.parts, self.bytes) = (0, 0);
        std::mem::take(&mut self.waiting)
    }
}

/// The partitions that a request is for, where it may wait for them.
fn parts_of(request: &Request) -> Box<dyn Iterator<Item = PartitionId> + '_> {
    match request {
        Request::Append(request) => Box::new(request.parts.iter().map(|part| part.partition)),
        Request::Read(request) => Box::new(request.parts.iter().map(|part| part.partition)),
        Request::Await(request) => Box::new(request.parts.iter().map(|(id, _)| *id)),
        Request::ListOffsets(queries) => Box::new(queries.iter().map(|query| query.partition)),
        Request::SegmentOffsets(queries) => Box::new(queries.iter().map(|query| query.partition)),
        Request::EpochEnds(queries) => Box::new(queries.iter().map(|query| query.partition)),
        Request::DeleteRecords(parts) => Box::new(parts.iter().map(|part| part.partition)),
        _ => Box::new(std::iter::empty()),
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
    /// Gives a request back unless it has to wait. One comparison where no partition is new.
    pub(super) fn hold_early(&mut self, request: Request, responder: R) -> Option<(Request, R)> {
        let is_calm = self.following.openings.are_done() && self.following.applying.is_idle();
        if is_calm && self.following.openings.early.is_empty() || self.stopping.is_some() {
            return Some((request, responder));
        }
        if !self.is_early(&request) {
            return Some((request, responder));
        }
        if !self.following.openings.early.has_room_for(&request) {
            return self.refuse_overtaking(request, responder);
        }
        for id in self.new_of(&request) {
            self.following.openings.early.awaited.insert(id);
            self.open_sooner(id);
        }
        let wait_ns = EARLY_WAIT_MS_MAX * 1_000_000;
        let due_ns = self.now().mono_ns.saturating_add(wait_ns);
        self.following.openings.early.push(Waiting {
            request,
            responder,
            due_ns,
        });
        self.time_early();
        None
    }

    /// Refuses an append that would overtake others; gives back what would not. The client may send it again.
    fn refuse_overtaking(&mut self, request: Request, responder: R) -> Option<(Request, R)> {
        let Request::Append(append) = &request else {
            return Some((request, responder));
        };
        let early = &self.following.openings.early;
        if !append
            .parts
            .iter()
            .any(|part| early.shut.contains(&part.partition))
        {
            return Some((request, responder));
        }
        let refused = |_| AppendResult::failed(ErrorCode::RequestTimedOut, None);
        let results = append.parts.iter().map(refused).collect();
        self.reply(responder, Reply::Append(results));
        None
    }

    /// Ends a wait that nobody is there for any more; whether it was here.
    pub(super) fn cancel_early(&mut self, token: ParkToken) -> bool {
        let Some(waiting) = self.following.openings.early.find(token) else {
            return false;
        };
        let responder = waiting.responder;
        match waiting.request {
            Request::Await(_) => self.reply(responder, Reply::Await(Wake::Cancelled)),
            Request::Read(request) => {
                let codes = request
                    .parts
                    .iter()
                    .map(|part| self.absence(part.partition));
                let results = codes.map(ReadResult::failed).collect();
                self.reply(responder, Reply::Read(results));
            }
            _ => unreachable!("nothing else has a token"),
        }
        true
    }

    /// Whether a request has to wait for a partition that is new, or behind one that does.
    fn is_early(&self, request: &Request) -> bool {
        let is_new = |id: PartitionId| self.is_new(id);
        match request {
            Request::Append(request) => {
                let shut = &self.following.openings.early.shut;
                let mut ids = request.parts.iter().map(|part| part.partition);
                ids.any(|id| is_new(id) || shut.contains(&id))
            }
            Request::Read(_) | Request::Await(_) => {
                let mut ids = parts_of(request);
                let new = ids.by_ref().filter(|id| is_new(*id));
                let new = new.take(EARLY_IN_READ_MAX + 1).count();
                let are_few = (1..=EARLY_IN_READ_MAX).contains(&new);
                are_few || new > 0 && parts_of(request).all(is_new)
            }
            Request::Group(request) => self.places_of_group(request).any(is_new),
            request => parts_of(request).any(is_new),
        }
    }

    fn new_of(&self, request: &Request) -> Vec<PartitionId> {
        let is_new = |id: &PartitionId| self.is_new(*id);
        match request {
            Request::Group(request) => self.places_of_group(request).filter(is_new).collect(),
            request => parts_of(request).filter(is_new).collect(),
        }
    }

    /// Whether a partition is the catalogue's and opens in a moment.
    pub(super) fn is_new(&self, id: PartitionId) -> bool {
        match self.partitions.get(&id) {
            Some(Slot::Unopened { .. }) => true,
            Some(Slot::Reopening(reopening)) => reopening.is_first(),
            Some(_) => false,
            // Its turn in the image has not come.
            None => {
                let topic = self.image.topic_by_id(id.topic_id);
                let count = topic.map_or(0, |topic| topic.partitions.len());
                let is_known = usize::try_from(id.index).is_ok_and(|index| index < count);
                is_known && !self.following.applying.is_idle()
            }
        }
    }

    fn time_early(&mut self) {
        let early = &mut self.following.openings.early;
        if let Some(first) = early.waiting.front()
            && !std::mem::replace(&mut early.is_timed, true)
        {
            self.waiting.timers.add(first.due_ns, Timer::Early);
        }
    }

    /// The deadline of the oldest has come.
    pub(super) fn early_due(&mut self) {
        self.following.openings.early.is_timed = false;
        self.let_early_in();
        self.time_early();
    }

    /// Serves what has nothing to wait for any more, in order and some at a time.
    pub(super) fn let_early_in(&mut self) {
        if self.following.openings.early.is_empty() {
            return;
        }
        let (now_ns, is_stopping) = (self.now().mono_ns, self.stopping.is_some());
        let mut ready = Vec::new();
        for waiting in self.following.openings.early.take() {
            let is_due = is_stopping || waiting.due_ns <= now_ns;
            let has_turn = is_stopping || ready.len() < HELD_PER_SLICE;
            match has_turn && (is_due || !self.is_early(&waiting.request)) {
                true => ready.push(waiting),
                false => self.following.openings.early.push(waiting),
            }
        }
        if self.following.openings.early.is_empty() {
            self.following.openings.early.awaited.clear();
        }
        if ready.len() >= HELD_PER_SLICE && !self.following.openings.early.is_empty() {
            self.rest_from_openings();
        }
        for Waiting {
            request, responder, ..
        } in ready
        {
            self.hold_or_serve(request, responder);
        }
    }
}
