//! The one way of every request, from bytes to bytes: read (decode, settle) → quota → guard → handle →
//! throttle time → meters → encode, all in the request's span.
//!
//! Runs on the shard of the connection. The phase of the session is judged before, in `handlers.rs`. What
//! is denied of a request by name is merged where the handler merges its parts; see `guard.rs`. Knows no
//! API: `table.rs` leads here with the type of the request.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::{Message, Reader};
use futures_util::future::LocalBoxFuture;
use tracing::{Instrument, Span};

use super::api::{Api, Begun, Handled, Inline, Lengthy, Staged};
use super::call::Call;
use super::context::Context;
use super::quota;
use crate::server::service::{Admitted, Answer, Pace, Reply};

/// The way of an [`Inline`] request.
pub(super) async fn inline<W: World, Q: Inline>(
    context: Rc<Context<W>>,
    mut call: Call,
    body: Reader,
) -> Admitted {
    let span = call.span();
    let answer = async {
        match enter::<W, Q>(&context, &mut call, body).await {
            Ok(request) => {
                let response = Q::answer(&context, &call, request);
                leave(&context, &call, Handled::Response(response)).await
            }
            Err(reply) => reply,
        }
    };
    Admitted {
        pace: Pace::Free,
        answer: Answer::Now(answer.instrument(span).await),
    }
}

/// The way of a [`Later`](super::api::Later) or [`Lengthy`] request.
pub(super) async fn later<W: World, Q: Lengthy>(
    context: Rc<Context<W>>,
    mut call: Call,
    body: Reader,
) -> Admitted {
    let span = call.span();
    let entered = enter::<W, Q>(&context, &mut call, body).instrument(span.clone());
    let answer = match entered.await {
        Ok(request) => {
            let answer = async move {
                let handled = Q::answer_at_length(&context, &call, request).await;
                leave(&context, &call, handled).await
            };
            Answer::Later(Box::pin(answer.instrument(span)))
        }
        Err(reply) => Answer::Now(reply),
    };
    Admitted {
        pace: Pace::Alone,
        answer,
    }
}

/// The way of a [`Staged`] request.
pub(super) async fn staged<W: World, Q: Staged>(
    context: Rc<Context<W>>,
    mut call: Call,
    body: Reader,
) -> Admitted {
    let span = call.span();
    let behind = span.clone();
    let stage_one = async move {
        let request = match enter::<W, Q>(&context, &mut call, body).await {
            Ok(request) => request,
            Err(reply) => return Answer::Now(reply),
        };
        match Q::begin(Rc::clone(&context), &mut call, request).await {
            Begun::Done(handled) => Answer::Now(leave(&context, &call, handled).await),
            Begun::Rest(rest) => Answer::Later(stage_two(context, call, rest, behind)),
            Begun::Parked(rest, bytes) => {
                Answer::Parked(stage_two(context, call, rest, behind), bytes)
            }
        }
    };
    Admitted {
        pace: Q::PACE,
        answer: stage_one.instrument(span).await,
    }
}

/// Stage two on the heap, which is the one allocation of a request's way.
fn stage_two<W: World, R: Message>(
    context: Rc<Context<W>>,
    call: Call,
    rest: impl AsyncFnOnce(&Call) -> Handled<R> + 'static,
    span: Span,
) -> LocalBoxFuture<'static, Reply> {
    let answer = async move {
        let handled = rest(&call).await;
        leave(&context, &call, handled).await
    };
    Box::pin(answer.instrument(span))
}

/// Everything before the handler.
///
/// # Errors
/// The reply, when the request comes no further.
async fn enter<W: World, Q: Api>(
    context: &Context<W>,
    call: &mut Call,
    body: Reader,
) -> Result<Q, Reply> {
    let request = Q::read(call, &context.world, body).await?;
    if let Err(reason) = request.check() {
        return Err(call.close(reason));
    }
    call.throttle_ms = quota::throttle_ms(call);
    if let Some(error) = call.session.access.denial(Q::SHAPE) {
        let refused = Handled::Response(request.refused(call, error));
        return Err(leave(context, call, refused).await);
    }
    Ok(request)
}

/// Everything behind the handler.
async fn leave<W: World, R: Message>(
    context: &Context<W>,
    call: &Call,
    handled: Handled<R>,
) -> Reply {
    let throttled = |mut response: R| {
        response.set_throttle_time_ms(call.throttle_ms);
        response
    };
    context.meters.answered(call.api);
    let world = &context.world;
    match handled {
        Handled::Response(response) if call.is_large => {
            call.reply_long(world, throttled(response)).await
        }
        Handled::Response(response) | Handled::Short(response) => call.reply(&throttled(response)),
        Handled::Long(response) => call.reply_long(world, throttled(response)).await,
        Handled::Reply(reply) => reply,
    }
}
