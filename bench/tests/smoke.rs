//! A smoke test of each instrument against a broker: it runs, it ends well, and its files have the right content.
//! Nothing is timed.
//!
//! Needs the broker's executable, `$CHRONIK_TEST_BINARY` or the one beside this test's own. Apache Kafka takes part
//! when `tests/clients/install` found a JDK and Maven, and is reported missing otherwise.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_chronik-bench"))
        .args(arguments)
        .output()
        .expect("chronik-bench starts");
    assert!(
        output.status.success(),
        "chronik-bench {}: {}\n{}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn chronik() -> String {
    let beside = || Path::new(env!("CARGO_BIN_EXE_chronik-bench")).with_file_name("chronik");
    let path = std::env::var_os("CHRONIK_TEST_BINARY").map_or_else(beside, PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo build", path.display());
    path.display().to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the file was written");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn load_writes_figures_histograms_and_curves() {
    let folder = tempfile::tempdir().expect("a folder");
    let [figures, log, plot] =
        ["figures.json", "latencies.hlog", "curves.svg"].map(|name| folder.path().join(name));
    let chronik = chronik();
    let output = bench(&[
        "load",
        "--spawn",
        &chronik,
        "--directory",
        text(folder.path()),
        "--rate",
        "500",
        "--connections",
        "3",
        "--partitions",
        "4",
        "--consumers",
        "2",
        "--keys",
        "10",
        "--codec",
        "lz4",
        "--warm-up",
        "0.1",
        "--seconds",
        "0.4",
        "--json",
        text(&figures),
        "--hlog",
        text(&log),
        "--svg",
        text(&plot),
    ]);
    assert!(printed(&output).contains("end to end"), "{output:?}");
    let figures = &json(&figures)["figures"];
    for name in [
        "produce_p99_us",
        "end_to_end_p99_us",
        "fetch_p99_us",
        "broker_cpu_s",
        "resident_bytes_max",
    ] {
        assert!(figures[name].as_f64() > Some(0.0), "{name}: {figures}");
    }
    for name in ["failures", "unanswered", "unpaired"] {
        assert_eq!(figures[name].as_f64(), Some(0.0), "{name}: {figures}");
    }
    let log = fs::read_to_string(log).expect("a log");
    for tag in ["Tag=produce", "Tag=end-to-end", "Tag=fetch"] {
        assert!(log.contains(tag), "{log}");
    }
    let plot = fs::read_to_string(plot).expect("a plot");
    assert_eq!(plot.matches("<polyline").count(), 3, "{plot}");
}

#[test]
fn quick_prints_a_row_of_each_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--warm-up", "0.02", "--seconds", "0.05", "--directory"];
    let chronik = chronik();
    let mut all = vec!["quick", "--spawn", &chronik];
    all.extend(arguments);
    all.push(text(folder.path()));
    let output = bench(&all);
    let rows = printed(&output);
    assert_eq!(rows.matches("closed 16 x 5, 16 rec").count(), 4, "{rows}");
    assert_eq!(rows.lines().count(), 22, "{rows}");
}

#[test]
fn overload_is_survived() {
    let folder = tempfile::tempdir().expect("a folder");
    let chronik = chronik();
    let arguments = [
        "overload",
        "--spawn",
        &chronik,
        "--directory",
        text(folder.path()),
        "--connections",
        "20",
        "--in-flight",
        "2",
        "--slow-readers",
        "5",
        "--stored-megabytes",
        "5",
        "--seconds",
        "0.5",
        // Fairness over half a second on a busy machine says nothing.
        "--unfairness-max",
        "1e9",
    ];
    let rows = printed(&bench(&arguments));
    assert!(rows.contains("replies with errors 0"), "{rows}");
}

#[test]
fn compare_measures_both_brokers() {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
    let tool = Command::new(clients.join("kafka"))
        .args(["kafka-topics", "--version"])
        .output()
        .expect("the script starts");
    if tool.status.code() == Some(77) {
        let required = std::env::var("CHRONIK_TEST_CLIENTS").is_ok_and(|text| text == "required");
        assert!(!required, "Apache Kafka is missing: {tool:?}");
        // Past the harness, which captures output.
        let _unheard = writeln!(
            std::io::stderr(),
            "SKIPPED: the comparison with Apache Kafka: {}",
            String::from_utf8_lossy(&tool.stderr)
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("output");
    let chronik = chronik();
    let arguments = [
        "compare",
        "--smoke",
        "--chronik",
        &chronik,
        "--clients",
        text(&clients),
        "--directory",
        text(folder.path()),
        "--output",
        text(&output),
        "--only",
        "fixed/1000-1c",
        "--only",
        "perf/1K-16p-acks-all-none",
    ];
    bench(&arguments);
    let comparison = json(&output.join("comparison.json"));
    let parts = comparison["comparison"].as_array().expect("parts");
    assert_eq!(parts.len(), 4, "{comparison:#}");
    for part in parts {
        let line = &part["lines"][0];
        let ratio = line["ratio"][1].as_f64();
        assert!(ratio > Some(0.0), "{part:#}");
    }
    // Complete: the second call measures nothing and prints the same.
    let before = fs::read_to_string(output.join("state.json")).expect("a state");
    let again = bench(&arguments);
    assert!(again.stderr.is_empty(), "{again:?}");
    let after = fs::read_to_string(output.join("state.json")).expect("a state");
    assert_eq!(before, after);
    let table = fs::read_to_string(output.join("comparison.md")).expect("a table");
    assert!(
        table.contains("| fixed/1000-1c | produce p50 us |"),
        "{table}"
    );
}
