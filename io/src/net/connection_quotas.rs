//! Connection quotas: the limits of all listeners together, and the counts against them.
//!
//! Shared by the accepting threads; the limits may change while connections are open, and hold from the next
//! one on. As in Kafka's class `ConnectionQuotas`, a connection beyond the total, its listener's number or a rate
//! waits in the backlog; one beyond its address's number is refused. A close or a change of limits wakes the
//! waiting listeners. Never closes an accepted connection.

use rustix::event::EventfdFlags;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A rate's burst: the connections it allows in this time.
const SAVED_UP: Duration = Duration::from_secs(1);

/// Limits of connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Open connections in all.
    pub connections_max: usize,
    /// Open connections of one address; 0 refuses the address.
    pub per_address_max: usize,
    /// Open connections of particular addresses.
    pub overrides: HashMap<IpAddr, usize>,
    /// New connections per second; `None` is unlimited.
    pub per_second_max: Option<u32>,
    /// Further limits of each listener, by its number.
    pub of_listeners: HashMap<usize, ListenerLimits>,
}

/// Limits of one listener's connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Open connections.
    pub connections_max: usize,
    /// New connections per second; `None` is unlimited.
    pub per_second_max: Option<u32>,
}

impl Default for ConnectionLimits {
    /// No limit.
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            connections_max: usize::MAX,
            per_address_max: usize::MAX,
            overrides: HashMap::new(),
            per_second_max: None,
            of_listeners: HashMap::new(),
        }
    }
}

/// The quotas of all listeners of a broker, asked before each accept.
#[derive(Default)]
pub struct ConnectionQuotas {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limits: ConnectionLimits,
    generation: u64,
    total: usize,
    per_address: HashMap<IpAddr, usize>,
    pace: RateClock,
    listeners: HashMap<usize, (usize, RateClock)>,
    bells: Vec<Arc<Bell>>,
    /// A listener waits, and no bell has rung since.
    is_awaited: bool,
}

/// Wakes one accepting thread, which polls it among its other descriptors.
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// The descriptor to poll: readable once the bell has rung.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Clears the bell; call before checking the quotas again.
    pub(super) fn reset(&self) {
        // Nothing to read when it has not rung: the counter does not block.
        let _not_rung = rustix::io::read(&self.0, &mut [0; 8]);
    }

    fn ring(&self) {
        // Fails only when the counter is full, and then it is readable.
        let _full = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// The rate's clock: each connection moves it one interval on.
#[derive(Clone, Copy, Default)]
struct RateClock(Option<Instant>);

impl RateClock {
    fn interval(per_second_max: Option<u32>) -> Duration {
        per_second_max.map_or(Duration::ZERO, |rate| SAVED_UP / rate.max(1))
    }

    /// The delay until the rate allows the next connection.
    fn wait(self, per_second_max: Option<u32>, now: Instant) -> Duration {
        let ahead = self.0.map(|at| at.saturating_duration_since(now));
        let ahead = ahead.unwrap_or_default() + RateClock::interval(per_second_max);
        match per_second_max {
            Some(_) => ahead.saturating_sub(SAVED_UP),
            None => Duration::ZERO,
        }
    }

    fn count(&mut self, per_second_max: Option<u32>, now: Instant) {
        let from = self.0.map_or(now, |at| at.max(now));
        self.0 = Some(from + RateClock::interval(per_second_max));
    }
}

/// Why the next connection of a listener stays in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BacklogWait {
    /// A rate is exceeded for this long.
    Rate(Duration),
    /// Another connection must close first.
    Room,
}

/// One connection's place in the counts, given up when dropped.
pub(super) struct QuotaPlace {
    quotas: Arc<ConnectionQuotas>,
    /// `Some` once counted.
    address: Option<IpAddr>,
    listener: usize,
}

impl Drop for QuotaPlace {
    fn drop(&mut self) {
        let mut state = self.quotas.lock();
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
    /// Wakes the waiting listeners.
    fn ring(&mut self) {
        if std::mem::take(&mut self.is_awaited) {
            self.bells.iter().for_each(|bell| bell.ring());
        }
    }
}

impl QuotaPlace {
    /// Counts the connection for its address; `None` at the address's limit.
    pub(super) fn of_address(mut self, address: IpAddr) -> Option<QuotaPlace> {
        let quotas = Arc::clone(&self.quotas);
        let mut guard = quotas.lock();
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

impl ConnectionQuotas {
    /// Quotas with these limits.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Arc<ConnectionQuotas> {
        let quotas = ConnectionQuotas::default();
        quotas.change(limits);
        Arc::new(quotas)
    }

    /// Replaces the limits, for the next connection on.
    pub fn change(&self, limits: ConnectionLimits) {
        let mut state = self.lock();
        state.limits = limits;
        state.generation += 1;
        state.ring();
    }

    /// The number of changes so far, for [`ConnectionQuotas::change_if`].
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Replaces the limits unless they have changed since `generation` was read.
    pub fn change_if(&self, generation: u64, limits: ConnectionLimits) {
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

    /// A bell that rings when a connection closes or the limits change.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub(super) fn bell(&self) -> io::Result<Arc<Bell>> {
        let counter = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell(counter));
        self.lock().bells.push(Arc::clone(&bell));
        Ok(bell)
    }

    /// A place for the listener's next connection, not yet counted for an address.
    ///
    /// # Errors
    /// The reason to wait.
    pub(super) fn reserve(
        quotas: &Arc<ConnectionQuotas>,
        listener: usize,
    ) -> Result<QuotaPlace, BacklogWait> {
        let mut guard = quotas.lock();
        let (state, now) = (&mut *guard, Instant::now());
        let limits = &state.limits;
        let own = limits.of_listeners.get(&listener);
        let (count, pace) = state.listeners.entry(listener).or_default();
        let listener_max = own.map_or(usize::MAX, |own| own.connections_max);
        if state.total >= limits.connections_max || *count >= listener_max {
            state.is_awaited = true;
            return Err(BacklogWait::Room);
        }
        let of_all = state.pace.wait(limits.per_second_max, now);
        let of_own = pace.wait(own.and_then(|own| own.per_second_max), now);
        let delay = of_all.max(of_own);
        if !delay.is_zero() {
            state.is_awaited = true;
            return Err(BacklogWait::Rate(delay));
        }
        *count += 1;
        state.total += 1;
        Ok(QuotaPlace {
            quotas: Arc::clone(quotas),
            address: None,
            listener,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BacklogWait, ConnectionLimits, ConnectionQuotas, ListenerLimits, RateClock};
    use std::collections::HashMap;
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    #[test]
    fn limits_hold_over_all_listeners_and_from_the_change_on() {
        let own = ListenerLimits {
            connections_max: 1,
            per_second_max: None,
        };
        let quotas = ConnectionQuotas::new(ConnectionLimits {
            connections_max: 3,
            of_listeners: HashMap::from([(1, own)]),
            ..ConnectionLimits::default()
        });
        let address: IpAddr = [127, 0, 0, 1].into();
        let enter = |listener| {
            let place = ConnectionQuotas::reserve(&quotas, listener).ok();
            place.and_then(|place| place.of_address(address))
        };
        let waits = |listener| ConnectionQuotas::reserve(&quotas, listener).err();
        let first = enter(0);
        let second = enter(1);
        assert!(first.is_some() && second.is_some());
        assert_eq!(
            waits(1),
            Some(BacklogWait::Room),
            "the listener's own limit"
        );
        let third = enter(0);
        assert!(third.is_some());
        assert_eq!(waits(0), Some(BacklogWait::Room), "in all");
        quotas.change(ConnectionLimits {
            per_address_max: 3,
            ..ConnectionLimits::default()
        });
        assert!(enter(0).is_none(), "of the address");
        drop(second);
        let again = enter(1);
        assert!(again.is_some() && enter(0).is_none());
        quotas.change(ConnectionLimits {
            overrides: HashMap::from([(address, 4)]),
            per_address_max: 0,
            ..ConnectionLimits::default()
        });
        assert!(enter(0).is_some());
        let other = ConnectionQuotas::reserve(&quotas, 0).expect("room for others");
        assert!(other.of_address([127, 0, 0, 2].into()).is_none());
        assert!(waits(0).is_none(), "who was refused holds no place");
    }

    /// True when the bell has rung since the last call.
    fn is_rung(bell: &super::Bell) -> bool {
        rustix::io::read(bell.descriptor(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn who_leaves_and_who_changes_the_limits_wakes_those_that_wait() {
        let limits = ConnectionLimits {
            connections_max: 1,
            ..ConnectionLimits::default()
        };
        let quotas = ConnectionQuotas::new(limits.clone());
        let bells = [0, 1].map(|_| quotas.bell().expect("a descriptor"));
        let mut place = ConnectionQuotas::reserve(&quotas, 0).expect("room");
        let rung = || bells.iter().all(|bell| is_rung(bell));
        for address in [Some([127, 0, 0, 1].into()), None] {
            assert_eq!(
                ConnectionQuotas::reserve(&quotas, 1).err(),
                Some(BacklogWait::Room)
            );
            assert!(!rung());
            place.address = address;
            drop(place);
            assert!(rung(), "taken or given up, others may have waited for it");
            place = ConnectionQuotas::reserve(&quotas, 0).expect("room");
        }
        assert_eq!(
            ConnectionQuotas::reserve(&quotas, 1).err(),
            Some(BacklogWait::Room)
        );
        quotas.change(limits.clone());
        assert!(rung());
        assert_eq!(
            ConnectionQuotas::reserve(&quotas, 1).err(),
            Some(BacklogWait::Room)
        );
        quotas.change_if(quotas.generation(), limits);
        assert!(rung());
        drop(place);
        assert!(!rung(), "nobody waits");
    }

    #[test]
    fn a_rate_saves_up_a_second_and_no_more() {
        let (mut pace, start, rate) = (RateClock::default(), Instant::now(), Some(4));
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
