//! Every setting of the broker that Kafka knows does what the table of settings says of it: at a start, when
//! it is changed at run time, after a restart, and when it is described.

use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_protocol::configs::{self, ConfigDef, ConfigType, Scope, State, Update};

use crate::configs::{BROKER, Change, DELETE, SET, TOPIC, by_name, change, describe};
use crate::subject::Subject;
use crate::support::batch::TestBatch;
use crate::support::calls::{create_topic, init_producer, produce};
use crate::support::client::Client;
use crate::support::{Broker, BrokerOptions, Scratch, eventually, skip};

/// Where values come from.
const FROM_BROKER: i8 = 2;
const FROM_ALL_BROKERS: i8 = 3;
const FROM_FILE: i8 = 4;
const FROM_DEFAULT: i8 = 5;
/// The node of a new directory.
pub(crate) const NODE: &str = "1";

pub(crate) fn is_outside() -> bool {
    let outside = std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some();
    if outside {
        skip("what becomes of a setting is this broker's own");
    }
    outside
}

/// A valid value that is not the default, and that a broker can go on with.
fn other_value(definition: &ConfigDef) -> String {
    let name = definition.name;
    if name.contains("threads") || name.contains("thread.pool") || name == "num.replica.fetchers" {
        // Kafka takes at most double of what there is.
        let default = definition.default.and_then(|text| text.parse::<u32>().ok());
        return default.map_or(7, |count| count * 2).to_string();
    }
    let candidates = [
        "true",
        "false",
        "7",
        "6001",
        "46000",
        "2097152",
        "8388608",
        "2100",
        "31000",
        "0.5",
        "0.25",
        "15",
        "150",
        "3",
        "requested",
        "SSL",
        "LogAppendTime",
        "compact",
        "gzip",
        "classic",
        "ES256",
        "UPGRADE",
        "process",
        "127.0.0.1:7",
        "org.example.Other",
        "broker",
    ];
    let fits = |value: &&str| {
        let given = |name: &str| (name == definition.name).then_some(*value);
        definition.validate(value).is_ok()
            && definition.is_changed_by(value)
            && configs::check_broker(given).is_ok()
    };
    let found = candidates.into_iter().find(fits);
    found.unwrap_or_else(|| panic!("{definition:?}")).to_owned()
}

/// Changes one setting; what was said if it was refused.
pub(crate) fn set(
    client: &mut Client,
    broker: &str,
    name: &str,
    value: Option<&str>,
) -> Result<(), String> {
    let operation = if value.is_some() { SET } else { DELETE };
    match change(client, BROKER, broker, &[(name, operation, value)], false) {
        (ErrorCode::None, _) => Ok(()),
        (error, message) => Err(format!("{error:?}: {message}")),
    }
}

/// Value, source and synonyms of one setting.
pub(crate) type Shown = (Option<String>, i8, Vec<(String, Option<String>, i8)>);

pub(crate) fn shown(client: &mut Client, kind: i8, of: &str, name: &str) -> Shown {
    let result = describe(client, kind, of, Some(&[name]));
    let config = by_name(&result)
        .remove(name)
        .unwrap_or_else(|| panic!("{name}: {result:?}"));
    let text = |value: Option<chronik_protocol::Str>| value.map(|value| value.to_string());
    let synonyms = config.synonyms.into_iter();
    let synonyms = synonyms.map(|place| (place.name.to_string(), text(place.value), place.source));
    (text(config.value), config.config_source, synonyms.collect())
}

#[test]
fn every_setting_changes_at_run_time_as_the_table_says() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let told = by_name(&describe(&mut client, BROKER, NODE, None));
    let mut kept = Vec::new();
    for definition in configs::all(Scope::Broker) {
        let (name, other) = (definition.name, other_value(definition));
        let config = &told[name];
        assert_eq!(config.read_only, !definition.is_dynamic(), "{name}");
        assert_eq!(
            config.is_sensitive,
            definition.kind == ConfigType::Password,
            "{name}"
        );
        if config.config_source == FROM_DEFAULT {
            assert_eq!(config.value.as_deref(), definition.default, "{name}");
        }
        for (of, source) in [(NODE, FROM_BROKER), ("", FROM_ALL_BROKERS)] {
            let answer = set(&mut client, of, name, Some(&other));
            let fixed =
                format!("InvalidRequest: Cannot update these configs dynamically: [{name}]");
            let own = format!(
                "InvalidRequest: Cannot update these configs at default cluster level, broker id must be \
                 specified: [{name}]"
            );
            match (definition.is_dynamic(), definition.update) {
                (_, Update::PerBroker) if of.is_empty() => assert_eq!(answer, Err(own)),
                (false, _) => assert_eq!(answer, Err(fixed)),
                // One value for all, as long as eligible leader replicas are on.
                (true, _) if name == "min.insync.replicas" && of == NODE && answer.is_err() => {}
                (true, _) => {
                    assert_eq!(answer, Ok(()), "{name}={other}");
                    let (value, from, _) = shown(&mut client, BROKER, NODE, name);
                    let expected = definition.shown_value(&other);
                    assert_eq!(
                        (value.as_deref(), from),
                        (Some(&*expected), source),
                        "{name}"
                    );
                    // With eligible leader replicas this one cannot be taken back.
                    let undone = set(&mut client, of, name, None);
                    assert!(undone.is_ok() || name == "min.insync.replicas", "{name}");
                    // Twice as many cleaners would need more than they can have.
                    if of.is_empty() && name != "log.cleaner.threads" {
                        kept.push((name, other.clone(), expected));
                    }
                }
            }
        }
    }
    assert_kept(&options, broker, client, &kept);
}

/// Settings made for all brokers are still there after a restart, and those that do nothing are told of.
fn assert_kept(
    options: &BrokerOptions,
    broker: Broker,
    mut client: Client,
    kept: &[(&str, String, String)],
) {
    assert!(kept.len() > 60, "{}", kept.len());
    let all: Vec<Change<'_>> = kept
        .iter()
        .map(|(name, value, _)| (*name, SET, Some(&**value)))
        .collect();
    let (error, message) = change(&mut client, BROKER, "", &all, false);
    assert_eq!(error, ErrorCode::None, "{message}");
    drop(client);
    broker.stop();
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let told = by_name(&describe(&mut client, BROKER, NODE, None));
    for (name, _, expected) in kept {
        assert_eq!(told[*name].value.as_deref(), Some(&**expected), "{name}");
        assert_eq!(told[*name].config_source, FROM_ALL_BROKERS, "{name}");
        if let Some(State::Meaningless(reason)) = configs::broker(name).map(|known| known.state) {
            let words = format!("set at run time: no meaning here: {name} ({reason})");
            eventually(&words, || broker.log().contains(&words).then_some(()));
        }
    }
    broker.stop();
}

#[test]
fn settings_without_a_meaning_are_told_of_and_shown() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let mut options = BrokerOptions::new(scratch.join("data"));
    let mut given = Vec::new();
    for definition in configs::all(Scope::Broker) {
        if let State::Meaningless(reason) = definition.state {
            let other = other_value(definition);
            options = options.set(definition.name, &other);
            given.push((definition, other, reason));
        }
    }
    let broker = options.set("not.a.setting", 1).start();
    let said = broker.log();
    assert!(
        said.contains("not.a.setting is not a setting of Kafka or Chronik"),
        "{said}"
    );
    let mut client = Client::connect(broker.address());
    let told = by_name(&describe(&mut client, BROKER, NODE, None));
    for (definition, other, reason) in given {
        let name = definition.name;
        let line = said.lines().find(|line| line.contains(reason));
        assert!(
            line.is_some_and(|line| line.contains(name)),
            "{name}: {said}"
        );
        assert_eq!(told[name].config_source, FROM_FILE, "{name}");
        let expected = definition.shown_value(&other);
        assert_eq!(told[name].value.as_deref(), Some(&*expected), "{name}");
    }
    broker.stop();
}

#[test]
fn settings_that_would_protect_somebody_are_refused() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let refused = |name: &str, value: &str, reason: &str| {
        let mut broker = options.clone().set(name, value).spawn();
        let status = broker.wait();
        let said = broker.log();
        assert_eq!(status.code(), Some(1), "{name}={value}: {said}");
        assert!(said.contains(name) && said.contains(reason), "{said}");
    };
    for definition in configs::all(Scope::Broker) {
        if let State::Refused(reason) = definition.state {
            refused(definition.name, &other_value(definition), reason);
        }
    }
    refused(
        "listener.name.plaintext.ssl.keystore.location",
        "/x",
        "no TLS yet",
    );
    refused("metadata.log.dir", "/elsewhere", "the first of log.dirs");
    let defaults =
        configs::all(Scope::Broker).filter(|known| matches!(known.state, State::Refused(_)));
    let defaults = defaults.filter_map(|known| Some((known.name, known.default?)));
    let served = defaults.fold(options, |options, (name, value)| options.set(name, value));
    served.start().stop();
}

/// Expects value, source and places of one setting of the broker or of the topic `t`.
fn expect(
    client: &mut Client,
    kind: i8,
    name: &str,
    (value, source): (&str, i8),
    places: &[(&str, &str, i8)],
) {
    let of = if kind == TOPIC { "t" } else { NODE };
    let (found, from, synonyms) = shown(client, kind, of, name);
    assert_eq!((found.as_deref(), from), (Some(value), source), "{name}");
    let synonyms: Vec<_> = synonyms
        .iter()
        .map(|(name, value, source)| (&**name, value.as_deref().unwrap_or("null"), *source))
        .collect();
    assert_eq!(synonyms, places, "{name}");
}

/// A broker whose file has values that are read otherwise than they are written, and its topic `t`.
fn start_told() -> Subject {
    let subject = Subject::start_with(&[
        ("log.retention.hours", "5"),
        ("log.retention.minutes", "70"),
        ("log.roll.hours", "7"),
        ("log.roll.jitter.hours", "1"),
        ("log.flush.scheduler.interval.ms", "777"),
        ("log.cleanup.policy", "compact, compact"),
        ("message.max.bytes", "+2000000"),
        ("auto.create.topics.enable", "FALSE"),
        ("log.cleaner.io.max.bytes.per.second", "1e3"),
    ]);
    create_topic(
        &mut subject.connect(),
        "t",
        1,
        &[("retention.bytes", " +5 ")],
    );
    subject
}

/// Kafka 4.3.1 with the same settings shows the same.
#[test]
fn settings_are_told_with_the_places_they_come_from() {
    if is_outside() {
        return;
    }
    let subject = start_told();
    let mut client = subject.connect();
    let hours = ("log.retention.hours", "5", FROM_FILE);
    let default_hours = ("log.retention.hours", "168", FROM_DEFAULT);
    let minutes = ("log.retention.minutes", "70", FROM_FILE);
    let policy = [
        ("log.cleanup.policy", "compact, compact", FROM_FILE),
        ("log.cleanup.policy", "delete", FROM_DEFAULT),
    ];
    for (kind, name, value, source, places) in [
        (
            BROKER,
            "log.retention.hours",
            "5",
            FROM_FILE,
            &[hours, default_hours][..],
        ),
        (
            BROKER,
            "log.retention.minutes",
            "70",
            FROM_FILE,
            &[minutes, hours, default_hours],
        ),
        (BROKER, "log.cleanup.policy", "compact", FROM_FILE, &policy),
        (TOPIC, "cleanup.policy", "compact", FROM_FILE, &policy),
        (TOPIC, "retention.ms", "4200000", FROM_DEFAULT, &[]),
        (TOPIC, "segment.ms", "25200000", FROM_DEFAULT, &[]),
        (TOPIC, "segment.jitter.ms", "3600000", FROM_DEFAULT, &[]),
        (TOPIC, "flush.ms", "777", FROM_DEFAULT, &[]),
    ] {
        expect(&mut client, kind, name, (value, source), places);
    }
    assert_eq!(
        set(&mut client, NODE, "log.retention.ms", Some(" +90000 ")),
        Ok(())
    );
    let dynamic = ("log.retention.ms", " +90000 ", FROM_BROKER);
    let all = [dynamic, minutes, hours, default_hours];
    expect(
        &mut client,
        BROKER,
        "log.retention.ms",
        ("90000", FROM_BROKER),
        &all,
    );
    expect(
        &mut client,
        TOPIC,
        "retention.ms",
        ("90000", FROM_BROKER),
        &all,
    );
}

/// Kafka 4.3.1 with the same settings shows the same.
#[test]
fn values_are_shown_parsed() {
    if is_outside() {
        return;
    }
    let subject = start_told();
    let mut client = subject.connect();
    let own = ("retention.bytes", "5", 1);
    let bytes = ("log.retention.bytes", "-1", FROM_DEFAULT);
    expect(
        &mut client,
        TOPIC,
        "retention.bytes",
        ("5", 1),
        &[own, bytes],
    );
    let rate = "log.cleaner.io.max.bytes.per.second";
    let rates = [
        (rate, "1e3", FROM_FILE),
        (rate, "1.7976931348623157E308", FROM_DEFAULT),
    ];
    expect(&mut client, BROKER, rate, ("1000.0", FROM_FILE), &rates);
    let create = "auto.create.topics.enable";
    let creates = [(create, "FALSE", FROM_FILE), (create, "true", FROM_DEFAULT)];
    expect(&mut client, BROKER, create, ("false", FROM_FILE), &creates);
    let largest = [
        ("message.max.bytes", "+2000000", FROM_FILE),
        ("message.max.bytes", "1048588", FROM_DEFAULT),
    ];
    expect(
        &mut client,
        TOPIC,
        "max.message.bytes",
        ("2000000", FROM_FILE),
        &largest,
    );
}

/// Kafka 4.3.1 refuses each of these with the same code and, but for the overrides, the same sentence.
#[test]
fn what_kafka_refuses_at_run_time_is_refused() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let dynamic = |said: &str| {
        format!(
            "Invalid value org.apache.kafka.common.config.ConfigException: {said} for configuration Invalid \
             dynamic configuration"
        )
    };
    let threads = "Dynamic thread count update validation failed for num.io.threads";
    for (name, value, said) in [
        ("log.retention.hours", "5", "Cannot update these configs dynamically: [log.retention.hours]".to_owned()),
        ("max.connections", "FALSE", "Invalid value FALSE for configuration max.connections: Not a number of type INT".to_owned()),
        ("max.connections", "-1", "Invalid value -1 for configuration max.connections: Value must be at least 0".to_owned()),
        ("max.connections", "0", dynamic("Invalid max.connections 0")),
        ("max.connection.creation.rate", "0", dynamic("Invalid max.connection.creation.rate 0")),
        ("listener.name.plaintext.max.connections", "0", dynamic("Invalid max.connections 0")),
        ("listener.name.plaintext.max.connection.creation.rate", "0", dynamic("Invalid max.connection.creation.rate 0")),
        ("max.connections.per.ip", "0", "requirement failed: max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.".to_owned()),
        ("log.retention.ms", "0", "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1".to_owned()),
        ("log.roll.ms", "0", "requirement failed: log.roll.ms must be greater than or equal to 1".to_owned()),
        ("log.cleaner.dedupe.buffer.size", "5", "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.".to_owned()),
        ("num.io.threads", "100", dynamic(&format!("{threads}=100, value should not be greater than double the current value 8"))),
        ("num.io.threads", "1", dynamic(&format!("{threads}=1, value should be at least half the current value 8"))),
        ("group.consumer.assignment.interval.ms", "20000", "group.consumer.assignment.interval.ms must be less than or equal to group.consumer.max.assignment.interval.ms".to_owned()),
        ("log.cleanup.policy", "compact,,delete", "Configuration 'log.cleanup.policy' values must not be empty.".to_owned()),
        ("log.cleaner.io.max.bytes.per.second", "inf", "Invalid value inf for configuration log.cleaner.io.max.bytes.per.second: Not a number of type DOUBLE".to_owned()),
    ] {
        let refused = set(&mut client, NODE, name, Some(value)).expect_err(name);
        assert_eq!(refused, format!("InvalidRequest: {said}"));
    }
    let odd = set(
        &mut client,
        NODE,
        "max.connections.per.ip.overrides",
        Some("127.0.0.1"),
    );
    assert!(odd.expect_err("no count").starts_with("InvalidRequest"));
}

#[test]
fn producers_are_forgotten_by_the_setting_of_the_moment() {
    if is_outside() {
        return;
    }
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    let id = init_producer(&mut client);
    let batch = || {
        TestBatch::of_values(["once"])
            .by_producer(id, 0, 0)
            .encode()
    };
    let send = |client: &mut Client| produce(client, &topic, 0, batch()).base_offset;
    assert_eq!((send(&mut client), send(&mut client)), (0, 0), "known");
    let name = "producer.id.expiration.ms";
    // Silent for longer than that when the setting is looked at.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(set(&mut client, "", name, Some("1")), Ok(()));
    assert_eq!(send(&mut client), 1, "forgotten");
}

#[test]
fn a_topics_policy_follows_the_broker_at_once() {
    if is_outside() {
        return;
    }
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    let large = TestBatch::of_values([vec![b'x'; 3_000]]).encode();
    let error = |client: &mut Client| produce(client, &topic, 0, large.clone()).error_code;
    assert_eq!(error(&mut client), 0);
    for of in [NODE, ""] {
        assert_eq!(
            set(&mut client, of, "message.max.bytes", Some(" +1000 ")),
            Ok(())
        );
        assert_eq!(error(&mut client), ErrorCode::MessageTooLarge.as_i16());
        assert_eq!(set(&mut client, of, "message.max.bytes", None), Ok(()));
        assert_eq!(error(&mut client), 0);
    }
}
