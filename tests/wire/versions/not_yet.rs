//! The README's list of APIs that are not served, compared with the version table: every API that a broker of Apache
//! Kafka 4.3 serves to clients and this one does not, by topic.

use std::collections::BTreeMap;
use std::fs;

use chronik_protocol::{ApiKey, versions};

/// What the APIs of one line are for, in the README's order.
const KINDS: [&str; 7] = [
    "transactions",
    "share groups (KIP-932)",
    "streams groups (KIP-1071)",
    "authentication",
    "quotas",
    "several brokers",
    "metrics of clients (KIP-714)",
];

/// The line an API belongs to; `None` for one that is new to this list.
fn kind(name: &str) -> Option<&'static str> {
    let of_transactions = [
        "AddPartitionsToTxn",
        "AddOffsetsToTxn",
        "EndTxn",
        "TxnOffsetCommit",
        "WriteTxnMarkers",
        "DescribeProducers",
    ];
    let found = match name {
        _ if of_transactions.contains(&name) || name.ends_with("Transactions") => 0,
        _ if name.contains("Share") => 1,
        _ if name.starts_with("Streams") => 2,
        _ if name.contains("Sasl") || name.contains("Scram") => 3,
        _ if name.ends_with("Quotas") => 4,
        "UnregisterBroker" | "AddRaftVoter" | "RemoveRaftVoter" => 5,
        "GetTelemetrySubscriptions" | "PushTelemetry" => 6,
        _ => return None,
    };
    KINDS.get(found).copied()
}

/// The table as the README has to have it.
fn table() -> String {
    let mut missing: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let broker = ApiKey::ALL
        .into_iter()
        .filter(|key| key.on_broker_listener());
    for key in broker.filter(|key| versions::of(*key).is_none()) {
        let kind = kind(key.name());
        let line = KINDS.iter().position(|known| Some(*known) == kind);
        let line = line.unwrap_or_else(|| panic!("{key} belongs to no line of the README's list"));
        let shown = format!("{} ({})", key.name(), key.as_i16());
        missing.entry(line).or_default().push(shown);
    }
    let lines = missing.iter().map(|(line, keys)| {
        let kind = KINDS.get(*line).copied().unwrap_or_default();
        format!("| {kind} | {} |\n", keys.join(", "))
    });
    let lines: String = lines.collect();
    format!("| not yet | APIs that are not advertised |\n|---|---|\n{lines}")
}

#[test]
fn the_readme_lists_the_apis_that_are_not_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).expect("the README");
    let table = table();
    assert!(
        readme.contains(&table),
        "README.md, under \"What works, and what does not yet\", has to have this table:\n\n{table}"
    );
}
