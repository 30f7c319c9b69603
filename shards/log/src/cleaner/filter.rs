//! What stays of a batch when its log is compacted.
//!
//! Pure rules, by one round of cleaning: `Cleaner#cleanInto` and `#shouldRetainRecord`, with
//! `MemoryRecords#filterTo` about delete horizons. Does no I/O and keeps no state but that of
//! transactions, which the caller lends.

use crate::producer_state::LastBatch;
use std::collections::BTreeMap;
use std::rc::Rc;

use chronik_protocol::record::{
    BatchHeader, CheckedBatch, ControlRecord, ControlType, Record, RecordLimits,
};

use super::offset_map::OffsetMap;
use super::transactions::Transactions;

/// Bytes one batch may decompress to.
pub(super) const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Bytes of the one record of a batch that ends a transaction, at most.
const MARKER_BYTES_MAX: usize = 4 << 10;

/// What holds for one round.
#[derive(Clone)]
pub struct Rules {
    /// The last offset of each key.
    pub map: Rc<OffsetMap>,
    /// When the round began, ms since the epoch.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: u64,
    /// By producer id.
    pub last_batches: Rc<BTreeMap<i64, LastBatch>>,
}

/// What is known of a batch before its records are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// None of its records stays.
    pub(super) drops_records: bool,
    /// Without records it stays as an empty batch.
    pub(super) stays_empty: bool,
    /// A marker whose transaction is gone: it may go too, some time later.
    ends_nothing: bool,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stays as it is.
    Whole,
    /// Some of its records stay; tombstones and markers among them may go from then on.
    Less {
        delete_horizon_ms: Option<i64>,
    },
    /// It stays without records.
    Empty,
    Gone,
}

impl Rules {
    /// Judges a batch; `is_last` when nothing but it tells where the segment that is written ends.
    pub(super) fn judge(
        &self,
        batch: &CheckedBatch,
        transactions: &mut Transactions,
        is_last: bool,
    ) -> Judgement {
        let header = &batch.header;
        let (ends_nothing, drops_records) = if header.is_control() {
            // An empty control batch has lost its marker, and with it any say.
            let kind = control_type(batch);
            let nothing = kind.is_none_or(|kind| transactions.ends_nothing(header, kind));
            let due = header
                .delete_horizon_ms()
                .is_some_and(|horizon| horizon <= self.now_ms);
            (nothing && kind.is_some(), nothing && due)
        } else {
            (false, transactions.is_aborted(header))
        };
        Judgement {
            drops_records,
            stays_empty: is_last || self.is_last_of_producer(header),
            ends_nothing,
        }
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        if !header.has_producer() {
            return false;
        }
        let Some(last) = self.last_batches.get(&header.producer_id) else {
            return false;
        };
        match last.data_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        }
    }

    /// Whether a record stays.
    pub(super) fn keeps(&self, header: &BatchHeader, record: &Record) -> bool {
        if header.is_control() || record.offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = &record.key else {
            // From before the topic was compacted; nothing can refer to it.
            return false;
        };
        let is_newest = self
            .map
            .get(key)
            .is_none_or(|newest| record.offset >= newest);
        let horizon = header.delete_horizon_ms();
        let tombstone_stays = horizon.is_none_or(|horizon| self.now_ms < horizon);
        is_newest && (record.value.is_some() || tombstone_stays)
    }

    /// What becomes of a batch when these of its records stay.
    pub(super) fn outcome(
        &self,
        header: &BatchHeader,
        judgement: Judgement,
        kept: &[Record],
    ) -> Outcome {
        if kept.is_empty() {
            return match judgement.stays_empty {
                true if header.record_count == 0 => Outcome::Whole,
                true => Outcome::Empty,
                false => Outcome::Gone,
            };
        }
        let horizon = header.delete_horizon_ms();
        let tombstones = !header.is_control() && kept.iter().any(|r| r.value.is_none());
        let begins_to_wait = horizon.is_none() && (tombstones || judgement.ends_nothing);
        let all = usize::try_from(header.record_count).is_ok_and(|all| all == kept.len());
        if all && !begins_to_wait {
            return Outcome::Whole;
        }
        let retention_ms = i64::try_from(self.delete_retention_ms).unwrap_or(i64::MAX);
        let from_now = self.now_ms.saturating_add(retention_ms);
        Outcome::Less {
            delete_horizon_ms: match begins_to_wait {
                true => Some(from_now),
                false => horizon,
            },
        }
    }
}

/// What the marker in a control batch announces; `None` when there is none any more.
pub(super) fn control_type(batch: &CheckedBatch) -> Option<ControlType> {
    // A marker has a few bytes, and this is on the shard.
    let limits = RecordLimits {
        decompressed_bytes_max: MARKER_BYTES_MAX,
        ..RecordLimits::default()
    };
    let record = batch.records(&limits).ok()?.next()?.ok()?;
    let marker = ControlRecord::from_record(0, &record).ok()?;
    Some(marker.control_type)
}
