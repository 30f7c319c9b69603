//! Owns one `chronik serve` child process: its command line, its captured output, its signals
//! and its end.
//!
//! Never leaves a child behind: dropping a [`Broker`] kills it and waits for it. The captured
//! output is printed when that happens while the test panics.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::free_port;

/// Time for the first accepted connection, or for the end after a signal. A debug build on a loaded two-core machine
/// needs seconds; this bounds a hang, it measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of output kept per broker; the oldest go first.
const LOG_LINES_MAX: usize = 20_000;

/// The data directory, and every difference from the broker's defaults.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    data: PathBuf,
    port: Option<u16>,
    overrides: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    wrapper: Vec<OsString>,
    log: Option<Arc<OwnedFd>>,
}

impl BrokerOptions {
    /// A broker on `data` (created when missing) and a free port.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            port: None,
            // Two, so that requests cross cores; by default a small machine would have fewer.
            overrides: vec!["chronik.shards=2".to_owned()],
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            log: None,
        }
    }

    /// Listens on `port` instead of a free one: for a restart at the same address.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets one configuration key, as `--override key=value`.
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.overrides.push(format!("{key}={value}"));
        self
    }

    /// Adds one argument to the command line, after `serve` and this module's own.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets one environment variable of the broker.
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs the broker under another program (`["prlimit", "--nofile=64"]`, `["taskset", …]`) that must exec its
    /// command, or the broker's process id is unknown.
    pub fn under<I>(mut self, wrapper: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Sends standard error to `log`, which is then not captured.
    pub fn log_to(mut self, log: impl Into<OwnedFd>) -> Self {
        self.log = Some(Arc::new(log.into()));
        self
    }

    /// Starts the broker and waits until it accepts a connection.
    ///
    /// # Panics
    /// With the broker's output when it ends or stays silent instead.
    pub fn start(&self) -> Broker {
        let mut broker = self.spawn();
        broker.wait_until_ready();
        broker
    }

    /// Starts the process and returns at once: for a start that must fail, or is measured.
    pub fn spawn(&self) -> Broker {
        let port = self.port.unwrap_or_else(free_port);
        let binary = std::env::var_os("CHRONIK_TEST_BINARY")
            .unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_chronik")));
        let mut words = self.wrapper.iter().cloned().chain([binary]);
        let program = words.next().expect("at least the binary itself");
        let mut command = Command::new(program);
        command.args(words).arg("serve");
        command
            .arg("--port")
            .arg(port.to_string())
            .arg("--data")
            .arg(&self.data);
        for setting in &self.overrides {
            command.arg("--override").arg(setting);
        }
        command.args(&self.arguments);
        // The tests' own variables would look like unknown settings to the broker.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHRONIK_") && name != "CHRONIK_TRACE" {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(match &self.log {
                Some(log) => Stdio::from(log.try_clone().expect("another descriptor")),
                None => Stdio::piped(),
            });
        let started = Instant::now();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Log::default());
        let output = child.stdout.take().expect("standard output is piped");
        let mut readers = vec![log.capture("out", output)];
        readers.extend(child.stderr.take().map(|errors| log.capture("err", errors)));
        let pid = Pid::from_child(&child);
        let ended = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor for the child");
        Broker {
            options: Box::new(self.clone()),
            port,
            started,
            child,
            ended,
            log,
            readers,
            status: None,
        }
    }
}

/// A running (or ended) broker process.
#[derive(Debug)]
pub struct Broker {
    options: Box<BrokerOptions>,
    port: u16,
    started: Instant,
    child: Child,
    /// Readable once the child has ended, so that waiting needs no polling.
    ended: OwnedFd,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Broker {
    /// Starts a broker with default settings on `data` and waits until it answers.
    pub fn start(data: impl Into<PathBuf>) -> Self {
        BrokerOptions::new(data).start()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its loopback address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its address for clients: `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    /// The options it was started with.
    pub fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection to it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address());
        let stream = stream.unwrap_or_else(|error| self.give_up(&format!("connect: {error}")));
        stream
            .set_nodelay(true)
            .expect("a connected socket takes TCP_NODELAY");
        stream
    }

    /// Waits until a connection is accepted and returns the time since the process was started.
    ///
    /// # Panics
    /// With the broker's output when it ends first or takes longer than a minute.
    pub fn wait_until_ready(&mut self) -> Duration {
        while TcpStream::connect_timeout(&self.address(), PATIENCE).is_err() {
            // The kernel reports the child's end; its listening socket shows only in a connect.
            if self.wait_for_exit(Duration::from_millis(2)).is_some() {
                self.give_up("the broker ended before it accepted a connection");
            }
            if self.started.elapsed() > PATIENCE {
                self.give_up("the broker accepts no connection");
            }
        }
        self.started.elapsed()
    }

    /// Sends SIGTERM and expects a clean end: exit code 0.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        if !status.success() {
            self.give_up(&format!("SIGTERM did not end the broker cleanly: {status}"));
        }
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Sends a signal; does nothing after the process's end.
    pub fn signal(&mut self, signal: Signal) {
        if self.wait_for_exit(Duration::ZERO).is_none() {
            let sent = kill_process(Pid::from_child(&self.child), signal);
            sent.expect("a child that was not waited for takes signals");
        }
    }

    /// Waits for the end of the process and returns its status.
    ///
    /// # Panics
    /// With the broker's output when it takes longer than a minute.
    pub fn wait(&mut self) -> ExitStatus {
        match self.wait_for_exit(PATIENCE) {
            Some(status) => status,
            None => self.give_up("the broker does not end"),
        }
    }

    /// Waits at most `patience` for the end of the process.
    pub fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.status.is_none() {
            let mut events = [PollFd::new(&self.ended, PollFlags::IN)];
            let timeout = Timespec::try_from(patience).expect("a timeout below centuries");
            if poll(&mut events, Some(&timeout)) == Ok(1) {
                self.status = Some(self.child.wait().expect("the child's exit status"));
                for reader in self.readers.drain(..) {
                    reader.join().expect("the reader of the broker's output");
                }
            }
        }
        self.status
    }

    /// The output so far, a line each, `out` or `err` in front.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for a line of output with `words`, after the line that the last call found, and returns it.
    ///
    /// # Panics
    /// With the broker's output when no such line appears within a minute.
    pub fn wait_for_line(&self, words: &str) -> String {
        match self.log.wait_for(words, PATIENCE) {
            Some(line) => line,
            None => self.give_up(&format!("no line with {words:?} in the broker's output")),
        }
    }

    fn give_up(&self, reason: &str) -> ! {
        panic!("{reason} (its output follows)");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.wait_for_exit(Duration::ZERO).is_none() {
            // The child may end by itself at this very moment: then there is nothing to kill.
            let _already_gone = self.child.kill();
            self.wait_for_exit(PATIENCE);
        }
        if std::thread::panicking() {
            eprintln!(
                "--- output of chronik, pid {} ---\n{}---",
                self.child.id(),
                self.log()
            );
        }
    }
}

/// The last lines of a process's output, in the order read.
#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// The number of dropped lines.
    gone: usize,
    /// The number of the first line for the next wait.
    awaited: usize,
}

impl Lines {
    fn push(&mut self, line: String) {
        if self.kept.len() == LOG_LINES_MAX {
            self.kept.pop_front();
            self.gone += 1;
        }
        self.kept.push_back(line);
    }

    /// The number of the first line with `words` from there on.
    fn find(&self, words: &str) -> Option<usize> {
        let skipped = self.awaited.saturating_sub(self.gone);
        let mut rest = self.kept.iter().enumerate().skip(skipped);
        rest.find(|(_, line)| line.contains(words))
            .map(|(place, _)| place)
    }
}

/// A process's output, and a wake-up for each line.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

impl Log {
    fn capture(self: &Arc<Self>, name: &str, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = Arc::clone(self);
        let prefix = format!("{name} ");
        std::thread::spawn(move || {
            // Bytes, not text: a test may make the broker print invalid UTF-8.
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let mut lines = log.lines.lock().expect("no reader panics with the lock");
                lines.push(prefix.clone() + &String::from_utf8_lossy(&line));
                log.grown.notify_all();
            }
        })
    }

    fn text(&self) -> String {
        let lines = self.lines.lock().expect("no reader panics with the lock");
        lines.kept.iter().map(|line| format!("{line}\n")).collect()
    }

    fn wait_for(&self, words: &str, patience: Duration) -> Option<String> {
        let lines = self.lines.lock().expect("no reader panics with the lock");
        let (mut lines, _) = self
            .grown
            .wait_timeout_while(lines, patience, |lines| lines.find(words).is_none())
            .expect("no reader panics with the lock");
        let place = lines.find(words)?;
        lines.awaited = lines.gone + place + 1;
        lines.kept.get(place).cloned()
    }
}
