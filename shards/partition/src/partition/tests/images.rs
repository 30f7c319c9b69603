//! Damaged directories: files truncated, with flipped bits, filled with zeros, missing, and such
//! that nobody wrote, in every place, after clean stops and after kills.
//!
//! The promises: a start does not panic; what is served is what was appended, at its offset; and of
//! what was acknowledged nothing is missing but what the damage lies in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use chronik_io::World;
use chronik_io::simulated::{Random, SimulatedWorld, Simulation};
use chronik_log::LogError;
use chronik_log::directory::{FileKind, SegmentFile};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::CheckedBatch;
use chronik_terms::Acks;
use chronik_terms::topic_settings::{Durability, TopicConfig};

use super::rig::{Rig, clean, produced_batch, small_config};
use crate::remembered_logs::{Remembered, Writer};

const DIR: &str = "/data/orders-0";
const SEEDS: u64 = 2500;

/// Where a batch lies: base offset of its segment, first byte, and the byte behind.
#[derive(Clone, Debug)]
struct Place {
    segment: i64,
    bytes: std::ops::Range<usize>,
    batch: CheckedBatch,
}

struct Image {
    random: Random,
    config: TopicConfig,
    hint: RecoveryHint,
    remembered: Option<Remembered>,
    /// What was acknowledged, by base offset.
    log: BTreeMap<i64, Place>,
    /// Offsets of batches that damage lies in.
    damaged: BTreeSet<i64>,
}

/// A log with a few segments, and a checkpoint of some moment; stopped or killed.
fn written(seed: u64) -> (Simulation, Image) {
    let mut random = Random::new(seed ^ 0x1ba6e);
    let config = small_config(Durability::Disk);
    let mut simulation = Simulation::new(seed);
    let world = simulation.world();
    let count = 5 + random.below(60);
    let remember_at = random.below(count * 2);
    let stops = random.below(2) == 0;
    let (hint, told, batches) = simulation.run(async {
        let dir = Path::new(DIR);
        let hint = RecoveryHint::default();
        let (rig, _) = Rig::open(&world, dir, &config, hint, 1)
            .await
            .expect("opens");
        let (mut told, mut batches, mut sequence) = (None, Vec::new(), 0);
        for n in 0..count {
            let filler = vec![b'a' + (n % 26) as u8; random.below(2500) as usize];
            let batch = produced_batch((7, 0, sequence), &[&filler, &n.to_be_bytes()]);
            sequence += 2;
            let base = rig.must_append(&batch).await;
            batches.push((base, batch.with_offsets(base, 1)));
            if n == remember_at {
                told = rig.remember();
            }
        }
        rig.quiet().await;
        let recovery_point = rig.recovery_point().unwrap_or(0);
        let mut hint = RecoveryHint {
            recovery_point,
            ..RecoveryHint::default()
        };
        if stops {
            hint = clean(&rig.clone().close().await.expect("closes"));
            told = rig.remember();
        }
        (hint, told, batches)
    });
    let simulation = simulation.kill();
    let boot_id = 1;
    let writer = Writer {
        broker_epoch: 1,
        boot_id,
    };
    let remembered = told.map(|log| Remembered::new(writer, Bytes::from(log)));
    let image = Image {
        random,
        config,
        hint,
        remembered,
        log: BTreeMap::new(),
        damaged: BTreeSet::new(),
    };
    let world = simulation.world();
    image.note(simulation, &world, batches)
}

impl Image {
    /// Finds out where each batch lies.
    fn note(
        mut self,
        mut simulation: Simulation,
        world: &SimulatedWorld,
        batches: Vec<(i64, CheckedBatch)>,
    ) -> (Simulation, Image) {
        let names = names(&mut simulation, world);
        let bases: BTreeSet<i64> = names
            .iter()
            .filter_map(|name| SegmentFile::parse(name))
            .filter(|file| file.kind == FileKind::Log)
            .map(|file| file.offset)
            .collect();
        let mut ends: BTreeMap<i64, usize> = BTreeMap::new();
        for (base, batch) in batches {
            let segment = *bases.range(..=base).next_back().expect("a segment");
            let start = *ends.entry(segment).or_default();
            let end = start + batch.bytes.len();
            ends.insert(segment, end);
            let place = Place {
                segment,
                bytes: start..end,
                batch,
            };
            self.log.insert(base, place);
        }
        (simulation, self)
    }

    /// Damages one file.
    fn damage(&mut self, simulation: &mut Simulation, names: &[String]) {
        let name = &names[self.random.index(names.len())];
        let path = Path::new(DIR).join(name);
        let segment = SegmentFile::parse(name).filter(|file| file.kind == FileKind::Log);
        let (kind, random) = (self.random.below(5), &mut self.random);
        let mut hit = 0..0;
        if kind == 4 {
            let world = simulation.world();
            simulation.run(world.remove_file(&path)).expect("removed");
            hit = 0..usize::MAX;
        } else {
            simulation.damage(&path, |bytes| hit = spoil(bytes, kind, random));
        }
        let Some(file) = segment else { return };
        let hits = |place: &&Place| {
            place.segment == file.offset
                && place.bytes.start < hit.end
                && hit.start < place.bytes.end
        };
        let hit = self.log.values().filter(hits);
        self.damaged
            .extend(hit.map(|place| place.batch.header.base_offset));
    }

    /// Adds a file nobody wrote.
    fn add(&mut self, simulation: &mut Simulation) {
        let offset = self.random.below(200) as i64;
        let name = match self.random.below(8) {
            0 => format!("{offset:020}.index"),
            1 => format!("{offset:020}.timeindex"),
            2 => format!("{offset:020}.snapshot"),
            3 => format!("{offset:020}.log.deleted"),
            4 => format!("{offset:020}.log.cleaned"),
            5 => "leader-epoch-checkpoint.tmp".to_owned(),
            6 => "notes.txt".to_owned(),
            _ => format!("{offset:020}.txnindex"),
        };
        let path = Path::new(DIR).join(name);
        let content: Vec<u8> = (0..self.random.below(100))
            .map(|_| self.random.below(256) as u8)
            .collect();
        let world = simulation.world();
        let written = simulation.run(world.write_file_atomic(&path, &content));
        written.expect("written");
    }

    fn check(&self, simulation: &mut Simulation, seed: u64) {
        let world = simulation.world();
        let how = (self.hint, self.remembered.clone());
        let opened = Rig::open_remembered(&world, Path::new(DIR), &self.config, how, 2);
        let (rig, report) = match simulation.run(opened) {
            Ok(opened) => opened,
            // Then the directory is set aside as it is.
            Err(LogError::TopicIdMismatch { .. }) => return,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let end = rig.log_end();
        let next = produced_batch((8, 0, 0), &[b"after"]);
        let appended = simulation.run(rig.append(&next, Acks::All));
        assert_eq!(appended.error, ErrorCode::None, "seed {seed}: it goes on");
        assert_eq!(appended.base_offset, end);
        for (base, place) in &self.log {
            let result = simulation.run(rig.read(*base, 1));
            let found = match result.error {
                ErrorCode::None => CheckedBatch::parse_first(result.records.into_bytes()).ok(),
                ErrorCode::CorruptMessage | ErrorCode::OffsetOutOfRange => None,
                other => panic!("seed {seed}: {other:?} at {base}"),
            };
            let found = found.map(|(batch, _)| batch);
            let is_it = found
                .as_ref()
                .is_some_and(|found| found.bytes == place.batch.bytes);
            let may_miss = self.damaged.contains(base) || !self.must_hold(place);
            assert!(
                is_it || may_miss,
                "seed {seed}: {base} at {:?} is not served, {:?} is damaged, {report:?}, found {found:?}",
                place.bytes,
                self.damaged,
            );
            if let Some(found) = found.filter(|_| !is_it) {
                let known = self.log.get(&found.header.base_offset);
                let ours = known.map_or(next.body() == found.body(), |known| {
                    known.batch.bytes == found.bytes
                });
                assert!(
                    ours && found.header.base_offset > *base || found.header.base_offset == end,
                    "seed {seed}: a record nobody wrote at {base}: {found:?}"
                );
            }
        }
    }

    /// Whether a batch has to be there whatever happened to others: it lies where the log is known to
    /// have been whole, or before everything that is damaged. What lies behind damage at the torn end
    /// of a killed process's log cannot be told from what was never acknowledged.
    fn must_hold(&self, place: &Place) -> bool {
        let offset = place.batch.header.base_offset;
        let certain = self.hint.clean || offset < self.hint.recovery_point;
        certain || self.damaged.first().is_none_or(|first| offset < *first)
    }
}

/// Changes bytes; gives the range that is changed.
fn spoil(bytes: &mut Vec<u8>, kind: u64, random: &mut Random) -> std::ops::Range<usize> {
    if bytes.is_empty() {
        bytes.push(random.below(256) as u8);
        return 0..0;
    }
    let (at, len) = (random.index(bytes.len()), bytes.len());
    match kind {
        0 => {
            bytes.truncate(at);
            at..usize::MAX
        }
        1 => {
            bytes[at] ^= 1 << random.below(8);
            at..at + 1
        }
        2 => {
            let end = (at + 1 + random.index(600)).min(len);
            bytes[at..end].fill(0);
            at..end
        }
        _ => {
            let more = 1 + random.index(300);
            bytes.extend((0..more).map(|_| random.below(256) as u8));
            len..len + more
        }
    }
}

fn names(simulation: &mut Simulation, world: &SimulatedWorld) -> Vec<String> {
    let entries = simulation.run(world.list_dir(Path::new(DIR)));
    let entries = entries.expect("listed").into_iter();
    entries
        .filter_map(|entry| entry.name.into_string().ok())
        .collect()
}

fn one_image(seed: u64) {
    let (mut simulation, mut image) = written(seed);
    for _ in 0..=image.random.below(2) {
        let world = simulation.world();
        match image.random.below(6) {
            0 => image.add(&mut simulation),
            _ => {
                let names = names(&mut simulation, &world);
                image.damage(&mut simulation, &names);
            }
        }
    }
    image.check(&mut simulation, seed);
}

#[test]
fn damaged_directories_lose_what_is_damaged_and_nothing_else() {
    let first: u64 = std::env::var("CHRONIK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let count = std::env::var("CHRONIK_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in first..first + count {
        if std::panic::catch_unwind(|| one_image(seed)).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} seeds: {failed:?}", failed.len());
}
