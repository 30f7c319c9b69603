//! Accepting connections: one plain thread per listening socket, which hands them to the shards.
//!
//! Owns the listening socket and the queues to the shards; the limits are `door`'s.
//! A thread of its own because glommio's `accept` loses connections when cancelled, spins when
//! descriptors run out, and its `bind` lets a second broker take the same port. Never reads a byte
//! from a connection.

use super::door::{Bell, Door, DoorPlace, Wait};
use super::place::{Counts, ListenLimits, Place, Refusal, lock};
use super::stream::DirectStream;
use crate::descriptors::ConnectionShare;
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

/// How long to leave connections in the backlog when descriptors or memory have run out.
const EXHAUSTED_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The same where nothing can be waited for, not even the stop.
const UNWATCHED_WAIT: Duration = Duration::from_millis(100);

/// Waits for descriptors: `poll(2)`, but for tests.
type Watch =
    for<'a, 'b> fn(&'a mut [PollFd<'b>], Option<&'a Timespec>) -> rustix::io::Result<usize>;

/// Connections that are disconnected at once are told of in one line in this time.
const REFUSALS_TOLD_EACH: Duration = Duration::from_secs(10);

/// A bound socket that accepts nobody yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address` (port 0 takes a free one). The kernel may hold up connections from now on.
    ///
    /// # Errors
    /// `AddrInUse` if anybody listens there already: the port is never shared.
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
        let bell = limits.door.bell()?;
        let acceptor = Acceptor {
            listener: self,
            stopped,
            bell,
            limits,
            counts: Arc::new(Mutex::new(counts)),
            queues: queues.clone(),
            told: Told::default(),
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
    /// Stops accepting and frees the port. Connections that were handed out live on.
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
    place: Place,
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
    /// Rings when one that waits at the door may look again.
    bell: Arc<Bell>,
    limits: ListenLimits,
    counts: Arc<Mutex<Counts>>,
    queues: Vec<Arc<Queue>>,
    told: Told,
    poll: Watch,
}

/// What was said of connections that were not taken.
#[derive(Default)]
struct Told {
    /// None could be accepted, and none has been since.
    exhausted: bool,
    /// There was no descriptor for one, and there was none for any since.
    short: bool,
    /// Nothing could be waited for, and nothing has been since.
    unwatched: Cell<bool>,
    /// When one was last told of.
    last: Option<Instant>,
    /// When it was last told that connections wait.
    full: Option<Instant>,
    /// Not told of since.
    untold: u64,
}

impl Told {
    /// A connection was disconnected.
    fn refused(&mut self, why: Refusal, peer: SocketAddr, descriptors: &ConnectionShare) {
        self.short |= why == Refusal::NoDescriptor;
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
            Refusal::TooMany => {
                tracing::warn!(%peer, untold, "disconnected: too many connections of its address")
            }
            Refusal::NoDescriptor => tracing::warn!(
                %peer, untold, connections_max = descriptors.max(),
                "disconnected: the descriptors that are left are kept for files; raise the limit (ulimit -Hn, \
                 or LimitNOFILE= of the service)"
            ),
        }
    }

    /// Connections wait for others to leave.
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

    /// One was taken.
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
            let place = match Door::reserve(&self.limits.door, self.limits.listener) {
                Ok(place) => place,
                Err(wait) => match self.leave_waiting(wait) {
                    true => continue,
                    false => break,
                },
            };
            match self.listener.socket.accept() {
                Ok((socket, peer)) => {
                    if let Err(error) = self.take(socket, peer, place) {
                        // Gone again before it was set up.
                        tracing::debug!(%peer, %error, "a connection was not taken");
                    }
                }
                Err(error) if is_exhausted(&error) => {
                    drop(place); // Others need not rest.
                    if !std::mem::replace(&mut self.told.exhausted, true) {
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

    /// Leaves a connection in the backlog for a while, because descriptors have run out; false when
    /// told to stop. Where nobody is left in the backlog then, [`Acceptor::wait`] sleeps on.
    fn rest(&self) -> bool {
        self.sleep(&mut [self.stop()], Some(&EXHAUSTED_WAIT))
    }

    /// Leaves connections in the backlog until they may look at the door again; false when told to stop.
    fn leave_waiting(&mut self, wait: Wait) -> bool {
        let timeout = match wait {
            Wait::Rate(delay) => Some(Timespec::try_from(delay).unwrap_or(EXHAUSTED_WAIT)),
            Wait::Room => {
                self.told.full(self.listener.address);
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
                self.told.unwatched.set(false);
                watched[0].revents().is_empty()
            }
            Err(error) => {
                if !self.told.unwatched.replace(true) {
                    tracing::error!(%error, "connections cannot be waited for at the moment; trying again");
                }
                self.rest_unwatched()
            }
        }
    }

    /// Rests although nothing can be waited for, which is so while the kernel has no memory; false when told
    /// to stop. Who then finds no connection in the backlog comes here again.
    fn rest_unwatched(&self) -> bool {
        std::thread::sleep(UNWATCHED_WAIT);
        let mut nothing = [0];
        let told = rustix::net::recv(&self.stopped, &mut nothing, RecvFlags::DONTWAIT);
        matches!(told, Err(Errno::AGAIN | Errno::INTR))
    }

    fn take(&mut self, socket: TcpStream, peer: SocketAddr, place: DoorPlace) -> io::Result<()> {
        let place = match Counts::admit(&self.counts, &self.limits, place, peer.ip()) {
            Ok(place) => place,
            Err(why) => {
                drop(socket); // Before anything is said: a slow terminal must not keep descriptors.
                self.told.refused(why, peer, &self.limits.descriptors);
                return Ok(());
            }
        };
        self.told.taken();
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

/// Errors of `accept(2)` that last until somebody gives something back: retrying at once would spin. What is
/// not known counts as such; the others took the connection that they speak of out of the backlog.
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

    /// How many times waiting still fails.
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
        // The wait under way has to end first, for the next one to fail.
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
