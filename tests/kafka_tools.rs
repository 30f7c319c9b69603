//! Owns the proof with Apache Kafka's own command-line tools: topics, configurations, offsets,
//! deletion, log directories, the versions table, the producer's load generator, the reader
//! of log files after a clean stop, (`admin`) elections, reassignments, the quorum, features, ACLs, and
//! (`mirror`) MirrorMaker 2 between two brokers.
//!
//! Never skips silently: without Java the tools are named on standard error. The full matrix of
//! the load generator is an ignored test, for its 40 runs of a million records take long.

mod support;

#[path = "kafka_tools/admin.rs"]
mod admin;
#[path = "kafka_tools/mirror.rs"]
mod mirror;

use std::fs;
use std::path::{Path, PathBuf};

use support::{BrokerOptions, Program, Report, Scratch, Target, say, skip};

/// Whether the tools are there; says so loudly when not.
fn tools_are_missing() -> bool {
    Program::kafka_tool("kafka-topics")
        .args(["--version"])
        .run()
        .is_none()
}

/// A tool at work on a broker.
struct Tools {
    target: Target,
    scratch: Scratch,
}

impl Tools {
    fn start() -> Self {
        let scratch = Scratch::new();
        let options = BrokerOptions::new(scratch.join("data")).set("log.retention.ms", -1);
        Self::on(Target::start(&options), scratch)
    }

    fn on(target: Target, scratch: Scratch) -> Self {
        Self { target, scratch }
    }

    /// Runs `kafka-NAME` and returns what it printed, whether or not it was content.
    fn report(&self, name: &str, words: &[&str]) -> Report {
        let bootstrap = self.target.bootstrap();
        let tool = Program::kafka_tool(name)
            .args(["--bootstrap-server", &bootstrap])
            .args(words);
        tool.report().expect("the tools were there a moment ago")
    }

    /// Runs `kafka-NAME` and returns its standard output.
    fn run(&self, name: &str, words: &[&str]) -> String {
        let report = self.report(name, words);
        let Report { status, out, err } = report;
        assert!(status.success(), "{name} {words:?}: {status}\n{out}\n{err}");
        out
    }

    fn create_topic(&self, topic: &str, partitions: u32, configs: &[&str]) {
        let partitions = partitions.to_string();
        let mut words = vec!["--create", "--topic", topic, "--partitions", &partitions];
        words.extend(configs.iter().flat_map(|config| ["--config", config]));
        self.run("kafka-topics", &words);
    }

    fn offsets(&self, topic: &str, time: &str) -> Vec<String> {
        let out = self.run("kafka-get-offsets", &["--topic", topic, "--time", time]);
        out.lines()
            .map(|line| line.replacen(topic, "topic", 1))
            .collect()
    }
}

#[test]
fn kafka_topics_creates_lists_describes_alters_and_deletes() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let topic = tools.target.topic("made-by-kafka-topics");
    tools.create_topic(&topic, 3, &["segment.bytes=1048576"]);
    assert!(
        tools
            .run("kafka-topics", &["--list"])
            .lines()
            .any(|line| line == topic)
    );

    let described = tools.run("kafka-topics", &["--describe", "--topic", &topic]);
    assert!(described.contains("PartitionCount: 3"), "{described}");
    assert!(described.contains("ReplicationFactor: 1"), "{described}");
    assert!(described.contains("segment.bytes=1048576"), "{described}");
    assert!(!described.contains("Leader: none"), "{described}");

    let again = tools.report("kafka-topics", &["--create", "--topic", &topic]);
    assert!(!again.status.success(), "a topic was made twice");
    assert!((again.out + &again.err).contains("already exists"));

    tools.run(
        "kafka-topics",
        &["--alter", "--topic", &topic, "--partitions", "5"],
    );
    let described = tools.run("kafka-topics", &["--describe", "--topic", &topic]);
    assert!(described.contains("PartitionCount: 5"), "{described}");
    assert_eq!(described.matches("Leader: ").count(), 5, "{described}");

    let fewer = tools.report(
        "kafka-topics",
        &["--alter", "--topic", &topic, "--partitions", "2"],
    );
    assert!(!fewer.status.success(), "partitions were taken away");

    tools.run("kafka-topics", &["--delete", "--topic", &topic]);
    assert!(
        !tools
            .run("kafka-topics", &["--list"])
            .lines()
            .any(|line| line == topic)
    );
    tools.target.stop();
}

#[test]
fn kafka_configs_sets_shows_and_resets() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let topic = tools.target.topic("configured");
    tools.create_topic(&topic, 1, &[]);
    let entity = ["--entity-type", "topics", "--entity-name", &topic];
    let configs = |words: &[&str]| tools.run("kafka-configs", &[&entity[..], words].concat());

    configs(&[
        "--alter",
        "--add-config",
        "retention.ms=3600000,max.message.bytes=2000000",
    ]);
    let described = configs(&["--describe"]);
    assert!(described.contains("retention.ms=3600000"), "{described}");
    assert!(
        described.contains("max.message.bytes=2000000"),
        "{described}"
    );

    configs(&["--alter", "--delete-config", "retention.ms"]);
    let described = configs(&["--describe"]);
    assert!(!described.contains("retention.ms=3600000"), "{described}");
    assert!(
        described.contains("max.message.bytes=2000000"),
        "{described}"
    );

    let all = configs(&["--describe", "--all"]);
    for key in [
        "cleanup.policy=delete",
        "min.insync.replicas=1",
        "segment.bytes=1073741824",
    ] {
        assert!(all.contains(key), "{key} is missing in\n{all}");
    }
    for wrong in [
        "retention.ms=soon",
        "cleanup.policy=sometimes",
        "no.such.key=1",
    ] {
        let words = [&entity[..], &["--alter", "--add-config", wrong]].concat();
        let report = tools.report("kafka-configs", &words);
        assert!(!report.status.success(), "{wrong} was accepted");
    }
    let broker = broker_id(&tools);
    let of_broker = [
        "--entity-type",
        "brokers",
        "--entity-name",
        &broker,
        "--describe",
        "--all",
    ];
    let all = tools.run("kafka-configs", &of_broker);
    assert!(all.contains("log.retention.ms=-1"), "{all}");
    tools.target.stop();
}

/// The broker's node id, as `kafka-broker-api-versions` shows it.
fn broker_id(tools: &Tools) -> String {
    let out = tools.run("kafka-broker-api-versions", &[]);
    let rest = out
        .split_once("(id: ")
        .unwrap_or_else(|| panic!("no broker id in\n{out}"))
        .1;
    rest.split_whitespace()
        .next()
        .expect("split_once left a word")
        .to_owned()
}

#[test]
fn kafka_broker_api_versions_finds_every_api_of_the_core_usable() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let out = tools.run("kafka-broker-api-versions", &[]);
    let apis = [
        "Produce(0)",
        "Fetch(1)",
        "ListOffsets(2)",
        "Metadata(3)",
        "ApiVersions(18)",
        "CreateTopics(19)",
        "DeleteTopics(20)",
        "DeleteRecords(21)",
        "InitProducerId(22)",
        "OffsetForLeaderEpoch(23)",
        "DescribeConfigs(32)",
        "AlterConfigs(33)",
        "DescribeLogDirs(35)",
        "CreatePartitions(37)",
        "IncrementalAlterConfigs(44)",
        "DescribeCluster(60)",
        "DescribeTopicPartitions(75)",
    ];
    for api in apis {
        let line = out
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{api}: ")));
        let line = line.unwrap_or_else(|| panic!("{api} is missing in\n{out}"));
        assert!(line.contains("[usable: "), "{line}");
    }
    tools.target.stop();
}

#[test]
fn offsets_records_and_directories_can_be_asked_for_and_deleted() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let topic = tools.target.topic("short");
    tools.create_topic(&topic, 1, &[]);
    let load = Load {
        records: 1_000,
        size: 100,
        partitions: 1,
        acks: "all",
        codec: "none",
    };
    load.run(&tools.target, &topic);
    assert_eq!(tools.offsets(&topic, "latest"), ["topic:0:1000"]);
    assert_eq!(tools.offsets(&topic, "earliest"), ["topic:0:0"]);

    let json = tools.scratch.join("delete.json");
    let wanted = serde_json::json!({
        "version": 1,
        "partitions": [{"topic": topic, "partition": 0, "offset": 300}],
    });
    fs::write(&json, wanted.to_string()).expect("a small file");
    let file = json.to_string_lossy();
    let deleted = tools.run("kafka-delete-records", &["--offset-json-file", &file]);
    assert!(deleted.contains("low_watermark: 300"), "{deleted}");
    assert_eq!(tools.offsets(&topic, "earliest"), ["topic:0:300"]);
    assert_eq!(tools.offsets(&topic, "latest"), ["topic:0:1000"]);

    let out = tools.run("kafka-log-dirs", &["--describe", "--topic-list", &topic]);
    let json = out
        .lines()
        .find(|line| line.starts_with('{'))
        .expect("a line of JSON");
    let described: serde_json::Value = serde_json::from_str(json).expect("valid JSON");
    let directory = &described["brokers"][0]["logDirs"][0];
    assert!(directory["error"].is_null(), "{described}");
    assert_eq!(
        directory["partitions"][0]["partition"],
        format!("{topic}-0"),
        "{described}"
    );
    assert!(
        directory["partitions"][0]["size"].as_u64() > Some(1_000),
        "{described}"
    );
    tools.target.stop();
}

/// One run of `kafka-producer-perf-test`.
struct Load {
    records: u32,
    /// Bytes of each record's value.
    size: u32,
    partitions: u32,
    acks: &'static str,
    codec: &'static str,
}

impl Load {
    /// Runs it on a topic that is there already and shows its last line.
    ///
    /// # Panics
    /// When a record failed or was sent again.
    fn run(&self, target: &Target, topic: &str) {
        let Self {
            records,
            size,
            partitions,
            acks,
            codec,
        } = self;
        let properties = [
            format!("bootstrap.servers={}", target.bootstrap()),
            format!("acks={acks}"),
            format!("compression.type={codec}"),
        ];
        let program = Program::kafka_tool("kafka-producer-perf-test")
            .args(["--topic", topic, "--throughput", "-1", "--print-metrics"])
            .args([
                "--num-records",
                &records.to_string(),
                "--record-size",
                &size.to_string(),
            ])
            .args(["--producer-props"])
            .args(&properties);
        let Report { out, err, .. } = program.run().expect("the tools were there a moment ago");
        let sent = out.lines().rfind(|line| line.contains(" records sent"));
        let sent = sent.unwrap_or_else(|| panic!("no summary in\n{out}\n{err}"));
        assert!(
            sent.starts_with(&format!("{records} records sent")),
            "{out}\n{err}"
        );
        for metric in ["record-error-total", "record-retry-total"] {
            assert_eq!(metric_of(&out, metric), 0.0, "{metric}\n{out}\n{err}");
        }
        say(&format!(
            "{size} B, {partitions} partitions, acks={acks}, {codec}: {sent}"
        ));
    }
}

/// A figure of the producer as a whole from the table that `--print-metrics` prints.
fn metric_of(out: &str, name: &str) -> f64 {
    let start = format!("producer-metrics:{name}:");
    let line = out.lines().find(|line| line.starts_with(&start));
    let figure = line
        .and_then(|line| line.rsplit_once(": "))
        .map(|(_, figure)| figure.trim());
    let figure = figure.unwrap_or_else(|| panic!("no {name} in\n{out}"));
    figure
        .parse()
        .unwrap_or_else(|error| panic!("{figure}: {error}"))
}

fn run_matrix(loads: impl IntoIterator<Item = Load>) {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    for (number, load) in loads.into_iter().enumerate() {
        let topic = tools.target.topic(&format!("load-{number}"));
        tools.create_topic(&topic, load.partitions, &[]);
        load.run(&tools.target, &topic);
        let total: u64 = tools
            .offsets(&topic, "latest")
            .iter()
            .filter_map(|line| line.rsplit_once(':')?.1.parse::<u64>().ok())
            .sum();
        assert_eq!(
            total,
            u64::from(load.records),
            "the partitions' ends do not add up"
        );
        tools.run("kafka-topics", &["--delete", "--topic", &topic]);
    }
    tools.target.stop();
}

#[test]
fn kafka_producer_perf_test_ends_without_error_or_retry() {
    let load = |size, partitions, acks, codec| Load {
        records: 30_000,
        size,
        partitions,
        acks,
        codec,
    };
    if std::env::var_os("CHRONIK_PERF_MATRIX").is_some() {
        return run_matrix(full_matrix());
    }
    run_matrix([
        load(1024, 1, "all", "none"),
        load(100, 16, "all", "lz4"),
        load(1024, 16, "1", "zstd"),
        load(100, 1, "1", "gzip"),
        load(1024, 16, "all", "snappy"),
        load(100, 1, "all", "none"),
    ]);
}

/// `make perf-matrix`: a million records of each kind, in place of the part that always runs.
fn full_matrix() -> Vec<Load> {
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"].into_iter();
    let matrix = codecs.flat_map(|codec| {
        let sizes = [1024, 100].into_iter();
        sizes.flat_map(move |size| {
            let layouts = [(1, "all"), (1, "1"), (16, "all"), (16, "1")].into_iter();
            layouts.map(move |(partitions, acks)| Load {
                records: 1_000_000,
                size,
                partitions,
                acks,
                codec,
            })
        })
    });
    matrix.collect()
}

/// What `kafka-dump-log` prints when a file is not as Kafka would have written it.
const COMPLAINTS: [&str; 8] = [
    "isvalid: false",
    "Mismatches in",
    "mismatch in",
    " is followed by ",
    "out of order",
    "corrupt",
    "Exception",
    "Could not",
];

#[test]
fn kafka_dump_log_finds_nothing_wrong_after_a_clean_stop() {
    if tools_are_missing() {
        return;
    }
    let tools = Tools::start();
    let Target::Own(broker) = &tools.target else {
        skip("kafka-dump-log: it needs the files of a broker started for the test");
        return;
    };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("dumped-{codec}");
        // The smallest segment that Kafka allows, so that there are several.
        tools.create_topic(&topic, 2, &["segment.bytes=1048576"]);
        let load = Load {
            records: 10_000,
            size: 1_000,
            partitions: 2,
            acks: "all",
            codec,
        };
        load.run(&tools.target, &topic);
    }
    let data = broker.data().to_owned();
    let Tools {
        target,
        scratch: _kept,
    } = tools;
    target.stop();
    let logs = files(&data, "log");
    assert!(logs.len() > 10, "segments should have rolled: {logs:?}");
    dump(&logs, &["--deep-iteration"]);
    for kind in ["index", "timeindex"] {
        let indexes = files(&data, kind);
        assert_eq!(indexes.len(), logs.len(), "one {kind} for each segment");
        dump(&indexes, &["--index-sanity-check"]);
        dump(&indexes, &["--verify-index-only"]);
    }
    dump(&files(&data, "snapshot"), &[]);
}

/// The files of the topics' partitions that end in `.kind`.
fn files(data: &Path, kind: &str) -> Vec<PathBuf> {
    let partitions = fs::read_dir(data).expect("the data directory").flatten();
    let partitions = partitions.filter(|p| p.file_name().to_string_lossy().starts_with("dumped-"));
    let mut found: Vec<PathBuf> = partitions
        .flat_map(|partition| fs::read_dir(partition.path()).expect("a partition's directory"))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == kind))
        .collect();
    found.sort();
    found
}

fn dump(files: &[PathBuf], words: &[&str]) {
    let list: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let program = Program::kafka_tool("kafka-dump-log").args(["--files", &list.join(",")]);
    let Report { out, err, .. } = program.args(words).run().expect("the tools are there");
    let all = out + &err;
    assert!(all.contains("Dumping "), "nothing was dumped:\n{all}");
    // The tool expects offset 0 at the start of each file and calls every later segment's first
    // offset a gap: "-1 is followed by 4096". Kafka's own segments get the same line.
    let lines = all
        .lines()
        .filter(|line| !line.trim_start().starts_with("-1 is followed by "));
    for line in lines {
        let complaint = COMPLAINTS
            .iter()
            .find(|complaint| line.contains(**complaint));
        assert!(complaint.is_none(), "kafka-dump-log {words:?}: {line}");
    }
}
