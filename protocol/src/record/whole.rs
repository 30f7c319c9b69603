//! The fast path of [`RecordParser`](super::parser::RecordParser): one record that lies whole in a slice.
//!
//! Judges nothing: a record that is not plainly sound is left to the parser, which names its fault. Never
//! allocates.

use super::facts::{RECORD_BYTES_MIN, RecordFacts};

/// Bytes the longest 32-bit variable-length integer takes.
const VARINT_BYTES_MAX: usize = 5;
/// Bytes the longest 64-bit variable-length integer takes.
const VARLONG_BYTES_MAX: usize = 10;

/// The facts of the record at the front of `piece`, and its bytes with the length. `None` when the record is
/// incomplete, longer than `record_bytes_max` or breaks a rule.
pub(super) fn read(piece: &[u8], record_bytes_max: i64) -> Option<(RecordFacts, usize)> {
    let mut fields = Fields(piece);
    let length = i64::from(fields.i32()?);
    if !(RECORD_BYTES_MIN..=record_bytes_max).contains(&length) {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    let bytes = piece.len() - fields.0.len() + length;
    let mut record = Fields(fields.0.get(..length)?);
    record.skip(1)?;
    let timestamp_delta = record.i64()?;
    let offset_delta = record.i32()?;
    let key_is_null = record.nullable()?;
    record.nullable()?;
    let headers = record.i32()?;
    if headers < 0 {
        return None;
    }
    // Every header takes bytes or ends the loop, whatever count is claimed.
    for _ in 0..headers {
        if record.nullable()? {
            return None;
        }
        record.nullable()?;
    }
    let facts = RecordFacts {
        timestamp_delta,
        offset_delta,
        key_is_null,
        odd_null: false,
    };
    record.0.is_empty().then_some((facts, bytes))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    #[inline]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Skips a key or value; true when it is null.
    #[inline]
    fn nullable(&mut self) -> Option<bool> {
        let length = self.i32()?;
        if length == -1 {
            return Some(true);
        }
        self.skip(usize::try_from(length).ok()?)?;
        Some(false)
    }

    #[inline]
    fn i32(&mut self) -> Option<i32> {
        let value = u32::try_from(self.unsigned(VARINT_BYTES_MAX)?).ok()?;
        Some(((value >> 1) as i32) ^ -((value & 1) as i32))
    }

    #[inline]
    fn i64(&mut self) -> Option<i64> {
        let value = self.unsigned(VARLONG_BYTES_MAX)?;
        Some(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    /// Most of them take one byte or two.
    #[inline]
    fn unsigned(&mut self, bytes_max: usize) -> Option<u64> {
        match *self.0 {
            [first @ 0..0x80, ref rest @ ..] => {
                self.0 = rest;
                Some(u64::from(first))
            }
            [first, second @ 0..0x80, ref rest @ ..] => {
                self.0 = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.longer(bytes_max),
        }
    }

    fn longer(&mut self, bytes_max: usize) -> Option<u64> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(bytes_max).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte of a 64-bit integer has room for one bit.
            if index + 1 == VARLONG_BYTES_MAX && bits > 1 {
                return None;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.skip(index + 1)?;
                return Some(value);
            }
        }
        None
    }
}
