//! Third-party clients in groups: they join, leave, crash and restart as static members, with the classic protocol and
//! with KIP-848's, and outlive a killed broker; every record is read, none twice unless a client crashed, none again
//! once committed.
//!
//! Never skips silently: a client that is not installed is named on standard error.

#[path = "../support/mod.rs"]
mod support;

mod group;
mod member;
mod tools;

use group::{Group, Kind, PARTITIONS};
use support::client::Client;
use support::consumer_groups::configure;
use support::groups::committed;
use support::{Broker, BrokerOptions, Program, Scratch, Target, say, skip};

use chronik_protocol::ErrorCode;

/// Records per partition of an ordinary step, and of one in whose middle something crashes.
const FEW: i64 = 20;
const MANY: i64 = 200;

/// After this time without a word the broker gives up a member that is about to be killed.
const SHORT_SESSION_MS: &str = "3000";

const fn classic(client: &'static str, words: &'static [&'static str]) -> Kind {
    Kind {
        client,
        words,
        tells_commits: true,
        outlives_broker: true,
    }
}

const CONSUMER: &[&str] = &["--protocol", "consumer"];
const COOPERATIVE: &[&str] = &["--assignor", "cooperative-sticky"];

const JAVA: Kind = classic("java", &[]);
const JAVA_COOPERATIVE: Kind = classic("java", COOPERATIVE);
const JAVA_CONSUMER: Kind = classic("java", CONSUMER);
const CONFLUENT: Kind = classic("confluent-kafka", &[]);
const CONFLUENT_COOPERATIVE: Kind = classic("confluent-kafka", COOPERATIVE);
const CONFLUENT_CONSUMER: Kind = classic("confluent-newest", CONSUMER);
const CONFLUENT_0_9: Kind = classic("confluent-kafka", &["--api-version", "0.9.0"]);
const JAVA_0_10_2: Kind = classic("java-0.10.2", &[]);
const KAFKA_PYTHON: Kind = classic("kafka-python", &[]);
const KAFKA_PYTHON_0_10: Kind = classic("kafka-python", &["--api-version", "0.10"]);
const KAFKA_PYTHON_0_11: Kind = classic("kafka-python", &["--api-version", "0.11"]);
const AIOKAFKA: Kind = classic("aiokafka", &["--assignor", "roundrobin"]);
const KAFKAJS: Kind = classic("kafkajs", &[]);
const FRANZ_GO: Kind = classic("franz-go", COOPERATIVE);
const FRANZ_GO_RANGE: Kind = classic("franz-go", &[]);
const FRANZ_GO_CONSUMER: Kind = classic("franz-go", CONSUMER);
const SARAMA: Kind = Kind {
    tells_commits: false,
    ..classic("sarama", &[])
};
const KCAT: Kind = Kind {
    tells_commits: false,
    outlives_broker: false,
    ..classic("kcat", &[])
};

#[test]
fn java() {
    life(JAVA_COOPERATIVE, 3);
}

#[test]
fn java_with_the_consumer_protocol() {
    life(JAVA_CONSUMER, 3);
}

#[test]
fn confluent_kafka() {
    life(CONFLUENT_COOPERATIVE, 3);
}

#[test]
fn confluent_kafka_with_the_consumer_protocol() {
    life(CONFLUENT_CONSUMER, 3);
}

#[test]
fn kafka_python() {
    life(KAFKA_PYTHON, 3);
}

#[test]
fn kafka_python_as_if_the_broker_were_0_11() {
    life(KAFKA_PYTHON_0_11, 2);
}

#[test]
fn kafka_python_as_if_the_broker_were_0_10() {
    life(KAFKA_PYTHON_0_10, 2);
}

#[test]
fn confluent_kafka_as_if_the_broker_were_0_9() {
    life(CONFLUENT_0_9, 2);
}

#[test]
fn java_of_2017() {
    life(JAVA_0_10_2, 2);
}

#[test]
fn aiokafka() {
    life(AIOKAFKA, 3);
}

#[test]
fn kafkajs() {
    life(KAFKAJS, 3);
}

#[test]
fn franz_go() {
    life(FRANZ_GO, 5);
}

#[test]
fn franz_go_with_the_consumer_protocol() {
    life(FRANZ_GO_CONSUMER, 5);
}

#[test]
fn sarama() {
    life(SARAMA, 4);
}

#[test]
fn kcat() {
    life(KCAT, 3);
}

#[test]
fn static_members_of_java() {
    rolling_restart(JAVA);
}

#[test]
fn static_members_of_java_with_the_consumer_protocol() {
    rolling_restart(JAVA_CONSUMER);
}

#[test]
fn static_members_of_confluent_kafka() {
    rolling_restart(CONFLUENT);
}

#[test]
fn static_members_of_confluent_kafka_with_the_consumer_protocol() {
    rolling_restart(CONFLUENT_CONSUMER);
}

#[test]
fn static_members_of_kafka_python() {
    rolling_restart(KAFKA_PYTHON);
}

#[test]
fn static_members_of_aiokafka() {
    rolling_restart(AIOKAFKA);
}

/// With cooperative-sticky this client rebalances twice more when a static member returns, with Kafka
/// too: the other member does notice.
#[test]
fn static_members_of_franz_go() {
    rolling_restart(FRANZ_GO_RANGE);
}

#[test]
fn static_members_of_sarama() {
    rolling_restart(SARAMA);
}

/// A broker, a connection to it and a group on it.
struct Stage {
    target: Option<Target>,
    producer: Client,
    group: Group,
    kind: Kind,
    scratch: Scratch,
}

impl Stage {
    /// `None`, after a loud line, when the client is not installed.
    fn set(kind: Kind, purpose: &str) -> Option<Self> {
        Program::client(kind.client).args(["installed"]).run()?;
        let scratch = Scratch::new();
        let target = Target::start(&options(&scratch));
        let mut producer = connect(&target.bootstrap());
        let words = kind.words.concat().replace("--", "-");
        let topic = target.topic(&format!("{purpose}-{}{words}", kind.client));
        let group = Group::new(kind, target.bootstrap(), topic, &mut producer);
        Some(Self {
            target: Some(target),
            producer,
            group,
            kind,
            scratch,
        })
    }

    /// Some records for the members to share, and nothing left to read.
    fn quiet(&mut self) {
        self.group.settle();
        self.group.produce(&mut self.producer, FEW);
        self.group.drain();
    }

    /// Kills the broker and starts it again at the same port.
    fn kill_broker(&mut self) {
        let Some(Target::Own(broker)) = self.target.take_if(|t| matches!(t, Target::Own(_))) else {
            skip("a broker that runs already is not killed");
            return;
        };
        self.group.tell("the broker is killed");
        self.group.crashed = true;
        let mut again_to_join = 0;
        if !self.kind.outlives_broker {
            for name in self.group.members.keys().copied().collect::<Vec<_>>() {
                self.group.kill(name);
                again_to_join += 1;
            }
        }
        let again: BrokerOptions = broker.options().clone().port(broker.port());
        broker.kill();
        let broker: Broker = again.start();
        self.group.tell("the broker serves again");
        self.producer = Client::connect(broker.address());
        self.target = Some(Target::Own(broker));
        for _ in 0..again_to_join {
            self.group.join(&[]);
        }
    }

    /// All members leave; every partition is committed to its end.
    fn clear(mut self) {
        for name in self.group.members.keys().copied().collect::<Vec<_>>() {
            self.group.leave(name);
        }
        for partition in 0..PARTITIONS {
            let offset = committed(
                &mut self.producer,
                &self.group.name,
                self.group.topic(),
                partition,
            );
            assert_eq!(offset, self.group.end(), "{:?} {partition}", self.kind);
        }
        let repeated = self.group.repeated();
        say(&format!(
            "{:?}: {repeated} records read again after crashes",
            self.group.topic()
        ));
        self.stop();
    }

    fn stop(self) {
        if let Some(target) = self.target {
            target.stop();
        }
    }
}

/// Short waits where the defaults are for people: joins at once, heartbeats twice a second.
fn options(scratch: &Scratch) -> BrokerOptions {
    BrokerOptions::new(scratch.join("data"))
        .set("group.initial.rebalance.delay.ms", 100)
        .set("group.min.session.timeout.ms", 1_000)
        .set("group.consumer.min.session.timeout.ms", 1_000)
        .set("group.consumer.min.heartbeat.interval.ms", 100)
        .set("group.consumer.heartbeat.interval.ms", 500)
}

fn connect(bootstrap: &str) -> Client {
    Client::connect(bootstrap.parse().expect("an address with a port"))
}

/// Joins, a leave, a crash of a member and one of the broker.
fn life(kind: Kind, most: usize) {
    let Some(mut stage) = Stage::set(kind, "life") else {
        return;
    };
    stage.group.join(&[]);
    stage.quiet();
    stage.group.join(&[]);
    stage.quiet();
    let others: Vec<usize> = (2..most).map(|_| stage.group.join(&[])).collect();
    stage.quiet();
    for name in others {
        stage.group.leave(name);
    }
    stage.quiet();

    if kind.words == CONSUMER {
        // The broker's side decides; a member's next heartbeat makes it count.
        let name = "consumer.session.timeout.ms";
        let group = &stage.group.name;
        let (code, why) = configure(&mut stage.producer, group, name, SHORT_SESSION_MS);
        assert_eq!(code, ErrorCode::None, "{why}");
    }
    let victim = stage.group.join(&["--session-ms", SHORT_SESSION_MS]);
    stage.group.settle();
    stage.group.produce(&mut stage.producer, MANY);
    stage.group.wait_for_record(Some(victim));
    stage.group.kill(victim);
    stage.group.settle();
    stage.group.drain();

    stage.group.produce(&mut stage.producer, MANY);
    stage.group.wait_for_record(None);
    stage.kill_broker();
    stage.quiet();
    stage.clear();
}

/// Static members are restarted one after the other, unnoticed by the others.
fn rolling_restart(kind: Kind) {
    let Some(mut stage) = Stage::set(kind, "static") else {
        return;
    };
    const IDENTITIES: [&str; 2] = ["first", "second"];
    let mut names = IDENTITIES.map(|identity| {
        let name = stage.group.join(&["--instance-id", identity]);
        stage.quiet();
        name
    });
    for turn in [0, 1] {
        let other = names[1 - turn];
        let before = stage.group.members[&other].assignments;
        let held = stage.group.members[&names[turn]].holds.clone();
        stage.group.leave(names[turn]);
        names[turn] = stage.group.join(&["--instance-id", IDENTITIES[turn]]);
        stage.quiet();
        let members = &stage.group.members;
        assert_eq!(members[&names[turn]].holds, held, "{kind:?}");
        assert_eq!(members[&other].assignments, before, "{kind:?}");
    }
    stage.clear();
}
