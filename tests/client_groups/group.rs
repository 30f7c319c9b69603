//! The rules of a group of third-party clients, and its history: the members, every record of the topic with its
//! number of reads, every commit.
//!
//! - A committed record is never read again.
//! - Before the first crash no record is read twice.
//! - At rest each partition has one member, shares differ by one at most, and every record has been read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::member::{Member, Said};
use crate::support::batch::TestBatch;
use crate::support::calls::{create_topic, produce_ok};
use crate::support::client::Client;

/// Partitions of the topic: 1 to 3 members have equal shares, 5 have not.
pub(crate) const PARTITIONS: i32 = 6;

/// Longest wait for the next thing that must happen. It bounds a hang, it measures nothing.
const PATIENCE: Duration = Duration::from_secs(180);

/// A client that runs as member, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) client: &'static str,
    /// More words for its command line.
    pub(crate) words: &'static [&'static str],
    /// Whether it says when the broker took its commit.
    pub(crate) tells_commits: bool,
    /// Whether it goes on when there is no broker for a while.
    pub(crate) outlives_broker: bool,
}

/// One wait for something that must happen.
struct Wait {
    purpose: &'static str,
    until: Instant,
}

impl Wait {
    fn begin(purpose: &'static str) -> Self {
        Self {
            purpose,
            until: Instant::now() + PATIENCE,
        }
    }
}

/// A topic and the members that read it.
#[derive(Debug)]
pub(crate) struct Group {
    kind: Kind,
    bootstrap: String,
    topic: String,
    pub(crate) name: String,
    pub(crate) members: BTreeMap<usize, Member>,
    started: usize,
    voices: Receiver<(usize, Said)>,
    voice: Sender<(usize, Said)>,
    /// Records in each partition.
    end: i64,
    reads: BTreeMap<(i32, i64), u32>,
    commits: BTreeMap<i32, i64>,
    /// Whether something crashed: what was read but not committed is read again.
    pub(crate) crashed: bool,
    story: String,
}

impl Group {
    pub(crate) fn new(kind: Kind, bootstrap: String, topic: String, producer: &mut Client) -> Self {
        create_topic(producer, &topic, PARTITIONS, &[]);
        let (voice, voices) = channel();
        Self {
            kind,
            bootstrap,
            name: format!("group-of-{topic}"),
            topic,
            members: BTreeMap::new(),
            started: 0,
            voices,
            voice,
            end: 0,
            reads: BTreeMap::new(),
            commits: BTreeMap::new(),
            crashed: false,
            story: String::new(),
        }
    }

    /// Starts one more member; returns its number.
    pub(crate) fn join(&mut self, words: &[&str]) -> usize {
        let name = self.started;
        self.started += 1;
        let mut all: Vec<String> = ["--bootstrap", &self.bootstrap, "--topic", &self.topic]
            .into_iter()
            .chain(["--group", &self.name])
            .map(str::to_owned)
            .collect();
        all.extend(self.kind.words.iter().chain(words).map(|&w| w.to_owned()));
        self.tell(&format!("member {name} starts with {words:?}"));
        let member = Member::start(self.kind.client, &all, name, self.voice.clone());
        self.members.insert(name, member);
        name
    }

    /// Tells a member to leave, and waits until it has ended well.
    pub(crate) fn leave(&mut self, name: usize) {
        self.tell(&format!("member {name} is told to leave"));
        self.members.get_mut(&name).expect("a member").leave();
        let mut gone = self.gone(name);
        let status = gone.wait();
        if !status.success() {
            let complaints = gone.complaints();
            self.fail(&format!("member {name} ended with {status}: {complaints}"));
        }
    }

    /// Kills a member, which has no time to say anything.
    pub(crate) fn kill(&mut self, name: usize) {
        self.tell(&format!("member {name} is killed"));
        self.crashed = true;
        self.members.get_mut(&name).expect("a member").kill();
        self.gone(name);
    }

    /// A member that was told to end, once it has said its last word.
    fn gone(&mut self, name: usize) -> Member {
        let mut ended = false;
        let wait = Wait::begin("a member to end");
        while !ended {
            ended = self.hear(&wait) == (name, Said::Ended);
        }
        self.members.remove(&name).expect("a member")
    }

    /// Appends this many records to each partition.
    pub(crate) fn produce(&mut self, producer: &mut Client, count: i64) {
        self.tell(&format!("{count} records more in each partition"));
        for partition in 0..PARTITIONS {
            let values = (self.end..self.end + count).map(|offset| format!("{partition}/{offset}"));
            let batch = TestBatch::of_values(values.map(String::into_bytes));
            let base = produce_ok(producer, &self.topic, partition, batch.encode());
            assert_eq!(base, self.end, "{}-{partition}", self.topic);
        }
        self.end += count;
    }

    /// Waits until the members share all partitions evenly.
    pub(crate) fn settle(&mut self) {
        let wait = Wait::begin("the partitions to be shared evenly");
        while !self.is_shared() {
            self.hear(&wait);
        }
        let shares = self
            .members
            .iter()
            .map(|(n, m)| format!("{n}: {:?}", m.holds));
        let shares = shares.collect::<Vec<_>>().join(", ");
        self.tell(&format!("shared: {shares}"));
    }

    fn is_shared(&self) -> bool {
        let mut all: Vec<i32> = self
            .members
            .values()
            .flat_map(|m| m.holds.clone())
            .collect();
        all.sort_unstable();
        let sizes = || self.members.values().map(|member| member.holds.len());
        let even = sizes().max() <= sizes().min().map(|least| least + 1);
        even && all == (0..PARTITIONS).collect::<Vec<_>>()
    }

    /// Waits until every record has been read, and committed where the client reports it; a crashed client may not
    /// have.
    pub(crate) fn drain(&mut self) {
        let wait = Wait::begin("every record to be read and committed");
        while !self.is_drained() {
            self.hear(&wait);
        }
        self.tell("all was read");
    }

    fn is_drained(&self) -> bool {
        let records = usize::try_from(self.end * i64::from(PARTITIONS)).expect("a small number");
        let partitions = 0..PARTITIONS;
        let mut commits = partitions.map(|partition| self.commits.get(&partition));
        self.reads.len() == records
            && (self.crashed
                || !self.kind.tells_commits
                || commits.all(|commit| commit == Some(&self.end)))
    }

    /// Waits until a member reads a record.
    pub(crate) fn wait_for_record(&mut self, of: Option<usize>) {
        let mut read = false;
        let wait = Wait::begin("a record to be read");
        while !read {
            let (name, said) = self.hear(&wait);
            read = matches!(said, Said::Read(..)) && of.is_none_or(|of| of == name);
        }
    }

    /// Listens until a member speaks, and holds what it says against the rules.
    fn hear(&mut self, wait: &Wait) -> (usize, Said) {
        let left = wait.until.saturating_duration_since(Instant::now());
        let Ok((name, said)) = self.voices.recv_timeout(left) else {
            self.fail(&format!("waited in vain for {}", wait.purpose));
        };
        match &said {
            Said::Holds(partitions) => {
                self.tell(&format!("member {name} holds {partitions:?}"));
                let member = self.members.get_mut(&name).expect("a member");
                member.holds.clone_from(partitions);
                member.assignments += 1;
            }
            Said::Read(partition, offset) => self.read(name, *partition, *offset),
            Said::Committed(partition, offset) => {
                let commit = self.commits.entry(*partition).or_default();
                *commit = (*commit).max(*offset);
            }
            Said::Refused(why) => self.tell(&format!("member {name} may not commit: {why}")),
            Said::Ended => {
                if !self.members.get(&name).expect("a member").leaving {
                    self.fail(&format!("member {name} ended, and nobody had told it to"));
                }
            }
        }
        (name, said)
    }

    fn read(&mut self, name: usize, partition: i32, offset: i64) {
        if offset >= self.end {
            self.fail(&format!(
                "member {name} read {partition}/{offset}, which nobody wrote"
            ));
        }
        let commit = self.commits.get(&partition).copied().unwrap_or(0);
        if offset < commit {
            self.fail(&format!(
                "member {name} read {partition}/{offset}, which was committed up to {commit}"
            ));
        }
        let times = self.reads.entry((partition, offset)).or_default();
        *times += 1;
        if *times > 1 && !self.crashed {
            self.fail(&format!(
                "member {name} read {partition}/{offset}, which was read before"
            ));
        }
    }

    /// Records that were read more than once.
    pub(crate) fn repeated(&self) -> usize {
        self.reads.values().filter(|times| **times > 1).count()
    }

    /// The end of every partition: where the group's commits must be when all has been read.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// The name of the topic.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Adds a sentence to what is shown when the test fails.
    pub(crate) fn tell(&mut self, sentence: &str) {
        writeln!(self.story, "{sentence}").expect("a string takes it");
    }

    fn fail(&mut self, why: &str) -> ! {
        let mut complaints = String::new();
        for (name, member) in &mut self.members {
            writeln!(complaints, "--- member {name} ---\n{}", member.complaints())
                .expect("a string takes it");
        }
        panic!("{:?}: {why}\n{}{complaints}", self.kind, self.story);
    }
}
