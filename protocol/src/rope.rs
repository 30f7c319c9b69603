//! [`Records`]: record batches in memory, in one piece or several.
//!
//! Knows nothing of a batch's format; copies only in [`Records::into_bytes`].

use bytes::Bytes;

/// The `records` field of Produce, Fetch and their kin: parts that follow one another.
///
/// Decoding gives one slice of the frame; a Fetch response may string many cached batches together. Equality is
/// that of the bytes, wherever they are cut.
#[derive(Clone, Debug, Default)]
pub struct Records {
    parts: Parts,
}

#[derive(Clone, Debug, Default)]
enum Parts {
    #[default]
    None,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Records {
    /// No bytes.
    pub fn new() -> Records {
        Records::default()
    }

    /// Bytes in all parts.
    pub fn len(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(Bytes::is_empty)
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Bytes] {
        match &self.parts {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// Appends a part.
    pub fn push(&mut self, part: Bytes) {
        self.parts = match std::mem::take(&mut self.parts) {
            Parts::None => Parts::One(part),
            Parts::One(first) => Parts::Many(vec![first, part]),
            Parts::Many(mut parts) => {
                parts.push(part);
                Parts::Many(parts)
            }
        };
    }

    /// All bytes in one piece; copies only when there are several parts.
    pub fn into_bytes(self) -> Bytes {
        match self.parts {
            Parts::None => Bytes::new(),
            Parts::One(part) => part,
            Parts::Many(parts) => Bytes::from(parts.concat()),
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records {
            parts: Parts::One(bytes),
        }
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Records {
        let mut records = Records::new();
        records.extend(parts);
        records
    }
}

impl Extend<Bytes> for Records {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, parts: I) {
        parts.into_iter().for_each(|part| self.push(part));
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.parts()
            .iter()
            .flatten()
            .eq(other.parts().iter().flatten())
    }
}

impl Eq for Records {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_and_equality_ignores_cuts() {
        let mut records = Records::new();
        assert!(records.is_empty());
        for part in ["ab", "", "c"] {
            records.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(records.len(), 3);
        assert_eq!(records.parts().len(), 3);
        assert_eq!(records, Records::from(Bytes::from_static(b"abc")));
        assert_ne!(records, Records::from(Bytes::from_static(b"abd")));
        assert_eq!(records.into_bytes(), "abc");
    }
}
