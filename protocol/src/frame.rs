//! What stands around a message on a connection: the 4-byte length and the headers.
//!
//! Owns neither socket nor frame limit: the listener cuts and bounds frames.

use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use crate::keys::{ApiKey, Request};
use crate::messages::{self, ResponseHeader};
use crate::text::Str;
use bytes::Bytes;

/// Bytes of the length in front of every request and response; it does not count itself.
pub const LENGTH_BYTES: usize = 4;

/// The fewest bytes of a request: API key, version, correlation id.
pub const REQUEST_BYTES_MIN: usize = 8;

/// What every request says of itself before its body (request header 0, 1 or 2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API key as sent, known or not.
    pub api_key: i16,
    /// The version of the body as sent, served or not.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// The client id; a slice of the frame.
    pub client_id: Option<Str>,
}

/// Reads the length in front of a frame: the number of bytes that follow. `None` while fewer than
/// [`LENGTH_BYTES`] are there.
///
/// # Errors
/// [`DecodeError::OutOfRange`] when it is negative, below [`REQUEST_BYTES_MIN`] or above
/// `frame_bytes_max`.
pub fn decode_length(start: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, DecodeError> {
    let Some(bytes) = start.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*bytes);
    match usize::try_from(length) {
        Ok(bytes) if (REQUEST_BYTES_MIN..=frame_bytes_max).contains(&bytes) => Ok(Some(bytes)),
        _ => Err(DecodeError::OutOfRange {
            field: "frame length",
            value: i64::from(length),
        }),
    }
}

/// Reads the header of a request; the reader then stands at the body.
///
/// For an API key we do not know, or a version beyond the codec's, the header is read as far as all versions
/// agree: client id included, tags not. The body is then meaningless.
///
/// # Errors
/// [`DecodeError::Truncated`], [`DecodeError::InvalidUtf8`], [`DecodeError::InvalidLength`]
/// and those of tagged fields.
pub fn decode_request_header(r: &mut Reader) -> Result<RequestHeader, DecodeError> {
    let api_key = r.at("RequestHeader.RequestApiKey").get_i16()?;
    let api_version = r.at("RequestHeader.RequestApiVersion").get_i16()?;
    let correlation_id = r.at("RequestHeader.CorrelationId").get_i32()?;
    let header_version =
        ApiKey::try_from(api_key).map_or(1, |key| key.request_header_version(api_version));
    let client_id = match header_version {
        0 => None,
        _ => r
            .at("RequestHeader.ClientId")
            .get_optional_str(false, true)?,
    };
    if header_version >= 2 {
        r.at("RequestHeader").get_unknown_tags()?;
    }
    Ok(RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    })
}

/// A whole response: length, header, body; large record batches stay parts of their own.
///
/// # Errors
/// A body that `api_version` cannot carry, or one longer than 2³¹ − 1 bytes.
pub fn encode_response<M: Message>(
    correlation_id: i32,
    header_version: i16,
    body: &M,
    api_version: i16,
) -> Result<Vec<Bytes>, EncodeError> {
    let header = ResponseHeader {
        correlation_id,
        ..ResponseHeader::default()
    };
    encode_frame(&header, header_version, body, api_version)
}

/// A whole request, as a client sends it.
///
/// # Errors
/// A body that `api_version` cannot carry, or one longer than 2³¹ − 1 bytes.
pub fn encode_request<M: Request>(
    correlation_id: i32,
    client_id: Option<Str>,
    body: &M,
    api_version: i16,
) -> Result<Vec<Bytes>, EncodeError> {
    let header = messages::RequestHeader {
        request_api_key: M::KEY.as_i16(),
        request_api_version: api_version,
        correlation_id,
        client_id,
        ..messages::RequestHeader::default()
    };
    encode_frame(
        &header,
        M::KEY.request_header_version(api_version),
        body,
        api_version,
    )
}

fn encode_frame<H: Message, M: Message>(
    header: &H,
    header_version: i16,
    body: &M,
    version: i16,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut w = Writer::with_capacity(256);
    w.put_i32(0);
    header.encode(&mut w, header_version)?;
    body.encode(&mut w, version)?;
    let length = w.len() - LENGTH_BYTES;
    let value = i32::try_from(length);
    w.patch_i32(
        0,
        value.map_err(|_| EncodeError::TooLong {
            field: "frame",
            length,
        })?,
    );
    Ok(w.into_parts())
}
