//! Appends to `__consumer_offsets`: what waits for them, and what becomes of a state whose append
//! failed.

use chronik_catalog::Image;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::CheckedBatch;

use super::super::deadlines::{DeadlineWishes, GroupTimer};
use super::super::outcome::{Outcome, Then};
use super::super::placement::OFFSETS_TOPIC;
use super::super::records::pack;
use super::{Coordinator, CoordinatorEffect, Env, Status};

/// The longest wait before a partition is read again after failed writes, ms.
const RELOAD_DELAY_MS_MAX: u64 = 30_000;

/// An append that is not confirmed yet.
pub(super) struct Write {
    id: u64,
    done: bool,
    /// What happens when it and all before it are.
    pub(super) after: Vec<After>,
}

pub(super) enum After {
    Then(Then),
    /// Part of a reply over several partitions.
    Gather(usize),
}

/// The error a caller gets for an append's (`CoordinatorOperationExceptionHelper`).
fn coordinator_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        other => other,
    }
}

impl<R> Coordinator<R> {
    /// Writes what a step left behind, and lets its reply wait for it; says whether it could be
    /// written.
    pub(super) fn write(
        &mut self,
        env: &mut Env<'_>,
        partition: i32,
        outcome: Outcome,
        timers: DeadlineWishes,
    ) -> bool {
        let Outcome {
            records,
            replay,
            atomic,
            then,
        } = outcome;
        if records.is_empty() {
            timers.fulfil(partition, &mut self.deadlines);
            self.after_writes(env, partition, then);
            return true;
        }
        let max_bytes = batch_bytes_max(env.image);
        let batches = match pack(&records, atomic, max_bytes, env.now.wall_ms) {
            Ok(batches) => batches,
            Err(error) => {
                tracing::error!(partition, %error, "group records refused");
                if !replay {
                    // The state has changed already; what the step left behind undoes it, or lives
                    // with it.
                    timers.fulfil(partition, &mut self.deadlines);
                }
                self.run(env, partition, |state, step| {
                    state.written(step, then, Err(ErrorCode::UnknownServerError))
                });
                return false;
            }
        };
        timers.fulfil(partition, &mut self.deadlines);
        let Some(entry) = self.entries.get_mut(&partition) else {
            return true;
        };
        if replay {
            for record in &records {
                entry.state.replay(record, env.now.wall_ms);
            }
            for (token, reply) in entry.state.take_evicted() {
                self.answer(token, reply);
            }
        }
        self.append(partition, batches);
        self.after_writes(env, partition, then);
        true
    }

    fn append(&mut self, partition: i32, batches: Vec<CheckedBatch>) {
        let Some(entry) = self.entries.get_mut(&partition) else {
            return;
        };
        for batch in batches {
            let write = self.next_write;
            self.next_write = self.next_write.wrapping_add(1);
            entry.outstanding += 1;
            entry.writes.push_back(Write {
                id: write,
                done: false,
                after: Vec::new(),
            });
            self.effects.push(CoordinatorEffect::Append {
                partition,
                batch,
                write,
            });
        }
    }

    /// Lets something wait for the last write of a partition; without one it happens now.
    fn after_writes(&mut self, env: &mut Env<'_>, partition: i32, then: Then) {
        if matches!(then, Then::Nothing) {
            return;
        }
        let entry = self.entries.get_mut(&partition);
        match entry.and_then(|entry| entry.writes.back_mut()) {
            Some(write) => write.after.push(After::Then(then)),
            None => {
                self.run(env, partition, |state, step| {
                    state.written(step, then, Ok(()))
                });
            }
        }
    }

    /// The result of an append.
    pub fn appended(
        &mut self,
        env: &mut Env<'_>,
        partition: i32,
        write: u64,
        result: Result<(), ErrorCode>,
    ) {
        let Some(entry) = self.entries.get_mut(&partition) else {
            return;
        };
        if write < entry.since {
            return;
        }
        entry.outstanding = entry.outstanding.saturating_sub(1);
        let place = entry.writes.iter().position(|other| other.id == write);
        let Some(place) = place else {
            // Of a state that was dropped.
            return self.reload_when_drained(env, partition);
        };
        if let Err(error) = result {
            tracing::error!(partition, ?error, "group records were not written");
            self.fail(partition, coordinator_error(error));
            return self.reload_when_drained(env, partition);
        }
        entry.failures = 0;
        if let Some(write) = entry.writes.get_mut(place) {
            write.done = true;
        }
        let mut after = Vec::new();
        while entry.writes.front().is_some_and(|write| write.done) {
            let done = entry.writes.pop_front();
            after.extend(done.into_iter().flat_map(|write| write.after));
        }
        for after in after {
            match after {
                After::Then(then) => {
                    self.run(env, partition, |state, step| {
                        state.written(step, then, Ok(()))
                    });
                }
                After::Gather(key) => self.gathered(key, None),
            }
        }
    }

    /// A partition's state is ahead of its log for good: it is dropped, whoever waits is told, and
    /// the log is read again when nothing is on its way to it any more
    /// ([`Coordinator::reload_when_drained`] is the only way back, so it follows each call).
    fn fail(&mut self, partition: i32, error: ErrorCode) {
        self.drop_state(partition, error);
        if let Some(entry) = self.entries.get_mut(&partition) {
            entry.status = Status::Draining;
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// Drops a partition's state; everybody who waits for it is refused.
    pub(super) fn drop_state(&mut self, partition: i32, error: ErrorCode) {
        let Some(entry) = self.entries.get_mut(&partition) else {
            return;
        };
        let mut state = std::mem::take(&mut entry.state);
        let writes = std::mem::take(&mut entry.writes);
        for after in writes.into_iter().flat_map(|write| write.after) {
            self.refuse(after, error);
        }
        for (token, reply) in state.refuse_waiting(error) {
            self.answer(token, reply);
        }
        self.deadlines.cancel_all(partition);
        self.sweeps.retain(|sweep| sweep.partition != partition);
    }

    fn refuse(&mut self, after: After, error: ErrorCode) {
        match after {
            After::Then(Then::Reply(token, reply)) => self.answer(token, reply.spoiled(error)),
            // Their callers are parked in the group.
            After::Then(
                Then::Nothing
                | Then::Assigned { .. }
                | Then::Replaced { .. }
                | Then::Created { .. },
            ) => {}
            After::Gather(key) => self.gathered(key, Some(error)),
        }
    }

    /// Reads a partition again once its writes have all come back: at first at once, then ever
    /// more rarely while they fail.
    fn reload_when_drained(&mut self, env: &Env<'_>, partition: i32) {
        let Some(entry) = self.entries.get(&partition) else {
            return;
        };
        if entry.status != Status::Draining || entry.outstanding > 0 {
            return;
        }
        self.reopen_later(env, partition);
    }

    /// Asks for a partition again, at first at once, then ever more rarely while that fails.
    pub(super) fn reopen_later(&mut self, env: &Env<'_>, partition: i32) {
        let failures = self.entries.get(&partition).map_or(0, |e| e.failures);
        let doublings = failures.saturating_sub(1);
        if doublings == 0 {
            return self.effects.push(CoordinatorEffect::Reopen { partition });
        }
        let delay_ms = 500u64
            .checked_shl(doublings)
            .map_or(RELOAD_DELAY_MS_MAX, |ms| ms.min(RELOAD_DELAY_MS_MAX));
        let due_ns = env.now.mono_ns.saturating_add(delay_ms * 1_000_000);
        self.deadlines
            .schedule(partition, GroupTimer::Reload, due_ns);
    }
}

/// The largest batch the topic takes.
pub(super) fn batch_bytes_max(image: &Image) -> usize {
    let topic = image.topic(OFFSETS_TOPIC);
    let bytes = topic.map_or(1_048_588, |topic| {
        topic
            .config
            .max_message_bytes
            .min(topic.config.segment_bytes)
    });
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
