//! [`Str`]: a string that is a checked slice of a frame.
//!
//! Owns the promise that its bytes are UTF-8; copies only when asked ([`Str::detached`]).

use bytes::Bytes;
use bytestring::ByteString;
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

/// A string that shares its bytes: cloning counts, decoding does not copy.
///
/// A `Str` from a frame keeps the whole frame in memory; call [`Str::detached`] before
/// keeping one for longer than the request.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(ByteString);

impl Str {
    /// A string without a copy or an allocation.
    pub const fn from_static(text: &'static str) -> Str {
        Str(ByteString::from_static(text))
    }

    /// Checks that the bytes are UTF-8 and keeps them as they are.
    ///
    /// # Errors
    /// When the bytes are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Str, Utf8Error> {
        ByteString::try_from(bytes).map(Str)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy that does not keep the frame in memory.
    #[must_use]
    pub fn detached(&self) -> Str {
        Str::from(self.as_str())
    }

    /// The bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

impl Deref for Str {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str(ByteString::from(text))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str(ByteString::from(text))
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}
