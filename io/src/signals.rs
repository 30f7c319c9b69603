//! Signals: SIGTERM and SIGINT as calls on a thread of their own.
//!
//! Owns the thread that waits for them. The handler only writes to a pipe (signal-hook), so nothing
//! of ours runs in signal context. Never ends the process itself.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::thread::{Builder, JoinHandle};

/// The thread that waits for signals; dropping it stops it.
pub struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Calls `on_signal` with the signal's name each time the process is asked to stop. The default,
/// sudden end is off from now on.
///
/// # Errors
/// If the handlers or the thread cannot be installed.
pub fn watch(mut on_signal: impl FnMut(&'static str) + Send + 'static) -> io::Result<SignalWatch> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let thread = Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            on_signal(if signal == SIGTERM {
                "SIGTERM"
            } else {
                "SIGINT"
            });
        }
    })?;
    Ok(SignalWatch {
        handle,
        thread: Some(thread),
    })
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
        ] {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
            assert_eq!(receiver.recv().unwrap(), name);
        }
        drop(watch);
        assert!(receiver.recv().is_err(), "the thread has ended");
    }
}
