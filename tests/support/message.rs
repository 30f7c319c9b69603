//! Messages of the formats before record batches, which may be wrong in any way, and the decoding of a broker's.
//!
//! Never uses the project's own code for them, which it tests.

/// A message of magic 0 or 1, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestMessage {
    pub offset: i64,
    pub magic: i8,
    pub attributes: u8,
    /// Magic 0 has none: −1.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl TestMessage {
    /// A right message without a codec.
    pub fn of(magic: i8, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            offset: 0,
            magic,
            attributes: 0,
            timestamp: if magic == 0 { -1 } else { timestamp },
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
        }
    }

    /// A wrapper around `messages`, which `value` holds compressed by codec number `codec`.
    pub fn wrapper(magic: i8, timestamp: i64, codec: u8, value: &[u8]) -> Self {
        Self {
            attributes: codec,
            ..Self::of(magic, timestamp, None, Some(value))
        }
    }

    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.magic.cast_unsigned(), self.attributes];
        if self.magic != 0 {
            body.extend(self.timestamp.to_be_bytes());
        }
        for field in [&self.key, &self.value] {
            let length = field.as_ref().map_or(-1, |bytes| bytes.len().cast_signed());
            let length = i32::try_from(length).expect("a field below 2 GiB");
            body.extend(length.to_be_bytes());
            body.extend(field.iter().flatten());
        }
        let size = i32::try_from(body.len() + 4).expect("a message below 2 GiB");
        let mut message = Vec::with_capacity(body.len() + 16);
        message.extend(self.offset.to_be_bytes());
        message.extend(size.to_be_bytes());
        message.extend(crc32(&body).to_be_bytes());
        message.extend(body);
        message
    }

    /// All messages of a set, wrappers undecoded.
    ///
    /// # Panics
    /// When the bytes are not whole messages with right checksums.
    pub fn all(mut set: &[u8]) -> Vec<Self> {
        let mut messages = Vec::new();
        while !set.is_empty() {
            let size = i32::from_be_bytes(set[8..12].try_into().expect("four bytes"));
            let size = usize::try_from(size).expect("a size") + 12;
            messages.push(Self::read(&set[..size]));
            set = &set[size..];
        }
        messages
    }

    fn read(bytes: &[u8]) -> Self {
        let crc = u32::from_be_bytes(bytes[12..16].try_into().expect("four bytes"));
        assert_eq!(crc, crc32(&bytes[16..]), "the message's checksum");
        let magic = bytes[16].cast_signed();
        let (timestamp, mut rest) = match magic {
            0 => (-1, &bytes[18..]),
            1 => {
                let timestamp = bytes[18..26].try_into().expect("eight bytes");
                (i64::from_be_bytes(timestamp), &bytes[26..])
            }
            other => panic!("magic {other} in a message set"),
        };
        let mut field = || {
            let length = i32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
            rest = &rest[4..];
            let length = usize::try_from(length).ok()?;
            let (field, behind) = rest.split_at(length);
            rest = behind;
            Some(field.to_vec())
        };
        let (key, value) = (field(), field());
        assert!(rest.is_empty(), "bytes behind the value");
        Self {
            offset: i64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")),
            magic,
            attributes: bytes[17],
            timestamp,
            key,
            value,
        }
    }
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
