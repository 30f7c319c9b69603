//! kill -9 in a loop, under several idempotent producers and a consumer per partition: every acknowledged record is there
//! exactly once, in order, at its acknowledged offset, and no consumed record ever changes. With each promise of
//! `chronik.durability`, and with acks=1.
//!
//! `CHRONIK_CRASH_ROUNDS` sets the number of kills (50), `CHRONIK_CRASH_SEED` repeats a run's choices (not its timing,
//! which is the machine's).

#[path = "../support/mod.rs"]
mod support;

mod confluent;
mod consumer;
mod gate;
mod producer;
mod topics;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::messages::ApiVersionsRequest;

use crate::consumer::{Consumer, Log, extend};
use crate::gate::Gate;
use crate::producer::{Acknowledged, Producer};
use crate::support::calls::{create_topic, read_batches};
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, free_port};
use crate::topics::Topics;

/// Partitions of the topic everybody writes to.
pub(crate) const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 4;
/// That topic.
pub(crate) const TOPIC: &str = "steady";
/// Longest time a broker serves before it is killed, ms.
const SERVING_MS_MAX: u64 = 120;
/// Longest time a broker starts before it is killed, ms: a start takes about as long.
const STARTING_MS_MAX: u64 = 60;

/// Choices that can be repeated.
#[derive(Debug)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn new() -> Self {
        let given = std::env::var("CHRONIK_CRASH_SEED").ok();
        let seed = given.map(|seed| seed.parse().expect("CHRONIK_CRASH_SEED is a number"));
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
        eprintln!("CHRONIK_CRASH_SEED={seed}");
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }
}

/// Kills of one run.
pub(crate) fn rounds() -> usize {
    let given = std::env::var("CHRONIK_CRASH_ROUNDS").ok();
    given.map_or(50, |rounds| {
        rounds.parse().expect("CHRONIK_CRASH_ROUNDS is a number")
    })
}

#[test]
fn kill_9_loses_nothing_with_the_disk_promise() {
    survive("disk", -1);
}

#[test]
fn kill_9_loses_nothing_with_the_process_promise() {
    survive("process", -1);
}

#[test]
fn kill_9_loses_nothing_that_a_leader_acknowledged() {
    survive("disk", 1);
}

/// What clients were told while brokers came and went.
#[derive(Debug, Default)]
struct Told {
    acknowledged: Mutex<Vec<Acknowledged>>,
    consumed: [Mutex<Log>; PARTITIONS as usize],
}

/// Lets all threads end, also when the test fails.
struct EndWhenDropped<'a>(&'a Gate);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn survive(durability: &str, acks: i16) {
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"))
        .port(free_port())
        .set("chronik.durability", durability)
        .set("chronik.shards", 2)
        // Small segments: rolls happen between kills, too.
        .set("log.segment.bytes", 1 << 20);
    let broker = options.start();
    let address = broker.address();
    create_topic(&mut Client::connect(address), TOPIC, PARTITIONS, &[]);
    let (gate, told, mut ledger) = (Gate::new(), Told::default(), Ledger::default());
    let (left, broker) = thread::scope(|scope| {
        let end = EndWhenDropped(&gate);
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                let producer = Producer::new((number, acks), address, &gate, &told.acknowledged);
                scope.spawn(move || producer.run())
            })
            .collect();
        for (partition, consumed) in (0..).zip(&told.consumed) {
            let consumer = Consumer::new(partition, address, &gate, consumed);
            scope.spawn(move || consumer.run());
        }
        let broker = kill_in_a_loop(durability, &options, broker, &gate, &told, &mut ledger);
        gate.open();
        drop(end);
        let ended = producers
            .into_iter()
            .map(|thread| thread.join().expect("a producer"));
        (ended.sum::<usize>(), broker)
    });
    assert_eq!(left, 0, "batches were left in flight");
    ledger.check(&mut Client::connect(address), &told, 0);
    assert!(
        ledger.acknowledged > rounds(),
        "hardly anything was written"
    );
    broker.stop();
}

/// Kills and starts the broker, and checks each time what the next one holds.
fn kill_in_a_loop(
    durability: &str,
    options: &BrokerOptions,
    mut broker: Broker,
    gate: &Gate,
    told: &Told,
    ledger: &mut Ledger,
) -> Broker {
    let (mut dice, mut topics, mut startups) = (Dice::new(), Topics::default(), Vec::new());
    for round in 1..=rounds() {
        gate.open();
        topics.disturb(broker.address(), &mut dice);
        let serving = Duration::from_millis(dice.below(SERVING_MS_MAX));
        assert!(
            broker.wait_for_exit(serving).is_none(),
            "it ended by itself"
        );
        topics.disturb_without_waiting(broker.address(), &mut dice);
        gate.close();
        broker.kill();
        let startup;
        (broker, startup) = start_at_last(options, &mut dice);
        startups.push(startup);
        let mut client = Client::connect(broker.address());
        // Some of what is known is read again; all of it now and then.
        let skip = if dice.below(8) == 0 {
            0
        } else {
            dice.below(1_000)
        };
        ledger.check(&mut client, told, skip);
        topics.check(&mut client);
        let written = ledger.acknowledged;
        eprintln!("{durability} {round}: {written} acknowledged, start-up {startup:.1?}");
    }
    startups.sort_unstable();
    let [min, median, max] = [0, 1, 2].map(|part| startups[(startups.len() - 1) * part / 2]);
    eprintln!("{durability}: start-up after kill -9: {min:.1?}, median {median:.1?}, {max:.1?}");
    broker
}

/// Starts a broker, sometimes killing some while they start, and says how long the last one took
/// to answer a request.
fn start_at_last(options: &BrokerOptions, dice: &mut Dice) -> (Broker, Duration) {
    while dice.below(3) == 0 {
        let mut starting = options.spawn();
        let patience = Duration::from_millis(dice.below(STARTING_MS_MAX));
        let ended = starting.wait_for_exit(patience);
        assert!(ended.is_none(), "a start failed: {ended:?}");
        starting.kill();
    }
    let started = Instant::now();
    let broker = options.start();
    Client::connect(broker.address()).call(&ApiVersionsRequest::default(), 0);
    (broker, started.elapsed())
}

/// What the log held after the last start, and how much of it had been acknowledged.
#[derive(Debug, Default)]
struct Ledger {
    read: [Log; PARTITIONS as usize],
    acknowledged: usize,
}

impl Ledger {
    /// Compares what the broker holds now with everything it ever told. The first `skip_per_mille` of
    /// what was read before are not read again.
    fn check(&mut self, client: &mut Client, told: &Told, skip_per_mille: u64) {
        let acknowledged = std::mem::take(&mut *told.acknowledged.lock().expect("no panic inside"));
        for (partition, log) in (0..).zip(&mut self.read) {
            let known = log.len();
            let from = known * skip_per_mille as usize / 1_000;
            let mut again = log[..from].to_vec();
            for batch in read_batches(client, TOPIC, partition, from as i64) {
                extend(&mut again, &[batch]);
            }
            assert!(
                again.len() >= known,
                "partition {partition} ended at {known}"
            );
            assert_eq!(again[from..known], log[from..], "partition {partition}");
            *log = again;
            in_order(partition, log);
            let consumed = told.consumed[partition as usize]
                .lock()
                .expect("no panic inside");
            assert!(
                consumed.len() <= log.len(),
                "consumed and taken back in {partition}"
            );
            assert_eq!(
                consumed[..],
                log[..consumed.len()],
                "consumed from partition {partition}"
            );
        }
        for Acknowledged {
            partition,
            offset,
            mark,
        } in &acknowledged
        {
            let found = self.read[*partition as usize].get(*offset as usize);
            assert_eq!(found, Some(mark), "acknowledged in {partition} at {offset}");
        }
        self.acknowledged += acknowledged.len();
    }
}

/// Each producer's records are there once and in the order it wrote them.
fn in_order(partition: i32, log: &Log) {
    let mut next = [0; PRODUCERS];
    for (offset, mark) in log.iter().enumerate() {
        let expected = &mut next[mark.producer];
        assert_eq!(
            mark.number, *expected,
            "{mark:?} in {partition} at {offset}"
        );
        *expected += 1;
    }
}
