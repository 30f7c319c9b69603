//! Reads that come from disk: whose turn it is, and what they hold meanwhile.
//!
//! State only. A read is let in by what its parts may give, and each part by what is read for it, before
//! it is read: a part that gives little still reads a block. Parts of different reads take turns, so
//! that one of many parts does not stand before the others, and nobody who comes passes those who wait
//! for the disk, however little he wants; nothing is read for those who have gone. So a shard's reads hold, whatever is asked:
//! [`DISK_READ_BYTES_MAX`] of blocks being read, twice [`READ_GIVEN_BYTES_MAX`] of answers, and of
//! batches longer than a block [`READ_LONG_BYTES_MAX`] and one more; besides what the cache holds.

use std::collections::VecDeque;

use chronik_io::World;
use chronik_log::scan::HELD_BYTES_MAX;
use chronik_partition::{ReadDone, ReadJob, ReadPlan};
use chronik_protocol::ErrorCode;
use chronik_terms::{Isolation, ReadPart, ReadRequest, ReadResult, Reader};

use super::ahead::AheadWaiter;
use super::charge::charge;
use super::reads::PartPlan;
use super::{Effect, ReadFor, Shard, Sleeper, Slot};
use crate::limits::{
    DISK_READ_BYTES_MAX, DISK_READ_QUEUE_LEN_MAX, READ_DISK_BYTES_MAX, READ_GIVEN_BYTES_MAX,
    READ_LONG_BYTES_MAX, READ_PARTS_PER_SLICE, READ_REQUEST_BYTES_MAX, SPARING_ABOVE_PARTS,
};
use crate::request::Reply;

/// Reads that one slice lets in: each may be planned as far as a slice goes.
const READS_LET_IN_PER_SLICE: usize = 4;

/// A read whose parts are not all there yet.
pub(super) struct PendingRead<R> {
    responder: R,
    parts: Vec<ReadPart>,
    isolation: Isolation,
    reader: Option<Reader>,
    max_bytes: usize,
    /// Of the parts planned so far, in order; `None` while it is being read.
    results: Vec<Option<ReadResult>>,
    missing: usize,
    /// What is left of `max_bytes`.
    left: usize,
    /// No part has given anything yet: the first that does gives at least one batch.
    first: bool,
    /// What it was let in with, once it was.
    given: Option<usize>,
    /// What it was charged for a batch longer than a block.
    long: usize,
    /// Bytes that may still be read for it.
    readable: usize,
}

impl<R> PendingRead<R> {
    fn new(request: ReadRequest, responder: R) -> Self {
        let max_bytes = request.max_bytes.min(READ_REQUEST_BYTES_MAX);
        Self {
            responder,
            results: Vec::with_capacity(request.parts.len()),
            parts: request.parts,
            isolation: request.isolation,
            reader: request.reader,
            max_bytes,
            missing: 0,
            left: max_bytes,
            first: true,
            given: None,
            long: 0,
            readable: READ_DISK_BYTES_MAX,
        }
    }

    fn has_left(&self) -> bool {
        self.reader.as_ref().is_some_and(Reader::has_left)
    }

    fn is_planned(&self) -> bool {
        self.results.len() == self.parts.len()
    }

    /// What its parts from `place` on may give.
    fn may_give(&self, place: usize) -> usize {
        let parts = self.parts.get(place..).unwrap_or_default();
        let asked = parts.iter().map(|part| part.max_bytes);
        asked.fold(0, usize::saturating_add).min(self.left).max(1)
    }
}

/// Something that waits for bytes to be read.
enum Turn<W: World> {
    /// The next parts of a read.
    Parts(usize),
    /// A part whose block has to be another one.
    Again {
        read: usize,
        part: usize,
        job: ReadJob<W>,
    },
    /// A part whose log was closed for a moment.
    Asked(AheadWaiter),
}

/// What waits, and what is held, bytes.
pub(super) struct DiskReads<W: World, R> {
    /// Blocks being read.
    pub(super) reading: usize,
    /// What the reads that were let in may give.
    given: usize,
    /// Of batches longer than a block.
    long: usize,
    /// The read that may hold more of them than there is room for, until it is answered: it held some
    /// when it wanted another. Without it those who hold some could wait for each other for ever.
    beyond: Option<usize>,
    turns: VecDeque<Turn<W>>,
    /// These wait until somebody with a long batch is answered.
    long_turns: Vec<Turn<W>>,
    /// Not let in yet, with what they may give.
    queue: VecDeque<(ReadRequest, R, usize)>,
    resting: bool,
}

impl<W: World, R> Default for DiskReads<W, R> {
    fn default() -> Self {
        Self {
            reading: 0,
            given: 0,
            long: 0,
            beyond: None,
            turns: VecDeque::new(),
            long_turns: Vec::new(),
            queue: VecDeque::new(),
            resting: false,
        }
    }
}

impl<W: World, R> DiskReads<W, R> {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so many bytes may be read besides; something always may when nothing else is.
    fn may_read(&self, bytes: usize) -> bool {
        self.reading == 0 || self.reading.saturating_add(bytes) <= DISK_READ_BYTES_MAX
    }

    fn may_give(&self, bytes: usize) -> bool {
        self.given == 0 || self.given.saturating_add(bytes) <= READ_GIVEN_BYTES_MAX
    }

    /// Whether a part stands first that has to be read again and that the disk has no room for yet.
    pub(super) fn is_kept_free(&self) -> bool {
        matches!(self.turns.front(), Some(Turn::Again { .. }))
    }

    /// Whether a read that holds `held` of long batches may hold so many more.
    fn may_hold(&mut self, read: usize, (held, more): (usize, usize)) -> bool {
        let fits = self.long == 0 || self.long.saturating_add(more) <= READ_LONG_BYTES_MAX;
        if fits || self.beyond == Some(read) {
            return true;
        }
        let is_next = held > 0 && self.beyond.is_none();
        if is_next {
            self.beyond = Some(read);
        }
        is_next
    }
}

/// When a read is planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// As it comes: behind those who wait.
    Coming,
    /// It waited to be let in, and is the next.
    LetIn,
    /// It was let in before, and has its turn.
    Turn,
}

/// How far planning a read came.
enum Progress {
    Planned,
    /// Others have their turn, or the disk is busy.
    Turn,
    /// It has to wait before any of it is read; this is what it may give.
    NotLetIn(usize),
}

impl<W: World, R> Shard<W, R> {
    /// Reads now, or as soon as there is room for what it reads.
    pub(super) fn read(&mut self, request: ReadRequest, responder: R) {
        let Some((request, responder)) = self.hold_read(request, responder) else {
            return;
        };
        self.begin(request, responder, When::Coming);
    }

    fn begin(&mut self, request: ReadRequest, responder: R, when: When) {
        let key = self.reading.reads.vacant_key();
        let mut read = PendingRead::new(request, responder);
        let mut slice = READ_PARTS_PER_SLICE;
        match self.plan_parts(key, &mut read, (&mut slice, when)) {
            Progress::Planned if read.missing == 0 => self.answer_read(read),
            Progress::Planned => {
                self.reading.reads.insert(Some(Box::new(read)));
            }
            Progress::Turn => {
                self.reading.reads.insert(Some(Box::new(read)));
                self.reading.disk.turns.push_back(Turn::Parts(key));
                self.rest_reads();
            }
            Progress::NotLetIn(bytes) => self.queue_read(read, bytes),
        }
    }

    /// Keeps the question only: what some parts gave already is looked up again.
    fn queue_read(&mut self, read: PendingRead<R>, bytes: usize) {
        if self.reading.disk.queue.len() >= DISK_READ_QUEUE_LEN_MAX {
            let refused = |_| ReadResult::failed(ErrorCode::ThrottlingQuotaExceeded);
            let results = read.parts.iter().map(refused).collect();
            return self.reply(read.responder, Reply::Read(results));
        }
        let request = ReadRequest {
            isolation: read.isolation,
            max_bytes: read.max_bytes,
            parts: read.parts,
            wait: None,
            reader: read.reader,
        };
        self.reading
            .disk
            .queue
            .push_back((request, read.responder, bytes));
    }

    /// Plans some more parts, in order. What is left of the request's bytes bounds each part; the first
    /// part that has anything gives at least one batch. A part that comes from disk counts for
    /// all that it may give, for how much it does give is not known yet.
    fn plan_parts(
        &mut self,
        key: usize,
        read: &mut PendingRead<R>,
        (slice, when): (&mut usize, When),
    ) -> Progress {
        while *slice > 0 {
            *slice -= 1;
            let place = read.results.len();
            let Some(part) = read.parts.get(place) else {
                return Progress::Planned;
            };
            let (left, first, isolation) = (read.left, read.first, read.isolation);
            let plan = self.plan_part(part, isolation, left, first);
            let (result, used) = match plan {
                PartPlan::Ready(result) => {
                    if !result.records.is_empty() {
                        self.read_ahead(part, isolation);
                    }
                    let used = result.records.len();
                    (Some(result), used)
                }
                from_disk => {
                    let there = self.available(part.partition, part.fetch_offset, isolation);
                    let used = there.min(part.max_bytes).min(left).max(1);
                    if read.given.is_none() {
                        let bytes = read.may_give(place);
                        let passes = when == When::Coming && !self.reading.disk.is_empty();
                        if passes || !self.reading.disk.may_give(bytes) {
                            return Progress::NotLetIn(bytes);
                        }
                        self.reading.disk.given = self.reading.disk.given.saturating_add(bytes);
                        read.given = Some(bytes);
                    }
                    let wants_disk = matches!(from_disk, PartPlan::Disk(_));
                    if wants_disk && when != When::Turn && !self.reading.disk.turns.is_empty() {
                        return Progress::Turn;
                    }
                    match self.begin_part((key, place), read, from_disk) {
                        Some(None) => (None, used),
                        Some(Some(result)) => (Some(result), 0),
                        None => return Progress::Turn,
                    }
                }
            };
            let begun = result.is_none();
            read.first &= used == 0;
            read.left = read.left.saturating_sub(used);
            read.results.push(result);
            if begun && !read.is_planned() && !self.reading.disk.turns.is_empty() {
                return Progress::Turn;
            }
        }
        match read.is_planned() {
            true => Progress::Planned,
            false => Progress::Turn,
        }
    }

    /// Begins to read a part, or gives nothing of it where enough was read for this request; `None`
    /// when the disk is busy.
    fn begin_part(
        &mut self,
        (key, place): (usize, usize),
        read: &mut PendingRead<R>,
        plan: PartPlan<W>,
    ) -> Option<Option<ReadResult>> {
        let part = read.parts.get(place)?;
        let job = match plan {
            PartPlan::Ready(result) => return Some(Some(result)),
            PartPlan::Ahead {
                bytes_max,
                at_least_one,
            } => {
                let waiter = AheadWaiter {
                    read: key,
                    place,
                    part: part.clone(),
                    isolation: read.isolation,
                    bytes_max,
                    at_least_one,
                };
                match self.is_away(part.partition) {
                    true => self.ask_again(waiter),
                    false => self.reading.prefetches.wait(waiter),
                }
                read.missing += 1;
                return Some(None);
            }
            PartPlan::Disk(job) if read.parts.len() > SPARING_ABOVE_PARTS => job.sparing(),
            PartPlan::Disk(job) => job,
        };
        if job.bytes_max() > read.readable {
            return match self.plan_part(part, read.isolation, 0, false) {
                PartPlan::Ready(result) => Some(Some(result)),
                // A plan for no bytes reads none.
                _ => Some(Some(ReadResult::failed(ErrorCode::None))),
            };
        }
        if !self.reading.disk.may_read(charge(job.bytes_max())) {
            return None;
        }
        read.readable -= job.bytes_max();
        read.missing += 1;
        self.begin_read(key, place, job);
        Some(None)
    }

    fn begin_read(&mut self, read: usize, part: usize, job: ReadJob<W>) {
        self.reading.disk.reading = self
            .reading
            .disk
            .reading
            .saturating_add(charge(job.bytes_max()));
        self.meters.disk_reads.add(1);
        let reading = self.reading.disk.reading as u64;
        self.meters.disk_reading_bytes_peak.raise(reading);
        self.out
            .effects
            .push(Effect::Read(job, ReadFor::Request { read, part }));
    }

    pub(super) fn read_done(&mut self, key: usize, part: usize, done: ReadDone<W>) {
        let id = done.partition();
        self.reading.disk.reading = self
            .reading
            .disk
            .reading
            .saturating_sub(charge(done.bytes_max()));
        if self.is_away(id) {
            self.read_was_overtaken((key, part), &done);
            return self.read_what_waits();
        }
        let plan = match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => partition.complete_read(&mut self.cache, done),
            _ => ReadPlan::Ready(ReadResult::failed(self.absence(id))),
        };
        match plan {
            ReadPlan::Disk(job) => self.read_again(key, part, job),
            ReadPlan::Ready(result) => {
                let asked = self.reading.reads.get(key).and_then(Option::as_ref);
                let asked =
                    asked.and_then(|read| Some((read.parts.get(part)?.clone(), read.isolation)));
                if let Some((asked, isolation)) = asked {
                    self.read_ahead(&asked, isolation);
                }
                self.place_read(key, part, result);
            }
        }
        self.read_what_waits();
        self.close_when_idle();
    }

    /// A part has to be read once more, or more of it: before all others, for its read has waited.
    pub(super) fn read_again(&mut self, read: usize, part: usize, job: ReadJob<W>) {
        let bytes = job.bytes_max();
        let turn = Turn::Again { read, part, job };
        if let Some(Some(pending)) = self.reading.reads.get_mut(read)
            && bytes > HELD_BYTES_MAX
            && pending.long < bytes
        {
            let more = bytes - pending.long;
            if !self.reading.disk.may_hold(read, (pending.long, more)) {
                return self.reading.disk.long_turns.push(turn);
            }
            self.reading.disk.long = self.reading.disk.long.saturating_add(more);
            pending.long = bytes;
        }
        self.reading.disk.turns.push_front(turn);
    }

    /// Takes in what one part of a read has come to, and answers the read when it was the last.
    pub(super) fn place_read(&mut self, key: usize, part: usize, result: ReadResult) {
        let Some(Some(read)) = self.reading.reads.get_mut(key) else {
            debug_assert!(false, "a result for no read");
            return;
        };
        if let Some(place @ None) = read.results.get_mut(part) {
            *place = Some(result);
            read.missing -= 1;
        }
        if read.missing == 0 && read.is_planned() {
            self.end_read(key);
        }
    }

    fn end_read(&mut self, key: usize) {
        let Some(read) = self.reading.reads.try_remove(key).flatten() else {
            return;
        };
        let given = read.given.unwrap_or(0);
        self.reading.disk.given = self.reading.disk.given.saturating_sub(given);
        if read.long > 0 {
            self.reading.disk.long = self.reading.disk.long.saturating_sub(read.long);
            self.reading.disk.beyond = self.reading.disk.beyond.filter(|beyond| *beyond != key);
            for turn in std::mem::take(&mut self.reading.disk.long_turns) {
                match turn {
                    Turn::Again { read, part, job } => self.read_again(read, part, job),
                    turn => self.reading.disk.turns.push_back(turn),
                }
            }
        }
        self.answer_read(*read);
    }

    /// Goes on with what waits, as far as there is room: what began before, in turns, then what was not
    /// let in yet.
    pub(super) fn read_what_waits(&mut self) {
        let mut slice = READ_PARTS_PER_SLICE;
        while slice > 0 {
            let Some(turn) = self.reading.disk.turns.pop_front() else {
                return self.let_in();
            };
            match turn {
                Turn::Again { read, part, .. } if self.has_left(read) => {
                    slice -= 1;
                    self.place_read(read, part, ReadResult::failed(ErrorCode::None));
                }
                Turn::Again { read, part, job } => {
                    if !self.reading.disk.may_read(charge(job.bytes_max())) {
                        let turn = Turn::Again { read, part, job };
                        return self.reading.disk.turns.push_front(turn);
                    }
                    slice -= 1;
                    self.begin_read(read, part, job);
                }
                Turn::Parts(key) => {
                    if !self.go_on(key, &mut slice) {
                        return;
                    }
                }
                Turn::Asked(waiter) => {
                    slice -= 1;
                    self.plan_again(waiter);
                }
            }
        }
        self.rest_reads();
    }

    /// Plans the next parts of a read; false when the disk is busy.
    fn go_on(&mut self, key: usize, slice: &mut usize) -> bool {
        let Some(mut read) = self.reading.reads.get_mut(key).and_then(Option::take) else {
            return true;
        };
        if read.has_left() {
            (read.left, read.first) = (0, false);
        }
        let before = read.results.len();
        let progress = self.plan_parts(key, &mut read, (slice, When::Turn));
        let moved = read.results.len() > before;
        if let Progress::NotLetIn(bytes) = progress {
            self.reading.reads.remove(key);
            self.queue_read(*read, bytes);
            return true;
        }
        let is_done = read.is_planned() && read.missing == 0;
        if let Some(place) = self.reading.reads.get_mut(key) {
            *place = Some(read);
        }
        match progress {
            _ if is_done => self.end_read(key),
            Progress::Turn if moved => self.reading.disk.turns.push_back(Turn::Parts(key)),
            Progress::Turn => {
                self.reading.disk.turns.push_front(Turn::Parts(key));
                return false;
            }
            _ => {}
        }
        true
    }

    /// Lets reads in that waited, oldest first; the cache may have what they want by now.
    fn let_in(&mut self) {
        for _ in 0..READS_LET_IN_PER_SLICE {
            let Some((request, _, bytes)) = self.reading.disk.queue.front() else {
                return;
            };
            let has_left = request.reader.as_ref().is_some_and(Reader::has_left);
            if !has_left && !self.reading.disk.may_give(*bytes) {
                return;
            }
            match self.reading.disk.queue.pop_front() {
                Some((request, responder, _)) if has_left => {
                    let nothing = |_| ReadResult::failed(ErrorCode::None);
                    let results = request.parts.iter().map(nothing).collect();
                    self.reply(responder, Reply::Read(results));
                }
                Some((request, responder, _)) => self.begin(request, responder, When::LetIn),
                None => {}
            }
        }
        self.rest_reads();
    }

    /// Has these parts their turns: their log is there again, or is not.
    pub(super) fn turns_of_asked(&mut self, waiters: Vec<AheadWaiter>) {
        if !waiters.is_empty() {
            self.reading
                .disk
                .turns
                .extend(waiters.into_iter().map(Turn::Asked));
            self.rest_reads();
        }
    }

    /// Has a part asked again that was read while its log was closed.
    fn read_was_overtaken(&mut self, (key, place): (usize, usize), done: &ReadDone<W>) {
        let Some(Some(read)) = self.reading.reads.get(key) else {
            return;
        };
        let Some(part) = read.parts.get(place).cloned() else {
            return;
        };
        let (bytes_max, at_least_one) = done.asked();
        let isolation = read.isolation;
        self.ask_again(AheadWaiter {
            read: key,
            place,
            part,
            isolation,
            bytes_max,
            at_least_one,
        });
    }

    fn has_left(&self, key: usize) -> bool {
        let read = self.reading.reads.get(key).and_then(Option::as_ref);
        read.is_some_and(|read| read.has_left())
    }

    fn rest_reads(&mut self) {
        if !std::mem::replace(&mut self.reading.disk.resting, true) {
            self.out.effects.push(Effect::Rest(Sleeper::Reads));
        }
    }

    pub(super) fn rested_from_reads(&mut self) {
        self.reading.disk.resting = false;
        self.read_what_waits();
        self.close_when_idle();
    }

    fn answer_read(&mut self, read: PendingRead<R>) {
        self.answer_results(read.responder, read.results);
    }
}
