//! One member of a group: the process of a third-party client, its output (see `tests/clients/README.md`) and its end.
//!
//! Leaves no process behind: dropping a [`Member`] kills it and waits for it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use rustix::process::{Pid, Signal, kill_process};

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The partitions that it holds now, all of them.
    Holds(Vec<i32>),
    /// It read this offset of a partition.
    Read(i32, i64),
    /// The broker took its commit: this is where a partition goes on.
    Committed(i32, i64),
    /// The broker did not take its commit.
    Refused(String),
    /// Its standard output has ended: so has it, or it will at once.
    Ended,
}

impl Said {
    fn parse(line: &str) -> Self {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = |text: &str| -> i64 {
            text.parse()
                .unwrap_or_else(|error| panic!("a member says {line:?}: {error}"))
        };
        let partition = |text: &str| i32::try_from(number(text)).expect("a partition's number");
        let place = || {
            let (index, offset) = rest.split_once(' ').expect("a partition and an offset");
            (partition(index), number(offset))
        };
        match verb {
            "assigned" if rest.is_empty() => Self::Holds(Vec::new()),
            "assigned" => Self::Holds(rest.split(',').map(partition).collect()),
            "record" => Self::Read(place().0, place().1),
            "committed" => Self::Committed(place().0, place().1),
            "refused" => Self::Refused(rest.to_owned()),
            _ => panic!("a member says {line:?}"),
        }
    }
}

/// A running member.
#[derive(Debug)]
pub(crate) struct Member {
    child: Child,
    errors: File,
    /// The last partitions that it said it holds.
    pub(crate) holds: Vec<i32>,
    /// How often it said which partitions it holds.
    pub(crate) assignments: usize,
    /// Whether it was told to leave.
    pub(crate) leaving: bool,
}

impl Member {
    /// Starts `tests/clients/run CLIENT join WORDS…`; what it says goes to `sink` under `name`.
    pub(crate) fn start(
        client: &str,
        words: &[String],
        name: usize,
        sink: Sender<(usize, Said)>,
    ) -> Self {
        let run = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run");
        let errors = tempfile::tempfile().expect("a file for standard error");
        let mut child = Command::new(run)
            .args([client, "join"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().expect("a second handle"))
            .spawn()
            .expect("tests/clients/run is a program");
        let out = child.stdout.take().expect("standard output is piped");
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            // A killed member may leave half a line, which says nothing.
            while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if sink
                    .send((name, Said::parse(line.trim_end_matches('\n'))))
                    .is_err()
                {
                    return;
                }
                line.clear();
            }
            // A test that is over no longer listens.
            let _unheard = sink.send((name, Said::Ended));
        });
        Self {
            child,
            errors,
            holds: Vec::new(),
            assignments: 0,
            leaving: false,
        }
    }

    /// Tells it to leave the group and end.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.signal(Signal::TERM);
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.leaving = true;
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child not yet waited for");
    }

    /// How it ended; for one whose output has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the child's exit status")
    }

    /// What it complained about.
    pub(crate) fn complaints(&mut self) -> String {
        let mut text = Vec::new();
        self.errors.rewind().expect("a regular file");
        self.errors.read_to_end(&mut text).expect("a regular file");
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended already is not there to be killed.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
