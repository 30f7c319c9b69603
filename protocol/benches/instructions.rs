//! Instructions of the hot path, counted by valgrind: the same on a busy machine as on a quiet one,
//! so that a change of a few percent shows.
//!
//! `cargo bench -p chronik-protocol --bench instructions`. Runs itself twice under callgrind for each subject,
//! with different numbers of rounds; the difference is the cost of a round. Without valgrind it prints so and
//! succeeds.

mod subjects;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use bytes::Bytes;
use chronik_protocol::messages::FetchResponse;
use chronik_protocol::record::Compression;
use subjects::SHAPES;

const ROUNDS: u64 = 200;

/// Measured work, by its printed name.
enum Subject {
    Decode(Bytes),
    Check(Bytes),
    Encode(FetchResponse),
}

impl Subject {
    fn run(&self) {
        match self {
            Self::Decode(frame) => drop(black_box(subjects::decode(frame))),
            Self::Check(batch) => {
                black_box(subjects::check(batch));
            }
            Self::Encode(response) => drop(black_box(subjects::encode(response))),
        }
    }
}

fn all() -> Vec<(String, Subject)> {
    let mut all = Vec::new();
    for (records, record_bytes) in SHAPES {
        let batch = subjects::batch(records, record_bytes, Compression::None);
        let frame = subjects::produce_frame(&batch);
        let shape = format!("{records}x{record_bytes}");
        all.push((format!("decode_produce/{shape}"), Subject::Decode(frame)));
        all.push((format!("check_batch/{shape}"), Subject::Check(batch)));
    }
    let stored = subjects::batch(16, 1024, Compression::None);
    for (partitions, batches) in [(1, 1), (16, 16)] {
        let response = subjects::fetch_response(partitions, batches, &stored);
        let name = format!("encode_fetch/{partitions}-partitions-{batches}-batches");
        all.push((name, Subject::Encode(response)));
    }
    all
}

/// Callgrind's count of instructions for `rounds` rounds of a subject.
fn instructions(name: &str, rounds: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--rounds", &rounds.to_string(), name])
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let collected = printed
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind counted nothing: {}\n{printed}", output.status))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, rounds, name] = arguments.as_slice()
        && flag == "--rounds"
    {
        let rounds: u64 = rounds.parse().expect("a number of rounds");
        let subjects = all();
        let subject = subjects.iter().find(|subject| subject.0 == *name);
        let (_, subject) = subject.expect("a subject's name");
        (0..rounds).for_each(|_| subject.run());
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    for (name, _) in all() {
        match (instructions(&name, ROUNDS), instructions(&name, 2 * ROUNDS)) {
            (Ok(once), Ok(twice)) => {
                let each = twice.saturating_sub(once) / ROUNDS;
                println!("{name:<36} {each:>10} instructions");
            }
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
