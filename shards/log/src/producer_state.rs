//! What a partition remembers of idempotent producers: epochs, the last five batches, expiry.
//!
//! Owned by the partition on its shard. Answers whether a batch is new, a repetition or out of
//! sequence (`ProducerStateManager`, `ProducerAppendInfo`, `ProducerStateEntry`), and reads and
//! writes Kafka's `.snapshot` bytes. Never does I/O, and never decides when a repetition may be
//! acknowledged: that depends on durability, which the partition knows.

use std::collections::{BTreeMap, HashMap};

use chronik_protocol::ErrorCode;
use chronik_protocol::record::{BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE, crc32c};

use crate::remembered::RememberedProducer;

/// The last batch of a producer that is still remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBatch {
    /// Offset of its last record of data, if one is known.
    pub(crate) data_offset: Option<i64>,
    /// The producer's epoch.
    pub(crate) epoch: i16,
}

/// The producers' last batches, as a round of cleaning wants them.
pub(crate) type LastBatches = BTreeMap<i64, LastBatch>;

/// Batches remembered per producer: the most a producer may have in flight and still be
/// recognised (`max.in.flight.requests.per.connection` ≤ 5 with idempotence).
const BATCHES_KEPT: usize = 5;

/// Producers remembered per partition. Kafka has no bound but its quota; here the ones that have
/// been silent the longest give way, a sixteenth at a time so that the search is paid rarely.
const PRODUCERS_MAX: usize = 1 << 16;

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;
/// Offset that stands for "none" in a snapshot.
const NO_OFFSET: i64 = -1;

/// One appended batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Last offset less first offset.
    pub offset_delta: i32,
    /// Its greatest timestamp, ms.
    pub timestamp: i64,
}

impl ProducedBatch {
    /// Offset of its first record.
    pub fn first_offset(&self) -> i64 {
        self.last_offset
            .saturating_sub(i64::from(self.offset_delta))
    }

    /// Sequence number of its first record; wraps below zero as `decrementSequence` does.
    fn first_sequence(&self) -> i32 {
        if self.last_sequence >= self.offset_delta {
            return self.last_sequence - self.offset_delta;
        }
        // i32::MAX − (delta − last) + 1, and delta ≥ last + 1 here.
        i32::MAX
            .wrapping_sub(self.offset_delta.wrapping_sub(self.last_sequence))
            .wrapping_add(1)
    }
}

/// What is known of one producer id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    transaction_first_offset: Option<i64>,
    /// Wall clock of the last append, or of loading: expiry counts from here, because record
    /// timestamps are the client's and may lie years back.
    seen_ms: i64,
    /// Oldest first; the first `kept` count.
    batches: [ProducedBatch; BATCHES_KEPT],
    kept: u8,
}

impl Producer {
    fn new(epoch: i16, seen_ms: i64) -> Self {
        Self {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_first_offset: None,
            seen_ms,
            batches: [ProducedBatch::default(); BATCHES_KEPT],
            kept: 0,
        }
    }

    fn batches(&self) -> &[ProducedBatch] {
        self.batches
            .get(..usize::from(self.kept))
            .unwrap_or_default()
    }

    fn last_sequence(&self) -> i32 {
        self.batches()
            .last()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn push(&mut self, batch: ProducedBatch) {
        let kept = usize::from(self.kept);
        if kept < BATCHES_KEPT {
            self.batches[kept] = batch;
            self.kept += 1;
        } else {
            self.batches.rotate_left(1);
            self.batches[BATCHES_KEPT - 1] = batch;
        }
        self.last_timestamp = batch.timestamp;
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New, or not idempotent at all: append it.
    Fresh,
    /// Already appended as this batch.
    Duplicate(ProducedBatch),
}

/// Why a batch must not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceError {
    /// The producer has been fenced by a newer epoch.
    OldEpoch {
        /// The batch's.
        epoch: i16,
        /// The newest seen.
        current: i16,
    },
    /// A newer epoch must begin with sequence 0.
    NewEpochNotAtZero {
        /// The batch's epoch.
        epoch: i16,
        /// The batch's first sequence number.
        sequence: i32,
        /// The epoch before.
        current: i16,
    },
    /// A batch is missing between the last one and this one, or this one is older than the five
    /// that are remembered.
    Gap {
        /// The batch's first sequence number.
        sequence: i32,
        /// The last one appended, −1 if none is remembered.
        last: i32,
    },
}

impl SequenceError {
    /// The code the client gets.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::OldEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::NewEpochNotAtZero { .. } | Self::Gap { .. } => {
                ErrorCode::OutOfOrderSequenceNumber
            }
        }
    }

    /// The sentence the client gets; it names the producer and the place as Kafka's does.
    pub fn message(self, producer_id: i64, offset: i64, partition: &str) -> String {
        match self {
            Self::OldEpoch { epoch, current } => format!(
                "Epoch of producer {producer_id} at offset {offset} in {partition} is {epoch}, \
                 which is smaller than the last seen epoch {current}"
            ),
            Self::NewEpochNotAtZero {
                epoch,
                sequence,
                current,
            } => format!(
                "Invalid sequence number for new epoch of producer {producer_id} at offset {offset} \
                 in partition {partition}: {epoch} (request epoch), {sequence} (seq. number), \
                 {current} (current producer epoch)"
            ),
            Self::Gap { sequence, last } => format!(
                "Out of order sequence number for producer {producer_id} at offset {offset} in \
                 partition {partition}: {sequence} (incoming seq. number), {last} (current end \
                 sequence number)"
            ),
        }
    }
}

/// Why a snapshot file cannot be used; the state is rebuilt from the log then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFault {
    /// Not as long as its count of entries needs.
    Length,
    /// A version that is not known.
    Version(i16),
    /// The checksum does not fit the entries.
    Checksum,
}

impl std::fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length => f.write_str("its length does not fit its number of entries"),
            Self::Version(version) => write!(f, "unknown version {version}"),
            Self::Checksum => f.write_str("its checksum is wrong"),
        }
    }
}

/// All idempotent producers of one partition.
#[derive(Clone, Debug, Default)]
pub struct ProducerStates {
    producers: HashMap<i64, Producer>,
}

impl ProducerStates {
    /// Judges a batch from a client against what was appended before it.
    ///
    /// Kafka 4 accepts an unknown producer with any sequence number: its state may have gone by
    /// retention, DeleteRecords or expiry (`ProducerAppendInfo#checkSequence`).
    pub fn check(&self, header: &BatchHeader) -> Result<Verdict, SequenceError> {
        if !header.has_producer() {
            return Ok(Verdict::Fresh);
        }
        let Some(known) = self.producers.get(&header.producer_id) else {
            return Ok(Verdict::Fresh);
        };
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        if epoch == known.epoch {
            let repeated = known.batches().iter().find(|batch| {
                batch.first_sequence() == sequence && batch.last_sequence == header.last_sequence()
            });
            if let Some(batch) = repeated {
                return Ok(Verdict::Duplicate(*batch));
            }
        }
        if epoch < known.epoch {
            return Err(SequenceError::OldEpoch {
                epoch,
                current: known.epoch,
            });
        }
        if epoch > known.epoch {
            let current = known.epoch;
            let allowed = sequence == 0 || current == NO_PRODUCER_EPOCH;
            return match allowed {
                true => Ok(Verdict::Fresh),
                false => Err(SequenceError::NewEpochNotAtZero {
                    epoch,
                    sequence,
                    current,
                }),
            };
        }
        let last = known.last_sequence();
        let follows =
            i64::from(sequence) == i64::from(last) + 1 || (sequence == 0 && last == i32::MAX);
        if follows {
            Ok(Verdict::Fresh)
        } else {
            Err(SequenceError::Gap { sequence, last })
        }
    }

    /// Takes note of a batch that was appended, or is found in the log at start.
    pub fn note(&mut self, header: &BatchHeader, now_ms: i64) {
        if !header.has_producer() {
            return;
        }
        if self.producers.len() >= PRODUCERS_MAX
            && !self.producers.contains_key(&header.producer_id)
        {
            self.drop_longest_silent();
        }
        let epoch = header.producer_epoch;
        let producer = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| Producer::new(epoch, now_ms));
        producer.seen_ms = now_ms;
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.kept = 0;
        }
        if header.is_control() {
            // A marker ends the transaction; it carries no sequence.
            producer.transaction_first_offset = None;
            return;
        }
        if header.is_transactional() && producer.transaction_first_offset.is_none() {
            producer.transaction_first_offset = Some(header.base_offset);
        }
        producer.push(ProducedBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
    }

    fn drop_longest_silent(&mut self) {
        let mut seen: Vec<(i64, i64)> = self
            .producers
            .iter()
            .map(|(id, producer)| (producer.seen_ms, *id))
            .collect();
        let count = PRODUCERS_MAX / 16;
        if seen.len() > count {
            seen.select_nth_unstable(count);
            seen.truncate(count);
        }
        for (_, id) in seen {
            self.producers.remove(&id);
        }
    }

    /// Offset of the first record of the oldest transaction that has not ended.
    pub fn first_open_transaction(&self) -> Option<i64> {
        let producers = self.producers.values();
        producers
            .filter_map(|producer| producer.transaction_first_offset)
            .min()
    }

    /// The last batch of each producer, which compaction keeps.
    pub fn last_batches(&self) -> LastBatches {
        let producers = self.producers.iter().map(|(id, producer)| {
            let last = LastBatch {
                data_offset: producer.batches().last().map(|batch| batch.last_offset),
                epoch: producer.epoch,
            };
            (*id, last)
        });
        producers.collect()
    }

    /// Forgets producers silent for `expiration_ms` or longer and without an open transaction
    /// (`producer.id.expiration.ms`). Returns how many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.transaction_first_offset.is_some()
                || now_ms.saturating_sub(producer.seen_ms) < expiration_ms
        });
        before - self.producers.len()
    }

    /// When [`ProducerStates::expire`] next has something to forget, ms since the epoch.
    pub fn next_expiry_ms(&self, expiration_ms: i64) -> Option<i64> {
        self.producers
            .values()
            .filter(|producer| producer.transaction_first_offset.is_none())
            .map(|producer| producer.seen_ms.saturating_add(expiration_ms))
            .min()
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Everything, for a checkpoint; in no order.
    pub fn remember(&self) -> Vec<RememberedProducer> {
        let one = |(id, producer): (&i64, &Producer)| RememberedProducer {
            id: *id,
            epoch: producer.epoch,
            coordinator_epoch: producer.coordinator_epoch,
            last_timestamp: producer.last_timestamp,
            transaction_first_offset: producer.transaction_first_offset,
            seen_ms: producer.seen_ms,
            batches: producer
                .batches()
                .iter()
                .map(|b| (b.last_sequence, b.last_offset, b.offset_delta, b.timestamp))
                .collect(),
        };
        self.producers.iter().map(one).collect()
    }

    /// The reverse; `None` for more than there can be.
    pub(crate) fn remembered(from: &[RememberedProducer]) -> Option<Self> {
        if from.len() > PRODUCERS_MAX {
            return None;
        }
        let mut states = Self::default();
        for known in from {
            if known.batches.len() > BATCHES_KEPT {
                return None;
            }
            let mut producer = Producer::new(known.epoch, known.seen_ms);
            for (last_sequence, last_offset, offset_delta, timestamp) in
                known.batches.iter().copied()
            {
                if last_sequence < 0 || last_offset < 0 || offset_delta < 0 {
                    return None;
                }
                producer.push(ProducedBatch {
                    last_sequence,
                    last_offset,
                    offset_delta,
                    timestamp,
                });
            }
            producer.coordinator_epoch = known.coordinator_epoch;
            producer.last_timestamp = known.last_timestamp;
            producer.transaction_first_offset = known.transaction_first_offset;
            states.producers.insert(known.id, producer);
        }
        Some(states)
    }

    /// The bytes of a `.snapshot` file: state of everything appended so far. Sorted by producer id
    /// so that equal states have equal bytes.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut ids: Vec<i64> = self.producers.keys().copied().collect();
        ids.sort_unstable();
        let mut entries = Vec::with_capacity(4 + ids.len() * SNAPSHOT_ENTRY_BYTES);
        let count = i32::try_from(ids.len()).expect("bounded by PRODUCERS_MAX");
        entries.extend_from_slice(&count.to_be_bytes());
        for id in ids {
            if let Some(producer) = self.producers.get(&id) {
                write_entry(&mut entries, id, producer);
            }
        }
        let mut bytes = Vec::with_capacity(6 + entries.len());
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&crc32c(&entries).to_be_bytes());
        bytes.extend_from_slice(&entries);
        bytes
    }

    /// Reads a `.snapshot` file. All its producers count as seen at `now_ms`.
    pub fn from_snapshot(bytes: &[u8], now_ms: i64) -> Result<Self, SnapshotFault> {
        let mut fields = Fields(bytes);
        let version = i16::from_be_bytes(fields.take()?);
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotFault::Version(version));
        }
        let checksum = u32::from_be_bytes(fields.take()?);
        if crc32c(fields.0) != checksum {
            return Err(SnapshotFault::Checksum);
        }
        let count = i32::from_be_bytes(fields.take()?);
        let fits = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(SNAPSHOT_ENTRY_BYTES))
            .is_some_and(|length| length + SNAPSHOT_HEADER_BYTES == bytes.len());
        if !fits {
            return Err(SnapshotFault::Length);
        }
        let mut states = Self::default();
        while !fields.0.is_empty() {
            let (id, producer) = read_entry(&mut fields, now_ms)?;
            states.producers.insert(id, producer);
        }
        Ok(states)
    }
}

fn write_entry(bytes: &mut Vec<u8>, id: i64, producer: &Producer) {
    let last = producer.batches().last().copied().unwrap_or(ProducedBatch {
        last_sequence: NO_SEQUENCE,
        last_offset: NO_OFFSET,
        offset_delta: 0,
        timestamp: producer.last_timestamp,
    });
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&producer.epoch.to_be_bytes());
    bytes.extend_from_slice(&last.last_sequence.to_be_bytes());
    bytes.extend_from_slice(&last.last_offset.to_be_bytes());
    bytes.extend_from_slice(&last.offset_delta.to_be_bytes());
    bytes.extend_from_slice(&producer.last_timestamp.to_be_bytes());
    bytes.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
    let first = producer.transaction_first_offset.unwrap_or(NO_OFFSET);
    bytes.extend_from_slice(&first.to_be_bytes());
}

fn read_entry(fields: &mut Fields<'_>, now_ms: i64) -> Result<(i64, Producer), SnapshotFault> {
    let id = i64::from_be_bytes(fields.take()?);
    let mut producer = Producer::new(i16::from_be_bytes(fields.take()?), now_ms);
    let last = ProducedBatch {
        last_sequence: i32::from_be_bytes(fields.take()?),
        last_offset: i64::from_be_bytes(fields.take()?),
        offset_delta: i32::from_be_bytes(fields.take()?),
        timestamp: i64::from_be_bytes(fields.take()?),
    };
    producer.coordinator_epoch = i32::from_be_bytes(fields.take()?);
    let first = i64::from_be_bytes(fields.take()?);
    producer.transaction_first_offset = (first >= 0).then_some(first);
    producer.last_timestamp = last.timestamp;
    if last.last_offset >= 0 && last.last_sequence >= 0 && last.offset_delta >= 0 {
        producer.push(last);
    }
    Ok((id, producer))
}

/// A cursor over fixed-width big-endian fields.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotFault> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(SnapshotFault::Length)?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
#[path = "producer_state_tests.rs"]
mod tests;
