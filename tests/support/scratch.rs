//! Owns the places a test may use: a directory of its own on the disk that also holds the build
//! (a temporary file system in memory may refuse direct I/O) and a port nobody listens on.
//!
//! Never hands out the same port twice on one machine, whatever test binaries run at the same time.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// A directory that is removed when the value is dropped, or kept (and named on standard error)
/// when `CHRONIK_TEST_KEEP` is set.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// Makes a new empty directory below Cargo's own directory for test files.
    pub fn new() -> Self {
        let mut directory = tempfile::Builder::new()
            .prefix("chronik-test-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a scratch directory below the build directory");
        if std::env::var_os("CHRONIK_TEST_KEEP").is_some() {
            directory.disable_cleanup(true);
            eprintln!("scratch directory kept: {}", directory.path().display());
        }
        Self { directory }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path inside the directory; nothing is created there.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Ports below the range from which Linux takes the local end of outgoing connections
/// (32768 and up by default), so that no client of a parallel test can take the port between
/// this answer and the broker's bind.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A loopback TCP port on which nobody listens and that no other caller gets, of whatever process.
///
/// A port that is handed out is marked by a socket of that name in the kernel's own name space, which lasts
/// as long as the process: a broker may be stopped and started again on its port. The walk through the range
/// starts at a place that depends on the process id, so that few marks are found on the way.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    static MARKS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let count = PORTS.end - PORTS.start;
    let first = std::process::id().wrapping_mul(97) % count;
    for _ in 0..count {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        let candidate = PORTS.start + (first.wrapping_add(step) % count);
        let port = u16::try_from(candidate).expect("the range ends below 65536");
        let name = SocketAddr::from_abstract_name(format!("chronik-test-port-{port}"));
        let Ok(mark) = UnixListener::bind_addr(&name.expect("a short name")) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            let mut marks = MARKS.lock().unwrap_or_else(PoisonError::into_inner);
            marks.push(mark);
            return port;
        }
    }
    panic!("no free loopback port in {PORTS:?}");
}
