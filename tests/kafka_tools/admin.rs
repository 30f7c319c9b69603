//! What Kafka's tools for replicas, the quorum, features and ACLs make of one broker.

use std::fs;

use super::{Tools, tools_are_missing};
use crate::support::{BrokerOptions, Scratch, Target};

#[test]
fn kafka_leader_election_finds_nothing_to_do() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let topic = tools.target.topic("elected");
    tools.create_topic(&topic, 2, &[]);
    let one = [
        "--election-type",
        "preferred",
        "--topic",
        &topic,
        "--partition",
        "1",
    ];
    let out = tools.run("kafka-leader-election", &one);
    assert!(out.contains("Valid replica already elected"), "{out}");
    let all = ["--election-type", "unclean", "--all-topic-partitions"];
    tools.run("kafka-leader-election", &all);
    let unknown = [
        "--election-type",
        "preferred",
        "--topic",
        &topic,
        "--partition",
        "9",
    ];
    let report = tools.report("kafka-leader-election", &unknown);
    let said = report.out + &report.err;
    assert!(
        !report.status.success() && said.contains("No such partition"),
        "{said}"
    );
    tools.target.stop();
}

#[test]
fn kafka_reassign_partitions_generates_executes_and_verifies() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let topic = tools.target.topic("reassigned");
    tools.create_topic(&topic, 2, &[]);
    let topics = tools.scratch.join("topics.json");
    let list = format!("{{\"version\":1,\"topics\":[{{\"topic\":\"{topic}\"}}]}}");
    fs::write(&topics, list).expect("a file");
    let topics = topics.display().to_string();
    let generate = [
        "--topics-to-move-json-file",
        &topics,
        "--broker-list",
        "1",
        "--generate",
    ];
    let out = tools.run("kafka-reassign-partitions", &generate);
    let proposed = out
        .lines()
        .rfind(|line| line.starts_with('{'))
        .expect("a proposal");
    assert!(proposed.contains("\"replicas\":[1]"), "{out}");

    let plan = tools.scratch.join("plan.json");
    fs::write(&plan, proposed).expect("a file");
    let plan = plan.display().to_string();
    let with_plan = |word| ["--reassignment-json-file", &*plan, word];
    let out = tools.run("kafka-reassign-partitions", &with_plan("--execute"));
    assert!(
        out.contains("Successfully started partition reassignments"),
        "{out}"
    );
    let out = tools.run("kafka-reassign-partitions", &with_plan("--verify"));
    assert_eq!(out.matches("is completed.").count(), 2, "{out}");
    let out = tools.run("kafka-reassign-partitions", &["--list"]);
    assert!(out.contains("No partition reassignments found"), "{out}");
    let out = tools.run("kafka-reassign-partitions", &with_plan("--cancel"));
    assert!(
        out.contains("None of the specified partition reassignments are active"),
        "{out}"
    );

    let elsewhere = proposed
        .replace("[1]", "[1,2]")
        .replace("[\"any\"]", "[\"any\",\"any\"]");
    fs::write(&plan, elsewhere).expect("a file");
    let report = tools.report("kafka-reassign-partitions", &with_plan("--execute"));
    let said = report.out + &report.err;
    assert!(
        !report.status.success() && said.contains("Unknown broker id 2"),
        "{said}"
    );
    tools.target.stop();
}

#[test]
fn kafka_reassign_partitions_moves_logs_between_directories() {
    if tools_are_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data"), scratch.join("more")];
    let options = BrokerOptions::new(&dirs[0])
        .argument("--data")
        .argument(&dirs[1]);
    let tools = Tools::on(Target::start(&options), scratch);
    if matches!(tools.target, Target::Running(_)) {
        return;
    }
    let topic = tools.target.topic("moved");
    tools.create_topic(&topic, 1, &[]);
    let plan = tools.scratch.join("plan.json");
    // It lies in one of them, and moves to the other at least once.
    for dir in dirs.iter().chain(&dirs) {
        let dir = dir.display();
        let text = format!(
            "{{\"version\":1,\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\
             \"replicas\":[1],\"log_dirs\":[\"{dir}\"]}}]}}"
        );
        fs::write(&plan, text).expect("a file");
        let plan = plan.display().to_string();
        let with_plan = |word| ["--reassignment-json-file", &*plan, word];
        let out = tools.run("kafka-reassign-partitions", &with_plan("--execute"));
        assert!(
            out.contains("Successfully started moving log directory"),
            "{out}"
        );
        let verified = || tools.run("kafka-reassign-partitions", &with_plan("--verify"));
        let done = format!("Reassignment of replica {topic}-0-1 completed successfully");
        let under_way = "is still in progress";
        let mut out = verified();
        while out.contains(under_way) {
            out = verified();
        }
        assert!(out.contains(&done), "{out}");
        let out = tools.run("kafka-log-dirs", &["--describe", "--topic-list", &topic]);
        let at = out.find(&format!("{topic}-0")).expect("it is described");
        // The tool names a directory after its partitions.
        let listed = out[at..].split_once("\"logDir\":");
        let is_there = listed.is_some_and(|(_, rest)| rest.starts_with(&format!("\"{dir}\"")));
        assert!(is_there && !out.contains("\"isFuture\":true"), "{out}");
    }
    tools.target.stop();
}

#[test]
fn kafka_metadata_quorum_describes_one_voter_without_lag() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let status = tools.run("kafka-metadata-quorum", &["describe", "--status"]);
    for line in [
        "LeaderId:",
        "MaxFollowerLag:         0",
        "CurrentVoters:          [{\"id\": 1",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    let replicas = tools.run("kafka-metadata-quorum", &["describe", "--replication"]);
    assert!(
        replicas.contains("Leader") && !replicas.contains("Observer"),
        "{replicas}"
    );
    tools.target.stop();
}

#[test]
fn kafka_features_describes_lowers_and_raises() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let finalized = |feature: &str| {
        let out = tools.run("kafka-features", &["describe"]);
        let line = out
            .lines()
            .find(|line| line.contains(&format!("Feature: {feature}")));
        let line = line.unwrap_or_else(|| panic!("no {feature}\n{out}"));
        let after = line
            .split("FinalizedVersionLevel: ")
            .nth(1)
            .expect("a level");
        after.split_whitespace().next().expect("a level").to_owned()
    };
    assert_eq!(finalized("metadata.version"), "4.3-IV0");
    assert_eq!(finalized("group.version"), "1");
    let dry = ["downgrade", "--feature", "group.version=0", "--dry-run"];
    let out = tools.run("kafka-features", &dry);
    assert!(out.contains("can be downgraded"), "{out}");
    assert_eq!(finalized("group.version"), "1");
    tools.run(
        "kafka-features",
        &["downgrade", "--feature", "group.version=0"],
    );
    assert_eq!(finalized("group.version"), "0");
    tools.run(
        "kafka-features",
        &["upgrade", "--feature", "group.version=1"],
    );
    assert_eq!(finalized("group.version"), "1");
    let report = tools.report("kafka-features", &["downgrade", "--metadata", "4.0"]);
    let said = report.out + &report.err;
    assert!(
        !report.status.success() && said.contains("might delete metadata"),
        "{said}"
    );
    tools.target.stop();
}

#[test]
fn kafka_acls_is_told_that_there_is_no_authorizer() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let add = [
        "--add",
        "--allow-principal",
        "User:a",
        "--operation",
        "read",
        "--topic",
        "t",
    ];
    for words in [&["--list"][..], &add] {
        let report = tools.report("kafka-acls", words);
        let said = report.out + &report.err;
        assert!(
            said.contains("SecurityDisabledException"),
            "{words:?}: {said}"
        );
    }
    tools.target.stop();
}

/// The broker of a new directory, as `kafka-configs` wants it.
const BROKER: [&str; 4] = ["--entity-type", "brokers", "--entity-name", "1"];

/// The line on one of the broker's settings.
fn described(tools: &Tools, name: &str) -> String {
    let words = [&BROKER[..], &["--describe", "--all"]].concat();
    let out = tools.run("kafka-configs", &words);
    let start = format!("{name}=");
    let mut lines = out.lines().map(str::trim_start);
    let line = lines.find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("no {name}\n{out}"))
        .to_owned()
}

#[test]
fn kafka_configs_changes_brokers_at_run_time_or_is_refused() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let one = BROKER;
    let all = ["--entity-type", "brokers", "--entity-default"];
    let alter = |of: &[&str], change: &[&str]| {
        tools.report("kafka-configs", &[of, &["--alter"], change].concat())
    };
    let described = |name: &str| described(&tools, name);
    for (of, change, value, source) in [
        (
            &all[..],
            "log.cleaner.backoff.ms",
            "7000",
            "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ),
        (
            &one,
            "log.cleaner.backoff.ms",
            "8000",
            "DYNAMIC_BROKER_CONFIG",
        ),
    ] {
        let setting = format!("{change}={value}");
        let report = alter(of, &["--add-config", &setting]);
        assert!(
            report.status.success(),
            "{setting}: {}",
            report.out + &report.err
        );
        let line = described(change);
        let place = format!("{source}:{setting}");
        assert!(line.contains(&setting) && line.contains(&place), "{line}");
    }
    let back = alter(&one, &["--delete-config", "log.cleaner.backoff.ms"]);
    assert!(back.status.success(), "{}", back.out + &back.err);
    let line = described("log.cleaner.backoff.ms");
    assert!(line.contains("log.cleaner.backoff.ms=7000"), "{line}");
    for (of, setting, sentence) in [
        (
            &one[..],
            "num.partitions=3",
            "Cannot update these configs dynamically",
        ),
        (
            &all,
            "log.cleaner.backoff.ms=soon",
            "Not a number of type LONG",
        ),
    ] {
        let report = alter(of, &["--add-config", setting]);
        let said = report.out + &report.err;
        assert!(
            !report.status.success() && said.contains(sentence),
            "{said}"
        );
    }
    tools.target.stop();
}
