//! A shortage at every file operation in turn: no space, no descriptor, no memory. While it lasts
//! requests may be refused; afterwards the broker serves again without a restart, and nothing that
//! was acknowledged is lost, then or after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chronik_io::simulated::{Fault, Operation};

use crate::shortages_script::Script;

/// How the shortages show.
const SHORTAGES: [Fault; 5] = [
    Fault::NoSpace,
    Fault::Descriptors,
    Fault::DescriptorsOfSystem,
    Fault::Memory,
    Fault::Quota,
];

/// Every kind of operation.
const KINDS: [Operation; 8] = [
    Operation::Write,
    Operation::Zero,
    Operation::Read,
    Operation::Sync,
    Operation::SetLen,
    Operation::Open,
    Operation::Directory,
    Operation::Map,
];

/// How many operations fail in a row: one, some, or all until the end of the script.
const BURSTS: [u64; 3] = [1, 7, u64::MAX];

/// Names of what the script is to have done, and what shows it: a kind of operation on such a path.
const DEEDS: [(&str, Operation, &str); 8] = [
    (
        "a log is created",
        Operation::Open,
        "/d-0/00000000000000000000.log",
    ),
    (
        "a segment is begun behind others",
        Operation::Open,
        "/c-0/0000000000000000000",
    ),
    ("a segment is cleaned", Operation::Write, ".log.cleaned"),
    (
        "a cleaned segment takes its place",
        Operation::Directory,
        ".log.swap",
    ),
    (
        "old segments are renamed and removed",
        Operation::Directory,
        "/a-0/00000000000000000000.log.deleted",
    ),
    (
        "a topic's directory is removed",
        Operation::Directory,
        "-delete",
    ),
    (
        "the catalogue's snapshot is written",
        Operation::Write,
        ".checkpoint",
    ),
    (
        "starts of logs are noted",
        Operation::Write,
        "log-start-offset-checkpoint",
    ),
];

/// What the script does while nothing is short.
fn traced(seed: u64) -> (Vec<(Operation, String)>, usize) {
    let mut script = Script::new(seed);
    script.machine().faults().begin_trace();
    script.run_first();
    let first = script.machine().faults().noted();
    script.run_rest();
    let trace = script.machine().faults().take_trace();
    script.heal();
    script.check();
    script.check_nothing_is_left_over();
    (trace, first)
}

/// One failure or several from operation `at` on.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: usize,
    burst: u64,
    fault: Fault,
    /// Files are closed between two uses, as where there are fewer descriptors than files.
    closing: bool,
}

impl Run {
    /// What it meets before operation `first` has to pass without the restart that comes there.
    fn perform(self, seed: u64, first: usize) {
        let mut script = Script::new(seed);
        if self.closing {
            script.machine().close_files(200_000);
        }
        let at = u64::try_from(self.at).expect("small");
        script
            .machine()
            .faults()
            .shortage(at, self.burst, self.fault);
        script.run_first();
        if self.at >= first {
            script.run_rest();
        }
        let met = script.met();
        assert!(self.closing || met > 0, "the shortage was not met");
        script.heal();
        script.check();
        script.check_nothing_is_left_over();
        script.kill();
        script.check();
    }
}

/// Every operation that can meet a shortage meets one, and every kind of operation each that Linux can
/// tell of it.
fn plan(trace: &[(Operation, String)]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut counts: BTreeMap<Operation, usize> = BTreeMap::new();
    let mut met = BTreeSet::new();
    for (at, (operation, path)) in trace.iter().enumerate() {
        let able: Vec<Fault> = SHORTAGES
            .into_iter()
            .filter(|fault| fault.hits(*operation, path))
            .collect();
        if able.is_empty() {
            let is_log = path.ends_with(".log");
            let writes = matches!(operation, Operation::Write | Operation::Sync);
            assert!(is_log && writes, "{operation:?} of {path} meets nothing");
            continue;
        }
        let count = counts.entry(*operation).or_default();
        // Where there are few of a kind, each of them meets several.
        let first = *count % able.len();
        *count += 1;
        let mut faults = vec![able[first]];
        faults.extend(
            able.into_iter()
                .filter(|fault| !met.contains(&(*operation, *fault))),
        );
        for (index, fault) in faults.into_iter().enumerate() {
            if index > 0 && met.contains(&(*operation, fault)) {
                continue;
            }
            met.insert((*operation, fault));
            let burst = BURSTS[(runs.len() / SHORTAGES.len()) % BURSTS.len()];
            let closing = false;
            runs.push(Run {
                at,
                burst,
                fault,
                closing,
            });
        }
    }
    for operation in KINDS {
        for fault in SHORTAGES {
            let is_told = fault.is_real_for(operation);
            assert_eq!(
                met.contains(&(operation, fault)),
                is_told,
                "{operation:?}, {fault:?}"
            );
        }
    }
    // With files that are opened again, whose opening waits for the end of a shortage.
    for at in (0..trace.len()).step_by(7) {
        let fault = SHORTAGES[1 + (at / 7) % 3];
        let (burst, closing) = (BURSTS[(at / 7) % 2], true);
        runs.push(Run {
            at,
            burst,
            fault,
            closing,
        });
    }
    runs
}

#[test]
fn a_shortage_at_any_operation_passes() {
    let seed = 77;
    let (trace, first) = traced(seed);
    for (deed, operation, path) in DEEDS {
        let shown = |(kind, on): &(Operation, String)| *kind == operation && on.contains(path);
        assert!(trace.iter().any(shown), "{deed}: not in the script");
    }
    let runs = plan(&trace);
    let asked = std::env::var("CHRONIK_SHORTAGE").ok();
    if let Some(number) = asked.and_then(|number| number.parse::<usize>().ok()) {
        return runs[number].perform(seed, first);
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = runs.get(number) else {
                        return;
                    };
                    if let Err(why) = std::panic::catch_unwind(|| run.perform(seed, first)) {
                        let why = match why.downcast_ref::<String>() {
                            Some(why) => why.clone(),
                            None => format!("{:?}", why.downcast_ref::<&str>()),
                        };
                        let what = (number, *run, &trace[run.at], why);
                        failed.lock().expect("not poisoned").push(what);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("not poisoned");
    let count = runs.len();
    assert!(
        failed.is_empty(),
        "{} of {count}; CHRONIK_SHORTAGE=<the first number> runs one alone: {failed:#?}",
        failed.len()
    );
}

/// What a start does behind a kill, and every failure at each of its operations in turn: it serves and
/// heals, or ends with a sentence and changes nothing that the next start could not read.
#[test]
fn a_start_behind_a_kill_passes_any_failure() {
    let seed = 78;
    let mut script = Script::new(seed);
    script.run_first();
    assert!(script.kill_and_start(|machine| machine.faults().begin_trace()));
    let trace = script.machine().faults().take_trace();
    let mut runs = Vec::new();
    for (at, (operation, path)) in trace.iter().enumerate() {
        let all = SHORTAGES.into_iter().chain([Fault::Broken]);
        let able = all.filter(|fault| fault.hits(*operation, path));
        // Each operation meets two of them, and one of these for good.
        let able: Vec<Fault> = able.collect();
        for turn in 0..2_usize.min(able.len()) {
            let fault = able[(at + turn * (able.len() / 2).max(1)) % able.len()];
            let burst = if turn == 0 { 1 } else { u64::MAX };
            runs.push((at, burst, fault));
        }
        if !able.is_empty() {
            runs.push((at, 1, Fault::Broken));
        }
    }
    assert!(runs.len() > 200, "{}", runs.len());
    let (mut served, mut refused) = (0, 0);
    for (at, burst, fault) in runs {
        let mut script = Script::new(seed);
        script.run_first();
        let first = u64::try_from(at).expect("small");
        let started =
            script.kill_and_start(|machine| machine.faults().shortage(first, burst, fault));
        match started {
            true => served += 1,
            false => refused += 1,
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            script.heal();
            if fault == Fault::Broken {
                // A log whose file fails is offline until a restart.
                script.kill();
            }
            script.check();
            script.check_nothing_is_left_over();
            script.kill();
            script.check();
        }));
        assert!(
            checked.is_ok(),
            "{fault:?} from operation {at} on, {burst} times: {:?}",
            trace[at]
        );
    }
    assert!(
        served > 20 && refused > 20,
        "{served} served, {refused} refused"
    );
}
