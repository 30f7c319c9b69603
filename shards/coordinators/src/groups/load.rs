//! Reading the groups of one partition back from its log.
//!
//! State only: asks for bytes, is given them, has them unfolded beside the shard, and replays them in
//! slices. A batch that cannot be read ends the loading; the partition's groups are then not served.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoValues;

use bytes::Bytes;
use chronik_protocol::record::{BatchHeader, ControlRecord, Record};

use super::partition::GroupPartition;
use super::records::{GroupRecord, unpack};
use crate::limits::{GROUP_RECORD_BYTES_PER_SLICE, GROUP_RECORDS_PER_SLICE};
use crate::unfold::{Unfolded, Unfolding};

/// A partition whose log is being read.
pub(crate) struct Load {
    pub(crate) partition: i32,
    /// Tells it from other loads, also of the same partition.
    pub(crate) number: u64,
    /// Nothing below is needed any more.
    pub(crate) next_offset: i64,
    end_offset: i64,
    /// Batches that were read and not looked at.
    unread: Bytes,
    batch: Option<OpenBatch>,
    state: GroupPartition,
    /// Records of transactions that have not ended, by producer, the last one of each key.
    open_transactions: BTreeMap<i64, BTreeMap<Bytes, GroupRecord>>,
    /// Records of a transaction that has ended, and whether they count: looked at before all that follows.
    ended: Option<(IntoValues<Bytes, GroupRecord>, bool)>,
    /// Records of types that nobody here knows.
    unknown: u64,
}

/// The batch that is being replayed.
struct OpenBatch {
    header: BatchHeader,
    records: std::vec::IntoIter<Record>,
    /// What comes behind `records`; nothing while it is beside the shard.
    rest: Option<Unfolding>,
    is_last: bool,
}

/// What a slice came to.
pub(crate) enum Progress {
    /// There is more to replay.
    More,
    /// Bytes from [`Load::next_offset`] on are needed.
    Read,
    /// A step of this is needed beside the shard; then [`Load::unfolded`].
    Unfold(Unfolding),
    /// This is the state.
    Done(GroupPartition),
    /// The log cannot be read.
    Failed(String),
}

impl Load {
    /// Begins to read what lies from `start_offset` up to `end_offset`.
    pub(crate) fn new(partition: i32, number: u64, (start_offset, end_offset): (i64, i64)) -> Load {
        Load {
            partition,
            number,
            next_offset: start_offset,
            end_offset,
            unread: Bytes::new(),
            batch: None,
            state: GroupPartition::default(),
            open_transactions: BTreeMap::new(),
            ended: None,
            unknown: 0,
        }
    }

    /// Takes bytes that were read; none mean that nothing is there.
    pub(crate) fn feed(&mut self, batches: Bytes) {
        if batches.is_empty() {
            self.next_offset = self.end_offset;
        }
        self.unread = batches;
    }

    /// Takes what a step gave.
    ///
    /// # Errors
    /// Why the batch cannot be read.
    pub(crate) fn unfolded(&mut self, unfolded: Unfolded) -> Result<(), String> {
        let Unfolded { unfolding, some } = unfolded;
        let some = some.map_err(|error| error.to_string())?;
        if let Some(batch) = &mut self.batch {
            // No coordinator writes records as long as these: they are as unknown ones.
            self.unknown = self.unknown.saturating_add(u64::from(some.passed_over));
            batch.records = some.records.into_iter();
            batch.is_last = some.is_last;
            batch.rest = Some(unfolding);
        }
        Ok(())
    }

    /// Replays some records: few where they are long, for what they name is looked at one by one.
    pub(crate) fn slice(&mut self, now_ms: i64) -> Progress {
        let mut bytes = 0;
        for _ in 0..GROUP_RECORDS_PER_SLICE {
            if bytes >= GROUP_RECORD_BYTES_PER_SLICE {
                return Progress::More;
            }
            if let Some((records, counts)) = &mut self.ended {
                match records.next() {
                    Some(record) if *counts => self.state.replay(&record, now_ms),
                    Some(_) => {}
                    None => self.ended = None,
                }
                continue;
            }
            let Some(batch) = &mut self.batch else {
                match self.next_batch() {
                    Ok(true) => continue,
                    Ok(false) if self.next_offset >= self.end_offset => return self.done(),
                    Ok(false) => return Progress::Read,
                    Err(why) => return Progress::Failed(why),
                }
            };
            let header = batch.header;
            let Some(record) = batch.records.next() else {
                if batch.is_last {
                    self.next_offset = header.next_offset();
                    self.batch = None;
                    continue;
                }
                let Some(rest) = batch.rest.take() else {
                    // A step is on its way.
                    return Progress::More;
                };
                if !rest.is_short(&header) {
                    return Progress::Unfold(rest);
                }
                match self.unfolded(rest.step_here()) {
                    // It may have taken as long as a slice should.
                    Ok(()) => return Progress::More,
                    Err(why) => return Progress::Failed(why),
                }
            };
            bytes += record.value.as_ref().map_or(0, Bytes::len);
            if let Err(why) = self.replay(&header, &record, now_ms) {
                return Progress::Failed(why);
            }
        }
        Progress::More
    }

    fn replay(&mut self, header: &BatchHeader, record: &Record, now_ms: i64) -> Result<(), String> {
        if header.is_control() {
            let marker = ControlRecord::from_record(0, record);
            let marker = marker.ok().and_then(|control| control.end_transaction());
            if let Some(marker) = marker {
                self.end_transaction(header.producer_id, marker.commit);
            }
            return Ok(());
        }
        let Some(key) = &record.key else {
            return Ok(());
        };
        let unpacked = unpack(key, record.value.as_ref());
        let offset = record.offset;
        let unpacked = unpacked.map_err(|error| format!("the record at offset {offset}: {error}"));
        match unpacked? {
            Some(unpacked) if header.is_transactional() => {
                let open = self.open_transactions.entry(header.producer_id);
                let key = Bytes::copy_from_slice(key);
                open.or_default().insert(key, unpacked);
            }
            Some(unpacked) => self.state.replay(&unpacked, now_ms),
            None => self.unknown = self.unknown.saturating_add(1),
        }
        Ok(())
    }

    fn done(&mut self) -> Progress {
        if self.unknown > 0 {
            let (partition, count) = (self.partition, self.unknown);
            tracing::warn!(partition, count, "unknown group records passed over");
        }
        Progress::Done(std::mem::take(&mut self.state))
    }

    /// Turns to the next batch among the bytes read; says whether there was one.
    fn next_batch(&mut self) -> Result<bool, String> {
        if self.unread.is_empty() || self.next_offset >= self.end_offset {
            return Ok(false);
        }
        let header = BatchHeader::peek(&self.unread).map_err(|error| error.to_string())?;
        let bytes = header.size_bytes().min(self.unread.len());
        self.batch = Some(OpenBatch {
            header,
            records: Vec::new().into_iter(),
            rest: Some(Unfolding::of(self.unread.split_to(bytes))),
            is_last: false,
        });
        Ok(true)
    }

    fn end_transaction(&mut self, producer: i64, commit: bool) {
        let records = self.open_transactions.remove(&producer);
        self.ended = records.map(|records| (records.into_values(), commit));
    }
}

#[cfg(test)]
mod tests {
    use chronik_protocol::record::{BatchBuilder, Compression, EndTransactionMarker, NewRecord};
    use chronik_protocol::records_of::{GroupValue, encode_key, encode_value};
    use chronik_protocol::{Str, Uuid};

    use super::*;
    use crate::groups::offsets::CommittedOffset;

    fn commit(group: &'static str, offset: i64) -> GroupRecord {
        let committed = CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: Str::default(),
            commit_timestamp_ms: 1,
            expire_timestamp_ms: None,
            topic_id: Uuid::ZERO,
        };
        committed.record(&Str::from_static(group), &Str::from_static("t"), 0)
    }

    fn transactional(at: i64, producer: i64, record: &GroupRecord) -> Bytes {
        let key = encode_key(&record.key).expect("a key");
        let (value, version) = record.value.as_ref().expect("a value");
        let value = encode_value(value, *version).expect("a value");
        let mut builder = BatchBuilder::new(at)
            .producer(producer, 0, 0)
            .transactional();
        let record = NewRecord {
            timestamp: 1,
            key: Some(&key),
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("it fits");
        builder.build().expect("a batch").bytes
    }

    fn marker(at: i64, producer: i64, commit: bool) -> Bytes {
        let marker = EndTransactionMarker {
            commit,
            coordinator_epoch: 0,
        };
        let mut builder = BatchBuilder::new(at)
            .producer(producer, 0, -1)
            .transactional()
            .control();
        builder
            .push_control(1, &marker.to_record())
            .expect("it fits");
        builder.build().expect("a batch").bytes
    }

    #[test]
    fn offsets_of_transactions_count_when_they_were_committed() {
        // As Kafka leaves them: two transactions, one of which was aborted, and one without an end.
        let log = [
            transactional(0, 1, &commit("kept", 5)),
            transactional(1, 2, &commit("dropped", 6)),
            marker(2, 2, false),
            marker(3, 1, true),
            transactional(4, 3, &commit("open", 7)),
        ];
        let mut load = Load::new(0, 0, (0, 5));
        load.feed(Bytes::from(log.concat()));
        let state = run(&mut load).expect("sound").0;
        let found = |group| state.offsets.get(group, "t", 0).map(|found| found.offset);
        assert_eq!(
            (found("kept"), found("dropped"), found("open")),
            (Some(5), None, None)
        );
    }

    #[test]
    fn a_slice_is_short_where_records_are_long() {
        for (count, metadata_bytes, slices_min) in [(20, 30_000, 9), (1_000, 10, 15)] {
            let mut builder = BatchBuilder::new(0);
            for offset in 0..count {
                let mut record = commit("g", offset);
                let Some((GroupValue::OffsetCommit(value), version)) = &mut record.value else {
                    panic!("a commit");
                };
                value.metadata = Str::from("m".repeat(metadata_bytes));
                let value = GroupValue::OffsetCommit(value.clone());
                let key = encode_key(&record.key).expect("a key");
                let value = encode_value(&value, *version).expect("a value");
                let record = NewRecord {
                    timestamp: 1,
                    key: Some(&key),
                    value: Some(&value),
                    ..NewRecord::default()
                };
                builder.push(&record).expect("it fits");
            }
            let mut load = Load::new(0, 0, (0, count));
            load.feed(builder.build().expect("a batch").bytes);
            let mut slices = 0;
            let state = loop {
                match load.slice(1) {
                    Progress::More => slices += 1,
                    Progress::Done(state) => break state,
                    Progress::Unfold(unfolding) => {
                        load.unfolded(unfolding.step_beside()).expect("sound");
                    }
                    Progress::Read | Progress::Failed(_) => panic!("all was given, and sound"),
                }
            };
            assert!(slices >= slices_min, "{slices} slices of {count} records");
            let found = state.offsets.get("g", "t", 0).map(|found| found.offset);
            assert_eq!(found, Some(count - 1));
        }
    }

    #[test]
    fn the_records_of_a_transaction_are_replayed_in_slices() {
        let groups = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let many = 1_000;
        for commits in [true, false] {
            let mut load = Load::new(0, 0, (0, 1));
            let records = (0..many).map(|n: usize| {
                let record = commit(groups[n % groups.len()], 1);
                (Bytes::from(n.to_be_bytes().to_vec()), record)
            });
            load.open_transactions.insert(7, records.collect());
            load.end_transaction(7, commits);
            load.next_offset = 1;
            let slices = (1..).find(|_| matches!(load.slice(1), Progress::Done(_)));
            assert!(slices >= Some(many / GROUP_RECORDS_PER_SLICE), "{slices:?}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_read_is_not_half_taken() {
        let mut bytes = transactional(0, 1, &commit("g", 5)).to_vec();
        bytes[80] ^= 1;
        let mut load = Load::new(0, 0, (0, 1));
        load.feed(Bytes::from(bytes));
        assert!(run(&mut load).is_err());
    }

    /// Slices until it is done; how many steps were made beside the shard, and what they held at most.
    fn run(load: &mut Load) -> Result<(GroupPartition, usize, usize), String> {
        let (mut beside, mut held) = (0, 0);
        loop {
            match load.slice(1) {
                Progress::More => {}
                Progress::Done(state) => return Ok((state, beside, held)),
                Progress::Read => panic!("all was given"),
                Progress::Failed(why) => return Err(why),
                Progress::Unfold(unfolding) => {
                    let unfolded = unfolding.step_beside();
                    let records = unfolded.some.as_ref().map(|some| &some.records);
                    let values = records.iter().copied().flatten();
                    let bytes = values.filter_map(|record| Some(record.value.as_ref()?.len()));
                    (beside, held) = (beside + 1, bytes.sum::<usize>().max(held));
                    load.unfolded(unfolded)?;
                }
            }
        }
    }

    /// A batch of a few KiB that unfolds to so many records of 1 MiB, under a key nobody knows.
    fn bomb(at: i64, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(at).compression(Compression::Zstd);
        let value = vec![0; 1 << 20];
        for _ in 0..records {
            let record = NewRecord {
                timestamp: 1,
                key: Some(&[0x7f, 0xff]),
                value: Some(&value),
                ..NewRecord::default()
            };
            builder.push(&record).expect("it fits");
        }
        builder.build().expect("a batch").bytes
    }

    #[test]
    fn what_a_batch_unfolds_to_is_never_held_nor_unfolded_on_the_shard() {
        let bomb = bomb(0, 100);
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        let log = [
            bomb,
            transactional(100, 1, &commit("g", 5)),
            marker(101, 1, true),
        ];
        let mut load = Load::new(0, 0, (0, 102));
        load.feed(Bytes::from(log.concat()));
        let (state, beside, held) = run(&mut load).expect("sound");
        assert!(beside >= 100, "{beside}");
        assert!(held <= 3 << 20, "{held}");
        let found = state.offsets.get("g", "t", 0).map(|found| found.offset);
        assert_eq!(found, Some(5));
        assert_eq!(load.unknown, 100);
    }

    #[test]
    fn a_record_longer_than_any_coordinator_writes_is_passed_over() {
        let mut builder = BatchBuilder::new(0).compression(Compression::Gzip);
        let record = NewRecord {
            timestamp: 1,
            key: Some(b"k"),
            value: Some(&vec![0; 33 << 20]),
            ..NewRecord::default()
        };
        builder.push(&record).expect("it fits");
        let bomb = builder.build().expect("a batch").bytes;
        let mut load = Load::new(0, 0, (0, 1));
        load.feed(bomb);
        run(&mut load).map(|_| ()).expect("loaded");
        assert_eq!(load.unknown, 1);
    }
}
