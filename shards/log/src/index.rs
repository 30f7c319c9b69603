//! The sparse offset index and the time index of one segment, and Kafka's bytes for both.
//!
//! The active segment's entries live in memory only (8 bytes per `index.interval.bytes` of log, at
//! most `segment.index.bytes`) and reach the disk when the segment is sealed or closed: a crash
//! rescans the active segment anyway, so an index file kept up to date on the way would be written
//! for nothing. Sealed segments' entries are looked up in the file's bytes as they are.
//! Formats: Kafka's `OffsetIndex` and `TimeIndex`. Nothing here does I/O.

use super::remembered::RememberedIndex;

/// Least distance of two entries in a checkpoint, bytes of log.
const REMEMBERED_INTERVAL_BYTES: u32 = 64 << 10;
/// Bytes of an offset index entry: relative offset and position, four each.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of a time index entry: timestamp eight, relative offset four.
pub const TIME_ENTRY_BYTES: usize = 12;
/// Timestamp of an empty time index, as Kafka's `RecordBatch.NO_TIMESTAMP`.
pub const NO_TIMESTAMP: i64 = -1;

/// Why an index file cannot be used; it is rebuilt from the log then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// The file's length is no multiple of the entry's.
    Length,
    /// Entries do not ascend.
    Order,
    /// An entry points outside its segment.
    Range,
}

impl std::fmt::Display for IndexFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Length => "its length is not a multiple of the entry size",
            Self::Order => "its entries do not ascend",
            Self::Range => "an entry points outside the segment",
        })
    }
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_be_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

/// Number of entries in `bytes` of `size` each for which `before` holds, given that they ascend.
fn partition_point(bytes: &[u8], size: usize, before: impl Fn(&[u8]) -> bool) -> usize {
    let (mut low, mut high) = (0, bytes.len() / size);
    while low < high {
        let middle = (low + high) / 2;
        match bytes.get(middle * size..(middle + 1) * size) {
            Some(entry) if before(entry) => low = middle + 1,
            _ => high = middle,
        }
    }
    low
}

/// Offsets to positions: entry *n* says that the batch at `position` ends with `offset`.
#[derive(Clone, Debug, Default)]
pub struct OffsetIndex {
    base_offset: i64,
    /// (offset − base, position); both ascend strictly.
    entries: Vec<(i32, u32)>,
}

impl OffsetIndex {
    /// An empty index of the segment that begins with `base_offset`.
    pub fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            entries: Vec::new(),
        }
    }

    /// Reads a file's bytes and checks every entry against the segment's length in bytes.
    pub fn parse(base_offset: i64, bytes: &[u8], log_bytes: u64) -> Result<Self, IndexFault> {
        let view = OffsetIndexView::new(base_offset, bytes)?;
        let mut entries: Vec<(i32, u32)> = Vec::with_capacity(bytes.len() / OFFSET_ENTRY_BYTES);
        for at in (0..view.bytes.len()).step_by(OFFSET_ENTRY_BYTES) {
            let relative = i32_at(bytes, at).ok_or(IndexFault::Length)?;
            let position = i32_at(bytes, at + 4).ok_or(IndexFault::Length)?;
            let position = u32::try_from(position).map_err(|_| IndexFault::Range)?;
            if relative < 0 || u64::from(position) >= log_bytes {
                return Err(IndexFault::Range);
            }
            if entries
                .last()
                .is_some_and(|last| relative <= last.0 || position <= last.1)
            {
                return Err(IndexFault::Order);
            }
            entries.push((relative, position));
        }
        Ok(Self {
            base_offset,
            entries,
        })
    }

    /// Adds an entry. The caller has checked that the offset fits (segments roll before they
    /// cannot), so a refusal would be our own bug.
    pub fn push(&mut self, last_offset: i64, position: u32) {
        let relative = relative_offset(self.base_offset, last_offset);
        assert!(
            self.entries
                .last()
                .is_none_or(|last| relative > last.0 && position > last.1),
            "offset index entries must ascend: {last_offset} at {position} after {:?}",
            self.entries.last()
        );
        self.entries.push((relative, position));
    }

    /// Where to start looking for `offset`: the position of the last indexed batch that ends at or
    /// before it, else 0.
    pub fn lookup(&self, offset: i64) -> u32 {
        let relative = offset.saturating_sub(self.base_offset);
        let at = self
            .entries
            .partition_point(|entry| i64::from(entry.0) <= relative);
        at.checked_sub(1)
            .and_then(|at| self.entries.get(at))
            .map_or(0, |entry| entry.1)
    }

    /// Last entry as (offset, position).
    pub fn last(&self) -> Option<(i64, u32)> {
        self.entries
            .last()
            .map(|entry| (self.base_offset + i64::from(entry.0), entry.1))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * OFFSET_ENTRY_BYTES);
        for (relative, position) in &self.entries {
            bytes.extend_from_slice(&relative.to_be_bytes());
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        bytes
    }
}

/// Offset relative to a segment's base.
///
/// # Panics
/// When it does not fit: the roll rule keeps every offset of a segment within `i32::MAX` of its base.
fn relative_offset(base_offset: i64, offset: i64) -> i32 {
    offset
        .checked_sub(base_offset)
        .and_then(|relative| i32::try_from(relative).ok())
        .filter(|relative| *relative >= 0)
        .unwrap_or_else(|| panic!("offset {offset} does not fit a segment based at {base_offset}"))
}

/// A sealed segment's offset index, looked up in the file's bytes.
#[derive(Clone, Copy, Debug)]
pub struct OffsetIndexView<'a> {
    base_offset: i64,
    bytes: &'a [u8],
}

impl<'a> OffsetIndexView<'a> {
    /// Checks the length and the first and last entry only (Kafka's sanity check); a lookup that
    /// lands wrong is noticed by the read behind it.
    pub fn new(base_offset: i64, bytes: &'a [u8]) -> Result<Self, IndexFault> {
        if !bytes.len().is_multiple_of(OFFSET_ENTRY_BYTES) {
            return Err(IndexFault::Length);
        }
        let last = bytes.len().checked_sub(OFFSET_ENTRY_BYTES);
        if last
            .and_then(|at| i32_at(bytes, at))
            .is_some_and(|relative| relative < 0)
        {
            return Err(IndexFault::Range);
        }
        Ok(Self { base_offset, bytes })
    }

    /// As [`OffsetIndex::lookup`].
    pub fn lookup(&self, offset: i64) -> u32 {
        let relative = offset.saturating_sub(self.base_offset);
        let at = partition_point(self.bytes, OFFSET_ENTRY_BYTES, |entry| {
            i32_at(entry, 0).is_some_and(|entry| i64::from(entry) <= relative)
        });
        at.checked_sub(1)
            .and_then(|at| i32_at(self.bytes, at * OFFSET_ENTRY_BYTES + 4))
            .and_then(|position| u32::try_from(position).ok())
            .unwrap_or(0)
    }
}

/// Timestamps to offsets: entry *n* says that `timestamp` is the greatest up to `offset`.
#[derive(Clone, Debug, Default)]
pub struct TimeIndex {
    base_offset: i64,
    /// (timestamp in ms, offset − base); both ascend.
    entries: Vec<(i64, i32)>,
}

impl TimeIndex {
    /// An empty index of the segment that begins with `base_offset`.
    pub fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            entries: Vec::new(),
        }
    }

    /// Reads a file's bytes.
    pub fn parse(base_offset: i64, bytes: &[u8]) -> Result<Self, IndexFault> {
        if !bytes.len().is_multiple_of(TIME_ENTRY_BYTES) {
            return Err(IndexFault::Length);
        }
        let mut entries: Vec<(i64, i32)> = Vec::with_capacity(bytes.len() / TIME_ENTRY_BYTES);
        for at in (0..bytes.len()).step_by(TIME_ENTRY_BYTES) {
            let timestamp = i64_at(bytes, at).ok_or(IndexFault::Length)?;
            let relative = i32_at(bytes, at + 8).ok_or(IndexFault::Length)?;
            if relative < 0 {
                return Err(IndexFault::Range);
            }
            if entries
                .last()
                .is_some_and(|last| timestamp <= last.0 || relative < last.1)
            {
                return Err(IndexFault::Order);
            }
            entries.push((timestamp, relative));
        }
        Ok(Self {
            base_offset,
            entries,
        })
    }

    /// Adds an entry if the timestamp is greater than every one before (`TimeIndex#maybeAppend`).
    pub fn push_if_greater(&mut self, timestamp: i64, offset: i64) {
        let last = self.entries.last().map_or(NO_TIMESTAMP, |entry| entry.0);
        if timestamp > last {
            self.entries
                .push((timestamp, relative_offset(self.base_offset, offset)));
        }
    }

    /// The offset from which on to look for the first record with at least `timestamp`.
    pub fn lookup(&self, timestamp: i64) -> i64 {
        let at = self.entries.partition_point(|entry| entry.0 <= timestamp);
        let entry = at.checked_sub(1).and_then(|at| self.entries.get(at));
        entry.map_or(self.base_offset, |entry| {
            self.base_offset + i64::from(entry.1)
        })
    }

    /// Last entry as (timestamp, offset).
    pub fn last(&self) -> Option<(i64, i64)> {
        self.entries
            .last()
            .map(|entry| (entry.0, self.base_offset + i64::from(entry.1)))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * TIME_ENTRY_BYTES);
        for (timestamp, relative) in &self.entries {
            bytes.extend_from_slice(&timestamp.to_be_bytes());
            bytes.extend_from_slice(&relative.to_be_bytes());
        }
        bytes
    }
}

/// Builds both indexes of a segment batch by batch, by Kafka's rule (`LogSegment#append` and
/// `#recover` agree on it): an entry for the first batch that starts more than `interval_bytes`
/// behind the last indexed one, carrying that batch's *last* offset.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    /// Offsets to positions.
    pub offsets: OffsetIndex,
    /// Timestamps to offsets.
    pub times: TimeIndex,
    bytes_since_entry: u64,
    max_timestamp: i64,
    offset_of_max_timestamp: i64,
}

impl IndexBuilder {
    /// For an empty segment that begins with `base_offset`.
    pub fn new(base_offset: i64) -> Self {
        Self {
            offsets: OffsetIndex::new(base_offset),
            times: TimeIndex::new(base_offset),
            bytes_since_entry: 0,
            max_timestamp: NO_TIMESTAMP,
            offset_of_max_timestamp: base_offset,
        }
    }

    /// Continues a segment whose indexes were read from files; the batches behind the last offset
    /// entry's position are to be given to [`IndexBuilder::resume`] in order.
    pub fn from_files(offsets: OffsetIndex, times: TimeIndex) -> Self {
        let (max_timestamp, offset_of_max_timestamp) =
            times.last().unwrap_or((NO_TIMESTAMP, offsets.base_offset));
        Self {
            offsets,
            times,
            bytes_since_entry: 0,
            max_timestamp,
            offset_of_max_timestamp,
        }
    }

    /// What a checkpoint remembers: entries at least [`REMEMBERED_INTERVAL_BYTES`] apart, for a read
    /// takes more than that at once.
    pub(crate) fn remember(&self) -> RememberedIndex {
        let mut offsets: Vec<(i32, u32)> = Vec::new();
        for entry in &self.offsets.entries {
            let next = offsets.last().map_or(0, |last| last.1);
            if entry.1.saturating_sub(next) >= REMEMBERED_INTERVAL_BYTES {
                offsets.push(*entry);
            }
        }
        let mut times: Vec<(i64, i32)> = Vec::new();
        let mut below = offsets.iter().map(|entry| entry.0).peekable();
        for entry in &self.times.entries {
            // The last one of each stretch between two offset entries.
            let mut begins = times.is_empty();
            while below.next_if(|below| *below < entry.1).is_some() {
                begins = true;
            }
            match times.last_mut() {
                Some(last) if !begins => *last = *entry,
                _ => times.push(*entry),
            }
        }
        RememberedIndex {
            offsets,
            times,
            bytes_since_entry: self.bytes_since_entry,
            max_timestamp: self.max_timestamp,
            offset_of_max_timestamp: self.offset_of_max_timestamp,
        }
    }

    /// The reverse, for a segment of `end` bytes and offsets below `base_offset + records`; `None` if
    /// an entry is out of order or points outside.
    pub(crate) fn remembered(
        base_offset: i64,
        from: &RememberedIndex,
        records: i64,
        end: u64,
    ) -> Option<Self> {
        let inside = |relative: i32| relative >= 0 && i64::from(relative) < records;
        let offsets = from.offsets.windows(2).all(|pair| match pair {
            [one, next] => one.0 < next.0 && one.1 < next.1,
            _ => true,
        });
        let times = from.times.windows(2).all(|pair| match pair {
            [one, next] => one.0 < next.0 && one.1 <= next.1,
            _ => true,
        });
        let mut positions = from.offsets.iter();
        let sound = offsets
            && times
            && positions.all(|entry| inside(entry.0) && u64::from(entry.1) < end)
            && from.times.iter().all(|entry| inside(entry.1))
            && from
                .times
                .last()
                .is_none_or(|last| last.0 <= from.max_timestamp)
            && from.offset_of_max_timestamp >= base_offset
            && from.offset_of_max_timestamp <= base_offset.saturating_add(records);
        sound.then(|| Self {
            offsets: OffsetIndex {
                base_offset,
                entries: from.offsets.clone(),
            },
            times: TimeIndex {
                base_offset,
                entries: from.times.clone(),
            },
            bytes_since_entry: from.bytes_since_entry,
            max_timestamp: from.max_timestamp,
            offset_of_max_timestamp: from.offset_of_max_timestamp,
        })
    }

    /// Takes note of an appended batch at `position`.
    pub fn append(&mut self, batch: &IndexedBatch, interval_bytes: u32) {
        self.note_timestamp(batch);
        if self.bytes_since_entry > u64::from(interval_bytes) {
            self.offsets.push(batch.last_offset, batch.position);
            self.times
                .push_if_greater(self.max_timestamp, self.offset_of_max_timestamp);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += u64::from(batch.size_bytes);
    }

    /// The next batch gets an entry whatever its distance: nobody can walk to it.
    pub(crate) fn index_next(&mut self) {
        self.bytes_since_entry = u64::MAX / 2;
    }

    /// Takes note of a batch that stands at or behind the last entry read from the files.
    pub fn resume(&mut self, batch: &IndexedBatch) {
        self.note_timestamp(batch);
        self.bytes_since_entry += u64::from(batch.size_bytes);
    }

    fn note_timestamp(&mut self, batch: &IndexedBatch) {
        if batch.max_timestamp > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp;
            self.offset_of_max_timestamp = batch.last_offset;
        }
    }

    /// Greatest timestamp of the segment, ms, −1 when it has none.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Whether the next entry might not fit into `index_bytes_max` any more. The time index keeps
    /// one entry in reserve for the segment's maximum (`TimeIndex#isFull`).
    pub fn is_full(&self, index_bytes_max: u32) -> bool {
        let max = usize::try_from(index_bytes_max).unwrap_or(usize::MAX);
        self.offsets.len() >= max / OFFSET_ENTRY_BYTES
            || self.times.len() + 1 >= (max / TIME_ENTRY_BYTES).max(2)
    }

    /// Closes the time index with the segment's maximum, as sealing and closing do.
    pub fn finish(&mut self) {
        self.times
            .push_if_greater(self.max_timestamp, self.offset_of_max_timestamp);
    }
}

/// What the indexes want to know about a batch.
#[derive(Clone, Copy, Debug)]
pub struct IndexedBatch {
    /// Offset of its last record.
    pub last_offset: i64,
    /// Greatest timestamp in it, ms.
    pub max_timestamp: i64,
    /// Where it starts in the segment.
    pub position: u32,
    /// Its whole length.
    pub size_bytes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(last_offset: i64, max_timestamp: i64, position: u32) -> IndexedBatch {
        IndexedBatch {
            last_offset,
            max_timestamp,
            position,
            size_bytes: 1000,
        }
    }

    #[test]
    fn an_entry_follows_when_more_than_the_interval_was_passed() {
        let mut builder = IndexBuilder::new(100);
        for n in 0..12_u32 {
            // Timestamps fall after the third batch: the maximum so far is what gets indexed.
            let timestamp = if n < 3 { 50 + i64::from(n) } else { 10 };
            builder.append(&batch(100 + i64::from(n), timestamp, n * 1000), 4096);
        }
        // 5 × 1000 > 4096 passes before batch 5, and again before batch 10.
        assert_eq!(builder.offsets.entries, [(5, 5000), (10, 10_000)]);
        assert_eq!(builder.times.entries, [(52, 2)]);
        builder.finish();
        assert_eq!(builder.times.entries, [(52, 2)]);
    }

    #[test]
    fn the_segments_maximum_closes_the_time_index() {
        let mut builder = IndexBuilder::new(0);
        builder.append(&batch(0, 7, 0), 4096);
        assert!(builder.times.is_empty());
        builder.finish();
        assert_eq!(builder.times.last(), Some((7, 0)));
    }

    #[test]
    fn lookups_find_the_last_batch_that_ends_at_or_before() {
        let mut index = OffsetIndex::new(1000);
        for (offset, position) in [(1009, 4500), (1020, 9000), (1031, 13_500)] {
            index.push(offset, position);
        }
        let bytes = index.to_bytes();
        let view = OffsetIndexView::new(1000, &bytes).expect("own bytes");
        for (offset, position) in [
            (1000, 0),
            (1008, 0),
            (1009, 4500),
            (1019, 4500),
            (1030, 9000),
            (i64::MAX, 13_500),
        ] {
            assert_eq!(index.lookup(offset), position, "{offset}");
            assert_eq!(view.lookup(offset), position, "{offset}");
        }
        let parsed = OffsetIndex::parse(1000, &bytes, 20_000).expect("own bytes");
        assert_eq!(parsed.entries, index.entries);
    }

    #[test]
    fn garbled_indexes_are_refused() {
        let mut index = OffsetIndex::new(0);
        index.push(9, 4500);
        index.push(19, 9000);
        let good = index.to_bytes();
        let fault = |bytes: &[u8]| OffsetIndex::parse(0, bytes, 9001).err();
        assert_eq!(fault(&good), None);
        assert_eq!(fault(&good[..15]), Some(IndexFault::Length));
        assert_eq!(
            OffsetIndex::parse(0, &good, 9000).err(),
            Some(IndexFault::Range)
        );
        assert_eq!(
            fault(&[&good[8..], &good[..8]].concat()),
            Some(IndexFault::Order)
        );
        assert_eq!(fault(&[0xff; 8]), Some(IndexFault::Range));
        // Ten MiB of preallocated zeros, as Kafka leaves them after a crash.
        assert_eq!(fault(&[0; 16]), Some(IndexFault::Order));
        assert_eq!(TimeIndex::parse(0, &[0; 24]).err(), Some(IndexFault::Order));
        assert_eq!(
            TimeIndex::parse(0, &[0; 13]).err(),
            Some(IndexFault::Length)
        );
    }

    #[test]
    fn time_lookups_say_where_to_begin() {
        let mut times = TimeIndex::new(500);
        times.push_if_greater(100, 510);
        times.push_if_greater(90, 515);
        times.push_if_greater(200, 530);
        assert_eq!(times.len(), 2);
        let parsed = TimeIndex::parse(500, &times.to_bytes()).expect("own bytes");
        for (timestamp, offset) in [(99, 500), (100, 510), (199, 510), (200, 530), (9999, 530)] {
            assert_eq!(parsed.lookup(timestamp), offset, "{timestamp}");
        }
    }

    #[test]
    fn a_full_index_asks_for_a_roll() {
        let mut builder = IndexBuilder::new(0);
        assert!(!builder.is_full(36));
        builder.offsets.push(1, 10);
        builder.times.push_if_greater(1, 1);
        assert!(!builder.is_full(36));
        builder.times.push_if_greater(2, 2);
        assert!(builder.is_full(36));
    }
}
