//! The bounded reader: from a frame's bytes to values, slices kept.
//!
//! Owns the three bounds on what a frame makes us allocate: the bytes it really has, the elements of one
//! message, and the heap bytes per byte received.

use super::{DecodeError, Structure, UnknownTaggedFields};
use crate::{Records, Str, Uuid};
use bytes::Bytes;
use std::mem::{needs_drop, size_of};
use std::ops::RangeInclusive;

/// Elements (structures and strings in arrays, unknown tags) one message may have unless
/// [`Reader::with_budget`] says otherwise. A metadata request for every partition of a
/// 200,000-partition cluster stays below it.
pub const ELEMENTS_MAX: usize = 524_288;

/// Heap bytes the arrays of one message may take for each byte of its frame.
pub const HEAP_BYTES_PER_BYTE: usize = 32;

/// Heap bytes the arrays of one message may take on top of that.
pub const HEAP_BYTES_BASE: usize = 64 * 1024;

/// Reads values from one frame, in order.
///
/// After an error the position is unspecified: drop the reader.
#[derive(Clone, Debug)]
pub struct Reader {
    frame: Bytes,
    position: usize,
    /// One past the last readable byte: the frame's end, or that of an open tagged field.
    pub(super) end: usize,
    elements_left: usize,
    heap_bytes_left: usize,
    field: &'static str,
}

macro_rules! number {
    ($(#[$doc:meta] $get:ident $ty:ty;)*) => { $(
        #[$doc]
        ///
        /// # Errors
        /// [`DecodeError::Truncated`].
        #[inline]
        pub fn $get(&mut self) -> Result<$ty, DecodeError> {
            Ok(<$ty>::from_be_bytes(self.take()?))
        }
    )* };
}

impl Reader {
    /// A reader at the start of `frame`, with the usual budgets.
    pub fn new(frame: Bytes) -> Reader {
        Reader::with_budget(frame, ELEMENTS_MAX)
    }

    /// A reader that allows `elements_max` array elements in all.
    pub fn with_budget(frame: Bytes, elements_max: usize) -> Reader {
        let end = frame.len();
        let heap_bytes_left = end.saturating_mul(HEAP_BYTES_PER_BYTE) + HEAP_BYTES_BASE;
        let elements_left = elements_max;
        Reader {
            frame,
            position: 0,
            end,
            elements_left,
            heap_bytes_left,
            field: "frame",
        }
    }

    /// Names the field that is read next, for errors: `Structure.Field` with Kafka's names.
    #[inline]
    pub fn at(&mut self, field: &'static str) -> &mut Reader {
        self.field = field;
        self
    }

    /// The field that was named last.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// Bytes from the start of the frame to where the reader stands.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes left, up to the end of the frame or of the open tagged field.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] when something is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::TrailingBytes {
                field: self.field,
                remaining,
            }),
        }
    }

    /// Refuses versions the codec does not have.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedVersion`].
    pub fn check_version(
        &self,
        message: &'static str,
        version: i16,
        known: RangeInclusive<i16>,
    ) -> Result<(), DecodeError> {
        match known.contains(&version) {
            true => Ok(()),
            false => Err(DecodeError::UnsupportedVersion { message, version }),
        }
    }

    number! {
        /// An 8-bit integer.
        get_i8 i8;
        /// A big-endian 16-bit integer.
        get_i16 i16;
        /// A big-endian unsigned 16-bit integer.
        get_u16 u16;
        /// A big-endian 32-bit integer.
        get_i32 i32;
        /// A big-endian unsigned 32-bit integer.
        get_u32 u32;
        /// A big-endian 64-bit integer.
        get_i64 i64;
        /// A big-endian IEEE 754 number.
        get_f64 f64;
    }

    /// A byte that is zero for false and, as in Kafka, anything else for true.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn get_bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.get_i8()? != 0)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn get_uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid(u128::from_be_bytes(self.take()?)))
    }

    /// An unsigned variable-length integer of at most five bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::VarintOverflow`].
    #[inline]
    pub fn get_uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintOverflow { field: self.field })
    }

    /// A zigzag variable-length integer of at most five bytes.
    ///
    /// # Errors
    /// As [`Reader::get_uvarint`].
    #[inline]
    pub fn get_varint(&mut self) -> Result<i32, DecodeError> {
        let raw = self.get_uvarint()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zigzag variable-length integer of at most ten bytes.
    ///
    /// # Errors
    /// As [`Reader::get_uvarint`].
    #[inline]
    pub fn get_varlong(&mut self) -> Result<i64, DecodeError> {
        let mut raw = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.take()?;
            if shift == 63 && byte > 1 {
                break;
            }
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err(DecodeError::VarintOverflow { field: self.field })
    }

    /// The next `count` bytes as a slice of the frame.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn get_slice(&mut self, count: usize) -> Result<Bytes, DecodeError> {
        if count > self.remaining() {
            return Err(self.truncated(count));
        }
        let start = self.position;
        self.position += count;
        Ok(self.frame.slice(start..self.position))
    }

    /// A string; `compact` chooses the length's form.
    ///
    /// # Errors
    /// [`DecodeError::NullNotAllowed`], [`DecodeError::InvalidLength`],
    /// [`DecodeError::Truncated`], [`DecodeError::InvalidUtf8`].
    pub fn get_str(&mut self, compact: bool) -> Result<Str, DecodeError> {
        self.get_optional_str(compact, false)?
            .ok_or_else(|| self.null())
    }

    /// A string that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Reader::get_str`].
    pub fn get_optional_str(
        &mut self,
        compact: bool,
        nullable: bool,
    ) -> Result<Option<Str>, DecodeError> {
        let length = match compact {
            true => i64::from(self.get_uvarint()?) - 1,
            false => i64::from(self.get_i16()?),
        };
        if length > i64::from(i16::MAX) {
            return Err(DecodeError::InvalidLength {
                field: self.field,
                length,
            });
        }
        let Some(length) = self.length(length, nullable)? else {
            return Ok(None);
        };
        let field = self.field;
        let text = Str::from_utf8(self.get_slice(length)?);
        text.map(Some)
            .map_err(|_| DecodeError::InvalidUtf8 { field })
    }

    /// Bytes as a slice of the frame; `compact` chooses the length's form.
    ///
    /// # Errors
    /// [`DecodeError::NullNotAllowed`], [`DecodeError::InvalidLength`],
    /// [`DecodeError::Truncated`].
    pub fn get_bytes(&mut self, compact: bool) -> Result<Bytes, DecodeError> {
        self.get_optional_bytes(compact, false)?
            .ok_or_else(|| self.null())
    }

    /// Bytes that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Reader::get_bytes`].
    pub fn get_optional_bytes(
        &mut self,
        compact: bool,
        nullable: bool,
    ) -> Result<Option<Bytes>, DecodeError> {
        let length = self.get_length(compact)?;
        match self.length(length, nullable)? {
            Some(length) => self.get_slice(length).map(Some),
            None => Ok(None),
        }
    }

    /// Record batches, unread, as one slice of the frame.
    ///
    /// # Errors
    /// As [`Reader::get_bytes`].
    pub fn get_records(&mut self, compact: bool) -> Result<Records, DecodeError> {
        self.get_bytes(compact).map(Records::from)
    }

    /// Record batches that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Reader::get_bytes`].
    pub fn get_optional_records(
        &mut self,
        compact: bool,
        nullable: bool,
    ) -> Result<Option<Records>, DecodeError> {
        Ok(self
            .get_optional_bytes(compact, nullable)?
            .map(Records::from))
    }

    /// An array of elements that take at least `element_bytes_min` bytes each.
    ///
    /// # Errors
    /// [`DecodeError::CountTooLarge`], [`DecodeError::BudgetExceeded`], and what `read` returns.
    pub fn get_array<T>(
        &mut self,
        compact: bool,
        element_bytes_min: usize,
        read: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.get_count(compact, false)?;
        let count = count.ok_or_else(|| self.null())?;
        self.get_elements(count, element_bytes_min, read)
    }

    /// An array that may be null when `nullable`.
    ///
    /// # Errors
    /// As [`Reader::get_array`].
    pub fn get_optional_array<T>(
        &mut self,
        compact: bool,
        nullable: bool,
        element_bytes_min: usize,
        read: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        match self.get_count(compact, nullable)? {
            Some(count) => self.get_elements(count, element_bytes_min, read).map(Some),
            None => Ok(None),
        }
    }

    /// A structure in its place.
    ///
    /// # Errors
    /// What the structure's decoder returns.
    pub fn get_struct<T: Structure>(&mut self, version: i16) -> Result<T, DecodeError> {
        T::decode(self, version)
    }

    /// A structure behind a byte that is negative for null (KIP-893).
    ///
    /// # Errors
    /// As [`Reader::get_struct`], and [`DecodeError::NullNotAllowed`].
    pub fn get_optional_struct<T: Structure>(
        &mut self,
        version: i16,
        nullable: bool,
    ) -> Result<Option<T>, DecodeError> {
        if !nullable {
            return T::decode(self, version).map(Some);
        }
        match self.get_i8()? {
            ..0 => Ok(None),
            _ => T::decode(self, version).map(Some),
        }
    }

    /// A nullable structure among the tagged fields: zero in front means null.
    ///
    /// # Errors
    /// As [`Reader::get_struct`].
    pub fn get_tagged_struct<T: Structure>(
        &mut self,
        version: i16,
    ) -> Result<Option<T>, DecodeError> {
        match self.get_uvarint()? {
            0 => Ok(None),
            _ => T::decode(self, version).map(Some),
        }
    }

    /// The tagged fields of a structure that knows none.
    ///
    /// # Errors
    /// [`DecodeError::TooManyTags`], [`DecodeError::DuplicateTag`], [`DecodeError::Truncated`].
    pub fn get_unknown_tags(&mut self) -> Result<UnknownTaggedFields, DecodeError> {
        let mut tags = self.get_tags()?;
        let mut kept = Vec::new();
        while let Some(tag) = self.open_tag(&mut tags)? {
            self.keep_tag(tag, &mut kept)?;
            self.close_tag(&tags)?;
        }
        Ok(kept)
    }

    /// Takes `count` elements of type `T` from the budgets before they are allocated.
    ///
    /// # Errors
    /// [`DecodeError::BudgetExceeded`].
    pub(super) fn charge<T>(&mut self, count: usize) -> Result<(), DecodeError> {
        // Plain numbers take no more memory than wire, so only the heap budget counts them.
        let elements = if needs_drop::<T>() { count } else { 0 };
        let heap = count.checked_mul(size_of::<T>());
        let left = self.elements_left.checked_sub(elements);
        let heap_left = heap.and_then(|heap| self.heap_bytes_left.checked_sub(heap));
        match (left, heap_left) {
            (Some(left), Some(heap_left)) => {
                self.elements_left = left;
                self.heap_bytes_left = heap_left;
                Ok(())
            }
            _ => Err(DecodeError::BudgetExceeded {
                field: self.field,
                count,
            }),
        }
    }

    fn get_elements<T>(
        &mut self,
        count: usize,
        element_bytes_min: usize,
        mut read: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let remaining = self.remaining();
        let field = self.field;
        if count
            .checked_mul(element_bytes_min)
            .is_none_or(|needed| needed > remaining)
        {
            return Err(DecodeError::CountTooLarge {
                field,
                count,
                remaining,
                element_bytes_min,
            });
        }
        self.charge::<T>(count)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    fn get_count(&mut self, compact: bool, nullable: bool) -> Result<Option<usize>, DecodeError> {
        let length = self.get_length(compact)?;
        self.length(length, nullable)
    }

    fn get_length(&mut self, compact: bool) -> Result<i64, DecodeError> {
        match compact {
            true => Ok(i64::from(self.get_uvarint()?) - 1),
            false => Ok(i64::from(self.get_i32()?)),
        }
    }

    /// A length as sent: −1 is null, and nothing else is negative.
    fn length(&self, length: i64, nullable: bool) -> Result<Option<usize>, DecodeError> {
        let field = self.field;
        match length {
            -1 if nullable => Ok(None),
            -1 => Err(self.null()),
            _ => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::InvalidLength { field, length }),
        }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.frame.get(self.position..self.end).unwrap_or_default();
        match rest.first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(N)),
        }
    }

    #[cold]
    pub(super) fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::Truncated {
            field: self.field,
            needed,
            remaining: self.remaining(),
        }
    }

    #[cold]
    fn null(&self) -> DecodeError {
        DecodeError::NullNotAllowed { field: self.field }
    }
}
