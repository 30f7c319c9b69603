//! Compaction against a simple model: what may go, what must stay, through kills and power cuts in
//! the middle of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use chronik_io::World;
use chronik_io::simulated::{Operation, Random, SimulatedWorld, Simulation};
use chronik_log::directory::{FileKind, Leftover, SegmentFile};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::{BatchBuilder, CheckedBatch, Compression, NewRecord, RecordLimits};
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TopicConfig};
use chronik_terms::{Acks, OffsetTarget};

use super::rig::{ID, Rig, small_config};
use crate::partition::CleanSettings;

const DIR: &str = "/data/orders-0";

pub(super) const AMPLE: CleanSettings = CleanSettings {
    map_bytes_max: 1 << 20,
    bytes_per_second_max: u64::MAX,
    backoff_ms: 1,
};

pub(super) fn config() -> TopicConfig {
    TopicConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        min_cleanable_dirty_ratio: 0.3,
        file_delete_delay_ms: 5,
        ..small_config(Durability::Disk)
    }
}

/// A record as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp: i64,
}

type Records = BTreeMap<i64, Known>;

fn records_of(batch: &CheckedBatch) -> Records {
    let records = batch.records(&RecordLimits::default()).expect("readable");
    let records = records.map(|record| {
        let record = record.expect("sound");
        let known = Known {
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
        };
        (record.offset, known)
    });
    records.collect()
}

struct Producer {
    id: i64,
    next_sequence: i32,
    /// Offset of the last record of the last acknowledged batch.
    last_offset: Option<i64>,
}

struct History {
    random: Random,
    config: TopicConfig,
    settings: CleanSettings,
    /// Everything that was ever appended.
    model: Records,
    log_end: i64,
    producers: Vec<Producer>,
    serial: u32,
    hint: RecoveryHint,
    cleaned: i64,
    epoch: i32,
    faulty: bool,
    rounds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Kill,
    PowerCut,
}

impl History {
    fn new(seed: u64, faulty: bool) -> History {
        let mut random = Random::new(seed ^ 0xc0_ffee);
        let producer = |id| Producer {
            id,
            next_sequence: 0,
            last_offset: None,
        };
        let config = TopicConfig {
            min_cleanable_dirty_ratio: [0.0, 0.2, 0.5][random.index(3)],
            delete_retention_ms: [86_400_000, 20, 0][random.index(3)],
            min_compaction_lag_ms: [0, 0, 30][random.index(3)],
            segment_bytes: [4 << 10, 12 << 10][random.index(2)],
            ..config()
        };
        let slots = [16, 40, 4000][random.index(3)];
        History {
            random,
            config,
            settings: CleanSettings {
                map_bytes_max: slots * 24,
                ..AMPLE
            },
            model: Records::new(),
            log_end: 0,
            producers: (0..3).map(producer).collect(),
            serial: 0,
            hint: RecoveryHint::default(),
            cleaned: 0,
            epoch: 0,
            faulty,
            rounds: 0,
        }
    }

    fn life(&mut self, mut simulation: Simulation, ending: Ending) -> Simulation {
        let world = simulation.world();
        let path = Path::new(DIR);
        let (config, hint) = (self.config.clone(), self.hint);
        let (hints, known) = ((hint, None), (self.epoch, self.cleaned));
        let opened = Rig::open_cleaned(&world, path, &config, hints, known);
        let (rig, _) = simulation.run(opened).expect("opens");
        simulation.run(self.check(&world, &rig, true));
        if self.faulty {
            for operation in [Operation::Write, Operation::Sync, Operation::Directory] {
                simulation.faults().chance(operation, 5_000);
            }
        }
        for _ in 0..self.random.below(50) {
            if rig.failed() {
                break;
            }
            self.step(&mut simulation, &rig);
        }
        simulation.faults().clear();
        self.end(simulation, rig, ending)
    }

    fn step(&mut self, simulation: &mut Simulation, rig: &Rig<SimulatedWorld>) {
        match self.random.below(12) {
            0..=6 => {
                let world = simulation.world();
                simulation.run(self.produce(&world, rig));
            }
            7 => {
                simulation.advance(Duration::from_micros(self.random.below(20_000)));
            }
            8 => {
                simulation.run_steps(self.random.below(60) as usize);
            }
            9 => {
                let world = simulation.world();
                simulation.run(self.check(&world, rig, false));
            }
            _ => {}
        }
        rig.tend();
        self.rounds += u32::from(rig.clean(self.settings));
    }

    async fn produce(&mut self, world: &SimulatedWorld, rig: &Rig<SimulatedWorld>) {
        let by = self.random.index(self.producers.len() + 1);
        let codec = Compression::ALL[self.random.index(8).saturating_sub(3)];
        let mut builder = BatchBuilder::new(0).compression(codec);
        if let Some(producer) = self.producers.get(by) {
            builder = builder.producer(producer.id, 0, producer.next_sequence);
        }
        let count = 1 + self.random.below(4) as i32;
        for _ in 0..count {
            self.serial += 1;
            let key = format!("key {}", self.random.below(40));
            let filler = "x".repeat(self.random.below(300) as usize);
            let value = format!("{} {filler}", self.serial);
            let record = NewRecord {
                timestamp: world.now_ms() - self.random.below(50) as i64,
                key: (self.random.below(40) > 0).then_some(key.as_bytes()),
                value: (self.random.below(5) > 0).then_some(value.as_bytes()),
                headers: &[(b"h", Some(b"v"))],
            };
            builder.push(&record).expect("small");
        }
        let batch = builder.build().expect("valid");
        let result = rig.append(&batch, Acks::All).await;
        if result.error != ErrorCode::None {
            assert!(self.faulty, "{:?}", result.message);
            return;
        }
        let placed = batch.with_offsets(result.base_offset, 0);
        self.model.extend(records_of(&placed));
        self.log_end = placed.header.next_offset();
        if let Some(producer) = self.producers.get_mut(by) {
            producer.next_sequence += count;
            producer.last_offset = Some(placed.header.last_offset());
        }
    }

    fn end(
        &mut self,
        mut simulation: Simulation,
        rig: Rig<SimulatedWorld>,
        ending: Ending,
    ) -> Simulation {
        self.epoch += 1;
        if let Some(offset) = rig.recovery_point().filter(|_| self.random.below(2) == 0) {
            self.hint.recovery_point = offset;
        }
        if let Some(offset) = rig.cleaned().filter(|_| self.random.below(2) == 0) {
            self.cleaned = offset;
        }
        self.hint.clean = ending == Ending::Clean && !rig.failed();
        match ending {
            Ending::Clean if self.hint.clean => {
                if self.random.below(2) == 0 {
                    rig.with(|partition, _| partition.stop_cleaning());
                }
                let report = simulation.run(rig.close()).expect("closes");
                self.hint = super::rig::clean(&report);
                simulation.kill()
            }
            Ending::Clean | Ending::Kill => simulation.kill(),
            Ending::PowerCut => simulation.crash(),
        }
    }

    /// Reads everything and holds it against the model.
    async fn check(&mut self, world: &SimulatedWorld, rig: &Rig<SimulatedWorld>, begun: bool) {
        let cleaned = rig.cleaned();
        let start = rig.with(|partition, cache| {
            // What is in memory was true when it was read.
            cache.forget(ID);
            partition.log_start()
        });
        let log = rig.read_all(start).await;
        if begun && self.faulty {
            self.adopt(&log);
        }
        let mut found = Records::new();
        let mut next = start;
        for batch in &log {
            assert!(batch.header.base_offset >= next, "batches ascend");
            next = batch.header.next_offset();
            found.extend(records_of(batch));
        }
        assert_eq!(next, self.log_end, "the log ends where it did");
        for (offset, known) in &found {
            assert_eq!(self.model.get(offset), Some(known), "a record at {offset}");
        }
        let mut newest: BTreeMap<&Bytes, i64> = BTreeMap::new();
        for (offset, known) in &self.model {
            if let Some(key) = &known.key {
                newest.insert(key, *offset);
            }
        }
        let day = self.config.delete_retention_ms == 86_400_000;
        for (key, offset) in &newest {
            let is_tombstone = self.model[offset].value.is_none();
            if found.contains_key(offset) {
                continue;
            }
            assert!(is_tombstone && !day, "{key:?} at {offset} is gone");
            let older = found.values().any(|known| known.key.as_ref() == Some(key));
            assert!(!older, "{key:?} has come back");
        }
        if let Some(cleaned) = cleaned {
            check_cleaned(&found, &self.model, cleaned);
        }
        for producer in &self.producers {
            let last = producer.last_offset.filter(|last| *last >= start);
            let there = log.iter().any(|batch| {
                let header = &batch.header;
                header.producer_id == producer.id && Some(header.last_offset()) == last
            });
            assert!(last.is_none() || there, "a producer's last batch");
        }
        if begun {
            self.check_times(rig, &found).await;
            check_files(world, rig).await;
        }
    }

    /// After a failed append the log may hold the batch all the same.
    fn adopt(&mut self, log: &[CheckedBatch]) {
        let end = self.log_end;
        for batch in log.iter().filter(|batch| batch.header.base_offset >= end) {
            self.model.extend(records_of(batch));
            self.log_end = batch.header.next_offset();
            let header = &batch.header;
            let by = self
                .producers
                .iter_mut()
                .find(|p| p.id == header.producer_id);
            if let Some(producer) = by {
                producer.next_sequence = header.last_sequence() + 1;
                producer.last_offset = Some(header.last_offset());
            }
        }
    }

    async fn check_times(&mut self, rig: &Rig<SimulatedWorld>, found: &Records) {
        for _ in 0..3 {
            let at = self.random.index(found.len().max(1));
            let Some(known) = found.values().nth(at) else {
                return;
            };
            let wanted = known.timestamp;
            let first = found.iter().find(|(_, known)| known.timestamp >= wanted);
            let answer = rig.list(OffsetTarget::Timestamp(wanted)).await;
            assert_eq!(
                Some(answer.offset),
                first.map(|(offset, _)| *offset),
                "{wanted}"
            );
        }
    }
}

/// Below `cleaned` no key is there twice, and nothing without a key.
fn check_cleaned(found: &Records, model: &Records, cleaned: i64) {
    let mut newest: BTreeMap<&Bytes, i64> = BTreeMap::new();
    for (offset, known) in model.range(..cleaned) {
        if let Some(key) = &known.key {
            newest.insert(key, *offset);
        }
    }
    for (offset, known) in found.range(..cleaned) {
        let key = known.key.as_ref();
        assert_eq!(
            key.and_then(|key| newest.get(key)),
            Some(offset),
            "{key:?} at {offset} is not the newest below {cleaned}"
        );
    }
}

/// After a start every file belongs to a segment.
async fn check_files(world: &SimulatedWorld, rig: &Rig<SimulatedWorld>) {
    rig.quiet().await;
    let entries = world.list_dir(Path::new(DIR)).await.expect("lists");
    let bases: Vec<i64> = rig.with(|partition, _| {
        let sealed = partition.sealed.iter().map(|segment| segment.base_offset);
        sealed.chain([partition.active.base_offset()]).collect()
    });
    for entry in entries {
        let name = entry.name.to_str().expect("UTF-8");
        let Some(file) = SegmentFile::parse(name) else {
            continue;
        };
        if file.leftover == Some(Leftover::Deleted) {
            continue;
        }
        assert_eq!(file.leftover, None, "{name} is left over");
        let belongs = file.kind == FileKind::Snapshot || bases.contains(&file.offset);
        assert!(belongs, "{name} belongs to no segment");
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("CHRONIK_SEED").unwrap_or(0);
    first..first + number("CHRONIK_SEEDS").unwrap_or(count)
}

fn run_histories(count: u64, endings: &[Ending], faulty: bool) {
    let mut rounds = 0;
    for seed in seeds(count) {
        let run = std::panic::AssertUnwindSafe(|| {
            let mut simulation = Simulation::new(seed);
            if seed % 3 == 1 {
                simulation.close_files(200_000);
            }
            let mut history = History::new(seed, faulty);
            for _ in 0..2 + history.random.below(5) {
                let ending = endings[history.random.index(endings.len())];
                simulation = history.life(simulation, ending);
            }
            history.life(simulation, Ending::Clean);
            history.rounds
        });
        match std::panic::catch_unwind(run) {
            Ok(done) => rounds += done,
            Err(_) => panic!("seed {seed}"),
        }
    }
    assert!(count < 100 || rounds > 0, "nothing was ever compacted");
}

#[test]
fn the_newest_of_each_key_survives_kills_and_power_cuts() {
    let endings = [
        Ending::PowerCut,
        Ending::PowerCut,
        Ending::Kill,
        Ending::Clean,
    ];
    run_histories(1500, &endings, false);
}

#[test]
fn a_failing_disk_takes_nothing_that_was_to_stay() {
    run_histories(1000, &[Ending::PowerCut, Ending::Kill], true);
}

pub(super) async fn keyed(
    rig: &Rig<SimulatedWorld>,
    key: &str,
    value: Option<&[u8]>,
    timestamp: i64,
) -> i64 {
    let mut builder = BatchBuilder::new(0);
    let record = NewRecord {
        timestamp,
        key: Some(key.as_bytes()),
        value,
        ..NewRecord::default()
    };
    builder.push(&record).expect("small");
    rig.must_append(&builder.build().expect("valid")).await
}

pub(super) async fn clean_up(world: &SimulatedWorld, rig: &Rig<SimulatedWorld>) {
    rig.quiet().await;
    assert!(rig.clean(AMPLE), "a round is due");
    rig.quiet().await;
    world.sleep_for(Duration::from_millis(20)).await;
    rig.tend();
    rig.quiet().await;
}

async fn keys(rig: &Rig<SimulatedWorld>) -> Vec<(i64, String, bool)> {
    rig.with(|_, cache| cache.forget(ID));
    let log = rig.read_all(0).await;
    let records = log.iter().flat_map(records_of);
    let keys = records.map(|(offset, known)| {
        let key = known.key.unwrap_or_default();
        let key = String::from_utf8(key.to_vec()).expect("UTF-8");
        (offset, key, known.value.is_some())
    });
    keys.collect()
}

#[test]
fn a_tombstone_waits_for_its_time_and_takes_its_record_along() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            delete_retention_ms: 3_600_000,
            min_cleanable_dirty_ratio: 0.0,
            ..config()
        };
        let (rig, _) = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0)
            .await
            .expect("opens");
        let filler = [b'f'; 6000];
        keyed(&rig, "a", Some(b"1"), 10).await;
        keyed(&rig, "b", Some(b"1"), 11).await;
        keyed(&rig, "a", None, 12).await;
        for n in 0..5 {
            keyed(&rig, "filler", Some(&filler), 20 + n).await;
        }
        clean_up(&world, &rig).await;
        let left = keys(&rig).await;
        assert!(
            left.contains(&(2, "a".to_owned(), false)),
            "the tombstone is there"
        );
        assert!(!left.iter().any(|(offset, _, _)| *offset == 0), "{left:?}");
        let batches = rig.read_all(0).await;
        let horizon = batches
            .iter()
            .find_map(|batch| batch.header.delete_horizon_ms());
        let horizon = horizon.expect("decided");
        assert!((horizon - world.now_ms() - 3_600_000).abs() < 1000);
        world.sleep_for(Duration::from_hours(1)).await;
        for n in 0..5 {
            keyed(&rig, "filler", Some(&filler), 30 + n).await;
        }
        clean_up(&world, &rig).await;
        let left = keys(&rig).await;
        assert!(!left.iter().any(|(_, key, _)| key == "a"), "{left:?}");
        assert!(left.contains(&(1, "b".to_owned(), true)));
    });
}

#[test]
fn nothing_wakes_for_a_log_that_is_clean_enough() {
    let mut simulation = Simulation::new(2);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 60_000,
            ..config()
        };
        let (rig, _) = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0)
            .await
            .expect("opens");
        let due = || rig.with(|partition, _| partition.next_cleaning_ns());
        assert_eq!(due(), None);
        let began_ns = world.monotonic_ns();
        for n in 0..5 {
            keyed(&rig, &format!("{n}"), Some(&[b'f'; 6000]), world.now_ms()).await;
        }
        rig.quiet().await;
        let due_ns = due().expect("dirty from the first segment on, and too young");
        assert!((59_990_000_000..61_000_000_000).contains(&(due_ns - began_ns)));
        assert!(!rig.clean(AMPLE));
        world.sleep_until(due_ns).await;
        clean_up(&world, &rig).await;
        assert_eq!(due(), None, "what is clean is not cleaned again");
        assert_eq!(rig.cleaned(), Some(4));
        rig.configure(&TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            ..config
        });
        assert_eq!(due(), None);
    });
}
