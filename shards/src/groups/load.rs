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
