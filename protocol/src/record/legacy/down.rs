//! Conversion of stored batches to a message set.
//!
//! Owns the rules of `RecordsUtil#downConvert`: headers are dropped, control batches skipped, codecs kept.
//! Compresses while it reads. Converts no more than the reader asked for, but something if there is anything.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::super::compression::spoil_header_checksum;
use super::super::header::{LENGTH, NO_TIMESTAMP};
use super::super::{
    BatchHeader, CheckedBatch, Compression, CompressionError, LOG_OVERHEAD_BYTES, Record,
    RecordLimits, RecordStream, TimestampType,
};
use super::message::NewMessage;
use super::writer::PacedWriter;
use super::{MessageError, MessageFormat};
use crate::Records;

/// The least a record costs, in bytes of the budget.
const RECORD_COST_BYTES: usize = 64;
/// The size of the pieces that messages are collected in, so that none is copied for growth.
const PIECE_BYTES: usize = 64 * 1024;

/// The result of a conversion.
#[derive(Debug, Default)]
pub struct Converted {
    /// The messages. Those of a compressed batch may begin before the offset asked for, as in Kafka.
    pub records: Records,
    /// The offset after the last batch read: where to go on when the batches had no message for this reader. `None`
    /// when there was no batch.
    pub next_offset: Option<i64>,
}

/// The result of one step.
#[derive(Debug)]
pub enum DownProgress {
    /// Batches remain.
    More,
    /// Everything is converted, or as much as was asked for.
    Done(Converted),
}

/// The conversion of the batches of one partition, resumable.
pub struct DownConversion {
    batches: Batches,
    format: MessageFormat,
    fetch_offset: i64,
    bytes_max: usize,
    limits: RecordLimits,
    batch: Option<OpenBatch>,
    piece: Vec<u8>,
    converted: Converted,
}

/// A batch in progress.
struct OpenBatch {
    stream: RecordStream,
    /// `Some` for a compressed batch.
    wrapper: Option<Wrapper>,
}

/// A compressed message in progress.
struct Wrapper {
    writer: PacedWriter,
    /// Offset of the first record, the base of the relative offsets inside.
    base_offset: Option<i64>,
    last_offset: i64,
    max_timestamp: i64,
}

impl DownConversion {
    /// Converts `records`, whole batches as stored, for a reader of `format` from `fetch_offset` on: at most
    /// `bytes_max` bytes of messages, unless the first alone is larger.
    pub fn new(
        records: Records,
        format: MessageFormat,
        fetch_offset: i64,
        bytes_max: usize,
    ) -> Self {
        Self {
            batches: Batches(records.parts().iter().cloned().collect()),
            format,
            fetch_offset,
            bytes_max,
            limits: RecordLimits::default(),
            batch: None,
            piece: Vec::new(),
            converted: Converted::default(),
        }
    }

    /// Converts about `bytes_budget` more bytes, counted uncompressed; a codec's piece or the checksum of a batch
    /// may overshoot it.
    ///
    /// # Errors
    /// When the first batch to convert cannot be: [`MessageError::Codec`] when it is compressed by zstd, which the
    /// formats lack, [`MessageError::Batch`] when it is damaged. Drop the conversion after an error and when done.
    pub fn step(&mut self, bytes_budget: usize) -> Result<DownProgress, MessageError> {
        let mut spent = 0_usize;
        while spent < bytes_budget.max(1) {
            match self.advance() {
                Ok(Advance::Spent(bytes)) => spent = spent.saturating_add(bytes.max(1)),
                Ok(Advance::End) => return Ok(DownProgress::Done(self.finish())),
                // The reader can use the messages before this batch, and will then ask for it.
                Err(_) if self.output_bytes() > 0 => return Ok(DownProgress::Done(self.finish())),
                Err(error) => return Err(error),
            }
        }
        Ok(DownProgress::More)
    }

    /// Bytes of memory that the record in progress takes, besides the messages made. One record can be as large as
    /// a batch's decompressed data.
    pub fn held_bytes(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| {
            let writer = batch.wrapper.as_ref().map(|wrapper| &wrapper.writer);
            let written = writer.map_or(0, PacedWriter::held_bytes);
            batch.stream.held_bytes().saturating_add(written)
        })
    }

    fn output_bytes(&self) -> usize {
        self.converted
            .records
            .len()
            .saturating_add(self.piece.len())
    }

    fn finish(&mut self) -> Converted {
        self.flush();
        std::mem::take(&mut self.converted)
    }

    fn flush(&mut self) {
        if !self.piece.is_empty() {
            let piece = std::mem::take(&mut self.piece);
            self.converted.records.push(Bytes::from(piece));
        }
    }

    /// True when a message of this size may still be added.
    fn fits(&self, message_bytes: usize) -> bool {
        let output = self.output_bytes();
        output == 0 || output.saturating_add(message_bytes) <= self.bytes_max
    }

    fn advance(&mut self) -> Result<Advance, MessageError> {
        let Some(mut batch) = self.batch.take() else {
            return self.open_next();
        };
        if let Some(wrapper) = &mut batch.wrapper {
            let given = wrapper.writer.pump()?;
            if given > 0 {
                self.batch = Some(batch);
                return Ok(Advance::Spent(given));
            }
        }
        if let Some((record, bytes)) = batch.stream.next_record()? {
            if !self.put(&mut batch, &record)? {
                return Ok(Advance::End);
            }
            self.batch = Some(batch);
            return Ok(Advance::Spent(bytes.saturating_add(RECORD_COST_BYTES)));
        }
        match batch.stream.grow()? {
            0 => self.close(batch),
            grown => {
                self.batch = Some(batch);
                Ok(Advance::Spent(grown))
            }
        }
    }

    fn open_next(&mut self) -> Result<Advance, MessageError> {
        let Some(bytes) = self.batches.next() else {
            return Ok(Advance::End);
        };
        let batch = CheckedBatch::parse(bytes)?;
        let header = batch.header;
        if header.is_control() || header.record_count == 0 {
            self.pass(&header);
            return Ok(Advance::Spent(RECORD_COST_BYTES));
        }
        let codec = header.compression();
        if codec == Compression::Zstd {
            return Err(MessageError::Codec(codec.id()));
        }
        let bounds = (self.limits.decompressed_bytes_max, usize::MAX);
        let stream = RecordStream::bounded(&batch, bounds)?;
        let wrapper = match codec {
            Compression::None => None,
            codec => Some(Wrapper::new(codec)?),
        };
        self.batch = Some(OpenBatch { stream, wrapper });
        Ok(Advance::Spent(RECORD_COST_BYTES))
    }

    fn pass(&mut self, header: &BatchHeader) {
        self.converted.next_offset = Some(header.next_offset());
    }

    /// Adds a record's message; false without room for it.
    fn put(&mut self, batch: &mut OpenBatch, record: &Record) -> Result<bool, MessageError> {
        let mut message = NewMessage {
            format: self.format,
            offset: record.offset,
            codec: Compression::None.id(),
            timestamp_type: batch.stream.header().timestamp_type(),
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
        };
        if let Some(wrapper) = &mut batch.wrapper {
            let base_offset = *wrapper.base_offset.get_or_insert(record.offset);
            wrapper.last_offset = record.offset;
            wrapper.max_timestamp = wrapper.max_timestamp.max(record.timestamp);
            if self.format == MessageFormat::V1 {
                message.offset = record.offset.saturating_sub(base_offset);
            }
            message.put(wrapper.writer.next_record())?;
            return Ok(true);
        }
        // Uncompressed, earlier messages are left out: some versions of librdkafka rely on not getting them.
        if record.offset < self.fetch_offset {
            return Ok(true);
        }
        let fits = message.size_bytes().is_some_and(|bytes| self.fits(bytes));
        if fits {
            message.put(&mut self.piece)?;
            if self.piece.len() >= PIECE_BYTES {
                self.flush();
            }
        }
        Ok(fits)
    }

    fn close(&mut self, batch: OpenBatch) -> Result<Advance, MessageError> {
        let OpenBatch { stream, wrapper } = batch;
        stream.finish()?;
        let header = *stream.header();
        if let Some(wrapper) = wrapper {
            let (front, value) = wrapper.close(self.format, &header)?;
            if !self.fits(front.len().saturating_add(value.len())) {
                return Ok(Advance::End);
            }
            self.flush();
            self.converted.records.push(Bytes::from(front));
            self.converted.records.push(Bytes::from(value));
        }
        self.pass(&header);
        Ok(Advance::Spent(RECORD_COST_BYTES))
    }
}

enum Advance {
    Spent(usize),
    End,
}

impl Wrapper {
    fn new(codec: Compression) -> Result<Self, CompressionError> {
        Ok(Self {
            writer: PacedWriter::new(codec, None)?,
            base_offset: None,
            last_offset: 0,
            max_timestamp: NO_TIMESTAMP,
        })
    }

    /// Splits the finished message: the bytes up to its value, and the value.
    fn close(
        mut self,
        format: MessageFormat,
        header: &BatchHeader,
    ) -> Result<(Vec<u8>, Vec<u8>), MessageError> {
        let mut value = self.writer.take()?;
        let codec = header.compression();
        if codec == Compression::Lz4 && format == MessageFormat::V0 {
            spoil_header_checksum(&mut value);
        }
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => self.max_timestamp,
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        let message = NewMessage {
            format,
            offset: self.last_offset,
            codec: codec.id(),
            timestamp_type: header.timestamp_type(),
            timestamp,
            key: None,
            value: Some(&value),
        };
        let mut front = Vec::new();
        message.put_before_value(&mut front)?;
        Ok((front, value))
    }
}

/// Cuts whole batches out of parts that may be cut anywhere.
struct Batches(VecDeque<Bytes>);

impl Batches {
    /// The next whole batch; `None` at the end and before an incomplete or malformed one.
    fn next(&mut self) -> Option<Bytes> {
        let mut front = [0; LOG_OVERHEAD_BYTES];
        let all = self.0.iter().flat_map(|part| part.iter());
        let mut filled = 0;
        for (place, byte) in front.iter_mut().zip(all) {
            *place = *byte;
            filled += 1;
        }
        let [a, b, c, d] = *front.get(LENGTH)?.first_chunk()?;
        let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).ok()?;
        let size = LOG_OVERHEAD_BYTES.saturating_add(length);
        (filled == LOG_OVERHEAD_BYTES).then(|| self.take(size))?
    }

    fn take(&mut self, count: usize) -> Option<Bytes> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        if let Some(first) = self.0.front_mut()
            && first.len() >= count
        {
            return Some(first.split_to(count));
        }
        let available: usize = self.0.iter().map(Bytes::len).sum();
        if available < count {
            return None;
        }
        let mut joined = BytesMut::with_capacity(count);
        while joined.len() < count {
            let part = self.0.front_mut()?;
            let wanted = part.len().min(count - joined.len());
            joined.extend_from_slice(&part.split_to(wanted));
            if part.is_empty() {
                self.0.pop_front();
            }
        }
        Some(joined.freeze())
    }
}
