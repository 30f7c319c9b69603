//! Tagged fields (KIP-482), read and written.
//!
//! Owns their limits: the number of fields, each tag once, each value exactly as long as its size says.

use super::{DecodeError, EncodeError, Reader, UnknownTaggedFields, Writer};
use bytes::Bytes;

/// Tagged fields one structure may have. Kafka's largest structure defines nine.
pub const TAGS_MAX: u32 = 64;

/// The tagged fields of one structure while they are read.
#[derive(Debug)]
pub struct TagReader {
    left: u32,
    /// Tags below 64 that have been seen.
    seen: u64,
    /// The reader's end outside the open field.
    outer_end: usize,
}

impl Reader {
    /// Reads the number of tagged fields that follow.
    ///
    /// # Errors
    /// [`DecodeError::TooManyTags`], [`DecodeError::Truncated`].
    pub fn get_tags(&mut self) -> Result<TagReader, DecodeError> {
        let count = self.get_uvarint()?;
        match count {
            0..=TAGS_MAX => Ok(TagReader {
                left: count,
                seen: 0,
                outer_end: self.end,
            }),
            _ => Err(DecodeError::TooManyTags {
                field: self.field(),
                count,
            }),
        }
    }

    /// Reads the next tag and narrows the reader to its value; `None` after the last.
    ///
    /// # Errors
    /// [`DecodeError::DuplicateTag`], [`DecodeError::Truncated`].
    pub fn open_tag(&mut self, tags: &mut TagReader) -> Result<Option<u32>, DecodeError> {
        let Some(left) = tags.left.checked_sub(1) else {
            return Ok(None);
        };
        tags.left = left;
        let tag = self.get_uvarint()?;
        let size = self.get_uvarint()? as usize;
        if size > self.remaining() {
            return Err(self.truncated(size));
        }
        let bit = 1u64.checked_shl(tag).unwrap_or(0);
        if tags.seen & bit != 0 {
            return Err(DecodeError::DuplicateTag {
                field: self.field(),
                tag,
            });
        }
        tags.seen |= bit;
        self.end = self.position() + size;
        Ok(Some(tag))
    }

    /// Keeps the open field's value unread, in the order of the tags.
    ///
    /// # Errors
    /// [`DecodeError::DuplicateTag`], [`DecodeError::BudgetExceeded`].
    pub fn keep_tag(
        &mut self,
        tag: u32,
        kept: &mut UnknownTaggedFields,
    ) -> Result<(), DecodeError> {
        self.charge::<(u32, Bytes)>(1)?;
        let value = self.get_slice(self.remaining())?;
        let place = kept.partition_point(|(other, _)| *other < tag);
        if kept.get(place).is_some_and(|(other, _)| *other == tag) {
            return Err(DecodeError::DuplicateTag {
                field: self.field(),
                tag,
            });
        }
        kept.reserve_exact(1);
        kept.insert(place, (tag, value));
        Ok(())
    }

    /// Ends the open field and widens the reader again.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] when the field was longer than its value.
    pub fn close_tag(&mut self, tags: &TagReader) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => {
                self.end = tags.outer_end;
                Ok(())
            }
            remaining => Err(DecodeError::TrailingBytes {
                field: self.field(),
                remaining,
            }),
        }
    }
}

/// The unknown tagged fields of one structure that are still to be written between the
/// known ones.
#[derive(Debug)]
pub struct TagWriter<'a> {
    rest: &'a [(u32, Bytes)],
}

/// A known tagged field whose value is being written.
#[derive(Debug)]
#[must_use]
pub struct OpenTag {
    size_at: usize,
    len_before: usize,
}

impl Writer {
    /// Refuses unknown tagged fields in a version without tags.
    ///
    /// # Errors
    /// [`EncodeError::TagsNotInVersion`].
    pub fn check_no_tags(&self, tags: &[(u32, Bytes)], version: i16) -> Result<(), EncodeError> {
        match tags.is_empty() {
            true => Ok(()),
            false => Err(EncodeError::TagsNotInVersion { version }),
        }
    }

    /// Writes the tagged fields of a structure that knows none.
    ///
    /// # Errors
    /// [`EncodeError::TagOutOfOrder`], [`EncodeError::TooLong`].
    pub fn put_unknown_tags(&mut self, tags: &[(u32, Bytes)]) -> Result<(), EncodeError> {
        let tags = self.put_tags(tags, 0)?;
        self.put_rest_of_tags(tags)
    }

    /// Starts the tagged fields: `known` of them and all the unknown ones.
    ///
    /// # Errors
    /// [`EncodeError::TagOutOfOrder`], [`EncodeError::TooLong`].
    pub fn put_tags<'a>(
        &mut self,
        unknown: &'a [(u32, Bytes)],
        known: usize,
    ) -> Result<TagWriter<'a>, EncodeError> {
        if let Some(pair) = unknown.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(EncodeError::TagOutOfOrder { tag: pair[1].0 });
        }
        let length = unknown.len().saturating_add(known);
        let count = u32::try_from(length);
        self.put_uvarint(count.map_err(|_| EncodeError::TooLong {
            field: "tags",
            length,
        })?);
        Ok(TagWriter { rest: unknown })
    }

    /// Starts a known tagged field, after the unknown ones with smaller tags.
    ///
    /// # Errors
    /// [`EncodeError::TagOutOfOrder`] when an unknown field has the same tag.
    pub fn open_tag(&mut self, tags: &mut TagWriter<'_>, tag: u32) -> Result<OpenTag, EncodeError> {
        let smaller = tags.rest.partition_point(|(other, _)| *other < tag);
        let (now, later) = tags.rest.split_at(smaller);
        self.put_raw_tags(now)?;
        if later.first().is_some_and(|(other, _)| *other == tag) {
            return Err(EncodeError::TagOutOfOrder { tag });
        }
        tags.rest = later;
        self.put_uvarint(tag);
        let (size_at, len_before) = self.put_size_placeholder();
        Ok(OpenTag {
            size_at,
            len_before,
        })
    }

    /// Ends a known tagged field: its size goes in front of it.
    pub fn close_tag(&mut self, open: OpenTag) {
        self.fill_size(open.size_at, open.len_before);
    }

    /// Writes the unknown tagged fields that are left.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn put_rest_of_tags(&mut self, tags: TagWriter<'_>) -> Result<(), EncodeError> {
        self.put_raw_tags(tags.rest)
    }

    fn put_raw_tags(&mut self, tags: &[(u32, Bytes)]) -> Result<(), EncodeError> {
        for (tag, value) in tags {
            self.put_uvarint(*tag);
            let length = value.len();
            let size = u32::try_from(length);
            self.put_uvarint(size.map_err(|_| EncodeError::TooLong {
                field: "tag",
                length,
            })?);
            self.put_part(value);
        }
        Ok(())
    }
}
