//! Conversion of a message set to one batch of magic 2.
//!
//! Owns `LogValidator`'s rules for messages and their conversion to records. Compresses while it reads, so that
//! the batch's limit also bounds the memory, whatever a wrapper decompresses to.

use bytes::Bytes;

use super::super::builder::put_record;
use super::super::compression::HeaderChecksum;
use super::super::header::{
    MAGIC_V2, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP,
};
use super::super::{
    Attributes, BATCH_HEADER_BYTES, BatchError, BatchHeader, CheckedBatch, Compression, NewRecord,
    RecordFault, RecordLimits, RefusedRecords, TimestampType, batch::batch_length,
};
use super::feed::Feed;
use super::message::{self, Message};
use super::writer::PacedWriter;
use super::{MessageError, MessageFormat, MessageSet};

/// The least a message costs, in bytes of the budget.
const MESSAGE_COST_BYTES: usize = 64;

/// The rules of a conversion.
#[derive(Clone, Copy, Debug)]
pub struct UpRules {
    /// The codec of the batch.
    pub compression: Compression,
    /// As for [`Compression::compress`].
    pub level: Option<i32>,
    /// The topic's rules for records. The timestamp bounds apply where the messages' own timestamps are kept.
    pub limits: RecordLimits,
    /// The time of the append, ms since the epoch, where it replaces the messages' own
    /// (`message.timestamp.type=LogAppendTime`).
    pub append_time_ms: Option<i64>,
    /// Bytes the batch may have (`max.message.bytes`).
    pub batch_bytes_max: usize,
}

/// The result of one step.
#[derive(Debug)]
pub enum UpProgress {
    /// Messages remain.
    More,
    /// The batch: base offset 0, no producer, one record for each message.
    Done(CheckedBatch),
}

/// The conversion of one message set, resumable.
pub struct UpConversion {
    feed: Feed,
    format: MessageFormat,
    wrapper: Option<Wrapper>,
    rules: UpRules,
    header: BatchHeader,
    writer: PacedWriter,
    /// Records that break a rule: later messages are checked, but no longer written.
    refused: RefusedRecords,
    messages: i32,
}

/// The fields of a wrapper that count for the messages inside.
struct Wrapper {
    offset: i64,
    timestamp_type: TimestampType,
    timestamp: i64,
    last_inner_offset: i64,
}

impl UpConversion {
    /// Opens the set.
    ///
    /// # Errors
    /// [`MessageError::Fields`], [`MessageError::WrapperEmpty`], [`MessageError::Batch`] with a
    /// compression error.
    pub fn new(set: MessageSet, rules: UpRules) -> Result<Self, MessageError> {
        let MessageSet {
            messages,
            format,
            codec,
        } = set;
        let (input, wrapper) = match codec {
            Compression::None => (messages, None),
            _ => {
                let message = Message::read(messages)?;
                let wrapper = Wrapper {
                    offset: message.offset,
                    timestamp_type: message.timestamp_type(),
                    timestamp: message.timestamp,
                    last_inner_offset: 0,
                };
                (
                    message.value.ok_or(MessageError::WrapperEmpty)?,
                    Some(wrapper),
                )
            }
        };
        let checksum = match format {
            MessageFormat::V0 => HeaderChecksum::Ignored,
            MessageFormat::V1 => HeaderChecksum::Checked,
        };
        let feed = Feed::new(codec, input, rules.limits.decompressed_bytes_max, checksum)?;
        let writer = PacedWriter::new(rules.compression, rules.level)?;
        Ok(Self {
            feed,
            format,
            wrapper,
            rules,
            header: empty_header(&rules),
            writer,
            refused: RefusedRecords::default(),
            messages: 0,
        })
    }

    /// Converts about `bytes_budget` more bytes, counted uncompressed; a codec's piece or the checksum of a message
    /// may overshoot it.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`], [`MessageError::Size`], [`MessageError::Magic`],
    /// [`MessageError::CrcMismatch`], [`MessageError::MixedFormats`], [`MessageError::Nested`],
    /// [`MessageError::InnerIncomplete`], [`MessageError::WrapperEmpty`],
    /// [`MessageError::WrapperOffset`], [`MessageError::Fields`], [`MessageError::Batch`]. Drop the conversion after
    /// an error and when done.
    pub fn step(&mut self, bytes_budget: usize) -> Result<UpProgress, MessageError> {
        let mut spent = 0_usize;
        while spent < bytes_budget.max(1) {
            let given = self.writer.pump()?;
            if given > 0 {
                self.check_size()?;
                spent = spent.saturating_add(given);
                continue;
            }
            if let Some(message) = self.next_message()? {
                spent = spent
                    .saturating_add(MESSAGE_COST_BYTES)
                    .saturating_add(message.len());
                self.append(message)?;
                continue;
            }
            match self.feed.grow()? {
                0 => return self.finish().map(UpProgress::Done),
                grown => spent = spent.saturating_add(grown),
            }
        }
        Ok(UpProgress::More)
    }

    /// Bytes of memory that the message in progress takes, besides the batch made. One message can be as large as a
    /// wrapper's decompressed data.
    pub fn held_bytes(&self) -> usize {
        self.feed
            .held_bytes()
            .saturating_add(self.writer.held_bytes())
    }

    /// The next complete message in the buffer.
    fn next_message(&mut self) -> Result<Option<Bytes>, MessageError> {
        let front = match message::front(self.feed.front()) {
            // Kafka reports another magic than the wrapper's, whatever it is.
            Err(MessageError::Magic(_)) if self.wrapper.is_some() => {
                return Err(MessageError::MixedFormats);
            }
            front => front?,
        };
        let Some(front) = front.filter(|front| front.size_bytes <= self.feed.front().len()) else {
            return Ok(None);
        };
        if front.format != self.format {
            return Err(MessageError::MixedFormats);
        }
        Ok(Some(self.feed.take(front.size_bytes)))
    }

    fn append(&mut self, bytes: Bytes) -> Result<(), MessageError> {
        if self.wrapper.is_some() {
            // Messages outside a wrapper were checked with their set.
            message::check_crc(&bytes)?;
        }
        let message = Message::read(bytes)?;
        let index = self.messages;
        self.messages = index.checked_add(1).ok_or(BatchError::TooLarge)?;
        let (timestamp_type, timestamp) = match &mut self.wrapper {
            None => (message.timestamp_type(), message.timestamp),
            Some(_) if message.codec() != 0 => return Err(MessageError::Nested),
            Some(wrapper) => {
                wrapper.last_inner_offset = message.offset;
                match (self.format, wrapper.timestamp_type) {
                    (MessageFormat::V1, TimestampType::LogAppendTime) => {
                        (TimestampType::LogAppendTime, wrapper.timestamp)
                    }
                    _ => (TimestampType::CreateTime, message.timestamp),
                }
            }
        };
        let key_is_null = message.key.is_none();
        if let Some(fault) = fault(&self.rules, key_is_null, timestamp_type, timestamp) {
            let listed_max = self.rules.limits.refused_listed_max;
            self.refused.add(index, fault, listed_max);
        }
        if self.refused.count > 0 {
            return Ok(());
        }
        let timestamp = self.rules.append_time_ms.unwrap_or(timestamp);
        if index == 0 {
            self.header.base_timestamp = timestamp;
        }
        let record = NewRecord {
            timestamp,
            key: message.key.as_deref(),
            value: message.value.as_deref(),
            headers: &[],
        };
        let delta = timestamp
            .checked_sub(self.header.base_timestamp)
            .ok_or(BatchError::TooLarge)?;
        put_record(self.writer.next_record(), &record, delta, index)?;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.last_offset_delta = index;
        self.header.record_count = self.messages;
        Ok(())
    }

    fn check_size(&self) -> Result<(), MessageError> {
        let batch_bytes = self
            .writer
            .output_bytes()
            .saturating_add(BATCH_HEADER_BYTES);
        match batch_bytes > self.rules.batch_bytes_max {
            true => Err(MessageError::TooLarge {
                limit_bytes: self.rules.batch_bytes_max,
            }),
            false => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<CheckedBatch, MessageError> {
        if !self.feed.front().is_empty() {
            return Err(MessageError::InnerIncomplete);
        }
        if self.messages == 0 {
            return Err(MessageError::WrapperEmpty);
        }
        if let Some(wrapper) = &self.wrapper
            && self.format == MessageFormat::V1
            // Certain versions of librdkafka leave it at 0.
            && wrapper.offset != 0
            && wrapper.offset < wrapper.last_inner_offset
        {
            return Err(MessageError::WrapperOffset {
                offset: wrapper.offset,
                last_inner_offset: wrapper.last_inner_offset,
            });
        }
        std::mem::take(&mut self.refused).into_result()?;
        let records = self.writer.take()?;
        self.header.batch_length = batch_length(records.len())?;
        if self.header.size_bytes() > self.rules.batch_bytes_max {
            return Err(MessageError::TooLarge {
                limit_bytes: self.rules.batch_bytes_max,
            });
        }
        Ok(CheckedBatch::assemble(self.header, &records))
    }
}

/// The topic's rule that a message breaks (`LogValidator#validateRecord`).
fn fault(
    rules: &UpRules,
    key_is_null: bool,
    timestamp_type: TimestampType,
    timestamp: i64,
) -> Option<RecordFault> {
    if key_is_null && rules.limits.keys_required {
        return Some(RecordFault::NullKey);
    }
    let own_time = rules.append_time_ms.is_none();
    if own_time && timestamp != NO_TIMESTAMP {
        let accepted = rules.limits.timestamp_ms_min..=rules.limits.timestamp_ms_max;
        // A timestamp below −1 is none: Kafka cannot convert such a message, nor would any client read it.
        return (timestamp < NO_TIMESTAMP || !accepted.contains(&timestamp))
            .then_some(RecordFault::TimestampOutOfRange(timestamp));
    }
    (timestamp_type == TimestampType::LogAppendTime).then_some(RecordFault::TimestampType)
}

fn empty_header(rules: &UpRules) -> BatchHeader {
    let timestamp_type = match rules.append_time_ms {
        Some(_) => TimestampType::LogAppendTime,
        None => TimestampType::CreateTime,
    };
    BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        magic: MAGIC_V2,
        crc: 0,
        attributes: Attributes::default()
            .with_compression(rules.compression)
            .with_timestamp_type(timestamp_type),
        last_offset_delta: -1,
        base_timestamp: NO_TIMESTAMP,
        max_timestamp: NO_TIMESTAMP,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        base_sequence: NO_SEQUENCE,
        record_count: 0,
    }
}
