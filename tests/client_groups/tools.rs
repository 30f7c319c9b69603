//! Kafka's own tools for groups: listing, describing, resetting and deleting offsets and groups, consuming in a group,
//! and the reader of `__consumer_offsets`.
//!
//! Never skips silently: without Java the tools are named on standard error.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::groups::{commit, committed, find_coordinator};
use crate::support::{Program, Report, Target, skip};
use crate::{CONSUMER, FRANZ_GO_CONSUMER, FRANZ_GO_RANGE, PARTITIONS, Stage};

use chronik_protocol::ErrorCode;

impl Stage {
    /// Runs `kafka-NAME` and returns what it printed; these tools end well even when refused.
    fn tool(&self, name: &str, words: &[&str]) -> String {
        let bootstrap = self.target.as_ref().expect("a broker").bootstrap();
        let tool = Program::kafka_tool(name)
            .args(["--bootstrap-server", &bootstrap])
            .args(words);
        let Report { out, err, .. } = tool.report().expect("the tools were there a moment ago");
        out + &err
    }

    /// Runs `kafka-consumer-groups` for this group.
    fn operate(&self, words: &[&str]) -> String {
        let group = ["--group", &self.group.name];
        self.tool("kafka-consumer-groups", &[&group[..], words].concat())
    }

    /// Moves the group's offsets and returns where they are then, by partition.
    fn reset(&mut self, words: &[&str]) -> Vec<i64> {
        let topic = self.group.topic().to_owned();
        let start = ["--reset-offsets", "--execute", "--topic", &topic];
        let said = self.operate(&[&start[..], words].concat());
        assert!(said.contains("NEW-OFFSET"), "{words:?}: {said}");
        self.commits()
    }

    /// Where the group is in each partition.
    fn commits(&mut self) -> Vec<i64> {
        let (group, topic) = (&self.group.name, self.group.topic());
        (0..PARTITIONS)
            .map(|partition| committed(&mut self.producer, group, topic, partition))
            .collect()
    }
}

fn tools_are_missing() -> bool {
    let tool = Program::kafka_tool("kafka-groups").args(["--version"]);
    tool.run().is_none()
}

/// The words of the line that begins with these words.
fn row<'a>(table: &'a str, start: &[&str]) -> Vec<&'a str> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect());
    rows.find(|row: &Vec<&str>| row.starts_with(start))
        .unwrap_or_else(|| panic!("no line {start:?} in\n{table}"))
}

#[test]
fn kafka_consumer_groups_lists_describes_resets_and_deletes() {
    if tools_are_missing() {
        return;
    }
    let Some(mut stage) = Stage::set(FRANZ_GO_RANGE, "operated") else {
        return;
    };
    let member = stage.group.join(&[]);
    stage.quiet();
    let (group, topic) = (stage.group.name.clone(), stage.group.topic().to_owned());
    let (group, topic) = (group.as_str(), topic.as_str());

    let listed = stage.tool("kafka-consumer-groups", &["--list", "--state"]);
    assert_eq!(row(&listed, &[group]), [group, "Stable"], "{listed}");
    let listed = stage.tool("kafka-groups", &["--list"]);
    assert_eq!(row(&listed, &[group]), [group, "Classic", "consumer"]);
    let described = stage.operate(&["--describe", "--members", "--verbose"]);
    let shown = row(&described, &[group]);
    assert!(shown.contains(&"/127.0.0.1"), "{described}");
    assert!(described.contains("0,1,2,3,4,5"), "{described}");
    let described = stage.operate(&["--describe", "--state"]);
    let shown = row(&described, &[group]);
    assert!(shown.contains(&"Stable"), "{described}");
    assert!(shown.contains(&"range"), "{described}");
    let refused = stage.operate(&[
        "--reset-offsets",
        "--topic",
        topic,
        "--to-earliest",
        "--execute",
    ]);
    assert!(
        refused.contains("Stable"),
        "a busy group was reset: {refused}"
    );

    stage.group.leave(member);
    let described = stage.operate(&["--describe"]);
    for partition in ["0", "1", "2", "3", "4", "5"] {
        let shown = row(&described, &[group, topic, partition]);
        assert_eq!(shown[3..6], ["20", "20", "0"], "{described}");
    }
    reset_in_every_way(&mut stage);

    let place = format!("{topic}:0,1,2");
    let deleted = stage.operate(&["--delete-offsets", "--topic", &place]);
    assert!(deleted.contains("Successful"), "{deleted}");
    assert_eq!(stage.commits(), [-1, -1, -1, 20, 20, 20]);
    let deleted = stage.operate(&["--delete"]);
    assert!(deleted.contains("was successful"), "{deleted}");
    let listed = stage.tool("kafka-consumer-groups", &["--list"]);
    assert!(!listed.lines().any(|line| line == group), "{listed}");
    stage.stop();
}

/// Each way of `--reset-offsets`; the group ends where it began, at 20.
fn reset_in_every_way(stage: &mut Stage) {
    let all = |offset: i64| vec![offset; usize::try_from(PARTITIONS).expect("a few")];
    assert_eq!(stage.reset(&["--to-offset", "7"]), all(7));
    assert_eq!(stage.reset(&["--shift-by", "5"]), all(12));
    assert_eq!(stage.reset(&["--to-current"]), all(12));
    assert_eq!(stage.reset(&["--to-earliest"]), all(0));
    // The records' timestamps lie in between.
    assert_eq!(stage.reset(&["--by-duration", "PT0S"]), all(20));
    let past = "2000-01-01T00:00:00.000";
    assert_eq!(stage.reset(&["--to-datetime", past]), all(0));
    let plan = stage.scratch.join("plan.csv");
    let topic = stage.group.topic();
    let lines = (0..PARTITIONS).map(|partition| format!("\"{topic}\",{partition},{partition}\n"));
    fs::write(&plan, lines.collect::<String>()).expect("a small file");
    let plan = plan.to_string_lossy().into_owned();
    let partitions: Vec<i64> = (0..PARTITIONS).map(i64::from).collect();
    assert_eq!(stage.reset(&["--from-file", &plan]), partitions);
    assert_eq!(stage.reset(&["--to-latest"]), all(20));
}

#[test]
fn kafka_console_consumer_reads_in_a_group_of_either_protocol() {
    if tools_are_missing() {
        return;
    }
    for kind in [FRANZ_GO_RANGE, FRANZ_GO_CONSUMER] {
        let Some(mut stage) = Stage::set(kind, "console") else {
            return;
        };
        let protocol = if kind.words == CONSUMER {
            "consumer"
        } else {
            "classic"
        };
        stage.group.produce(&mut stage.producer, 10);
        let property = format!("group.protocol={protocol}");
        let topic = stage.group.topic().to_owned();
        let group = stage.group.name.clone();
        // The second time the group goes on where it was.
        for count in ["20", "40"] {
            let words = ["--topic", &topic, "--group", &group, "--from-beginning"];
            let more = ["--max-messages", count, "--command-property", &property];
            let said = stage.tool("kafka-console-consumer", &[&words[..], &more].concat());
            assert!(
                said.contains(&format!("Processed a total of {count} messages")),
                "{said}"
            );
        }
        assert_eq!(stage.commits(), [10; 6]);
        let described = stage.operate(&["--describe", "--state"]);
        assert!(row(&described, &[&group]).contains(&"Empty"), "{described}");
        stage.stop();
    }
}

#[test]
fn kafka_dump_log_knows_every_record_of_groups() {
    if tools_are_missing() {
        return;
    }
    let mut logs = Vec::new();
    let mut scratches = Vec::new();
    for kind in [FRANZ_GO_RANGE, FRANZ_GO_CONSUMER] {
        let Some(mut stage) = Stage::set(kind, "dumped") else {
            return;
        };
        for _ in 0..2 {
            stage.group.join(&[
                "--instance-id",
                if stage.group.members.is_empty() {
                    "a"
                } else {
                    "b"
                },
            ]);
            stage.quiet();
        }
        let alone = format!("nobody-{}", stage.group.name);
        find_coordinator(&mut stage.producer, &alone);
        let done = commit(&mut stage.producer, &alone, stage.group.topic(), 0, 5);
        assert_eq!(done, ErrorCode::None);
        for name in stage.group.members.keys().copied().collect::<Vec<_>>() {
            stage.group.leave(name);
        }
        let Some(Target::Own(broker)) = stage.target.take() else {
            skip("kafka-dump-log: it needs the files of a broker started for the test");
            return;
        };
        let data = broker.data().to_owned();
        broker.stop();
        logs.extend(logs_of_groups(&data));
        scratches.push(stage);
    }
    let list: Vec<_> = logs.iter().map(|log| log.to_string_lossy()).collect();
    let tool = Program::kafka_tool("kafka-dump-log").args([
        "--offsets-decoder",
        "--files",
        &list.join(","),
    ]);
    let Report { out, err, .. } = tool.run().expect("the tools are there");
    assert_eq!(err.trim(), "", "kafka-dump-log complains");
    let mut records = 0;
    for line in out.lines().filter(|line| line.contains(" key: ")) {
        records += 1;
        assert!(
            line.contains(r#" key: {"type":""#),
            "an unknown key: {line}"
        );
        let known =
            line.contains(r#" payload: {"version":""#) || line.ends_with(" payload: <DELETE>");
        assert!(known, "an unknown value: {line}");
    }
    assert!(records > 20, "{out}");
}

/// The segments of the topic of groups that hold anything.
fn logs_of_groups(data: &Path) -> Vec<PathBuf> {
    let partitions = fs::read_dir(data).expect("the data directory").flatten();
    partitions
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("__consumer_offsets-")
        })
        .flat_map(|entry| fs::read_dir(entry.path()).expect("a partition's directory"))
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.len() > 0))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}
