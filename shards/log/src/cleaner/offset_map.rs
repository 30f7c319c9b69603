//! The last offset of each key, in bounded memory.
//!
//! Owned by one round of cleaning. Keys are known by a 128-bit hash under a seed of the round, as
//! Kafka's `SkimpyOffsetMap` knows them by MD5: two keys of one hash would be taken for one, which a
//! log of a billion keys meets once in 10²⁰ rounds, and nobody can provoke without the seed. Memory is
//! taken, and given back, in pieces, for 128 MiB at once hold up a shard for milliseconds.

use twox_hash::XxHash3_128;

/// Slots of one piece: 768 KiB.
const PIECE_SLOTS: usize = 32 * 1024;
/// Bytes of one slot: the hash and the offset.
pub(crate) const SLOT_BYTES: usize = 24;
/// Kafka's `log.cleaner.io.buffer.load.factor`.
const LOAD_PERCENT: usize = 90;

/// Both halves of the hash, and the offset; a hash of zero marks an empty slot.
type Slot = [u64; 3];

/// See the module's text.
pub struct OffsetMap {
    pieces: Vec<Vec<Slot>>,
    slots: usize,
    keys: usize,
    seed: u64,
    latest_offset: i64,
}

impl OffsetMap {
    /// A map for at most `keys` keys, and no more than fit into `bytes_max`.
    pub fn new(keys: u64, bytes_max: usize, seed: u64) -> Self {
        let wanted = usize::try_from(keys).unwrap_or(usize::MAX);
        let wanted = wanted.saturating_mul(100) / LOAD_PERCENT;
        let slots = wanted
            .saturating_add(16)
            .min((bytes_max / SLOT_BYTES).max(16));
        Self {
            pieces: Vec::new(),
            slots,
            keys: 0,
            seed,
            latest_offset: -1,
        }
    }

    /// Takes one more piece of memory; false when all is there. To be called before anything else,
    /// in slices.
    pub(crate) fn grow(&mut self) -> bool {
        let have = self.pieces.len() * PIECE_SLOTS;
        let piece = self.slots.saturating_sub(have).min(PIECE_SLOTS);
        if piece > 0 {
            self.pieces.push(vec![[0; 3]; piece]);
        }
        piece > 0
    }

    /// Gives one piece of memory back; false when none is left.
    pub fn shrink(&mut self) -> bool {
        self.pieces.pop().is_some()
    }

    /// Whether another key might not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.keys >= self.slots * LOAD_PERCENT / 100
    }

    /// Keys in the map.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// Everything up to here has been put in.
    pub fn latest_offset(&self) -> i64 {
        self.latest_offset
    }

    /// Everything up to `offset` has been put in, keys or none.
    pub(crate) fn advance(&mut self, offset: i64) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    /// The last record with this key so far is at `offset`.
    ///
    /// # Panics
    /// If the map is full: the caller asks.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) {
        assert!(!self.is_full(), "the caller asks for room");
        let hash = self.hash(key);
        let at = self.find(hash);
        let Some(slot) = self.slot_mut(at) else {
            return;
        };
        let is_new = slot[0] == 0 && slot[1] == 0;
        *slot = [hash[0], hash[1], offset.cast_unsigned()];
        self.keys += usize::from(is_new);
        self.advance(offset);
    }

    /// Offset of the last record with this key, if there was one.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let hash = self.hash(key);
        let slot = self.slot(self.find(hash))?;
        ([slot[0], slot[1]] == hash).then_some(slot[2].cast_signed())
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = XxHash3_128::oneshot_with_seed(self.seed, key).max(1);
        [(hash >> 64) as u64, hash as u64]
    }

    /// The slot of a hash, or the empty one where it would be put.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut at = (hash[1] % self.slots as u64) as usize;
        loop {
            match self.slot(at) {
                Some([0, 0, _]) | None => return at,
                Some([high, low, _]) if [*high, *low] == hash => return at,
                // A tenth of the slots at least is empty.
                Some(_) => at = if at + 1 == self.slots { 0 } else { at + 1 },
            }
        }
    }

    fn slot(&self, at: usize) -> Option<&Slot> {
        self.pieces.get(at / PIECE_SLOTS)?.get(at % PIECE_SLOTS)
    }

    fn slot_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.pieces
            .get_mut(at / PIECE_SLOTS)?
            .get_mut(at % PIECE_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn map(keys: u64, bytes_max: usize) -> OffsetMap {
        let mut map = OffsetMap::new(keys, bytes_max, 42);
        while map.grow() {}
        map
    }

    #[test]
    fn the_last_offset_of_each_key_is_found_up_to_the_bound() {
        let mut map = map(u64::MAX, 1_000_000 * SLOT_BYTES);
        let mut model = BTreeMap::new();
        let mut offset = 0;
        while !map.is_full() {
            let key = format!("key {}", offset * 7919 % 1_500_000);
            map.put(key.as_bytes(), offset);
            model.insert(key, offset);
            offset += 1;
        }
        assert_eq!((map.len(), map.latest_offset()), (model.len(), offset - 1));
        assert_eq!(model.len(), 900_000);
        for (key, offset) in &model {
            assert_eq!(map.get(key.as_bytes()), Some(*offset));
        }
        assert_eq!(map.get(b"another"), None);
        while map.shrink() {}
    }

    #[test]
    fn memory_is_taken_for_the_keys_there_can_be() {
        let mut few = map(10, usize::MAX);
        assert_eq!(few.pieces.len(), 1);
        for n in 0..10_u8 {
            assert!(!few.is_full());
            few.put(&[n], i64::from(n));
        }
        few.advance(99);
        assert_eq!(few.latest_offset(), 99);
    }
}
