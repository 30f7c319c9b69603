//! Requests for partitions that are new and not open yet: they wait a moment instead of being refused.
//!
//! State only. A client learns of a topic as soon as the catalogue has it; its first batch would be refused,
//! and come again after its backoff of 100 ms, where the log is open a few milliseconds later. So a request for
//! such a partition waits until it is open or a deadline comes, and is then served by what it finds. Of an
//! append only the parts for new partitions wait, each in a queue of its partition: nothing else waits behind
//! them, and each partition gets its batches in the order in which they came. A read does not wait where it
//! asks for much that is new beside what is there. Bounded: a part that finds no room behind others is
//! refused, for it would overtake them; what else finds none is served at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_io::World;
use chronik_terms::{Acks, AppendPart, Now, ParkToken, PartitionId, ReadResult, Waiter, Wake};

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

/// A part of an append, undecided as if it were on its way to the disk.
struct EarlyPart {
    part: AppendPart,
    acks: Acks,
    waiter: Waiter,
    due_ns: u64,
}

/// What becomes of a part of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is appended, or refused by what it finds.
    Now,
    /// It waits for its partition.
    Waits,
    /// There is no room to wait, and it would overtake others.
    Refused,
}

/// See the module's text.
pub(super) struct Early<R> {
    /// Requests that wait as a whole, the oldest first, which is due first.
    waiting: VecDeque<Waiting<R>>,
    /// Parts of appends, by partition; no queue is empty.
    queues: BTreeMap<PartitionId, VecDeque<EarlyPart>>,
    /// When the first of a queue is due, the earliest first. May name a queue that is gone.
    dues: BTreeSet<(u64, PartitionId)>,
    /// Queues that may have something to let in.
    ready: VecDeque<PartitionId>,
    /// The partitions that somebody waits for.
    awaited: BTreeSet<PartitionId>,
    parts: usize,
    bytes: usize,
    is_timed: bool,
}

impl<R> Default for Early<R> {
    fn default() -> Self {
        Early {
            waiting: VecDeque::new(),
            queues: BTreeMap::new(),
            dues: BTreeSet::new(),
            ready: VecDeque::new(),
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
        self.waiting.is_empty() && self.queues.is_empty()
    }

    /// Whether something waits for this partition.
    pub(super) fn awaits(&self, id: PartitionId) -> bool {
        self.awaited.contains(&id)
    }

    /// This partition is open, or will not be soon; whether something waited for it.
    pub(super) fn is_settled(&mut self, id: PartitionId) -> bool {
        if self.queues.contains_key(&id) {
            self.ready.push_back(id);
        }
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
    }

    fn push(&mut self, waiting: Waiting<R>) {
        self.parts += parts_of(&waiting.request).count();
        self.waiting.push_back(waiting);
    }

    fn push_part(&mut self, id: PartitionId, part: EarlyPart) {
        self.parts += 1;
        self.bytes += part.part.batch.bytes.len();
        let queue = self.queues.entry(id).or_default();
        if queue.is_empty() {
            self.dues.insert((part.due_ns, id));
        }
        queue.push_back(part);
    }

    /// Takes the first part of a queue out, if its time has come.
    fn take_part(&mut self, id: PartitionId, has_come: impl Fn(u64) -> bool) -> Option<EarlyPart> {
        let queue = self.queues.get_mut(&id)?;
        if !has_come(queue.front()?.due_ns) {
            return None;
        }
        let part = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&id);
        }
        if self.queues.is_empty() {
            // What is left names queues that are gone, and nothing would look at it any more.
            self.dues.clear();
            self.ready.clear();
        }
        self.parts -= 1;
        self.bytes -= part.part.batch.bytes.len();
        Some(part)
    }

    /// Notes the queues whose first part is due by `now_ns`; all of them at a stop.
    fn note_due(&mut self, now_ns: u64, is_stopping: bool) {
        while let Some(&(due_ns, id)) = self.dues.first()
            && (is_stopping || due_ns <= now_ns)
        {
            self.dues.pop_first();
            self.ready.push_back(id);
        }
    }

    /// Takes every request out; what waits on is put back.
    fn take(&mut self) -> VecDeque<Waiting<R>> {
        for waiting in &self.waiting {
            self.parts -= parts_of(&waiting.request).count();
        }
        std::mem::take(&mut self.waiting)
    }

    /// When something is due.
    fn first_due_ns(&self) -> Option<u64> {
        let waiting = self.waiting.front().map(|waiting| waiting.due_ns);
        let queued = self.dues.first().map(|(due_ns, _)| *due_ns);
        waiting.into_iter().chain(queued).min()
    }
}

/// The partitions that a request is for, where it may wait for them as a whole.
fn parts_of(request: &Request) -> Box<dyn Iterator<Item = PartitionId> + '_> {
    match request {
        Request::Read(request) => Box::new(request.parts.iter().map(|part| part.partition)),
        Request::Await(request) => Box::new(request.parts.iter().map(|(id, _)| *id)),
        Request::ListOffsets(queries) => Box::new(queries.iter().map(|query| query.partition)),
        Request::SegmentOffsets(queries) => Box::new(queries.iter().map(|query| query.partition)),
        Request::EpochEnds(queries) => Box::new(queries.iter().map(|query| query.partition)),
        Request::DeleteRecords(parts) => Box::new(parts.iter().map(|part| part.partition)),
        _ => Box::new(std::iter::empty()),
    }
}

impl<W: World, R> Shard<W, R> {
    /// Gives a request back unless it has to wait. One comparison where no partition is new.
    pub(super) fn hold_early(&mut self, request: Request, responder: R) -> Option<(Request, R)> {
        let is_calm = self.following.openings.are_done() && self.following.applying.is_idle();
        if is_calm && self.following.openings.early.is_empty() || self.stopping.is_some() {
            return Some((request, responder));
        }
        if !self.is_early(&request) || !self.following.openings.early.has_room_for(&request) {
            return Some((request, responder));
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

    /// Whether no part of an append can be early.
    pub(super) fn is_calm(&self) -> bool {
        let openings = &self.following.openings;
        openings.are_done() && self.following.applying.is_idle() && openings.early.queues.is_empty()
    }

    /// What becomes of a part of an append for this partition.
    pub(super) fn fate_of_part(&self, id: PartitionId) -> Fate {
        let early = &self.following.openings.early;
        let is_behind = early.queues.contains_key(&id);
        let has_room = early.parts < EARLY_PARTS_MAX && early.bytes < EARLY_BYTES_MAX;
        match is_behind || self.is_new(id) {
            true if has_room => Fate::Waits,
            true if is_behind => Fate::Refused,
            _ => Fate::Now,
        }
    }

    /// Holds a part of an append until its partition is open, behind those that came before.
    pub(super) fn hold_early_part(
        &mut self,
        part: AppendPart,
        (acks, now): (Acks, Now),
        waiter: Waiter,
    ) {
        let id = part.partition;
        if self.is_new(id) {
            self.following.openings.early.awaited.insert(id);
            self.open_sooner(id);
        }
        let due_ns = now.mono_ns.saturating_add(EARLY_WAIT_MS_MAX * 1_000_000);
        let part = EarlyPart {
            part,
            acks,
            waiter,
            due_ns,
        };
        self.following.openings.early.push_part(id, part);
        self.time_early();
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
        if let Some(due_ns) = early.first_due_ns()
            && !std::mem::replace(&mut early.is_timed, true)
        {
            self.waiting.timers.add(due_ns, Timer::Early);
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
        self.let_early_parts_in();
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

    /// Appends parts that have nothing to wait for any more, or refuses them, some at a time.
    fn let_early_parts_in(&mut self) {
        let (now, is_stopping) = (self.now(), self.stopping.is_some());
        let early = &mut self.following.openings.early;
        early.note_due(now.mono_ns, is_stopping);
        let (mut decided, mut happened) = (Vec::new(), Vec::new());
        let mut count = 0;
        while let Some(id) = self.following.openings.early.ready.pop_front() {
            let waits = !is_stopping && self.is_new(id);
            let has_come = |due_ns| !waits || due_ns <= now.mono_ns;
            while count < HELD_PER_SLICE || is_stopping {
                let Some(early) = self.following.openings.early.take_part(id, has_come) else {
                    break;
                };
                count += 1;
                let (waiter, in_time) = (early.waiter, (early.acks, now));
                let outcome = self.append_part(early.part, in_time, waiter, &mut happened);
                decided.extend(outcome.decided().map(|result| (id, waiter, result)));
            }
            self.collect_jobs(id);
            let early = &mut self.following.openings.early;
            if let Some(first) = early.queues.get(&id).and_then(|queue| queue.front()) {
                match has_come(first.due_ns) {
                    true => early.ready.push_front(id),
                    false => {
                        early.dues.insert((first.due_ns, id));
                    }
                }
            }
            if count >= HELD_PER_SLICE && !is_stopping {
                self.rest_from_openings();
                break;
            }
        }
        self.make_ring_if_wanted();
        for (id, event) in happened {
            self.on_event(id, event);
        }
        for (id, waiter, result) in decided {
            self.acked(id, waiter, result);
        }
    }
}
