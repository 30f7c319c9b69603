//! Offsets that the checkpoint files of the data directory should hold.
//!
//! The files are one for all partitions, which live on many shards: each shard notes what changed
//! and the designated shard writes the files, one write at a time, each with everything known when
//! it begins. Here offsets belong to topic ids; the files go by names, so numbers of a deleted topic are
//! out of them, durably, before its deletion is answered, or at the latest before its name is another
//! topic's. State only; never polls: a write follows a roll, a deletion or a stop.

use std::collections::BTreeSet;
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_partition::PartitionEvent;
use chronik_partition::backoff;
use chronik_protocol::{ErrorCode, Uuid};
use chronik_terms::{DeleteRecordsPart, DeleteRecordsResult, METADATA_PARTITION, PartitionId};

use super::timers::{Timer, TimerKey};
use super::{CatalogueEffect, Effect, Shard};
use crate::checkpoint_files::{AlsoIn, CheckpointOffsets, CheckpointsWritten, DeadNumbers};
use crate::internal::{Durable, InternalAnswer, OffsetChange, OffsetNote};
use crate::log_dirs::LogDirs;
use crate::request::Reply;

/// What one shard has to tell the designated one.
pub(super) struct Notes<R> {
    unsent: Vec<OffsetNote>,
    in_flight: bool,
    /// Answered when the notes not yet sent are durable.
    waiting: Vec<(R, Deletions)>,
    /// Answered when the notes on their way are.
    waiting_in_flight: Vec<(R, Deletions)>,
    /// Log starts among the notes on their way.
    starts_in_flight: Vec<PartitionId>,
    /// Partitions among them that may go to other directories.
    coming_in_flight: AlsoIn,
    /// Their starts have moved for readers, and are not durable although that was tried.
    not_durable: BTreeSet<PartitionId>,
}

impl<R> Notes<R> {
    /// The partition is gone.
    pub(super) fn forget(&mut self, id: PartitionId) {
        self.not_durable.remove(&id);
    }

    /// Whether the start of a log is known to be in memory only, and nothing on its way tells it.
    pub(super) fn is_not_durable(&self, id: PartitionId) -> bool {
        self.not_durable.contains(&id)
    }
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
            starts_in_flight: Vec::new(),
            coming_in_flight: AlsoIn::new(),
            not_durable: BTreeSet::new(),
        }
    }
}

/// Who waits for a write of the checkpoint files.
enum Writer<R> {
    /// A shard whose notes go with it.
    Notes(R),
    /// A change of the catalogue.
    Control,
}

/// The content of the checkpoint files, on the designated shard.
pub(crate) struct Checkpoints<R> {
    offsets: CheckpointOffsets,
    /// The newest that the metadata log holds: what it does not know is gone for good.
    image: Arc<Image>,
    /// What the files may hold of partitions that are gone.
    dead: DeadNumbers,
    /// Those of them that the write under way takes out.
    dying: DeadNumbers,
    /// Where partitions may go soon.
    coming: AlsoIn,
    /// Whose numbers are not known to be in the files of their new directories yet, and the old ones.
    left: AlsoIn,
    /// Those of them that the write under way puts there.
    leaving: AlsoIn,
    dirty: bool,
    writing: bool,
    /// They are not in a write yet.
    waiting: Vec<Writer<R>>,
    /// They are in the write under way.
    waiting_in_flight: Vec<Writer<R>>,
    /// Writes in a row that something was too short for.
    failures: u32,
    /// The deadline of the next try, while something is too short.
    again: Option<TimerKey>,
    /// The directories of which it was said that their files cannot be written.
    told: Vec<Uuid>,
}

/// So often whoever waits for a write waits for the next one when something is too short for it.
const TRIES_WAITED_FOR: u32 = 4;

impl<R> Checkpoints<R> {
    pub(crate) fn new(offsets: CheckpointOffsets, dead: DeadNumbers, image: Arc<Image>) -> Self {
        Checkpoints {
            offsets,
            image,
            dirty: !dead.is_empty(),
            dead,
            dying: DeadNumbers::default(),
            coming: AlsoIn::new(),
            left: AlsoIn::new(),
            leaving: AlsoIn::new(),
            writing: false,
            waiting: Vec::new(),
            waiting_in_flight: Vec::new(),
            failures: 0,
            again: None,
            told: Vec::new(),
        }
    }

    fn take(&mut self, note: &OffsetNote) {
        let id = note.partition;
        let Some(topic) = self.image.topic_by_id(id.topic_id) else {
            // It was under way when the topic went.
            return;
        };
        self.dirty = true;
        let (offsets, offset) = match note.change {
            OffsetChange::RecoveryPoint(offset) => (&mut self.offsets.recovery_points, offset),
            OffsetChange::LogStart(offset) => (&mut self.offsets.log_starts, offset),
            OffsetChange::Cleaned(offset) => (&mut self.offsets.cleaned, offset),
            OffsetChange::Coming(directory) => {
                self.coming.insert((id, directory));
                return;
            }
            OffsetChange::Staying(directory) => {
                if self.coming.remove(&(id, directory)) {
                    self.dead.insert(&topic.name, id.index, directory);
                }
                return;
            }
        };
        offsets.insert(id, offset);
    }

    /// The metadata log holds this image now.
    fn follow(&mut self, image: &Arc<Image>, deleted: &[Uuid], dirs: &LogDirs) {
        let before = std::mem::replace(&mut self.image, Arc::clone(image));
        for id in deleted {
            let is_of_it = |(of, _): &(PartitionId, Uuid)| of.topic_id == *id;
            let mut gone = Vec::new();
            for also_in in [&mut self.coming, &mut self.left, &mut self.leaving] {
                gone.extend(also_in.extract_if(.., is_of_it));
            }
            if let Some(topic) = before.topic_by_id(*id) {
                for (of, directory) in gone {
                    self.dead.insert(&topic.name, of.index, directory);
                    self.dirty = true;
                }
            }
            let indexes = self.offsets.remove_topic(*id);
            let Some(topic) = before.topic_by_id(*id) else {
                continue;
            };
            for index in indexes {
                if let Some(home) = dirs.home_of(&before, &topic.name, index) {
                    self.dead.insert(&topic.name, index, home);
                    self.dirty = true;
                }
            }
        }
    }

    /// The metadata log says that a partition lies elsewhere now.
    fn follow_move(&mut self, id: PartitionId, dirs: &LogDirs) {
        let from = self.image.topic_by_id(id.topic_id).and_then(|topic| {
            let info = topic.partitions.get(usize::try_from(id.index).ok()?)?;
            dirs.home_id(&info.directories)
        });
        if let Some(from) = from {
            self.left.insert((id, from));
            self.coming.retain(|(coming, _)| *coming != id);
            self.dirty = true;
        }
    }

    /// The files were written, but for those of the directories that refused.
    fn left_behind(&mut self, refused: &[Uuid], dirs: &LogDirs) {
        for (id, from) in std::mem::take(&mut self.leaving) {
            let Some(topic) = self.image.topic_by_id(id.topic_id) else {
                continue;
            };
            let home = dirs.home_of(&self.image, &topic.name, id.index);
            if home.is_some_and(|home| refused.contains(&home)) {
                self.left.insert((id, from));
            } else if home != Some(from) && !self.coming.contains(&(id, from)) {
                self.dead.insert(&topic.name, id.index, from);
                self.dirty = true;
            }
        }
    }

    /// Whether a partition of this image lies where its number of before may still stand.
    fn comes_back(&self, image: &Image, dirs: &LogDirs) -> bool {
        self.left.iter().chain(&self.leaving).any(|(id, from)| {
            let topic = image.topic_by_id(id.topic_id);
            topic.is_some_and(|topic| dirs.home_of(image, &topic.name, id.index) == Some(*from))
        })
    }

    /// Says of a shortage or a failure when it begins and when it has passed, not at every try.
    fn tell(&mut self, written: &CheckpointsWritten) {
        if written.refused == self.told {
            return;
        }
        self.told.clone_from(&written.refused);
        match written.why.join("; ") {
            why if why.is_empty() => tracing::info!("offset checkpoints written again"),
            why => tracing::error!(
                why,
                "offset checkpoints not written: until they are, a start after a crash reads more"
            ),
        }
    }

    /// What is known of every partition.
    pub(crate) fn offsets(&self) -> CheckpointOffsets {
        self.offsets.clone()
    }
}

impl<W: World, R> Shard<W, R> {
    /// Remembers a change of a partition's offsets; [`Shard::flush_notes`] sends it.
    pub(super) fn note(&mut self, id: PartitionId, change: OffsetChange) {
        // The catalogue's own log begins where its snapshot ends: no checkpoint needs to say so.
        if id == METADATA_PARTITION {
            return;
        }
        self.following.notes.unsent.push(OffsetNote {
            partition: id,
            change,
        });
    }

    /// Moves log starts; answered when the checkpoint that says so is durable.
    pub(super) fn delete_records(&mut self, parts: &[DeleteRecordsPart], responder: R) {
        let mut moved = false;
        let mut results = Vec::with_capacity(parts.len());
        for part in parts {
            let id = part.partition;
            let mut events = Vec::new();
            let result = match self.online(id) {
                Ok(partition) => partition.delete_records(part, &mut events),
                Err(error) => DeleteRecordsResult::failed(error),
            };
            if result.error == ErrorCode::None && self.following.notes.is_not_durable(id) {
                // Moved before, and only in memory so far.
                events.push(PartitionEvent::LogStart(result.low_watermark));
            }
            results.push((id, result));
            if events.is_empty() {
                continue;
            }
            moved = true;
            for event in events {
                self.on_event(id, event);
            }
            self.collect_jobs(id);
        }
        // Records that are deleted already may be so in memory only.
        if moved || !self.notes_are_out() {
            self.reply_after_notes(responder, results);
        } else {
            let results = results.into_iter().map(|(_, result)| result).collect();
            self.reply(responder, Reply::DeleteRecords(results));
        }
    }

    /// Answers DeleteRecords when the new log starts are durable.
    fn reply_after_notes(&mut self, responder: R, results: Deletions) {
        match self.following.notes.unsent.is_empty() {
            true => self
                .following
                .notes
                .waiting_in_flight
                .push((responder, results)),
            false => self.following.notes.waiting.push((responder, results)),
        }
        self.flush_notes();
    }

    /// Sends what is noted, unless something is on its way: then it goes with the next.
    pub(super) fn flush_notes(&mut self) {
        if self.following.notes.in_flight || self.following.notes.unsent.is_empty() {
            return;
        }
        self.following.notes.in_flight = true;
        self.following
            .notes
            .waiting_in_flight
            .append(&mut self.following.notes.waiting);
        let notes = std::mem::take(&mut self.following.notes.unsent);
        let starts = notes
            .iter()
            .filter(|note| matches!(note.change, OffsetChange::LogStart(_)));
        self.following.notes.starts_in_flight = starts.map(|note| note.partition).collect();
        let coming = notes.iter().filter_map(|note| match note.change {
            OffsetChange::Coming(directory) => Some((note.partition, directory)),
            _ => None,
        });
        self.following.notes.coming_in_flight = coming.collect();
        self.out.effects.push(Effect::Note(notes));
    }

    pub(super) fn noted(&mut self, durable: &Durable) {
        self.following.notes.in_flight = false;
        let starts = std::mem::take(&mut self.following.notes.starts_in_flight);
        self.stay_with_starts(&starts, durable);
        for id in &starts {
            if self.is_kept(*id, durable) || !self.partitions.contains_key(id) {
                self.following.notes.not_durable.remove(id);
            } else {
                self.following.notes.not_durable.insert(*id);
            }
        }
        for (responder, deletions) in std::mem::take(&mut self.following.notes.waiting_in_flight) {
            let told = deletions.into_iter().map(|(id, result)| {
                if result.error != ErrorCode::None || self.is_kept(id, durable) {
                    return result;
                }
                let home = self.directory_of(id);
                // The start has moved for readers. Where it is only not durable yet that goes on
                // being tried; Kafka's word for "it may have happened" is a timeout.
                DeleteRecordsResult::failed(match durable.is_in(home) || durable.is_short(home) {
                    true => ErrorCode::RequestTimedOut,
                    false => ErrorCode::KafkaStorageError,
                })
            });
            let told = told.collect();
            self.reply(responder, Reply::DeleteRecords(told));
        }
        self.corrected(&starts, durable);
        let coming = std::mem::take(&mut self.following.notes.coming_in_flight);
        self.move_noted(&coming, durable);
        self.flush_notes();
        self.close_when_idle();
    }

    /// The directory that a partition lies in.
    pub(super) fn directory_of(&self, id: PartitionId) -> Option<Uuid> {
        let topic = self.image.topic_by_id(id.topic_id)?;
        let info = topic.partitions.get(usize::try_from(id.index).ok()?)?;
        self.dirs.home_id(&info.directories)
    }

    /// Whether everything noted has arrived.
    pub(super) fn notes_are_out(&self) -> bool {
        !self.following.notes.in_flight && self.following.notes.unsent.is_empty()
    }

    /// On the designated shard: takes another shard's notes in; answered when they are durable.
    pub(super) fn take_notes(&mut self, notes: &[OffsetNote], responder: R) {
        let Some(checkpoints) = &mut self.designated.checkpoints else {
            return self.answer(responder, InternalAnswer::Noted(Durable::Nowhere));
        };
        for note in notes {
            checkpoints.take(note);
        }
        checkpoints.dirty = true;
        checkpoints.waiting.push(Writer::Notes(responder));
        self.write_checkpoints();
    }

    /// On the designated shard: the metadata log holds this image, in which these topics are gone.
    pub(super) fn checkpoints_follow(&mut self, image: &Arc<Image>, deleted: &[Uuid]) {
        let dirs = Arc::clone(&self.dirs);
        if let Some(checkpoints) = &mut self.designated.checkpoints {
            checkpoints.follow(image, deleted, &dirs);
        }
    }

    /// On the designated shard: the metadata log says that a partition lies elsewhere now.
    pub(super) fn checkpoints_follow_move(&mut self, id: PartitionId) {
        let dirs = Arc::clone(&self.dirs);
        if let Some(checkpoints) = &mut self.designated.checkpoints {
            checkpoints.follow_move(id, &dirs);
        }
    }

    /// Whether a partition of this image would take a number that belonged to another, were it created
    /// now.
    pub(super) fn is_misled(&self, next: &Image) -> bool {
        let checkpoints = self.designated.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| {
            checkpoints.dead.mislead(&self.dirs, next)
                || checkpoints.dying.mislead(&self.dirs, next)
                || checkpoints.comes_back(next, &self.dirs)
        })
    }

    /// Whether the files hold something of what is gone.
    pub(super) fn has_dead_numbers(&self) -> bool {
        let checkpoints = self.designated.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| {
            !checkpoints.dead.is_empty() || !checkpoints.dying.is_empty()
        })
    }

    /// Takes what is gone out of the files; `control_goes_on` is called when that was tried.
    pub(super) fn bury_dead_numbers(&mut self) {
        if let Some(checkpoints) = &mut self.designated.checkpoints {
            checkpoints.dirty = true;
            checkpoints.waiting.push(Writer::Control);
        }
        self.write_checkpoints();
    }

    pub(super) fn is_writing_checkpoints(&self) -> bool {
        let checkpoints = self.designated.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| checkpoints.writing)
    }

    pub(super) fn write_checkpoints(&mut self) {
        let Some(checkpoints) = &mut self.designated.checkpoints else {
            return;
        };
        if checkpoints.writing || !checkpoints.dirty {
            return;
        }
        (checkpoints.writing, checkpoints.dirty) = (true, false);
        checkpoints
            .waiting_in_flight
            .append(&mut checkpoints.waiting);
        checkpoints.dying = std::mem::take(&mut checkpoints.dead);
        checkpoints.leaving.append(&mut checkpoints.left);
        let (offsets, image) = (checkpoints.offsets(), Arc::clone(&checkpoints.image));
        let also_in = checkpoints.leaving.union(&checkpoints.coming).copied();
        let also_in = also_in.collect();
        self.out
            .effects
            .push(Effect::Catalogue(CatalogueEffect::WriteCheckpoints(
                offsets,
                (image, also_in),
            )));
    }

    /// The deadline for what was too short has come.
    pub(super) fn write_checkpoints_again(&mut self) {
        if let Some(checkpoints) = &mut self.designated.checkpoints {
            checkpoints.again = None;
        }
        self.write_checkpoints();
    }

    /// There is one deadline, however many writes were refused since the last one that went well.
    fn time_checkpoints(&mut self, is_short: bool) {
        let now_ns = self.world.monotonic_ns();
        let Some(checkpoints) = &mut self.designated.checkpoints else {
            return;
        };
        if let Some(again) = checkpoints.again.take() {
            self.waiting.timers.cancel(again);
        }
        if is_short {
            let due_ns = backoff::due_ns(now_ns, checkpoints.failures);
            checkpoints.again = Some(self.waiting.timers.add(due_ns, Timer::Checkpoints));
        }
    }

    pub(super) fn checkpoints_written(&mut self, result: CheckpointsWritten) {
        let Some(checkpoints) = &mut self.designated.checkpoints else {
            return;
        };
        checkpoints.writing = false;
        checkpoints.tell(&result);
        let CheckpointsWritten { refused, short, .. } = result;
        let (written, is_short) = (refused.is_empty(), !short.is_empty());
        // The next write holds everything again; until then a crash scans more.
        checkpoints.dirty |= !written;
        let mut dying = std::mem::take(&mut checkpoints.dying);
        dying.retain(&refused);
        checkpoints.dead.extend(dying);
        checkpoints.left_behind(&refused, &self.dirs);
        checkpoints.failures = match written {
            true => 0,
            false => checkpoints.failures.saturating_add(1),
        };
        let waits_on = is_short && checkpoints.failures < TRIES_WAITED_FOR;
        let waiting = std::mem::take(&mut checkpoints.waiting_in_flight);
        self.time_checkpoints(is_short);
        let mut later = Vec::new();
        for writer in waiting {
            match writer {
                Writer::Notes(responder) if waits_on => later.push(Writer::Notes(responder)),
                Writer::Notes(responder) => {
                    let (refused, short) = (refused.clone(), short.clone());
                    let durable = Durable::AllBut { refused, short };
                    self.answer(responder, InternalAnswer::Noted(durable));
                }
                Writer::Control => self.control_goes_on(),
            }
        }
        if waits_on && let Some(checkpoints) = &mut self.designated.checkpoints {
            later.append(&mut checkpoints.waiting);
            checkpoints.waiting = later;
            return;
        }
        // A failed write is not tried again before there is something new to write.
        let more = |checkpoints: &Checkpoints<R>| !checkpoints.waiting.is_empty();
        if written || self.designated.checkpoints.as_ref().is_some_and(more) {
            self.write_checkpoints();
        }
        self.close_when_idle();
    }
}
