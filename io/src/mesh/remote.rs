//! `Remote`: calls into a shard from threads that are no shard (signals, the operations endpoint).
//!
//! Owns one bounded inbox per shard and the one-shot cells of the replies. Works on any executor and on none
//! (`call_blocking`); never polls.

use super::Lost;
use super::inbox::Cell;
use super::lane::{PushError, lock};
use super::shared::Shared;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// A call from outside the shards; resolves with the reply, on any thread.
#[must_use = "the reply arrives here"]
pub struct RemoteCall<Reply> {
    cell: Arc<Cell<Reply>>,
}

impl<Reply> Future for RemoteCall<Reply> {
    type Output = Result<Reply, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.cell.state);
        if let Some(reply) = state.reply.take() {
            return Poll::Ready(reply);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Submits requests to shards from any thread. Cheap to clone.
pub struct Remote<Request, Reply> {
    shared: Arc<Shared<Request, Reply>>,
}

impl<Request, Reply> Clone for Remote<Request, Reply> {
    fn clone(&self) -> Self {
        Remote {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<Request: Send + 'static, Reply: Send + 'static> Remote<Request, Reply> {
    pub(super) fn new(shared: Arc<Shared<Request, Reply>>) -> Self {
        Remote { shared }
    }

    /// Number of shards.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.count()
    }

    /// Submits to shard `destination`, or returns the request when its inbox is full.
    ///
    /// # Errors
    /// The request itself.
    pub fn try_call(
        &self,
        destination: usize,
        request: Request,
    ) -> Result<RemoteCall<Reply>, Request> {
        let inbox = &self.shared.inboxes[destination];
        let cell = Arc::new(Cell::new());
        match inbox
            .lane
            .push_bounded((request, Arc::clone(&cell)), self.shared.lane_capacity)
        {
            Ok(()) => self.shared.replies.notify(destination),
            Err(PushError::Full((request, _))) => return Err(request),
            Err(PushError::Closed((_, cell))) => cell.fill(Err(Lost)),
        }
        Ok(RemoteCall { cell })
    }

    /// Submits to shard `destination`, waiting while its inbox is full, and waits for the reply.
    ///
    /// # Errors
    /// [`Lost`] if the shard ended or dropped the request.
    pub async fn call(&self, destination: usize, request: Request) -> Result<Reply, Lost> {
        let mut waiting = Some(request);
        let call = poll_fn(|context| {
            let request = waiting.take().expect("polled after its end");
            let request = match self.try_call(destination, request) {
                Ok(call) => return Poll::Ready(call),
                Err(request) => request,
            };
            lock(&self.shared.inboxes[destination].waiters).push(context.waker().clone());
            // Room freed between the two lines above would not wake this task, so try again.
            match self.try_call(destination, request) {
                Ok(call) => Poll::Ready(call),
                Err(request) => {
                    waiting = Some(request);
                    Poll::Pending
                }
            }
        });
        call.await.await
    }

    /// [`Remote::call`] for a plain thread, which sleeps meanwhile. Never call it on a shard.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub fn call_blocking(&self, destination: usize, request: Request) -> Result<Reply, Lost> {
        block_on(self.call(destination, request))
    }
}

struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives `future` on this thread, which parks between polls.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(ThreadWaker(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
