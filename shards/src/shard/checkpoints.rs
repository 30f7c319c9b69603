//! Offsets that the checkpoint files of the data directory should hold.
//!
//! The files are one for all partitions, which live on many shards: each shard notes what changed
//! and the designated shard writes the files, one write at a time, each with everything known when
//! it begins. State only; never polls: a write follows a roll, a deletion or a stop.

use std::collections::BTreeMap;

use chronik_io::World;
use chronik_protocol::{ErrorCode, Str, Uuid};

use super::{Effect, Shard};
use crate::catalog::METADATA_PARTITION;
use crate::internal::{Durable, InternalAnswer, OffsetChange, OffsetNote};
use crate::log::checkpoint::OffsetCheckpoint;
use crate::request::{DeleteRecordsResult, PartitionId, Reply};

/// What one shard has to tell the designated one.
pub(super) struct Notes<R> {
    unsent: Vec<OffsetNote>,
    in_flight: bool,
    /// Answered when the notes not yet sent are durable.
    waiting: Vec<(R, Deletions)>,
    /// Answered when the notes on their way are.
    waiting_in_flight: Vec<(R, Deletions)>,
}

/// What became of records that were to be deleted, and where.
type Deletions = Vec<(PartitionId, DeleteRecordsResult)>;

impl<R> Default for Notes<R> {
    fn default() -> Self {
        Notes {
            unsent: Vec::new(),
            in_flight: false,
            waiting: Vec::new(),
            waiting_in_flight: Vec::new(),
        }
    }
}

/// What each of the data directory's checkpoint files holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckpointFiles {
    pub(crate) recovery_points: OffsetCheckpoint,
    pub(crate) log_starts: OffsetCheckpoint,
    pub(crate) cleaned: OffsetCheckpoint,
}

/// The content of the checkpoint files, on the designated shard.
pub(crate) struct Checkpoints<R> {
    pub(crate) recovery_points: BTreeMap<(Str, i32), i64>,
    pub(crate) log_starts: BTreeMap<(Str, i32), i64>,
    pub(crate) cleaned: BTreeMap<(Str, i32), i64>,
    dirty: bool,
    writing: bool,
    /// Shards whose notes are not in a write yet.
    waiting: Vec<R>,
    /// Shards whose notes are in the write under way.
    waiting_in_flight: Vec<R>,
}

impl<R> Checkpoints<R> {
    pub(crate) fn new(known: CheckpointFiles) -> Self {
        Checkpoints {
            recovery_points: known.recovery_points.0,
            log_starts: known.log_starts.0,
            cleaned: known.cleaned.0,
            dirty: false,
            writing: false,
            waiting: Vec::new(),
            waiting_in_flight: Vec::new(),
        }
    }

    fn take(&mut self, note: OffsetNote) {
        let key = (note.topic, note.index);
        match note.change {
            OffsetChange::RecoveryPoint(offset) => {
                self.recovery_points.insert(key, offset);
            }
            // Kafka leaves out partitions whose log starts at the beginning.
            OffsetChange::LogStart(0) => {
                self.log_starts.remove(&key);
            }
            OffsetChange::LogStart(offset) => {
                self.log_starts.insert(key, offset);
            }
            OffsetChange::Cleaned(offset) => {
                self.cleaned.insert(key, offset);
            }
            OffsetChange::Removed => {
                self.recovery_points.remove(&key);
                self.log_starts.remove(&key);
                self.cleaned.remove(&key);
            }
        }
        self.dirty = true;
    }

    /// The files as they should be.
    pub(crate) fn files(&self) -> CheckpointFiles {
        CheckpointFiles {
            recovery_points: OffsetCheckpoint(self.recovery_points.clone()),
            log_starts: OffsetCheckpoint(self.log_starts.clone()),
            cleaned: OffsetCheckpoint(self.cleaned.clone()),
        }
    }
}

impl<W: World, R> Shard<W, R> {
    /// Remembers a change of a partition's offsets; [`Shard::flush_notes`] sends it.
    pub(super) fn note(&mut self, id: PartitionId, change: OffsetChange) {
        // The catalogue's own log begins where its snapshot ends: no checkpoint needs to say so.
        if id == METADATA_PARTITION {
            return;
        }
        if let Some(topic) = self.image.topic_by_id(id.topic_id) {
            let topic = topic.name.clone();
            self.notes.unsent.push(OffsetNote {
                topic,
                index: id.index,
                change,
            });
        }
    }

    pub(super) fn note_removed(&mut self, topic: Str, index: i32) {
        self.notes.unsent.push(OffsetNote {
            topic,
            index,
            change: OffsetChange::Removed,
        });
    }

    /// Answers DeleteRecords when the new log starts are durable.
    pub(super) fn reply_after_notes(&mut self, responder: R, results: Deletions) {
        self.notes.waiting.push((responder, results));
        self.flush_notes();
    }

    /// Sends what is noted, unless something is on its way: then it goes with the next.
    pub(super) fn flush_notes(&mut self) {
        if self.notes.in_flight || self.notes.unsent.is_empty() {
            return;
        }
        self.notes.in_flight = true;
        self.notes.waiting_in_flight.append(&mut self.notes.waiting);
        self.effects
            .push(Effect::Note(std::mem::take(&mut self.notes.unsent)));
    }

    pub(super) fn noted(&mut self, durable: &Durable) {
        self.notes.in_flight = false;
        for (responder, deletions) in std::mem::take(&mut self.notes.waiting_in_flight) {
            let told = deletions.into_iter().map(|(id, result)| {
                match result.error == ErrorCode::None && !durable.is_in(self.directory_of(id)) {
                    true => DeleteRecordsResult::failed(ErrorCode::KafkaStorageError),
                    false => result,
                }
            });
            let told = told.collect();
            self.reply(responder, Reply::DeleteRecords(told));
        }
        self.flush_notes();
        self.close_when_idle();
    }

    /// The directory that a partition lies in.
    fn directory_of(&self, id: PartitionId) -> Option<Uuid> {
        let topic = self.image.topic_by_id(id.topic_id)?;
        let info = topic.partitions.get(usize::try_from(id.index).ok()?)?;
        self.dirs.home_id(&info.directories)
    }

    /// Whether everything noted has arrived.
    pub(super) fn notes_are_out(&self) -> bool {
        !self.notes.in_flight && self.notes.unsent.is_empty()
    }

    /// On the designated shard: takes another shard's notes in; answered when they are durable.
    pub(super) fn take_notes(&mut self, notes: Vec<OffsetNote>, responder: R) {
        let Some(checkpoints) = &mut self.checkpoints else {
            return self.answer(responder, InternalAnswer::Noted(Durable::Nowhere));
        };
        for note in notes {
            checkpoints.take(note);
        }
        checkpoints.waiting.push(responder);
        self.write_checkpoints();
    }

    fn write_checkpoints(&mut self) {
        let Some(checkpoints) = &mut self.checkpoints else {
            return;
        };
        if checkpoints.writing || !checkpoints.dirty {
            return;
        }
        (checkpoints.writing, checkpoints.dirty) = (true, false);
        checkpoints
            .waiting_in_flight
            .append(&mut checkpoints.waiting);
        let files = checkpoints.files();
        self.effects.push(Effect::WriteCheckpoints(files));
    }

    pub(super) fn checkpoints_written(&mut self, refused: Vec<Uuid>) {
        let Some(checkpoints) = &mut self.checkpoints else {
            return;
        };
        checkpoints.writing = false;
        let written = refused.is_empty();
        // The next write holds everything again; until then a crash scans more.
        checkpoints.dirty |= !written;
        for responder in std::mem::take(&mut checkpoints.waiting_in_flight) {
            let durable = Durable::AllBut(refused.clone());
            self.answer(responder, InternalAnswer::Noted(durable));
        }
        // A failed write is not tried again before there is something new to write.
        let more = |checkpoints: &Checkpoints<R>| !checkpoints.waiting.is_empty();
        if written || self.checkpoints.as_ref().is_some_and(more) {
            self.write_checkpoints();
        }
    }
}
