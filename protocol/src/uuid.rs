//! [`Uuid`]: topic, directory, incarnation and cluster ids, as Kafka writes them.

use std::fmt;
use std::str::FromStr;

/// A 128-bit id. Its text is URL-safe base64 without padding, 22 characters (Kafka's `Uuid`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// A text that is not a [`Uuid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUuid;

impl fmt::Display for InvalidUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 16 bytes in URL-safe base64 without padding")
    }
}

impl std::error::Error for InvalidUuid {}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_BYTES: usize = 22;

impl Uuid {
    /// "No id".
    pub const ZERO: Uuid = Uuid(0);
    /// The id of the metadata log's topic; also, for directories, "unassigned".
    pub const ONE: Uuid = Uuid(1);
    /// Ids below this are reserved: 0 and 1 are the two above, and `DirectoryId` keeps all of the first hundred.
    pub const FIRST_FREE: Uuid = Uuid(100);

    /// An id from 128 random bits, with the version and variant bits of RFC 4122 (version 4)
    /// as Kafka's `randomUuid`. `None` when the bits give a reserved id or one whose text
    /// begins with `-` (tools would take it for an option): draw again.
    pub fn try_from_random(bits: u128) -> Option<Uuid> {
        let versioned = bits & !(0xf << 76) | (4 << 76);
        let uuid = Uuid(versioned & !(0b11 << 62) | (0b10 << 62));
        let leading_digit = uuid.0 >> 122;
        (uuid >= Uuid::FIRST_FREE && leading_digit != 62).then_some(uuid)
    }

    /// An id from 128 random bits. Total: bits that would give a text beginning with `-`
    /// (see [`Uuid::try_from_random`]) have their first bit flipped.
    pub fn from_random(bits: u128) -> Uuid {
        let flipped = bits ^ (1 << 127);
        // With the version bits set no id is reserved, so the flip only has to mend the dash.
        Uuid::try_from_random(bits)
            .or(Uuid::try_from_random(flipped))
            .unwrap_or(Uuid(flipped))
    }

    /// True when this is [`Uuid::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Uuid::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_BYTES];
        for (index, digit) in text.iter_mut().enumerate() {
            // 21 digits of six bits from the top, then two bits and four zeros.
            let shift = 122 - 6 * i32::try_from(index).unwrap_or(0);
            let bits = if shift >= 0 {
                self.0 >> shift
            } else {
                self.0 << -shift
            };
            *digit = DIGITS[usize::try_from(bits & 0x3f).unwrap_or(0)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Uuid, InvalidUuid> {
        let text = text.as_bytes();
        if text.len() != TEXT_BYTES {
            return Err(InvalidUuid);
        }
        let mut value = 0u128;
        for (index, byte) in text.iter().enumerate() {
            let digit = DIGITS
                .iter()
                .position(|digit| digit == byte)
                .ok_or(InvalidUuid)? as u128;
            value = match index == TEXT_BYTES - 1 {
                true if digit & 0xf != 0 => return Err(InvalidUuid),
                true => value << 2 | digit >> 4,
                false => value << 6 | digit,
            };
        }
        Ok(Uuid(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kafkas() {
        // From Kafka 4.3.1: new Uuid(0x0123456789abcdefL, 0xfedcba9876543210L).toString().
        let uuid = Uuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(uuid.to_string(), "ASNFZ4mrze_-3LqYdlQyEA");
        assert_eq!("ASNFZ4mrze_-3LqYdlQyEA".parse(), Ok(uuid));
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::ONE.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA",
            "+AAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(text.parse::<Uuid>(), Err(InvalidUuid), "{text}");
        }
        assert_eq!("ÄAAAAAAAAAAAAAAAAAAAAA".parse::<Uuid>(), Err(InvalidUuid));
    }

    #[test]
    fn random_ids_never_begin_with_a_dash() {
        let dash = 62u128 << 122;
        for low in [0u128, 1, 99, u128::from(u64::MAX)] {
            let uuid = Uuid::from_random(dash | low);
            assert!(!uuid.to_string().starts_with('-'));
            assert!(uuid >= Uuid::FIRST_FREE);
            assert_eq!(uuid.0 >> 76 & 0xf, 4);
            assert_eq!(uuid.0 >> 62 & 0b11, 0b10);
        }
        assert_eq!(Uuid::try_from_random(dash), None);
        assert!(Uuid::try_from_random(0).is_some());
    }
}
