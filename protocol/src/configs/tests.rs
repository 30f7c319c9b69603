//! Values are read, refused and shown as in Kafka; the table is complete.

use super::*;

/// Cases and sentences of Kafka 4.3.1's `LogConfig` and `GroupConfig`.
#[test]
fn values_are_judged_as_kafka_judges_them() {
    let refused = [
        ("segment.bytes", "x", "Not a number of type INT"),
        ("segment.bytes", "1", "Value must be at least 1048576"),
        ("segment.bytes", "99999999999", "Not a number of type INT"),
        (
            "preallocate",
            "yes",
            "Expected value to be either true or false",
        ),
        (
            "cleanup.policy",
            "foo",
            "String must be one of: compact, delete",
        ),
        (
            "compression.type",
            "LZ4",
            "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "compression.gzip.level",
            "0",
            "Value must be between 1 and 9 or equal to -1",
        ),
        (
            "compression.zstd.level",
            "23",
            "Value must be no more than 22",
        ),
        ("compression.lz4.level", "0", "Value must be at least 1"),
        (
            "min.cleanable.dirty.ratio",
            "1.5",
            "Value must be no more than 1",
        ),
        (
            "min.cleanable.dirty.ratio",
            "z",
            "Not a number of type DOUBLE",
        ),
        ("retention.ms", "-2", "Value must be at least -1"),
        ("retention.ms", "1_0", "Not a number of type LONG"),
    ];
    for (name, value, reason) in refused {
        let error = topic(name).expect(name).validate(value).expect_err(value);
        let sentence = format!("Invalid value {value} for configuration {name}: {reason}");
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn values_are_read_as_kafka_reads_them() {
    let taken = [
        ("preallocate", "TRUE", Value::Boolean(true)),
        ("cleanup.policy", "", Value::List(vec![])),
        (
            "cleanup.policy",
            " delete , compact ",
            Value::List(vec!["delete".into(), "compact".into()]),
        ),
        ("compression.gzip.level", "-1", Value::Number(-1)),
        (
            "cleanup.policy",
            "compact, delete ,compact",
            Value::List(vec!["compact".into(), "delete".into()]),
        ),
        (
            "leader.replication.throttled.replicas",
            "0:1, 0:1",
            Value::List(vec!["0:1".into(), "0:1".into()]),
        ),
        ("retention.ms", " +5 ", Value::Number(5)),
        ("min.cleanable.dirty.ratio", "0.5", Value::Decimal(0.5)),
    ];
    for (name, value, parsed) in taken {
        assert_eq!(topic(name).expect(name).validate(value), Ok(parsed));
    }
}

#[test]
fn special_rules() {
    let replicas = topic("leader.replication.throttled.replicas").expect("known");
    for value in ["", "*", "1:2,3:4"] {
        assert!(replicas.validate(value).is_ok(), "{value}");
    }
    for value in ["none", "1", "1:", "1:2,*"] {
        assert!(replicas.validate(value).is_err(), "{value}");
    }
    let reset = group("share.auto.offset.reset").expect("known");
    for value in ["earliest", "by_duration:PT1H", "by_duration:p1dt2m0.5s"] {
        assert!(reset.validate(value).is_ok(), "{value}");
    }
    for value in [
        "foo",
        "by_duration:x",
        "by_duration:-PT1H",
        "by_duration:P",
        "by_duration:P1DT",
    ] {
        assert!(reset.validate(value).is_err(), "{value}");
    }
    let password = broker("ssl.key.password").expect("known");
    assert_eq!(password.error("secret", String::new()).value, "[hidden]");
}

#[test]
fn tables_are_sorted_and_their_defaults_valid() {
    for scope in [Scope::Topic, Scope::Broker, Scope::Group] {
        assert!(
            table(scope)
                .windows(2)
                .all(|pair| pair[0].name < pair[1].name)
        );
        for definition in all(scope) {
            assert_eq!(find(scope, definition.name), Some(definition));
            // A default may be empty where a given value may not.
            if let Some(default) = definition.default.filter(|text| !text.is_empty()) {
                assert!(definition.validate(default).is_ok(), "{definition:?}");
            }
        }
    }
    assert!(all(Scope::Topic).len() >= 33 && all(Scope::Broker).len() >= 340);
}

#[test]
fn what_is_shown_was_parsed() {
    for (name, given, shown) in [
        ("cleanup.policy", " compact , compact", "compact"),
        ("preallocate", " TRUE ", "true"),
        ("retention.bytes", "007", "7"),
        ("min.cleanable.dirty.ratio", "1e-1", "0.1"),
        ("compression.type", " gzip", "gzip"),
        ("retention.ms", "x", "x"),
    ] {
        let definition = topic(name).expect(name);
        assert_eq!(definition.shown_value(given), shown);
        let is_default = definition.default == Some(shown);
        assert_eq!(definition.is_changed_by(given), !is_default);
    }
    let authorizer = broker("authorizer.class.name").expect("known");
    assert!(!authorizer.is_changed_by(" ") && authorizer.is_changed_by("org.example.A"));
    let (listener, setting) = of_listener("listener.name.a.max.connections").expect("known");
    assert_eq!((listener, setting.name), ("a", "max.connections"));
    assert_eq!(of_listener("listener.name.a.no.such"), None);
}

/// A setting that is refused at start or has no meaning says why; one that protects is not dynamic.
#[test]
fn every_setting_has_its_state() {
    for definition in all(Scope::Broker) {
        let is_run_time = matches!(definition.update, Update::PerBroker | Update::Cluster);
        match definition.state {
            State::Works => assert_eq!(definition.is_dynamic(), is_run_time, "{definition:?}"),
            State::Restart => assert!(is_run_time && !definition.is_dynamic()),
            State::Meaningless(reason) => assert!(reason.len() > 20, "{definition:?}"),
            State::Refused(reason) => {
                assert!(
                    reason.len() > 20 && !definition.is_dynamic(),
                    "{definition:?}"
                );
            }
        }
    }
    for scope in [Scope::Topic, Scope::Group] {
        for definition in all(scope) {
            assert_eq!(definition.update, Update::RunTime);
            let state = definition.state;
            assert!(
                matches!(state, State::Works | State::Meaningless(_)),
                "{definition:?}"
            );
        }
    }
}
