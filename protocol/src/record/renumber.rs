//! A producer's batch written anew as it should have been: offsets that follow each other, nulls of
//! length −1.
//!
//! Owns that one rewrite. Kafka stores such records as they came (`LogValidator` looks at offset
//! deltas behind a codec only, `Utils#readBytes` takes any negative length for null); here consumers
//! are given what they can read. Never decides whether a batch is taken.

use super::batch::batch_length;
use super::retain::put_record;
use super::{BatchError, CheckedBatch, Compression, RecordIter, RecordLimits, TimestampType};

impl CheckedBatch {
    /// The same records, numbered from the base offset on, under the codec `compression` with `level`
    /// as for [`Compression::compress`]; their own timestamps count. For a batch whose summary says
    /// that it is odd. At most `limits.decompressed_bytes_max` bytes are decompressed.
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::TooLarge`]; what is wrong with a record.
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
