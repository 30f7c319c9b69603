//! Owns what `/proc` tells: processor time and memory of the broker, processor time of the machine.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

/// Processor time; the difference of two readings is what was spent between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of the broker's process, its threads included.
    pub(crate) broker: Duration,
    /// Everything all processors did but idle and wait for disks: the client, the kernel's workers
    /// and the broker.
    pub(crate) machine: Duration,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            broker: self.broker.saturating_sub(earlier.broker),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

/// Reads both now; the broker's share is zero when there is no such process (or none was named).
pub(crate) fn usage(pid: Option<u32>) -> Usage {
    let broker = pid.and_then(broker_time).unwrap_or_default();
    Usage {
        broker,
        machine: machine_time().unwrap_or_default(),
    }
}

/// Resident memory of a process, bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn broker_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the command's name in parentheses, may hold spaces: count after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(ticks_to_time(ticks))
}

fn machine_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map(str::parse::<u64>);
    let fields = fields.collect::<Result<Vec<_>, _>>().ok()?;
    // user nice system idle iowait irq softirq steal …
    let busy: u64 = fields.iter().take(7).sum::<u64>() - fields.get(3)? - fields.get(4)?;
    Some(ticks_to_time(busy))
}

fn ticks_to_time(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let pid = std::process::id();
        let before = usage(Some(pid));
        let mut sum = 0_u64;
        while (usage(Some(pid)) - before).broker < Duration::from_millis(30) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let spent = usage(Some(pid)) - before;
        assert!(spent.machine >= Duration::from_millis(10), "{spent:?}");
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100_000));
    }
}
