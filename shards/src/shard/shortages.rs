//! Logs that could not be opened for want of space, of a descriptor or of memory.
//!
//! State only. Each is tried again by a deadline, ever more rarely, and sooner when a request asks for
//! it; until then it is refused with KAFKA_STORAGE_ERROR, which clients try again.

use std::path::PathBuf;
use std::sync::Arc;

use chronik_io::World;
use chronik_log::LogError;
use chronik_partition::backoff;
use chronik_terms::PartitionId;

use super::apply::{OpenTask, Opened};
use super::timers::{Timer, TimerKey};
use super::{Effect, Shard, Slot};

/// Between two tries that requests ask for, at least, ns.
const ASKED_PAUSE_NS: u64 = 1_000_000_000;

/// A log that waits to be opened.
pub(super) struct Waiting {
    task: Box<OpenTask>,
    failures: u32,
    tried_ns: u64,
    timer: TimerKey,
}

impl Waiting {
    /// Whether the topic is new and its log was never open: what a try has left of it is looked through
    /// when it is opened, for no checkpoint knows it.
    pub(super) fn is_new(&self) -> bool {
        self.task.boot.is_none() && self.task.placing.is_none()
    }
}

/// How many logs wait to be opened: it is said when the first does and when the last no longer does, not of
/// each of thousands.
#[derive(Default)]
pub(super) struct NotOpened {
    waiting: usize,
    /// Logs that have waited since the first did.
    all: usize,
}

impl NotOpened {
    /// Another log waits; true for the first.
    fn begin(&mut self) -> bool {
        self.waiting += 1;
        self.all += 1;
        self.waiting == 1
    }

    /// A log waits no longer; with the last, how many have.
    fn end(&mut self) -> Option<usize> {
        self.waiting = self.waiting.saturating_sub(1);
        (self.waiting == 0).then(|| std::mem::take(&mut self.all))
    }
}

/// What is to become of a log that is being opened again.
pub(super) struct Reopening {
    failures: u32,
    /// Nobody has tried it before: its topic is new.
    is_first: bool,
    /// Its topic was deleted meanwhile: the directory to be removed, where it can be reached.
    removal: Option<Option<PathBuf>>,
}

impl Reopening {
    /// The first try of a new topic's log.
    pub(super) fn first() -> Self {
        Reopening {
            failures: 0,
            is_first: true,
            removal: None,
        }
    }

    /// Whether it is the first try, which may end well in a moment.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }
}

impl<W: World, R> Shard<W, R> {
    /// Something was too short to open a log.
    pub(super) fn open_later(
        &mut self,
        id: PartitionId,
        (error, task): (LogError, Box<OpenTask>),
        failures: u32,
    ) {
        if failures == 1 && self.waiting.not_opened.begin() {
            let (shard, topic) = (self.index, &task.options.topic);
            tracing::warn!(shard, %topic, partition = id.index, %error, "a log is not opened yet, and others may not be");
        }
        let tried_ns = self.now().mono_ns;
        let timer = self
            .waiting
            .timers
            .add(backoff::due_ns(tried_ns, failures), Timer::Reopen(id));
        let waiting = Waiting {
            task,
            failures,
            tried_ns,
            timer,
        };
        self.partitions.insert(id, Slot::Waiting(waiting));
    }

    /// A request wants a partition that is not online.
    pub(super) fn wanted(&mut self, id: PartitionId) {
        let now_ns = self.now().mono_ns;
        if let Some(Slot::Waiting(waiting)) = self.partitions.get(&id)
            && now_ns.saturating_sub(waiting.tried_ns) >= ASKED_PAUSE_NS
        {
            self.reopen(id);
        }
    }

    /// Tries to open a log that waits, as the catalogue has it by now.
    pub(super) fn reopen(&mut self, id: PartitionId) {
        if self.stopping.is_some() {
            return;
        }
        match self.partitions.remove(&id) {
            Some(Slot::Waiting(Waiting {
                mut task,
                failures,
                timer,
                ..
            })) => {
                self.waiting.timers.cancel(timer);
                let topic = self.image.topic_by_id(id.topic_id);
                if let Some(topic) = topic {
                    task.options.config = Arc::clone(&topic.config);
                }
                let reopening = Reopening {
                    failures,
                    is_first: false,
                    removal: None,
                };
                self.partitions.insert(id, Slot::Reopening(reopening));
                self.out.effects.push(Effect::Open(task));
            }
            Some(other) => {
                self.partitions.insert(id, other);
            }
            None => {}
        }
    }

    /// A log was tried; no image waits for it.
    pub(super) fn reopened(&mut self, id: PartitionId, opened: Opened<W>, reopening: Reopening) {
        let Reopening {
            failures,
            is_first,
            removal,
        } = reopening;
        match opened {
            Ok(partition) => {
                if !is_first {
                    self.waits_no_longer();
                }
                self.online_now(id, partition);
            }
            Err((error, task)) if error.is_not_now() => {
                self.open_later(id, (error, task), failures.saturating_add(1));
            }
            Err((error, _)) => {
                if !is_first {
                    self.waits_no_longer();
                }
                self.offline(id, &error);
            }
        }
        match removal {
            Some(directory) => self.remove(id, directory),
            None => {
                self.collect_jobs(id);
                self.group_partition_opened(id);
            }
        }
        if is_first {
            self.new_opened(id);
        }
        self.flush_notes();
        self.close_when_idle();
    }

    fn waits_no_longer(&mut self) {
        if let Some(logs) = self.waiting.not_opened.end() {
            let shard = self.index;
            tracing::info!(shard, logs, "no log waits to be opened any more");
        }
    }

    /// The topic of a log that is not there is deleted. Gives the directory back that is to be removed,
    /// if it can be reached; nothing while an opening is waited for.
    pub(super) fn forget_waiting(
        &mut self,
        id: PartitionId,
        directory: Option<PathBuf>,
    ) -> Option<Option<PathBuf>> {
        match self.partitions.get_mut(&id) {
            Some(Slot::Waiting(waiting)) => {
                let (timer, placing) = (waiting.timer, waiting.task.placing.take());
                self.waiting.timers.cancel(timer);
                self.waits_no_longer();
                let Some(placing) = placing else {
                    return Some(directory);
                };
                let (left, future) = placing.left();
                if let Some(future) = future {
                    self.discard_future(future.to_owned());
                }
                let left = left.to_owned();
                placing.clear(&self.world);
                Some(Some(left))
            }
            Some(Slot::Reopening(reopening)) => {
                reopening.removal = Some(directory);
                None
            }
            _ => Some(directory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NotOpened;

    #[test]
    fn many_logs_are_spoken_of_twice() {
        let mut not_opened = NotOpened::default();
        let begun = (0..1_000).filter(|_| not_opened.begin()).count();
        assert_eq!(begun, 1);
        let ended: Vec<usize> = (0..1_000).filter_map(|_| not_opened.end()).collect();
        assert_eq!(ended, [1_000]);
        assert!(not_opened.begin());
        assert_eq!(not_opened.end(), Some(1));
    }
}
