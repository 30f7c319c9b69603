//! Owns the broker under load: one that runs already, or one started here on an empty directory
//! and ended with the benchmark.
//!
//! Never leaves a process or a data directory behind.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Subject;
use crate::rpc::{Rpc, invalid};

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to reach a starting broker; bounds the error of the start-up time.
const START_STEP: Duration = Duration::from_millis(1);

/// Where the load goes.
#[derive(Debug)]
pub(crate) struct Target {
    /// The broker's address.
    pub(crate) address: SocketAddr,
    /// Its process and disk, as far as they are known.
    pub(crate) subject: Subject,
    spawned: Option<Spawned>,
}

/// The data directory is removed after the process has ended, in the order of the fields.
#[derive(Debug)]
struct Spawned {
    child: Ended,
    _data: TempDir,
}

#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Target {
    /// A broker that runs already.
    ///
    /// # Errors
    /// When `bootstrap` (`host:port`) cannot be resolved.
    pub(crate) fn running(bootstrap: &str, subject: Subject) -> io::Result<Self> {
        let mut addresses = bootstrap.to_socket_addrs()?;
        let address = addresses
            .next()
            .ok_or_else(|| invalid("no address for this name"))?;
        Ok(Self {
            address,
            subject,
            spawned: None,
        })
    }

    /// Starts `program serve` with an empty data directory below `parent`, and says how long it took
    /// to answer its first request and what memory it has then.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer within a minute.
    pub(crate) fn spawn(program: &Path, parent: &Path, overrides: &[String]) -> io::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("chronik-bench-")
            .tempdir_in(parent)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--port")
            .arg(port.to_string())
            .arg("--data")
            .arg(data.path());
        for setting in overrides {
            command.arg("--override").arg(setting);
        }
        let started = Instant::now();
        let child = Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        let subject = Subject::new(Some(child.0.id()), Some(data.path()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut target = Self {
            address,
            subject,
            spawned: Some(Spawned { child, _data: data }),
        };
        target.wait_for_answer(started)?;
        let resident = target.subject.resident_bytes().unwrap_or_default();
        println!(
            "start-up on an empty directory: {:.1} ms, then RSS {:.1} MiB",
            started.elapsed().as_secs_f64() * 1e3,
            resident as f64 / f64::from(1 << 20)
        );
        Ok(target)
    }

    fn wait_for_answer(&mut self, started: Instant) -> io::Result<()> {
        loop {
            match Rpc::connect(self.address) {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > START_PATIENCE => return Err(error),
                Err(_) => thread::sleep(START_STEP),
            }
            let ended = self
                .spawned
                .as_mut()
                .map(|spawned| spawned.child.0.try_wait())
                .transpose()?;
            if let Some(status) = ended.flatten() {
                return Err(io::Error::other(format!(
                    "the broker ended at once: {status}"
                )));
            }
        }
    }
}
