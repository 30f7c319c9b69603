//! The records Kafka keeps in its own logs: `__cluster_metadata`, `__consumer_offsets`,
//! `__transaction_state`, `__share_group_state`.
//!
//! Owns the framing; the meaning belongs to the catalogue and the coordinators.

use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use crate::messages;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// The bodies of one kind of record, told apart by a type number.
pub trait RecordSet: Sized {
    /// The kind's name in errors.
    const NAME: &'static str;
    /// The type number of this body.
    fn record_type(&self) -> i16;
    /// The versions of a type; `None` for an unknown one.
    fn versions(record_type: i16) -> Option<RangeInclusive<i16>>;
    /// Reads a body without any framing.
    ///
    /// # Errors
    /// [`DecodeError::UnknownRecordType`] and those of the body.
    fn decode_body(r: &mut Reader, record_type: i16, version: i16) -> Result<Self, DecodeError>;
    /// Appends the body without any framing.
    ///
    /// # Errors
    /// Those of the body.
    fn encode_body(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// The frame version in front of metadata records (Kafka's `AbstractApiMessageSerde`).
pub const METADATA_FRAME_VERSION: u32 = 1;

impl MetadataRecord {
    /// Reads a record's value: frame version, type and version as unsigned varints, body.
    ///
    /// # Errors
    /// [`DecodeError::UnknownRecordType`], [`DecodeError::OutOfRange`] for another frame version or a varint
    /// beyond 16 bits, [`DecodeError::TrailingBytes`] and those of the body.
    pub fn decode(value: Bytes) -> Result<(MetadataRecord, i16), DecodeError> {
        let mut r = Reader::new(value);
        let frame = r.at("MetadataRecord.FrameVersion").get_uvarint()?;
        if frame != METADATA_FRAME_VERSION {
            return Err(DecodeError::OutOfRange {
                field: r.field(),
                value: i64::from(frame),
            });
        }
        let record_type = small_number(&mut r, "MetadataRecord.Type")?;
        let version = small_number(&mut r, "MetadataRecord.Version")?;
        let record = MetadataRecord::decode_body(&mut r, record_type, version)?;
        r.finish()?;
        Ok((record, version))
    }

    /// Writes a record's value in `version` of its body.
    ///
    /// # Errors
    /// Those of the body.
    pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::with_capacity(64);
        w.put_uvarint(METADATA_FRAME_VERSION);
        w.put_uvarint(u32::from(self.record_type().cast_unsigned()));
        w.put_uvarint(u32::from(version.cast_unsigned()));
        self.encode_body(&mut w, version)?;
        Ok(w.into_bytes())
    }
}

fn small_number(r: &mut Reader, field: &'static str) -> Result<i16, DecodeError> {
    let value = r.at(field).get_uvarint()?;
    i16::try_from(value).map_err(|_| DecodeError::OutOfRange {
        field,
        value: i64::from(value),
    })
}

/// Reads a coordinator record's key: type as an `int16`, then version 0 of the key.
///
/// An unknown type is [`DecodeError::UnknownRecordType`]: Kafka's loaders skip such a record
/// with a warning, and fail the partition on every other error.
///
/// # Errors
/// As said, [`DecodeError::TrailingBytes`], and those of the body.
pub fn decode_key<K: RecordSet>(key: Bytes) -> Result<K, DecodeError> {
    let mut r = Reader::new(key);
    let record_type = r.at(K::NAME).get_i16()?;
    let key = K::decode_body(&mut r, record_type, 0)?;
    r.finish()?;
    Ok(key)
}

/// Writes a coordinator record's key.
///
/// # Errors
/// Those of the body.
pub fn encode_key<K: RecordSet>(key: &K) -> Result<Bytes, EncodeError> {
    let mut w = Writer::with_capacity(64);
    w.put_i16(key.record_type());
    key.encode_body(&mut w, 0)?;
    Ok(w.into_bytes())
}

/// Reads a coordinator record's value, of the type its key names: version, then the value.
///
/// # Errors
/// [`DecodeError::UnsupportedVersion`], [`DecodeError::TrailingBytes`], and those of the body.
pub fn decode_value<V: RecordSet>(record_type: i16, value: Bytes) -> Result<(V, i16), DecodeError> {
    let mut r = Reader::new(value);
    let version = r.at(V::NAME).get_i16()?;
    let value = V::decode_body(&mut r, record_type, version)?;
    r.finish()?;
    Ok((value, version))
}

/// Writes a coordinator record's value in `version`.
///
/// # Errors
/// Those of the body.
pub fn encode_value<V: RecordSet>(value: &V, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::with_capacity(128);
    w.put_i16(version);
    value.encode_body(&mut w, version)?;
    Ok(w.into_bytes())
}

include!(concat!(env!("OUT_DIR"), "/records.rs"));
