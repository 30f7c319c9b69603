//! Figures of a run from `/proc` and `/sys`: processor time, memory and writing of the broker, processor time of the
//! kernel's threads and of this program, writes and flushes of the disk.
//!
//! Never estimates: a figure the kernel lacks is zero or absent, and the table says so. Never uses the machine's
//! times in `/proc/stat`: they are sampled at the clock's ticks, and miss a load that wakes in step with those
//! almost wholly.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

/// The parent of the kernel's threads.
const KERNEL_THREADS_PARENT: u32 = 2;
/// A sector in the block layer's statistics, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;

/// The watched process, and the disk of its data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    /// The broker's process, if known.
    pub(crate) pid: Option<u32>,
    disk_statistics: Option<PathBuf>,
}

/// Counters at one moment; a difference of two is a cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User time of the broker's process, all threads.
    pub(crate) broker_user: Duration,
    /// System time of the broker's process; `iou-wrk` threads are its threads.
    pub(crate) broker_system: Duration,
    /// Time of each of the kernel's own threads, by id: they complete writes and syncs for any process.
    kernel_threads: BTreeMap<u32, Duration>,
    /// Time of each unrelated process, by id.
    others: BTreeMap<u32, Duration>,
    /// User and system time of this program.
    pub(crate) client: Duration,
    /// Bytes the broker's process caused to be sent to storage (`write_bytes` of `/proc/PID/io`).
    pub(crate) written_bytes: u64,
    /// Bytes the broker's process caused to be fetched from storage.
    pub(crate) read_bytes: u64,
    /// Write-like system calls of the broker's process, without those of io_uring.
    pub(crate) write_calls: u64,
    /// Writes completed by the disk, of any process.
    pub(crate) disk_writes: u64,
    /// Bytes written to the disk.
    pub(crate) disk_written_bytes: u64,
    /// Flushes of the disk's cache: the final cost of a sync.
    pub(crate) disk_flushes: u64,
}

impl Usage {
    /// Processor time of the broker's process.
    pub(crate) fn broker(&self) -> Duration {
        self.broker_user + self.broker_system
    }

    /// Time of the broker and of the kernel's threads: its whole cost on an otherwise idle machine.
    pub(crate) fn with_kernel(&self) -> Duration {
        self.broker() + self.kernel_threads.values().sum::<Duration>()
    }

    /// Time of unrelated processes.
    pub(crate) fn others(&self) -> Duration {
        self.others.values().sum()
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            broker_user: self.broker_user.saturating_sub(earlier.broker_user),
            broker_system: self.broker_system.saturating_sub(earlier.broker_system),
            kernel_threads: grown(self.kernel_threads, &earlier.kernel_threads),
            others: grown(self.others, &earlier.others),
            client: self.client.saturating_sub(earlier.client),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            write_calls: self.write_calls.saturating_sub(earlier.write_calls),
            disk_writes: self.disk_writes.saturating_sub(earlier.disk_writes),
            disk_written_bytes: self
                .disk_written_bytes
                .saturating_sub(earlier.disk_written_bytes),
            disk_flushes: self.disk_flushes.saturating_sub(earlier.disk_flushes),
        }
    }
}

/// Each time less its earlier value; new ones count as a whole.
fn grown(
    times: BTreeMap<u32, Duration>,
    earlier: &BTreeMap<u32, Duration>,
) -> BTreeMap<u32, Duration> {
    let grown = times.into_iter().map(|(id, time)| {
        let before = earlier.get(&id).copied().unwrap_or_default();
        (id, time.saturating_sub(before))
    });
    grown.collect()
}

impl Subject {
    /// Watches `pid` and the disk of `directory`. A file system without a block device of its own (tmpfs, overlay) has
    /// no disk figures.
    pub(crate) fn new(pid: Option<u32>, directory: Option<&Path>) -> Self {
        let disk_statistics = directory.and_then(disk_statistics);
        Self {
            pid,
            disk_statistics,
        }
    }

    /// Reads all counters; the broker's are zero without a process.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage {
            client: process_times("self").map_or(Duration::ZERO, |(_, user, system)| user + system),
            ..Usage::default()
        };
        if let Some(pid) = self.pid {
            let times = process_times(&pid.to_string()).unwrap_or_default();
            (_, usage.broker_user, usage.broker_system) = times;
            if let Ok(counters) = fs::read_to_string(format!("/proc/{pid}/io")) {
                usage.written_bytes = counter(&counters, "write_bytes:");
                usage.read_bytes = counter(&counters, "read_bytes:");
                usage.write_calls = counter(&counters, "syscw:");
            }
        }
        if let Some(statistics) = &self.disk_statistics {
            let text = fs::read_to_string(statistics).unwrap_or_default();
            let field = |number: usize| {
                let field = text.split_whitespace().nth(number);
                field.and_then(|field| field.parse().ok()).unwrap_or(0_u64)
            };
            usage.disk_writes = field(4);
            usage.disk_written_bytes = field(6) * SECTOR_BYTES;
            usage.disk_flushes = field(15);
        }
        self.add_beside(&mut usage);
        usage
    }

    /// Adds the kernel's threads, in exact ns, and the unrelated processes: neither the broker nor this program nor a
    /// child of it. One that ends meanwhile is left out.
    fn add_beside(&self, usage: &mut Usage) {
        let own = std::process::id();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for id in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            if id == own || Some(id) == self.pid {
                continue;
            }
            let Some((parent, user, system)) = process_times(&id.to_string()) else {
                continue;
            };
            if parent == KERNEL_THREADS_PARENT {
                let time = run_time(Path::new(&format!("/proc/{id}")));
                usage.kernel_threads.insert(id, time.unwrap_or_default());
            } else if parent != own {
                usage.others.insert(id, user + system);
            }
        }
    }

    /// Time the process's threads have run, in exact ns, without ended threads.
    pub(crate) fn run_time(&self) -> Duration {
        let Some(pid) = self.pid else {
            return Duration::ZERO;
        };
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        let threads = threads.into_iter().flatten().flatten();
        let times = threads.filter_map(|thread| run_time(&thread.path()));
        times.sum()
    }

    /// Resident memory of the process, bytes.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid?)).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }
}

/// Raises the soft limit of open files to the hard one: a thousand connections need more than the usual 1,024.
pub(crate) fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused, opening the connections fails with the reason.
    let _refused = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// The statistics of the block device of `directory`.
fn disk_statistics(directory: &Path) -> Option<PathBuf> {
    let device = fs::metadata(directory).ok()?.st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    path.exists().then_some(path)
}

fn counter(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.trim().parse().ok());
    value.unwrap_or(0)
}

/// Time one thread has run, from its folder in `/proc`.
fn run_time(thread: &Path) -> Option<Duration> {
    let schedule = fs::read_to_string(thread.join("schedstat")).ok()?;
    let run_ns = schedule.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(run_ns))
}

/// Parent, user and system time of a process, `self` for this one.
fn process_times(process: &str) -> Option<(u32, Duration, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the command's name in parentheses, may hold spaces: count after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let mut times = fields.skip(9).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((parent, ticks_to_time(user), ticks_to_time(system)))
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
        let subject = Subject::new(Some(std::process::id()), Some(Path::new(".")));
        let before = subject.usage();
        let mut sum = 0_u64;
        while (subject.usage() - before.clone()).broker() < Duration::from_millis(30) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let spent = subject.usage() - before;
        assert!(spent.with_kernel() >= spent.broker(), "{spent:?}");
        assert!(spent.client >= Duration::from_millis(30), "{spent:?}");
        assert!(subject.resident_bytes() > Some(100_000));
    }
}
