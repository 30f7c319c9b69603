//! What an API states of itself, and how it is answered: the traits a handler's file implements.
//!
//! Runs on the shard of the connection. `pipeline.rs` asks these questions in order, `table.rs` says of
//! each key who answers them. Knows no API.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::{ErrorCode, Reader, Request};

use super::call::Call;
use super::context::Context;
pub(super) use super::guard::Shape;
use crate::server::service::{Pace, Reply};

/// A request that is served. Nothing here has a default that an author could forget to think about,
/// [`Api::check`] and [`Api::read`] aside, which are for a few.
pub(super) trait Api: Request {
    /// What the request needs rights for.
    const SHAPE: Shape;

    /// Settles what the request names more than once, by Kafka's rule for this API (`distinct.rs` has
    /// the rules), so that no handler and no shard does anything twice. Empty for requests without
    /// arrays of names, and for those whose repetitions Kafka answers one by one: their handlers see to
    /// it that the work is done once or bounded.
    fn settle(&mut self);

    /// The answer that refuses the whole request with `error`, with every array that clients look into
    /// (`AbstractRequest#getErrorResponse`). Valid in the call's version.
    fn refused(&self, call: &Call, error: ErrorCode) -> Self::Response;

    /// What Kafka's own parser refuses beyond what the schema does, for the log. It ends the connection.
    ///
    /// # Errors
    /// The rest of a sentence that begins with API and version.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// Decodes and settles the body, beside the shard if much came.
    ///
    /// # Errors
    /// The reply that closes the connection, when the bytes are not a request.
    fn read<W: World>(
        call: &Call,
        world: &W,
        body: Reader,
    ) -> impl Future<Output = Result<Self, Reply>> {
        call.decode_beside(world, body, Self::settle)
    }
}

/// Answered in stage one from what this shard has in memory: nothing waits, anything may overtake.
pub(super) trait Inline: Api {
    /// Answers.
    fn answer<W: World>(context: &Context<W>, call: &Call, request: Self) -> Self::Response;
}

/// Answered in stage two, when other shards have answered or with turns of its own. Nothing more is taken
/// from the connection meanwhile: later requests may rely on its effect.
pub(super) trait Later: Api {
    /// Answers.
    fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> impl Future<Output = Self::Response>;
}

/// As [`Later`], for answers that may be many times as long as their requests.
pub(super) trait Lengthy: Api {
    /// Answers.
    fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> impl Future<Output = Handled<Self::Response>>;
}

impl<Q: Later> Lengthy for Q {
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<Self::Response> {
        Handled::Response(Self::answer(context, call, request).await)
    }
}

/// Handed to its owners in stage one, in the order of the connection; only then the next frame is read.
/// Stage two waits for them.
pub(super) trait Staged: Api {
    /// What may overtake it between the stages.
    const PACE: Pace;

    /// Stage one, which returns stage two. That one is given the call, and may keep nothing of the frame
    /// if it is [`Begun::Parked`].
    fn begin<W: World>(
        context: Rc<Context<W>>,
        call: &mut Call,
        request: Self,
    ) -> impl Future<
        Output = Begun<
            Self::Response,
            impl AsyncFnOnce(&Call) -> Handled<Self::Response> + 'static + use<Self, W>,
        >,
    >;
}

/// What stage one of a [`Staged`] request has come to.
pub(super) enum Begun<R, F> {
    /// The answer.
    Done(Handled<R>),
    /// Stage two, which gives it.
    Rest(F),
    /// Stage two, from one that may wait for long and keeps only so many bytes.
    Parked(F, usize),
}

/// An answer on its way out, by how it becomes bytes.
pub(super) enum Handled<R> {
    /// Encoded beside the shard if the request was large.
    Response(R),
    /// Encoded on the shard, whatever the request: it is short, or there is little around its records.
    Short(R),
    /// Encoded beside the shard, whatever the request: it is long.
    Long(R),
    /// Bytes that were made piece by piece, or no answer at all.
    Reply(Reply),
}
