//! Making batches: for the broker's own logs, for clients and for tests.
//!
//! Owns the encoding of new records. Never used between a producer and the log, where batches stay as they
//! came.

use super::batch::batch_length;
use super::{
    Attributes, BatchError, BatchHeader, CheckedBatch, Compression, ControlRecord, MAGIC_V2,
    NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
    varint,
};

/// A record to be put into a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Milliseconds since the epoch, or −1 for none.
    pub timestamp: i64,
    /// The key, if it is not null.
    pub key: Option<&'a [u8]>,
    /// The value, if it is not null.
    pub value: Option<&'a [u8]>,
    /// Keys and values of the headers, in order.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// A batch under construction. Offsets are consecutive; the first record's timestamp is the base.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    level: Option<i32>,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch whose first record will have this offset: 0 from a client.
    pub fn new(base_offset: i64) -> Self {
        let header = BatchHeader {
            base_offset,
            batch_length: 0,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            magic: MAGIC_V2,
            crc: 0,
            attributes: Attributes::default(),
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        Self {
            header,
            compression: Compression::None,
            level: None,
            records: Vec::new(),
        }
    }

    /// Sets the epoch of the leader that appends the batch; −1 at first.
    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.header.partition_leader_epoch = leader_epoch;
        self
    }

    /// Compresses the records, at the codec's default level.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets the codec's level, see [`Compression::compress`].
    #[must_use]
    pub fn compression_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// Makes the batch an idempotent producer's.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_transactional(true);
        self
    }

    /// Makes the batch one of control records.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_control(true);
        self
    }

    /// Records so far.
    pub fn len(&self) -> i32 {
        self.header.record_count
    }

    /// True when there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes of the records so far, before compression.
    pub fn records_bytes(&self) -> usize {
        self.records.len()
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] when a length, the number of records, the offset or the distance of
    /// the timestamp from the first record's would pass what the format can hold. The batch is then unchanged.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let offset_delta = self.header.record_count;
        let base = match offset_delta {
            0 => record.timestamp,
            _ => self.header.base_timestamp,
        };
        let too_large = || BatchError::TooLarge;
        let timestamp_delta = record.timestamp.checked_sub(base).ok_or_else(too_large)?;
        let record_count = offset_delta.checked_add(1).ok_or_else(too_large)?;
        self.header
            .base_offset
            .checked_add(i64::from(offset_delta))
            .ok_or_else(too_large)?;
        put_record(&mut self.records, record, timestamp_delta, offset_delta)?;

        self.header.base_timestamp = base;
        self.header.max_timestamp = self.header.max_timestamp.max(record.timestamp);
        self.header.last_offset_delta = offset_delta;
        self.header.record_count = record_count;
        Ok(())
    }

    /// Adds a control record; see [`BatchBuilder::control`].
    ///
    /// # Errors
    /// As [`BatchBuilder::push`].
    pub fn push_control(
        &mut self,
        timestamp: i64,
        record: &ControlRecord,
    ) -> Result<(), BatchError> {
        self.push(&NewRecord {
            timestamp,
            key: Some(&record.control_type.key()),
            value: Some(&record.value),
            headers: &[],
        })
    }

    /// Compresses the records and seals the batch.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`]; [`BatchError::InvalidCount`] when there is no record;
    /// [`BatchError::Compression`] should the codec fail.
    pub fn build(self) -> Result<CheckedBatch, BatchError> {
        let Self {
            mut header,
            compression,
            level,
            records,
        } = self;
        let BatchHeader {
            record_count,
            last_offset_delta,
            ..
        } = header;
        if record_count == 0 {
            return Err(BatchError::InvalidCount {
                record_count,
                last_offset_delta,
            });
        }
        let records = match compression {
            Compression::None => records,
            codec => codec.compress(level, &records)?,
        };
        header.attributes = header.attributes.with_compression(compression);
        header.batch_length = batch_length(records.len())?;
        Ok(CheckedBatch::assemble(header, &records))
    }
}

/// Appends a record to those of a batch.
///
/// # Errors
/// [`BatchError::TooLarge`] when a length or the batch would pass what the format can hold; `out` is then
/// unchanged.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    record: &NewRecord<'_>,
    timestamp_delta: i64,
    offset_delta: i32,
) -> Result<(), BatchError> {
    let too_large = || BatchError::TooLarge;
    let length = record_length(record, timestamp_delta, offset_delta).ok_or_else(too_large)?;
    let size = (length as usize)
        .checked_add(varint::len_i32(length))
        .ok_or_else(too_large)?;
    batch_length(out.len().checked_add(size).ok_or_else(too_large)?)?;
    out.reserve(size);
    varint::put_i32(out, length);
    out.push(0);
    varint::put_i64(out, timestamp_delta);
    varint::put_i32(out, offset_delta);
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    // `record_length` has checked the count and every length.
    varint::put_i32(out, record.headers.len() as i32);
    for (key, value) in record.headers {
        put_nullable(out, Some(key));
        put_nullable(out, *value);
    }
    Ok(())
}

/// The record's length field; `None` when a part does not fit the format.
fn record_length(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32) -> Option<i32> {
    let mut length = 1_usize
        .checked_add(varint::len_i64(timestamp_delta))?
        .checked_add(varint::len_i32(offset_delta))?
        .checked_add(nullable_length(record.key)?)?
        .checked_add(nullable_length(record.value)?)?
        .checked_add(varint::len_i32(i32::try_from(record.headers.len()).ok()?))?;
    for (key, value) in record.headers {
        length = length
            .checked_add(nullable_length(Some(key))?)?
            .checked_add(nullable_length(*value)?)?;
    }
    i32::try_from(length).ok()
}

fn nullable_length(bytes: Option<&[u8]>) -> Option<usize> {
    let Some(bytes) = bytes else {
        return Some(varint::len_i32(-1));
    };
    varint::len_i32(i32::try_from(bytes.len()).ok()?).checked_add(bytes.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_i32(out, -1),
        Some(bytes) => {
            // `nullable_length` has checked it.
            varint::put_i32(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}
