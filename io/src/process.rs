//! Figures of this process: memory, CPU time, descriptors.
//!
//! Owns reading them from /proc, on any thread. Never caches.

use std::fs;
use std::io;

/// The kernel's figures of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessFigures {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// CPU time used so far by all threads, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{what} does not have the known form"),
    )
}

/// Reads the figures; some 50 µs, so not for hot paths.
///
/// # Errors
/// If /proc is not mounted or unreadable.
pub fn figures() -> io::Result<ProcessFigures> {
    let memory = fs::read_to_string("/proc/self/statm")?;
    let resident_pages = memory
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    let status = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold anything; after it come numbers, utime and stime 12th and 13th.
    let (_, numbers) = status.rsplit_once(')').ok_or_else(|| invalid("stat"))?;
    let mut times = numbers
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (times.next(), times.next()) else {
        return Err(invalid("stat"));
    };
    // The kernel counts in hundredths of a second for every program.
    let cpu_ms = user.saturating_add(system).saturating_mul(10);
    let resident_pages = resident_pages.ok_or_else(|| invalid("statm"))?;
    Ok(ProcessFigures {
        resident_bytes: resident_pages.saturating_mul(rustix::param::page_size() as u64),
        cpu_ms,
        descriptors: fs::read_dir("/proc/self/fd")?.count() as u64,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures_are_plausible() {
        let figures = super::figures().unwrap();
        assert!(figures.resident_bytes > 1 << 20 && figures.resident_bytes < 1 << 36);
        assert!(figures.descriptors >= 3);
    }
}
