//! Zigzag variable-length integers in records.
//!
//! Owns reading them from a slice, whole or in pieces, and writing them. Never accepts an encoding
//! that overflows its type.

/// Bytes the longest 32-bit variable-length integer takes.
const VARINT_BYTES_MAX: u32 = 5;
/// Bytes the longest 64-bit variable-length integer takes.
const VARLONG_BYTES_MAX: u32 = 10;

/// A variable-length integer that does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// An incomplete variable-length integer: its bytes may come from several chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PartialVarint {
    value: u64,
    bytes: u32,
}

impl PartialVarint {
    /// True between the first and the last byte of an integer.
    pub(super) fn is_open(self) -> bool {
        self.bytes != 0
    }

    /// Takes one byte; returns the zigzag-decoded value after the last byte of a 32-bit integer.
    pub(super) fn push_i32(&mut self, byte: u8) -> Result<Option<i32>, Overflow> {
        let Some(value) = self.push(byte, VARINT_BYTES_MAX)? else {
            return Ok(None);
        };
        let value = u32::try_from(value).map_err(|_| Overflow)?;
        Ok(Some(((value >> 1) as i32) ^ -((value & 1) as i32)))
    }

    /// Takes one byte; returns the zigzag-decoded value after the last byte of a 64-bit integer.
    pub(super) fn push_i64(&mut self, byte: u8) -> Result<Option<i64>, Overflow> {
        let Some(value) = self.push(byte, VARLONG_BYTES_MAX)? else {
            return Ok(None);
        };
        Ok(Some(((value >> 1) as i64) ^ -((value & 1) as i64)))
    }

    #[inline]
    fn push(&mut self, byte: u8, bytes_max: u32) -> Result<Option<u64>, Overflow> {
        let bits = u64::from(byte & 0x7f);
        let shift = self.bytes * 7;
        // The tenth byte of a 64-bit integer has room for one bit.
        if self.bytes >= bytes_max || (shift == 63 && bits > 1) {
            return Err(Overflow);
        }
        self.value |= bits << shift;
        self.bytes += 1;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        let value = self.value;
        *self = Self::default();
        Ok(Some(value))
    }
}

/// Appends a 32-bit zigzag integer.
pub(super) fn put_i32(out: &mut Vec<u8>, value: i32) {
    put_u64(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends a 64-bit zigzag integer.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_i32`] appends.
pub(super) fn len_i32(value: i32) -> usize {
    len_u64(u64::from(((value << 1) ^ (value >> 31)) as u32))
}

/// Bytes that [`put_i64`] appends.
pub(super) fn len_i64(value: i64) -> usize {
    len_u64(((value << 1) ^ (value >> 63)) as u64)
}

fn len_u64(value: u64) -> usize {
    // Seven bits a byte, and 0 takes one.
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_i64(bytes: &[u8]) -> Result<Option<i64>, Overflow> {
        let mut partial = PartialVarint::default();
        for byte in bytes {
            if let Some(value) = partial.push_i64(*byte)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn read_i32(bytes: &[u8]) -> Result<Option<i32>, Overflow> {
        let mut partial = PartialVarint::default();
        for byte in bytes {
            if let Some(value) = partial.push_i32(*byte)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    #[test]
    fn round_trips_and_lengths_agree() {
        let mut values = vec![0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN];
        values.extend((0..63).flat_map(|bit| [1_i64 << bit, -(1_i64 << bit), (1_i64 << bit) - 1]));
        for value in values {
            let mut bytes = Vec::new();
            put_i64(&mut bytes, value);
            assert_eq!(bytes.len(), len_i64(value), "{value}");
            assert_eq!(read_i64(&bytes), Ok(Some(value)));
            let Ok(value) = i32::try_from(value) else {
                continue;
            };
            let mut short = Vec::new();
            put_i32(&mut short, value);
            assert_eq!(short, bytes, "both widths write {value} alike");
            assert_eq!(short.len(), len_i32(value));
            assert_eq!(read_i32(&short), Ok(Some(value)));
        }
    }

    #[test]
    fn overflow_is_refused() {
        assert_eq!(
            read_i32(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
            Ok(Some(i32::MIN))
        );
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(Overflow));
        assert_eq!(read_i32(&[0x80; 6]), Err(Overflow));
        let mut longest = [0xff; 10];
        longest[9] = 1;
        assert_eq!(read_i64(&longest), Ok(Some(i64::MIN)));
        longest[9] = 2;
        assert_eq!(read_i64(&longest), Err(Overflow));
        assert_eq!(read_i64(&[0x80; 11]), Err(Overflow));
    }

    #[test]
    fn an_unfinished_integer_is_open() {
        let mut partial = PartialVarint::default();
        assert!(!partial.is_open());
        assert_eq!(partial.push_i32(0x80), Ok(None));
        assert!(partial.is_open());
        assert_eq!(partial.push_i32(0x01), Ok(Some(64)));
        assert!(!partial.is_open());
    }
}
