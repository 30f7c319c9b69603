//! What a shard keeps in memory of its partitions' logs: the newest batches, blocks read from disk,
//! and indexes of sealed segments.
//!
//! One per shard, owned by it. Every part has a byte budget. The tail is contiguous per partition
//! and leaves first in, first out over all partitions, so that consumers at the end of any log
//! touch no disk. Blocks and indexes leave least recently used first. Never decides what may be
//! read: callers bring the limit.

mod counts;
mod tail;

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use chronik_protocol::Records;
use chronik_protocol::record::{BATCH_PREFIX_BYTES, BatchHeader};

use chronik_terms::PartitionId;
use counts::Counts;
use tail::Tail;

/// Budgets of a shard's cache, bytes.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Newest batches of all partitions.
    pub tail_bytes: usize,
    /// Blocks read from disk.
    pub cold_bytes: usize,
    /// Offset indexes of sealed segments.
    pub index_bytes: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            tail_bytes: 64 << 20,
            cold_bytes: 16 << 20,
            index_bytes: 8 << 20,
        }
    }
}

/// Distance of the marks in a block, bytes: how far a lookup has to walk at most.
const MARK_DISTANCE_BYTES: usize = 16 << 10;

/// How much of a log a reader may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Batches that reach this offset are not given.
    pub end_offset: i64,
    /// Bytes of whole batches.
    pub max_bytes: usize,
    /// The first batch is given even if it is longer (KIP-74).
    pub at_least_one: bool,
}

impl ReadLimits {
    /// Whether a batch still fits behind `taken` bytes.
    pub(crate) fn admits(&self, next_offset: i64, size: usize, taken: usize) -> bool {
        let fits = taken
            .checked_add(size)
            .is_some_and(|sum| sum <= self.max_bytes);
        next_offset <= self.end_offset && (fits || (taken == 0 && self.at_least_one))
    }
}

/// Whole batches read from disk in one piece.
#[derive(Clone, Debug)]
pub(crate) struct ColdBlock {
    /// Base offset of the segment it was read from.
    pub(crate) segment: i64,
    /// Where in the segment its first byte stands.
    pub(crate) position: u64,
    /// Whole, checked batches.
    pub(crate) bytes: Bytes,
    /// Base offset of a batch and its place in `bytes`, the first batch included.
    pub(crate) marks: Vec<(i64, usize)>,
    /// One more than the last batch's last offset.
    pub(crate) next_offset: i64,
    /// It was read from where another block in the cache ended: its reader goes straight on.
    pub(crate) goes_on: bool,
}

impl ColdBlock {
    /// An empty block to which batches are added in order.
    pub(crate) fn builder(segment: i64) -> ColdBlock {
        let bytes = Bytes::new();
        ColdBlock {
            segment,
            position: 0,
            bytes,
            marks: Vec::new(),
            next_offset: i64::MIN,
            goes_on: false,
        }
    }

    /// Takes note of a batch `at` bytes behind the block's start; `bytes` is set by the caller.
    pub(crate) fn note(&mut self, header: &BatchHeader, at: usize) {
        let due = self
            .marks
            .last()
            .is_none_or(|last| at - last.1 >= MARK_DISTANCE_BYTES);
        if due {
            self.marks.push((header.base_offset, at));
        }
        self.next_offset = header.next_offset();
    }

    fn covers(&self, offset: i64) -> bool {
        self.marks.first().is_some_and(|first| first.0 <= offset) && offset < self.next_offset
    }

    /// The batches a reader gets out of this block, in one piece.
    pub(crate) fn select(&self, limits: &ReadLimits) -> Bytes {
        slice_or_copy(&self.bytes, self.range(limits))
    }

    fn range(&self, limits: &ReadLimits) -> Range<usize> {
        let mark = self
            .marks
            .partition_point(|mark| mark.0 <= limits.fetch_offset);
        let mut at = mark
            .checked_sub(1)
            .and_then(|mark| self.marks.get(mark))
            .map_or(0, |m| m.1);
        let mut start = None;
        while let Some(header) = self.bytes.get(at..).and_then(|b| BatchHeader::peek(b).ok()) {
            let size = header.size_bytes();
            if header.next_offset() > limits.fetch_offset {
                let from = *start.get_or_insert(at);
                if !limits.admits(header.next_offset(), size, at - from) {
                    break;
                }
            }
            at += size;
        }
        let end = at.min(self.bytes.len());
        start.unwrap_or(end).min(end)..end
    }
}

/// Part of what was read, as a slice where it is half of it or more. Less is copied: a slice keeps all
/// that was read in memory, for as long as a slow client takes its answer. So what is given holds at
/// most twice its bytes.
pub(crate) fn slice_or_copy(bytes: &Bytes, part: Range<usize>) -> Bytes {
    match part.len() >= bytes.len() / 2 {
        true => bytes.slice(part),
        false => Bytes::copy_from_slice(bytes.get(part).unwrap_or_default()),
    }
}

/// A shard's cache.
pub struct BatchCache {
    limits: CacheLimits,
    tail: Tail,
    cold: VecDeque<(PartitionId, ColdBlock)>,
    cold_bytes: usize,
    cold_of: Counts,
    indexes: VecDeque<(PartitionId, i64, Bytes)>,
    index_bytes: usize,
    indexes_of: Counts,
}

impl BatchCache {
    /// An empty cache.
    pub fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            tail: Tail::new(limits.tail_bytes),
            cold: VecDeque::new(),
            cold_bytes: 0,
            cold_of: Counts::default(),
            indexes: VecDeque::new(),
            index_bytes: 0,
            indexes_of: Counts::default(),
        }
    }

    /// Bytes of cached tail batches, overhead included.
    pub fn tail_bytes(&self) -> usize {
        self.tail.bytes()
    }

    /// Bytes of cached blocks read from disk.
    pub fn cold_bytes(&self) -> usize {
        self.cold_bytes
    }

    /// Bytes of cached indexes.
    pub fn index_bytes(&self) -> usize {
        self.index_bytes
    }

    /// Drops everything of a partition: it was closed or deleted.
    pub fn forget(&mut self, partition: PartitionId) {
        self.tail.forget(partition);
        self.forget_where(partition, |_| true);
    }

    /// Drops what is known of the files of some segments: others have their place.
    pub(crate) fn forget_segments(&mut self, partition: PartitionId, bases: &[i64]) {
        self.forget_where(partition, |base| bases.contains(&base));
    }

    /// Drops blocks and indexes of the segments of a partition for which `goes` holds. Nothing is looked
    /// through where there is none: thousands of partitions may be forgotten together.
    fn forget_where(&mut self, partition: PartitionId, goes: impl Fn(i64) -> bool) {
        if self.cold_of.any(partition) {
            self.cold.retain(|(id, block)| {
                let stays = *id != partition || !goes(block.segment);
                if !stays {
                    self.cold_bytes -= block.bytes.len();
                    self.cold_of.less(partition);
                }
                stays
            });
        }
        if self.indexes_of.any(partition) {
            self.indexes.retain(|(id, base, bytes)| {
                let stays = *id != partition || !goes(*base);
                if !stays {
                    self.index_bytes -= bytes.len();
                    self.indexes_of.less(partition);
                }
                stays
            });
        }
    }

    /// Keeps a batch that was just appended.
    pub(crate) fn push_tail(
        &mut self,
        partition: PartitionId,
        offsets: (i64, i64),
        prefix: &[u8; BATCH_PREFIX_BYTES],
        body: &Bytes,
    ) {
        self.tail.push(partition, offsets, prefix, body);
    }

    /// Batches from the tail; `None` when it does not reach back to the offset.
    pub(crate) fn read_tail(&self, partition: PartitionId, limits: &ReadLimits) -> Option<Records> {
        self.tail.read(partition, limits)
    }

    /// Batches from a block read earlier; `None` when no block covers the offset.
    pub(crate) fn read_cold(
        &mut self,
        partition: PartitionId,
        limits: &ReadLimits,
    ) -> Option<Records> {
        let at = self
            .cold
            .iter()
            .position(|(id, block)| *id == partition && block.covers(limits.fetch_offset))?;
        let (id, block) = self.cold.remove(at)?;
        let range = block.range(limits);
        let selected = slice_or_copy(&block.bytes, range.clone());
        if block.goes_on && range.end == block.bytes.len() {
            // Its reader goes straight on: of less use now than any other.
            self.cold.push_front((id, block));
        } else {
            self.cold.push_back((id, block));
        }
        Some(Records::from(selected))
    }

    /// Where the block behind the one with `offset` begins, if readers of that go straight on and the
    /// next one is not in the cache.
    pub fn ahead_of(&self, partition: PartitionId, offset: i64) -> Option<i64> {
        let mut blocks = self.cold.iter().filter(|(id, _)| *id == partition);
        let (_, block) = blocks.find(|(_, block)| block.covers(offset))?;
        let next = block.next_offset;
        let mut blocks = self.cold.iter().filter(|(id, _)| *id == partition);
        let has_next = blocks.any(|(_, block)| block.covers(next));
        (block.goes_on && !has_next).then_some(next)
    }

    /// Segment and position behind the block that ends with `offset`: where a reader that goes
    /// straight on continues without an index.
    pub(crate) fn cold_end(&self, partition: PartitionId, offset: i64) -> Option<(i64, u64)> {
        self.cold
            .iter()
            .find(|(id, block)| *id == partition && block.next_offset == offset)
            .map(|(_, block)| (block.segment, block.position + block.bytes.len() as u64))
    }

    /// Keeps a block that was read.
    pub(crate) fn push_cold(&mut self, partition: PartitionId, block: ColdBlock) {
        if block.bytes.is_empty() || block.bytes.len() > self.limits.cold_bytes {
            return;
        }
        self.cold_bytes += block.bytes.len();
        self.cold.push_back((partition, block));
        self.cold_of.more(partition);
        while self.cold_bytes > self.limits.cold_bytes {
            let Some((id, block)) = self.cold.pop_front() else {
                break;
            };
            self.cold_bytes -= block.bytes.len();
            self.cold_of.less(id);
        }
    }

    /// The offset index of a sealed segment, if it is kept.
    pub(crate) fn index(&mut self, partition: PartitionId, segment: i64) -> Option<Bytes> {
        let found = self
            .indexes
            .iter()
            .position(|entry| (entry.0, entry.1) == (partition, segment));
        let entry = self.indexes.remove(found?)?;
        let bytes = entry.2.clone();
        self.indexes.push_back(entry);
        Some(bytes)
    }

    /// Keeps a sealed segment's offset index, in place of an older one.
    pub(crate) fn push_index(&mut self, partition: PartitionId, segment: i64, bytes: Bytes) {
        let mut indexes = self.indexes.iter();
        let known = indexes.position(|entry| (entry.0, entry.1) == (partition, segment));
        if let Some((_, _, older)) = known.and_then(|at| self.indexes.remove(at)) {
            self.index_bytes -= older.len();
            self.indexes_of.less(partition);
        }
        if bytes.len() <= self.limits.index_bytes {
            self.index_bytes += bytes.len();
            self.indexes_of.more(partition);
            self.indexes.push_back((partition, segment, bytes));
        }
        while self.index_bytes > self.limits.index_bytes {
            let Some((id, _, bytes)) = self.indexes.pop_front() else {
                break;
            };
            self.index_bytes -= bytes.len();
            self.indexes_of.less(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use chronik_protocol::Uuid;
    use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};

    use super::tail::ENTRY_OVERHEAD_BYTES;
    use super::*;

    fn id(n: i32) -> PartitionId {
        PartitionId {
            topic_id: Uuid(7),
            index: n,
        }
    }

    fn batch(base_offset: i64, records: i32, value_bytes: usize) -> CheckedBatch {
        let value = vec![b'x'; value_bytes];
        let mut builder = BatchBuilder::new(0);
        for _ in 0..records {
            builder
                .push(&NewRecord {
                    value: Some(&value),
                    ..NewRecord::default()
                })
                .expect("ok");
        }
        builder.build().expect("ok").with_offsets(base_offset, 0)
    }

    fn push(cache: &mut BatchCache, partition: PartitionId, batch: &CheckedBatch) {
        let header = &batch.header;
        let offsets = (header.base_offset, header.next_offset());
        cache.push_tail(
            partition,
            offsets,
            &batch.prefix(header.base_offset, 0),
            &batch.body(),
        );
    }

    fn limits(fetch_offset: i64, end_offset: i64, max_bytes: usize) -> ReadLimits {
        ReadLimits {
            fetch_offset,
            end_offset,
            max_bytes,
            at_least_one: true,
        }
    }

    fn flat(records: Option<Records>) -> Option<Vec<u8>> {
        records.map(|records| records.into_bytes().to_vec())
    }

    #[test]
    fn the_tail_gives_whole_batches_within_its_limits() {
        let mut cache = BatchCache::new(CacheLimits::default());
        let batches = [
            batch(0, 3, 10),
            batch(3, 1, 90_000),
            batch(4, 2, 10),
            batch(6, 1, 10),
        ];
        for batch in &batches {
            push(&mut cache, id(0), batch);
        }
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.bytes.len()).collect();
        let joined = |range: std::ops::Range<usize>| {
            Some(
                batches[range]
                    .iter()
                    .flat_map(|batch| batch.bytes.to_vec())
                    .collect::<Vec<_>>(),
            )
        };
        let read = |limits: ReadLimits| flat(cache.read_tail(id(0), &limits));
        assert_eq!(read(limits(0, 7, usize::MAX)), joined(0..4));
        assert_eq!(
            read(limits(1, 6, usize::MAX)),
            joined(0..3),
            "the end offset holds back"
        );
        assert_eq!(
            read(limits(3, 7, 1)),
            joined(1..2),
            "one batch although it is longer"
        );
        assert_eq!(
            read(ReadLimits {
                at_least_one: false,
                ..limits(3, 7, 1)
            }),
            Some(Vec::new())
        );
        assert_eq!(read(limits(5, 7, sizes[2] + sizes[3] - 1)), joined(2..3));
        assert_eq!(read(limits(5, 7, sizes[2] + sizes[3])), joined(2..4));
        assert_eq!(flat(cache.read_tail(id(1), &limits(0, 7, 100))), None);
    }

    #[test]
    fn the_oldest_batches_of_all_partitions_leave_first() {
        let size = batch(0, 1, 1000).bytes.len() + ENTRY_OVERHEAD_BYTES;
        let tail_bytes = 3 * size;
        let mut cache = BatchCache::new(CacheLimits {
            tail_bytes,
            ..CacheLimits::default()
        });
        for (partition, offset) in [(0, 0), (1, 0), (0, 1), (0, 2)] {
            push(&mut cache, id(partition), &batch(offset, 1, 1000));
        }
        assert_eq!(cache.tail_bytes(), tail_bytes);
        assert!(
            cache.read_tail(id(0), &limits(0, 3, 1)).is_none(),
            "left first"
        );
        assert!(cache.read_tail(id(0), &limits(1, 3, 1)).is_some());
        assert!(cache.read_tail(id(1), &limits(0, 1, 1)).is_some());
        push(&mut cache, id(0), &batch(3, 1, 1000));
        assert!(cache.read_tail(id(1), &limits(0, 1, 1)).is_none());
        cache.forget(id(0));
        assert_eq!(cache.tail_bytes(), 0);
    }

    #[test]
    fn what_is_forgotten_keeps_no_place_and_changes_no_order() {
        let size = batch(0, 1, 100).bytes.len() + ENTRY_OVERHEAD_BYTES;
        let mut cache = BatchCache::new(CacheLimits {
            tail_bytes: 20 * size,
            ..CacheLimits::default()
        });
        let mut expected: VecDeque<(i32, i64)> = VecDeque::new();
        let mut ends = [0_i64; 7];
        let mut draw = 1_u64;
        for step in 0..5000 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = usize::try_from((draw >> 33) % 7).expect("small");
            let partition = i32::try_from(n).expect("small");
            if draw >> 60 == 0 {
                cache.forget(id(partition));
                expected.retain(|(other, _)| *other != partition);
            } else {
                push(&mut cache, id(partition), &batch(ends[n], 1, 100));
                expected.push_back((partition, ends[n]));
                ends[n] += 1;
            }
            while expected.len() > 20 {
                expected.pop_front();
            }
            for (n, end) in (0..7).zip(ends) {
                let mut kept = expected.iter().filter(|(other, _)| *other == n);
                let first = kept.next().map(|(_, offset)| *offset);
                let reads = |offset| cache.read_tail(id(n), &limits(offset, end, 1)).is_some();
                assert!(first.is_none_or(reads), "step {step}");
                assert!(!reads(first.unwrap_or(end) - 1), "step {step}");
            }
            assert_eq!(cache.tail_bytes(), expected.len() * size);
        }
        for n in 0..10_000 {
            push(&mut cache, id(100 + n), &batch(0, 1, 100));
            cache.forget(id(100 + n));
            let places = cache.tail.places();
            assert!(
                places <= 2 * 21,
                "{places} places of {} batches",
                expected.len()
            );
        }
    }

    #[test]
    fn blocks_answer_from_any_batch_in_them_and_tell_where_to_go_on() {
        let batches: Vec<CheckedBatch> = (0..100).map(|n| batch(50 + n * 2, 2, 400)).collect();
        let mut block = ColdBlock {
            position: 1000,
            ..ColdBlock::builder(50)
        };
        let mut bytes = Vec::new();
        for batch in &batches {
            block.note(&batch.header, bytes.len());
            bytes.extend_from_slice(&batch.bytes);
        }
        let (all, size) = (bytes.len() as u64, batches[0].bytes.len());
        block.bytes = Bytes::from(bytes);
        let mut cache = BatchCache::new(CacheLimits::default());
        cache.push_cold(id(0), block);
        for (n, batch) in batches.iter().enumerate() {
            let offset = 51 + 2 * n as i64;
            let read = flat(cache.read_cold(id(0), &limits(offset, 1000, size + 1)));
            assert_eq!(read, Some(batch.bytes.to_vec()), "{offset}");
        }
        let read = flat(cache.read_cold(id(0), &limits(50, 54, usize::MAX)));
        assert_eq!(
            read.map(|read| read.len()),
            Some(2 * size),
            "the end offset holds back"
        );
        assert!(cache.read_cold(id(0), &limits(49, 1000, 1)).is_none());
        assert!(cache.read_cold(id(0), &limits(250, 1000, 1)).is_none());
        assert_eq!(cache.cold_end(id(0), 250), Some((50, 1000 + all)));
    }

    #[test]
    fn indexes_leave_least_recently_used_first() {
        let mut cache = BatchCache::new(CacheLimits {
            index_bytes: 20,
            ..CacheLimits::default()
        });
        let bytes = Bytes::from_static(&[0; 8]);
        cache.push_index(id(0), 0, bytes.clone());
        cache.push_index(id(0), 10, bytes.clone());
        assert!(cache.index(id(0), 0).is_some());
        cache.push_index(id(0), 20, bytes);
        assert_eq!(cache.index_bytes(), 16);
        assert!(cache.index(id(0), 10).is_none());
        assert!(cache.index(id(0), 0).is_some() && cache.index(id(0), 20).is_some());
    }
}
