//! The open files of a shard: so many at a time, closed and opened again by need.
//!
//! Owns which files are open and which of them go when another is to be opened: the first of those that
//! nobody uses and that were not used since they were last looked at. A file in use is never closed, nor
//! one whose name is gone, for that could not be opened again; it does not count either, or somebody could
//! wait for ever for one who holds such a file. Stays on its shard. While there are enough descriptors
//! nothing is ever closed, and a use costs a flag and a reference count.

use super::turns::Line;
use crate::open_names::{Name, OpenNames};
use glommio::io::DmaFile;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

/// What names a file on this machine: its device and inode.
pub(super) type Identity = (u64, u64);

/// See the module's text.
pub(super) struct OpenFiles {
    shard: usize,
    max: usize,
    /// Files that are open, being opened or being closed.
    count: Cell<usize>,
    /// Those that are open; the first is looked at next.
    order: RefCell<BTreeMap<u64, Rc<Slot>>>,
    next: Cell<u64>,
    /// Those who are to open a file.
    line: Line,
    pub(super) names: OpenNames,
    renames: Renames,
    /// It was told that files are closed by need.
    told: Cell<bool>,
    /// The kernel has refused a descriptor, and has not given one since.
    refused: Cell<bool>,
}

/// Renames of files that are held here: until the end of one is told, a name may be wrong.
#[derive(Default)]
struct Renames {
    begun: Cell<u64>,
    ended: Cell<u64>,
    /// Those who look for a file by a name that may be wrong.
    line: Line,
}

/// A rename under way.
pub(super) struct Renaming<'a>(&'a Renames);

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
        self.0.line.wake();
    }
}

/// One file, open or not.
pub(super) struct Slot {
    pub(super) name: Rc<Name>,
    file: RefCell<Option<Rc<DmaFile>>>,
    /// Which file it was when it was first opened.
    pub(super) identity: Cell<Option<Identity>>,
    /// Used since it was last looked at.
    used: Cell<bool>,
    /// Its key in the order, while it is open.
    place: Cell<Option<u64>>,
}

impl Slot {
    pub(super) fn new(name: Rc<Name>) -> Rc<Slot> {
        Rc::new(Slot {
            name,
            file: RefCell::new(None),
            identity: Cell::new(None),
            used: Cell::new(false),
            place: Cell::new(None),
        })
    }
}

/// A file in use.
pub(super) struct InUse<'a> {
    /// There until it is dropped.
    file: Option<Rc<DmaFile>>,
    files: &'a OpenFiles,
}

impl Deref for InUse<'_> {
    type Target = DmaFile;

    fn deref(&self) -> &DmaFile {
        self.file.as_deref().expect("there until it is dropped")
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.file = None;
        if self.files.line.is_waited_in() {
            self.files.line.wake();
        }
    }
}

/// The right to have one more file open, given back when it is dropped.
pub(super) struct Room<'a>(&'a OpenFiles);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.line.wake();
    }
}

impl OpenFiles {
    pub(super) fn new(shard: usize, max: usize) -> OpenFiles {
        OpenFiles {
            shard,
            max: max.max(1),
            count: Cell::new(0),
            order: RefCell::default(),
            next: Cell::new(0),
            line: Line::default(),
            names: OpenNames::default(),
            renames: Renames::default(),
            told: Cell::new(false),
            refused: Cell::new(false),
        }
    }

    /// The file of `slot`, if it is open.
    pub(super) fn get(&self, slot: &Slot) -> Option<InUse<'_>> {
        let file = slot.file.borrow().clone()?;
        slot.used.set(true);
        Some(InUse {
            file: Some(file),
            files: self,
        })
    }

    /// Waits until one more file may be open, closing another where there are as many already.
    pub(super) async fn room(&self) -> Room<'_> {
        let (room, idle) = self
            .line
            .wait(|| {
                if self.count.get() >= self.max
                    && let Some(idle) = self.take_idle()
                {
                    // It leaves its room to this one.
                    return Some((Room(self), Some(idle)));
                }
                let is_room = self.count.get() < self.max;
                is_room.then(|| {
                    self.count.set(self.count.get() + 1);
                    (Room(self), None)
                })
            })
            .await;
        if let Some(file) = idle {
            if !self.told.replace(true) {
                let (shard, max) = (self.shard, self.max);
                tracing::info!(
                    shard,
                    max,
                    "more files than descriptors for them: they are opened and closed by need"
                );
            }
            close(file).await;
        }
        room
    }

    /// Closes one file that nobody uses, if there is one: the kernel gives no descriptor.
    pub(super) async fn give_way(&self, error: &io::Error) {
        if !self.refused.replace(true) {
            let shard = self.shard;
            tracing::warn!(shard, %error, "descriptors have run out: files wait until there are some");
        }
        if let Some(file) = self.take_idle() {
            let _room = Room(self);
            close(file).await;
        }
    }

    /// The kernel has given a descriptor.
    pub(super) fn served(&self) {
        if self.refused.replace(false) {
            tracing::warn!(
                shard = self.shard,
                "there are descriptors again: files are opened as before"
            );
        }
    }

    /// A rename of `from` begins, if a file is held there or below.
    pub(super) fn renaming(&self, from: &Path) -> Option<Renaming<'_>> {
        let renames = &self.renames;
        self.names.is_held(from).then(|| {
            renames.begun.set(renames.begun.get() + 1);
            Renaming(renames)
        })
    }

    /// How many renames have ended, for [`OpenFiles::settle`].
    pub(super) fn renamed(&self) -> u64 {
        self.renames.ended.get()
    }

    /// Whether a name may have been wrong because a rename was under way after `seen` had ended; waits
    /// for the end of one if so.
    pub(super) async fn settle(&self, seen: u64) -> bool {
        let Renames { begun, ended, line } = &self.renames;
        if begun.get() == seen {
            return false;
        }
        line.wait(|| (ended.get() > seen).then_some(())).await;
        true
    }

    /// Takes out a file that nobody uses, the one that was not used for longest as far as it is known.
    fn take_idle(&self) -> Option<DmaFile> {
        let mut order = self.order.borrow_mut();
        // Once around takes the marks away, the second time finds what has none.
        for _ in 0..2 * order.len() {
            let (_, slot) = order.pop_first()?;
            let mut file = slot.file.borrow_mut();
            if !slot.name.exists() {
                slot.place.set(None);
                self.count.set(self.count.get() - 1);
                continue;
            }
            let idle = file
                .as_ref()
                .is_some_and(|file| Rc::strong_count(file) == 1);
            if idle && !slot.used.replace(false) {
                slot.place.set(None);
                return file.take().and_then(Rc::into_inner);
            }
            drop(file);
            let place = self.next.get();
            self.next.set(place + 1);
            slot.place.set(Some(place));
            order.insert(place, slot);
        }
        None
    }

    /// An opened file is that of `slot`, which has none.
    pub(super) fn put<'a>(&'a self, slot: &Rc<Slot>, file: DmaFile, room: Room<'a>) -> InUse<'a> {
        // Given back when the file is closed.
        std::mem::forget(room);
        let file = Rc::new(file);
        let before = slot.file.replace(Some(Rc::clone(&file)));
        debug_assert!(before.is_none(), "opened twice");
        let place = self.next.get();
        self.next.set(place + 1);
        slot.place.set(Some(place));
        slot.used.set(true);
        self.order.borrow_mut().insert(place, Rc::clone(slot));
        InUse {
            file: Some(file),
            files: self,
        }
    }

    /// Takes the file out of `slot`, which goes; its room is free once the result is dropped.
    pub(super) fn take(&self, slot: &Slot) -> Option<(DmaFile, Option<Room<'_>>)> {
        let file = slot.file.take()?;
        let room = slot.place.take().map(|place| {
            self.order.borrow_mut().remove(&place);
            Room(self)
        });
        Rc::into_inner(file).map(|file| (file, room))
    }

    /// A file or directory is about to lose its name: what is open stays so, and counts no more.
    pub(super) fn removed(&self, path: &Path) {
        self.names.removed(path);
        self.line.wake();
    }
}

async fn close(file: DmaFile) {
    if let Err(error) = file.close().await {
        // It is gone all the same, see close(2); what was written is synced where that was asked for.
        tracing::warn!(error = %super::plain(error), "closing a file");
    }
}
