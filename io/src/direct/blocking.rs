//! Helper threads of a shard, for system calls that block and have no io_uring form.
//!
//! Owns one thread per helper, started by its first job, asleep while there is none. A panic in a
//! job reaches whoever asked for it; the thread lives on. glommio's own pool is not used: there the
//! caller of a job that panics waits for ever.

use std::any::Any;
use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Builder;

type Job = Box<dyn FnOnce() + Send>;
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// One helper thread. Dropping it lets the thread finish its jobs and end.
pub(super) struct Helper {
    name: String,
    jobs: OnceCell<Sender<Job>>,
}

struct State<T> {
    outcome: Option<Outcome<T>>,
    waker: Option<Waker>,
}

struct Answer<T>(Arc<Mutex<State<T>>>);

impl<T> Future for Answer<T> {
    type Output = Outcome<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Helper {
    pub(super) fn new(name: String) -> Helper {
        Helper {
            name,
            jobs: OnceCell::new(),
        }
    }

    fn jobs(&self) -> io::Result<&Sender<Job>> {
        if let Some(jobs) = self.jobs.get() {
            return Ok(jobs);
        }
        let (sender, receiver) = channel::<Job>();
        Builder::new().name(self.name.clone()).spawn(move || {
            crate::executor::leave_shard_cpu();
            while let Ok(job) = receiver.recv() {
                job();
            }
        })?;
        Ok(self.jobs.get_or_init(|| sender))
    }

    /// Runs `work` on the thread, after everything asked for earlier.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let state = Arc::new(Mutex::new(State {
            outcome: None,
            waker: None,
        }));
        let answer = Answer(Arc::clone(&state));
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.outcome = Some(outcome);
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        if self.jobs()?.send(job).is_err() {
            return Err(io::Error::other("the shard's helper thread is gone"));
        }
        answer.await.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
