//! The writer: from values to a scatter list.
//!
//! Small values gather in one buffer; byte strings of [`PART_BYTES_MIN`] and more stay parts
//! of their own, so that a Fetch response never copies a record batch. The parts are cut out
//! of the one buffer at the end, without copying it.

use super::{EncodeError, Structure};
use crate::{Records, Str, Uuid};
use bytes::{BufMut, Bytes};
use std::ops::RangeInclusive;

/// Byte strings at least this long are not copied. One page: below it a copy is cheaper than
/// one more element in the socket's gather list.
pub const PART_BYTES_MIN: usize = 4096;

/// Bytes of a sentence beside an error code at most. The sentence quotes client text of up to 32,767 bytes: with
/// the words around it, it would not fit a string.
pub const SENTENCE_BYTES_MAX: usize = 2048;

/// Writes values in order.
#[derive(Debug, Default)]
pub struct Writer {
    small: Vec<u8>,
    /// Large parts, each with its place in `small`.
    large: Vec<(usize, Bytes)>,
    large_bytes: usize,
}

macro_rules! number {
    ($(#[$doc:meta] $put:ident $ty:ty;)*) => { $(
        #[$doc]
        #[inline]
        pub fn $put(&mut self, value: $ty) {
            self.small.extend_from_slice(&value.to_be_bytes());
        }
    )* };
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty writer with room for `bytes` of small values.
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer {
            small: Vec::with_capacity(bytes),
            ..Writer::default()
        }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.small.len() + self.large_bytes
    }

    /// True when nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything written, in order, large parts uncopied.
    pub fn into_parts(self) -> Vec<Bytes> {
        let mut small = Bytes::from(self.small);
        let mut parts = Vec::with_capacity(self.large.len() * 2 + 1);
        let mut taken = 0;
        for (place, part) in self.large {
            if place > taken {
                parts.push(small.split_to(place - taken));
                taken = place;
            }
            parts.push(part);
        }
        if !small.is_empty() {
            parts.push(small);
        }
        parts
    }

    /// Everything written as one piece; copies when there is a large part.
    pub fn into_bytes(self) -> Bytes {
        if self.large.is_empty() {
            return Bytes::from(self.small);
        }
        let mut joined = Vec::with_capacity(self.len());
        for part in self.into_parts() {
            joined.extend_from_slice(&part);
        }
        Bytes::from(joined)
    }

    /// Refuses versions the codec does not have.
    ///
    /// # Errors
    /// [`EncodeError::UnsupportedVersion`].
    pub fn check_version(
        &self,
        message: &'static str,
        version: i16,
        known: RangeInclusive<i16>,
    ) -> Result<(), EncodeError> {
        match known.contains(&version) {
            true => Ok(()),
            false => Err(EncodeError::UnsupportedVersion { message, version }),
        }
    }

    number! {
        /// An 8-bit integer.
        put_i8 i8;
        /// A big-endian 16-bit integer.
        put_i16 i16;
        /// A big-endian unsigned 16-bit integer.
        put_u16 u16;
        /// A big-endian 32-bit integer.
        put_i32 i32;
        /// A big-endian unsigned 32-bit integer.
        put_u32 u32;
        /// A big-endian 64-bit integer.
        put_i64 i64;
        /// A big-endian IEEE 754 number.
        put_f64 f64;
    }

    /// One byte, 0 or 1.
    #[inline]
    pub fn put_bool(&mut self, value: bool) {
        self.small.push(u8::from(value));
    }

    /// Sixteen bytes.
    #[inline]
    pub fn put_uuid(&mut self, value: Uuid) {
        self.small.extend_from_slice(&value.0.to_be_bytes());
    }

    /// Bytes without a length in front.
    #[inline]
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
    }

    /// Bytes without a length in front; not copied when there are many.
    pub fn put_part(&mut self, part: &Bytes) {
        if part.len() < PART_BYTES_MIN {
            self.small.extend_from_slice(part);
        } else {
            self.large.push((self.small.len(), part.clone()));
            self.large_bytes += part.len();
        }
    }

    /// An unsigned variable-length integer.
    #[inline]
    pub fn put_uvarint(&mut self, value: u32) {
        self.put_uvarlong(u64::from(value));
    }

    /// A zigzag variable-length integer.
    #[inline]
    pub fn put_varint(&mut self, value: i32) {
        self.put_uvarint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// A zigzag variable-length integer of 64 bits.
    #[inline]
    pub fn put_varlong(&mut self, value: i64) {
        self.put_uvarlong(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn put_uvarlong(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.small.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.small.push(value.to_le_bytes()[0]);
    }

    /// A string; `compact` chooses the length's form.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] beyond 32,767 bytes.
    pub fn put_str(
        &mut self,
        field: &'static str,
        compact: bool,
        value: &Str,
    ) -> Result<(), EncodeError> {
        let length = value.len();
        let short = i16::try_from(length).map_err(|_| EncodeError::TooLong { field, length })?;
        match compact {
            true => self.put_uvarint(u32::from(short.unsigned_abs()) + 1),
            false => self.put_i16(short),
        }
        self.small.extend_from_slice(value.as_bytes());
        Ok(())
    }

    /// A string that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Writer::put_str`], and [`EncodeError::NullNotAllowed`].
    pub fn put_optional_str(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        value: Option<&Str>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.put_str(field, compact, value),
            None if !nullable => Err(EncodeError::NullNotAllowed { field }),
            None if compact => {
                self.put_uvarint(0);
                Ok(())
            }
            None => {
                self.put_i16(-1);
                Ok(())
            }
        }
    }

    /// A sentence for people. Of one longer than [`SENTENCE_BYTES_MAX`] the middle is left out, where the quoted
    /// name or value stands.
    ///
    /// # Errors
    /// As [`Writer::put_str`].
    pub fn put_sentence(
        &mut self,
        field: &'static str,
        compact: bool,
        value: &Str,
    ) -> Result<(), EncodeError> {
        match shortened(value) {
            Some(short) => self.put_str(field, compact, &short),
            None => self.put_str(field, compact, value),
        }
    }

    /// As [`Writer::put_sentence`], of a field that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Writer::put_optional_str`].
    pub fn put_optional_sentence(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        value: Option<&Str>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.put_sentence(field, compact, value),
            None => self.put_optional_str(field, compact, nullable, None),
        }
    }

    /// A byte string; `compact` chooses the length's form.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] beyond 2³¹ − 1 bytes.
    pub fn put_bytes(
        &mut self,
        field: &'static str,
        compact: bool,
        value: &Bytes,
    ) -> Result<(), EncodeError> {
        self.put_length(field, compact, value.len())?;
        self.put_part(value);
        Ok(())
    }

    /// A byte string that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Writer::put_bytes`], and [`EncodeError::NullNotAllowed`].
    pub fn put_optional_bytes(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        value: Option<&Bytes>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.put_bytes(field, compact, value),
            None => self.put_null(field, compact, nullable),
        }
    }

    /// Record batches, part by part.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] beyond 2³¹ − 1 bytes.
    pub fn put_records(
        &mut self,
        field: &'static str,
        compact: bool,
        value: &Records,
    ) -> Result<(), EncodeError> {
        self.put_length(field, compact, value.len())?;
        for part in value.parts() {
            self.put_part(part);
        }
        Ok(())
    }

    /// Record batches that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Writer::put_records`], and [`EncodeError::NullNotAllowed`].
    pub fn put_optional_records(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        value: Option<&Records>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.put_records(field, compact, value),
            None => self.put_null(field, compact, nullable),
        }
    }

    /// An array whose elements `put` writes.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] beyond 2³¹ − 1 elements, and what `put` returns.
    pub fn put_array<T>(
        &mut self,
        field: &'static str,
        compact: bool,
        elements: &[T],
        mut put: impl FnMut(&mut Writer, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.put_length(field, compact, elements.len())?;
        elements.iter().try_for_each(|element| put(self, element))
    }

    /// An array that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Writer::put_array`], and [`EncodeError::NullNotAllowed`].
    pub fn put_optional_array<T>(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        elements: Option<&[T]>,
        put: impl FnMut(&mut Writer, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match elements {
            Some(elements) => self.put_array(field, compact, elements, put),
            None => self.put_null(field, compact, nullable),
        }
    }

    /// A structure behind a byte that is negative for null (KIP-893) when `nullable`.
    ///
    /// # Errors
    /// What the structure's encoder returns, and [`EncodeError::NullNotAllowed`].
    pub fn put_optional_struct<T: Structure>(
        &mut self,
        field: &'static str,
        nullable: bool,
        value: Option<&T>,
        version: i16,
    ) -> Result<(), EncodeError> {
        match value {
            None if !nullable => return Err(EncodeError::NullNotAllowed { field }),
            _ if !nullable => {}
            Some(_) => self.put_i8(1),
            None => self.put_i8(-1),
        }
        value.map_or(Ok(()), |value| value.encode(self, version))
    }

    /// A nullable structure among the tagged fields: zero in front means null.
    ///
    /// # Errors
    /// What the structure's encoder returns.
    pub fn put_tagged_struct<T: Structure>(
        &mut self,
        value: Option<&T>,
        version: i16,
    ) -> Result<(), EncodeError> {
        self.put_uvarint(u32::from(value.is_some()));
        value.map_or(Ok(()), |value| value.encode(self, version))
    }

    /// Leaves one byte for a size; returns its place and the length behind it.
    pub(super) fn put_size_placeholder(&mut self) -> (usize, usize) {
        let size_at = self.small.len();
        self.small.push(0);
        (size_at, self.len())
    }

    /// Puts the size of all bytes written since into the placeholder, which widens when one byte is too few.
    /// (Sizes are rarely over 127: moving the tail then costs less than measuring every value before writing it.)
    pub(super) fn fill_size(&mut self, size_at: usize, len_before: usize) {
        let mut size = Writer::new();
        size.put_uvarlong((self.len() - len_before) as u64);
        let more = size.small.len() - 1;
        for (place, _) in self.large.iter_mut().filter(|(place, _)| *place > size_at) {
            *place += more;
        }
        self.small.splice(size_at..=size_at, size.small);
    }

    /// Overwrites four bytes that were written before, at `place` of the small values.
    pub(crate) fn patch_i32(&mut self, place: usize, value: i32) {
        if let Some(mut bytes) = self.small.get_mut(place..) {
            bytes.put_i32(value);
        }
    }

    fn put_length(
        &mut self,
        field: &'static str,
        compact: bool,
        length: usize,
    ) -> Result<(), EncodeError> {
        let value = i32::try_from(length).map_err(|_| EncodeError::TooLong { field, length })?;
        match compact {
            true => self.put_uvarint(value.unsigned_abs() + 1),
            false => self.put_i32(value),
        }
        Ok(())
    }

    fn put_null(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
    ) -> Result<(), EncodeError> {
        match (nullable, compact) {
            (false, _) => return Err(EncodeError::NullNotAllowed { field }),
            (true, true) => self.put_uvarint(0),
            (true, false) => self.put_i32(-1),
        }
        Ok(())
    }
}

/// `sentence` without its middle; `None` when it is short enough.
fn shortened(sentence: &str) -> Option<Str> {
    const GAP: &str = " … ";
    const HALF: usize = (SENTENCE_BYTES_MAX - GAP.len()) / 2;
    if sentence.len() <= SENTENCE_BYTES_MAX {
        return None;
    }
    let begin = &sentence[..sentence.floor_char_boundary(HALF)];
    let end = &sentence[sentence.ceil_char_boundary(sentence.len() - HALF)..];
    Some(Str::from([begin, GAP, end].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_long_sentence_is_left_out() {
        let fits = "é".repeat(SENTENCE_BYTES_MAX / 2);
        assert_eq!(shortened(&fits), None);
        for front in ["", "x"] {
            let long = format!("{front}begins {} ends", "é".repeat(20_000));
            let short = shortened(&long).expect("too long");
            assert!(short.len() <= SENTENCE_BYTES_MAX, "{}", short.len());
            assert!(short.starts_with(&format!("{front}begins é")), "{short}");
            assert!(
                short.contains("é … é") && short.ends_with("é ends"),
                "{short}"
            );
        }
    }
}
