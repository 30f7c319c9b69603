//! Who may connect: the limits of all listeners together, and the counts behind them.
//!
//! Shared by the threads that accept; the limits may change while connections are open, and hold for
//! the next one. A connection that exceeds a number is refused, one that comes too fast waits in the
//! backlog. Never closes a connection that was let in.

use std::collections::HashMap;
use std::net::IpAddr;
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

/// One connection's place in the counts, given up when dropped.
pub(super) struct DoorPlace {
    door: Arc<Door>,
    address: IpAddr,
    listener: usize,
}

impl Drop for DoorPlace {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.total = state.total.saturating_sub(1);
        if let Some((count, _)) = state.listeners.get_mut(&self.listener) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = state.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.per_address.remove(&self.address);
            }
        }
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
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next connection of a listener is to be left in the backlog.
    pub(super) fn delay(&self, listener: usize) -> Duration {
        let (state, now) = (self.lock(), Instant::now());
        let all = state.pace.wait(state.limits.per_second_max, now);
        let own = state.limits.of_listeners.get(&listener);
        let pace = state.listeners.get(&listener).map(|(_, pace)| *pace);
        let own = pace
            .unwrap_or_default()
            .wait(own.and_then(|own| own.per_second_max), now);
        all.max(own)
    }

    /// A place for a connection, if the limits have one.
    pub(super) fn enter(door: &Arc<Door>, listener: usize, address: IpAddr) -> Option<DoorPlace> {
        let mut guard = door.lock();
        let (state, now) = (&mut *guard, Instant::now());
        let limits = &state.limits;
        state.pace.count(limits.per_second_max, now);
        let own = limits.of_listeners.get(&listener).copied();
        let (count, pace) = state.listeners.entry(listener).or_default();
        pace.count(own.and_then(|own| own.per_second_max), now);
        let of_address = state.per_address.get(&address).copied().unwrap_or(0);
        let address_max = limits.overrides.get(&address.to_canonical());
        let address_max = address_max.copied().unwrap_or(limits.per_address_max);
        let listener_max = own.map_or(usize::MAX, |own| own.connections_max);
        if state.total >= limits.connections_max
            || *count >= listener_max
            || of_address >= address_max
        {
            return None;
        }
        *count += 1;
        state.total += 1;
        state.per_address.insert(address, of_address + 1);
        Some(DoorPlace {
            door: Arc::clone(door),
            address,
            listener,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Door, DoorLimits, ListenerLimits, Pace};
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
        let enter = |listener| Door::enter(&door, listener, address);
        let first = enter(0);
        let second = enter(1);
        assert!(first.is_some() && second.is_some());
        assert!(enter(1).is_none(), "the listener's own limit");
        let third = enter(0);
        assert!(third.is_some() && enter(0).is_none(), "in all");
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
        assert!(Door::enter(&door, 0, [127, 0, 0, 2].into()).is_none());
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
