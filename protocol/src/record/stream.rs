//! The records of one batch, a few at a time, as they leave its codec.
//!
//! Owns the cutting of whole records out of pieces. Holds an incomplete record of bounded length and one piece,
//! besides the codec's state: neither memory nor the length of a step depends on the batch's decompressed size.

use bytes::Bytes;

use super::compression::HeaderChecksum;
use super::legacy::feed::Feed;
use super::varint::PartialVarint;
use super::{
    BatchError, BatchHeader, CheckedBatch, CompressionError, Record, RecordFault, RecordIter,
};

/// Decompressed bytes a batch may have: a segment's limit, since Kafka has none of its own.
const PLAIN_BYTES_MAX: usize = i32::MAX as usize;
/// Bytes a record counts at least in a step: its size as a Rust value.
const RECORD_COST_BYTES: usize = 128;

/// Some of a batch's records.
#[derive(Debug, Default)]
pub struct SomeRecords {
    /// The next records in order.
    pub records: Vec<Record>,
    /// True when no record follows.
    pub is_last: bool,
    /// Records skipped because they were longer than the reader takes.
    pub passed_over: u32,
}

/// A reader of the records of one batch, resumable.
pub struct RecordStream {
    header: BatchHeader,
    feed: Feed,
    records: RecordIter,
    found: i32,
    record_bytes_max: usize,
    /// True when longer records are skipped, false when they are refused.
    passes_over: bool,
    /// Bytes still to skip of the current record.
    skip_bytes: usize,
    passed_over: u32,
}

impl RecordStream {
    /// Reads a stored batch. Records longer than `record_bytes_max` are skipped without being held.
    ///
    /// # Errors
    /// [`BatchError::Compression`].
    pub fn new(batch: &CheckedBatch, record_bytes_max: usize) -> Result<Self, BatchError> {
        let stream = Self::bounded(batch, (PLAIN_BYTES_MAX, record_bytes_max))?;
        Ok(Self {
            passes_over: true,
            ..stream
        })
    }

    /// Reads a batch of bounded decompressed size and record length, both in bytes.
    pub(super) fn bounded(
        batch: &CheckedBatch,
        (bytes_max, record_bytes_max): (usize, usize),
    ) -> Result<Self, CompressionError> {
        let header = batch.header;
        let (codec, input) = (header.compression(), batch.compressed_records());
        Ok(Self {
            header,
            feed: Feed::new(codec, input, bytes_max, HeaderChecksum::Checked)?,
            records: RecordIter::new(&header, Bytes::new()),
            found: 0,
            record_bytes_max,
            passes_over: false,
            skip_bytes: 0,
            passed_over: 0,
        })
    }

    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of memory that hold decompressed data not cut yet.
    pub fn held_bytes(&self) -> usize {
        self.feed.held_bytes()
    }

    /// Returns the next records, about `bytes_budget` decompressed bytes of them. At least one piece of the codec is
    /// read: the result is empty when that piece completes no record.
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Record`], and [`RecordIter`]'s errors about the number of records.
    /// Drop the stream after an error.
    pub fn step(&mut self, bytes_budget: usize) -> Result<SomeRecords, BatchError> {
        let mut some = SomeRecords::default();
        let mut spent = 0_usize;
        while spent < bytes_budget.max(1) {
            if let Some((record, bytes)) = self.next_record()? {
                spent = spent.saturating_add(bytes.max(RECORD_COST_BYTES));
                some.records.push(record);
                continue;
            }
            match self.grow()? {
                0 => {
                    self.finish()?;
                    some.is_last = true;
                    break;
                }
                grown => spent = spent.saturating_add(grown),
            }
        }
        some.passed_over = std::mem::take(&mut self.passed_over);
        Ok(some)
    }

    /// The next complete record in the buffer, and its bytes.
    pub(super) fn next_record(&mut self) -> Result<Option<(Record, usize)>, BatchError> {
        self.skip_bytes -= self.feed.take(self.skip_bytes).len();
        if self.skip_bytes > 0 || self.found == self.header.record_count {
            return Ok(None);
        }
        let index = self.found;
        let fault = |fault| BatchError::Record { index, fault };
        let mut varint = PartialVarint::default();
        let mut length = None;
        for (at, byte) in self.feed.front().iter().enumerate() {
            let value = varint
                .push_i32(*byte)
                .map_err(|_| fault(RecordFault::Varint))?;
            if let Some(value) = value {
                length = Some((at + 1, value));
                break;
            }
        }
        let Some((prefix, length)) = length else {
            return Ok(None);
        };
        let claimed = usize::try_from(length).ok();
        let is_short = |bytes: &usize| *bytes <= self.record_bytes_max || self.passes_over;
        let Some(length) = claimed.filter(is_short) else {
            return Err(fault(RecordFault::Length(i64::from(length))));
        };
        if length > self.record_bytes_max {
            self.feed.take(prefix);
            self.skip_bytes = length;
            self.records.pass_over();
            self.found += 1;
            self.passed_over += 1;
            return self.next_record();
        }
        let whole = prefix.saturating_add(length);
        if whole > self.feed.front().len() {
            return Ok(None);
        }
        self.feed.take(prefix);
        let record = self.records.decode_next(self.feed.take(length))?;
        // Below the header's count.
        self.found += 1;
        Ok(Some((record, whole)))
    }

    /// Fetches one more piece from the codec; returns its length, 0 at the end.
    pub(super) fn grow(&mut self) -> Result<usize, CompressionError> {
        // After the last record nothing is kept, however much would come.
        match self.found == self.header.record_count && self.feed.held_bytes() > 0 {
            true => Ok(0),
            false => self.feed.grow(),
        }
    }

    /// Checks that the records may end here.
    pub(super) fn finish(&self) -> Result<(), BatchError> {
        let (declared, found) = (self.header.record_count, self.found);
        if found != declared || self.skip_bytes > 0 {
            return Err(BatchError::RecordsMissing { declared, found });
        }
        match self.feed.front().is_empty() {
            true => Ok(()),
            false => Err(BatchError::BytesAfterRecords { declared }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Compression, NewRecord, RecordLimits};
    use super::*;

    fn batch(codec: Compression, values: &[Vec<u8>]) -> CheckedBatch {
        let mut builder = BatchBuilder::new(7).compression(codec);
        for value in values {
            let record = NewRecord {
                timestamp: 1,
                value: Some(value),
                ..NewRecord::default()
            };
            builder.push(&record).expect("it fits");
        }
        builder.build().expect("a batch")
    }

    #[test]
    fn every_codec_gives_the_records_of_the_batch_whatever_a_step_is() {
        let values: Vec<Vec<u8>> = (0..300_usize).map(|n| vec![n as u8; n * 37]).collect();
        for codec in Compression::ALL {
            let batch = batch(codec, &values);
            let all = batch.records(&RecordLimits::default()).expect("records");
            let expected: Vec<Record> = all.map(|record| record.expect("sound")).collect();
            for budget in [1, 1_000, 1 << 20] {
                let mut stream = RecordStream::new(&batch, 1 << 20).expect("a stream");
                let mut found = Vec::new();
                loop {
                    let some = stream.step(budget).expect("sound");
                    found.extend(some.records);
                    if some.is_last {
                        break;
                    }
                }
                assert_eq!(found, expected, "{codec}, {budget}");
            }
        }
    }

    #[test]
    fn a_step_holds_little_of_a_batch_that_unfolds_to_much() {
        let values = vec![vec![0; 1 << 20]; 64];
        let bomb = batch(Compression::Zstd, &values);
        assert!(bomb.bytes.len() < 64 << 10);
        let mut stream = RecordStream::new(&bomb, 2 << 20).expect("a stream");
        let (mut found, mut held) = (0, 0);
        loop {
            let some = stream.step(64 << 10).expect("sound");
            let bytes = some
                .records
                .iter()
                .filter_map(|record| record.value.as_ref());
            held = held.max(stream.held_bytes() + bytes.map(Bytes::len).sum::<usize>());
            found += some.records.len();
            if some.is_last {
                break;
            }
        }
        assert_eq!(found, 64);
        assert!(held < 3 << 20, "{held}");
        // Where the length is a rule, a longer record is refused by its length, before it is decompressed.
        let mut stream = RecordStream::bounded(&bomb, (1 << 30, 1 << 20)).expect("a stream");
        let refused = stream.step(64 << 10).expect_err("too long");
        assert!(matches!(
            refused,
            BatchError::Record {
                index: 0,
                fault: RecordFault::Length(_)
            }
        ));
    }

    #[test]
    fn a_record_longer_than_the_reader_takes_is_passed_over_and_not_held() {
        let values = [vec![1; 10], vec![0; 4 << 20], vec![2; 10], vec![0; 2 << 20]];
        for codec in Compression::ALL {
            let batch = batch(codec, &values);
            let mut stream = RecordStream::new(&batch, 1 << 20).expect("a stream");
            let (mut found, mut passed_over, mut held) = (Vec::new(), 0, 0);
            loop {
                let some = stream.step(1).expect("sound");
                held = held.max(stream.held_bytes());
                passed_over += some.passed_over;
                found.extend(some.records.iter().map(|record| record.offset));
                if some.is_last {
                    break;
                }
            }
            assert_eq!((found, passed_over), (vec![7, 9], 2), "{codec}");
            let is_by_block = matches!(codec, Compression::Snappy | Compression::Lz4);
            assert!(held < 1 << 20 || is_by_block, "{codec}: {held}");
        }
    }
}
