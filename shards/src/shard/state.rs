//! The state of a shard by what it is for. Each part is plain data of its owner, `Shard`, whose files work on it.
//!
//! Owns no behaviour.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_terms::PartitionId;
use slab::Slab;

use super::ShardOptions;
use super::ahead::Aheads;
use super::appends::PendingAppend;
use super::apply::Applying;
use super::asked_again::AskedAgain;
use super::checkpoints::{Checkpoints, Notes};
use super::chores::Chores;
use super::cleaner::{Cleaner, clean_settings};
use super::clock::{ClockWatch, producer_expiration_ms};
use super::control::Control;
use super::corrections::Corrections;
use super::disk_reads::{DiskReads, PendingRead};
use super::effects::Effect;
use super::groups::Groups;
use super::lookups::{Lookups, PendingOffsets, Unwritten};
use super::moves::Moves;
use super::openings::Openings;
use super::purgatory::{Purgatory, Watch};
use super::remembering::Remembering;
use super::shortages::NotOpened;
use super::timers::{TimerKey, Timers};
use crate::internal::Boot;
use chronik_partition::{CheckTimes, Job, PartitionEvent};

/// Appends that are not answered.
pub(super) struct Appending<R> {
    pub(super) appends: Slab<PendingAppend<R>>,
    /// Bytes of the appends that are undecided.
    pub(super) undecided_bytes: usize,
}

impl<R> Default for Appending<R> {
    fn default() -> Self {
        Appending {
            appends: Slab::new(),
            undecided_bytes: 0,
        }
    }
}

/// Reads and searches that are not answered.
pub(super) struct Reading<W: World, R> {
    /// `None` while the next parts of a read are being planned.
    pub(super) reads: Slab<Option<Box<PendingRead<R>>>>,
    pub(super) disk: DiskReads<W, R>,
    pub(super) asked_again: AskedAgain,
    pub(super) prefetches: Aheads,
    pub(super) offset_queries: Slab<PendingOffsets<R>>,
    pub(super) lookups: Lookups,
    /// Searches that wait until what they may find is written.
    pub(super) unwritten: Unwritten<R>,
}

impl<W: World, R> Default for Reading<W, R> {
    fn default() -> Self {
        Reading {
            reads: Slab::new(),
            disk: DiskReads::default(),
            asked_again: AskedAgain::default(),
            prefetches: Aheads::default(),
            offset_queries: Slab::new(),
            lookups: Lookups::default(),
            unwritten: Unwritten::default(),
        }
    }
}

/// Requests parked for data, and deadlines.
pub(super) struct Waiting<R> {
    pub(super) purgatory: Purgatory<R>,
    /// Parked requests that have what they waited for, with their timers.
    pub(super) woken: VecDeque<(usize, TimerKey)>,
    pub(super) resting: bool,
    pub(super) timers: Timers,
    pub(super) not_opened: NotOpened,
    /// Partitions that have a timer.
    pub(super) timed_partitions: BTreeMap<PartitionId, TimerKey>,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Waiting {
            purgatory: Purgatory::default(),
            woken: VecDeque::new(),
            not_opened: NotOpened::default(),
            resting: false,
            timers: Timers::default(),
            timed_partitions: BTreeMap::new(),
        }
    }
}

/// The way from one image of the catalogue to the next.
pub(super) struct Following<R> {
    /// What the last run left, until the first image has been applied.
    pub(super) boot: Option<Arc<Boot>>,
    pub(super) applying: Applying<R>,
    pub(super) openings: Openings<R>,
    pub(super) moves: Moves<R>,
    pub(super) notes: Notes<R>,
}

impl<R> Default for Following<R> {
    fn default() -> Self {
        Following {
            boot: None,
            applying: Applying::default(),
            openings: Openings::default(),
            moves: Moves::default(),
            notes: Notes::default(),
        }
    }
}

/// Work on logs that no request asks for.
pub(super) struct Upkeep {
    pub(super) retention: Chores,
    pub(super) cleaner: Cleaner,
    pub(super) clock: ClockWatch,
    pub(super) corrections: Corrections,
    pub(super) remembering: Remembering,
    pub(super) check_times: CheckTimes,
    pub(super) producer_expiration_ms: i64,
}

impl Upkeep {
    pub(super) fn new<W: World>(world: &W, options: &ShardOptions, image: &Image) -> Self {
        Upkeep {
            retention: Chores::default(),
            cleaner: Cleaner::new(clean_settings(image, options.count)),
            clock: ClockWatch::default(),
            corrections: Corrections::default(),
            remembering: Remembering::new(options.remember_after_bytes),
            check_times: CheckTimes {
                origin_ns: world.monotonic_ns(),
                interval_ms: options.retention_check_ms,
            },
            producer_expiration_ms: producer_expiration_ms(image),
        }
    }
}

/// What only the designated shard has.
pub(super) struct Designated<R> {
    pub(super) checkpoints: Option<Checkpoints<R>>,
    pub(super) control: Option<Control<R>>,
    pub(super) groups: Option<Groups<R>>,
}

impl<R> Default for Designated<R> {
    fn default() -> Self {
        Designated {
            checkpoints: None,
            control: None,
            groups: None,
        }
    }
}

/// What the shard has decided and its driver has not taken yet.
pub(super) struct Out<W: World, R> {
    pub(super) effects: Vec<Effect<W, R>>,
    pub(super) jobs: Vec<Job<W>>,
    pub(super) events: Vec<PartitionEvent>,
    pub(super) watches: Vec<Watch>,
}

impl<W: World, R> Default for Out<W, R> {
    fn default() -> Self {
        Out {
            effects: Vec::new(),
            jobs: Vec::new(),
            events: Vec::new(),
            watches: Vec::new(),
        }
    }
}
