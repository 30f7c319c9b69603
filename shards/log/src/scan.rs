//! Walks the batches of a segment file from disk, checking every one.
//!
//! Runs on the shard that owns the partition, in slices: after every [`SLICE_BYTES`] it lets other
//! tasks run. Reads bounded chunks; a length field alone never makes it allocate: a batch longer
//! than [`HELD_BYTES_MAX`] is checked piece by piece, and held only by who asks for its bytes. No
//! batch is too long for it: whoever wrote it, it is judged by what it is. Never repairs: it says
//! where valid batches end and why.

use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;
use chronik_io::{File, World};
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchCheck, BatchError, BatchHeader, LOG_OVERHEAD_BYTES, Scan, scan,
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 512 << 10;
/// The same at first: there may be little behind the place where a walk begins.
const FIRST_CHUNK_BYTES: usize = 16 << 10;
/// Bytes checked before other tasks get their turn: about 50 µs of CRC.
const SLICE_BYTES: u64 = 256 << 10;
/// Longest batch that is read as a whole to be checked, bytes.
pub const HELD_BYTES_MAX: usize = 4 << 20;

/// Why a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// The last batch ends where the bytes end.
    Exact,
    /// Zeros follow: space that was zeroed ahead.
    Zeros,
    /// What follows is no valid batch, for this reason.
    Torn(String),
}

/// One step of a walk.
#[derive(Clone, Debug)]
pub enum ScanStep {
    /// A valid batch, and where it begins in the file; [`LogScan::batch_bytes`] has its bytes.
    Batch {
        /// Its header.
        header: BatchHeader,
        /// Position of its first byte.
        position: u64,
    },
    /// No more valid batches.
    End(ScanEnd),
}

/// A walk over `[position, end)` of a file.
pub struct LogScan<'a, W: World> {
    world: &'a W,
    file: &'a W::File,
    position: u64,
    end: u64,
    /// Bytes of the file from `position` on, as far as they were read.
    chunk: Bytes,
    /// Bytes of the next read.
    chunk_bytes: usize,
    slice_left: u64,
    next_offset: i64,
    max_offset: i64,
    /// The batch given last: where it begins, its length, and its bytes if they were held.
    last: (u64, usize, Bytes),
}

impl<'a, W: World> LogScan<'a, W> {
    /// Begins at `position`, where a batch should begin whose base offset is at least
    /// `next_offset`. Offsets above `base_offset + i32::MAX` do not belong into the segment.
    pub fn new(
        world: &'a W,
        file: &'a W::File,
        base_offset: i64,
        (position, end): (u64, u64),
        next_offset: i64,
    ) -> Self {
        Self {
            world,
            file,
            position,
            end: end.min(file.len()),
            chunk: Bytes::new(),
            chunk_bytes: FIRST_CHUNK_BYTES,
            slice_left: SLICE_BYTES,
            next_offset,
            max_offset: base_offset.saturating_add(i64::from(i32::MAX)),
            last: (0, 0, Bytes::new()),
        }
    }

    /// The offset in the segment's name.
    pub(crate) fn base_offset(&self) -> i64 {
        self.max_offset.saturating_sub(i64::from(i32::MAX))
    }

    /// Another walk over the same segment, from a later place on.
    pub(crate) fn behind(&self, position: u64) -> LogScan<'a, W> {
        LogScan {
            position,
            chunk: Bytes::new(),
            last: (0, 0, Bytes::new()),
            ..*self
        }
    }

    /// Where the next batch would begin: after the end of a walk, where valid batches end.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// One more than the last valid batch's last offset.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The next batch, or the end.
    pub async fn step(&mut self) -> io::Result<ScanStep> {
        loop {
            let left = self.end.saturating_sub(self.position);
            if left == 0 {
                return Ok(ScanStep::End(ScanEnd::Exact));
            }
            let wanted = match scan(&self.chunk) {
                Scan::Complete(header) => return self.accept(header).await,
                Scan::End => return Ok(ScanStep::End(ScanEnd::Zeros)),
                Scan::Corrupt(BatchError::LegacyMagic { .. }) if is_legacy_message(&self.chunk) => {
                    return Err(self.legacy());
                }
                Scan::Corrupt(error) => return Ok(torn(error.to_string())),
                Scan::NeedMore(wanted) => wanted,
            };
            if wanted as u64 > left {
                return self.cut_short(wanted, left).await;
            }
            if wanted > HELD_BYTES_MAX {
                return self.step_over_long().await;
            }
            let missing = self.chunk.len() < wanted;
            assert!(
                missing,
                "the scan asked for {wanted} bytes of {}",
                self.chunk.len()
            );
            self.read(wanted).await?;
        }
    }

    /// The bytes of the batch that the last step gave; empty before the first. One longer than
    /// [`HELD_BYTES_MAX`] is read once more.
    pub async fn batch_bytes(&mut self) -> io::Result<Bytes> {
        let (position, size, bytes) = &self.last;
        if bytes.len() == *size {
            return Ok(bytes.clone());
        }
        let bytes = self.file.read_at(*position, *size).await?;
        if bytes.len() < *size {
            return Err(self.came_short(bytes.len(), *size));
        }
        Ok(bytes)
    }

    /// After a tear: goes on at the next valid batch behind it, if there is one. Gives where it begins
    /// and its base offset. Records may hold batches themselves, whole and with offsets that would fit:
    /// where the damaged batch still says how long it is, nothing inside it is looked at while a batch
    /// or the end follows there; and what is found by its bytes must be followed by something itself.
    pub async fn resync(&mut self) -> io::Result<Option<(u64, i64)>> {
        let offsets = self.next_offset..=self.max_offset;
        let mut at = self.position.saturating_add(1);
        if let Some(header) = self.header_at(self.position, &offsets).await? {
            let behind = self.position + header.size_bytes() as u64;
            if behind == self.end {
                return Ok(None);
            }
            if let Some(next) = self.batch_at(behind).await?
                && offsets.contains(&next.base_offset)
            {
                return Ok(Some(self.go_on_at(behind, &next)));
            }
            if self.only_zeros_at(behind).await? {
                at = behind;
            }
        }
        while at < self.end {
            let left = usize::try_from(self.end - at).unwrap_or(usize::MAX);
            let chunk = self.file.read_at(at, left.min(CHUNK_BYTES)).await?;
            let mut from = 0;
            while let Some(skip) = find_batch(chunk.get(from..).unwrap_or_default(), &offsets) {
                let candidate = at + (from + skip) as u64;
                if let Some(header) = self.batch_at(candidate).await?
                    && self.is_followed(candidate, &header).await?
                {
                    return Ok(Some(self.go_on_at(candidate, &header)));
                }
                from += skip + 1;
            }
            if chunk.len() <= BATCH_HEADER_BYTES {
                break;
            }
            // What may be the front of a header is looked at again.
            at += (chunk.len() - BATCH_HEADER_BYTES) as u64;
            self.world.pause().await;
        }
        Ok(None)
    }

    fn go_on_at(&mut self, position: u64, header: &BatchHeader) -> (u64, i64) {
        (self.position, self.chunk) = (position, Bytes::new());
        (position, header.base_offset)
    }

    /// Whether the end, zeros or another batch of this log, damaged or not, stand behind a batch.
    async fn is_followed(&self, position: u64, header: &BatchHeader) -> io::Result<bool> {
        let behind = position.saturating_add(header.size_bytes() as u64);
        let offsets = header.next_offset()..=self.max_offset;
        Ok(self.only_zeros_at(behind).await? || self.header_at(behind, &offsets).await?.is_some())
    }

    /// Whether nothing but zeros stands where a header could, or the file ends there.
    async fn only_zeros_at(&self, position: u64) -> io::Result<bool> {
        let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let front = left.min(BATCH_HEADER_BYTES);
        let front = self.file.read_at(position, front).await?;
        Ok(front.iter().all(|byte| *byte == 0))
    }

    /// The header at `position`, if it may be that of a batch of this log that ends in the file.
    async fn header_at(
        &self,
        position: u64,
        offsets: &RangeInclusive<i64>,
    ) -> io::Result<Option<BatchHeader>> {
        let left = self.end.saturating_sub(position);
        if left < BATCH_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self.file.read_at(position, BATCH_HEADER_BYTES).await?;
        let header = match find_batch(&bytes, offsets) {
            Some(0) => BatchHeader::peek(&bytes).ok(),
            _ => None,
        };
        Ok(header.filter(|header| header.size_bytes() as u64 <= left))
    }

    /// The header of the batch at `position`, if a valid one is there.
    async fn batch_at(&self, position: u64) -> io::Result<Option<BatchHeader>> {
        let left = self.end.saturating_sub(position);
        let mut wanted = BATCH_HEADER_BYTES;
        loop {
            if wanted as u64 > left {
                return Ok(None);
            }
            let bytes = self
                .file
                .read_at(position, wanted.min(HELD_BYTES_MAX))
                .await?;
            match scan(&bytes) {
                Scan::Complete(header) => return Ok(Some(header)),
                Scan::NeedMore(_) if wanted > HELD_BYTES_MAX => {
                    let Ok(header) = BatchHeader::peek(&bytes) else {
                        return Ok(None);
                    };
                    let fault = self.fault_of_long(position, &header).await?;
                    return Ok(fault.is_none().then_some(header));
                }
                Scan::NeedMore(more) if more > wanted => wanted = more,
                _ => return Ok(None),
            }
        }
    }

    /// What is wrong with a long batch that ends in the file; reads and drops it piece by piece.
    pub async fn fault_of_long(
        &self,
        position: u64,
        header: &BatchHeader,
    ) -> io::Result<Option<BatchError>> {
        let size = header.size_bytes();
        let mut check = BatchCheck::new(*header);
        let mut seen = 0;
        while seen < size {
            let length = (size - seen).min(CHUNK_BYTES);
            let piece = self.file.read_at(position + seen as u64, length).await?;
            if piece.len() < length {
                return Err(self.came_short(piece.len(), length));
            }
            check.push(&piece);
            seen += length;
            self.world.pause().await;
        }
        Ok(check.finish().err())
    }

    /// Steps over a batch that is too long to be held and ends in the file.
    async fn step_over_long(&mut self) -> io::Result<ScanStep> {
        let header = match BatchHeader::peek(&self.chunk) {
            Ok(header) => header,
            Err(error) => return Ok(torn(error.to_string())),
        };
        if let Some(fault) = self.fault_of_long(self.position, &header).await? {
            return Ok(torn(fault.to_string()));
        }
        self.accept(header).await
    }

    fn came_short(&self, found: usize, wanted: usize) -> io::Error {
        let what = format!("{found} bytes at {} instead of {wanted}", self.position);
        io::Error::new(io::ErrorKind::UnexpectedEof, what)
    }

    async fn read(&mut self, wanted: usize) -> io::Result<()> {
        let left = self.end.saturating_sub(self.position);
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(wanted.max(self.chunk_bytes));
        self.chunk_bytes = (self.chunk_bytes * 4).min(CHUNK_BYTES);
        self.chunk = self.file.read_at(self.position, length).await?;
        match self.chunk.len() < wanted {
            true => Err(self.came_short(self.chunk.len(), wanted)),
            false => Ok(()),
        }
    }

    /// The file ends before the batch does. Fewer than 17 bytes of zeros count as zeros.
    async fn cut_short(&mut self, wanted: usize, left: u64) -> io::Result<ScanStep> {
        if (self.chunk.len() as u64) < left && left < CHUNK_BYTES as u64 {
            self.chunk = self.file.read_at(self.position, left as usize).await?;
        }
        let zeros = self.chunk.len() as u64 == left && self.chunk.iter().all(|byte| *byte == 0);
        if zeros {
            return Ok(ScanStep::End(ScanEnd::Zeros));
        }
        if is_legacy_message(&self.chunk) {
            return Err(self.legacy());
        }
        Ok(torn(format!(
            "a batch needs {wanted} bytes and {left} are left"
        )))
    }

    /// Such messages were valid in their time: they are to be refused, not to be cut.
    fn legacy(&self) -> io::Error {
        let at = self.position;
        let what = format!("a message of the format before Kafka 0.11 at {at} is not supported");
        io::Error::new(io::ErrorKind::Unsupported, what)
    }

    async fn accept(&mut self, header: BatchHeader) -> io::Result<ScanStep> {
        let (base, last) = (header.base_offset, header.last_offset());
        if base < self.next_offset || last > self.max_offset || last == i64::MAX {
            let expected = self.next_offset;
            return Ok(torn(format!(
                "offsets {base} to {last} cannot follow {expected}"
            )));
        }
        let size = header.size_bytes();
        let position = self.position;
        if position + size as u64 > i32::MAX as u64 {
            return Ok(torn("the segment is longer than 2 GiB".to_owned()));
        }
        let held = self.chunk.len() >= size;
        let bytes = match held {
            true => self.chunk.split_to(size),
            false => std::mem::take(&mut self.chunk).slice(..0),
        };
        self.last = (position, size, bytes);
        self.position += size as u64;
        self.next_offset = header.next_offset();
        match self.slice_left.checked_sub(size as u64) {
            Some(left) => self.slice_left = left,
            None => {
                self.slice_left = SLICE_BYTES;
                self.world.pause().await;
            }
        }
        Ok(ScanStep::Batch { header, position })
    }
}

/// Where in `bytes` a batch may begin whose base offset is one of `offsets`: judged by its first 17
/// bytes only.
pub(crate) fn find_batch(bytes: &[u8], offsets: &RangeInclusive<i64>) -> Option<usize> {
    const FRONT_BYTES: usize = 17;
    let may_begin = |front: &[u8]| match front {
        [a, b, c, d, e, f, g, h, l0, l1, l2, l3, _, _, _, _, 2] => {
            let base = i64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let length = i32::from_be_bytes([*l0, *l1, *l2, *l3]);
            offsets.contains(&base)
                && usize::try_from(length)
                    .is_ok_and(|length| length + LOG_OVERHEAD_BYTES >= BATCH_HEADER_BYTES)
        }
        _ => false,
    };
    bytes.windows(FRONT_BYTES).position(may_begin)
}

fn torn(why: String) -> ScanStep {
    ScanStep::End(ScanEnd::Torn(why))
}

/// Whether `bytes` begin with a whole message of magic 0 or 1: its CRC-32 (that of Ethernet, not
/// CRC-32C) over everything behind the CRC field is right. A torn batch can look like one at first
/// glance, for its magic byte may be a zero that was never overwritten.
fn is_legacy_message(bytes: &[u8]) -> bool {
    const CRC_END: usize = LOG_OVERHEAD_BYTES + 4;
    let field = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|field| field.try_into().ok())
    };
    let (Some(size), Some(crc)) = (field(8), field(LOG_OVERHEAD_BYTES)) else {
        return false;
    };
    let Ok(size) = usize::try_from(i32::from_be_bytes(size)) else {
        return false;
    };
    let body = bytes.get(CRC_END..LOG_OVERHEAD_BYTES.saturating_add(size));
    let body = body.filter(|body| matches!(body.first(), Some(0 | 1)));
    body.is_some_and(|body| crc32(body) == u32::from_be_bytes(crc))
}

/// CRC-32 as Java's, bit by bit: for one message at most, and only of a directory to be refused.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = crc & 1;
            (crc >> 1) ^ (0xedb8_8320 * carry)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chronik_io::OpenMode;
    use chronik_io::simulated::Simulation;
    use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};

    use super::*;

    /// Magic 1: CRC, magic, attributes, timestamp, key (null), value.
    fn legacy_message(value: &[u8]) -> Vec<u8> {
        let mut body = vec![1, 0];
        body.extend_from_slice(&1_500_000_000_000_i64.to_be_bytes());
        body.extend_from_slice(&(-1_i32).to_be_bytes());
        body.extend_from_slice(&i32::try_from(value.len()).expect("short").to_be_bytes());
        body.extend_from_slice(value);
        let mut message = 5_i64.to_be_bytes().to_vec();
        let size = i32::try_from(body.len() + 4).expect("short");
        message.extend_from_slice(&size.to_be_bytes());
        message.extend_from_slice(&crc32(&body).to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    #[test]
    fn legacy_messages_are_told_from_torn_batches() {
        assert_eq!(
            crc32(b"123456789"),
            0xcbf4_3926,
            "the check value of CRC-32"
        );
        let mut message = legacy_message(b"old");
        assert!(is_legacy_message(&message));
        assert!(!is_legacy_message(&message[..message.len() - 1]));
        *message.last_mut().expect("bytes") ^= 1;
        assert!(!is_legacy_message(&message));
        assert!(!is_legacy_message(&[0; 40]));
    }

    fn batch(offset: i64, value: &[u8]) -> CheckedBatch {
        let mut builder = BatchBuilder::new(0);
        let record = NewRecord {
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("a record");
        builder.build().expect("a batch").with_offsets(offset, 0)
    }

    /// Where a scan goes on that meets damage in the second batch, whose value is `inner`.
    fn goes_on_behind(inner: &[u8], others: &[i64], zeros: usize) -> Option<(u64, i64)> {
        let mut bytes = batch(0, b"first").bytes.to_vec();
        let from = bytes.len();
        bytes.extend_from_slice(&batch(1, inner).bytes);
        // The last byte of the header: the records' count.
        bytes[from + BATCH_HEADER_BYTES - 1] ^= 2;
        for offset in others {
            bytes.extend_from_slice(&batch(*offset, b"other").bytes);
        }
        bytes.resize(bytes.len() + zeros, 0);
        let mut simulation = Simulation::new(1);
        let world = simulation.world();
        simulation.run(async move {
            let path = Path::new("/00000000000000000000.log");
            let written = world.write_file_atomic(path, &bytes).await;
            written.expect("written");
            let file = world.open_file(path, OpenMode::Read).await.expect("opens");
            let range = (from as u64, bytes.len() as u64);
            let mut scan = LogScan::new(&world, &file, 0, range, 1);
            scan.resync().await.expect("reads")
        })
    }

    /// Topics that mirror other logs hold whole batches as values.
    #[test]
    fn a_batch_inside_a_damaged_batch_is_not_one_of_this_log() {
        let inner = batch(7, b"of another log");
        let size = batch(1, &inner.bytes).bytes.len();
        let behind = (batch(0, b"first").bytes.len() + size) as u64;
        assert_eq!(goes_on_behind(&inner.bytes, &[2, 3], 0), Some((behind, 2)));
        assert_eq!(goes_on_behind(&inner.bytes, &[2], 900), Some((behind, 2)));
        assert_eq!(goes_on_behind(&inner.bytes, &[], 0), None);
        assert_eq!(goes_on_behind(&inner.bytes, &[], 900), None);
    }
}
