//! Leader epochs' ends, and deleting records below an offset.
//!
//! Part of the partition's state, on its shard; nothing here waits for anything.

use chronik_io::World;
use chronik_log::epochs::{UNDEFINED_EPOCH, UNDEFINED_OFFSET};
use chronik_protocol::ErrorCode;
use chronik_terms::{DeleteRecordsPart, DeleteRecordsResult, EpochAnswer, EpochQuery};

use super::{Partition, PartitionEvent};

/// "Up to the high watermark", in DeleteRecords.
const HIGH_WATERMARK: i64 = -1;

impl<W: World> Partition<W> {
    /// Where the largest epoch not above the asked one ends (KIP-101, KIP-320).
    pub fn epoch_end(&self, query: &EpochQuery) -> EpochAnswer {
        let answer = |error, leader_epoch, end_offset| EpochAnswer {
            error,
            leader_epoch,
            end_offset,
        };
        if let Err(code) = self.check_epoch(query.current_leader_epoch) {
            return answer(code, UNDEFINED_EPOCH, UNDEFINED_OFFSET);
        }
        let (epoch, end) = self
            .epochs
            .end_offset_for(query.leader_epoch, self.log_end());
        answer(ErrorCode::None, epoch, end)
    }

    /// Moves the log start up to an offset (KIP-107) and removes segments that lie below it as a
    /// whole. A [`PartitionEvent::LogStart`] is pushed when it moved; answer once that is durable.
    ///
    /// Codes: OFFSET_OUT_OF_RANGE, POLICY_VIOLATION (a compacted topic), KAFKA_STORAGE_ERROR.
    pub fn delete_records(
        &mut self,
        part: &DeleteRecordsPart,
        events: &mut Vec<PartitionEvent>,
    ) -> DeleteRecordsResult {
        let policy = self.config.cleanup_policy;
        let offset = if part.offset == HIGH_WATERMARK {
            self.high_watermark
        } else {
            part.offset
        };
        let error = if !self.is_online() {
            ErrorCode::KafkaStorageError
        } else if policy.compact && !policy.delete {
            ErrorCode::PolicyViolation
        } else if offset < 0 || offset > self.high_watermark {
            ErrorCode::OffsetOutOfRange
        } else {
            ErrorCode::None
        };
        if error != ErrorCode::None {
            return DeleteRecordsResult {
                error,
                low_watermark: -1,
            };
        }
        if offset > self.log_start {
            self.move_log_start(offset, events);
        }
        DeleteRecordsResult {
            error,
            low_watermark: self.log_start,
        }
    }

    /// Moves the log's start forward, whoever wanted it.
    pub(super) fn move_log_start(&mut self, offset: i64, events: &mut Vec<PartitionEvent>) {
        if offset <= self.log_start {
            return;
        }
        self.log_start = offset;
        self.epochs_to_save |= self.epochs.truncate_from_start(offset);
        self.remove_below_log_start();
        events.push(PartitionEvent::LogStart(offset));
    }

    pub(super) fn remove_below_log_start(&mut self) {
        while self
            .sealed
            .front()
            .is_some_and(|segment| segment.next_offset <= self.log_start)
        {
            if let Some(segment) = self.sealed.pop_front() {
                self.layout += 1;
                self.removal.add(segment);
            }
        }
    }
}
