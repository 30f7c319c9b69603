//! One connection: a task that reads requests, and a task that writes replies in request order.
//!
//! Lives on the shard that got the socket. The reader stops reading the socket when the
//! connection or the shard holds too many bytes, so a client that sends too much waits by itself.
//! Never decodes a request; never ends anything but its own connection.

use std::future::poll_fn;
use std::io;
use std::iter::once;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use chronik_io::{Stream, World};
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tracing::{debug, error, warn};

use super::arrival::Arrival;
use super::budget::{ByteBudget, Grant};
use super::connections::Connections;
use super::frames::FrameBuffer;
use super::line::Wish;
use super::link::{End, Link, panic_text};
use super::service::{Admitted, Answer, Pace, Reply, Service};

/// Bytes that a connection may hold without waiting for the shard's budget, in a frame that has not
/// come whole and in requests that have: nobody can be kept from asking for little.
const BYTES_FREE: usize = 64 << 10;

/// Bytes of requests, and of answers that are made at once, that one connection brings about before
/// the others have their turn.
const TURN_BYTES_MAX: usize = 64 << 10;

/// Bytes that every request costs besides its own: its place in the queues and its answer's future.
const REQUEST_BYTES_EXTRA: usize = 512;

/// What all connections of a shard share.
pub(crate) struct Server<W, H> {
    /// The shard's world.
    pub(crate) world: W,
    /// Who answers.
    pub(crate) service: Rc<H>,
    /// Bytes that may be held.
    pub(crate) budget: Rc<ByteBudget>,
    /// The open connections.
    pub(crate) connections: Rc<Connections>,
    /// Longest frame, bytes.
    pub(crate) frame_bytes_max: usize,
}

impl<W: World, H: Service> Server<W, H> {
    /// Serves `stream` until it ends.
    pub(crate) fn serve<S: Stream>(self: &Rc<Self>, stream: S) {
        let stream = Rc::new(stream);
        let link = Link::new(&stream, self.world.monotonic_ns());
        let entry = self.connections.add(&link);
        let writer = write_replies(Rc::clone(self), Rc::clone(&stream), Rc::clone(&link));
        self.world.spawn(async move {
            writer.await;
            drop(entry);
        });
        self.world
            .spawn(read_requests(Rc::clone(self), stream, link));
    }
}

async fn read_requests<W: World, H: Service, S: Stream>(
    server: Rc<Server<W, H>>,
    stream: Rc<S>,
    link: Rc<Link>,
) {
    let mut session = server.service.open(stream.local(), stream.peer());
    let mut reader = Reader {
        frames: FrameBuffer::new(server.frame_bytes_max),
        unfinished: None,
        waits_since_ns: None,
        turn_bytes: 0,
        server: &server,
        link: &link,
    };
    loop {
        match reader.next_frame() {
            Err(fault) => return link.finish(End::Fault(fault)),
            Ok(Some(frame)) => {
                let Some(()) = reader.take(&mut session, &*stream, frame).await else {
                    return;
                };
            }
            Ok(None) => {
                let Some(()) = reader.read_more(&*stream).await else {
                    return;
                };
            }
        }
    }
}

struct Reader<'a, W, H> {
    frames: FrameBuffer,
    /// Held for a frame that is too large to be free and has not come whole.
    unfinished: Option<Grant>,
    /// Since when that frame, or its beginning, has waited for room.
    waits_since_ns: Option<u64>,
    /// Bytes of requests and answers since the others had their turn.
    turn_bytes: usize,
    server: &'a Rc<Server<W, H>>,
    link: &'a Rc<Link>,
}

impl<W: World, H: Service> Reader<'_, W, H> {
    fn next_frame(&mut self) -> Result<Option<Bytes>, String> {
        self.frames.next_frame().map_err(|error| error.to_string())
    }

    /// Admits one request and queues its answer. `None` ends the reader.
    async fn take(
        &mut self,
        session: &mut H::Session,
        stream: &impl Stream,
        frame: Bytes,
    ) -> Option<()> {
        self.waits_since_ns = None;
        let now_ns = self.server.world.monotonic_ns();
        self.link.change_arrival(|arrival| arrival.wait(now_ns));
        self.turn_bytes += frame.len();
        if self.turn_bytes > TURN_BYTES_MAX {
            self.turn_bytes = 0;
            self.link.reading(self.server.world.pause()).await?;
        }
        let link = self.link;
        self.until(stream, link.room(frame.len())).await?;
        if H::is_fetch(&frame) {
            self.until(stream, link.no_fetch()).await?;
        }
        self.link.arrival.set(None);
        let grant = match self.unfinished.take() {
            Some(grant) => grant,
            None => self.grant(frame.len() + REQUEST_BYTES_EXTRA).await?,
        };
        let admit = AssertUnwindSafe(self.server.service.admit(session, frame)).catch_unwind();
        let admitted = admit.await.unwrap_or_else(|panic| {
            let reason = format!("a handler panicked: {}", panic_text(&*panic));
            Admitted {
                pace: Pace::Alone,
                answer: Answer::Now(Reply::Close(reason)),
            }
        });
        if matches!(admitted.answer, Answer::Parked(..)) {
            self.frames.let_go();
        }
        self.turn_bytes += self.link.push(admitted, grant, &self.server.budget);
        Some(())
    }

    /// The bytes of a request that has come whole.
    async fn grant(&self, bytes: usize) -> Option<Grant> {
        let budget = &self.server.budget;
        if self.link.request_bytes() + bytes <= BYTES_FREE + REQUEST_BYTES_EXTRA {
            return Some(budget.charge_request(bytes));
        }
        let wish = Wish {
            bytes,
            whole: bytes,
            coming: None,
            since_ns: self.server.world.monotonic_ns(),
        };
        self.link.reading(budget.take(wish)).await
    }

    /// Reads once from the socket. `None` ends the reader.
    async fn read_more(&mut self, stream: &impl Stream) -> Option<()> {
        let budget = &self.server.budget;
        let charged = self.charged();
        self.frames.let_grow(charged);
        let wanted = self.frames.wanted_capacity(budget.is_roomy());
        if wanted <= BYTES_FREE.max(charged) {
            return self.receive(stream, FrameBuffer::for_read).await;
        }
        if self.unfinished.is_none() {
            self.may_come(stream).await?;
        }
        let more = match budget.take_now(wanted - charged) {
            Some(grant) => grant,
            None if !self.frames.is_full() => {
                return self.receive(stream, FrameBuffer::for_read).await;
            }
            None => {
                // Who has nothing to be read keeps no place in line, and nothing of the budget.
                self.receive(stream, FrameBuffer::for_taste).await?;
                self.stand_in_line(wanted - charged).await?
            }
        };
        match &mut self.unfinished {
            Some(grant) => grant.absorb(more),
            None => self.unfinished = Some(more),
        }
        let held = self.charged();
        self.frames.let_grow(held);
        let is_tasted = self.frames.swallow();
        self.note_arrival(held);
        if is_tasted {
            return Some(()); // It may be whole now.
        }
        self.receive(stream, FrameBuffer::for_read).await
    }

    /// Bytes of the budget that the long request holds that is coming.
    fn charged(&self) -> usize {
        self.unfinished.as_ref().map_or(0, Grant::bytes)
    }

    /// Notes that this request waits for its client.
    fn note_arrival(&self, held: usize) {
        let now_ns = self.server.world.monotonic_ns();
        let known = self.link.arrival.get();
        let mut arrival = known.unwrap_or_else(|| Arrival::begun(now_ns));
        arrival.held = held;
        arrival.missing = self.frames.missing_bytes();
        arrival.go_on(now_ns);
        self.link.arrival.set(Some(arrival));
    }

    /// Runs a wait for earlier requests. Where those may wait for long themselves, what comes is read on as far
    /// as that is free: a client that leaves is noticed.
    async fn until(
        &mut self,
        stream: &impl Stream,
        wait: impl Future<Output = Option<()>>,
    ) -> Option<()> {
        let mut wait = pin!(wait);
        let at_once = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context)));
        if let Poll::Ready(done) = at_once.await {
            return done;
        }
        while self.link.may_wait_long()
            && let Some(into) = self.frames.for_reading_ahead()
        {
            // Polled only when it is woken: glommio keeps something of every poll that finds nothing.
            let mut reads: FuturesUnordered<_> = once(stream.read_into(into)).collect();
            let read = match select(wait.as_mut(), reads.next()).await {
                Either::Left((done, _)) => return done,
                Either::Right((read, _)) => read?,
            };
            drop(reads);
            self.note_read(read)?;
        }
        wait.await
    }

    /// Waits until the long request that is coming could be taken: it would otherwise hold its bytes as
    /// long as an earlier one of its connection waits for others, or is not taken by its client.
    async fn may_come(&mut self, stream: &impl Stream) -> Option<()> {
        let link = self.link;
        self.until(stream, link.room(self.frames.coming_bytes()))
            .await?;
        match H::is_fetch(self.frames.begun()) {
            true => self.until(stream, link.no_fetch()).await,
            false => Some(()),
        }
    }

    /// Waits for `bytes` with those who have something to be read.
    async fn stand_in_line(&mut self, bytes: usize) -> Option<Grant> {
        let charged = self.charged();
        let now_ns = self.server.world.monotonic_ns();
        let wish = Wish {
            bytes,
            whole: bytes.max(self.frames.coming_bytes().saturating_sub(charged)),
            coming: Some(self.frames.coming_bytes()),
            since_ns: *self.waits_since_ns.get_or_insert(now_ns),
        };
        self.link.change_arrival(|arrival| arrival.wait(now_ns));
        self.link.reading(self.server.budget.take(wish)).await
    }

    /// Appends what comes to a buffer of the frames. `None` ends the reader.
    async fn receive(
        &mut self,
        stream: &impl Stream,
        into: impl FnOnce(&mut FrameBuffer) -> &mut BytesMut,
    ) -> Option<()> {
        let read = self
            .link
            .reading(stream.read_into(into(&mut self.frames)))
            .await?;
        self.note_read(read)
    }

    /// Notes what a read has brought. `None` ends the reader.
    fn note_read(&mut self, read: io::Result<usize>) -> Option<()> {
        let bytes = match read {
            Ok(0) => {
                self.link.finish(End::Gone);
                return None;
            }
            Ok(bytes) => bytes,
            Err(error) => {
                debug!(peer = %self.link.peer, %error, "connection lost");
                self.link.finish(End::Gone);
                return None;
            }
        };
        self.frames.note_read(bytes);
        self.link.has_sent(bytes, self.server.world.monotonic_ns());
        Some(())
    }
}

async fn write_replies<W: World, H: Service, S: Stream>(
    server: Rc<Server<W, H>>,
    stream: Rc<S>,
    link: Rc<Link>,
) {
    while let Some(mut batch) = link.next_batch(&server.budget).await {
        let parts = std::mem::take(&mut batch.parts);
        if !parts.is_empty() {
            link.begin_send(server.world.monotonic_ns());
            send(&*server, &*stream, &link, parts).await;
            link.sending.set(false);
        }
        link.sent(&batch);
    }
    link.clear();
    if let Err(error) = stream.shutdown().await {
        debug!(peer = %link.peer, %error, "the other side was faster");
    }
    report(&link);
}

/// Sends the parts of a batch, and notes whenever the client takes something of them.
async fn send<W: World, H: Service, S: Stream>(
    server: &Server<W, H>,
    stream: &S,
    link: &Link,
    parts: Vec<Bytes>,
) {
    let note = |bytes| link.has_taken(bytes, server.world.monotonic_ns());
    if let Some(Err(error)) = link.writing(stream.write_noting(parts, note)).await {
        debug!(peer = %link.peer, %error, "connection lost");
        link.finish(End::Gone);
    }
}

fn report(link: &Link) {
    match link.end() {
        Some(End::Fault(reason)) if reason.contains("panicked") => {
            error!(peer = %link.peer, reason, "connection closed");
        }
        Some(End::Fault(reason)) => warn!(peer = %link.peer, reason, "connection closed"),
        Some(end) => debug!(peer = %link.peer, reason = %end, "connection closed"),
        None => {}
    }
}
