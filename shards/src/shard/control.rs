//! Changes of the catalogue on the designated shard, one at a time: judged beside it, appended to the
//! metadata log, published once durable, answered once every shard has applied them.
//!
//! State only. Owns the order of changes and when a snapshot is due; what a change may be is the
//! controller's to say.

use std::collections::VecDeque;
use std::sync::Arc;

use chronik_catalog::batches::atomic_batch;
use chronik_catalog::snapshot::SnapshotId;
use chronik_catalog::versions::MetadataVersion;
use chronik_catalog::{
    ApiError, Change, Controller, ControllerReply, ControllerRequest, Image, Judged, Judging,
};
use chronik_io::{World, is_not_now};
use chronik_partition::AppendOutcome;
use chronik_partition::backoff;
use chronik_protocol::{ErrorCode, Uuid};
use chronik_terms::{
    Acks, AppendPart, AppendResult, DeleteRecordsPart, METADATA_PARTITION, PartitionId, Waiter,
};

use super::leftovers::Leftovers;
use super::timers::Timer;
use super::{CatalogueEffect, Effect, Shard, Slot};
use crate::internal::Leftover;
use crate::limits::{CONTROL_QUEUE_LEN_MAX, METADATA_SNAPSHOT_AFTER_BYTES};
use crate::metadata_log::SnapshotError;
use crate::request::Reply;

enum Item<R> {
    Change(ControllerRequest, R),
    /// What was under way is done; nothing comes after it.
    Stop(R),
}

/// A change between decision and answer.
struct Current<R> {
    responder: R,
    reply: ControllerReply,
    /// Until it is published.
    next: Option<Image>,
    records: i64,
    timestamp_ms: i64,
    bytes: u64,
    /// The partition whose directory it changes.
    moves: Option<PartitionId>,
}

/// See the module's text.
pub(crate) struct Control<R> {
    controller: Controller,
    queue: VecDeque<Item<R>>,
    /// A stop is in the queue.
    stops: bool,
    /// Who asked for the change that is being judged; none is under way meanwhile, nor begins.
    judging: Option<R>,
    current: Option<Current<R>>,
    /// Offsets of deleted topics are being taken out of the checkpoint files.
    waits_for_checkpoints: bool,
    /// That was tried for the change that is next.
    has_waited: bool,
    /// Bytes of log that the newest snapshot does not cover.
    uncovered_bytes: u64,
    snapshot_under_way: bool,
    /// Snapshots in a row that something was too short for; the next is tried by a deadline.
    snapshot_failures: u32,
    /// That deadline is set.
    snapshot_waits: bool,
    pub(super) leftovers: Leftovers,
    /// They were tried for the change that is next.
    has_cleared: bool,
}

impl<R> Control<R> {
    pub(crate) fn new(uncovered_bytes: u64) -> Self {
        Control {
            controller: Controller::default(),
            queue: VecDeque::new(),
            stops: false,
            judging: None,
            current: None,
            waits_for_checkpoints: false,
            has_waited: false,
            uncovered_bytes,
            snapshot_under_way: false,
            snapshot_failures: 0,
            snapshot_waits: false,
            leftovers: Leftovers::default(),
            has_cleared: false,
        }
    }

    /// Whether directories of deleted topics are to be tried before what is next; once.
    fn may_clear(&mut self) -> bool {
        !self.leftovers.is_empty() && !std::mem::replace(&mut self.has_cleared, true)
    }
}

impl<W: World, R> Shard<W, R> {
    pub(super) fn control(&mut self, request: ControllerRequest, responder: R) {
        let refusal = match &self.designated.control {
            None => Some((
                ErrorCode::NotController,
                "the catalogue is on another shard",
            )),
            Some(control) if control.stops || self.stopping.is_some() => {
                Some((ErrorCode::NotController, "the broker stops"))
            }
            Some(control) if control.queue.len() >= CONTROL_QUEUE_LEN_MAX => Some((
                ErrorCode::ThrottlingQuotaExceeded,
                "too many changes are waiting",
            )),
            Some(_) => None,
        };
        match (refusal, &mut self.designated.control) {
            (None, Some(control)) => {
                control.queue.push_back(Item::Change(request, responder));
                self.run_control();
            }
            (refusal, _) => {
                let (code, why) = refusal.unwrap_or((ErrorCode::NotController, ""));
                let reply = request.refused(&ApiError::new(code, why));
                self.reply(responder, Reply::Control(reply));
            }
        }
    }

    /// Stops the broker after the change that is under way. Those that wait are refused, as all that come:
    /// thousands may, and whoever stops the broker does not.
    pub(super) fn stop_all(&mut self, responder: R) {
        let Some(control) = &mut self.designated.control else {
            return self.close_all(responder);
        };
        control.stops = true;
        let waiting = std::mem::take(&mut control.queue);
        let mut stops = VecDeque::new();
        for item in waiting {
            match item {
                Item::Change(request, responder) => self.refuse_stopping(&request, responder),
                stop @ Item::Stop(_) => stops.push_back(stop),
            }
        }
        stops.push_back(Item::Stop(responder));
        if let Some(control) = &mut self.designated.control {
            control.queue = stops;
        }
        self.run_control();
    }

    fn refuse_stopping(&mut self, request: &ControllerRequest, responder: R) {
        let error = ApiError::new(ErrorCode::NotController, "the broker stops");
        self.reply(responder, Reply::Control(request.refused(&error)));
    }

    pub(super) fn run_control(&mut self) {
        loop {
            let Some(control) = &mut self.designated.control else {
                return;
            };
            let waits = control.waits_for_checkpoints || control.snapshot_under_way;
            if control.judging.is_some()
                || control.current.is_some()
                || waits
                || control.leftovers.is_renaming()
            {
                return;
            }
            if self.begin_due_leftovers() {
                return;
            }
            let Some(control) = &mut self.designated.control else {
                return;
            };
            match control.queue.pop_front() {
                Some(Item::Change(request, responder)) => self.decide(request, responder),
                Some(stop @ Item::Stop(_)) if control.may_clear() => {
                    // The next start would take what is left for somebody else's.
                    control.queue.push_front(stop);
                    return self.rename_leftovers();
                }
                Some(Item::Stop(responder)) => {
                    let image = Arc::clone(&self.image);
                    // Whatever comes after finds no control and is refused.
                    self.designated.control = None;
                    self.out
                        .effects
                        .push(Effect::Catalogue(CatalogueEffect::StopAll(
                            responder, image,
                        )));
                    return;
                }
                None => return,
            }
        }
    }

    fn decide(&mut self, request: ControllerRequest, responder: R) {
        if let ControllerRequest::AllocateProducerId = request {
            return self.allocate_producer_id(responder);
        }
        let (image, now_ms, world) = (
            Arc::clone(&self.image),
            self.now().wall_ms,
            self.world.clone(),
        );
        if let Some(control) = &mut self.designated.control {
            control.judging = Some(responder);
            let judging = Judging::new(image, request, now_ms, || world.random_u128());
            self.out
                .effects
                .push(Effect::Catalogue(CatalogueEffect::Judge(Box::new(judging))));
        }
    }

    /// The next id, mostly of a block that is there.
    fn allocate_producer_id(&mut self, responder: R) {
        let now_ms = self.now().wall_ms;
        let Some(control) = &mut self.designated.control else {
            return;
        };
        (control.has_waited, control.has_cleared) = (false, false);
        let refused = |code, why: String| {
            Reply::Control(ControllerReply::ProducerId(Err(ApiError::new(code, why))))
        };
        let decision = match control.controller.allocate_producer_id(&self.image) {
            Ok(decision) => decision,
            Err(error) => {
                let reply = refused(ErrorCode::UnknownServerError, error.to_string());
                return self.reply(responder, reply);
            }
        };
        let Some(next) = decision.next else {
            return self.reply(responder, Reply::Control(decision.reply));
        };
        let version = MetadataVersion::of(&self.image.features);
        match atomic_batch(version, &decision.records, now_ms) {
            Ok(batch) => {
                let change = Change {
                    next,
                    batch,
                    moves: None,
                };
                self.append_change(change, decision.reply, responder);
            }
            Err(error) => {
                control.controller.forget_producer_ids();
                let reply = refused(ErrorCode::PolicyViolation, error.to_string());
                self.reply(responder, reply);
            }
        }
    }

    /// What is to become of the change that was judged.
    pub(super) fn judged(&mut self, judged: Judged) {
        let Some(control) = &mut self.designated.control else {
            return;
        };
        let has_waited = std::mem::take(&mut control.has_waited);
        let has_cleared = std::mem::take(&mut control.has_cleared);
        let Some(responder) = control.judging.take() else {
            return;
        };
        let Judged {
            reply,
            change,
            again,
        } = judged;
        match (change, again) {
            (None, _) => self.reply(responder, Reply::Control(reply)),
            (Some(change), Some(request)) if self.is_blocked(&change.next) => {
                self.wait_for_leftovers(request, has_cleared, responder);
            }
            (Some(change), Some(request)) if self.is_misled(&change.next) => {
                self.wait_for_checkpoints(request, has_waited, responder);
            }
            (Some(change), _) => self.append_change(change, reply, responder),
        }
        self.snapshot_if_due();
        self.run_control();
    }

    /// A new partition would take the numbers of one that is gone for its own: they have to be out of
    /// the checkpoint files first. If the disk refuses that, the change is refused, and may be asked
    /// for again.
    fn wait_for_checkpoints(&mut self, request: ControllerRequest, has_waited: bool, responder: R) {
        if has_waited {
            let why =
                "the checkpoint files that speak of a deleted topic of this name cannot be written";
            let error = ApiError::new(ErrorCode::KafkaStorageError, why);
            return self.reply(responder, Reply::Control(request.refused(&error)));
        }
        if let Some(control) = &mut self.designated.control {
            control.queue.push_front(Item::Change(request, responder));
            control.waits_for_checkpoints = true;
        }
        self.bury_dead_numbers();
    }

    fn is_blocked(&self, next: &Image) -> bool {
        let control = self.designated.control.as_ref();
        control.is_some_and(|control| control.leftovers.is_in_the_way_of(next))
    }

    /// As [`Shard::wait_for_checkpoints`], for a directory that is still a deleted topic's.
    fn wait_for_leftovers(&mut self, request: ControllerRequest, has_cleared: bool, responder: R) {
        if has_cleared {
            let why = "the directory of a deleted topic of this name cannot be removed yet";
            let error = ApiError::new(ErrorCode::KafkaStorageError, why);
            return self.reply(responder, Reply::Control(request.refused(&error)));
        }
        if let Some(control) = &mut self.designated.control {
            control.queue.push_front(Item::Change(request, responder));
            control.has_cleared = true;
        }
        self.rename_leftovers();
    }

    /// The checkpoint files were written, or refused.
    pub(super) fn control_goes_on(&mut self) {
        let Some(control) = &mut self.designated.control else {
            return;
        };
        control.waits_for_checkpoints = false;
        if control.current.is_some() {
            return self.finish_change();
        }
        control.has_waited = true;
        self.run_control();
    }

    fn append_change(&mut self, change: Change, reply: ControllerReply, responder: R) {
        let Change { next, batch, moves } = change;
        let now = self.now();
        let Some(control) = &mut self.designated.control else {
            return;
        };
        control.current = Some(Current {
            responder,
            reply,
            next: Some(next),
            records: i64::from(batch.header.last_offset_delta),
            timestamp_ms: batch.header.max_timestamp,
            bytes: batch.bytes.len() as u64,
            moves,
        });
        let part = AppendPart {
            partition: METADATA_PARTITION,
            batch,
        };
        let mut happened = Vec::new();
        let outcome = match self.partitions.get(&METADATA_PARTITION) {
            Some(Slot::Online(_)) => {
                self.append_part(part, (Acks::All, now), Waiter::Catalogue, &mut happened)
            }
            _ => AppendOutcome::Done(AppendResult::failed(ErrorCode::KafkaStorageError, None)),
        };
        debug_assert!(happened.is_empty(), "nothing is decided before its write");
        self.collect_jobs(METADATA_PARTITION);
        if let AppendOutcome::Done(result) = outcome {
            self.control_acked(result);
        }
    }

    /// The records of the current change are durable, or will never be.
    pub(super) fn control_acked(&mut self, result: AppendResult) {
        let Some(control) = &mut self.designated.control else {
            return;
        };
        let Some(mut current) = control.current.take() else {
            return;
        };
        if result.error != ErrorCode::None {
            control.controller.forget_producer_ids();
            let why = result.message.unwrap_or_default();
            tracing::error!(error = ?result.error, %why, "the metadata log refused a change");
            let message = format!("the metadata log refused the change: {why}");
            let error = ApiError::new(ErrorCode::KafkaStorageError, message);
            let reply = current.reply.failed(&error);
            self.reply(current.responder, Reply::Control(reply));
            return self.run_control();
        }
        control.uncovered_bytes += current.bytes;
        let Some(mut image) = current.next.take() else {
            return;
        };
        image.offset = result.base_offset.saturating_add(current.records);
        image.timestamp_ms = current.timestamp_ms;
        let (deleted, moves) = (deleted(&current.reply), current.moves);
        control.current = Some(current);
        let image = Arc::new(image);
        if let Some(id) = moves {
            self.checkpoints_follow_move(id);
        }
        self.checkpoints_follow(&image, &deleted);
        self.out
            .effects
            .push(Effect::Catalogue(CatalogueEffect::PublishToAll(image)));
    }

    /// Every shard has applied the current change.
    pub(super) fn published(&mut self, left: Vec<Leftover>) {
        self.left_over(left);
        let has_dead_numbers = self.has_dead_numbers();
        let Some(control) = &mut self.designated.control else {
            return;
        };
        let deletes = |current: &Current<R>| !deleted(&current.reply).is_empty();
        if has_dead_numbers && control.current.as_ref().is_some_and(deletes) {
            control.waits_for_checkpoints = true;
            return self.bury_dead_numbers();
        }
        self.finish_change();
    }

    fn finish_change(&mut self) {
        let Some(control) = &mut self.designated.control else {
            return;
        };
        if let Some(current) = control.current.take() {
            self.reply(current.responder, Reply::Control(current.reply));
        }
        self.snapshot_if_due();
        self.run_control();
    }

    /// Begins a snapshot when the log has grown enough. No change is made meanwhile, so that no
    /// removed topic is forgotten whose directory is only half removed.
    pub(super) fn snapshot_if_due(&mut self) {
        let Some(control) = &mut self.designated.control else {
            return;
        };
        let busy = control.judging.is_some()
            || control.current.is_some()
            || control.waits_for_checkpoints
            || control.snapshot_under_way
            || control.snapshot_waits
            || !control.leftovers.is_empty();
        if !busy && control.uncovered_bytes >= METADATA_SNAPSHOT_AFTER_BYTES {
            control.snapshot_under_way = true;
            self.out
                .effects
                .push(Effect::Catalogue(CatalogueEffect::WriteSnapshot(
                    Arc::clone(&self.image),
                )));
        }
    }

    pub(super) fn snapshot_written(&mut self, result: Result<SnapshotId, SnapshotError>) {
        let Some(control) = &mut self.designated.control else {
            return;
        };
        control.snapshot_under_way = false;
        match result {
            Ok(id) => {
                (control.uncovered_bytes, control.snapshot_failures) = (0, 0);
                self.let_log_go(id.end_offset);
                self.out
                    .effects
                    .push(Effect::Catalogue(CatalogueEffect::RemoveSnapshotsBelow(id)));
            }
            Err(SnapshotError::Io(error)) if is_not_now(&error) => {
                // The log still has everything, and is longer than it need be.
                if control.snapshot_failures == 0 {
                    tracing::warn!(%error, "metadata snapshot not written yet");
                }
                control.snapshot_failures = control.snapshot_failures.saturating_add(1);
                control.snapshot_waits = true;
                let failures = control.snapshot_failures;
                let due_ns = backoff::due_ns(self.now().mono_ns, failures);
                self.waiting.timers.add(due_ns, Timer::Snapshot);
            }
            Err(error) => {
                // The log still has everything; the next try comes after as many bytes again.
                tracing::error!(%error, "metadata snapshot not written");
                control.uncovered_bytes = 0;
            }
        }
        self.run_control();
    }

    /// A snapshot that something was too short for may be tried again.
    pub(super) fn snapshot_again(&mut self) {
        if let Some(control) = &mut self.designated.control {
            control.snapshot_waits = false;
            self.snapshot_if_due();
        }
    }

    /// The log below a snapshot's end is not needed any more.
    fn let_log_go(&mut self, end_offset: i64) {
        let mut events = Vec::new();
        if let Some(Slot::Online(log)) = self.partitions.get_mut(&METADATA_PARTITION) {
            let part = DeleteRecordsPart {
                partition: METADATA_PARTITION,
                offset: end_offset,
            };
            log.delete_records(&part, &mut events);
        }
        self.collect_jobs(METADATA_PARTITION);
    }
}

/// The topics that a change takes away.
fn deleted(reply: &ControllerReply) -> Vec<Uuid> {
    match reply {
        ControllerReply::DeleteTopics(topics) => {
            let gone = topics.iter().filter(|(_, _, result)| result.is_ok());
            gone.map(|(_, id, _)| *id).collect()
        }
        _ => Vec::new(),
    }
}
