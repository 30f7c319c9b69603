//! The parser of records for validation, fed in pieces of any size.
//!
//! Holds no record: keys and values are skipped, so that a record may span any number of pieces. Never
//! allocates.

use super::facts::{RECORD_BYTES_MIN, RecordFacts};
use super::varint::PartialVarint;
use super::{BatchError, RecordFault, whole};

/// Bytes of the shortest header: an empty key and a null value.
const HEADER_BYTES_MIN: i64 = 2;

/// The field to read once `skip` bytes are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Length,
    Attributes,
    TimestampDelta,
    OffsetDelta,
    KeyLength,
    ValueLength,
    HeaderCount,
    HeaderKeyLength,
    HeaderValueLength,
    End,
}

/// A parser's position in a stream of records.
#[derive(Debug)]
pub(super) struct RecordParser {
    next: Field,
    /// Bytes of a key or value to skip before `next`.
    skip: i64,
    varint: PartialVarint,
    /// Bytes of the current record still to come, by its length.
    left: i64,
    headers_left: i32,
    facts: RecordFacts,
    records: i32,
    records_declared: i32,
    record_bytes_max: i64,
}

impl RecordParser {
    /// For `record_count` records of at most `record_bytes_max` bytes each.
    pub(super) fn new(record_count: i32, record_bytes_max: usize) -> Self {
        Self {
            next: Field::Length,
            skip: 0,
            varint: PartialVarint::default(),
            left: 0,
            headers_left: 0,
            facts: RecordFacts::default(),
            records: 0,
            records_declared: record_count,
            record_bytes_max: i64::try_from(record_bytes_max).unwrap_or(i64::MAX),
        }
    }

    /// Parses the next piece and calls `visit` with every record that ends in it and its index.
    pub(super) fn push(
        &mut self,
        mut piece: &[u8],
        mut visit: impl FnMut(i32, &RecordFacts) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        loop {
            while let Some((facts, bytes)) = self.whole_record(piece) {
                piece = &piece[bytes..];
                visit(self.records, &facts)?;
                // At most `records_declared`, as below.
                self.records += 1;
            }
            self.pass_over(&mut piece);
            if self.skip > 0 {
                return Ok(());
            }
            if self.next == Field::End {
                if self.left != 0 {
                    return Err(self.fault(RecordFault::BytesAfterFields(self.left)));
                }
                visit(self.records, &self.facts)?;
                // At most `records_declared`, which `read_length` sees to.
                self.records += 1;
                self.next = Field::Length;
            }
            if piece.is_empty() {
                return Ok(());
            }
            self.read_field(&mut piece)?;
        }
    }

    /// Checks that the stream may end here.
    pub(super) fn finish(&self) -> Result<(), BatchError> {
        let inside = self.next != Field::Length || self.varint.is_open();
        if inside || self.records != self.records_declared {
            return Err(BatchError::RecordsMissing {
                declared: self.records_declared,
                found: self.records,
            });
        }
        Ok(())
    }

    /// The fast path: the next record, when the piece holds all of it and it is plainly sound. Nearly all are.
    fn whole_record(&self, piece: &[u8]) -> Option<(RecordFacts, usize)> {
        let between = self.next == Field::Length && !self.varint.is_open();
        if between && self.records < self.records_declared {
            whole::read(piece, self.record_bytes_max)
        } else {
            None
        }
    }

    fn pass_over(&mut self, piece: &mut &[u8]) {
        let there = i64::try_from(piece.len()).unwrap_or(i64::MAX);
        let passed = self.skip.min(there);
        // At most the piece's length, so it fits and the slice is in range.
        *piece = &piece[passed as usize..];
        self.skip -= passed;
        self.left -= passed;
    }

    /// Reads one field, or the part of it that the piece has.
    fn read_field(&mut self, piece: &mut &[u8]) -> Result<(), BatchError> {
        match self.next {
            Field::Length => return self.read_length(piece),
            Field::Attributes => {
                // Record attributes have no meaning yet.
                if self.take_byte(piece)?.is_some() {
                    self.next = Field::TimestampDelta;
                }
            }
            Field::TimestampDelta => {
                let Some(delta) = self.take_i64(piece)? else {
                    return Ok(());
                };
                self.facts.timestamp_delta = delta;
                self.next = Field::OffsetDelta;
            }
            _ => {
                let Some(value) = self.take_i32(piece)? else {
                    return Ok(());
                };
                self.after_i32(value)?;
            }
        }
        Ok(())
    }

    fn read_length(&mut self, piece: &mut &[u8]) -> Result<(), BatchError> {
        if self.records == self.records_declared {
            return Err(BatchError::BytesAfterRecords {
                declared: self.records_declared,
            });
        }
        while let Some((&byte, rest)) = piece.split_first() {
            *piece = rest;
            let length = self.varint.push_i32(byte);
            let Some(length) = length.map_err(|_| self.fault(RecordFault::Varint))? else {
                continue;
            };
            let length = i64::from(length);
            if length < RECORD_BYTES_MIN || length > self.record_bytes_max {
                return Err(self.fault(RecordFault::Length(length)));
            }
            self.left = length;
            self.next = Field::Attributes;
            break;
        }
        Ok(())
    }

    fn after_i32(&mut self, value: i32) -> Result<(), BatchError> {
        match self.next {
            Field::OffsetDelta => {
                self.facts.offset_delta = value;
                self.facts.odd_null = false;
                self.next = Field::KeyLength;
            }
            Field::KeyLength => {
                self.facts.key_is_null = value < 0;
                self.skip_nullable(value)?;
                self.next = Field::ValueLength;
            }
            Field::ValueLength => {
                self.skip_nullable(value)?;
                self.next = Field::HeaderCount;
            }
            Field::HeaderCount => {
                if value < 0 || i64::from(value) * HEADER_BYTES_MIN > self.left {
                    return Err(self.fault(RecordFault::HeaderCount(value)));
                }
                self.headers_left = value;
                self.next = self.next_header();
            }
            Field::HeaderKeyLength => {
                if value < 0 {
                    return Err(self.fault(RecordFault::HeaderKeyLength(value)));
                }
                self.skip_nullable(value)?;
                self.next = Field::HeaderValueLength;
            }
            Field::HeaderValueLength => {
                self.skip_nullable(value)?;
                self.headers_left -= 1;
                self.next = self.next_header();
            }
            Field::Length | Field::Attributes | Field::TimestampDelta | Field::End => {
                unreachable!("not a 32-bit integer")
            }
        }
        Ok(())
    }

    fn next_header(&self) -> Field {
        if self.headers_left == 0 {
            Field::End
        } else {
            Field::HeaderKeyLength
        }
    }

    /// Skips `length` bytes; −1 stands for null, and in Kafka so does any other negative length
    /// (`Utils#readBytes`).
    fn skip_nullable(&mut self, length: i32) -> Result<(), BatchError> {
        self.facts.odd_null |= length < -1;
        self.skip = i64::from(length.max(0));
        if self.skip > self.left {
            return Err(self.fault(RecordFault::FieldBeyondRecord));
        }
        Ok(())
    }

    fn take_i32(&mut self, piece: &mut &[u8]) -> Result<Option<i32>, BatchError> {
        while let Some(byte) = self.take_byte(piece)? {
            let value = self.varint.push_i32(byte);
            if let Some(value) = value.map_err(|_| self.fault(RecordFault::Varint))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn take_i64(&mut self, piece: &mut &[u8]) -> Result<Option<i64>, BatchError> {
        while let Some(byte) = self.take_byte(piece)? {
            let value = self.varint.push_i64(byte);
            if let Some(value) = value.map_err(|_| self.fault(RecordFault::Varint))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Takes one byte of the record; `None` when the piece is used up.
    #[inline]
    fn take_byte(&mut self, piece: &mut &[u8]) -> Result<Option<u8>, BatchError> {
        let Some((byte, rest)) = piece.split_first() else {
            return Ok(None);
        };
        if self.left == 0 {
            return Err(self.fault(RecordFault::FieldBeyondRecord));
        }
        *piece = rest;
        self.left -= 1;
        Ok(Some(*byte))
    }

    fn fault(&self, fault: RecordFault) -> BatchError {
        BatchError::Record {
            index: self.records,
            fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::varint::{put_i32, put_i64};

    fn put_record(out: &mut Vec<u8>, index: i32, random: &mut impl FnMut(u32) -> u32) {
        let mut record = vec![0];
        put_i64(&mut record, i64::from(random(u32::MAX)) << random(31));
        put_i32(&mut record, index);
        for _ in 0..2 {
            match random(200) {
                0..20 => put_i32(&mut record, -1),
                length => {
                    put_i32(&mut record, length as i32);
                    record.resize(record.len() + length as usize, 7);
                }
            }
        }
        let headers = random(4);
        put_i32(&mut record, headers as i32);
        for _ in 0..headers {
            put_i32(&mut record, 3);
            record.extend_from_slice(b"key");
            put_i32(&mut record, random(2) as i32 - 1);
        }
        put_i32(out, record.len() as i32);
        out.extend_from_slice(&record);
    }

    type Seen = (Vec<(i32, RecordFacts)>, Result<(), BatchError>);

    fn parsed(stream: &[u8], count: i32, piece_bytes: usize) -> Seen {
        let mut parser = RecordParser::new(count, 4096);
        let mut seen = Vec::new();
        let mut outcome = Ok(());
        for piece in stream.chunks(piece_bytes) {
            outcome = parser.push(piece, |index, facts| {
                seen.push((index, *facts));
                Ok(())
            });
            if outcome.is_err() {
                return (seen, outcome);
            }
        }
        (seen, outcome.and_then(|()| parser.finish()))
    }

    /// In pieces of one byte no record is whole, so that the fast path is compared with the other.
    #[test]
    fn the_fast_path_agrees_with_the_parser() {
        let mut state = 11_u64;
        let mut random = move |below: u32| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) as u32) % below.max(1)
        };
        let (mut right, mut wrong) = (0, 0);
        for round in 0..20_000 {
            let count = 1 + random(5) as i32;
            let mut stream = Vec::new();
            for index in 0..count {
                put_record(&mut stream, index, &mut random);
            }
            if round % 4 != 0 {
                let at = random(stream.len() as u32) as usize;
                stream[at] = match random(3) {
                    0 => stream[at] ^ 1 << random(8),
                    1 => 0xff,
                    _ => random(256) as u8,
                };
            }
            if round % 8 == 1 {
                stream.truncate(random(stream.len() as u32) as usize);
            }
            let slowly = parsed(&stream, count, 1);
            for piece_bytes in [stream.len().max(1), 64, 300] {
                assert_eq!(parsed(&stream, count, piece_bytes), slowly, "round {round}");
            }
            match slowly.1 {
                Ok(()) => right += 1,
                Err(_) => wrong += 1,
            }
        }
        assert!(
            right > 5_000 && wrong > 2_000,
            "{right} right, {wrong} wrong"
        );
    }
}
