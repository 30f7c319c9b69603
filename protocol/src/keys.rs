//! [`ApiKey`], the number in front of every request, and the header versions that follow from it.

use crate::codec::Message;
use crate::messages;
use std::fmt;
use std::ops::RangeInclusive;

/// A message a client sends, paired with its response.
pub trait Request: Message {
    /// Its API key.
    const KEY: ApiKey;
    /// The response, which has the same versions.
    type Response: Message;
}

/// A number that is not one of our API keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownApiKey(pub i16);

impl fmt::Display for UnknownApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown API key {}", self.0)
    }
}

impl std::error::Error for UnknownApiKey {}

impl ApiKey {
    /// The number on the wire.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// True when `api_version` has compact lengths and tagged fields (KIP-482).
    pub fn is_flexible(self, api_version: i16) -> bool {
        self.flexible_from().is_some_and(|from| api_version >= from)
    }

    /// The version of the request header in front of `api_version`: 2 with tags, 1 with a
    /// client id, 0 without (only ControlledShutdown 0).
    pub fn request_header_version(self, api_version: i16) -> i16 {
        match self {
            ApiKey::ControlledShutdown if api_version == 0 => 0,
            _ if self.is_flexible(api_version) => 2,
            _ => 1,
        }
    }

    /// The version of the response header in front of `api_version`: 1 with tags, else 0.
    /// ApiVersions always has 0, so that a client which does not know the broker's version
    /// can read the answer (KIP-511).
    pub fn response_header_version(self, api_version: i16) -> i16 {
        match self {
            ApiKey::ApiVersions => 0,
            _ => i16::from(self.is_flexible(api_version)),
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

include!(concat!(env!("OUT_DIR"), "/keys.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_their_numbers() {
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::try_from(key.as_i16()), Ok(key));
        }
        assert_eq!(ApiKey::try_from(-1), Err(UnknownApiKey(-1)));
        assert_eq!(ApiKey::try_from(3), Ok(ApiKey::Metadata));
    }

    #[test]
    fn header_versions_follow_kafka() {
        assert_eq!(ApiKey::Produce.request_header_version(8), 1);
        assert_eq!(ApiKey::Produce.request_header_version(9), 2);
        assert_eq!(ApiKey::Produce.response_header_version(9), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::ControlledShutdown.request_header_version(0), 0);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }
}
