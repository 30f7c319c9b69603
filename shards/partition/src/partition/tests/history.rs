//! Random histories with kills, power cuts and clean stops against a simple model.
//!
//! The promises: under *disk* nothing acknowledged (acks=all) is lost or reordered and nothing that
//! was read is taken back, whatever happens; under *process* a kill loses nothing either. An
//! idempotent producer that repeats what was not answered has every batch in the log exactly once.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use chronik_io::World;
use chronik_io::simulated::{Operation, Random, SimulatedWorld, Simulation};
use chronik_log::directory::{FileKind, Leftover, SegmentFile};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::CheckedBatch;
use chronik_terms::Acks;
use chronik_terms::topic_settings::{Durability, TopicConfig};
use futures_util::FutureExt as _;

use super::rig::{Rig, produced_batch, small_config};
use crate::remembered_logs::{Remembered, Writer};

const DIR: &str = "/data/orders-0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Clean,
    Kill,
    PowerCut,
}

/// A producer with up to five batches in flight, which repeats them in order after a restart.
struct Producer {
    id: i64,
    epoch: i16,
    next_sequence: i32,
    /// Batch and the tag of the append under way.
    in_flight: VecDeque<(CheckedBatch, Option<u64>)>,
    /// How many of them, from the front, were sent in an earlier life too.
    resent: usize,
}

struct History {
    random: Random,
    config: TopicConfig,
    producers: Vec<Producer>,
    batches_sent: u32,
    /// Bodies of acknowledged batches by base offset.
    acknowledged: BTreeMap<i64, Bytes>,
    /// Batches that a consumer got.
    consumed: BTreeMap<i64, Bytes>,
    /// Repeated, and so old that nobody knows their sequence any more: they have to be in the log.
    forgotten: Vec<CheckedBatch>,
    consumer_at: i64,
    hint: RecoveryHint,
    /// The last checkpoint, and in which of the machine's starts it was written.
    remembered: Option<Remembered>,
    /// No record at or behind this one may be gone.
    log_start_max: i64,
    /// A power cut may have taken records that were acknowledged.
    forgiven: bool,
    epoch: i32,
    /// Writes and syncs fail now and then.
    faulty: bool,
    /// An append was refused in this life: producers stop until the next one.
    refused: bool,
}

impl History {
    fn new(seed: u64, durability: Durability) -> History {
        let mut random = Random::new(seed ^ 0x5eed);
        // Half of the logs are bounded, to about three segments.
        let bounded = random.below(2) == 0;
        let config = TopicConfig {
            retention_bytes: bounded.then_some(50 << 10),
            // The records are older than any limit: now and then all of them are due.
            retention_ms: (bounded && random.below(4) == 0).then_some(1),
            file_delete_delay_ms: random.below(10),
            ..small_config(durability)
        };
        let producer = |id| Producer {
            id,
            epoch: 0,
            next_sequence: 0,
            in_flight: VecDeque::new(),
            resent: 0,
        };
        History {
            random,
            config,
            producers: (0..3).map(producer).collect(),
            batches_sent: 0,
            acknowledged: BTreeMap::new(),
            consumed: BTreeMap::new(),
            forgotten: Vec::new(),
            forgiven: false,
            consumer_at: 0,
            hint: RecoveryHint {
                clean: false,
                recovery_point: 0,
                log_start_offset: 0,
                durable: false,
            },
            log_start_max: 0,
            remembered: None,
            epoch: 0,
            faulty: false,
            refused: false,
        }
    }

    fn life(&mut self, mut simulation: Simulation, ending: Ending) -> Simulation {
        let world = simulation.world();
        if !self.hint.clean && self.random.below(2) == 0 {
            simulation
                .run(world.sync_file_system(Path::new("/data")))
                .expect("synced");
            self.hint.durable = true;
        }
        let how = (self.hint, self.remembered.clone());
        let opened = Rig::open_remembered(&world, Path::new(DIR), &self.config, how, self.epoch);
        let (rig, report) = simulation.run(opened).expect("opens");
        assert_eq!(report.clean, self.hint.clean);
        assert!(
            report.log_start <= self.log_start_max,
            "retention took too much"
        );
        self.log_start_max = report.log_start;
        simulation.run(self.check_everything(&rig));
        simulation.run(check_files(&world, &rig));
        self.refused = false;
        if self.faulty {
            for operation in [Operation::Write, Operation::Sync, Operation::Zero] {
                simulation.faults().chance(operation, 20_000);
            }
        }
        for at in 0..self.producers.len() {
            self.producers[at].resent = self.producers[at].in_flight.len();
            for n in 0..self.producers[at].in_flight.len() {
                self.resend(&rig, at, n);
            }
        }
        for _ in 0..self.random.below(60) {
            self.step(&mut simulation, &rig);
        }
        self.collect(&rig);
        self.log_start_max = rig.with(|partition, _| partition.log_start());
        self.end(simulation, rig, ending)
    }

    fn step(&mut self, simulation: &mut Simulation, rig: &Rig<SimulatedWorld>) {
        match self.random.below(10) {
            0..=5 => self.produce(rig),
            6 => {
                let max_bytes = 1 + self.random.below(6000) as usize;
                simulation.run(self.consume(rig, max_bytes));
            }
            7 => {
                let far = self.random.below(20_000);
                simulation.advance(Duration::from_micros(far));
                rig.tend();
            }
            8 => {
                simulation.run_steps(self.random.below(30) as usize);
            }
            _ => self.delete_some(rig),
        }
        if self.random.below(12) == 0 {
            self.remember(&simulation.world(), rig);
        }
        self.collect(rig);
    }

    /// What a checkpoint of this moment would say.
    fn remember(&mut self, world: &SimulatedWorld, rig: &Rig<SimulatedWorld>) {
        let boot_id = world.boot_id().now_or_never();
        if let (Some(log), Some(Ok(boot_id))) = (rig.remember(), boot_id) {
            let writer = Writer {
                broker_epoch: i64::from(self.epoch),
                boot_id,
            };
            self.remembered = Some(Remembered::new(writer, Bytes::from(log)));
        }
    }

    fn produce(&mut self, rig: &Rig<SimulatedWorld>) {
        let at = self.random.index(self.producers.len());
        if self.refused || self.producers[at].in_flight.len() >= 5 {
            return;
        }
        self.batches_sent += 1;
        let records = 1 + self.random.below(3) as i32;
        let size = match self.random.below(12) {
            0 => self.random.below(20_000),
            _ => self.random.below(1500),
        };
        let filler = vec![b'a' + (self.batches_sent % 26) as u8; size as usize];
        let marked = format!("{}/{}", self.producers[at].id, self.batches_sent);
        let mut values: Vec<&[u8]> = vec![marked.as_bytes(); records as usize];
        values[0] = &filler;
        let producer = &mut self.producers[at];
        let sequence = producer.next_sequence;
        producer.next_sequence += records;
        let batch = produced_batch((producer.id, producer.epoch, sequence), &values);
        producer.in_flight.push_back((batch, None));
        let n = producer.in_flight.len() - 1;
        self.resend(rig, at, n);
        if self.random.below(8) == 0 {
            // The same batch again, as after a lost answer, while the first is under way.
            let (batch, _) = self.producers[at].in_flight[n].clone();
            rig.send(&batch, Acks::Leader);
        }
    }

    fn resend(&mut self, rig: &Rig<SimulatedWorld>, at: usize, n: usize) {
        let entry = &mut self.producers[at].in_flight[n];
        entry.1 = Some(rig.send(&entry.0, Acks::All));
    }

    async fn consume(&mut self, rig: &Rig<SimulatedWorld>, max_bytes: usize) {
        let result = rig.read(self.consumer_at, max_bytes).await;
        if result.error == ErrorCode::OffsetOutOfRange {
            self.consumer_at = rig.with(|partition, _| partition.log_start());
            return;
        }
        assert_eq!(result.error, ErrorCode::None);
        let mut bytes = result.records.into_bytes();
        while !bytes.is_empty() {
            let (batch, rest) = CheckedBatch::parse_first(bytes).expect("whole batches");
            assert!(batch.header.next_offset() > self.consumer_at);
            assert!(batch.header.next_offset() <= result.high_watermark);
            self.consumer_at = batch.header.next_offset();
            self.consumed.insert(batch.header.base_offset, batch.bytes);
            bytes = rest;
        }
    }

    fn delete_some(&mut self, rig: &Rig<SimulatedWorld>) {
        if self.random.below(3) > 0 {
            return;
        }
        let (start, end) = rig.with(|p, _| (p.log_start(), p.high_watermark()));
        let to = start + self.random.below((end - start) as u64 + 1) as i64;
        let result = rig.delete_records(to);
        if self.faulty && result.error == ErrorCode::KafkaStorageError {
            return;
        }
        assert_eq!((result.error, result.low_watermark), (ErrorCode::None, to));
        self.hint.log_start_offset = self.hint.log_start_offset.max(to);
    }

    /// Takes in the answers that have come.
    fn collect(&mut self, rig: &Rig<SimulatedWorld>) {
        for producer in &mut self.producers {
            while let Some((batch, Some(tag))) = producer.in_flight.front() {
                let Some(result) = rig.result(*tag) else {
                    break;
                };
                if self.faulty && result.error != ErrorCode::None {
                    // Repeated in the next life, with everything behind it.
                    self.refused = true;
                    break;
                }
                let resent = producer.resent > 0;
                producer.resent = producer.resent.saturating_sub(1);
                if resent && result.error == ErrorCode::OutOfOrderSequenceNumber {
                    // A snapshot keeps each producer's last batch only, as Kafka's do.
                    self.forgotten.push(batch.clone());
                } else {
                    assert_eq!(result.error, ErrorCode::None, "{:?}", result.message);
                    self.acknowledged.insert(result.base_offset, batch.body());
                }
                producer.in_flight.pop_front();
            }
        }
    }

    fn end(
        &mut self,
        mut simulation: Simulation,
        rig: Rig<SimulatedWorld>,
        ending: Ending,
    ) -> Simulation {
        self.epoch += 1;
        // The checkpoint may be older than the event, never newer.
        if let Some(offset) = rig.recovery_point().filter(|_| self.random.below(2) == 0) {
            self.hint.recovery_point = offset;
        }
        // So may the log's start that retention has moved.
        if let Some(offset) = rig.log_start_told().filter(|_| self.random.below(2) == 0) {
            self.hint.log_start_offset = self.hint.log_start_offset.max(offset);
        }
        self.hint.clean = ending == Ending::Clean;
        self.hint.durable = false;
        match ending {
            Ending::Clean => {
                let report = simulation.run(async {
                    rig.quiet().await;
                    self.collect(&rig);
                    rig.clone().close().await
                });
                self.remember(&simulation.world(), &rig);
                self.hint = super::rig::clean(&report.expect("closes"));
                self.log_start_max = self.log_start_max.max(self.hint.log_start_offset);
                self.restart_after(simulation, Simulation::kill)
            }
            Ending::Kill => self.restart_after(simulation, Simulation::kill),
            Ending::PowerCut => {
                if self.config.durability == Durability::Process {
                    self.forgive_power_cut();
                }
                self.restart_after(simulation, Simulation::crash)
            }
        }
    }

    fn restart_after(
        &mut self,
        simulation: Simulation,
        how: impl FnOnce(Simulation) -> Simulation,
    ) -> Simulation {
        for producer in &mut self.producers {
            producer
                .in_flight
                .iter_mut()
                .for_each(|entry| entry.1 = None);
        }
        how(simulation)
    }

    /// Under *process* a power cut may take anything that was not synced; producers begin anew.
    fn forgive_power_cut(&mut self) {
        self.forgiven = true;
        self.acknowledged.clear();
        self.forgotten.clear();
        self.consumed.clear();
        for producer in &mut self.producers {
            producer.in_flight.clear();
            (producer.epoch, producer.next_sequence) = (producer.epoch + 1, 0);
        }
    }

    async fn check_everything(&mut self, rig: &Rig<SimulatedWorld>) {
        let start = rig.with(|partition, _| partition.log_start());
        // What a power cut has left of a log may end before its start: then all of it stays.
        let end = rig.log_end();
        let is_believed = self.hint.log_start_offset <= end;
        assert!(start >= self.hint.log_start_offset || self.forgiven && !is_believed);
        if !is_believed {
            self.hint.log_start_offset = start;
        }
        let log = rig.read_all(start).await;
        let by_offset: BTreeMap<i64, &CheckedBatch> = log
            .iter()
            .map(|batch| (batch.header.base_offset, batch))
            .collect();
        let mut expected = None;
        for batch in &log {
            let base = batch.header.base_offset;
            assert_eq!(expected.unwrap_or(base), base, "offsets are without gaps");
            expected = Some(batch.header.next_offset());
        }
        for (offset, body) in self.acknowledged.range(start..) {
            let found = by_offset.get(offset).map(|batch| batch.body());
            assert!(
                found.as_ref() == Some(body),
                "acknowledged at {offset} and not there"
            );
        }
        for (offset, bytes) in self.consumed.range(start..) {
            let found = by_offset.get(offset).map(|batch| &batch.bytes);
            assert!(found == Some(bytes), "consumed at {offset} and not there");
        }
        for forgotten in std::mem::take(&mut self.forgotten) {
            let found = log.iter().any(|batch| batch.body() == forgotten.body());
            assert!(found || start > 0, "forgotten and not there");
        }
        self.consumer_at = self.consumer_at.clamp(start, rig.log_end());
        self.check_producers(&log);
    }

    /// In the log, each producer's batches follow one another, none twice.
    fn check_producers(&self, log: &[CheckedBatch]) {
        let mut last: BTreeMap<(i64, i16), i32> = BTreeMap::new();
        for batch in log {
            let header = &batch.header;
            let key = (header.producer_id, header.producer_epoch);
            if let Some(before) = last.insert(key, header.last_sequence()) {
                assert_eq!(header.base_sequence, before + 1, "producer {key:?}");
            }
        }
    }
}

/// After a start every file belongs to a segment of the log, or was renamed since because the log
/// begins behind it.
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
            assert!(file.offset < bases[0], "{name} is left over");
            continue;
        }
        let snapshot = file.kind == FileKind::Snapshot;
        assert!(
            snapshot || bases.contains(&file.offset),
            "{name} belongs to no segment"
        );
        assert_eq!(file.leftover, None, "{name} is left over");
    }
}

fn run_history(seed: u64, durability: Durability, endings: &[Ending], faulty: bool) {
    let mut simulation = Simulation::new(seed);
    if seed % 3 == 1 {
        simulation.close_files(200_000);
    }
    let mut history = History::new(seed, durability);
    history.faulty = faulty;
    let lives = 2 + history.random.below(4);
    for _ in 0..lives {
        let ending = endings[history.random.index(endings.len())];
        simulation = history.life(simulation, ending);
    }
    history.faulty = false;
    history.life(simulation, Ending::Clean);
}

/// `CHRONIK_SEEDS` asks for more than the thousand that every test run does, `CHRONIK_SEED` for
/// another first one.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("CHRONIK_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok());
    let first = std::env::var("CHRONIK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or(0);
    first..first + count.unwrap_or(1000)
}

fn run_histories(durability: Durability, endings: &[Ending], faulty: bool) {
    for seed in seeds() {
        let run = std::panic::AssertUnwindSafe(|| run_history(seed, durability, endings, faulty));
        if std::panic::catch_unwind(run).is_err() {
            panic!("seed {seed} under {durability:?}");
        }
    }
}

#[test]
fn under_disk_nothing_acknowledged_or_consumed_is_lost_by_kills_and_power_cuts() {
    let endings = [
        Ending::PowerCut,
        Ending::PowerCut,
        Ending::Kill,
        Ending::Clean,
    ];
    run_histories(Durability::Disk, &endings, false);
}

#[test]
fn under_process_a_kill_loses_nothing() {
    run_histories(
        Durability::Process,
        &[Ending::Kill, Ending::Kill, Ending::Clean],
        false,
    );
}

#[test]
fn under_process_a_power_cut_leaves_a_sound_log() {
    run_histories(
        Durability::Process,
        &[Ending::PowerCut, Ending::Kill, Ending::Clean],
        false,
    );
}

#[test]
fn under_disk_failing_writes_and_syncs_lose_nothing_acknowledged() {
    run_histories(Durability::Disk, &[Ending::PowerCut, Ending::Kill], true);
}
