//! How a ring looks in its file: the file's header, and that of an entry.
//!
//! Owns the layout, in both directions; all numbers are little-endian. Never trusts a byte it reads:
//! a file may have been torn by a power cut.
//!
//! ```text
//! file    0 magic u64 · 8 version u32 · 12 crc u32 · 16 boot id u128 · 32 incarnation u64
//!        40 data bytes u64 · 64 tail: sequence (40 bits) and place of the oldest live entry
//!      4096 data: entries, each at a multiple of 64
//! entry   0 magic u32 · 4 length u32 · 8 incarnation u64 · 16 sequence u64 · 24 topic id u128
//!        40 partition index i32 · 44 crc u32 · 48 the batch as it is in the log
//! ```
//!
//! An entry's CRC-32C covers its header and the batch up to and with the batch's own CRC, which
//! covers the rest. It is stored last: an entry that was not stored to its end has no CRC that fits.

use bytes::Buf;
use chronik_protocol::Uuid;
use chronik_protocol::record::crc32c;

use chronik_terms::PartitionId;

/// Bytes in front of the data.
pub(super) const DATA_START: usize = 4096;
/// Entries begin at multiples of this, a cache line.
pub(super) const UNIT_BYTES: usize = 64;
/// Bytes of an entry in front of its batch.
pub(super) const ENTRY_HEADER_BYTES: usize = 48;
/// Place of the word that makes an entry valid, from its start.
pub(super) const ENTRY_WORD: usize = 40;
/// Place of the tail in the file; on a cache line of its own.
pub(super) const TAIL_WORD: usize = 64;
/// Largest ring: what the tail's 24 bits of place reach.
pub(super) const DATA_BYTES_MAX: usize = 1 << 30;

/// First bytes of a batch that the entry's CRC covers: up to and with the batch's CRC.
pub(super) const BATCH_FRONT_BYTES: usize = 21;

const FILE_MAGIC: u64 = u64::from_le_bytes(*b"chrkring");
const FILE_VERSION: u32 = 1;
const FILE_HEADER_BYTES: usize = 48;
const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"kept");
const WRAP_MAGIC: u32 = u32::from_le_bytes(*b"wrap");
const SEQUENCE_BITS: u32 = 40;
const PLACE_BITS: u32 = 24;

const _: () = assert!(SEQUENCE_BITS + PLACE_BITS == u64::BITS);
const _: () = assert!(DATA_BYTES_MAX / UNIT_BYTES <= 1 << PLACE_BITS);
const _: () = assert!(ENTRY_HEADER_BYTES < UNIT_BYTES && ENTRY_WORD + 8 == ENTRY_HEADER_BYTES);

/// What a ring's file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// The boot in which it was made; its content means nothing in another.
    pub(super) boot_id: u128,
    /// Names this ring, so that no entry of another passes for its own.
    pub(super) incarnation: u64,
    /// Bytes of data.
    pub(super) data_bytes: u64,
}

impl FileHeader {
    pub(super) fn to_bytes(self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&FILE_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.boot_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.data_bytes.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of a whole file, if it is one.
    pub(super) fn parse(file: &[u8]) -> Option<FileHeader> {
        let mut bytes: [u8; FILE_HEADER_BYTES] = file.get(..FILE_HEADER_BYTES)?.try_into().ok()?;
        let whole = bytes;
        let mut fields = &whole[..];
        let (magic, version, crc) = (
            fields.get_u64_le(),
            fields.get_u32_le(),
            fields.get_u32_le(),
        );
        bytes[12..16].fill(0);
        if (magic, version) != (FILE_MAGIC, FILE_VERSION) || crc != crc32c(&bytes) {
            return None;
        }
        Some(FileHeader {
            boot_id: fields.get_u128_le(),
            incarnation: fields.get_u64_le(),
            data_bytes: fields.get_u64_le(),
        })
    }
}

/// Where the oldest live entry begins, and its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// From the data's start.
    pub(super) at: usize,
    /// Its low 40 bits count.
    pub(super) sequence: u64,
}

impl Tail {
    pub(super) fn to_word(self) -> u64 {
        debug_assert!(self.at.is_multiple_of(UNIT_BYTES) && self.at < DATA_BYTES_MAX);
        self.sequence << PLACE_BITS | (self.at / UNIT_BYTES) as u64
    }

    pub(super) fn from_word(word: u64) -> Tail {
        let place = word & ((1 << PLACE_BITS) - 1);
        Tail {
            at: usize::try_from(place).unwrap_or(0) * UNIT_BYTES,
            sequence: word >> PLACE_BITS,
        }
    }

    /// Whether an entry with this number is the one meant.
    pub(super) fn is(self, sequence: u64) -> bool {
        sequence & ((1 << SEQUENCE_BITS) - 1) == self.sequence
    }
}

/// What stands in front of a batch, or at the end of a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    /// Bytes of the batch; `None` says that the next entry is at the data's start.
    pub(super) batch_bytes: Option<u32>,
    /// As in [`FileHeader`].
    pub(super) incarnation: u64,
    /// One more than the entry's before it.
    pub(super) sequence: u64,
    /// Whose batch it is.
    pub(super) partition: PartitionId,
}

impl EntryHeader {
    /// All of it with the CRC, for a batch that begins with `front`
    /// ([`BATCH_FRONT_BYTES`] long; empty at the end of a lap).
    pub(super) fn to_bytes(self, front: &[u8]) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES + BATCH_FRONT_BYTES];
        let magic = match self.batch_bytes {
            Some(_) => ENTRY_MAGIC,
            None => WRAP_MAGIC,
        };
        bytes[0..4].copy_from_slice(&magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.batch_bytes.unwrap_or(0).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.partition.topic_id.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.partition.index.to_le_bytes());
        let end = ENTRY_HEADER_BYTES + front.len();
        bytes[ENTRY_HEADER_BYTES..end].copy_from_slice(front);
        let crc = crc32c(&bytes[..end]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        let mut header = [0; ENTRY_HEADER_BYTES];
        header.copy_from_slice(&bytes[..ENTRY_HEADER_BYTES]);
        header
    }

    /// The header at the front of `data`, if its CRC fits.
    pub(super) fn parse(data: &[u8]) -> Option<EntryHeader> {
        let bytes = data.get(..ENTRY_HEADER_BYTES)?;
        let mut fields = bytes;
        let (magic, length) = (fields.get_u32_le(), fields.get_u32_le());
        let header = EntryHeader {
            batch_bytes: (magic == ENTRY_MAGIC).then_some(length),
            incarnation: fields.get_u64_le(),
            sequence: fields.get_u64_le(),
            partition: PartitionId {
                topic_id: Uuid(fields.get_u128_le()),
                index: fields.get_i32_le(),
            },
        };
        let front = match magic {
            ENTRY_MAGIC => data.get(ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + BATCH_FRONT_BYTES)?,
            WRAP_MAGIC => &[],
            _ => return None,
        };
        (header.to_bytes(front) == *bytes).then_some(header)
    }
}

/// What an entry takes of the ring.
pub(super) fn entry_bytes(batch_bytes: usize) -> usize {
    (ENTRY_HEADER_BYTES + batch_bytes).next_multiple_of(UNIT_BYTES)
}
