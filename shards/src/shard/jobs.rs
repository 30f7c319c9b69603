//! What one shard's partitions want done to their files, and what happened there.
//!
//! State only. Owns the way of a job from its partition to the driver and back, and of what it
//! changed to whoever waits for that.

use chronik_io::World;
use chronik_partition::{JobDone, PartitionEvent, Shared};
use chronik_terms::PartitionId;

use super::timers::Timer;
use super::{Effect, Shard, Slot};

impl<W: World, R> Shard<W, R> {
    /// Starts whatever a partition wants done, and notes when it wants to be asked again.
    pub(super) fn collect_jobs(&mut self, id: PartitionId) {
        let Some(Slot::Online(partition)) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.take_jobs(&mut self.out.jobs);
        self.meters.jobs.add(self.out.jobs.len() as u64);
        self.out
            .effects
            .extend(self.out.jobs.drain(..).map(Effect::Job));
        let lingers = partition.begins_to_linger();
        let (due_ns, chore_ns) = (partition.next_timer_ns(), partition.next_retention_ns());
        let clean_ns = partition.next_cleaning_ns();
        self.time_partition(id, due_ns);
        self.time_chore(id, chore_ns);
        self.time_cleaning(id, clean_ns);
        if lingers {
            self.linger(id);
        }
    }

    /// A partition's timer is moved when it is wanted sooner, and set again whenever it fires; an
    /// early call does nothing.
    fn time_partition(&mut self, id: PartitionId, due_ns: Option<u64>) {
        let Some(due_ns) = due_ns else { return };
        match self.waiting.timed_partitions.get(&id) {
            Some(set) if set.deadline_ns() <= due_ns => return,
            Some(set) => self.waiting.timers.cancel(*set),
            None => {}
        }
        let key = self.waiting.timers.add(due_ns, Timer::Partition(id));
        self.waiting.timed_partitions.insert(id, key);
    }

    pub(super) fn job_done(&mut self, done: JobDone<W>) {
        let (id, now) = (done.partition(), self.now());
        match self.partitions.get_mut(&id) {
            Some(Slot::Online(partition)) => {
                let mut events = std::mem::take(&mut self.out.events);
                let mut shared = Shared {
                    cache: &mut self.cache,
                    write_behind: &mut self.write_behind,
                    events: &mut events,
                };
                partition.complete(&mut shared, done, now);
                for event in events.drain(..) {
                    self.on_event(id, event);
                }
                self.out.events = events;
                self.collect_jobs(id);
                self.search_what_is_written(id);
                self.chores_done(id);
                self.cleaning_done(id);
                self.remember_progress(id);
                self.flush_notes();
                self.move_goes_on(id);
                self.close_when_idle();
            }
            Some(Slot::Draining(partition)) => {
                // Whoever waited for these events has been answered.
                let mut shared = Shared {
                    cache: &mut self.cache,
                    write_behind: &mut self.write_behind,
                    events: &mut Vec::new(),
                };
                partition.complete(&mut shared, done, now);
                self.remove_when_idle(id);
            }
            _ => {}
        }
    }

    pub(super) fn on_event(&mut self, id: PartitionId, event: PartitionEvent) {
        match event {
            PartitionEvent::Acked { waiter, result } => self.acked(id, waiter, result),
            PartitionEvent::HighWatermark { .. } => self.wake_readers(id),
            PartitionEvent::RecoveryPoint(offset) => {
                self.note(id, crate::internal::OffsetChange::RecoveryPoint(offset));
            }
            PartitionEvent::LogStart(offset) => {
                self.note(id, crate::internal::OffsetChange::LogStart(offset));
                self.wake_readers(id);
            }
            PartitionEvent::Cleaned(offset) => {
                self.note(id, crate::internal::OffsetChange::Cleaned(offset));
            }
            PartitionEvent::Failed { error } => {
                self.meters.logs_failed.add(1);
                tracing::error!(topic = %id.topic_id, partition = id.index, %error, "log offline");
                self.wake_all_readers(id);
            }
        }
    }
}
