//! The newest batches of all partitions of a shard, as they will be sent.
//!
//! Part of the shard's cache. Batches of ordinary size are copied, one behind the other, into chunks
//! of the shard's own: the buffers they arrived in are free again at once, still warm in the
//! processor's cache, and what the cache holds is what it counts. Large batches are kept as they
//! arrived, for their buffers hold little else. First in, first out over all partitions, so chunks
//! come free in the order they were filled. Contiguous per partition.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use chronik_protocol::Records;
use chronik_protocol::record::BATCH_PREFIX_BYTES;
use chronik_terms::PartitionId;

use super::ReadLimits;

/// What a cached batch costs besides its bytes: its entry, and its place in the queue.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 128;
/// Bodies below this are copied into the shard's chunks.
const COPIED_BODY_BYTES_MAX: usize = 64 << 10;
/// Size of a chunk, bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Batches below this are copied into one run when they are read: a part of its own costs a vector
/// entry in every layer down to the socket.
const JOINED_BYTES_MAX: usize = 4096;

struct TailBatch {
    base_offset: i64,
    next_offset: i64,
    /// The whole batch, or only the first bytes, which are ours, of a large one.
    head: Bytes,
    /// The rest of a large batch, as it arrived.
    rest: Bytes,
}

impl TailBatch {
    fn size(&self) -> usize {
        self.head.len() + self.rest.len()
    }

    fn cost(&self) -> usize {
        self.size() + ENTRY_OVERHEAD_BYTES
    }
}

/// The newest batches, up to a number of bytes.
pub(super) struct Tail {
    bytes_max: usize,
    partitions: HashMap<PartitionId, VecDeque<TailBatch>>,
    /// Whose batch is the oldest, next oldest, …
    order: VecDeque<PartitionId>,
    /// How many of the oldest places of a partition in `order` are of batches that were forgotten.
    stale: HashMap<PartitionId, usize>,
    /// Their sum.
    stale_places: usize,
    bytes: usize,
    /// What is left of the newest chunk.
    chunk: BytesMut,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            partitions: HashMap::new(),
            order: VecDeque::new(),
            stale: HashMap::new(),
            stale_places: 0,
            bytes: 0,
            chunk: BytesMut::new(),
        }
    }

    /// Bytes of cached batches, overhead included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Places in the order, those of what was forgotten included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.order.len()
    }

    /// Drops everything of a partition. Its places in the order stay until they are the oldest or too many:
    /// thousands of partitions may be forgotten together.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        let Some(batches) = self.partitions.remove(&partition) else {
            return;
        };
        self.bytes -= batches.iter().map(TailBatch::cost).sum::<usize>();
        *self.stale.entry(partition).or_default() += batches.len();
        self.stale_places += batches.len();
        if self.stale_places > self.order.len() / 2 {
            self.stale_places = 0;
            let mut stale = std::mem::take(&mut self.stale);
            self.order.retain(|id| match stale.get_mut(id) {
                Some(places) if *places > 0 => {
                    *places -= 1;
                    false
                }
                _ => true,
            });
        }
    }

    /// Whether the place that was the oldest is of a batch that was forgotten.
    fn was_stale(&mut self, partition: PartitionId) -> bool {
        let Some(places) = self.stale.get_mut(&partition) else {
            return false;
        };
        *places -= 1;
        self.stale_places -= 1;
        if *places == 0 {
            self.stale.remove(&partition);
        }
        true
    }

    /// Keeps a batch with the given first and next offset.
    pub(super) fn push(
        &mut self,
        partition: PartitionId,
        (base_offset, next_offset): (i64, i64),
        prefix: &[u8; BATCH_PREFIX_BYTES],
        body: &Bytes,
    ) {
        let copied = body.len() < COPIED_BODY_BYTES_MAX;
        let wanted = prefix.len() + if copied { body.len() } else { 0 };
        if self.chunk.capacity() < wanted {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(wanted));
        }
        self.chunk.extend_from_slice(prefix);
        let rest = if copied {
            self.chunk.extend_from_slice(body);
            Bytes::new()
        } else {
            body.clone()
        };
        let batch = TailBatch {
            base_offset,
            next_offset,
            head: self.chunk.split().freeze(),
            rest,
        };
        self.bytes += batch.cost();
        let batches = self.partitions.entry(partition).or_default();
        debug_assert!(
            batches
                .back()
                .is_none_or(|last| last.next_offset == base_offset)
        );
        batches.push_back(batch);
        self.order.push_back(partition);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if self.stale_places == 0 || !self.was_stale(oldest) {
                self.drop_oldest(oldest);
            }
        }
    }

    fn drop_oldest(&mut self, partition: PartitionId) {
        let Some(batches) = self.partitions.get_mut(&partition) else {
            return;
        };
        if let Some(batch) = batches.pop_front() {
            self.bytes -= batch.cost();
        }
        if batches.is_empty() {
            self.partitions.remove(&partition);
        }
    }

    /// Whole batches from an offset on; `None` when the tail does not reach back to it.
    pub(super) fn read(&self, partition: PartitionId, limits: &ReadLimits) -> Option<Records> {
        let batches = self.partitions.get(&partition)?;
        batches
            .front()
            .filter(|first| first.base_offset <= limits.fetch_offset)?;
        let start = batches.partition_point(|batch| batch.next_offset <= limits.fetch_offset);
        let (mut taken, mut joined, mut count) = (0, 0, 0);
        for batch in batches.range(start..) {
            if !limits.admits(batch.next_offset, batch.size(), taken) {
                break;
            }
            taken += batch.size();
            if batch.head.len() < JOINED_BYTES_MAX {
                joined += batch.head.len();
            }
            count += 1;
        }
        let mut records = Records::default();
        let mut run = BytesMut::with_capacity(joined);
        for batch in batches.range(start..).take(count) {
            if batch.head.len() < JOINED_BYTES_MAX {
                run.extend_from_slice(&batch.head);
                if batch.rest.is_empty() {
                    continue;
                }
            }
            if !run.is_empty() {
                records.push(run.split().freeze());
            }
            if batch.head.len() >= JOINED_BYTES_MAX {
                records.push(batch.head.clone());
            }
            if !batch.rest.is_empty() {
                records.push(batch.rest.clone());
            }
        }
        if !run.is_empty() {
            records.push(run.freeze());
        }
        Some(records)
    }
}
