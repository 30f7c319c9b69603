//! Signals: SIGTERM, SIGINT and SIGHUP as calls on a thread of their own.
//!
//! Owns the waiting thread. The handler only writes to a pipe (signal-hook), so no broker code runs in signal
//! context. A SIGHUP ignored at start (`nohup`) stays ignored, as in a JVM. A write to a closed pipe or beyond
//! `ulimit -f` is an error of that write and no signal: SIGPIPE is ignored by Rust's runtime, SIGXFSZ here. Never
//! ends the process itself.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::thread::{Builder, JoinHandle};

/// The thread that waits for signals; dropping it stops it.
pub struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Calls `on_signal` with the signal's name each time the process is asked to stop, instead of the default, sudden
/// end.
///
/// # Errors
/// If the handlers or the thread cannot be installed.
pub fn watch(mut on_signal: impl FnMut(&'static str) + Send + 'static) -> io::Result<SignalWatch> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGXFSZ])?;
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    let handle = signals.handle();
    let thread = Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGTERM => on_signal("SIGTERM"),
                SIGINT => on_signal("SIGINT"),
                SIGHUP => on_signal("SIGHUP"),
                // The write that caused it has its error.
                _ => {}
            }
        }
    })?;
    Ok(SignalWatch {
        handle,
        thread: Some(thread),
    })
}

/// True when this process was started with `signal` ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the signal thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    #[test]
    fn a_signal_becomes_a_call() {
        let (sender, receiver) = channel();
        let watch = super::watch(move |name| sender.send(name).unwrap()).unwrap();
        for (signal, name) in [
            (rustix::process::Signal::TERM, "SIGTERM"),
            (rustix::process::Signal::INT, "SIGINT"),
            (rustix::process::Signal::HUP, "SIGHUP"),
        ] {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
            assert_eq!(receiver.recv().unwrap(), name);
        }
        // This signal has no call, and does not end the process either.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::XFSZ)
            .unwrap();
        drop(watch);
        assert!(receiver.recv().is_err(), "the thread has ended");
    }
}
