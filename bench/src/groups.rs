//! The instrument for consumer groups: many members with clients' heartbeats, each a thread with a connection of
//! its own. Measures a heartbeat's cost for the broker, a rebalance's length and cost, and the effect on producers
//! to other partitions.
//!
//! Never fetches or commits: only membership is measured.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::record::Compression;
use chronik_protocol::{ApiKey, ErrorCode, Uuid};
use clap::{Args, ValueEnum};

use crate::frames::{self, Payload};
use crate::generator;
use crate::load::{Load, LoadResult, Pace};
use crate::rpc::{Rpc, invalid};
use crate::target::Target;

mod member;

use member::Member;

/// The topic that the groups consume.
const TOPIC: &str = "groups";
/// The topic of the producers beside them.
const BESIDE: &str = "beside";
/// A member's thread needs little stack.
const STACK_BYTES: usize = 256 * 1024;
/// Time for all members together to agree.
const PATIENCE: Duration = Duration::from_secs(120);
/// A group is at rest after this time without a change; more than two heartbeats.
const REST: Duration = Duration::from_millis(2_500);

/// The group protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// JoinGroup, SyncGroup, Heartbeat: the leader assigns
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848): the broker assigns
    Consumer,
}

/// The numbers of groups, members and requests.
#[derive(Args, Debug)]
pub(crate) struct GroupOptions {
    /// Groups
    #[arg(long, default_value_t = 500)]
    groups: usize,
    /// Members of each
    #[arg(long, default_value_t = 4)]
    members: usize,
    /// Partitions of the topic that all of them consume; as many as members unless given
    #[arg(long)]
    partitions: Option<i32>,
    /// The protocol
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Protocol,
    /// Milliseconds from one heartbeat of a member to its next
    #[arg(long, default_value_t = 1_000)]
    heartbeat_ms: u64,
    /// Seconds of heartbeats that are measured
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Requests a second of 1 KiB that are produced to 16 other partitions, before there are groups
    /// and while they beat; 0 for none
    #[arg(long, default_value_t = 0)]
    produce_rate: u32,
}

/// A member's assignment: its epoch (or generation) and its number of partitions.
#[derive(Clone, Copy, Debug)]
struct Assigned {
    group: usize,
    member: usize,
    epoch: i32,
    partitions: usize,
}

/// State shared by all members.
#[derive(Debug)]
struct Stage {
    target: std::net::SocketAddr,
    protocol: Protocol,
    topic_id: Uuid,
    partitions: i32,
    heartbeat: Duration,
    heartbeats: AtomicU64,
    /// The slowest heartbeat since the last read, µs.
    slowest_us: AtomicU64,
    over: AtomicBool,
    /// Tells the first member of the first group to leave and come back.
    restless: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl Stage {
    fn slowest_ms(&self) -> f64 {
        self.slowest_us.swap(0, Ordering::Relaxed) as f64 / 1e3
    }

    fn fail(&self, error: io::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The last assignment of each member.
#[derive(Debug)]
struct Assembly {
    heard: Receiver<Assigned>,
    last: BTreeMap<(usize, usize), Assigned>,
    groups: usize,
    members: usize,
    partitions: usize,
}

impl Assembly {
    /// Waits until all members of each group are in one epoch, hold every partition together, and see no change;
    /// returns the time of the last assignment.
    fn agree(&mut self, stage: &Stage) -> io::Result<Instant> {
        let started = Instant::now();
        let mut last = started;
        loop {
            match self.heard.recv_timeout(REST) {
                Ok(assigned) => {
                    self.last
                        .insert((assigned.group, assigned.member), assigned);
                    last = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) if self.is_settled() => return Ok(last),
                Err(_) => {}
            }
            let mut failure = stage.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = failure.take() {
                return Err(error);
            }
            if started.elapsed() > PATIENCE {
                return Err(invalid("the members did not agree within two minutes"));
            }
        }
    }

    fn is_settled(&self) -> bool {
        let mut groups: BTreeMap<usize, (i32, usize, usize)> = BTreeMap::new();
        for assigned in self.last.values() {
            let group = groups
                .entry(assigned.group)
                .or_insert((assigned.epoch, 0, 0));
            if group.0 != assigned.epoch {
                return false;
            }
            group.1 += 1;
            group.2 += assigned.partitions;
        }
        groups.len() == self.groups
            && groups
                .values()
                .all(|(_, members, held)| (*members, *held) == (self.members, self.partitions))
    }
}

impl GroupOptions {
    /// Runs the measurement and prints the results.
    ///
    /// # Errors
    /// When the broker refuses a request, or the members do not agree.
    pub(crate) fn run(&self, target: &Target) -> io::Result<bool> {
        let members = i32::try_from(self.members).unwrap_or(i32::MAX);
        let partitions = self.partitions.unwrap_or(members);
        let count = usize::try_from(partitions).unwrap_or(0);
        if self.groups == 0 || self.members == 0 || count == 0 || self.heartbeat_ms == 0 {
            return Err(io::Error::other("counts start at 1"));
        }
        crate::process::raise_open_files();
        let mut rpc = Rpc::connect(target.address)?;
        let topic_id = made(&mut rpc, TOPIC, partitions)?;
        if self.produce_rate > 0 {
            made(&mut rpc, BESIDE, 16)?;
            print_latency("alone", &self.produce(&rpc, target)?);
        }
        let stage = Arc::new(Stage {
            target: target.address,
            protocol: self.protocol,
            topic_id,
            partitions,
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            heartbeats: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            over: AtomicBool::new(false),
            restless: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let (teller, heard) = mpsc::channel();
        let mut assembly = Assembly {
            heard,
            last: BTreeMap::new(),
            groups: self.groups,
            members: self.members,
            partitions: count,
        };
        let threads = self.start(&stage, &teller)?;
        drop(teller);
        let measured = self.measure(&rpc, target, &stage, &mut assembly);
        stage.over.store(true, Ordering::Relaxed);
        for thread in threads {
            // A member's error is in `failure`.
            let _ended = thread.join();
        }
        measured?;
        Ok(true)
    }

    fn start(
        &self,
        stage: &Arc<Stage>,
        teller: &Sender<Assigned>,
    ) -> io::Result<Vec<thread::JoinHandle<()>>> {
        let mut threads = Vec::new();
        let all = self.groups * self.members;
        for number in 0..all {
            let (stage, teller) = (Arc::clone(stage), teller.clone());
            let place = (number / self.members, number % self.members);
            // Spread over the interval, like the heartbeats of independent clients.
            let share = number as f64 / all as f64;
            let phase = stage.heartbeat.mul_f64(share);
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            threads.push(thread.spawn(move || {
                if let Err(error) = Member::live(&stage, &teller, place, phase) {
                    stage.fail(error);
                }
            })?);
        }
        Ok(threads)
    }

    fn measure(
        &self,
        rpc: &Rpc,
        target: &Target,
        stage: &Stage,
        assembly: &mut Assembly,
    ) -> io::Result<()> {
        let (before, started) = (target.subject.usage(), Instant::now());
        let agreed = assembly.agree(stage)?;
        let spent = (target.subject.usage() - before).broker();
        println!(
            "{} groups of {} members, {} partitions: all in after {:.1} s, {:.2} s of CPU; \
             slowest answer to a heartbeat {:.1} ms",
            self.groups,
            self.members,
            stage.partitions,
            (agreed - started).as_secs_f64(),
            spent.as_secs_f64(),
            stage.slowest_ms()
        );
        let (before, started) = (target.subject.usage(), Instant::now());
        let heartbeats = stage.heartbeats.load(Ordering::Relaxed);
        thread::sleep(Duration::try_from_secs_f64(self.seconds).map_err(io::Error::other)?);
        let heartbeats = stage.heartbeats.load(Ordering::Relaxed) - heartbeats;
        let spent = (target.subject.usage() - before).broker();
        println!(
            "{:.0} heartbeats/s: {:.1} us of CPU each, {:.1} % of a core; slowest answer {:.1} ms",
            heartbeats as f64 / started.elapsed().as_secs_f64(),
            spent.as_secs_f64() * 1e6 / heartbeats.max(1) as f64,
            spent.as_secs_f64() * 100.0 / started.elapsed().as_secs_f64(),
            stage.slowest_ms()
        );
        if self.produce_rate > 0 {
            print_latency("beside them", &self.produce(rpc, target)?);
        }
        let (before, started) = (target.subject.usage(), Instant::now());
        stage.slowest_ms();
        stage.restless.store(true, Ordering::Relaxed);
        let agreed = assembly.agree(stage)?;
        let spent = (target.subject.usage() - before).broker();
        println!(
            "a member leaves and comes back: all agree after {:.2} s; {:.2} s of CPU in {:.1} s; \
             slowest answer to a heartbeat {:.1} ms",
            (agreed - started).as_secs_f64(),
            spent.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            stage.slowest_ms()
        );
        Ok(())
    }

    fn produce(&self, rpc: &Rpc, target: &Target) -> io::Result<LoadResult> {
        let frames = frames::build(&Payload {
            topic: BESIDE.to_owned(),
            partitions: 16,
            records: 1,
            record_bytes: 1024,
            keys: 0,
            acks: -1,
            codec: Compression::None,
            version: rpc.version(ApiKey::Produce)?,
        })?;
        let load = Load {
            address: target.address,
            connections: 16,
            pace: Pace::Fixed {
                requests_per_second: self.produce_rate,
            },
            consumption: None,
            warm_up: Duration::from_secs(2),
            measured: Duration::try_from_secs_f64(self.seconds).map_err(io::Error::other)?,
            bytes_max: u64::MAX,
        };
        generator::run(&load, &frames, &target.subject)
    }
}

fn print_latency(when: &str, outcome: &LoadResult) {
    let at = |quantile: f64| outcome.latency_us.value_at_quantile(quantile);
    println!(
        "{:.0} requests/s {when}: p50 {} us, p99 {} us, p99.9 {} us",
        outcome.requests as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

/// Creates a topic and returns its id.
fn made(rpc: &mut Rpc, name: &str, partitions: i32) -> io::Result<Uuid> {
    let (error, id) = rpc.create_topic_with_id(name, partitions, &[])?;
    if error != ErrorCode::None {
        return Err(invalid(format!("{name} cannot be created: {error:?}")));
    }
    rpc.await_topic(name, partitions)?;
    Ok(id)
}
