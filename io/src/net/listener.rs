//! Accepting connections: one plain thread per listening socket, which hands them to the shards.
//!
//! Owns the listening socket and the queues to the shards; the limits are `connection_quotas`'s. A thread of its
//! own because glommio's `accept` loses connections when cancelled, spins when descriptors run out, and its
//! `bind` lets a second broker take the same port. Never reads a byte from a connection.

use super::connection_quotas::{BacklogWait, Bell, ConnectionQuotas, QuotaPlace};
use super::place::{ConnectionPlace, ConnectionRefusal, Counts, ListenLimits, lock};
use super::stream::DirectStream;
use crate::descriptors::ConnectionDescriptors;
use crate::direct::DirectWorld;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// The pause with connections left in the backlog when descriptors or memory have run out.
const EXHAUSTED_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The pause when `poll(2)` fails: not even the stop can be waited for.
const UNWATCHED_WAIT: Duration = Duration::from_millis(100);

/// `poll(2)`, replaced in tests.
type Watch =
    for<'a, 'b> fn(&'a mut [PollFd<'b>], Option<&'a Timespec>) -> rustix::io::Result<usize>;

/// Refused connections are reported in at most one line in this time.
const REFUSALS_TOLD_EACH: Duration = Duration::from_secs(10);

/// A bound socket that accepts no connection yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address` (port 0 takes a free one). The kernel may queue connections from now on.
    ///
    /// # Errors
    /// `AddrInUse` if the port is taken: it is never shared.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        // std sets SO_REUSEADDR, which a restart needs, and not SO_REUSEPORT.
        let socket = TcpListener::bind(address)?;
        // A second listen(2) only changes the backlog, which std keeps at 128.
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    }

    /// The bound address, with the port in use.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts accepting, for `shards` shards; each takes its connections from its [`Incoming`].
    ///
    /// # Errors
    /// If the thread cannot be started.
    ///
    /// # Panics
    /// If there are no shards.
    pub fn start(
        self,
        shards: usize,
        limits: ListenLimits,
    ) -> io::Result<(Accepting, Vec<Incoming>)> {
        self.start_with(shards, limits, |watched, timeout| {
            rustix::event::poll(watched, timeout)
        })
    }

    fn start_with(
        self,
        shards: usize,
        limits: ListenLimits,
        poll: Watch,
    ) -> io::Result<(Accepting, Vec<Incoming>)> {
        assert!(shards > 0);
        let queues: Vec<Arc<Queue>> = (0..shards).map(|_| Arc::default()).collect();
        let counts = Counts {
            per_shard: vec![0; shards],
        };
        let (stop, stopped) = UnixStream::pair()?;
        let bell = limits.quotas.bell()?;
        let acceptor = Acceptor {
            listener: self,
            stopped,
            bell,
            limits,
            counts: Arc::new(Mutex::new(counts)),
            queues: queues.clone(),
            log: RefusalLog::default(),
            poll,
        };
        let name = format!("accept-{}", acceptor.listener.address.port());
        let thread = Builder::new().name(name).spawn(move || acceptor.run())?;
        let incoming = queues.into_iter().map(|queue| Incoming { queue });
        Ok((
            Accepting {
                stop: Some(stop),
                thread: Some(thread),
            },
            incoming.collect(),
        ))
    }
}

/// The accepting thread's handle; dropping it stops the thread and closes the socket.
pub struct Accepting {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Accepting {
    /// Stops accepting and frees the port. Accepted connections live on.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the accepting thread panicked");
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    accepted: VecDeque<Accepted>,
    waker: Option<Waker>,
    ended: bool,
}

/// A shard's share of the accepted connections. Send it to its shard and take from it there.
pub struct Incoming {
    queue: Arc<Queue>,
}

impl Incoming {
    /// The next connection; `None` once accepting has stopped and all are taken.
    pub async fn next(&mut self) -> Option<Accepted> {
        poll_fn(|context| {
            let mut state = lock(&self.queue.state);
            if let Some(accepted) = state.accepted.pop_front() {
                return Poll::Ready(Some(accepted));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A connection that belongs to no executor yet.
pub struct Accepted {
    socket: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    place: ConnectionPlace,
}

impl Accepted {
    /// The other end's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Makes it a stream of this shard.
    #[must_use]
    pub fn into_stream(self, world: &DirectWorld) -> DirectStream {
        DirectStream::new(world, self.socket, self.peer, self.local, Some(self.place))
    }
}

struct Acceptor {
    listener: Listener,
    stopped: UnixStream,
    /// Rings when the quotas may allow a waiting connection.
    bell: Arc<Bell>,
    limits: ListenLimits,
    counts: Arc<Mutex<Counts>>,
    queues: Vec<Arc<Queue>>,
    log: RefusalLog,
    poll: Watch,
}

/// The log's memory of connections not accepted, so that a lasting state is one line.
#[derive(Default)]
struct RefusalLog {
    /// No connection could be accepted, and none has been since.
    exhausted: bool,
    /// A connection found no descriptor, and none has been accepted since.
    short: bool,
    /// `poll(2)` failed, and has not succeeded since.
    unwatched: Cell<bool>,
    /// Time of the last line about a refusal.
    last: Option<Instant>,
    /// Time of the last line about waiting connections.
    full: Option<Instant>,
    /// Refusals since the last line.
    untold: u64,
}

impl RefusalLog {
    /// A connection was refused.
    fn refused(
        &mut self,
        why: ConnectionRefusal,
        peer: SocketAddr,
        descriptors: &ConnectionDescriptors,
    ) {
        self.short |= why == ConnectionRefusal::NoDescriptor;
        if self
            .last
            .is_some_and(|last| last.elapsed() < REFUSALS_TOLD_EACH)
        {
            self.untold += 1;
            return;
        }
        self.last = Some(Instant::now());
        let untold = std::mem::take(&mut self.untold);
        match why {
            ConnectionRefusal::TooMany => {
                tracing::warn!(%peer, untold, "disconnected: too many connections of its address")
            }
            ConnectionRefusal::NoDescriptor => tracing::warn!(
                %peer, untold, connections_max = descriptors.max(),
                "disconnected: the descriptors that are left are kept for files; raise the limit (ulimit -Hn, \
                 or LimitNOFILE= of the service)"
            ),
        }
    }

    /// Connections wait for others to close.
    fn full(&mut self, listener: SocketAddr) {
        if self
            .full
            .is_none_or(|last| last.elapsed() >= REFUSALS_TOLD_EACH)
        {
            self.full = Some(Instant::now());
            tracing::warn!(
                %listener,
                "max.connections is reached: new connections wait until others are closed"
            );
        }
    }

    /// A connection was accepted.
    fn taken(&mut self) {
        if std::mem::take(&mut self.exhausted) | std::mem::take(&mut self.short) {
            tracing::warn!("there are descriptors for connections again");
        }
    }
}

impl Acceptor {
    fn run(mut self) {
        while self.wait() {
            self.bell.reset();
            let place = match ConnectionQuotas::reserve(&self.limits.quotas, self.limits.listener) {
                Ok(place) => place,
                Err(wait) => match self.leave_waiting(wait) {
                    true => continue,
                    false => break,
                },
            };
            match self.listener.socket.accept() {
                Ok((socket, peer)) => {
                    if let Err(error) = self.take(socket, peer, place) {
                        // Closed again before it was set up.
                        tracing::debug!(%peer, %error, "a connection was not taken");
                    }
                }
                Err(error) if is_exhausted(&error) => {
                    drop(place); // Others need not rest.
                    if !std::mem::replace(&mut self.log.exhausted, true) {
                        tracing::error!(%error, "no connection can be accepted for the moment");
                    }
                    if !self.rest() {
                        break;
                    }
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    tracing::debug!(%error, "a connection was lost before it was accepted");
                }
                Err(_) => {}
            }
        }
        for queue in &self.queues {
            let mut state = lock(&queue.state);
            state.ended = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// Sleeps until there is a connection; false when told to stop.
    fn wait(&self) -> bool {
        let ready = PollFd::new(&self.listener.socket, PollFlags::IN);
        self.sleep(&mut [self.stop(), ready], None)
    }

    /// Leaves connections in the backlog for a while, because descriptors have run out; false when told to stop. With
    /// an empty backlog [`Acceptor::wait`] then sleeps on.
    fn rest(&self) -> bool {
        self.sleep(&mut [self.stop()], Some(&EXHAUSTED_WAIT))
    }

    /// Leaves connections in the backlog until the quotas may allow one; false when told to stop.
    fn leave_waiting(&mut self, wait: BacklogWait) -> bool {
        let timeout = match wait {
            BacklogWait::Rate(delay) => Some(Timespec::try_from(delay).unwrap_or(EXHAUSTED_WAIT)),
            BacklogWait::Room => {
                self.log.full(self.listener.address);
                None
            }
        };
        let rung = PollFd::new(self.bell.descriptor(), PollFlags::IN);
        self.sleep(&mut [self.stop(), rung], timeout.as_ref())
    }

    fn stop(&self) -> PollFd<'_> {
        PollFd::new(&self.stopped, PollFlags::IN | PollFlags::HUP)
    }

    fn sleep(&self, watched: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> bool {
        match (self.poll)(watched, timeout) {
            Ok(_) | Err(Errno::INTR) => {
                self.log.unwatched.set(false);
                watched[0].revents().is_empty()
            }
            Err(error) => {
                if !self.log.unwatched.replace(true) {
                    tracing::error!(%error, "connections cannot be waited for at the moment; trying again");
                }
                self.rest_unwatched()
            }
        }
    }

    /// Rests without `poll(2)`, which fails while the kernel has no memory; false when told to stop. With an empty
    /// backlog the next wait fails again and comes back here.
    fn rest_unwatched(&self) -> bool {
        std::thread::sleep(UNWATCHED_WAIT);
        let mut nothing = [0];
        let told = rustix::net::recv(&self.stopped, &mut nothing, RecvFlags::DONTWAIT);
        matches!(told, Err(Errno::AGAIN | Errno::INTR))
    }

    fn take(&mut self, socket: TcpStream, peer: SocketAddr, place: QuotaPlace) -> io::Result<()> {
        let place = match Counts::admit(&self.counts, &self.limits, place, peer.ip()) {
            Ok(place) => place,
            Err(why) => {
                drop(socket); // Before anything is said: a slow terminal must not keep descriptors.
                self.log.refused(why, peer, &self.limits.descriptors);
                return Ok(());
            }
        };
        self.log.taken();
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(&socket, true)?;
        let local = socket.local_addr()?;
        let queue = &self.queues[place.shard];
        let mut state = lock(&queue.state);
        state.accepted.push_back(Accepted {
            socket,
            peer,
            local,
            place,
        });
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

/// True for errors of `accept(2)` that last until a resource is freed: retrying at once would spin. Unknown
/// errors count as such; the others removed their connection from the backlog.
fn is_exhausted(error: &io::Error) -> bool {
    const PASSED: [Errno; 14] = [
        Errno::AGAIN,
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::TIMEDOUT,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
        Errno::OPNOTSUPP,
    ];
    !Errno::from_io_error(error).is_some_and(|errno| PASSED.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number of waits still to fail.
    static FAILURES: AtomicUsize = AtomicUsize::new(0);

    fn failing_poll(
        watched: &mut [PollFd<'_>],
        timeout: Option<&Timespec>,
    ) -> rustix::io::Result<usize> {
        let one_less = |left: usize| left.checked_sub(1);
        let failed = FAILURES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        match failed {
            Ok(left) if left % 2 == 0 => Err(Errno::NOMEM),
            Ok(_) => Err(Errno::INVAL),
            Err(_) => rustix::event::poll(watched, timeout),
        }
    }

    #[test]
    fn an_error_of_waiting_ends_no_acceptor_and_keeps_none_from_ending() {
        FAILURES.store(4, Ordering::SeqCst);
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.address();
        let started = listener.start_with(1, ListenLimits::default(), failing_poll);
        let (accepting, mut incoming) = started.expect("a thread");
        let _client = TcpStream::connect(address).expect("the kernel takes it");
        let mut context = std::task::Context::from_waker(Waker::noop());
        while pin!(incoming[0].next()).poll(&mut context).is_pending() {
            std::thread::yield_now();
        }
        FAILURES.store(usize::MAX, Ordering::SeqCst);
        // The wait in progress has to end first, for the next one to fail.
        let _other = TcpStream::connect(address).expect("the kernel takes it");
        while FAILURES.load(Ordering::SeqCst) == usize::MAX {
            std::thread::yield_now();
        }
        accepting.stop();
    }

    #[test]
    fn what_is_not_known_of_accepting_is_no_reason_to_spin() {
        for (errno, rests) in [
            (Errno::MFILE, true),
            (Errno::NOMEM, true),
            (Errno::BADF, true),
            (Errno::INVAL, true),
            (Errno::CONNABORTED, false),
            (Errno::AGAIN, false),
        ] {
            assert_eq!(is_exhausted(&errno.into()), rests, "{errno}");
        }
    }
}
