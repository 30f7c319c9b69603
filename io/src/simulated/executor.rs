//! A deterministic executor with virtual time: one thread, tasks picked by the seed.
//!
//! Owns the tasks, the run queue and the timers of a simulation. Time stands still while a task can run and then
//! jumps to the next timer. Never sleeps, never reads a real clock.

use super::random::Random;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The task that `Simulation::run` drives; all others were spawned.
pub(super) const MAIN: usize = usize::MAX;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type RunQueue = Arc<Mutex<Vec<usize>>>;

struct TaskWaker {
    id: usize,
    queue: RunQueue,
    queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.id);
        }
    }
}

struct Entry {
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

/// Tasks, run queue and timers.
pub(super) struct Executor {
    tasks: RefCell<BTreeMap<usize, Entry>>,
    next_task: Cell<usize>,
    queue: RunQueue,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    next_timer: Cell<u64>,
    now_ns: Cell<u64>,
}

/// The result of one step.
pub(super) enum Step {
    Ran,
    /// The main task is to be polled by its driver.
    Main,
    /// Time moved to the next timer.
    Waited,
    /// No task can run and no timer is set (within the limit).
    Nothing,
}

impl Executor {
    pub(super) fn new(now_ns: u64) -> Executor {
        Executor {
            tasks: RefCell::new(BTreeMap::new()),
            next_task: Cell::new(0),
            queue: Arc::new(Mutex::new(Vec::new())),
            timers: RefCell::new(BTreeMap::new()),
            next_timer: Cell::new(0),
            now_ns: Cell::new(now_ns),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn new_waker(&self, id: usize) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            queue: Arc::clone(&self.queue),
            queued: AtomicBool::new(false),
        })
    }

    /// A waker for the main task, queued at once.
    pub(super) fn main_waker(&self) -> MainWaker {
        let waker = self.new_waker(MAIN);
        waker.wake_by_ref();
        MainWaker(waker)
    }

    pub(super) fn spawn(&self, task: Task) {
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        let waker = self.new_waker(id);
        self.tasks.borrow_mut().insert(
            id,
            Entry {
                task: Some(task),
                waker: Arc::clone(&waker),
            },
        );
        waker.wake_by_ref();
    }

    /// Runs one task chosen by the seed, or moves time to the next timer not after `until_ns`.
    pub(super) fn step(&self, random: &RefCell<Random>, until_ns: u64) -> Step {
        let picked = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.len() {
                0 => None,
                len => Some(queue.swap_remove(random.borrow_mut().index(len))),
            }
        };
        match picked {
            Some(MAIN) => Step::Main,
            Some(id) => {
                self.poll(id);
                Step::Ran
            }
            None => self.wait(until_ns),
        }
    }

    fn poll(&self, id: usize) {
        let (task, waker) = match self.tasks.borrow_mut().get_mut(&id) {
            Some(entry) => (entry.task.take(), Arc::clone(&entry.waker)),
            None => return, // Ended; this was a stale wake-up.
        };
        let Some(mut task) = task else { return };
        waker.queued.store(false, Ordering::SeqCst);
        let polled = task
            .as_mut()
            .poll(&mut Context::from_waker(&Waker::from(waker)));
        match polled {
            Poll::Ready(()) => {
                let ended = self.tasks.borrow_mut().remove(&id);
                drop(ended);
            }
            Poll::Pending => {
                if let Some(entry) = self.tasks.borrow_mut().get_mut(&id) {
                    entry.task = Some(task);
                }
            }
        }
    }

    fn wait(&self, until_ns: u64) -> Step {
        let first = self.timers.borrow().keys().next().copied();
        match first {
            Some((deadline_ns, _)) if deadline_ns <= until_ns => {
                self.now_ns.set(self.now_ns.get().max(deadline_ns));
                loop {
                    let mut timers = self.timers.borrow_mut();
                    let Some(entry) = timers.first_entry() else {
                        break;
                    };
                    if entry.key().0 > deadline_ns {
                        break;
                    }
                    let waker = entry.remove();
                    drop(timers);
                    waker.wake();
                }
                Step::Waited
            }
            _ => Step::Nothing,
        }
    }

    /// Moves time forward to `now_ns`; earlier timers have fired.
    pub(super) fn set_now(&self, now_ns: u64) {
        self.now_ns.set(self.now_ns.get().max(now_ns));
    }

    /// Drops every task, and those spawned or woken by their drop code: the process is gone.
    pub(super) fn clear(&self) {
        loop {
            let first = self.tasks.borrow_mut().pop_first();
            let Some((_, entry)) = first else { break };
            drop(entry);
        }
        self.timers.borrow_mut().clear();
    }
}

/// The main task's waker, with its queued mark.
pub(super) struct MainWaker(Arc<TaskWaker>);

impl MainWaker {
    /// Call before a poll: later wake-ups queue the task again.
    pub(super) fn start_poll(&self) -> Waker {
        self.0.queued.store(false, Ordering::SeqCst);
        Waker::from(Arc::clone(&self.0))
    }
}

impl Drop for MainWaker {
    fn drop(&mut self) {
        self.0.queued.store(true, Ordering::SeqCst); // No stale wake-up queues it again,
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain(|id| *id != MAIN); // and none is left.
    }
}

/// A sleep in virtual time.
pub struct Sleep {
    executor: Rc<super::Core>,
    deadline_ns: u64,
    key: Option<(u64, u64)>,
}

impl Sleep {
    pub(super) fn new(executor: Rc<super::Core>, deadline_ns: u64) -> Sleep {
        Sleep {
            executor,
            deadline_ns,
            key: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let core = Rc::clone(&self.executor);
        let executor = &core.executor;
        if executor.now_ns() >= self.deadline_ns {
            return Poll::Ready(());
        }
        let deadline_ns = self.deadline_ns;
        let key = *self.key.get_or_insert_with(|| {
            let sequence = executor.next_timer.get();
            executor.next_timer.set(sequence + 1);
            (deadline_ns, sequence)
        });
        executor
            .timers
            .borrow_mut()
            .insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.executor.executor.timers.borrow_mut().remove(&key);
        }
    }
}
