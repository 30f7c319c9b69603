//! Reading the groups of one partition back from its log.
//!
//! State only: asks for bytes, is given them, and replays them in slices. A batch that cannot be
//! read ends the loading; the partition's groups are then not served.

use std::collections::BTreeMap;

use bytes::Bytes;
use chronik_protocol::record::{
    BatchHeader, CheckedBatch, ControlRecord, RecordIter, RecordLimits,
};

use super::partition::GroupPartition;
use super::records::{GroupRecord, unpack};
use crate::limits::GROUP_RECORDS_PER_SLICE;

/// A partition whose log is being read.
pub(crate) struct Load {
    pub(crate) partition: i32,
    /// Nothing below is needed any more.
    pub(crate) next_offset: i64,
    end_offset: i64,
    /// Batches that were read and not looked at.
    unread: Bytes,
    batch: Option<(BatchHeader, RecordIter)>,
    state: GroupPartition,
    /// Records of transactions that have not ended, by producer.
    open_transactions: BTreeMap<i64, Vec<GroupRecord>>,
}

/// What a slice came to.
pub(crate) enum Progress {
    /// There is more to replay.
    More,
    /// Bytes from [`Load::next_offset`] on are needed.
    Read,
    /// This is the state.
    Done(GroupPartition),
    /// The log cannot be read.
    Failed(String),
}

impl Load {
    /// Begins to read what lies from `start_offset` up to `end_offset`.
    pub(crate) fn new(partition: i32, start_offset: i64, end_offset: i64) -> Load {
        Load {
            partition,
            next_offset: start_offset,
            end_offset,
            unread: Bytes::new(),
            batch: None,
            state: GroupPartition::default(),
            open_transactions: BTreeMap::new(),
        }
    }

    /// Takes bytes that were read; none mean that nothing is there.
    pub(crate) fn feed(&mut self, batches: Bytes) {
        if batches.is_empty() {
            self.next_offset = self.end_offset;
        }
        self.unread = batches;
    }

    /// Replays some records.
    pub(crate) fn slice(&mut self, now_ms: i64) -> Progress {
        for _ in 0..GROUP_RECORDS_PER_SLICE {
            let Some((header, records)) = &mut self.batch else {
                match self.next_batch() {
                    Ok(true) => continue,
                    Ok(false) if self.next_offset >= self.end_offset => {
                        return Progress::Done(std::mem::take(&mut self.state));
                    }
                    Ok(false) => return Progress::Read,
                    Err(why) => return Progress::Failed(why),
                }
            };
            let header = *header;
            match records.next() {
                None => {
                    self.next_offset = header.next_offset();
                    self.batch = None;
                }
                Some(Ok(record)) if header.is_control() => {
                    let marker = ControlRecord::from_record(0, &record);
                    let marker = marker.ok().and_then(|control| control.end_transaction());
                    if let Some(marker) = marker {
                        self.end_transaction(header.producer_id, marker.commit, now_ms);
                    }
                }
                Some(Ok(record)) => {
                    let Some(key) = &record.key else { continue };
                    match unpack(key, record.value.as_ref()) {
                        Ok(Some(unpacked)) if header.is_transactional() => self
                            .open_transactions
                            .entry(header.producer_id)
                            .or_default()
                            .push(unpacked),
                        Ok(Some(unpacked)) => self.state.replay(&unpacked, now_ms),
                        Ok(None) => {
                            tracing::warn!(
                                offset = record.offset,
                                "unknown group record passed over"
                            );
                        }
                        Err(error) => {
                            return Progress::Failed(format!(
                                "the record at offset {}: {error}",
                                record.offset
                            ));
                        }
                    }
                }
                Some(Err(error)) => return Progress::Failed(error.to_string()),
            }
        }
        Progress::More
    }

    /// Turns to the next batch among the bytes read; says whether there was one.
    fn next_batch(&mut self) -> Result<bool, String> {
        if self.unread.is_empty() || self.next_offset >= self.end_offset {
            return Ok(false);
        }
        let bytes = std::mem::take(&mut self.unread);
        let (batch, rest) = CheckedBatch::parse_first(bytes).map_err(|error| error.to_string())?;
        self.unread = rest;
        let records = batch
            .records(&RecordLimits::default())
            .map_err(|error| error.to_string())?;
        self.batch = Some((batch.header, records));
        Ok(true)
    }

    fn end_transaction(&mut self, producer: i64, commit: bool, now_ms: i64) {
        let records = self.open_transactions.remove(&producer);
        for record in records.into_iter().flatten().filter(|_| commit) {
            self.state.replay(&record, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use chronik_protocol::record::{BatchBuilder, EndTransactionMarker, NewRecord};
    use chronik_protocol::records_of::{encode_key, encode_value};
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
        let mut load = Load::new(0, 0, 5);
        load.feed(Bytes::from(log.concat()));
        let state = loop {
            match load.slice(1) {
                Progress::More => {}
                Progress::Done(state) => break state,
                Progress::Read => panic!("all was given"),
                Progress::Failed(why) => panic!("{why}"),
            }
        };
        let found = |group| state.offsets.get(group, "t", 0).map(|found| found.offset);
        assert_eq!(
            (found("kept"), found("dropped"), found("open")),
            (Some(5), None, None)
        );
    }

    #[test]
    fn a_log_that_cannot_be_read_is_not_half_taken() {
        let mut bytes = transactional(0, 1, &commit("g", 5)).to_vec();
        bytes[80] ^= 1;
        let mut load = Load::new(0, 0, 1);
        load.feed(Bytes::from(bytes));
        assert!(matches!(load.slice(1), Progress::Failed(_)));
    }
}
