//! Time and memory of a process, printed, and compared with bounds that no slow machine reaches.
//!
//! The only file of the tests that judges time or memory. Its bounds refuse another kind of behaviour (polling,
//! quadratic work, memory by a claimed length), never a slow run.

use std::fmt::Display;
use std::fs;
use std::time::Duration;

/// User and system time of a process so far, without ended threads.
pub fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let times = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// Resident memory of a process now, bytes.
pub fn memory(pid: u32) -> u64 {
    figure(pid, "VmRSS:")
}

/// The greatest resident memory since [`forget_peak`], bytes.
pub fn memory_peak(pid: u32) -> u64 {
    figure(pid, "VmHWM:")
}

/// Restarts [`memory_peak`].
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("an own process");
}

fn figure(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.expect("a figure of the kernel") << 10
}

/// Prints an amount of memory and refuses more than `bound`, both bytes.
///
/// # Panics
/// When it is more.
pub fn memory_within(what: impl Display, took: u64, bound: u64) {
    let line = format!("{what}: {} of at most {} KiB", took >> 10, bound >> 10);
    eprintln!("{line}");
    assert!(took <= bound, "{line}");
}

/// Prints a time and refuses more than `bound`.
///
/// # Panics
/// When it is more.
pub fn time_within(what: impl Display, took: Duration, bound: Duration) {
    let line = format!("{what}: {took:?} of at most {bound:?}");
    eprintln!("{line}");
    assert!(took <= bound, "{line}");
}

/// Prints a time and refuses less than `least`: for work that must be throttled.
///
/// # Panics
/// When it is less.
pub fn time_at_least(what: impl Display, took: Duration, least: Duration) {
    let line = format!("{what}: {took:?} of at least {least:?}");
    eprintln!("{line}");
    assert!(took >= least, "{line}");
}
