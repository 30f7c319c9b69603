//! Accepting connections: one plain thread per listening socket, which hands them to the shards.
//!
//! Owns the listening socket, the counts behind the connection limits and the queues to the shards.
//! A thread of its own because glommio's `accept` loses connections when cancelled, spins when
//! descriptors run out, and its `bind` lets a second broker take the same port. Never reads a byte
//! from a connection.

use super::stream::DirectStream;
use crate::direct::DirectWorld;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{Builder, JoinHandle};

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// How long to leave connections in the backlog when descriptors or memory have run out.
const EXHAUSTED_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides how many connections one address may have open at a time.
pub type AddressLimit = Box<dyn Fn(IpAddr) -> usize + Send>;

/// Limits of a listener; who exceeds one is disconnected at once.
pub struct ListenLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one address; 0 refuses the address.
    pub per_address_max: AddressLimit,
}

impl Default for ListenLimits {
    fn default() -> ListenLimits {
        let per_address_max = Box::new(|_| usize::MAX);
        ListenLimits {
            connections_max: usize::MAX,
            per_address_max,
        }
    }
}

/// Open connections, in all and by address.
#[derive(Default)]
struct Counts {
    per_address: HashMap<IpAddr, usize>,
    per_shard: Vec<usize>,
    total: usize,
}

/// One connection's place in the counts, given up when dropped.
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
    shard: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.total -= 1;
        counts.per_shard[self.shard] -= 1;
        if let Some(count) = counts.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.per_address.remove(&self.address);
            }
        }
    }
}

impl Counts {
    /// Takes a place on the shard with the fewest connections, if the limits allow it.
    fn admit(counts: &Arc<Mutex<Counts>>, limits: &ListenLimits, address: IpAddr) -> Option<Place> {
        let mut open = lock(counts);
        let of_address = open.per_address.get(&address).copied().unwrap_or(0);
        if open.total >= limits.connections_max || of_address >= (limits.per_address_max)(address) {
            return None;
        }
        let fewest = open
            .per_shard
            .iter()
            .enumerate()
            .min_by_key(|(_, count)| **count);
        let shard = fewest.map(|(shard, _)| shard)?;
        open.total += 1;
        open.per_shard[shard] += 1;
        open.per_address.insert(address, of_address + 1);
        Some(Place {
            counts: Arc::clone(counts),
            address,
            shard,
        })
    }
}

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
        assert!(shards > 0);
        let queues: Vec<Arc<Queue>> = (0..shards).map(|_| Arc::default()).collect();
        let counts = Counts {
            per_shard: vec![0; shards],
            ..Counts::default()
        };
        let (stop, stopped) = UnixStream::pair()?;
        let acceptor = Acceptor {
            listener: self,
            stopped,
            limits,
            counts: Arc::new(Mutex::new(counts)),
            queues: queues.clone(),
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
    limits: ListenLimits,
    counts: Arc<Mutex<Counts>>,
    queues: Vec<Arc<Queue>>,
}

impl Acceptor {
    fn run(self) {
        let mut exhausted = false;
        while self.wait(exhausted) {
            exhausted = match self.listener.socket.accept() {
                Ok((socket, peer)) => {
                    if let Err(error) = self.take(socket, peer) {
                        // Gone again before it was set up.
                        tracing::debug!(%peer, %error, "a connection was not taken");
                    }
                    false
                }
                Err(error) if is_exhausted(&error) => {
                    if !exhausted {
                        tracing::error!(%error, "no connection can be accepted for the moment");
                    }
                    true
                }
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        tracing::debug!(%error, "a connection was lost before it was accepted");
                    }
                    false
                }
            };
        }
        for queue in &self.queues {
            let mut state = lock(&queue.state);
            state.ended = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// Sleeps until there is a connection (or for a while if descriptors have run out, leaving it
    /// in the backlog); false when told to stop.
    fn wait(&self, exhausted: bool) -> bool {
        let stop = PollFd::new(&self.stopped, PollFlags::IN | PollFlags::HUP);
        let ready = PollFd::new(&self.listener.socket, PollFlags::IN);
        let mut both = [stop, ready];
        let (watched, timeout) = match exhausted {
            true => (&mut both[..1], Some(&EXHAUSTED_WAIT)),
            false => (&mut both[..], None),
        };
        match rustix::event::poll(watched, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => both[0].revents().is_empty(),
            Err(error) => {
                tracing::error!(%error, "accepting ends: the socket cannot be waited for");
                false
            }
        }
    }

    fn take(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let Some(place) = Counts::admit(&self.counts, &self.limits, peer.ip()) else {
            tracing::warn!(%peer, "disconnected: too many connections");
            return Ok(());
        };
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

/// Errors of `accept(2)` that last until somebody gives something back: retrying at once would spin.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error().unwrap_or(0);
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| errno.raw_os_error() == number)
}
