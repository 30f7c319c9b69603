//! What the reader and the writer of one connection share.
//!
//! Lives on one shard. Owns the queue of answers in request order and the reason to end; never
//! touches the socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use chronik_io::{Standing, Stream};

use super::arrival::{Arrival, Holder, Progress};
use super::budget::{ByteBudget, Grant, ParkedCharge, ReplyCharge};
use super::service::{Admitted, Answer, Pace, Reply};
use super::signal::Signal;

/// Requests of one connection that may be unanswered, before its socket is no longer read.
const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// Their bytes; one request may exceed it alone.
const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 32 << 20;
/// Their bytes while the client does not take what it is sent: a slow reader holds little.
const REQUEST_BYTES_WHILE_SENDING_MAX: usize = 256 << 10;
/// Bytes of answers that wait for the client to take them, before its socket is no longer read: one
/// answer may exceed it alone.
const ANSWER_BYTES_QUEUED_MAX: usize = 256 << 10;
/// Reply bytes gathered for one send.
const SEND_BYTES_MAX: usize = 1 << 20;

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed it, or the network did.
    Gone,
    /// Nothing happened on it for `connections.max.idle.ms`.
    Idle,
    /// The broker stops.
    Stopping,
    /// The client broke the protocol, or a handler failed; the sentence says what.
    Fault(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the client has gone"),
            Self::Idle => f.write_str("idle for connections.max.idle.ms"),
            Self::Stopping => f.write_str("the broker stops"),
            Self::Fault(reason) => f.write_str(reason),
        }
    }
}

struct Queued {
    admitted: Admitted,
    grant: Grant,
    /// For an answer that was there at once.
    charge: Option<ReplyCharge>,
    /// For a request that waits for others.
    _parked: Option<ParkedCharge>,
}

/// Replies that are ready to be sent together, and what they hold until they are.
#[derive(Default)]
pub(crate) struct Batch {
    /// The bytes, in order.
    pub(crate) parts: Vec<Bytes>,
    charges: Vec<ReplyCharge>,
    bytes: usize,
    /// Of these, those of answers that were not there when their requests were taken.
    late_bytes: usize,
    requests: usize,
    fetches: usize,
    alone: bool,
}

/// What has been taken of one send.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    since_ns: u64,
    bytes: u64,
}

/// The shared state of a connection.
pub(crate) struct Link {
    /// The other side.
    pub(crate) peer: SocketAddr,
    queue: RefCell<VecDeque<Queued>>,
    requests: Cell<usize>,
    request_bytes: Cell<usize>,
    /// Bytes of answers that have not been taken by the client.
    answer_bytes: Cell<usize>,
    fetches: Cell<usize>,
    alone: Cell<bool>,
    /// The reader waits for room, not for the socket.
    reader_waits: Cell<bool>,
    for_reader: Signal,
    for_writer: Signal,
    end: RefCell<Option<End>>,
    draining: Cell<bool>,
    /// When bytes last came or left, by the world's monotonic clock.
    pub(crate) active_ns: Cell<u64>,
    /// Whether a send is under way.
    pub(crate) sending: Cell<bool>,
    /// What the client has taken of what is being sent.
    taken: Cell<Taken>,
    /// The long request that is coming, or has not been taken; `None` between requests.
    pub(crate) arrival: Cell<Option<Arrival>>,
    /// How the client takes what is being sent.
    taking: Cell<Progress>,
    /// Asks the socket how it stands.
    ask: Box<dyn Fn() -> Standing>,
}

impl Link {
    /// A fresh connection on `stream`.
    pub(crate) fn new<S: Stream>(stream: &Rc<S>, now_ns: u64) -> Rc<Self> {
        let asked = Rc::clone(stream);
        Rc::new(Self {
            peer: stream.peer(),
            queue: RefCell::default(),
            requests: Cell::new(0),
            request_bytes: Cell::new(0),
            answer_bytes: Cell::new(0),
            fetches: Cell::new(0),
            alone: Cell::new(false),
            reader_waits: Cell::new(false),
            for_reader: Signal::default(),
            for_writer: Signal::default(),
            end: RefCell::new(None),
            draining: Cell::new(false),
            active_ns: Cell::new(now_ns),
            sending: Cell::new(false),
            taken: Cell::default(),
            arrival: Cell::new(None),
            taking: Cell::default(),
            ask: Box::new(move || asked.standing()),
        })
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn finish(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
        self.for_reader.notify();
        self.for_writer.notify();
    }

    /// Reads nothing more, answers what was taken, then ends.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.for_reader.notify();
        self.for_writer.notify();
    }

    /// Why the connection ends, if it does.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    fn ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// A send begins.
    pub(crate) fn begin_send(&self, now_ns: u64) {
        self.active_ns.set(now_ns);
        self.taking.set(Progress::anew(now_ns));
        self.taken.set(Taken {
            since_ns: now_ns,
            bytes: 0,
        });
        self.sending.set(true);
    }

    /// The client has taken `bytes` more of it.
    pub(crate) fn has_taken(&self, bytes: usize, now_ns: u64) {
        self.active_ns.set(now_ns);
        self.taking.set(self.taking.get().more(bytes, 0, now_ns));
        let mut taken = self.taken.get();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        taken.bytes = taken.bytes.saturating_add(bytes);
        self.taken.set(taken);
    }

    /// `bytes` of a request have come.
    pub(crate) fn has_sent(&self, bytes: usize, now_ns: u64) {
        self.active_ns.set(now_ns);
        self.change_arrival(|arrival| arrival.more(bytes, now_ns));
    }

    /// Notes something about the long request that is coming, if there is one.
    pub(crate) fn change_arrival(&self, change: impl FnOnce(&mut Arrival)) {
        let mut arrival = self.arrival.get();
        arrival.as_mut().map(change);
        self.arrival.set(arrival);
    }

    /// How the socket stands.
    pub(crate) fn standing(&self) -> Standing {
        (self.ask)()
    }

    /// Whether it is the broker that has not done its part for a client that holds room: what it sent lies in the
    /// socket, or the socket would take more of its answer. Patience with the client then begins anew.
    pub(crate) fn is_served_late(&self, now_ns: u64) -> bool {
        let standing = self.standing();
        let arrival = self.arrival.get();
        let is_late = match (arrival.and_then(|arrival| arrival.progress()), self.takes()) {
            (Some(sends), takes) if takes.is_none_or(|takes| sends <= takes) => {
                arrival.is_some_and(|arrival| arrival.shows_late_broker(standing.unread_bytes))
            }
            _ => standing.is_writable,
        };
        if is_late {
            self.taking.set(Progress::anew(now_ns));
            self.change_arrival(|arrival| arrival.was_unread(now_ns));
        }
        is_late
    }

    fn takes(&self) -> Option<Progress> {
        self.sending.get().then(|| self.taking.get())
    }

    /// What the client holds of the budget by what it does not send, or by an answer that it does not
    /// take: as long as it likes, unless others need it. `None` where that is nothing.
    pub(crate) fn holding(&self) -> Option<Holder> {
        let arrival = self.arrival.get();
        let coming = arrival.map_or(0, |arrival| arrival.held);
        let held = coming.saturating_add(self.request_bytes.get());
        let sends = arrival.and_then(|arrival| arrival.progress());
        let progress = sends.into_iter().chain(self.takes()).min()?;
        (held > 0).then_some(Holder { held, progress })
    }

    /// How long the send under way has lasted beyond what its bytes account for at
    /// `bytes_per_second`, ns.
    pub(crate) fn behind_ns(&self, now_ns: u64, bytes_per_second: u64) -> u64 {
        const SECOND_NS: u128 = 1_000_000_000;
        let Taken { since_ns, bytes } = self.taken.get();
        let due_ns = u128::from(bytes) * SECOND_NS / u128::from(bytes_per_second.max(1));
        let lasted_ns = now_ns.saturating_sub(since_ns);
        lasted_ns.saturating_sub(u64::try_from(due_ns).unwrap_or(u64::MAX))
    }

    /// Whether requests wait for their answers.
    pub(crate) fn is_busy(&self) -> bool {
        self.requests.get() > 0
    }

    /// Runs a wait of the reader, until it is done (`Some`) or the reader must stop (`None`).
    pub(crate) async fn reading<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        poll_fn(|context| {
            loop {
                if self.ended() || self.draining.get() {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(done) = wait.as_mut().poll(context) {
                    return Poll::Ready(Some(done));
                }
                if self.for_reader.poll_wait(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Runs a send, until it is done (`Some`) or the connection ends (`None`).
    pub(crate) async fn writing<T>(&self, send: impl Future<Output = T>) -> Option<T> {
        let mut send = pin!(send);
        poll_fn(|context| {
            loop {
                if self.ended() {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(done) = send.as_mut().poll(context) {
                    return Poll::Ready(Some(done));
                }
                if self.for_writer.poll_wait(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Whether what is unanswered may wait for others as long as it likes.
    pub(crate) fn may_wait_long(&self) -> bool {
        self.alone.get() || self.fetches.get() > 0
    }

    /// Waits until a request of `bytes` may be taken; `None` when none may be any more.
    pub(crate) async fn room(&self, bytes: usize) -> Option<()> {
        self.reader_waits_until(|| self.has_room(bytes)).await
    }

    /// Waits for something that a sent reply can bring about.
    async fn reader_waits_until(&self, holds: impl Fn() -> bool) -> Option<()> {
        if holds() && !self.ended() && !self.draining.get() {
            return Some(());
        }
        self.reader_waits.set(true);
        let held = poll_fn(|_| {
            if holds() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let outcome = self.reading(held).await;
        self.reader_waits.set(false);
        outcome
    }

    fn has_room(&self, bytes: usize) -> bool {
        let requests = self.requests.get();
        let bytes_max = if self.sending.get() {
            REQUEST_BYTES_WHILE_SENDING_MAX
        } else {
            REQUEST_BYTES_IN_FLIGHT_MAX
        };
        let fits = self.request_bytes.get().saturating_add(bytes) <= bytes_max
            && self.answer_bytes.get() < ANSWER_BYTES_QUEUED_MAX;
        !self.alone.get() && requests < REQUESTS_IN_FLIGHT_MAX && (fits || requests == 0)
    }

    /// Waits until no fetch is unanswered; `None` when the reader must stop.
    pub(crate) async fn no_fetch(&self) -> Option<()> {
        self.reader_waits_until(|| self.fetches.get() == 0).await
    }

    /// Bytes that the connection's requests hold.
    pub(crate) fn request_bytes(&self) -> usize {
        self.request_bytes.get()
    }

    /// Puts a taken request behind the others; it keeps of its bytes what it needs. Returns the bytes
    /// of its answer, if that is there already.
    pub(crate) fn push(
        &self,
        admitted: Admitted,
        mut grant: Grant,
        budget: &Rc<ByteBudget>,
    ) -> usize {
        let (answered, parked) = match &admitted.answer {
            Answer::Now(reply) => (Some(reply.bytes()), None),
            Answer::Parked(_, bytes) => (None, Some(budget.charge_parked(*bytes))),
            Answer::Later(_) => (None, None),
        };
        if answered.is_some() || parked.is_some() {
            grant.shrink_to(0);
        }
        let answer_bytes = answered.unwrap_or(0);
        self.answer_bytes
            .set(self.answer_bytes.get().saturating_add(answer_bytes));
        let charge = answered.map(|bytes| budget.charge_reply(bytes));
        self.requests.set(self.requests.get() + 1);
        self.request_bytes
            .set(self.request_bytes.get() + grant.bytes());
        match admitted.pace {
            Pace::Free => {}
            Pace::OneFetch => self.fetches.set(self.fetches.get() + 1),
            Pace::Alone => self.alone.set(true),
        }
        self.queue.borrow_mut().push_back(Queued {
            admitted,
            grant,
            charge,
            _parked: parked,
        });
        // A writer that waits for the socket looks here by itself when it is done.
        if !self.sending.get() {
            self.for_writer.notify();
        }
        answer_bytes
    }

    /// Waits for replies that can be sent; `None` when nothing more will be.
    pub(crate) async fn next_batch(&self, budget: &Rc<ByteBudget>) -> Option<Batch> {
        poll_fn(|context| {
            loop {
                if self.ended() {
                    return Poll::Ready(None);
                }
                let batch = self.gather(context, budget);
                if batch.requests > 0 {
                    return Poll::Ready(Some(batch));
                }
                if self.draining.get() && self.requests.get() == 0 {
                    self.finish(End::Stopping);
                    return Poll::Ready(None);
                }
                if self.for_writer.poll_wait(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Takes every reply that is ready, in order, up to the size of one send.
    fn gather(&self, context: &mut Context<'_>, budget: &Rc<ByteBudget>) -> Batch {
        let mut batch = Batch::default();
        while batch.bytes < SEND_BYTES_MAX {
            // The entry is out of the queue while its future runs, so that nothing it does can
            // meet a borrowed queue.
            let Some(mut first) = self.queue.borrow_mut().pop_front() else {
                break;
            };
            match poll_answer(&mut first.admitted.answer, context) {
                Poll::Pending => {
                    self.queue.borrow_mut().push_front(first);
                    break;
                }
                Poll::Ready(Reply::Close(reason)) => {
                    self.finish_after(&mut batch, first, reason);
                    break;
                }
                Poll::Ready(Reply::Silent) => self.answered(&mut batch, first, Vec::new(), budget),
                Poll::Ready(Reply::Send(parts)) => self.answered(&mut batch, first, parts, budget),
            }
        }
        let late = self.answer_bytes.get().saturating_add(batch.late_bytes);
        self.answer_bytes.set(late);
        batch
    }

    /// Gives up a request with its bytes, whenever the client takes its answer.
    fn answered(
        &self,
        batch: &mut Batch,
        done: Queued,
        parts: Vec<Bytes>,
        budget: &Rc<ByteBudget>,
    ) {
        let held = self.request_bytes.get() - done.grant.bytes();
        self.request_bytes.set(held);
        batch.add(done, parts, budget);
    }

    /// Lets the replies before a fault go out first, if there are any.
    fn finish_after(&self, batch: &mut Batch, mut at_fault: Queued, reason: String) {
        if batch.requests == 0 {
            self.finish(End::Fault(reason));
        } else {
            at_fault.admitted.answer = Answer::Now(Reply::Close(reason));
            self.queue.borrow_mut().push_front(at_fault);
        }
    }

    /// Gives back what a sent batch held beside its requests' bytes.
    pub(crate) fn sent(&self, batch: &Batch) {
        self.requests.set(self.requests.get() - batch.requests);
        self.answer_bytes
            .set(self.answer_bytes.get().saturating_sub(batch.bytes));
        self.fetches.set(self.fetches.get() - batch.fetches);
        if batch.alone {
            self.alone.set(false);
        }
        // A reader that waits for the socket is left alone: polling its read again costs a
        // system call, and glommio keeps something of every poll that finds nothing.
        if self.reader_waits.get() {
            self.for_reader.notify();
        }
    }

    /// Gives up what is still queued.
    pub(crate) fn clear(&self) {
        let abandoned = std::mem::take(&mut *self.queue.borrow_mut());
        drop(abandoned);
    }
}

impl Batch {
    fn add(&mut self, answered: Queued, parts: Vec<Bytes>, budget: &Rc<ByteBudget>) {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        self.bytes = self.bytes.saturating_add(bytes);
        self.charges.push(answered.charge.unwrap_or_else(|| {
            self.late_bytes = self.late_bytes.saturating_add(bytes);
            budget.charge_reply(bytes)
        }));
        self.requests += 1;
        match answered.admitted.pace {
            Pace::Free => {}
            Pace::OneFetch => self.fetches += 1,
            Pace::Alone => self.alone = true,
        }
        if self.parts.is_empty() {
            self.parts = parts;
        } else {
            self.parts.extend(parts);
        }
    }
}

/// A panic in a handler's second stage costs its own connection, nothing else.
fn poll_answer(answer: &mut Answer, context: &mut Context<'_>) -> Poll<Reply> {
    match answer {
        Answer::Now(reply) => Poll::Ready(std::mem::replace(reply, Reply::Silent)),
        Answer::Later(future) | Answer::Parked(future, _) => {
            let future: Pin<&mut _> = future.as_mut();
            catch_unwind(AssertUnwindSafe(|| future.poll(context))).unwrap_or_else(|panic| {
                Poll::Ready(Reply::Close(format!(
                    "a handler panicked: {}",
                    panic_text(&*panic)
                )))
            })
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
