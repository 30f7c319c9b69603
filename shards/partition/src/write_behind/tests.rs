//! The ring against a model: what is live is found, what is torn, stale or foreign is not.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use chronik_io::Mapping;
use chronik_io::simulated::Random;
use chronik_protocol::Uuid;
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_terms::PartitionId;

use super::Kept;
use super::left_behind::Walk;
use super::ring::{Ring, WrittenMark};

const BOOT: u128 = 7;

/// A place and what was put there.
type Store = (usize, Vec<u8>);

/// A file in memory that keeps its content, and every store that was made.
#[derive(Clone)]
struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    stores: Rc<RefCell<Vec<Store>>>,
    broken: Rc<RefCell<bool>>,
}

impl Memory {
    fn new(len: usize) -> Memory {
        Memory {
            bytes: Rc::new(RefCell::new(vec![0; len])),
            stores: Rc::default(),
            broken: Rc::default(),
        }
    }

    fn file(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes.borrow())
    }
}

impl Mapping for Memory {
    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn prepare(&mut self, at: usize, len: usize) -> io::Result<()> {
        assert!(at + len <= self.len());
        match *self.broken.borrow() {
            true => Err(io::Error::other("broken")),
            false => Ok(()),
        }
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.stores.borrow_mut().push((at, bytes.to_vec()));
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8));
        self.store(at, &word.to_le_bytes());
    }
}

fn id(index: i32) -> PartitionId {
    PartitionId {
        topic_id: Uuid(99),
        index,
    }
}

fn batch(base_offset: i64, value_bytes: usize) -> CheckedBatch {
    let value = vec![base_offset as u8; value_bytes];
    let mut builder = BatchBuilder::new(0);
    let record = NewRecord {
        value: Some(&value),
        ..NewRecord::default()
    };
    builder.push(&record).expect("small");
    builder.build().expect("valid").with_offsets(base_offset, 3)
}

fn push<M: Mapping>(
    ring: &mut Ring<M>,
    partition: PartitionId,
    written: &WrittenMark,
    batch: &CheckedBatch,
) -> bool {
    let header = &batch.header;
    let kept = Kept {
        partition,
        written,
        next_offset: header.next_offset(),
        prefix: &batch.prefix(header.base_offset, header.partition_leader_epoch),
        body: &batch.body(),
    };
    ring.push(&kept).expect("sound")
}

fn found(file: Bytes) -> Vec<(PartitionId, Bytes)> {
    let mut walk = Walk::new(file);
    let mut found = Vec::new();
    while let Some((partition, base_offset, batch)) = walk.next() {
        let (checked, rest) = CheckedBatch::parse_first(batch.clone()).expect("a batch");
        assert!(rest.is_empty());
        assert_eq!(checked.header.base_offset, base_offset);
        found.push((partition, batch));
    }
    found
}

struct Partitions {
    marks: Vec<WrittenMark>,
    ends: Vec<i64>,
    written: Vec<i64>,
}

/// Batches of random sizes for some partitions, written in their own time: after every step the
/// file says exactly what is still needed, whatever lies around it.
#[test]
fn what_is_live_is_found_lap_after_lap() {
    let mut laps = 0;
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let bytes = 4096 + [4 << 10, 24 << 10, 5 << 20][random.index(3)];
        let memory = Memory::new(bytes);
        let mut ring = Ring::new(memory.clone(), BOOT, random.next_u64());
        let count = 1 + random.index(3);
        let mut partitions = Partitions {
            marks: (0..count).map(|_| WrittenMark::new(0)).collect(),
            ends: vec![0; count],
            written: vec![0; count],
        };
        let mut model: VecDeque<(usize, i64, Bytes)> = VecDeque::new();
        for _ in 0..300 {
            let at = random.index(count);
            if random.below(3) > 0 {
                let size = random.index((bytes - 4096) / 8);
                let next = batch(partitions.ends[at], size);
                let fits = push(&mut ring, id(at as i32), &partitions.marks[at], &next);
                if fits {
                    partitions.ends[at] += 1;
                    model.push_back((at, partitions.ends[at], next.bytes));
                    laps += next_is_a_lap(&memory);
                }
                assert!(fits || !model.is_empty(), "an empty ring takes an eighth");
            } else {
                let behind = partitions.ends[at] - partitions.written[at];
                partitions.written[at] += random.below(behind as u64 + 1) as i64;
                partitions.marks[at].set(partitions.written[at]);
                ring.release();
                while let Some((of, next_offset, _)) = model.front()
                    && *next_offset <= partitions.written[*of]
                {
                    model.pop_front();
                }
            }
            assert_eq!(ring.live(), model.len());
            let expected: Vec<_> = model
                .iter()
                .map(|(at, _, batch)| (id(*at as i32), batch.clone()))
                .collect();
            assert_eq!(found(memory.file()), expected, "seed {seed}");
        }
    }
    assert!(laps > 100, "only {laps} laps");
}

/// Whether the last push went to the front of the data.
fn next_is_a_lap(memory: &Memory) -> usize {
    let stores = memory.stores.borrow();
    usize::from(stores.last().is_some_and(|(at, _)| *at == 4096 + 40))
}

/// The process ends between any two stores of a push, and in the middle of each.
#[test]
fn a_torn_push_changes_nothing() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let memory = Memory::new(4096 + (8 << 10));
        let mut ring = Ring::new(memory.clone(), BOOT, 5);
        let mark = WrittenMark::new(0);
        for offset in 0..60 {
            let before = memory.file();
            let live_before = found(before.clone());
            memory.stores.borrow_mut().clear();
            let next = batch(offset, random.index(700));
            assert!(push(&mut ring, id(0), &mark, &next));
            let after = found(memory.file());
            let stores = memory.stores.borrow().clone();
            let mut torn = before.to_vec();
            for (number, (at, bytes)) in stores.iter().enumerate() {
                let last = number + 1 == stores.len();
                for (byte, value) in bytes.iter().enumerate() {
                    torn[at + byte] = *value;
                    let whole = last && byte + 1 == bytes.len();
                    if byte % 7 == 0 || byte + 9 > bytes.len() {
                        let now = found(Bytes::copy_from_slice(&torn));
                        // The CRC's last bytes may happen to be there already.
                        assert!(now == live_before || now == after, "at {number}:{byte}");
                        assert!(!whole || now == after);
                    }
                }
            }
            if random.below(3) == 0 {
                mark.set(offset - random.below(3) as i64 + 1);
                ring.release();
            }
            if ring.live() > 6 {
                mark.set(offset + 1);
                ring.release();
            }
        }
    }
}

#[test]
fn garbage_is_passed_over() {
    let memory = Memory::new(4096 + (16 << 10));
    let mut ring = Ring::new(memory.clone(), BOOT, 5);
    let mark = WrittenMark::new(0);
    for offset in 0..10 {
        assert!(push(&mut ring, id(1), &mark, &batch(offset, 300)));
    }
    let whole = memory.file();
    assert_eq!(found(whole.clone()).len(), 10);
    assert!(found(Bytes::new()).is_empty());
    assert!(found(whole.slice(..5000)).is_empty(), "cut short");
    for byte in 0..8192 {
        let mut spoiled = whole.to_vec();
        spoiled[byte] ^= 0x10;
        let found = found(Bytes::from(spoiled));
        // Whatever is wrong, what is found is a beginning of what was there.
        assert!(found.len() <= 10, "byte {byte}");
        let header_or_tail = byte < 48 || (64..72).contains(&byte);
        assert!(!header_or_tail || found.is_empty(), "byte {byte}");
    }
}

#[test]
fn a_batch_that_is_too_large_and_a_broken_device_are_refused() {
    let memory = Memory::new(4096 + (16 << 10));
    let mut ring = Ring::new(memory.clone(), BOOT, 5);
    let mark = WrittenMark::new(0);
    assert!(!push(&mut ring, id(1), &mark, &batch(0, 5000)));
    *memory.broken.borrow_mut() = true;
    let next = batch(0, 100);
    let kept = Kept {
        partition: id(1),
        written: &mark,
        next_offset: 1,
        prefix: &next.prefix(0, 0),
        body: &next.body(),
    };
    assert!(ring.push(&kept).is_err());
    assert!(found(memory.file()).is_empty());
}
