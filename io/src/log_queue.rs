//! The process's log on standard error, written by a thread of its own.
//!
//! Loggers put lines into a bounded queue and go on: an unread or closed pipe, a slow terminal or a full disk
//! never holds a shard and never ends the process. Lines lost to a full queue or a failed write are counted, and
//! the count is written before the next line that succeeds. The thread sleeps while the queue is empty. Never
//! filters or formats.

use rustix::event::{PollFd, PollFlags};
use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// Bytes of waiting lines at most; some 30,000 lines.
pub const WAITING_BYTES_MAX: usize = 4 << 20;

/// Longest wait for the last lines when the process ends.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// The queue of this process's log, once [`start`] has been called.
static LOG: OnceLock<LogQueue> = OnceLock::new();

/// The writing end of the queue. Clones share it; as a writer it takes whole lines and never fails.
#[derive(Clone)]
pub struct LogQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    bytes_max: usize,
    /// Signals the writing thread that lines wait.
    filled: Condvar,
    /// Signals [`LogQueue::flush`] that lines were written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines lost to the full queue and not reported yet. They come after the waiting ones.
    refused: u64,
    /// The thread is writing lines.
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
        // Cheap while the thread is not waiting.
        self.shared.filled.notify_one();
    }

    /// Waits until every line put so far is written or lost; false when that takes longer than `at_most`.
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

    /// Waits for lines and swaps them for `lines`; returns the number of lines lost after them.
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

/// The thread's end: the sink, and the count of unreported losses.
struct Output<Sink> {
    sink: Sink,
    lost: u64,
    /// The last write ended within a line.
    is_torn: bool,
}

impl<Sink: Write> Output<Sink> {
    /// Reports earlier losses, then writes `lines` or counts them as lost.
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

    /// Writes to the sink; the error is the part that was not written.
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

/// Standard error without std's lock around it, so that a hanging write holds no other thread.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = rustix::stdio::stderr();
        loop {
            match rustix::io::write(stderr, bytes) {
                // Another holder of the descriptor has made it non-blocking.
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

/// Flushes the log when dropped, at the end of the process.
#[must_use = "without it the last lines may be missing"]
pub struct FlushAtEnd(LogQueue);

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES_WAIT);
    }
}

/// Starts the log of this process on standard error, panics included.
///
/// # Errors
/// If the thread cannot be started.
pub fn start() -> io::Result<(LogQueue, FlushAtEnd)> {
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
    Ok((queue.clone(), FlushAtEnd(queue)))
}

thread_local! {
    /// Panics of this thread are caught and become an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `code`, whose panic is a result and leaves no line.
pub(crate) fn quietly<T>(code: impl FnOnce() -> T) -> std::thread::Result<T> {
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(code));
    QUIET.set(before);
    outcome
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    if QUIET.get() {
        return;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    // Empty unless RUST_BACKTRACE asks for it.
    let trace = std::backtrace::Backtrace::capture();
    match trace.status() {
        std::backtrace::BacktraceStatus::Captured => {
            write_line(&format!("thread {name} {panic}\n{trace}"));
        }
        _ => write_line(&format!("thread {name} {panic}")),
    }
}

/// Writes a line into the log, whatever the filter. Before [`start`] it goes straight to standard error.
pub fn write_line(line: &str) {
    match LOG.get() {
        Some(queue) => queue.put(format!("{line}\n").as_bytes()),
        None => {
            // A failure here has no place to be reported.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// Flushes the log for at most a second; for a process about to end.
pub fn flush_log() {
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

    /// A sink that writes by permission, one each: a number of bytes, or an error.
    struct Gated {
        permissions: Receiver<io::Result<usize>>,
        asked: Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            // Without a sender every write is permitted.
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
        // Neither the report of the loss nor the line itself can be written.
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
        // The rest of the report, then the end of its line.
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
