//! The records of one batch, decoded one by one as slices of it.
//!
//! Owns the decoding of keys, values and headers. Never copies a key or a value, and never allocates for a
//! length a record claims.

use bytes::{Buf, Bytes};

use super::retain::put_nullable;
use super::varint::PartialVarint;
use super::{BatchError, BatchHeader, RecordFault, TimestampType};

/// One decoded record. Keys, values and headers are slices of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's offset in its partition.
    pub offset: i64,
    /// Milliseconds since the epoch, −1 without: the producer's, or the append's where the batch has LogAppendTime.
    pub timestamp: i64,
    /// The key, if it is not null.
    pub key: Option<Bytes>,
    /// The value, if it is not null.
    pub value: Option<Bytes>,
    /// The headers in the producer's order, repeated keys and all.
    pub headers: Headers,
}

/// A record's headers: a list, not a map, since a key may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Well-formed, as [`RecordIter`] checked; decoded again on iteration.
    encoded: Bytes,
    count: usize,
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key. UTF-8 from any sound producer, though nothing enforces it.
    pub key: Bytes,
    /// The value, if it is not null.
    pub value: Option<Bytes>,
}

impl Headers {
    /// The number of headers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of headers, and their bytes in the record.
    pub(super) fn encoded(&self) -> (usize, &[u8]) {
        (self.count, &self.encoded)
    }

    /// The same headers, every null written as −1.
    pub(super) fn canonical(&self) -> Headers {
        let mut encoded = Vec::with_capacity(self.encoded.len());
        for header in self.iter() {
            put_nullable(&mut encoded, Some(&header.key));
            put_nullable(&mut encoded, header.value.as_deref());
        }
        Headers {
            encoded: encoded.into(),
            count: self.count,
        }
    }

    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = Header> + use<> {
        let mut fields = Fields(self.encoded.clone());
        (0..self.count).map_while(move |_| fields.header().ok())
    }
}

/// Gives the records of one batch in order; made by [`super::CheckedBatch::records`].
///
/// Ends after the first error.
#[derive(Clone, Debug)]
pub struct RecordIter {
    rest: Bytes,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    /// The timestamp of every record, where the broker set it.
    append_time: Option<i64>,
    declared: i32,
    found: i32,
    /// The smallest offset delta the next record may have.
    offset_delta_min: i32,
    /// True when offsets follow from the order of the records, not from their deltas.
    numbers: bool,
    failed: bool,
}

impl RecordIter {
    /// Over `plain`, the decompressed records of the batch with this header.
    pub(super) fn new(header: &BatchHeader, plain: Bytes) -> Self {
        let append_time = match header.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        Self {
            rest: plain,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            base_timestamp: header.base_timestamp,
            append_time,
            declared: header.record_count,
            found: 0,
            offset_delta_min: 0,
            numbers: false,
            failed: false,
        }
    }

    /// As `new`, but each record's offset is its predecessor's plus one.
    pub(super) fn numbering(header: &BatchHeader, plain: Bytes) -> Self {
        Self {
            numbers: true,
            ..Self::new(header, plain)
        }
    }

    fn decode(&mut self) -> Result<Record, RecordFault> {
        let mut fields = Fields(std::mem::take(&mut self.rest));
        let length = i64::from(fields.i32()?);
        let record = match usize::try_from(length) {
            Ok(length) if length <= fields.0.len() => Fields(fields.0.split_to(length)),
            _ => return Err(RecordFault::Length(length)),
        };
        self.rest = fields.0;
        self.decode_fields(record)
    }

    /// The next record, whose bytes after the length are `bytes`.
    pub(super) fn decode_next(&mut self, bytes: Bytes) -> Result<Record, BatchError> {
        let index = self.found;
        let record = self.decode_fields(Fields(bytes));
        self.found = self.found.saturating_add(1);
        record.map_err(|fault| BatchError::Record { index, fault })
    }

    /// Skips the next record unread.
    pub(super) fn pass_over(&mut self) {
        self.found = self.found.saturating_add(1);
        self.offset_delta_min = self.offset_delta_min.saturating_add(1);
    }

    fn decode_fields(&mut self, mut record: Fields) -> Result<Record, RecordFault> {
        // Record attributes have no meaning yet.
        record
            .0
            .try_get_u8()
            .map_err(|_| RecordFault::FieldBeyondRecord)?;
        let timestamp_delta = record.i64()?;
        let mut offset_delta = record.i32()?;
        let key = record.nullable()?;
        let value = record.nullable()?;
        let headers = record.headers()?;
        let timestamp = self.timestamp(timestamp_delta);
        let expected = self.offset_delta_min;
        if self.numbers {
            offset_delta = expected;
        }
        if offset_delta < expected || offset_delta > self.last_offset_delta {
            return Err(RecordFault::OffsetDelta {
                expected,
                found: offset_delta,
            });
        }
        self.offset_delta_min = offset_delta.saturating_add(1);
        // `CheckedBatch` has checked that the last offset is in range.
        let offset = self.base_offset.saturating_add(i64::from(offset_delta));
        Ok(Record {
            offset,
            timestamp,
            key,
            value,
            headers,
        })
    }

    /// Wraps where base and delta pass the 64-bit range, as in Java.
    fn timestamp(&self, delta: i64) -> i64 {
        self.append_time
            .unwrap_or_else(|| self.base_timestamp.wrapping_add(delta))
    }

    fn end(&self) -> Option<BatchError> {
        let declared = self.declared;
        match (self.found == declared, self.rest.is_empty()) {
            (true, true) => None,
            (true, false) => Some(BatchError::BytesAfterRecords { declared }),
            (false, _) => Some(BatchError::RecordsMissing {
                declared,
                found: self.found,
            }),
        }
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = if self.found == self.declared || self.rest.is_empty() {
            Err(self.end()?)
        } else {
            let index = self.found;
            self.decode()
                .map_err(|fault| BatchError::Record { index, fault })
        };
        match item {
            Ok(_) => self.found += 1,
            Err(_) => self.failed = true,
        }
        Some(item)
    }
}

/// A cursor over the fields of one record.
struct Fields(Bytes);

impl Fields {
    fn i32(&mut self) -> Result<i32, RecordFault> {
        let mut partial = PartialVarint::default();
        for (at, byte) in self.0.iter().enumerate() {
            if let Some(value) = partial.push_i32(*byte).map_err(|_| RecordFault::Varint)? {
                self.0.advance(at + 1);
                return Ok(value);
            }
        }
        Err(RecordFault::FieldBeyondRecord)
    }

    fn i64(&mut self) -> Result<i64, RecordFault> {
        let mut partial = PartialVarint::default();
        for (at, byte) in self.0.iter().enumerate() {
            if let Some(value) = partial.push_i64(*byte).map_err(|_| RecordFault::Varint)? {
                self.0.advance(at + 1);
                return Ok(value);
            }
        }
        Err(RecordFault::FieldBeyondRecord)
    }

    /// A key or value; every negative length stands for null, as for Kafka.
    fn nullable(&mut self) -> Result<Option<Bytes>, RecordFault> {
        match usize::try_from(self.i32()?) {
            Ok(bytes) if bytes <= self.0.len() => Ok(Some(self.0.split_to(bytes))),
            Ok(_) => Err(RecordFault::FieldBeyondRecord),
            Err(_) => Ok(None),
        }
    }

    fn header(&mut self) -> Result<Header, RecordFault> {
        let key = self.nullable()?;
        let key = key.ok_or(RecordFault::HeaderKeyLength(-1))?;
        let value = self.nullable()?;
        Ok(Header { key, value })
    }

    /// The rest of the record: headers of two bytes or more each.
    fn headers(&mut self) -> Result<Headers, RecordFault> {
        let declared = self.i32()?;
        let count = match usize::try_from(declared) {
            Ok(count) if count <= self.0.len() / 2 => count,
            _ => return Err(RecordFault::HeaderCount(declared)),
        };
        let encoded = self.0.clone();
        for _ in 0..count {
            self.header()?;
        }
        match self.0.len() {
            0 => Ok(Headers { encoded, count }),
            // A record's length is below 2 GiB.
            left => Err(RecordFault::BytesAfterFields(left as i64)),
        }
    }
}
