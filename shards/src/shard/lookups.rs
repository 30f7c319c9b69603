//! Lookups of offsets: what is known is answered at once, what has to be searched in files takes turns.
//!
//! State only. Bounds how many searches are under way, and with it what they hold: a search reads a
//! block and unfolds a batch piece by piece.

use std::collections::VecDeque;

use chronik_io::World;

use super::{Effect, Shard, Slot};
use crate::limits::LOOKUPS_MAX;
use crate::partition::{OffsetDone, OffsetJob, OffsetPlan};
use crate::request::{
    OffsetAnswer, OffsetQuery, PartitionId, Reply, SegmentOffsets, SegmentOffsetsQuery,
};

/// Questions some of whose answers are searched for.
pub(super) struct PendingOffsets<R> {
    responder: R,
    queries: Vec<OffsetQuery>,
    answers: Vec<Option<OffsetAnswer>>,
    missing: usize,
}

/// Lookups by timestamp, which search the files: what could be seen when they came has to be there.
pub(super) struct UnwrittenQueries<R> {
    queries: Vec<OffsetQuery>,
    responder: R,
    /// Who has to have written up to where.
    waits_for: Vec<(PartitionId, i64)>,
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
        let mut waits_for = Vec::new();
        for query in queries.iter().filter(|query| query.target.is_searched()) {
            if let Some(Slot::Online(partition)) = self.partitions.get(&query.partition)
                && partition.is_online()
                && !partition.is_written_up_to(partition.high_watermark())
            {
                waits_for.push((query.partition, partition.high_watermark()));
            }
        }
        if waits_for.is_empty() {
            return self.look_up_offsets(queries, responder);
        }
        let written_now: Vec<PartitionId> = waits_for.iter().map(|(id, _)| *id).collect();
        self.unwritten_queries.push(UnwrittenQueries {
            queries,
            responder,
            waits_for,
        });
        written_now.into_iter().for_each(|id| self.write_now(id));
    }

    /// Something of the partition was written, or never will be.
    pub(super) fn search_what_is_written(&mut self, id: PartitionId) {
        let partitions = &self.partitions;
        let still = |(of, offset): &mut (PartitionId, i64)| match partitions.get(of) {
            Some(Slot::Online(partition)) if partition.is_online() => {
                !partition.is_written_up_to(*offset)
            }
            _ => false,
        };
        let concerned = self.unwritten_queries.iter_mut();
        let concerned = concerned.filter(|waiting| waiting.waits_for.iter().any(|w| w.0 == id));
        concerned.for_each(|waiting| waiting.waits_for.retain_mut(still));
        let ready: Vec<_> = self
            .unwritten_queries
            .extract_if(.., |waiting| waiting.waits_for.is_empty())
            .collect();
        for waiting in ready {
            self.look_up_offsets(waiting.queries, waiting.responder);
        }
    }

    fn look_up_offsets(&mut self, queries: Vec<OffsetQuery>, responder: R) {
        let key = self.offset_queries.vacant_key();
        let mut answers = Vec::with_capacity(queries.len());
        let mut missing = 0;
        for (place, query) in queries.iter().enumerate() {
            let answer = match self.online(query.partition) {
                Ok(_) if query.target.is_searched() => {
                    missing += 1;
                    self.lookups.turns.push_back((key, place));
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
        self.offset_queries.insert(PendingOffsets {
            responder,
            queries,
            answers,
            missing,
        });
        self.search_next();
    }

    /// Begins searches, as far as they may be under way at a time.
    fn search_next(&mut self) {
        while self.lookups.under_way < LOOKUPS_MAX {
            let Some((key, place)) = self.lookups.turns.pop_front() else {
                return;
            };
            let pending = self.offset_queries.get(key);
            let Some(query) = pending.and_then(|pending| pending.queries.get(place)) else {
                continue;
            };
            let query = query.clone();
            let plan = match self.online(query.partition) {
                Ok(partition) => partition.list_offset(&query),
                Err(error) => OffsetPlan::Ready(OffsetAnswer::failed(error)),
            };
            match plan {
                OffsetPlan::Ready(answer) => self.place_offset(key, place, answer),
                OffsetPlan::Disk(job) => {
                    self.lookups.under_way += 1;
                    self.search(key, place, job);
                }
            }
        }
    }

    fn search(&mut self, query: usize, part: usize, job: OffsetJob<W>) {
        self.effects.push(Effect::Offsets { query, part, job });
    }

    pub(super) fn offsets_done(&mut self, key: usize, part: usize, done: OffsetDone<W>) {
        let id = done.partition();
        let plan = match self.online(id) {
            Ok(partition) => partition.complete_list_offset(done),
            Err(error) => OffsetPlan::Ready(OffsetAnswer::failed(error)),
        };
        match plan {
            OffsetPlan::Disk(job) => return self.search(key, part, job),
            OffsetPlan::Ready(answer) => {
                self.lookups.under_way -= 1;
                self.place_offset(key, part, answer);
            }
        }
        self.search_next();
        self.close_when_idle();
    }

    fn place_offset(&mut self, key: usize, part: usize, answer: OffsetAnswer) {
        let Some(pending) = self.offset_queries.get_mut(key) else {
            debug_assert!(false, "a result for no query");
            return;
        };
        if let Some(place @ None) = pending.answers.get_mut(part) {
            *place = Some(answer);
            pending.missing -= 1;
        }
        if pending.missing == 0 {
            let pending = self.offset_queries.remove(key);
            let answers = pending.answers.into_iter().flatten().collect();
            self.reply(pending.responder, Reply::ListOffsets(answers));
        }
    }
}
