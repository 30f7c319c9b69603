//! When the partition's log is compacted, and what a round of it changes.
//!
//! Part of the partition's state, on its shard; the jobs are the cleaner's (`cleaner` of `chronik-log`). A round
//! maps the keys of the dirty segments, then rewrites all segments up to there, group by group
//! (`Cleaner#doClean`). A group's new segment takes the place of its old ones in memory first, read
//! by its open file, and on the disk after that. Whatever was removed meanwhile is passed over.

use std::collections::VecDeque;
use std::rc::Rc;

use chronik_io::World;
use chronik_log::LogError;
use chronik_log::cleaner::{
    Cancel, CleanError, CleanedSegment, GroupJob, Grouped, MapJob, Mapped, OffsetMap, Pace, Rules,
    Source, Swap, SwapProgress, Transactions, remove_cleaned,
};
use chronik_log::segment::SealedSegment;
use chronik_terms::topic_settings::TopicConfig;
use tracing::{error, info, warn};

use super::{Now, Partition, PartitionEvent, Shared};

/// What the broker's settings say of cleaning, this shard's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanSettings {
    /// Bytes of the map of offsets (`log.cleaner.dedupe.buffer.size`).
    pub map_bytes_max: usize,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub bytes_per_second_max: u64,
    /// How long after a failure the next try comes (`log.cleaner.backoff.ms`).
    pub backoff_ms: u64,
}

/// See the module's text.
pub(super) struct Cleaning<W: World> {
    /// Records below have been cleaned.
    pub(super) first_dirty: i64,
    due_ns: Option<u64>,
    /// The log cannot be cleaned until restart: something in it cannot be read.
    given_up: bool,
    pub(super) cancel: Cancel,
    round: Option<Round<W>>,
    /// To be performed next.
    work: Option<CleanWork<W>>,
}

/// A round under way.
struct Round<W: World> {
    settings: CleanSettings,
    /// Of the dirty segments.
    dirty_end: i64,
    /// Everything below will have been cleaned.
    end: i64,
    /// Base offsets of what is still to be rewritten.
    groups: VecDeque<Vec<i64>>,
    /// Of the group under way.
    bases: Vec<i64>,
    tools: Option<Tools<W>>,
    bytes_before: u64,
    bytes_after: u64,
}

/// What goes from one group to the next.
struct Tools<W: World> {
    rules: Rules,
    transactions: Transactions,
    pace: Pace<W>,
}

/// A job of the cleaner.
pub(super) enum CleanWork<W: World> {
    Map(MapJob<W>),
    Group(GroupJob<W>),
    /// A cleaned segment that is not wanted.
    Discard(i64),
    /// Memory is given back.
    Release(OffsetMap, Pace<W>),
}

/// What became of it.
pub(super) enum CleanDone<W: World> {
    Mapped(Result<Mapped<W>, CleanError>),
    Grouped(Result<Grouped<W>, CleanError>),
    Discarded,
    Released,
}

impl<W: World> CleanWork<W> {
    pub(super) async fn perform(self, world: &W, dir: &std::path::Path) -> CleanDone<W> {
        match self {
            Self::Map(job) => CleanDone::Mapped(job.perform().await),
            Self::Group(job) => CleanDone::Grouped(job.perform().await),
            Self::Discard(base_offset) => {
                remove_cleaned(world, dir, base_offset).await;
                CleanDone::Discarded
            }
            Self::Release(mut map, mut pace) => {
                while map.shrink() && pace.rest().await.is_ok() {}
                CleanDone::Released
            }
        }
    }
}

impl<W: World> Cleaning<W> {
    /// Everything below `first_dirty` was cleaned by an earlier process.
    pub(super) fn new(first_dirty: i64) -> Self {
        Self {
            first_dirty,
            due_ns: None,
            given_up: false,
            cancel: Cancel::default(),
            round: None,
            work: None,
        }
    }

    pub(super) fn take_work(&mut self) -> Option<CleanWork<W>> {
        self.work.take()
    }
}

impl<W: World> Partition<W> {
    /// When [`Partition::begin_cleaning`] has something to do, on the monotonic clock, ns.
    pub fn next_cleaning_ns(&self) -> Option<u64> {
        let may = self.failure.is_none() && !self.cleaning.cancel.is_cancelled();
        self.cleaning.due_ns.filter(|_| may)
    }

    /// Whether a round is under way.
    pub fn is_cleaning(&self) -> bool {
        self.cleaning.round.is_some() && self.failure.is_none()
    }

    /// The partition goes, or the broker does: a round under way ends soon, and none begins.
    pub fn stop_cleaning(&mut self) {
        self.cleaning.cancel.cancel();
    }

    /// Works out anew when the log is dirty enough: after opening, when a segment was sealed, and
    /// whenever settings change.
    pub fn plan_cleaning(&mut self, now: Now) {
        if self.cleaning.cancel.is_cancelled() {
            self.cleaning.due_ns = None;
            return;
        }
        if self.cleaning.round.is_some() {
            // Its end plans the next one.
            return;
        }
        let wait_ms = self
            .cleaning_due_ms(now)
            .map(|due_ms| u64::try_from(due_ms.saturating_sub(now.wall_ms)).unwrap_or(0));
        self.cleaning.due_ns =
            wait_ms.map(|ms| now.mono_ns.saturating_add(ms.saturating_mul(1_000_000)));
    }

    /// Where the dirty part begins: what the checkpoint says may not fit the log any more
    /// (`LogCleanerManager#cleanableOffsets`).
    fn first_dirty(&self) -> i64 {
        let known = self.cleaning.first_dirty;
        match (self.log_start..=self.active.base_offset()).contains(&known) {
            true => known,
            false => self.log_start,
        }
    }

    /// Says once that what the checkpoint calls clean cannot be: the log is compacted from its start on.
    pub(super) fn judge_cleaned_offset(&mut self) {
        let (cleaned, base) = (self.cleaning.first_dirty, self.active.base_offset());
        if cleaned > base {
            warn!(
                partition = self.name(),
                cleaned,
                log_end = self.log_end(),
                last_segment = base,
                "the cleaner's checkpoint names an offset that was never compacted; all of the log is"
            );
            self.cleaning.first_dirty = 0;
        }
    }

    /// The dirty segments that are old enough by `now_ms`.
    fn dirty(&self, now_ms: i64) -> impl Iterator<Item = &SealedSegment<W>> {
        let first_dirty = self.first_dirty();
        let open = self.producers.first_open_transaction().unwrap_or(i64::MAX);
        let lag_ms = i64::try_from(self.config.min_compaction_lag_ms).unwrap_or(i64::MAX);
        self.sealed
            .iter()
            .skip_while(move |segment| segment.next_offset <= first_dirty)
            .take_while(move |segment| {
                segment.next_offset <= open && ready_ms(segment, lag_ms) <= now_ms
            })
    }

    /// When the log is dirty enough: by ratio, or because a record has been dirty for too long.
    fn cleaning_due_ms(&self, now: Now) -> Option<i64> {
        if !self.config.cleanup_policy.compact || self.cleaning.given_up {
            return None;
        }
        let first_dirty = self.first_dirty();
        let lag_ms = i64::try_from(self.config.min_compaction_lag_ms).unwrap_or(i64::MAX);
        let clean = self
            .sealed
            .iter()
            .take_while(|s| s.base_offset < first_dirty);
        let clean_bytes: u64 = clean.map(|segment| segment.size_bytes).sum();
        let (mut dirty_bytes, mut ready) = (0_u64, i64::MIN);
        let (mut by_ratio, mut by_age) = (None, None);
        for segment in self.dirty(i64::MAX) {
            ready = ready.max(ready_ms(segment, lag_ms));
            if ready == i64::MAX {
                break;
            }
            by_age = by_age.or_else(|| Some(ready.max(self.overdue_ms(segment, now)?)));
            dirty_bytes = dirty_bytes.saturating_add(segment.size_bytes);
            let all = clean_bytes.saturating_add(dirty_bytes);
            // Sizes of logs are exact in an f64 up to 8 PiB.
            let ratio = dirty_bytes as f64 / all.max(1) as f64;
            if by_ratio.is_none() && ratio > self.config.min_cleanable_dirty_ratio {
                by_ratio = Some(ready);
            }
        }
        by_ratio.into_iter().chain(by_age).min()
    }

    /// From when on a dirty segment has waited for too long (`max.compaction.lag.ms`). After a start
    /// its first record's time is not known: then now.
    fn overdue_ms(&self, segment: &SealedSegment<W>, now: Now) -> Option<i64> {
        let lag_ms = i64::try_from(self.config.max_compaction_lag_ms).unwrap_or(i64::MAX);
        if lag_ms == i64::MAX {
            return None;
        }
        Some(match segment.first_timestamp {
            Some(first) => first.saturating_add(lag_ms).saturating_add(1),
            None => now.wall_ms,
        })
    }

    /// Begins a round, if it is time. Call [`Partition::take_jobs`] afterwards.
    pub fn begin_cleaning(&mut self, now: Now, settings: CleanSettings) {
        self.cleaning.due_ns = None;
        let due = self
            .cleaning_due_ms(now)
            .is_some_and(|due| due <= now.wall_ms);
        if !due || self.failure.is_some() || self.cleaning.cancel.is_cancelled() {
            return self.plan_cleaning(now);
        }
        let first_dirty = self.first_dirty();
        let sources: Vec<Source<W>> = self.dirty(now.wall_ms).map(source).collect();
        let Some(dirty_end) = sources.last().map(|source| source.next_offset) else {
            return self.plan_cleaning(now);
        };
        let keys = u64::try_from(dirty_end.saturating_sub(first_dirty)).unwrap_or(0);
        let pace = Pace::new(
            &self.world,
            self.cleaning.cancel.clone(),
            settings.bytes_per_second_max,
        );
        self.cleaning.round = Some(Round {
            settings,
            dirty_end,
            end: dirty_end,
            groups: VecDeque::new(),
            bases: Vec::new(),
            tools: None,
            bytes_before: 0,
            bytes_after: 0,
        });
        self.cleaning.work = Some(CleanWork::Map(MapJob {
            world: self.world.clone(),
            dir: self.dir.clone(),
            sources,
            first_dirty,
            map: OffsetMap::new(keys, settings.map_bytes_max, self.world.random_u64()),
            pace,
        }));
    }

    /// Takes a job's result in.
    pub(super) fn clean_done(&mut self, shared: &mut Shared<'_, W>, done: CleanDone<W>, now: Now) {
        match done {
            CleanDone::Mapped(Ok(mapped)) => self.mapped(mapped, now, shared.events),
            CleanDone::Grouped(Ok(grouped)) => self.grouped(shared, grouped),
            CleanDone::Mapped(Err(error)) | CleanDone::Grouped(Err(error)) => {
                self.round_failed(&error, now);
            }
            CleanDone::Discarded => self.next_group(shared.events),
            CleanDone::Released => {
                self.cleaning.round = None;
                self.plan_cleaning(now);
            }
        }
    }

    fn round_failed(&mut self, failure: &CleanError, now: Now) {
        let Some(round) = self.cleaning.round.take() else {
            return;
        };
        match failure {
            CleanError::Cancelled => {}
            CleanError::Io(source) => {
                // A file that is not there went by retention, which was faster.
                warn!(partition = self.name(), %source, "not compacted; trying again later");
                let wait_ns = round.settings.backoff_ms.saturating_mul(1_000_000);
                self.cleaning.due_ns = Some(now.mono_ns.saturating_add(wait_ns));
            }
            CleanError::Corrupt(why) => {
                error!(partition = self.name(), why, "the log cannot be compacted");
                self.cleaning.given_up = true;
            }
        }
    }

    /// The keys are known: all segments up to there are rewritten.
    fn mapped(&mut self, mapped: Mapped<W>, now: Now, events: &mut Vec<PartitionEvent>) {
        let Mapped {
            map,
            transactions,
            pace,
        } = mapped;
        let Some(round) = &mut self.cleaning.round else {
            return;
        };
        round.end = map.latest_offset().saturating_add(1).min(round.dirty_end);
        let up_to_there = self.sealed.iter().take_while(|s| s.base_offset < round.end);
        round.groups = group(up_to_there, &self.config).into();
        round.tools = Some(Tools {
            rules: Rules {
                map: Rc::new(map),
                now_ms: now.wall_ms,
                delete_retention_ms: self.config.delete_retention_ms,
                last_batches: Rc::new(self.producers.last_batches()),
            },
            transactions,
            pace,
        });
        self.next_group(events);
    }

    /// Rewrites the next group, or ends the round.
    fn next_group(&mut self, events: &mut Vec<PartitionEvent>) {
        let Some(round) = &mut self.cleaning.round else {
            return;
        };
        while let Some(wanted) = round.groups.pop_front() {
            let there = self.sealed.iter();
            let there = there.filter(|segment| wanted.contains(&segment.base_offset));
            let sources: Vec<Source<W>> = there.map(source).collect();
            if sources.is_empty() {
                continue;
            }
            let Some(tools) = round.tools.take() else {
                return;
            };
            round.bases = sources.iter().map(|source| source.base_offset).collect();
            round.bytes_before += sources.iter().map(|source| source.size_bytes).sum::<u64>();
            let job = GroupJob {
                world: self.world.clone(),
                dir: self.dir.clone(),
                sources,
                rules: tools.rules,
                index_interval_bytes: self.config.index_interval_bytes,
                transactions: tools.transactions,
                pace: tools.pace,
            };
            // Until the job gives them back, nobody else has them.
            self.cleaning.work = Some(CleanWork::Group(job));
            return;
        }
        let (end, before, after) = (round.end, round.bytes_before, round.bytes_after);
        let Some(tools) = round.tools.take() else {
            return;
        };
        info!(partition = self.name(), end, before, after, "log compacted");
        if end > self.cleaning.first_dirty {
            self.cleaning.first_dirty = end;
            events.push(PartitionEvent::Cleaned(end));
        }
        let map = Rc::try_unwrap(tools.rules.map);
        let map = map.unwrap_or_else(|_| panic!("the jobs of a round are over"));
        self.cleaning.work = Some(CleanWork::Release(map, tools.pace));
    }

    /// A group was rewritten.
    fn grouped(&mut self, shared: &mut Shared<'_, W>, grouped: Grouped<W>) {
        let Grouped {
            segment,
            rules,
            transactions,
            pace,
        } = grouped;
        let Some(round) = &mut self.cleaning.round else {
            return;
        };
        round.tools = Some(Tools {
            rules,
            transactions,
            pace,
        });
        let bases = std::mem::take(&mut round.bases);
        round.bytes_after += segment.size_bytes;
        let Some(first) = bases.first().copied() else {
            return;
        };
        let at = self.sealed.partition_point(|s| s.base_offset < first);
        let there = self.sealed.iter().skip(at).take(bases.len());
        let unchanged = there.map(|s| s.base_offset).eq(bases.iter().copied());
        if segment.is_same || !unchanged {
            self.cleaning.work = Some(CleanWork::Discard(first));
            return;
        }
        self.replace(at, &bases, &segment);
        shared.cache.forget_segments(self.id, &bases);
        self.removal.swap(Swap {
            replaced: bases,
            index: segment.index,
            has_transaction_index: !segment.aborted.is_empty(),
            progress: SwapProgress::default(),
        });
    }

    /// From here on the new segment is the log.
    fn replace(&mut self, at: usize, bases: &[i64], cleaned: &CleanedSegment<W>) {
        let last = at + bases.len() - 1;
        let (Some(first), Some(last)) = (self.sealed.get(at), self.sealed.get(last)) else {
            return;
        };
        let segment = SealedSegment {
            base_offset: first.base_offset,
            next_offset: last.next_offset,
            size_bytes: cleaned.size_bytes,
            max_timestamp: Some(cleaned.index.max_timestamp()),
            since_ms: last.since_ms,
            unsaved_snapshot: last.unsaved_snapshot.clone(),
            first_timestamp: first.first_timestamp,
            pinned: Some(Rc::clone(&cleaned.index)),
            file: Some(Rc::clone(&cleaned.file)),
        };
        let offsets = segment.base_offset..segment.next_offset;
        self.aborted.replace(offsets, &cleaned.aborted);
        self.sealed.replace(at, bases.len(), segment);
        self.layout += 1;
    }

    /// The names on the disk are the new segment's, or nobody knows whose.
    pub(super) fn swapped(
        &mut self,
        swap: &Swap,
        result: Result<(), LogError>,
        events: &mut Vec<PartitionEvent>,
    ) {
        if let Err(error) = result {
            return self.fail(&error.to_string(), events);
        }
        let base = swap.replaced.first();
        let found = self
            .sealed
            .iter_mut()
            .find(|s| Some(&s.base_offset) == base);
        if let Some(segment) = found {
            segment.pinned = None;
        }
        self.close_surplus_files();
        self.next_group(events);
    }
}

/// From when on a segment is old enough, ms since the epoch.
fn ready_ms<W: World>(segment: &SealedSegment<W>, lag_ms: i64) -> i64 {
    if lag_ms == 0 {
        return i64::MIN;
    }
    let known = segment.max_timestamp.filter(|timestamp| *timestamp >= 0);
    known.unwrap_or(segment.since_ms).saturating_add(lag_ms)
}

fn source<W: World>(segment: &SealedSegment<W>) -> Source<W> {
    Source {
        base_offset: segment.base_offset,
        next_offset: segment.next_offset,
        size_bytes: segment.size_bytes,
        file: segment.file.clone(),
    }
}

/// Neighbours that fit into one segment together, by what they are now
/// (`Cleaner#groupSegmentsBySize`).
fn group<'a, W: World>(
    segments: impl Iterator<Item = &'a SealedSegment<W>>,
    config: &TopicConfig,
) -> Vec<Vec<i64>> {
    let mut groups: Vec<Vec<i64>> = Vec::new();
    let (mut first, mut bytes) = (0_i64, 0_u64);
    // The index entries there can be at most, at 12 bytes each.
    let index_bytes = |bytes: u64| bytes / u64::from(config.index_interval_bytes.max(1)) * 12;
    for segment in segments {
        let together = bytes.saturating_add(segment.size_bytes);
        let span = segment.next_offset.saturating_sub(first);
        let fits = together <= u64::from(config.segment_bytes)
            && index_bytes(together) <= u64::from(config.segment_index_bytes)
            && span <= i64::from(i32::MAX);
        match groups.last_mut() {
            Some(group) if fits => {
                group.push(segment.base_offset);
                bytes = together;
            }
            _ => {
                groups.push(vec![segment.base_offset]);
                (first, bytes) = (segment.base_offset, segment.size_bytes);
            }
        }
    }
    groups
}
