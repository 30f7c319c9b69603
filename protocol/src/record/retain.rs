//! A stored batch with fewer records, as compaction leaves it.
//!
//! Owns the encoding of the records retained. Offsets, producer and sequence stay as written, so that followers
//! and producer state see the same batch (`MemoryRecords#filterTo`). Never decides which records stay.

use super::batch::batch_length;
use super::varint;
use super::{
    BATCH_HEADER_BYTES, BatchError, CheckedBatch, Compression, NO_TIMESTAMP, Record, TimestampType,
};

impl CheckedBatch {
    /// The batch without any record: offsets and producer remain.
    #[must_use]
    pub fn without_records(&self) -> Self {
        let mut header = self.header;
        header.attributes = header
            .attributes
            .with_compression(Compression::None)
            .with_delete_horizon(false);
        header.base_timestamp = NO_TIMESTAMP;
        header.record_count = 0;
        header.batch_length = (BATCH_HEADER_BYTES - super::LOG_OVERHEAD_BYTES) as i32;
        Self::assemble(header, &[])
    }

    /// The batch with only `records`, in order, under its own codec.
    ///
    /// With `delete_horizon_ms` the header carries the time from which tombstones and markers may go (KIP-534).
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] when the batch would pass its format;
    /// [`BatchError::Compression`] should the codec fail.
    pub fn with_records(
        &self,
        records: &[Record],
        delete_horizon_ms: Option<i64>,
    ) -> Result<Self, BatchError> {
        let Some(first) = records.first() else {
            return Ok(self.without_records());
        };
        let mut header = self.header;
        header.base_timestamp = delete_horizon_ms.unwrap_or(first.timestamp);
        let mut plain = Vec::with_capacity(self.bytes.len());
        for record in records {
            put_record(
                &mut plain,
                record,
                header.base_offset,
                header.base_timestamp,
            )?;
        }
        let codec = header.compression();
        let records_bytes = match codec {
            Compression::None => plain,
            codec => codec.compress(None, &plain)?,
        };
        header.attributes = header
            .attributes
            .with_delete_horizon(delete_horizon_ms.is_some());
        if header.timestamp_type() == TimestampType::CreateTime {
            let greatest = records.iter().map(|record| record.timestamp).max();
            header.max_timestamp = greatest.unwrap_or(NO_TIMESTAMP);
        }
        header.record_count = i32::try_from(records.len()).map_err(|_| BatchError::TooLarge)?;
        header.batch_length = batch_length(records_bytes.len())?;
        Ok(Self::assemble(header, &records_bytes))
    }
}

/// Encodes a decoded record again. The timestamp delta wraps, as it does for readers.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    record: &Record,
    base_offset: i64,
    base_timestamp: i64,
) -> Result<(), BatchError> {
    let timestamp_delta = record.timestamp.wrapping_sub(base_timestamp);
    let offset_delta = record
        .offset
        .checked_sub(base_offset)
        .ok_or(BatchError::TooLarge)?;
    let offset_delta = i32::try_from(offset_delta).map_err(|_| BatchError::TooLarge)?;
    let (count, headers) = record.headers.encoded();
    let count = i32::try_from(count).map_err(|_| BatchError::TooLarge)?;
    let length = 1
        + varint::len_i64(timestamp_delta)
        + varint::len_i32(offset_delta)
        + nullable_length(record.key.as_deref())?
        + nullable_length(record.value.as_deref())?
        + varint::len_i32(count)
        + headers.len();
    varint::put_i32(
        out,
        i32::try_from(length).map_err(|_| BatchError::TooLarge)?,
    );
    out.push(0);
    varint::put_i64(out, timestamp_delta);
    varint::put_i32(out, offset_delta);
    put_nullable(out, record.key.as_deref());
    put_nullable(out, record.value.as_deref());
    varint::put_i32(out, count);
    out.extend_from_slice(headers);
    Ok(())
}

fn nullable_length(bytes: Option<&[u8]>) -> Result<usize, BatchError> {
    let Some(bytes) = bytes else {
        return Ok(varint::len_i32(-1));
    };
    let length = i32::try_from(bytes.len()).map_err(|_| BatchError::TooLarge)?;
    Ok(varint::len_i32(length) + bytes.len())
}

pub(super) fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_i32(out, -1),
        Some(bytes) => {
            // `nullable_length` has checked it.
            varint::put_i32(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, NewRecord, RecordLimits};
    use super::*;

    fn batch(codec: Compression) -> CheckedBatch {
        let mut builder = BatchBuilder::new(70)
            .leader_epoch(3)
            .producer(5, 1, 40)
            .compression(codec);
        for n in 0..6_u8 {
            let key = [b'k', n % 3];
            let record = NewRecord {
                timestamp: 1_700_000_000_000 + i64::from(n) * 1000,
                key: Some(&key),
                value: (n != 4).then_some(b"value"),
                headers: &[(b"h", Some(b"x")), (b"h", None)],
            };
            builder.push(&record).expect("small");
        }
        builder.build().expect("valid")
    }

    fn records(batch: &CheckedBatch) -> Vec<Record> {
        let records = batch
            .records(&RecordLimits::default())
            .expect("decompresses");
        records.map(|record| record.expect("sound")).collect()
    }

    #[test]
    fn what_stays_keeps_offsets_times_headers_and_the_batchs_place() {
        for codec in Compression::ALL {
            let whole = batch(codec);
            let mut kept = records(&whole);
            kept.remove(5);
            kept.remove(0);
            for horizon in [None, Some(1_800_000_000_000)] {
                let less = whole.with_records(&kept, horizon).expect("encodes");
                let read = CheckedBatch::parse(less.bytes.clone()).expect("sound");
                assert_eq!(read, less);
                assert_eq!(records(&read), kept, "{codec}");
                let (was, is) = (whole.header, read.header);
                assert_eq!(is.delete_horizon_ms(), horizon);
                assert_eq!(is.max_timestamp, was.max_timestamp - 1000);
                assert_eq!((is.record_count, is.compression()), (4, codec));
                let place = |h: crate::record::BatchHeader| {
                    let producer = (h.producer_id, h.producer_epoch, h.base_sequence);
                    (
                        h.base_offset,
                        h.last_offset(),
                        h.partition_leader_epoch,
                        producer,
                    )
                };
                assert_eq!(place(is), place(was));
            }
        }
    }

    #[test]
    fn an_empty_batch_says_which_it_was() {
        let whole = batch(Compression::Zstd);
        let empty = whole.without_records();
        let read = CheckedBatch::parse(empty.bytes).expect("sound");
        assert_eq!(read.bytes.len(), BATCH_HEADER_BYTES);
        assert!(records(&read).is_empty());
        assert_eq!(read.header.last_offset(), 75);
        assert_eq!(read.header.last_sequence(), 45);
        assert_eq!(read.header.max_timestamp, whole.header.max_timestamp);
        assert_eq!(
            whole.with_records(&[], Some(9)).expect("encodes"),
            whole.without_records()
        );
    }
}
