//! The order of operations on names, across threads.
//!
//! Owns the paths being worked on. An operation waits for earlier ones on the same path, one above or one below:
//! a file is created after its predecessor's removal, removed after its renaming, found under a directory's new
//! name. All others overtake freely. Stays on its shard.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::task::{Poll, Waker};

/// The operations in progress or waiting; see the module.
#[derive(Default)]
pub(super) struct NameOrder {
    under_way: RefCell<BTreeMap<PathBuf, BTreeSet<u64>>>,
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

/// An operation in the order; its paths are free when it is dropped.
pub(super) struct Entered<'a> {
    order: &'a NameOrder,
    ticket: u64,
    paths: Vec<PathBuf>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut under_way = self.order.under_way.borrow_mut();
        for path in &self.paths {
            if let Some(tickets) = under_way.get_mut(path) {
                tickets.remove(&self.ticket);
                if tickets.is_empty() {
                    under_way.remove(path);
                }
            }
        }
        let mut waiting = self.order.waiting.borrow_mut();
        waiting.remove(&self.ticket);
        // Few wait, if any: each checks for itself.
        for waker in std::mem::take(&mut *waiting).into_values() {
            waker.wake();
        }
    }
}

impl NameOrder {
    /// Takes a place in the order now and waits for its turn.
    pub(super) async fn enter(&self, paths: &[&Path]) -> Entered<'_> {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        let entered = Entered {
            order: self,
            ticket,
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
        };
        for path in &entered.paths {
            let mut under_way = self.under_way.borrow_mut();
            under_way.entry(path.clone()).or_default().insert(ticket);
        }
        self.turn(ticket, paths).await;
        entered
    }

    /// Waits for earlier operations on `path` without holding up later ones: for operations that only look.
    pub(super) async fn follow(&self, path: &Path) {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        self.turn(ticket, &[path]).await;
    }

    async fn turn(&self, ticket: u64, paths: &[&Path]) {
        poll_fn(|context| {
            let mut paths = paths.iter();
            if !paths.any(|path| self.is_taken_before(ticket, path)) {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            self.waiting.borrow_mut().insert(ticket, waker);
            Poll::Pending
        })
        .await;
    }

    fn is_taken_before(&self, ticket: u64, path: &Path) -> bool {
        let under_way = self.under_way.borrow();
        let earlier =
            |tickets: &BTreeSet<u64>| tickets.first().is_some_and(|first| *first < ticket);
        let mut above = path.ancestors().filter_map(|path| under_way.get(path));
        if above.any(earlier) {
            return true;
        }
        let behind = (Bound::Excluded(path.to_owned()), Bound::Unbounded);
        let mut below = under_way
            .range::<PathBuf, _>(behind)
            .take_while(|(other, _)| other.starts_with(path));
        below.any(|(_, tickets)| earlier(tickets))
    }
}

#[cfg(test)]
mod tests {
    use super::{Entered, NameOrder};
    use std::future::Future;
    use std::path::Path;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll<'a>(future: Pin<&mut impl Future<Output = Entered<'a>>>) -> Poll<Entered<'a>> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A name waits for earlier work on it, on its directory and in it, and for nothing else.
    #[test]
    fn the_same_names_keep_their_order() {
        let order = NameOrder::default();
        let removal = [Path::new("/d/a-0")];
        let mut removing = pin!(order.enter(&removal));
        let Poll::Ready(removing) = poll(removing.as_mut()) else {
            panic!("nobody was before it")
        };
        for free in ["/d/a-00", "/d/a-01/1.log", "/d/b-0", "/e/a-0"] {
            let paths = [Path::new(free)];
            assert!(poll(pin!(order.enter(&paths))).is_ready(), "{free}");
        }
        let (same, inside) = ([Path::new("/d/a-0")], [Path::new("/d/a-0/1.log")]);
        let rename = [Path::new("/d/c-0"), Path::new("/d/a-0")];
        let mut same = pin!(order.enter(&same));
        assert!(poll(same.as_mut()).is_pending());
        let mut inside = pin!(order.enter(&inside));
        assert!(poll(inside.as_mut()).is_pending());
        let mut rename = pin!(order.enter(&rename));
        assert!(poll(rename.as_mut()).is_pending());
        drop(removing);
        // In the order asked, though all were freed by the same end.
        assert!(poll(rename.as_mut()).is_pending());
        assert!(poll(inside.as_mut()).is_pending());
        let Poll::Ready(done) = poll(same.as_mut()) else {
            panic!("its turn has come")
        };
        drop(done);
        let Poll::Ready(done) = poll(inside.as_mut()) else {
            panic!("its turn has come")
        };
        let looking = pin!(order.follow(Path::new("/d/a-0")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(looking.poll(&mut context).is_pending());
        drop(done);
        assert!(poll(rename.as_mut()).is_ready());
        assert!(order.under_way.borrow().is_empty());
    }
}
