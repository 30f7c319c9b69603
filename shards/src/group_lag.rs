//! How far groups are behind: what they have committed, against the ends of the logs.
//!
//! Asks the coordinator and then the owners of the partitions, from any shard, like any other
//! caller. For operators; owns no state.

use chronik_coordinators::groups::{CommittedPartition, CommittedQuery, GroupCommitted};
use chronik_protocol::record::{CheckedBatch, SearchProgress, TimestampSearch};
use chronik_protocol::{ErrorCode, Str};
use chronik_terms::{Isolation, OffsetQuery, OffsetTarget, PartitionId, ReadPart, ReadRequest};

use crate::limits::LAG_READS_MAX;
use crate::start::ShardHandle;

/// One group's lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLag {
    /// The group.
    pub group: Str,
    /// Its state by Kafka's name, `Stable` for example.
    pub state: Str,
    /// Members it has.
    pub members: usize,
    /// Where it has committed, by topic and partition.
    pub partitions: Vec<PartitionLag>,
}

/// The lag of one group in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The topic's name.
    pub topic: Str,
    /// Partition index.
    pub partition: i32,
    /// The next record the group wants.
    pub committed_offset: i64,
    /// Records between that and what consumers can see; `None` when the partition cannot be asked,
    /// or the topic is another one by now.
    pub records: Option<i64>,
    /// Age of the next record the group wants, ms; 0 when there is none, `None` when it cannot be
    /// told (the record is gone, has no time, or too many were asked for at once).
    pub age_ms: Option<i64>,
}

/// The lag of a page of groups: those after the last one of the page before.
///
/// # Errors
/// COORDINATOR_LOAD_IN_PROGRESS while groups are being read; COORDINATOR_NOT_AVAILABLE when a shard
/// has ended.
pub async fn group_lag(
    shard: &ShardHandle,
    query: CommittedQuery,
    now_ms: i64,
) -> Result<Vec<GroupLag>, ErrorCode> {
    let groups = shard.ask_designated(query).await.await;
    let groups = groups.map_err(|_| ErrorCode::CoordinatorNotAvailable)??;
    let mut reads = LAG_READS_MAX;
    let mut lags = Vec::with_capacity(groups.len());
    for group in groups {
        lags.push(lag_of(shard, group, now_ms, &mut reads).await);
    }
    Ok(lags)
}

async fn lag_of(
    shard: &ShardHandle,
    group: GroupCommitted,
    now_ms: i64,
    reads: &mut usize,
) -> GroupLag {
    let mut partitions = Vec::with_capacity(group.partitions.len());
    for committed in group.partitions {
        partitions.push(partition_lag(shard, committed, now_ms, reads).await);
    }
    GroupLag {
        group: group.group,
        state: group.state,
        members: group.members,
        partitions,
    }
}

async fn partition_lag(
    shard: &ShardHandle,
    committed: CommittedPartition,
    now_ms: i64,
    reads: &mut usize,
) -> PartitionLag {
    let offset = committed.committed_offset;
    let id = current_partition(shard, &committed);
    let end = match id {
        Some(id) => log_end(shard, id).await,
        None => None,
    };
    let records = end.map(|end| end.saturating_sub(offset).max(0));
    let age_ms = match (id, records) {
        (_, Some(0)) => Some(0),
        (Some(id), Some(_)) if *reads > 0 => {
            *reads -= 1;
            let written_ms = timestamp_at(shard, id, offset).await;
            written_ms.map(|written_ms| now_ms.saturating_sub(written_ms).max(0))
        }
        _ => None,
    };
    PartitionLag {
        topic: committed.topic,
        partition: committed.partition,
        committed_offset: offset,
        records,
        age_ms,
    }
}

/// The partition an offset was committed for, if it still exists.
fn current_partition(shard: &ShardHandle, committed: &CommittedPartition) -> Option<PartitionId> {
    let image = shard.image();
    let topic = image.topic(&committed.topic)?;
    let same = committed.topic_id.is_zero() || committed.topic_id == topic.id;
    same.then_some(PartitionId {
        topic_id: topic.id,
        index: committed.partition,
    })
}

async fn log_end(shard: &ShardHandle, partition: PartitionId) -> Option<i64> {
    let query = OffsetQuery {
        partition,
        current_leader_epoch: -1,
        isolation: Isolation::ReadUncommitted,
        target: OffsetTarget::Latest,
    };
    let owner = shard.owner(partition);
    let answers = shard.ask(owner, vec![query]).await.await.ok()?;
    let answer = answers.first();
    let answer = answer.filter(|answer| answer.error == ErrorCode::None)?;
    Some(answer.offset)
}

/// When the first record at or after `offset` was written, ms since the epoch.
async fn timestamp_at(shard: &ShardHandle, partition: PartitionId, offset: i64) -> Option<i64> {
    let request = ReadRequest {
        isolation: Isolation::ReadUncommitted,
        // The first batch comes whole, however large.
        max_bytes: 1,
        parts: vec![ReadPart {
            partition,
            fetch_offset: offset,
            max_bytes: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }],
        wait: None,
        reader: None,
    };
    let owner = shard.owner(partition);
    let results = shard.ask(owner, request).await.await.ok()?;
    let records = results.into_iter().next()?.records.into_bytes();
    let (batch, _) = CheckedBatch::parse_first(records).ok()?;
    // Piece by piece: what a batch unfolds to is its producer's to say.
    let mut search = TimestampSearch::new(&batch, i64::MIN, offset).ok()?;
    match search.step(usize::MAX).ok()? {
        SearchProgress::Found { timestamp_ms, .. } => Some(timestamp_ms).filter(|ms| *ms >= 0),
        _ => None,
    }
}
