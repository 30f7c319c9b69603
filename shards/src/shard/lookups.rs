//! Lookups of offsets: what is known is answered at once, what has to be searched in files takes turns.
//!
//! State only. Bounds how many searches are under way, and with it what they hold: a search reads a
//! block and unfolds a batch piece by piece.

use std::collections::{BTreeSet, VecDeque};

use chronik_io::World;
use chronik_partition::{OffsetDone, OffsetJob, OffsetPlan};
use chronik_terms::{OffsetAnswer, OffsetQuery, PartitionId, SegmentOffsets, SegmentOffsetsQuery};
use slab::Slab;

use super::{Effect, Shard, Slot};
use crate::limits::LOOKUPS_MAX;
use crate::request::Reply;

/// Questions some of whose answers are searched for.
pub(super) struct PendingOffsets<R> {
    responder: R,
    queries: Vec<OffsetQuery>,
    answers: Vec<Option<OffsetAnswer>>,
    missing: usize,
}

/// Lookups by timestamp, which search the files: what could be seen when they came has to be there.
struct UnwrittenQueries<R> {
    queries: Vec<OffsetQuery>,
    responder: R,
    /// Partitions that have not written up to where they have to.
    missing: usize,
}

/// All of them, and who has to have written up to where: by partition and offset, so that a write that
/// ends looks only at those it frees.
pub(super) struct Unwritten<R> {
    queries: Slab<UnwrittenQueries<R>>,
    waits: BTreeSet<(PartitionId, i64, usize)>,
}

impl<R> Unwritten<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }
}

impl<R> Default for Unwritten<R> {
    fn default() -> Self {
        Self {
            queries: Slab::new(),
            waits: BTreeSet::new(),
        }
    }
}

/// Searches that wait for their turn, and how many are under way.
#[derive(Default)]
pub(super) struct Lookups {
    /// A question of some [`PendingOffsets`].
    turns: VecDeque<(usize, usize)>,
    under_way: usize,
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn segment_offsets(&mut self, query: &SegmentOffsetsQuery) -> SegmentOffsets {
        match self.online(query.partition) {
            Ok(partition) => partition.segment_offsets(query),
            Err(error) => SegmentOffsets::failed(error),
        }
    }

    pub(super) fn list_offsets(&mut self, queries: Vec<OffsetQuery>, responder: R) {
        let mut waits_for = BTreeSet::new();
        for query in queries.iter().filter(|query| query.target.is_searched()) {
            if let Some(Slot::Online(partition)) = self.partitions.get(&query.partition)
                && partition.is_online()
                && !partition.is_written_up_to(partition.high_watermark())
            {
                waits_for.insert((query.partition, partition.high_watermark()));
            }
        }
        if waits_for.is_empty() {
            return self.look_up_offsets(queries, responder);
        }
        let key = self.reading.unwritten.queries.insert(UnwrittenQueries {
            queries,
            responder,
            missing: waits_for.len(),
        });
        let waits = waits_for.iter().map(|(id, offset)| (*id, *offset, key));
        self.reading.unwritten.waits.extend(waits);
        waits_for.into_iter().for_each(|(id, _)| self.write_now(id));
    }

    /// Something of the partition was written, or never will be.
    pub(super) fn search_what_is_written(&mut self, id: PartitionId) {
        loop {
            let mut waits = self.reading.unwritten.waits.range((id, i64::MIN, 0)..);
            let Some(wait) = waits.next().filter(|wait| wait.0 == id).copied() else {
                return;
            };
            let (_, offset, key) = wait;
            if let Some(Slot::Online(partition)) = self.partitions.get(&id)
                && partition.is_online()
                && !partition.is_written_up_to(offset)
            {
                return;
            }
            self.reading.unwritten.waits.remove(&wait);
            let Some(waiting) = self.reading.unwritten.queries.get_mut(key) else {
                debug_assert!(false, "a wait of no query");
                continue;
            };
            waiting.missing -= 1;
            if waiting.missing == 0 {
                let waiting = self.reading.unwritten.queries.remove(key);
                self.look_up_offsets(waiting.queries, waiting.responder);
            }
        }
    }

    fn look_up_offsets(&mut self, queries: Vec<OffsetQuery>, responder: R) {
        let key = self.reading.offset_queries.vacant_key();
        let mut answers = Vec::with_capacity(queries.len());
        let mut missing = 0;
        for (place, query) in queries.iter().enumerate() {
            let is_away = self.is_away(query.partition);
            let answer = match self.online(query.partition) {
                found if is_away || found.is_ok() && query.target.is_searched() => {
                    missing += 1;
                    self.reading.lookups.turns.push_back((key, place));
                    None
                }
                Ok(partition) => match partition.list_offset(query) {
                    OffsetPlan::Ready(answer) => Some(answer),
                    OffsetPlan::Disk(_) => unreachable!("only what is searched for is on disk"),
                },
                Err(error) => Some(OffsetAnswer::failed(error)),
            };
            answers.push(answer);
        }
        if missing == 0 {
            let answers = answers.into_iter().flatten().collect();
            return self.reply(responder, Reply::ListOffsets(answers));
        }
        self.reading.offset_queries.insert(PendingOffsets {
            responder,
            queries,
            answers,
            missing,
        });
        self.search_next();
    }

    /// Has these questions their turns: their log is there again, or is not.
    pub(super) fn turns_of_lookups(&mut self, turns: Vec<(usize, usize)>) {
        self.reading.lookups.turns.extend(turns);
        self.search_next();
    }

    /// Begins searches, as far as they may be under way at a time.
    fn search_next(&mut self) {
        while self.reading.lookups.under_way < LOOKUPS_MAX {
            let Some((key, place)) = self.reading.lookups.turns.pop_front() else {
                return;
            };
            let pending = self.reading.offset_queries.get(key);
            let Some(query) = pending.and_then(|pending| pending.queries.get(place)) else {
                continue;
            };
            let query = query.clone();
            if self.is_away(query.partition) {
                self.reading.asked_again.lookups.push((key, place));
                continue;
            }
            let plan = match self.online(query.partition) {
                Ok(partition) => partition.list_offset(&query),
                Err(error) => OffsetPlan::Ready(OffsetAnswer::failed(error)),
            };
            match plan {
                OffsetPlan::Ready(answer) => self.place_offset(key, place, answer),
                OffsetPlan::Disk(job) => {
                    self.reading.lookups.under_way += 1;
                    self.search(key, place, job);
                }
            }
        }
    }

    fn search(&mut self, query: usize, part: usize, job: OffsetJob<W>) {
        self.out.effects.push(Effect::Offsets { query, part, job });
    }

    pub(super) fn offsets_done(&mut self, key: usize, part: usize, done: OffsetDone<W>) {
        let id = done.partition();
        let is_away = self.is_away(id);
        let plan = match self.online(id) {
            _ if is_away => {
                self.reading.lookups.under_way -= 1;
                self.reading.asked_again.lookups.push((key, part));
                return self.search_next();
            }
            Ok(partition) => partition.complete_list_offset(done),
            Err(error) => OffsetPlan::Ready(OffsetAnswer::failed(error)),
        };
        match plan {
            OffsetPlan::Disk(job) => return self.search(key, part, job),
            OffsetPlan::Ready(answer) => {
                self.reading.lookups.under_way -= 1;
                self.place_offset(key, part, answer);
            }
        }
        self.search_next();
        self.close_when_idle();
    }

    fn place_offset(&mut self, key: usize, part: usize, answer: OffsetAnswer) {
        let Some(pending) = self.reading.offset_queries.get_mut(key) else {
            debug_assert!(false, "a result for no query");
            return;
        };
        if let Some(place @ None) = pending.answers.get_mut(part) {
            *place = Some(answer);
            pending.missing -= 1;
        }
        if pending.missing == 0 {
            let pending = self.reading.offset_queries.remove(key);
            let answers = pending.answers.into_iter().flatten().collect();
            self.reply(pending.responder, Reply::ListOffsets(answers));
        }
    }
}
