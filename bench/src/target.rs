//! The broker under load: a running one, or one started here on an empty directory and ended with the benchmark.
//!
//! Leaves neither a process nor a data directory behind.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::process::Subject;
use crate::rpc::{Rpc, invalid};

/// Time for a start; after a crash with much data some brokers need long.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two attempts to reach a starting broker; bounds the error of the start-up time.
const START_STEP: Duration = Duration::from_millis(1);

/// The broker that load is sent to.
#[derive(Debug)]
pub(crate) struct Target {
    /// The broker's address.
    pub(crate) address: SocketAddr,
    /// Its process and disk, as far as known.
    pub(crate) subject: Subject,
    _spawned: Option<Spawned>,
}

/// The process, then its data directory, dropped in the order of the fields.
#[derive(Debug)]
struct Spawned {
    _process: BrokerProcess,
    _data: TempDir,
}

/// A broker's process; it ends with this value at the latest.
#[derive(Debug)]
pub(crate) struct BrokerProcess(Child);

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl BrokerProcess {
    /// Starts `command`, waits until the broker answers at `address`, and returns the time that took.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer within two minutes.
    pub(crate) fn start(
        command: &mut Command,
        address: SocketAddr,
    ) -> io::Result<(Self, Duration)> {
        let started = Instant::now();
        let mut process = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        loop {
            match Rpc::connect(address) {
                Ok(_) => return Ok((process, started.elapsed())),
                Err(error) if started.elapsed() > START_PATIENCE => return Err(error),
                Err(_) => thread::sleep(START_STEP),
            }
            if let Some(status) = process.0.try_wait()? {
                return Err(io::Error::other(format!(
                    "the broker ended at once: {status}"
                )));
            }
        }
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks the process to end and waits until it has.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn terminate(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| invalid("a process without an id"))?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        self.0.wait()?;
        Ok(())
    }
}

/// A port that is free at this moment.
///
/// # Errors
/// The system's.
pub(crate) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

impl Target {
    /// A running broker.
    ///
    /// # Errors
    /// When `bootstrap` (`host:port`) cannot be resolved.
    pub(crate) fn running(bootstrap: &str, subject: Subject) -> io::Result<Self> {
        let mut addresses = bootstrap.to_socket_addrs()?;
        let address = addresses
            .next()
            .ok_or_else(|| invalid("no address for this name"))?;
        Ok(Self::at(address, subject))
    }

    /// A broker at this address.
    pub(crate) fn at(address: SocketAddr, subject: Subject) -> Self {
        Self {
            address,
            subject,
            _spawned: None,
        }
    }

    /// Starts `program serve` with an empty data directory below `parent`; also returns the time to its first
    /// answer and its memory then.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer within two minutes.
    pub(crate) fn spawn(program: &Path, parent: &Path, overrides: &[String]) -> io::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("chronik-bench-")
            .tempdir_in(parent)?;
        let port = free_port()?;
        let mut command = chronik_command(program, port, data.path(), overrides);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (process, took) = BrokerProcess::start(&mut command, address)?;
        let subject = Subject::new(Some(process.pid()), Some(data.path()));
        println!(
            "start-up on an empty directory: {:.1} ms, then RSS {:.1} MiB",
            took.as_secs_f64() * 1e3,
            subject.resident_bytes().unwrap_or_default() as f64 / f64::from(1 << 20)
        );
        Ok(Self {
            address,
            subject,
            _spawned: Some(Spawned {
                _process: process,
                _data: data,
            }),
        })
    }
}

/// The command that starts Chronik.
pub(crate) fn chronik_command(
    program: &Path,
    port: u16,
    data: &Path,
    overrides: &[String],
) -> Command {
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--port")
        .arg(port.to_string())
        .arg("--data")
        .arg(data);
    for setting in overrides {
        command.arg("--override").arg(setting);
    }
    command
}
