//! Logs that are compacted, whose old segments expire and whose records are deleted while they move, and a
//! kill or a power cut at any moment of that: nothing comes back, and nothing goes that was to stay.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use chronik_catalog::ConfigResource;
use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, options};
use crate::moves::{OTHER, elsewhere, finish, move_to};

const KEYS: u64 = 5;

fn start(simulation: Simulation) -> Cluster {
    let mut options = StartOptions {
        more_data: vec![PathBuf::from(OTHER)],
        ..options()
    };
    for (name, value) in [
        ("log.segment.bytes", "16384"),
        ("log.segment.delete.delay.ms", "20"),
        ("log.cleaner.backoff.ms", "20"),
        ("log.cleaner.min.cleanable.ratio", "0.01"),
        ("log.retention.check.interval.ms", "20"),
    ] {
        let name = Str::from(name);
        options.static_configs.insert(name, Str::from(value));
    }
    let (simulation, handles) = Cluster::try_start_in_steps(simulation, 1, options, 50);
    Cluster {
        simulation,
        handles: handles.expect("starts"),
    }
}

fn keyed(number: u64) -> CheckedBatch {
    let mut builder = BatchBuilder::new(0);
    let mut value = number.to_string().into_bytes();
    value.resize(3_000, b'.');
    let record = NewRecord {
        timestamp: 1,
        key: Some(&[b'a' + u8::try_from(number % KEYS).expect("few")]),
        value: Some(&value),
        ..NewRecord::default()
    };
    builder.push(&record).expect("a small record");
    builder.build().expect("a small batch")
}

fn number_of(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    let digits = text.trim_end_matches('.');
    digits.parse().expect("a number")
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// The numbers of records, by offset.
    records: RefCell<BTreeMap<i64, u64>>,
    /// The greatest start that was asked for, and that was acknowledged.
    starts: Cell<(i64, i64)>,
    /// No more is appended.
    is_over: Cell<bool>,
}

/// Appends, and deletes records from time to time, as long as the machine runs.
fn go_on(cluster: &Cluster, id: PartitionId, deletes: bool) -> Rc<Told> {
    let told = Rc::new(Told::default());
    let (endpoint, world) = (
        cluster.handles[0].endpoint().clone(),
        cluster.simulation.world(),
    );
    let (owner, all) = (cluster.owner(id), Rc::clone(&told));
    cluster.simulation.world().spawn(async move {
        for number in 0.. {
            if all.is_over.get() {
                return;
            }
            let parts = vec![AppendPart {
                partition: id,
                batch: keyed(number),
            }];
            let request = Request::Append(AppendRequest {
                acks: Acks::All,
                timeout_ms: 30_000,
                parts,
            });
            let Ok(Reply::Append(results)) = endpoint.call(owner, request).await else {
                return;
            };
            assert_eq!(results[0].error, ErrorCode::None);
            let offset = results[0].base_offset;
            all.records.borrow_mut().insert(offset, number);
            if deletes && number % 7 == 6 {
                let (asked, kept) = all.starts.get();
                let start = asked.max(offset - 9);
                all.starts.set((start, kept));
                let part = DeleteRecordsPart {
                    partition: id,
                    offset: start,
                };
                let request = Request::DeleteRecords(vec![part]);
                let Ok(Reply::DeleteRecords(results)) = endpoint.call(owner, request).await else {
                    return;
                };
                if results[0].error == ErrorCode::None {
                    all.starts.set((start, start));
                }
            }
            world.sleep_for(Duration::from_millis(2)).await;
        }
    });
    told
}

fn check(cluster: &mut Cluster, (policy, told): (&str, &Told), what: &str) {
    told.is_over.set(true);
    // What is to expire has expired.
    cluster.advance(2_000);
    let id = cluster.id("t", 0);
    let owner = cluster.owner(id);
    let query = OffsetQuery {
        partition: id,
        current_leader_epoch: -1,
        isolation: Isolation::ReadUncommitted,
        target: OffsetTarget::Earliest,
    };
    let start = match cluster.ask(owner, Request::ListOffsets(vec![query])) {
        Reply::ListOffsets(answers) => answers[0].offset,
        other => panic!("{other:?}"),
    };
    let found = cluster.values(id, start);
    let records = told.records.borrow();
    let found: BTreeMap<i64, u64> = found
        .iter()
        .map(|(offset, value)| (*offset, number_of(value)))
        .collect();
    for (offset, number) in &found {
        let expected = records.get(offset).unwrap_or(number);
        assert_eq!(number, expected, "{what}: at {offset}");
    }
    let (_, kept) = told.starts.get();
    assert!(start >= kept, "{what}: {start}, {kept} was deleted");
    match policy {
        "compact" => {
            let newest: BTreeMap<u64, u64> = records
                .values()
                .map(|number| (number % KEYS, *number))
                .collect();
            for number in newest.values() {
                let is_there = found
                    .values()
                    .any(|found| found % KEYS == number % KEYS && found >= number);
                assert!(is_there, "{what}: {number} is gone");
            }
        }
        _ => {
            let last = records.keys().next_back().copied().unwrap_or(-1);
            for offset in records.keys().filter(|offset| **offset >= start) {
                assert!(found.contains_key(offset), "{what}: {offset} is gone");
            }
            // Retention leaves some segments, and DeleteRecords ten records.
            assert!(last - start >= 5, "{what}: {start} to {last}");
        }
    }
}

#[test]
fn a_log_moves_while_it_is_compacted_expires_and_loses_records_and_the_machine_may_end() {
    let mut swaps = 0;
    for (policy, deletes) in [("compact", false), ("delete", false), ("delete", true)] {
        for round in 0..60_u64 {
            let mut cluster = start(Simulation::new(18_000 + round));
            cluster.create("t", 1).expect("created");
            let topic = || ConfigResource::Topic("t".into());
            cluster.set(topic(), "cleanup.policy", policy);
            if policy == "delete" && !deletes {
                cluster.set(topic(), "retention.bytes", "40000");
            }
            let id = cluster.id("t", 0);
            let told = go_on(&cluster, id, deletes);
            cluster.advance(100 + 7 * (round % 5));
            let target = elsewhere(&mut cluster);
            cluster.simulation.faults().begin_trace();
            assert_eq!(move_to(&mut cluster, target), ErrorCode::None);
            let what = format!("{policy}, deletes: {deletes}, round {round}");
            if round % 3 == 2 {
                finish(&mut cluster, target);
                cluster.advance(100);
                check(&mut cluster, (policy, &told), &what);
            } else {
                let steps = usize::try_from(round * round / 2).expect("few");
                cluster.simulation.run_steps(steps);
            }
            let trace = cluster.simulation.faults().take_trace();
            let swapped = |path: &String| path.contains(".swap") || path.contains(".deleted");
            swaps += trace.iter().filter(|(_, path)| swapped(path)).count();
            let simulation = match round % 2 {
                0 => cluster.simulation.kill(),
                _ => cluster.simulation.crash(),
            };
            check(&mut start(simulation), (policy, &told), &what);
        }
    }
    assert!(swaps > 50, "{swaps}");
}
