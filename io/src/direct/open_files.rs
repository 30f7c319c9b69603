//! The open files of a shard: bounded in number, closed and reopened on demand.
//!
//! Owns the set of open files and the choice of the one to close for another: the clock algorithm over files
//! not in use. A file in use is never closed, nor one without a name, which could not be reopened; the latter
//! does not count either, or opening could wait for ever on the holder of such files. Stays on its shard. With
//! enough descriptors nothing is ever closed, and a use costs a flag and a reference count.

use super::semaphore::WaitQueue;
use crate::open_names::{Name, OpenNames};
use crate::shortage::ShortageReport;
use glommio::io::DmaFile;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

/// A file's identity on this machine: its device and inode.
pub(super) type Identity = (u64, u64);

/// The open files of one shard; see the module.
pub(super) struct OpenFiles {
    shard: usize,
    max: usize,
    /// Files that are open, being opened or being closed.
    count: Cell<usize>,
    /// Open files; the clock's hand is at the first.
    order: RefCell<BTreeMap<u64, Rc<Slot>>>,
    next: Cell<u64>,
    /// Openings that wait for a permit.
    queue: WaitQueue,
    pub(super) names: OpenNames,
    renames: Renames,
    /// It was logged that files are closed on demand.
    reported: Cell<bool>,
    /// Of descriptors that the kernel did not give.
    shortage: ShortageReport,
}

/// Renames of held files: while one is in progress, a name may be wrong.
#[derive(Default)]
struct Renames {
    begun: Cell<u64>,
    ended: Cell<u64>,
    /// Uses that look for a file by a name that may be wrong.
    queue: WaitQueue,
}

/// A rename in progress.
pub(super) struct Renaming<'a>(&'a Renames);

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
        self.0.queue.wake();
    }
}

/// The slot of one file, open or not.
pub(super) struct Slot {
    pub(super) name: Rc<Name>,
    file: RefCell<Option<Rc<DmaFile>>>,
    /// The file's identity at its first opening.
    pub(super) identity: Cell<Option<Identity>>,
    /// Used since the clock's hand last passed.
    used: Cell<bool>,
    /// Its key in the order, while open.
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
    /// `Some` until it is dropped.
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
        if self.files.queue.has_waiters() {
            self.files.queue.wake();
        }
    }
}

/// The permit for one more open file, returned when dropped.
pub(super) struct OpenPermit<'a>(&'a OpenFiles);

impl Drop for OpenPermit<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.queue.wake();
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
            queue: WaitQueue::default(),
            names: OpenNames::default(),
            renames: Renames::default(),
            reported: Cell::new(false),
            shortage: ShortageReport::default(),
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

    /// Waits for a permit, closing another file at the limit.
    pub(super) async fn permit(&self) -> OpenPermit<'_> {
        let (permit, idle) = self
            .queue
            .wait(|| {
                if self.count.get() >= self.max
                    && let Some(idle) = self.take_idle()
                {
                    // The closed file leaves its permit to this one.
                    return Some((OpenPermit(self), Some(idle)));
                }
                let is_permit = self.count.get() < self.max;
                is_permit.then(|| {
                    self.count.set(self.count.get() + 1);
                    (OpenPermit(self), None)
                })
            })
            .await;
        if let Some(file) = idle {
            if !self.reported.replace(true) {
                let (shard, max) = (self.shard, self.max);
                tracing::info!(
                    shard,
                    max,
                    "more files than descriptors for them: they are opened and closed by need"
                );
            }
            close(file).await;
        }
        permit
    }

    /// Closes one file not in use, if there is one, when the kernel gives no descriptor.
    pub(super) async fn close_idle(&self, error: &io::Error, now_ns: u64) {
        if self.shortage.refused(now_ns) {
            let shard = self.shard;
            tracing::warn!(shard, %error, "descriptors have run out: files wait until there are some");
        }
        if let Some(file) = self.take_idle() {
            let _permit = OpenPermit(self);
            close(file).await;
        }
    }

    /// Notes that the kernel has given a descriptor.
    pub(super) fn descriptor_given(&self, now_ns: impl FnOnce() -> u64) {
        if let Some(refusals) = self.shortage.given(now_ns) {
            tracing::warn!(
                shard = self.shard,
                refusals,
                "there are descriptors again: files are opened as before"
            );
        }
    }

    /// A rename of `from` begins; `None` if no file is held there or below.
    pub(super) fn renaming(&self, from: &Path) -> Option<Renaming<'_>> {
        let renames = &self.renames;
        self.names.is_held(from).then(|| {
            renames.begun.set(renames.begun.get() + 1);
            Renaming(renames)
        })
    }

    /// The number of renames ended, for [`OpenFiles::settle`].
    pub(super) fn renamed(&self) -> u64 {
        self.renames.ended.get()
    }

    /// True when a name may have been wrong because of a rename after the first `seen`; waits for the end of one in
    /// progress.
    pub(super) async fn settle(&self, seen: u64) -> bool {
        let Renames {
            begun,
            ended,
            queue,
        } = &self.renames;
        if begun.get() == seen {
            return false;
        }
        queue.wait(|| (ended.get() > seen).then_some(())).await;
        true
    }

    /// Takes out the next file not in use, by the clock algorithm.
    fn take_idle(&self) -> Option<DmaFile> {
        let mut order = self.order.borrow_mut();
        // The first round clears the marks, the second finds a file without one.
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

    /// Registers an opened file in `slot`, which has none.
    pub(super) fn put<'a>(
        &'a self,
        slot: &Rc<Slot>,
        file: DmaFile,
        permit: OpenPermit<'a>,
    ) -> InUse<'a> {
        // Returned when the file is closed.
        std::mem::forget(permit);
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

    /// Takes the file out of `slot` for good; its permit is returned when the result is dropped.
    pub(super) fn take(&self, slot: &Slot) -> Option<(DmaFile, Option<OpenPermit<'_>>)> {
        let file = slot.file.take()?;
        let permit = slot.place.take().map(|place| {
            self.order.borrow_mut().remove(&place);
            OpenPermit(self)
        });
        Rc::into_inner(file).map(|file| (file, permit))
    }

    /// A file or directory is about to lose its name: open files there stay open and no longer count.
    pub(super) fn removed(&self, path: &Path) {
        self.names.removed(path);
        self.queue.wake();
    }
}

async fn close(file: DmaFile) {
    if let Err(error) = file.close().await {
        // The descriptor is closed all the same, see close(2); writes were synced where that was asked for.
        tracing::warn!(error = %super::plain(error), "closing a file");
    }
}
