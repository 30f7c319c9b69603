//! One message: offset, size, CRC-32, magic, attributes, timestamp (magic 1), key, value.
//!
//! Owns the layout. Never decompresses, and never reads beyond the message.

use bytes::{Buf, BufMut, Bytes};
use flate2::Crc;

use super::super::TimestampType;
use super::super::header::NO_TIMESTAMP;
use super::{MessageError, MessageFormat};

/// Offset and size, in front of the bytes that the size counts.
pub(super) const PREFIX_BYTES: usize = 12;
/// The least size: a message of magic 0 with null key and null value. It holds for magic 1 too
/// (`LegacyRecord.RECORD_OVERHEAD_V0`).
const SIZE_MIN: i32 = 14;
/// Place of the magic in a message with its prefix.
const MAGIC: usize = PREFIX_BYTES + 4;
const CODEC_MASK: u8 = 0x07;
const TIMESTAMP_TYPE: u8 = 0x08;

/// The fields in a message's first 17 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) format: MessageFormat,
    /// Size of the whole message, prefix included.
    pub(super) size_bytes: usize,
}

/// Reads the front of a message; `None` when fewer than 17 bytes are there. The rest of the message may be
/// missing.
pub(super) fn front(bytes: &[u8]) -> Result<Option<Front>, MessageError> {
    let mut prefix = bytes;
    let (Ok(_offset), Ok(size)) = (prefix.try_get_i64(), prefix.try_get_i32()) else {
        return Ok(None);
    };
    if size < SIZE_MIN {
        return Err(MessageError::Size(size));
    }
    let Some(magic) = bytes.get(MAGIC).map(|byte| i8::from_be_bytes([*byte])) else {
        return Ok(None);
    };
    let format = MessageFormat::from_magic(magic).ok_or(MessageError::Magic(magic))?;
    let size = usize::try_from(size).map_err(|_| MessageError::Size(size))?;
    Ok(Some(Front {
        format,
        size_bytes: PREFIX_BYTES.saturating_add(size),
    }))
}

/// Compares the CRC of a whole `message`.
pub(super) fn check_crc(message: &[u8]) -> Result<(), MessageError> {
    let mut rest = message.get(PREFIX_BYTES..).unwrap_or_default();
    let stored = rest.try_get_u32().map_err(|_| MessageError::Fields)?;
    let mut crc = Crc::new();
    crc.update(rest);
    match crc.sum() {
        computed if computed == stored => Ok(()),
        computed => Err(MessageError::CrcMismatch { stored, computed }),
    }
}

/// The codec's number in the attributes of `message`, 0 for none.
pub(super) fn codec(message: &[u8]) -> u8 {
    message.get(MAGIC + 1).map_or(0, |byte| byte & CODEC_MASK)
}

/// A decoded message; key and value are slices of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) offset: i64,
    pub(super) format: MessageFormat,
    attributes: u8,
    /// −1 for magic 0.
    pub(super) timestamp: i64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
}

impl Message {
    /// Reads `bytes`, one whole message. The CRC is not checked.
    pub(super) fn read(mut bytes: Bytes) -> Result<Self, MessageError> {
        let fields = |_| MessageError::Fields;
        let offset = bytes.try_get_i64().map_err(fields)?;
        let _size = bytes.try_get_i32().map_err(fields)?;
        let _crc = bytes.try_get_u32().map_err(fields)?;
        let magic = bytes.try_get_i8().map_err(fields)?;
        let format = MessageFormat::from_magic(magic).ok_or(MessageError::Magic(magic))?;
        let attributes = bytes.try_get_u8().map_err(fields)?;
        let timestamp = match format {
            MessageFormat::V0 => NO_TIMESTAMP,
            MessageFormat::V1 => bytes.try_get_i64().map_err(fields)?,
        };
        let key = nullable(&mut bytes)?;
        // Bytes after the value are allowed, as in Kafka.
        let value = nullable(&mut bytes)?;
        Ok(Self {
            offset,
            format,
            attributes,
            timestamp,
            key,
            value,
        })
    }

    /// The codec's number, 0 for none.
    pub(super) fn codec(&self) -> u8 {
        self.attributes & CODEC_MASK
    }

    /// Who set the timestamp. Magic 0 has none, whatever the bit is.
    pub(super) fn timestamp_type(&self) -> TimestampType {
        match self.format {
            MessageFormat::V1 if self.attributes & TIMESTAMP_TYPE != 0 => {
                TimestampType::LogAppendTime
            }
            _ => TimestampType::CreateTime,
        }
    }
}

/// Every negative length is null, as in Kafka.
fn nullable(bytes: &mut Bytes) -> Result<Option<Bytes>, MessageError> {
    let length = bytes.try_get_i32().map_err(|_| MessageError::Fields)?;
    match usize::try_from(length) {
        Err(_) => Ok(None),
        Ok(length) if length <= bytes.len() => Ok(Some(bytes.split_to(length))),
        Ok(_) => Err(MessageError::Fields),
    }
}

/// A message to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewMessage<'a> {
    pub(super) format: MessageFormat,
    pub(super) offset: i64,
    /// 0 for none.
    pub(super) codec: u8,
    pub(super) timestamp_type: TimestampType,
    pub(super) timestamp: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl NewMessage<'_> {
    /// Bytes of the whole message; `None` above the range of the size field.
    pub(super) fn size_bytes(&self) -> Option<usize> {
        let fixed = match self.format {
            MessageFormat::V0 => 14,
            MessageFormat::V1 => 22,
        };
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let size = length(self.key)
            .checked_add(length(self.value))?
            .checked_add(fixed)?;
        i32::try_from(size).ok()?;
        size.checked_add(PREFIX_BYTES)
    }

    /// Appends the message without its value's bytes, which the caller adds.
    pub(super) fn put_before_value(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let size = self.size_bytes().ok_or(MessageError::TooLarge {
            limit_bytes: i32::MAX.unsigned_abs() as usize,
        })?;
        out.put_i64(self.offset);
        // `size_bytes` has checked it.
        out.put_i32((size - PREFIX_BYTES) as i32);
        let crc_at = out.len();
        out.put_u32(0);
        let crc_start = out.len();
        out.put_u8(self.format.magic());
        let log_append_time = self.timestamp_type == TimestampType::LogAppendTime;
        match self.format {
            MessageFormat::V0 => out.put_u8(self.codec),
            MessageFormat::V1 => {
                let bit = if log_append_time { TIMESTAMP_TYPE } else { 0 };
                out.put_u8(self.codec | bit);
                out.put_i64(self.timestamp);
            }
        }
        put_length(out, self.key);
        out.extend_from_slice(self.key.unwrap_or_default());
        put_length(out, self.value);
        let mut crc = Crc::new();
        crc.update(out.get(crc_start..).unwrap_or_default());
        crc.update(self.value.unwrap_or_default());
        if let Some(place) = out.get_mut(crc_at..crc_start) {
            place.copy_from_slice(&crc.sum().to_be_bytes());
        }
        Ok(())
    }

    /// Appends the whole message.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        self.put_before_value(out)?;
        out.extend_from_slice(self.value.unwrap_or_default());
        Ok(())
    }
}

fn put_length(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    // `size_bytes` has checked it.
    out.put_i32(bytes.map_or(-1, |bytes| bytes.len() as i32));
}
