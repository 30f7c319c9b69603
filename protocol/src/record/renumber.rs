//! Rewrites a producer's odd batch: consecutive offsets, nulls of length −1.
//!
//! Kafka stores such records as they came (`LogValidator` checks offset deltas of compressed batches only,
//! `Utils#readBytes` takes any negative length for null); here consumers get records they can read. Never
//! decides whether a batch is accepted.

use super::batch::batch_length;
use super::retain::put_record;
use super::{BatchError, CheckedBatch, Compression, RecordIter, RecordLimits, TimestampType};

impl CheckedBatch {
    /// The same records, numbered from the base offset on, under the codec `compression` with `level` as for
    /// The same records, numbered from the base offset on, under the codec `compression` with `level` as for
    /// [`Compression::compress`]; their own timestamps count. For a batch whose `RecordsSummary::odd` is true. At
    /// most `limits.decompressed_bytes_max` bytes are decompressed.
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::TooLarge`], and the faults of a record.
    pub fn renumbered(
        &self,
        compression: Compression,
        level: Option<i32>,
        limits: &RecordLimits,
    ) -> Result<Self, BatchError> {
        let mut header = self.header;
        let plain = header
            .compression()
            .decompress_bounded(&self.compressed_records(), limits.decompressed_bytes_max)?;
        header.attributes = header
            .attributes
            .with_timestamp_type(TimestampType::CreateTime)
            .with_compression(compression);
        let mut records = Vec::with_capacity(plain.len());
        for record in RecordIter::numbering(&header, plain) {
            let mut record = record?;
            record.headers = record.headers.canonical();
            put_record(
                &mut records,
                &record,
                header.base_offset,
                header.base_timestamp,
            )?;
        }
        let records = match compression {
            Compression::None => records,
            codec => codec.compress(level, &records)?,
        };
        header.batch_length = batch_length(records.len())?;
        Ok(Self::assemble(header, &records))
    }
}
