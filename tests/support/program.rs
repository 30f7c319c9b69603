//! Third-party programs (clients, Kafka's tools): run with a deadline, their output shown when they fail, reported as
//! skipped when not installed.
//!
//! Never lets a test pass silently without the program: it is reported on standard error past the test harness, which
//! captures output. Leaves no process behind.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// The exit code of `tests/clients/run` and `tests/clients/kafka` for a program that is not installed.
const MISSING: i32 = 77;

/// Longest run of one program. It bounds a hang on a loaded machine and measures nothing.
const PATIENCE: Duration = Duration::from_secs(600);

/// Writes a line to standard error, also from a test that passes.
pub fn say(line: &str) {
    // A closed standard error loses the line; there is no other place for it.
    let _unheard = writeln!(std::io::stderr(), "{line}");
}

/// Reports on standard error, also from a test that passes, a skipped part and the reason. `make test` counts these
/// lines at its end: they also go to the file named by `CHRONIK_TEST_SKIPPED`.
pub fn skip(reason: impl Display) {
    let line = format!("SKIPPED: {reason}");
    say(&line);
    if let Some(path) = std::env::var_os("CHRONIK_TEST_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.expect("the file of what is skipped takes a line");
    }
}

/// A program's output and exit status.
#[derive(Debug)]
pub struct Report {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output, with replacement characters for invalid UTF-8.
    pub out: String,
    /// Standard error, likewise.
    pub err: String,
}

/// A program of `tests/clients`: `run` (a client) or `kafka` (a command-line tool).
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
}

impl Program {
    /// A client of `tests/clients/run`.
    pub fn client(name: &str) -> Self {
        Self::of_clients("run", name)
    }

    /// A tool of `tests/clients/kafka`: `kafka-topics` and so on.
    pub fn kafka_tool(name: &str) -> Self {
        Self::of_clients("kafka", name)
    }

    fn of_clients(script: &str, name: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = Command::new(directory.join(script));
        command.arg(name);
        Self {
            name: name.to_owned(),
            command,
        }
    }

    /// Adds arguments.
    pub fn args<I>(mut self, words: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<std::ffi::OsStr>,
    {
        self.command.args(words);
        self
    }

    /// Sets one variable of its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end. `None`, reported as skipped, when it is not installed.
    ///
    /// # Panics
    /// When `CHRONIK_TEST_CLIENTS=required` and it is not installed, and when it hangs.
    pub fn report(mut self) -> Option<Report> {
        let mut out = tempfile::tempfile().expect("a file for standard output");
        let mut err = tempfile::tempfile().expect("a file for standard error");
        self.command.stdin(Stdio::null());
        self.command
            .stdout(out.try_clone().expect("a second handle"));
        self.command
            .stderr(err.try_clone().expect("a second handle"));
        let child = self.command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let status = wait(&mut child);
        let (out, err) = (text(&mut out), text(&mut err));
        let Some(status) = status else {
            panic!("{:?} does not end\n{out}\n{err}", self.command);
        };
        if status.code() == Some(MISSING) {
            let required = std::env::var("CHRONIK_TEST_CLIENTS").is_ok_and(|v| v == "required");
            assert!(!required, "{} is required: {err}", self.name);
            skip(format_args!("{}: {}", self.name, err.trim()));
            return None;
        }
        Some(Report { status, out, err })
    }

    /// Starts it, which must be installed, and returns at once.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut self) -> Running {
        let printed = tempfile::tempfile().expect("a file for what it prints");
        let handle = || printed.try_clone().expect("a second handle");
        self.command
            .stdin(Stdio::null())
            .stdout(handle())
            .stderr(handle());
        let child = self.command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let shown = format!("{:?}", self.command);
        Running {
            shown,
            child,
            printed,
        }
    }

    /// Runs it and returns its output. `None`, reported as skipped, when it is not installed.
    ///
    /// # Panics
    /// With its output when its exit code is not 0.
    pub fn run(self) -> Option<Report> {
        let shown = format!("{:?}", self.command);
        let report = self.report()?;
        assert!(
            report.status.success(),
            "{shown}: {}\n{}\n{}",
            report.status,
            report.out,
            report.err
        );
        Some(report)
    }
}

/// A running program: killed when dropped, its output shown if the test fails.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
    /// Standard output and error, interleaved.
    printed: File,
}

impl Running {
    /// The output so far.
    pub fn printed(&mut self) -> String {
        text(&mut self.printed)
    }

    /// Sends SIGTERM, waits for its end and returns its status and output.
    ///
    /// # Panics
    /// When it does not end, or had ended already.
    pub fn stop(mut self) -> (ExitStatus, String) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "{} had ended: {ended:?}", self.shown);
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child takes signals");
        let status = wait(&mut self.child);
        let status = status.unwrap_or_else(|| panic!("{} does not end", self.shown));
        (status, self.printed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails on an ended program only.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        if std::thread::panicking() {
            let printed = self.printed();
            eprintln!("--- {} ---\n{printed}---", self.shown);
        }
    }
}

/// Waits for the child; kills it and returns `None` when that takes too long.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a descriptor");
    let timeout = Timespec::try_from(PATIENCE).expect("a timeout below centuries");
    let mut events = [PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN)];
    let in_time = poll(&mut events, Some(&timeout)) == Ok(1);
    if !in_time {
        child
            .kill()
            .expect("a child that was not waited for can be killed");
    }
    let status = child.wait().expect("the child's exit status");
    in_time.then_some(status)
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a regular file can be rewound");
    file.read_to_end(&mut bytes)
        .expect("a regular file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
