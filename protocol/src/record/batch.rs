//! A record batch, checked once and kept intact.
//!
//! Owns the way from bytes to `CheckedBatch` and the few rewrites a broker makes. Never decodes a record itself:
//! see `RecordsValidator` and `RecordIter`.

use bytes::{Bytes, BytesMut};

use super::header::{BASE_OFFSET, CRC, CRC_START, LEADER_EPOCH, LENGTH};
use super::{
    BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, BatchError, BatchHeader, Compression, RecordIter,
    RecordLimits, RecordsSummary, RecordsValidator, TimestampType, ValidationProgress,
};

/// One batch of magic 2 whose length, CRC, codec, offsets and record count agree.
///
/// The records themselves are unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    /// The header, read from `bytes`.
    pub header: BatchHeader,
    /// The whole batch, exactly [`BatchHeader::size_bytes`] long.
    pub bytes: Bytes,
}

impl CheckedBatch {
    /// Checks `bytes`, which must be exactly one batch.
    ///
    /// # Errors
    /// Any header error of [`BatchHeader::peek`]; [`BatchError::Truncated`],
    /// [`BatchError::BytesAfterBatch`], [`BatchError::CrcMismatch`], [`BatchError::InvalidOffsets`],
    /// [`BatchError::InvalidCount`].
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let (batch, rest) = Self::parse_first(bytes)?;
        match rest.len() {
            0 => Ok(batch),
            count => Err(BatchError::BytesAfterBatch { count }),
        }
    }

    /// Checks the batch at the front of `bytes`; returns it and the bytes after it.
    ///
    /// # Errors
    /// As [`CheckedBatch::parse`], except that bytes may follow.
    pub fn parse_first(mut bytes: Bytes) -> Result<(Self, Bytes), BatchError> {
        let header = BatchHeader::peek(&bytes)?;
        let needed = header.size_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Truncated {
                needed,
                available: bytes.len(),
            });
        }
        let rest = bytes.split_off(needed);
        check(&header, &bytes)?;
        Ok((Self { header, bytes }, rest))
    }

    /// The first 16 bytes as the log stores them: `base_offset`, the length, `leader_epoch`.
    ///
    /// The CRC covers none of them, so assigning offsets leaves the rest untouched. Write these bytes, then
    /// [`CheckedBatch::body`].
    pub fn prefix(&self, base_offset: i64, leader_epoch: i32) -> [u8; BATCH_PREFIX_BYTES] {
        let mut prefix = [0; BATCH_PREFIX_BYTES];
        prefix[BASE_OFFSET].copy_from_slice(&base_offset.to_be_bytes());
        prefix[LENGTH].copy_from_slice(&self.header.batch_length.to_be_bytes());
        prefix[LEADER_EPOCH].copy_from_slice(&leader_epoch.to_be_bytes());
        prefix
    }

    /// Everything after the first 16 bytes, stored as received.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(BATCH_PREFIX_BYTES..)
    }

    /// The records, compressed as the header says.
    pub fn compressed_records(&self) -> Bytes {
        self.bytes.slice(BATCH_HEADER_BYTES..)
    }

    /// A copy with another base offset and leader epoch.
    #[must_use]
    pub fn with_offsets(&self, base_offset: i64, leader_epoch: i32) -> Self {
        let mut header = self.header;
        header.base_offset = base_offset;
        header.partition_leader_epoch = leader_epoch;
        let mut bytes = BytesMut::with_capacity(self.bytes.len());
        bytes.extend_from_slice(&self.prefix(base_offset, leader_epoch));
        bytes.extend_from_slice(&self.bytes[BATCH_PREFIX_BYTES..]);
        Self {
            header,
            bytes: bytes.freeze(),
        }
    }

    /// A copy whose records all have the time of the append, `now_ms` since the epoch
    /// (`message.timestamp.type=LogAppendTime`). The records' own timestamps stay but no longer count.
    #[must_use]
    pub fn with_log_append_time(&self, now_ms: i64) -> Self {
        self.with_timestamps(TimestampType::LogAppendTime, now_ms)
    }

    /// A copy with `max_timestamp_ms` (ms since the epoch) in its header and the timestamp type CreateTime.
    ///
    /// For a producer whose header has a wrong maximum ([`RecordsSummary`]), which would mislead the time index.
    #[must_use]
    pub fn with_max_timestamp(&self, max_timestamp_ms: i64) -> Self {
        self.with_timestamps(TimestampType::CreateTime, max_timestamp_ms)
    }

    fn with_timestamps(&self, timestamp_type: TimestampType, max_timestamp_ms: i64) -> Self {
        let mut header = self.header;
        header.attributes = header.attributes.with_timestamp_type(timestamp_type);
        header.max_timestamp = max_timestamp_ms;
        Self::assemble(header, &self.bytes[BATCH_HEADER_BYTES..])
    }

    /// A batch of the same records under another codec (`compression.type` of the topic).
    ///
    /// `level` as for [`Compression::compress`]. At most `limits.decompressed_bytes_max` bytes are
    /// decompressed; the records are not validated.
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::TooLarge`].
    pub fn recompressed(
        &self,
        compression: Compression,
        level: Option<i32>,
        limits: &RecordLimits,
    ) -> Result<Self, BatchError> {
        let plain = self
            .header
            .compression()
            .decompress_bounded(&self.compressed_records(), limits.decompressed_bytes_max)?;
        let records = compression.compress(level, &plain)?;
        let mut header = self.header;
        header.attributes = header.attributes.with_compression(compression);
        header.batch_length = batch_length(records.len())?;
        Ok(Self::assemble(header, &records))
    }

    /// Assembles a batch; every header field is final but the CRC.
    pub(super) fn assemble(mut header: BatchHeader, records: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(header.size_bytes());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(records);
        header.crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[CRC].copy_from_slice(&header.crc.to_be_bytes());
        debug_assert_eq!(bytes.len(), header.size_bytes());
        Self {
            header,
            bytes: bytes.freeze(),
        }
    }

    /// Validates every record in one go. A shard that must not be blocked steps a [`RecordsValidator`] instead.
    ///
    /// # Errors
    /// As [`RecordsValidator::step`].
    pub fn validate_records(&self, limits: &RecordLimits) -> Result<RecordsSummary, BatchError> {
        let mut validator = RecordsValidator::new(self, *limits)?;
        loop {
            if let ValidationProgress::Done(summary) = validator.step(usize::MAX)? {
                return Ok(summary);
            }
        }
    }

    /// The records, decompressed (at most `limits.decompressed_bytes_max` bytes) but not yet decoded.
    ///
    /// Reads stored batches, too: compaction may have removed records, so offsets need only ascend. Of `limits`,
    /// only the decompressed size counts here.
    ///
    /// # Errors
    /// [`BatchError::Compression`]; a faulty record is the iterator's error.
    pub fn records(&self, limits: &RecordLimits) -> Result<RecordIter, BatchError> {
        let plain = self
            .header
            .compression()
            .decompress_bounded(&self.compressed_records(), limits.decompressed_bytes_max)?;
        Ok(RecordIter::new(&self.header, plain))
    }
}

/// CRC-32C (Castagnoli) of `bytes`: the checksum of batches and of Kafka's producer snapshots.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The length field of a batch with this many bytes of records.
pub(super) fn batch_length(records_bytes: usize) -> Result<i32, BatchError> {
    const AFTER_LENGTH: usize = BATCH_HEADER_BYTES - super::LOG_OVERHEAD_BYTES;
    records_bytes
        .checked_add(AFTER_LENGTH)
        .and_then(|length| i32::try_from(length).ok())
        .ok_or(BatchError::TooLarge)
}

/// Checks what needs more than the header. `bytes` is the whole batch, at least 61 bytes.
pub(super) fn check(header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchError> {
    check_crc(header, crc32c::crc32c(&bytes[CRC_START..]))?;
    check_counts(header)
}

/// The check of a batch too long to be held, read in pieces.
#[derive(Clone, Debug)]
pub struct BatchCheck {
    header: BatchHeader,
    crc: u32,
    /// Bytes seen, from the batch's first one on.
    seen: usize,
}

impl BatchCheck {
    /// Starts with the batch's header.
    pub fn new(header: BatchHeader) -> Self {
        Self {
            header,
            crc: 0,
            seen: 0,
        }
    }

    /// Takes the next piece; the first one begins with the batch. Bytes past the batch's end do not count.
    pub fn push(&mut self, piece: &[u8]) {
        let left = self.header.size_bytes().saturating_sub(self.seen);
        let piece = piece.get(..left.min(piece.len())).unwrap_or_default();
        let uncovered = CRC_START.saturating_sub(self.seen).min(piece.len());
        self.seen += piece.len();
        self.crc = crc32c::crc32c_append(self.crc, &piece[uncovered..]);
    }

    /// The verdict on the whole batch, as [`scan`](super::scan()) gives it.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] when pieces are missing; [`BatchError::CrcMismatch`],
    /// [`BatchError::InvalidOffsets`], [`BatchError::InvalidCount`].
    pub fn finish(&self) -> Result<(), BatchError> {
        let needed = self.header.size_bytes();
        if self.seen < needed {
            return Err(BatchError::Truncated {
                needed,
                available: self.seen,
            });
        }
        check_crc(&self.header, self.crc)?;
        check_counts(&self.header)
    }
}

fn check_crc(header: &BatchHeader, computed: u32) -> Result<(), BatchError> {
    if computed == header.crc {
        return Ok(());
    }
    Err(BatchError::CrcMismatch {
        stored: header.crc,
        computed,
    })
}

fn check_counts(header: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader {
        base_offset,
        last_offset_delta,
        record_count,
        ..
    } = *header;
    if last_offset_delta < 0
        || base_offset
            .checked_add(i64::from(last_offset_delta))
            .is_none()
    {
        return Err(BatchError::InvalidOffsets {
            base_offset,
            last_offset_delta,
        });
    }
    // Compaction can leave any number of the records that the offsets span.
    if record_count < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
        return Err(BatchError::InvalidCount {
            record_count,
            last_offset_delta,
        });
    }
    Ok(())
}
