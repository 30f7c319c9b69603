//! The process's log on standard error, written by a thread of its own.
//!
//! Whoever logs puts lines into a bounded queue and goes on: a pipe that nobody reads or has closed, a
//! slow terminal or a full disk never holds a shard and never ends the process. Lines that find the
//! queue full, or that cannot be written, are counted and told of with the next that can. The thread
//! sleeps while there is nothing to write. Never filters or formats what others log.

use rustix::event::{PollFd, PollFlags};
use std::io::{self, ErrorKind, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// Most bytes of lines that wait to be written; some 30,000 lines.
pub const WAITING_BYTES_MAX: usize = 4 << 20;

/// Longest wait for the last lines when the process ends.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// The queue of this process's log, once [`start`] has been called.
static LOG: OnceLock<LogQueue> = OnceLock::new();

/// Where lines are put. A clone puts into the same queue; as a writer it takes whole lines and never
/// fails.
#[derive(Clone)]
pub struct LogQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    bytes_max: usize,
    /// The writing thread waits here for lines.
    filled: Condvar,
    /// [`LogQueue::flush`] waits here for the writing thread.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that found the queue full and nobody was told of yet. They follow what waits.
    refused: u64,
    /// The thread holds lines that it is writing.
    is_writing: bool,
}

impl State {
    fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.refused == 0 && !self.is_writing
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl LogQueue {
    /// A queue of `bytes_max`, and the thread that writes its lines to `sink`.
    fn new(bytes_max: usize, sink: impl Write + Send + 'static) -> io::Result<LogQueue> {
        let queue = LogQueue {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                bytes_max,
                filled: Condvar::new(),
                written: Condvar::new(),
            }),
        };
        let shared = Arc::clone(&queue.shared);
        let name = "log".to_owned();
        Builder::new().name(name).spawn(move || shared.run(sink))?;
        Ok(queue)
    }

    /// Takes whole lines, or counts them as lost when they do not fit.
    pub fn put(&self, lines: &[u8]) {
        let mut state = self.shared.lock();
        match state.waiting.len() + lines.len() <= self.shared.bytes_max {
            true => state.waiting.extend_from_slice(lines),
            false => state.refused += lines_in(lines),
        }
        // Free while the thread is not waiting.
        self.shared.filled.notify_one();
    }

    /// Waits until everything put so far was written or given up, and says whether that was so
    /// within `at_most`.
    pub fn flush(&self, at_most: Duration) -> bool {
        let state = self.shared.lock();
        let wait = self
            .shared
            .written
            .wait_timeout_while(state, at_most, |state| !state.is_drained());
        let waited = wait.unwrap_or_else(PoisonError::into_inner).1;
        !waited.timed_out()
    }
}

impl Write for LogQueue {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.put(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes for as long as the process lives.
    fn run(&self, sink: impl Write) -> ! {
        let mut output = Output {
            sink,
            lost: 0,
            is_torn: false,
        };
        let mut lines = Vec::new();
        loop {
            let refused = self.take(&mut lines);
            output.write(&lines);
            output.lost += refused;
            if refused > 0 {
                output.write(&[]);
            }
        }
    }

    /// Waits for lines and exchanges them for the buffer; also says how many were refused behind them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        state.is_writing = false;
        self.written.notify_all();
        let wait = self.filled.wait_while(state, |state| state.is_drained());
        state = wait.unwrap_or_else(PoisonError::into_inner);
        lines.clear();
        std::mem::swap(&mut state.waiting, lines);
        state.is_writing = true;
        std::mem::take(&mut state.refused)
    }
}

/// The writing end, with what could not be written.
struct Output<Sink> {
    sink: Sink,
    lost: u64,
    /// The last write ended within a line.
    is_torn: bool,
}

impl<Sink: Write> Output<Sink> {
    /// Tells of lines that were lost before, then writes `lines` or counts them.
    fn write(&mut self, lines: &[u8]) {
        if self.lost > 0 {
            let told = match self.lost {
                1 => "1 line of the log was lost\n".to_owned(),
                lost => format!("{lost} lines of the log were lost\n"),
            };
            if self.write_all(told.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        if let Err(unwritten) = self.write_all(lines) {
            self.lost += lines_in(unwritten);
        }
    }

    /// What could not be written is returned as the error.
    fn write_all<'a>(&mut self, lines: &'a [u8]) -> Result<(), &'a [u8]> {
        if self.is_torn {
            self.is_torn = !self.sink.write(b"\n").is_ok_and(|count| count > 0);
            if self.is_torn {
                return Err(lines);
            }
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err(rest),
                Ok(count) => {
                    self.is_torn = rest.get(count - 1) != Some(&b'\n');
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(rest),
            }
        }
        Ok(())
    }
}

/// Standard error without std's lock around it, so that a write that hangs holds nobody else.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = rustix::stdio::stderr();
        loop {
            match rustix::io::write(stderr, bytes) {
                // Whoever shares the descriptor has made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    rustix::event::poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the last lines their time when dropped; then the process can end.
#[must_use = "without it the last lines may be missing"]
pub struct LastLines(LogQueue);

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES_WAIT);
    }
}

/// Starts the log of this process on standard error. Panics are told of in it from now on.
///
/// # Errors
/// If the thread cannot be started.
pub fn start() -> io::Result<(LogQueue, LastLines)> {
    let queue = match LOG.get() {
        Some(queue) => queue.clone(),
        None => LOG
            .get_or_init({
                let queue = LogQueue::new(WAITING_BYTES_MAX, StandardError)?;
                move || queue
            })
            .clone(),
    };
    std::panic::set_hook(Box::new(tell_panic));
    Ok((queue.clone(), LastLines(queue)))
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    // Empty unless RUST_BACKTRACE asks for it.
    let trace = std::backtrace::Backtrace::capture();
    match trace.status() {
        std::backtrace::BacktraceStatus::Captured => {
            say(&format!("thread {name} {panic}\n{trace}"));
        }
        _ => say(&format!("thread {name} {panic}")),
    }
}

/// Puts a line of this process's own into the log, whatever the filter. Before [`start`] it goes to
/// standard error at once, if that takes it.
pub fn say(line: &str) {
    match LOG.get() {
        Some(queue) => queue.put(format!("{line}\n").as_bytes()),
        None => {
            // Nobody is left to be told that nobody can be told.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// Gives what was said so far a second to be written; for a process that is about to end.
pub fn last_words() {
    if let Some(queue) = LOG.get() {
        queue.flush(LAST_LINES_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::{LogQueue, Output};
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Writes what it is allowed to, one permission a write: how many bytes, or an error.
    struct Gated {
        permissions: Receiver<io::Result<usize>>,
        asked: Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            // Whoever gave permissions and is gone gives all.
            let allowed = self.permissions.recv().unwrap_or(Ok(usize::MAX))?;
            let count = allowed.min(bytes.len());
            self.written.lock().unwrap().extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gate {
        permit: Sender<io::Result<usize>>,
        asked: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Gate {
        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    fn gated() -> (Gated, Gate) {
        let (permit, permissions) = channel();
        let (ask, asked) = channel();
        let written = Arc::default();
        let gated = Gated {
            permissions,
            asked: ask,
            written: Arc::clone(&written),
        };
        let gate = Gate {
            permit,
            asked,
            written,
        };
        (gated, gate)
    }

    fn full() -> io::Error {
        io::Error::from(io::ErrorKind::StorageFull)
    }

    #[test]
    fn lines_that_find_the_queue_full_are_counted_and_told_behind_those_that_waited() {
        let (sink, gate) = gated();
        let queue = LogQueue::new(8, sink).unwrap();
        queue.put(b"first\n");
        // The thread hangs in its write from here on.
        gate.asked.recv().unwrap();
        queue.put(b"second\n");
        for _ in 0..3 {
            queue.put(b"no room\n");
        }
        assert!(!queue.flush(Duration::ZERO));
        drop(gate.permit);
        assert!(queue.flush(PATIENCE));
        assert_eq!(
            String::from_utf8(gate.written.lock().unwrap().clone()).unwrap(),
            "first\nsecond\n3 lines of the log were lost\n"
        );
    }

    #[test]
    fn lines_that_cannot_be_written_are_told_of_when_one_can() {
        let (sink, gate) = gated();
        let queue = LogQueue::new(1 << 10, sink).unwrap();
        gate.permit.send(Err(full())).unwrap();
        queue.put(b"one\ntwo\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(gate.text(), "");
        // Neither the tidings of the loss nor the line itself can be written.
        gate.permit.send(Err(full())).unwrap();
        gate.permit.send(Err(full())).unwrap();
        queue.put(b"three\n");
        assert!(queue.flush(PATIENCE));
        (0..2).for_each(|_| gate.permit.send(Ok(usize::MAX)).unwrap());
        queue.put(b"four\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(gate.text(), "3 lines of the log were lost\nfour\n");
    }

    #[test]
    fn a_line_that_was_torn_does_not_run_into_the_next() {
        let (sink, gate) = gated();
        let mut output = Output {
            sink,
            lost: 0,
            is_torn: false,
        };
        gate.permit.send(Ok(4)).unwrap();
        gate.permit.send(Err(full())).unwrap();
        output.write(b"one\ntwo\n");
        gate.permit.send(Ok(1)).unwrap();
        gate.permit.send(Ok(2)).unwrap();
        // The rest of the tidings, then the end of their line.
        (0..2).for_each(|_| gate.permit.send(Err(full())).unwrap());
        output.write(b"three\n");
        (0..3).for_each(|_| gate.permit.send(Ok(usize::MAX)).unwrap());
        output.write(b"four\n");
        assert_eq!(
            gate.text(),
            "one\n1 l\n2 lines of the log were lost\nfour\n"
        );
    }
}
