//! Who may connect: the limits of all listeners together, and the counts behind them.
//!
//! Shared by the threads that accept; the limits may change while connections are open, and hold for
//! the next one. As in Kafka (`ConnectionQuotas`), a connection beyond the number of all or of its listener,
//! and one that comes too fast, waits in the backlog; one beyond the number of its address is refused. Who
//! leaves and who changes the limits wakes those that wait. Never closes a connection that was let in.

use rustix::event::EventfdFlags;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a rate may save up: as many connections as it allows in this time.
const SAVED_UP: Duration = Duration::from_secs(1);

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// In all.
    pub connections_max: usize,
    /// Of one address; 0 refuses the address.
    pub per_address_max: usize,
    /// Of particular addresses.
    pub overrides: HashMap<IpAddr, usize>,
    /// New ones in a second; `None` for any number.
    pub per_second_max: Option<u32>,
    /// What each listener may have besides, by its number.
    pub of_listeners: HashMap<usize, ListenerLimits>,
}

/// How many connections one listener may have.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// At a time.
    pub connections_max: usize,
    /// New ones in a second; `None` for any number.
    pub per_second_max: Option<u32>,
}

impl Default for DoorLimits {
    /// Any number.
    fn default() -> DoorLimits {
        DoorLimits {
            connections_max: usize::MAX,
            per_address_max: usize::MAX,
            overrides: HashMap::new(),
            per_second_max: None,
            of_listeners: HashMap::new(),
        }
    }
}

/// What all listeners of a broker ask before they take a connection.
#[derive(Default)]
pub struct Door {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limits: DoorLimits,
    generation: u64,
    total: usize,
    per_address: HashMap<IpAddr, usize>,
    pace: Pace,
    listeners: HashMap<usize, (usize, Pace)>,
    bells: Vec<Arc<Bell>>,
    /// Somebody was told to wait, and no bell was rung since.
    is_awaited: bool,
}

/// Wakes one accepting thread, which watches it among its other descriptors.
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// What to watch: readable once it was rung.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Forgets that it was rung; to be called before looking at what it was rung for.
    pub(super) fn reset(&self) {
        // There is nothing to read where it was not rung: the counter does not block.
        let _not_rung = rustix::io::read(&self.0, &mut [0; 8]);
    }

    fn ring(&self) {
        // It can only fail where the counter is full, and then it is readable.
        let _full = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// How fast connections came: each one moves the time at which the rate would have let it in.
#[derive(Clone, Copy, Default)]
struct Pace(Option<Instant>);

impl Pace {
    fn interval(per_second_max: Option<u32>) -> Duration {
        per_second_max.map_or(Duration::ZERO, |rate| SAVED_UP / rate.max(1))
    }

    /// How long the next one has to wait.
    fn wait(self, per_second_max: Option<u32>, now: Instant) -> Duration {
        let ahead = self.0.map(|at| at.saturating_duration_since(now));
        let ahead = ahead.unwrap_or_default() + Pace::interval(per_second_max);
        match per_second_max {
            Some(_) => ahead.saturating_sub(SAVED_UP),
            None => Duration::ZERO,
        }
    }

    fn count(&mut self, per_second_max: Option<u32>, now: Instant) {
        let from = self.0.map_or(now, |at| at.max(now));
        self.0 = Some(from + Pace::interval(per_second_max));
    }
}

/// Why the next connection of a listener is left in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It comes too fast by this much.
    Rate(Duration),
    /// Others have to leave first.
    Room,
}

/// One connection's place in the counts, given up when dropped.
pub(super) struct DoorPlace {
    door: Arc<Door>,
    /// Counted once it is known.
    address: Option<IpAddr>,
    listener: usize,
}

impl Drop for DoorPlace {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.total = state.total.saturating_sub(1);
        if let Some((count, _)) = state.listeners.get_mut(&self.listener) {
            *count = count.saturating_sub(1);
        }
        if let Some(address) = self.address
            && let Some(count) = state.per_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                state.per_address.remove(&address);
            }
        }
        state.ring();
    }
}

impl State {
    /// Everybody who waits looks again.
    fn ring(&mut self) {
        if std::mem::take(&mut self.is_awaited) {
            self.bells.iter().for_each(|bell| bell.ring());
        }
    }
}

impl DoorPlace {
    /// Counts it for its address, if that may have one more.
    pub(super) fn of_address(mut self, address: IpAddr) -> Option<DoorPlace> {
        let door = Arc::clone(&self.door);
        let mut guard = door.lock();
        let state = &mut *guard;
        let now = Instant::now();
        state.pace.count(state.limits.per_second_max, now);
        let own = state.limits.of_listeners.get(&self.listener);
        let rate = own.and_then(|own| own.per_second_max);
        let (_, pace) = state.listeners.entry(self.listener).or_default();
        pace.count(rate, now);
        let count = state.per_address.get(&address).copied().unwrap_or(0);
        let max = state.limits.overrides.get(&address.to_canonical());
        if count >= max.copied().unwrap_or(state.limits.per_address_max) {
            drop(guard); // The place is given up on the way out, which takes the lock.
            return None;
        }
        state.per_address.insert(address, count + 1);
        drop(guard);
        self.address = Some(address);
        Some(self)
    }
}

impl Door {
    /// A door with these limits.
    #[must_use]
    pub fn new(limits: DoorLimits) -> Arc<Door> {
        let door = Door::default();
        door.change(limits);
        Arc::new(door)
    }

    /// These limits hold from now on.
    pub fn change(&self, limits: DoorLimits) {
        let mut state = self.lock();
        state.limits = limits;
        state.generation += 1;
        state.ring();
    }

    /// How often the limits were changed: a handle for [`Door::change_if`].
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// These limits hold from now on, unless they were changed since `generation` was asked for.
    pub fn change_if(&self, generation: u64, limits: DoorLimits) {
        let mut state = self.lock();
        if state.generation == generation {
            state.limits = limits;
            state.generation += 1;
            state.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bell that rings when somebody left or the limits changed.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub(super) fn bell(&self) -> io::Result<Arc<Bell>> {
        let counter = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell(counter));
        self.lock().bells.push(Arc::clone(&bell));
        Ok(bell)
    }

    /// A place for the next connection of a listener, to be given its address.
    ///
    /// # Errors
    /// What it has to wait for.
    pub(super) fn reserve(door: &Arc<Door>, listener: usize) -> Result<DoorPlace, Wait> {
        let mut guard = door.lock();
        let (state, now) = (&mut *guard, Instant::now());
        let limits = &state.limits;
        let own = limits.of_listeners.get(&listener);
        let (count, pace) = state.listeners.entry(listener).or_default();
        let listener_max = own.map_or(usize::MAX, |own| own.connections_max);
        if state.total >= limits.connections_max || *count >= listener_max {
            state.is_awaited = true;
            return Err(Wait::Room);
        }
        let of_all = state.pace.wait(limits.per_second_max, now);
        let of_own = pace.wait(own.and_then(|own| own.per_second_max), now);
        let delay = of_all.max(of_own);
        if !delay.is_zero() {
            state.is_awaited = true;
            return Err(Wait::Rate(delay));
        }
        *count += 1;
        state.total += 1;
        Ok(DoorPlace {
            door: Arc::clone(door),
            address: None,
            listener,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Door, DoorLimits, ListenerLimits, Pace, Wait};
    use std::collections::HashMap;
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    #[test]
    fn limits_hold_over_all_listeners_and_from_the_change_on() {
        let own = ListenerLimits {
            connections_max: 1,
            per_second_max: None,
        };
        let door = Door::new(DoorLimits {
            connections_max: 3,
            of_listeners: HashMap::from([(1, own)]),
            ..DoorLimits::default()
        });
        let address: IpAddr = [127, 0, 0, 1].into();
        let enter = |listener| {
            let place = Door::reserve(&door, listener).ok();
            place.and_then(|place| place.of_address(address))
        };
        let waits = |listener| Door::reserve(&door, listener).err();
        let first = enter(0);
        let second = enter(1);
        assert!(first.is_some() && second.is_some());
        assert_eq!(waits(1), Some(Wait::Room), "the listener's own limit");
        let third = enter(0);
        assert!(third.is_some());
        assert_eq!(waits(0), Some(Wait::Room), "in all");
        door.change(DoorLimits {
            per_address_max: 3,
            ..DoorLimits::default()
        });
        assert!(enter(0).is_none(), "of the address");
        drop(second);
        let again = enter(1);
        assert!(again.is_some() && enter(0).is_none());
        door.change(DoorLimits {
            overrides: HashMap::from([(address, 4)]),
            per_address_max: 0,
            ..DoorLimits::default()
        });
        assert!(enter(0).is_some());
        let other = Door::reserve(&door, 0).expect("room for others");
        assert!(other.of_address([127, 0, 0, 2].into()).is_none());
        assert!(waits(0).is_none(), "who was refused holds no place");
    }

    /// Whether it was rung; it is not any more.
    fn is_rung(bell: &super::Bell) -> bool {
        rustix::io::read(bell.descriptor(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn who_leaves_and_who_changes_the_limits_wakes_those_that_wait() {
        let limits = DoorLimits {
            connections_max: 1,
            ..DoorLimits::default()
        };
        let door = Door::new(limits.clone());
        let bells = [0, 1].map(|_| door.bell().expect("a descriptor"));
        let mut place = Door::reserve(&door, 0).expect("room");
        let rung = || bells.iter().all(|bell| is_rung(bell));
        for address in [Some([127, 0, 0, 1].into()), None] {
            assert_eq!(Door::reserve(&door, 1).err(), Some(Wait::Room));
            assert!(!rung());
            place.address = address;
            drop(place);
            assert!(rung(), "taken or given up, others may have waited for it");
            place = Door::reserve(&door, 0).expect("room");
        }
        assert_eq!(Door::reserve(&door, 1).err(), Some(Wait::Room));
        door.change(limits.clone());
        assert!(rung());
        assert_eq!(Door::reserve(&door, 1).err(), Some(Wait::Room));
        door.change_if(door.generation(), limits);
        assert!(rung());
        drop(place);
        assert!(!rung(), "nobody waits");
    }

    #[test]
    fn a_rate_saves_up_a_second_and_no_more() {
        let (mut pace, start, rate) = (Pace::default(), Instant::now(), Some(4));
        for _ in 0..4 {
            assert_eq!(pace.wait(rate, start), Duration::ZERO);
            pace.count(rate, start);
        }
        assert_eq!(pace.wait(rate, start), Duration::from_millis(250));
        assert_eq!(pace.wait(None, start), Duration::ZERO);
        let later = start + Duration::from_secs(60);
        for _ in 0..4 {
            assert_eq!(pace.wait(rate, later), Duration::ZERO);
            pace.count(rate, later);
        }
        assert_eq!(pace.wait(rate, later), Duration::from_millis(250));
    }
}
