//! Helper threads of a shard, for system calls that block and have no io_uring form.
//!
//! Owns one thread per helper, started by its first job, asleep without any. Jobs are queued by key (a partition,
//! say); the queues take turns, and each keeps its order, so that a long queue does not delay the others. A panic
//! in a job reaches its caller; the thread lives on. glommio's own pool is not used: there the caller of a job
//! that panics waits for ever.

use std::any::Any;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Builder;

type Job = Box<dyn FnOnce() + Send>;
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// One helper thread. Dropping it lets the thread finish its jobs and end.
pub(super) struct Helper {
    name: String,
    is_started: Cell<bool>,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    grown: Condvar,
}

/// Waiting jobs.
#[derive(Default)]
struct Jobs {
    /// Queues by key; none is empty.
    of: HashMap<u64, VecDeque<Job>>,
    /// Keys in the order of their turns.
    turns: VecDeque<u64>,
    ended: bool,
}

impl Jobs {
    fn push(&mut self, of: u64, job: Job) {
        let jobs = self.of.entry(of).or_default();
        if jobs.is_empty() {
            self.turns.push_back(of);
        }
        jobs.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let of = self.turns.pop_front()?;
        let jobs = self.of.get_mut(&of)?;
        let job = jobs.pop_front();
        match jobs.is_empty() {
            true => drop(self.of.remove(&of)),
            false => self.turns.push_back(of),
        }
        job
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` once the helper is dropped and its jobs are done.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.pop() {
                return Some(job);
            }
            if jobs.ended {
                return None;
            }
            jobs = self
                .grown
                .wait(jobs)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
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
            is_started: Cell::new(false),
            queue: Arc::default(),
        }
    }

    fn start(&self) -> io::Result<()> {
        if !self.is_started.get() {
            let queue = Arc::clone(&self.queue);
            Builder::new().name(self.name.clone()).spawn(move || {
                crate::cpus::leave_shard_cpu();
                while let Some(job) = queue.next() {
                    job();
                }
            })?;
            self.is_started.set(true);
        }
        Ok(())
    }

    /// Runs `work` on the thread, after all earlier jobs without a key.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run_for(0, work).await
    }

    /// Runs `work` on the thread, after all earlier jobs of `of` and in turns with other keys.
    pub(super) async fn run_for<T: Send + 'static>(
        &self,
        of: u64,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.start()?;
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
        self.queue.lock().push(of, job);
        self.queue.grown.notify_one();
        answer.await.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.grown.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Jobs};
    use std::sync::{Arc, Mutex};

    /// A queue of a thousand jobs takes turns with the others, and each keeps its order.
    #[test]
    fn those_with_many_jobs_take_turns_with_those_with_few() {
        let done: Arc<Mutex<Vec<(u64, u32)>>> = Arc::default();
        let mut jobs = Jobs::default();
        let job = |of: u64, number: u32| -> Job {
            let done = Arc::clone(&done);
            Box::new(move || done.lock().unwrap().push((of, number)))
        };
        (0..1_000).for_each(|number| jobs.push(1, job(1, number)));
        (0..3).for_each(|number| jobs.push(2, job(2, number)));
        jobs.push(3, job(3, 0));
        while let Some(job) = jobs.pop() {
            job();
        }
        assert!(jobs.of.is_empty() && jobs.turns.is_empty());
        let done = done.lock().unwrap();
        assert_eq!(done[..6], [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2)]);
        let first = done
            .iter()
            .filter(|(of, _)| *of == 1)
            .map(|(_, number)| *number);
        assert!(first.eq(0..1_000));
    }
}
