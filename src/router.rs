//! From a connection to the shards that own what it asks for, and back.
//!
//! Runs on every shard. Splits parts by owner, sends each owner one request, and puts the results
//! back into the order of the parts. A request for this very shard takes no hop. Knows no wire
//! version and no topic name.

use std::collections::VecDeque;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_io::{Lost, World};
use chronik_protocol::{ErrorCode, Uuid};
use chronik_shards::questions::{Asked, Designated, Question};
use chronik_shards::{LogDirs, Request, ShardHandle};
use chronik_terms::{
    Acks, AppendPart, AppendRequest, AppendResult, DeleteRecordsPart, DeleteRecordsResult,
    EpochAnswer, EpochQuery, Isolation, LogDescription, LogScope, OffsetAnswer, OffsetQuery,
    PartitionId, ReadPart, ReadRequest, ReadResult, Reader, SegmentOffsets, SegmentOffsetsQuery,
    Wait,
};

/// Parts that a shard is asked about at once, unless they belong together: a fraction of a millisecond
/// of its time.
const PARTS_AT_ONCE: usize = 1_000;

/// Turns of [`PARTS_AT_ONCE`] that are under way at a time: new partitions of all of them are waited for at
/// once, and so many parts may wait for new partitions at all (`EARLY_PARTS_MAX`).
const TURNS_AT_ONCE: usize = 16;

/// Batches that a shard is given at once: some tens of microseconds each, for each begins a write.
const APPENDS_AT_ONCE: usize = 128;

/// The way to all shards, from one of them.
#[derive(Clone)]
pub(crate) struct Router {
    shard: ShardHandle,
}

/// The parts of a request that one shard owns.
struct Group<P> {
    shard: usize,
    parts: Vec<P>,
    /// Where each part stands in the request.
    positions: Vec<usize>,
}

/// Questions that are in their lanes; the answers are still to come.
#[must_use = "the results arrive here"]
pub(crate) struct Gather<Q> {
    asked: GatherFrom<Q>,
    count: usize,
}

enum GatherFrom<Q> {
    /// One shard has all parts, in order.
    One(Asked<Q>),
    Many(Vec<(Asked<Q>, Vec<usize>)>),
}

impl<R, Q: Question<Answer = Vec<R>>> Gather<Q> {
    /// Waits for every shard and returns the results in the order of the parts.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn collect(self) -> Result<Vec<R>, Lost> {
        let asked = match self.asked {
            GatherFrom::One(asked) => return asked.await,
            GatherFrom::Many(asked) => asked,
        };
        let mut merged: Vec<Option<R>> = std::iter::repeat_with(|| None).take(self.count).collect();
        for (asked, positions) in asked {
            for (position, result) in positions.into_iter().zip(asked.await?) {
                if let Some(place) = merged.get_mut(position) {
                    *place = Some(result);
                }
            }
        }
        Ok(merged
            .into_iter()
            .map(|result| result.expect("one result for each part"))
            .collect())
    }
}

impl Router {
    /// The router of the shard that `shard` is.
    pub(crate) fn new(shard: ShardHandle) -> Self {
        Self { shard }
    }

    /// The directories that hold logs.
    pub(crate) fn log_dirs(&self) -> &LogDirs {
        self.shard.log_dirs()
    }

    /// The catalogue as this shard knows it.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.shard.image()
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.shard.endpoint().count()
    }

    /// This shard's number.
    pub(crate) fn this_shard(&self) -> usize {
        self.shard.endpoint().index()
    }

    /// Sends one request to one shard if its lane has room; the reply is not awaited.
    pub(crate) fn try_send(&self, shard: usize, request: Request) {
        // A request that finds no room is given back and dropped, as the caller accepts.
        drop(self.shard.endpoint().try_send(shard, request));
    }

    /// The shard that owns a partition.
    pub(crate) fn owner(&self, partition: PartitionId) -> usize {
        self.shard.owner(partition)
    }

    /// Asks one shard. When this returns the question is in its lane; the answer follows.
    pub(crate) async fn ask<Q: Question>(&self, shard: usize, question: Q) -> Asked<Q> {
        self.shard.ask(shard, question).await
    }

    /// Asks the designated shard; see [`ShardHandle::ask_designated`].
    pub(crate) async fn ask_designated<Q: Designated>(&self, question: Q) -> Asked<Q> {
        self.shard.ask_designated(question).await
    }

    /// Appends batches. When this returns they are in their lanes, in order; the results follow. Of many
    /// an owner gets some at a time: each may be a file's first write.
    pub(crate) async fn append<W: World>(
        &self,
        world: &W,
        acks: Acks,
        timeout_ms: i32,
        parts: Vec<AppendPart>,
    ) -> Gather<AppendRequest> {
        let ask = |parts| AppendRequest {
            acks,
            timeout_ms,
            parts,
        };
        let count = parts.len();
        if count <= APPENDS_AT_ONCE {
            return self.scatter(parts, |part| part.partition, ask).await;
        }
        let (mut asked, mut first) = (Vec::new(), 0);
        let mut parts = parts.into_iter();
        while parts.len() > 0 {
            let some: Vec<AppendPart> = parts.by_ref().take(APPENDS_AT_ONCE).collect();
            let taken = some.len();
            for group in split(some, |part| self.owner(part.partition)) {
                let places = group.positions.into_iter();
                let places = places.map(|place| place + first).collect();
                asked.push((self.ask(group.shard, ask(group.parts)).await, places));
            }
            first += taken;
            world.pause().await;
        }
        Gather {
            asked: GatherFrom::Many(asked),
            count,
        }
    }

    /// Reads partitions; only a read of a single shard may wait.
    pub(crate) async fn read(
        &self,
        isolation: Isolation,
        max_bytes: usize,
        parts: Vec<ReadPart>,
        (wait, reader): (Option<Wait>, &Reader),
    ) -> Gather<ReadRequest> {
        let ask = |parts| ReadRequest {
            isolation,
            max_bytes,
            parts,
            wait,
            reader: Some(reader.clone()),
        };
        self.scatter(parts, |part| part.partition, ask).await
    }

    /// Looks offsets up.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn list_offsets<W: World>(
        &self,
        world: &W,
        parts: Vec<OffsetQuery>,
    ) -> Result<Vec<OffsetAnswer>, Lost> {
        self.in_turns(world, parts, |part| part.partition).await
    }

    /// Looks up where segments begin.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn segment_offsets<W: World>(
        &self,
        world: &W,
        parts: Vec<SegmentOffsetsQuery>,
    ) -> Result<Vec<SegmentOffsets>, Lost> {
        self.in_turns(world, parts, |part| part.partition).await
    }

    /// Looks the ends of leader epochs up.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn epoch_ends<W: World>(
        &self,
        world: &W,
        parts: Vec<EpochQuery>,
    ) -> Result<Vec<EpochAnswer>, Lost> {
        self.in_turns(world, parts, |part| part.partition).await
    }

    /// Moves log starts.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn delete_records<W: World>(
        &self,
        world: &W,
        parts: Vec<DeleteRecordsPart>,
    ) -> Result<Vec<DeleteRecordsResult>, Lost> {
        self.in_turns(world, parts, |part| part.partition).await
    }

    /// Moves logs to other log directories.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn move_logs<W: World>(
        &self,
        world: &W,
        parts: Vec<(PartitionId, Uuid)>,
    ) -> Result<Vec<ErrorCode>, Lost> {
        self.in_turns(world, parts, |(id, _)| *id).await
    }

    /// Asks every shard about its logs.
    ///
    /// # Errors
    /// When a shard has ended.
    pub(crate) async fn describe_logs<W: World>(
        &self,
        world: &W,
        scope: &LogScope,
    ) -> Result<Vec<LogDescription>, Lost> {
        let LogScope::Only(ids) = scope else {
            return self.describe_some_logs(scope).await;
        };
        let mut found = Vec::new();
        for some in ids.chunks(PARTS_AT_ONCE) {
            let scope = LogScope::Only(some.to_vec());
            found.extend(self.describe_some_logs(&scope).await?);
            world.pause().await;
        }
        Ok(found)
    }

    async fn describe_some_logs(&self, scope: &LogScope) -> Result<Vec<LogDescription>, Lost> {
        let mut asked = Vec::with_capacity(self.shards());
        for shard in 0..self.shards() {
            asked.push(self.ask(shard, scope.clone()).await);
        }
        let mut found = Vec::new();
        for asked in asked {
            found.extend(asked.await?);
        }
        Ok(found)
    }

    /// For what clients ask by name alone. As `scatter`, some parts at a time: a request may name a quarter of a
    /// million, and the shard that owns them looks at those of one internal request in one go.
    async fn in_turns<W: World, P, R: PartOutcome>(
        &self,
        world: &W,
        parts: Vec<P>,
        partition: impl Fn(&P) -> PartitionId,
    ) -> Result<Vec<R>, Lost>
    where
        Vec<P>: Question<Answer = Vec<R>>,
    {
        let mut results = Vec::with_capacity(parts.len());
        let mut parts = parts.into_iter();
        let mut asked: VecDeque<Gather<Vec<P>>> = VecDeque::new();
        loop {
            let some: Vec<P> = parts.by_ref().take(PARTS_AT_ONCE).collect();
            asked.push_back(self.scatter(some, &partition, |parts| parts).await);
            let is_last = parts.len() == 0;
            while (is_last || asked.len() >= TURNS_AT_ONCE)
                && let Some(gather) = asked.pop_front()
            {
                results.extend(gather.collect().await?);
            }
            if is_last {
                results.iter_mut().for_each(tell_by_name);
                return Ok(results);
            }
            world.pause().await;
        }
    }

    async fn scatter<P, Q: Question>(
        &self,
        parts: Vec<P>,
        partition: impl Fn(&P) -> PartitionId,
        question: impl Fn(Vec<P>) -> Q,
    ) -> Gather<Q> {
        let count = parts.len();
        let groups = split(parts, |part| self.owner(partition(part)));
        let mut all = Vec::with_capacity(groups.len());
        for Group {
            shard,
            parts,
            positions,
        } in groups
        {
            let asked = self.ask(shard, question(parts)).await;
            if positions.len() == count {
                return Gather {
                    asked: GatherFrom::One(asked),
                    count,
                };
            }
            all.push((asked, positions));
        }
        Gather {
            asked: GatherFrom::Many(all),
            count,
        }
    }
}

/// What a shard tells of a part.
pub(crate) trait PartOutcome {
    /// What became of it.
    fn error_mut(&mut self) -> &mut ErrorCode;
}

/// Changes what a shard tells for a client that asked by name and knows nothing of ids: the topic was
/// deleted between its look-up and the shard's.
pub(crate) fn tell_by_name(told: &mut impl PartOutcome) {
    let error = told.error_mut();
    if *error == ErrorCode::UnknownTopicId {
        *error = ErrorCode::UnknownTopicOrPartition;
    }
}

impl PartOutcome for ErrorCode {
    fn error_mut(&mut self) -> &mut ErrorCode {
        self
    }
}

macro_rules! outcomes {
    ($($result:ty),*) => {
        $(impl PartOutcome for $result {
            fn error_mut(&mut self) -> &mut ErrorCode {
                &mut self.error
            }
        })*
    };
}

outcomes!(
    AppendResult,
    ReadResult,
    OffsetAnswer,
    SegmentOffsets,
    EpochAnswer,
    DeleteRecordsResult
);

/// Groups parts by owner, keeping their order within each group.
fn split<P>(parts: Vec<P>, owner: impl Fn(&P) -> usize) -> Vec<Group<P>> {
    let mut groups: Vec<Group<P>> = Vec::new();
    for (position, part) in parts.into_iter().enumerate() {
        let shard = owner(&part);
        match groups.iter_mut().find(|group| group.shard == shard) {
            Some(group) => {
                group.parts.push(part);
                group.positions.push(position);
            }
            None => groups.push(Group {
                shard,
                parts: vec![part],
                positions: vec![position],
            }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_and_their_places() {
        let groups = split(vec![3, 4, 5, 6, 7, 9], |part| part % 3);
        let shape: Vec<_> = groups
            .iter()
            .map(|group| (group.shard, group.parts.clone(), group.positions.clone()))
            .collect();
        assert_eq!(
            shape,
            [
                (0, vec![3, 6, 9], vec![0, 3, 5]),
                (1, vec![4, 7], vec![1, 4]),
                (2, vec![5], vec![2])
            ]
        );
    }
}
