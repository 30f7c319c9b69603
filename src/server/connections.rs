//! The open connections of a shard, and the one timer that closes those nobody uses.
//!
//! Lives on one shard. The timer sleeps until the first connection could be due, and not at all
//! while there is none. Never limits how many there are; the listener does.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::rc::{Rc, Weak};

use chronik_io::World;
use futures_util::future::{Either, select};

use super::arrival::{self, Holder};
use super::budget::ByteBudget;
use super::link::{End, Link};
use super::signal::Signal;

/// How long an answer may not be taken while others wait for theirs, ns.
const UNTAKEN_NS_MAX: u64 = 10_000_000_000;
/// How fast a client takes its answers at least while others wait for theirs, bytes per second. One that
/// takes a little now and then would otherwise keep them waiting as long as it likes.
const TAKEN_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// The timer looks at most this often within the idle time.
const LOOKS_PER_IDLE_TIME: u64 = 16;

/// The connections of a shard.
#[derive(Default)]
pub(crate) struct Connections {
    links: RefCell<HashMap<u64, Rc<Link>>>,
    next: Cell<u64>,
    changed: Signal,
    emptied: Signal,
    draining: Cell<bool>,
}

/// Removes a connection from the list when dropped.
pub(crate) struct Entry {
    connections: Weak<Connections>,
    key: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.upgrade() {
            let mut links = connections.links.borrow_mut();
            links.remove(&self.key);
            if links.is_empty() {
                connections.emptied.notify();
            }
        }
    }
}

impl Connections {
    /// Lists a connection until the entry is dropped.
    pub(crate) fn add(self: &Rc<Self>, link: &Rc<Link>) -> Entry {
        let key = self.next.get();
        self.next.set(key + 1);
        let mut links = self.links.borrow_mut();
        links.insert(key, Rc::clone(link));
        if links.len() == 1 {
            self.changed.notify();
        }
        if self.draining.get() {
            link.drain();
        }
        Entry {
            connections: Rc::downgrade(self),
            key,
        }
    }

    /// Open connections.
    pub(crate) fn len(&self) -> usize {
        self.links.borrow().len()
    }

    /// One of them.
    #[cfg(test)]
    pub(crate) fn any(&self) -> Rc<Link> {
        self.snapshot().pop().expect("there is one")
    }

    /// Lets every connection answer what it took, take nothing more, and end.
    pub(crate) fn begin_drain(&self) {
        self.draining.set(true);
        for link in self.snapshot() {
            link.drain();
        }
    }

    /// Returns when all connections have ended; ends the rest at `deadline_ns`.
    pub(crate) async fn drained(&self, world: &impl World, deadline_ns: u64) {
        let all = async {
            while self.len() > 0 {
                self.emptied.wait().await;
            }
        };
        if let Either::Right(_) = select(pin!(all), world.sleep_until(deadline_ns)).await {
            for link in self.snapshot() {
                link.finish(End::Stopping);
            }
        }
    }

    fn snapshot(&self) -> Vec<Rc<Link>> {
        self.links.borrow().values().cloned().collect()
    }

    /// Closes what is idle for `idle_ns_max` (`None`: nothing), and, while others wait for bytes,
    /// who sits on an unfinished frame or does not take an answer. Never returns.
    pub(crate) async fn watch(
        self: Rc<Self>,
        world: impl World,
        budget: Rc<ByteBudget>,
        idle_ns_max: Option<u64>,
    ) {
        loop {
            let now_ns = world.monotonic_ns();
            let idle_due = idle_ns_max.and_then(|idle_ns_max| self.close_idle(now_ns, idle_ns_max));
            let part_due = budget
                .is_pressed()
                .then(|| self.close_stalled(now_ns, budget.demand()));
            let answer_due = budget.answers_wait().then(|| self.close_untaken(now_ns));
            let (changed, pressed) = (pin!(self.changed.wait()), pin!(budget.pressed.wait()));
            let wake = select(changed, pressed);
            match [idle_due, part_due, answer_due].into_iter().flatten().min() {
                Some(due_ns) => {
                    select(wake, world.sleep_until(due_ns)).await;
                }
                None => {
                    wake.await;
                }
            }
        }
    }

    /// Ends idle connections; when to look again.
    fn close_idle(&self, now_ns: u64, idle_ns_max: u64) -> Option<u64> {
        let soonest = now_ns.saturating_add(idle_ns_max / LOOKS_PER_IDLE_TIME);
        let mut due: Option<u64> = None;
        for link in self.snapshot() {
            let expires = link.active_ns.get().saturating_add(idle_ns_max);
            // Who waits for an answer is not idle, unless it does not take what it is sent, or has left.
            let waits = || link.is_busy() && !link.sending.get() && !link.standing().has_left;
            if expires <= now_ns && !waits() {
                link.finish(End::Idle);
            } else {
                let look = expires.max(soonest);
                due = Some(due.map_or(look, |due| due.min(look)));
            }
        }
        due
    }

    /// Ends connections that take their answers too slowly; when to look again.
    fn close_untaken(&self, now_ns: u64) -> u64 {
        for link in self.snapshot() {
            let quiet_ns = now_ns.saturating_sub(link.active_ns.get());
            let behind_ns = link.behind_ns(now_ns, TAKEN_BYTES_PER_SECOND_MIN);
            if link.sending.get() && quiet_ns.max(behind_ns) >= UNTAKEN_NS_MAX {
                let reason = "an answer was not taken for 10 s, or at less than 1 MiB a second, while \
                              others waited for theirs";
                link.finish(End::Fault(reason.to_owned()));
            }
        }
        now_ns.saturating_add(UNTAKEN_NS_MAX / LOOKS_PER_IDLE_TIME)
    }

    /// Ends connections that hold room and send nothing, or take nothing: as many as those who wait
    /// need; when to look again.
    fn close_stalled(&self, now_ns: u64, demand: (usize, usize)) -> u64 {
        let links = self.snapshot();
        let holding = links
            .iter()
            .filter_map(|link| Some((link, link.holding()?)));
        let (links, holders): (Vec<&Rc<Link>>, Vec<Holder>) = holding.unzip();
        let found = arrival::look(&holders, demand, now_ns, |at| {
            links[at].is_served_late(now_ns)
        });
        for at in found.closed {
            let reason = "nothing came of a request, or was taken of an answer, or too little a second, \
                          while others waited for the room that is held";
            links[at].finish(End::Fault(reason.to_owned()));
        }
        now_ns.saturating_add(found.again_ns)
    }
}
