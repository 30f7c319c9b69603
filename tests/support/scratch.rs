//! A test's own directory, on the disk of the build (a file system in memory may refuse direct I/O), and its own port.
//!
//! Never hands out a port twice on one machine, whatever test binaries run at the same time.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// A directory removed when the value is dropped, or kept (and named on standard error) when `CHRONIK_TEST_KEEP` is
/// set.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// Creates an empty directory below Cargo's own directory for test files.
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

    /// A path inside the directory, not created.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Ports below Linux's range for the local end of outgoing connections (32768 and up by default), so that no client of
/// a parallel test takes the port before the broker binds it.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A free loopback TCP port that no other caller gets, in any process.
///
/// The port is marked by a socket of that name in the kernel's abstract name space, for as long as the process lives: a
/// broker may be restarted on its port. The search starts at a place that depends on the process id, so that it meets
/// few marks.
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
