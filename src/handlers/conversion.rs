//! Conversions between batches and the messages of old clients, step by step.
//!
//! Runs on the connection's shard, in slices short enough for everybody else; and beside the shard
//! where something large is converted, for a single message is copied and summed in one go, however
//! large it is.

use std::io;

use chronik_io::World;
use chronik_protocol::record::CheckedBatch;
use chronik_protocol::record::legacy::{
    Converted, DownConversion, DownProgress, MessageError, MessageSet, MessageSetCheck, STEP_BYTES,
    SetProgress, UpConversion, UpProgress,
};

use super::context::{Context, LARGE_RECORD_BYTES};
use super::slice::Slice;

/// Bytes of a step beside the shard: others want the thread, too.
const STEP_BYTES_BESIDE: usize = 1 << 20;

/// Work that goes on where it stopped.
pub(super) trait Steps: Send + 'static {
    /// What it comes to.
    type Output: Send + 'static;

    /// Works through about so many bytes; `None` when there is more to do.
    fn step(&mut self, bytes_budget: usize) -> Result<Option<Self::Output>, MessageError>;

    /// Bytes of the record under way.
    fn held_bytes(&self) -> usize;
}

impl Steps for MessageSetCheck {
    type Output = Option<MessageSet>;

    fn step(&mut self, bytes_budget: usize) -> Result<Option<Self::Output>, MessageError> {
        Ok(match self.step(bytes_budget)? {
            SetProgress::More => None,
            SetProgress::Done(set) => Some(set),
        })
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

impl Steps for UpConversion {
    type Output = CheckedBatch;

    fn step(&mut self, bytes_budget: usize) -> Result<Option<CheckedBatch>, MessageError> {
        Ok(match self.step(bytes_budget)? {
            UpProgress::More => None,
            UpProgress::Done(batch) => Some(batch),
        })
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }
}

impl Steps for DownConversion {
    type Output = Converted;

    fn step(&mut self, bytes_budget: usize) -> Result<Option<Converted>, MessageError> {
        Ok(match self.step(bytes_budget)? {
            DownProgress::More => None,
            DownProgress::Done(converted) => Some(converted),
        })
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }
}

/// Does all of the work. What comes from `input_bytes`, or unfolds to, many is done beside the shard;
/// of what unfolds to many there is one at a time.
///
/// # Errors
/// The outer one when there is no thread beside the shard.
pub(super) async fn run<W: World, S: Steps>(
    context: &Context<W>,
    slice: &mut Slice,
    mut work: S,
    input_bytes: usize,
) -> io::Result<Result<S::Output, MessageError>> {
    let world = &context.world;
    let mut turn = None;
    loop {
        if turn.is_none() && work.held_bytes() > LARGE_RECORD_BYTES {
            turn = Some(context.large_record.lock().await);
        }
        let stepped = if turn.is_some() || input_bytes > LARGE_RECORD_BYTES {
            let beside = move || {
                let stepped = work.step(STEP_BYTES_BESIDE);
                (work, stepped)
            };
            let stepped;
            (work, stepped) = match &turn {
                Some(_) => world.compute_long(beside).await?,
                None => world.compute(beside).await?,
            };
            stepped
        } else {
            let stepped = work.step(STEP_BYTES);
            slice.breathe(world).await;
            stepped
        };
        match stepped {
            Ok(None) => {}
            Ok(Some(output)) => return Ok(Ok(output)),
            Err(error) => return Ok(Err(error)),
        }
    }
}
