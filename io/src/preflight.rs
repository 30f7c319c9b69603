//! Start-up checks: the broker's demands on the machine, and the remedy for each that is not met.
//!
//! Owns the checks and the raising of the descriptor limit; the lock of a data directory is in `lock`. Each
//! finding is one sentence. Runs on the starting thread before there are shards; `chronik doctor` prints the
//! same findings. Changes nothing but that limit, except for one file for a moment in a data directory it may
//! write.

mod lock;

pub use lock::DirectoryLock;

use crate::descriptors::Shares;
use crate::storage::BLOCK_BYTES;
use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::{Access, Mode, OFlags};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Resource, Rlimit};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Lockable memory below which no io_uring executor starts, root or not (glommio's own limit).
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Descriptors below which a broker with some partitions and connections soon runs out.
const DESCRIPTORS_MIN: u64 = 1_024;

/// Descriptors of a process just started.
const DESCRIPTORS_AT_START: u64 = 8;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Works, with a drawback.
    Warning,
    /// Prevents the start.
    Refused,
}

/// The result of one check.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The subject: `io_uring`, `memlock`, `descriptors`, a directory, an address.
    pub subject: String,
    /// The severity.
    pub verdict: Verdict,
    /// One sentence, with the remedy where there is a problem.
    pub sentence: String,
}

impl Finding {
    fn new(subject: impl Into<String>, verdict: Verdict, sentence: impl Into<String>) -> Finding {
        Finding {
            subject: subject.into(),
            verdict,
            sentence: sentence.into(),
        }
    }
}

/// The resources a broker is about to use.
#[derive(Clone, Debug, Default)]
pub struct Preflight {
    /// Directories to write to.
    pub directories: Vec<PathBuf>,
    /// Directories a start goes on without, unless the path is no directory: never written.
    pub dispensable: Vec<PathBuf>,
    /// True when the check may write there, and create missing ones.
    pub may_write: bool,
    /// Addresses to listen on.
    pub addresses: Vec<SocketAddr>,
    /// Descriptors expected to be needed; a lower limit is a warning.
    pub descriptors: u64,
    /// The number of shards; a limit that leaves them next to nothing is refused.
    pub shards: usize,
}

impl Preflight {
    /// Runs every check; one finding per subject.
    #[must_use]
    pub fn check(&self) -> Vec<Finding> {
        let memlock = check_memlock();
        let io_uring = match memlock.verdict {
            Verdict::Refused => {
                let sentence = "cannot be tried before more memory may be locked";
                Finding::new("io_uring", Verdict::Refused, sentence)
            }
            _ => check_io_uring(),
        };
        let mut findings = vec![memlock, io_uring, self.check_descriptors()];
        if !Path::new("/proc/self/fd").is_dir() {
            let sentence = "/proc is not mounted, and files are opened through it: mount it";
            findings.push(Finding::new("proc", Verdict::Refused, sentence));
        }
        let may_write = self.may_write;
        let directories = self.directories.iter();
        findings.extend(directories.map(|path| check_directory(path, may_write)));
        let dispensable = self.dispensable.iter();
        findings.extend(dispensable.map(|path| check_dispensable(path)));
        findings.extend(self.addresses.iter().map(|address| check_address(*address)));
        findings
    }

    fn check_descriptors(&self) -> Finding {
        let have = raise_descriptor_limit();
        let (need, least) = (
            self.descriptors.max(DESCRIPTORS_MIN),
            Shares::limit_min(self.shards),
        );
        if have >= need {
            return Finding::new("descriptors", Verdict::Fine, format!("{have} may be open"));
        }
        let mend = "raise the hard limit (ulimit -Hn, or LimitNOFILE= of the service)";
        if have < least {
            let sentence = format!("only {have} may be open and a start needs {least}: {mend}");
            return Finding::new("descriptors", Verdict::Refused, sentence);
        }
        let shares = Shares::new(have, DESCRIPTORS_AT_START, self.shards);
        let files = shares.files_per_shard * self.shards.max(1);
        let sentence = format!(
            "only {have} may be open, so {} connections are taken at a time and files beyond {files} are \
             closed and opened again by need: {mend}; {need} are comfortable",
            shares.connections
        );
        Finding::new("descriptors", Verdict::Warning, sentence)
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns the limit in force.
pub fn raise_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let holds = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    holds.unwrap_or(u64::MAX)
}

fn check_memlock() -> Finding {
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    match limit {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => {
            let sentence = format!(
                "only {bytes} bytes of memory may be locked and io_uring needs {MEMLOCK_BYTES_MIN}: \
                 raise the limit (ulimit -l, or LimitMEMLOCK= of the service)"
            );
            Finding::new("memlock", Verdict::Refused, sentence)
        }
        Some(bytes) => Finding::new(
            "memlock",
            Verdict::Fine,
            format!("{bytes} bytes may be locked"),
        ),
        None => Finding::new(
            "memlock",
            Verdict::Fine,
            "memory may be locked without limit",
        ),
    }
}

/// Builds an executor and runs nothing on it: only this covers kernel, sandbox and limits.
fn check_io_uring() -> Finding {
    // glommio panics where io_uring is forbidden; on a thread of its own that is a result.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let attempt = std::thread::Builder::new()
        .name("preflight".to_owned())
        .spawn(|| {
            let executor = LocalExecutorBuilder::new(Placement::Unbound)
                .io_memory(64 << 10)
                .make();
            executor
                .map(|executor| executor.run(async {}))
                .map_err(io::Error::from)
        });
    let outcome = attempt.map(std::thread::JoinHandle::join);
    std::panic::set_hook(hook);
    let refused = |reason: String| {
        let sentence = format!(
            "io_uring cannot be used ({reason}): it needs Linux 5.8 or newer, \
             kernel.io_uring_disabled=0 and a container or sandbox that allows it"
        );
        Finding::new("io_uring", Verdict::Refused, sentence)
    };
    match outcome {
        Ok(Ok(Ok(()))) => Finding::new("io_uring", Verdict::Fine, "available"),
        Ok(Ok(Err(error))) | Err(error) => refused(error.to_string()),
        Ok(Err(_)) => refused("the kernel refused to set up a ring".to_owned()),
    }
}

fn check_directory(path: &Path, may_write: bool) -> Finding {
    let subject = path.display().to_string();
    let tried = match may_write {
        true => try_directory(path),
        false => look_at_directory(path),
    };
    match tried {
        Ok(true) => Finding::new(subject, Verdict::Fine, "writable, with direct I/O"),
        Ok(false) => {
            let sentence = "the file system has no direct I/O (tmpfs?), so data goes through the \
                            page cache: use a file system on a disk for anything but tests";
            Finding::new(subject, Verdict::Warning, sentence)
        }
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let sentence = "the disk is full, and a start has to write some blocks: make space";
            Finding::new(subject, Verdict::Refused, sentence)
        }
        Err(_) if path.is_file() => {
            let sentence = "is a file, not a directory: choose a directory";
            Finding::new(subject, Verdict::Refused, sentence)
        }
        Err(error) => {
            let sentence = format!(
                "cannot be created and written ({error}): make it writable for this user, or \
                 choose another data directory"
            );
            Finding::new(subject, Verdict::Refused, sentence)
        }
    }
}

fn check_dispensable(path: &Path) -> Finding {
    let mut finding = check_directory(path, false);
    if finding.verdict == Verdict::Refused && !path.is_file() {
        finding.verdict = Verdict::Warning;
        let sentence = "; until then a start leaves it out, and what lies there is offline";
        finding.sentence.push_str(sentence);
    }
    finding
}

/// True when files could be created and opened for direct I/O, by metadata only.
fn look_at_directory(path: &Path) -> io::Result<bool> {
    let found = path.ancestors().find(|ancestor| ancestor.exists());
    let found = found.unwrap_or(Path::new("/"));
    rustix::fs::access(found, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut files = fs::read_dir(found)?.flatten();
    let file = files.find(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    match file.map(|file| rustix::fs::open(file.path(), flags, Mode::empty())) {
        Some(Err(rustix::io::Errno::INVAL)) => Ok(false),
        _ => Ok(true),
    }
}

/// Writes one block; true when directly.
fn try_directory(path: &Path) -> io::Result<bool> {
    fs::create_dir_all(path)?;
    let probe = path.join(format!(".preflight-{}.tmp", std::process::id()));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let (file, direct) = match rustix::fs::open(&probe, flags | OFlags::DIRECT, mode) {
        Ok(file) => (file, true),
        Err(rustix::io::Errno::INVAL) => (rustix::fs::open(&probe, flags, mode)?, false),
        Err(error) => return Err(error.into()),
    };
    let written = write_block(&file);
    fs::remove_file(&probe)?;
    written.map(|()| direct)
}

fn write_block(file: &rustix::fd::OwnedFd) -> io::Result<()> {
    let memory = vec![0x5a; BLOCK_BYTES * 2];
    let skip = memory.as_ptr().align_offset(BLOCK_BYTES);
    let count = rustix::io::pwrite(file, &memory[skip..skip + BLOCK_BYTES], 0)?;
    if count != BLOCK_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(rustix::fs::fdatasync(file)?)
}

/// Binds the address without listening, so that no client connects during the check.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As a listener does: recently closed connections do not hold the port.
    set_socket_reuseaddr(&socket, true)?;
    Ok(bind(&socket, &address)?)
}

fn check_address(address: SocketAddr) -> Finding {
    match try_bind(address) {
        Ok(()) => Finding::new(address.to_string(), Verdict::Fine, "free"),
        Err(error) => {
            let mend = match error.kind() {
                io::ErrorKind::AddrInUse => "stop whoever listens there, or choose another port",
                io::ErrorKind::PermissionDenied => "choose a port above 1023",
                _ => "choose an address of this machine",
            };
            let sentence = format!("cannot be listened on ({error}): {mend}");
            Finding::new(address.to_string(), Verdict::Refused, sentence)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Preflight, Verdict};
    use crate::net::Listener;

    #[test]
    fn a_sound_machine_has_nothing_refused() {
        let dir = tempfile::tempdir().unwrap();
        let free = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = free.address();
        drop(free);
        let preflight = Preflight {
            directories: vec![dir.path().join("not/yet")],
            dispensable: Vec::new(),
            addresses: vec![address],
            may_write: true,
            descriptors: 0,
            shards: 1,
        };
        let findings = preflight.check();
        assert_eq!(findings.len(), 5);
        for finding in findings {
            assert_ne!(finding.verdict, Verdict::Refused, "{finding:?}");
        }
        assert_eq!(
            std::fs::read_dir(dir.path().join("not/yet"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn each_fault_is_one_sentence_with_the_mend() {
        let dir = tempfile::tempdir().unwrap();
        let taken = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let mut preflight = Preflight {
            directories: vec![dir.path().join("file/below")],
            dispensable: vec![dir.path().join("file"), dir.path().join("file/beside")],
            addresses: vec![taken.address(), ([192, 0, 2, 1], 1).into()],
            may_write: false,
            descriptors: u64::MAX,
            shards: 1,
        };
        let mut findings = preflight.check();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        for finding in &findings {
            assert!(
                finding.subject != preflight.directories[0].display().to_string()
                    || finding.verdict == Verdict::Refused,
                "{finding:?}"
            );
        }
        preflight.may_write = true;
        findings = preflight.check();
        let of = |subject: &str| findings.iter().find(|f| f.subject == subject).unwrap();
        for (subject, verdict, mend) in [
            (
                dir.path().join("file/below").display().to_string(),
                Verdict::Refused,
                "choose",
            ),
            (
                taken.address().to_string(),
                Verdict::Refused,
                "stop whoever",
            ),
            (
                "192.0.2.1:1".to_owned(),
                Verdict::Refused,
                "choose an address",
            ),
            ("descriptors".to_owned(), Verdict::Warning, "raise"),
            (
                dir.path().join("file").display().to_string(),
                Verdict::Refused,
                "is a file, not a directory",
            ),
            (
                dir.path().join("file/beside").display().to_string(),
                Verdict::Warning,
                "a start leaves it out",
            ),
        ] {
            let finding = of(&subject);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.sentence.contains(mend), "{finding:?}");
            assert!(!finding.sentence.contains('\n'));
        }
    }
}
