//! Reading for one fetch: once when everything is on one shard, in rounds when it is not.
//!
//! A single owner parks the read itself and answers once. Several owners are read at once; when
//! that is not enough, each waits for its share of what is missing, and the first that has it
//! lets everybody be read again. Each round lowers what is missing by at least one share, so there
//! are few rounds; none of them is a timer.

use std::rc::Rc;

use chronik_io::{Lost, World};
use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_protocol::{ErrorCode, Records};
use chronik_terms::{
    AwaitRequest, Isolation, ReadPart, ReadRequest, ReadResult, Reader, Wait, Wake,
};
use futures_util::future::select_all;

use super::WAIT_MS_MAX;
use crate::handlers::context::Context;
use crate::handlers::parked_fetches::Waiting;
use crate::router::Gather;

/// What one fetch reads, and how long it may wait.
#[derive(Clone)]
pub(super) struct Reading {
    /// In this order.
    pub(super) parts: Vec<ReadPart>,
    /// Of every part.
    pub(super) isolation: Isolation,
    /// Bytes over all parts.
    pub(super) max_bytes: usize,
    min_bytes: usize,
    /// `None`: it does not wait.
    deadline_ns: Option<u64>,
}

impl Reading {
    /// The reads of `request`, with its limits brought within the broker's.
    pub(super) fn new<W: World>(
        context: &Context<W>,
        request: &FetchRequest,
        parts: Vec<ReadPart>,
        isolation: Isolation,
    ) -> Self {
        let asked = usize::try_from(request.max_bytes).unwrap_or(0);
        let max_bytes = asked.min(context.config.fetch_bytes_max);
        let min_bytes = usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(max_bytes);
        // Replies that wait for slow readers shrink what the next ones may hold, never below
        // one batch; `min_bytes` stays reachable.
        let max_bytes = max_bytes.min(context.budget.reply_bytes_max());
        let min_bytes = min_bytes.min(max_bytes);
        let wait_ms = u64::try_from(request.max_wait_ms.min(WAIT_MS_MAX)).unwrap_or(0);
        let waits = wait_ms > 0 && min_bytes > 0 && !context.budget.has_too_much_parked();
        let deadline_ns = waits.then(|| {
            context
                .world
                .monotonic_ns()
                .saturating_add(wait_ms * 1_000_000)
        });
        Self {
            parts,
            isolation,
            max_bytes,
            min_bytes,
            deadline_ns,
        }
    }

    /// Whether it may still wait at this monotonic time.
    pub(super) fn waits_at(&self, now_ns: u64) -> bool {
        self.deadline_ns
            .is_some_and(|deadline_ns| now_ns < deadline_ns)
    }
}

/// Reads that are under way.
pub(super) enum Sent {
    /// There is nothing to read.
    Nothing,
    /// One shard has everything and waits by itself.
    One(Gather<ReadRequest>, Option<Waiting>, Asking),
    /// The first round over several shards.
    Many(Gather<ReadRequest>, Reading, Vec<usize>, Asking),
}

/// Somebody wants what is read; when it is dropped, as with its connection, the shards learn that nobody does.
#[derive(Default)]
pub(super) struct Asking(Reader);

impl Asking {
    pub(super) fn reader(&self) -> &Reader {
        &self.0
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Sends the first reads; when this returns they are in their lanes.
pub(super) async fn begin<W: World>(context: &Context<W>, reading: Reading) -> Sent {
    let mut owners: Vec<usize> = reading
        .parts
        .iter()
        .map(|part| context.router.owner(part.partition))
        .collect();
    let shard_of_part = owners.clone();
    owners.sort_unstable();
    owners.dedup();
    let Reading {
        isolation,
        max_bytes,
        ..
    } = reading;
    let asking = Asking::default();
    match owners.len() {
        0 => Sent::Nothing,
        1 => {
            let waiting = reading.deadline_ns.map(|_| context.parked.begin(owners));
            let wait = reading
                .deadline_ns
                .zip(waiting.as_ref())
                .map(|(deadline_ns, waiting)| Wait {
                    min_bytes: reading.min_bytes,
                    deadline_ns,
                    token: waiting.token,
                });
            let gather = context
                .router
                .read(isolation, max_bytes, reading.parts, (wait, asking.reader()))
                .await;
            Sent::One(gather, waiting, asking)
        }
        _ => {
            let parts = reading.parts.clone();
            let how = (None, asking.reader());
            let gather = context.router.read(isolation, max_bytes, parts, how).await;
            Sent::Many(gather, reading, shard_of_part, asking)
        }
    }
}

/// Waits for the results, in the order of the parts; empty when a shard is gone.
pub(super) async fn finish<W: World>(context: &Rc<Context<W>>, sent: Sent) -> Vec<ReadResult> {
    let results = match sent {
        Sent::Nothing => Ok(Vec::new()),
        Sent::One(gather, waiting, _asking) => {
            let results = gather.collect().await;
            if let Some(waiting) = waiting {
                waiting.done();
            }
            results
        }
        Sent::Many(gather, reading, shards, asking) => {
            rounds(context, (gather, &asking), &reading, &shards).await
        }
    };
    results.unwrap_or_default()
}

async fn rounds<W: World>(
    context: &Rc<Context<W>>,
    (first, asking): (Gather<ReadRequest>, &Asking),
    reading: &Reading,
    shards: &[usize],
) -> Result<Vec<ReadResult>, Lost> {
    let mut results = first.collect().await?;
    while let Some(deadline_ns) = reading.deadline_ns {
        let bytes: usize = results.iter().map(|result| result.records.len()).sum();
        let answerable =
            |result: &ReadResult| result.error != ErrorCode::None || result.diverging.is_some();
        if bytes >= reading.min_bytes || results.iter().any(answerable) {
            break;
        }
        let have: Vec<usize> = results.iter().map(|result| result.records.len()).collect();
        // What was read is given back before the wait: it will be read again.
        drop(results);
        let wake = wait_for_any(context, reading, shards, &have, deadline_ns).await?;
        let parts = reading.parts.clone();
        let again = context
            .router
            .read(
                reading.isolation,
                reading.max_bytes,
                parts,
                (None, asking.reader()),
            )
            .await;
        results = again.collect().await?;
        let read: usize = results.iter().map(|result| result.records.len()).sum();
        // Bytes that are there but that the limits of a partition keep out never come.
        if wake != Wake::Progress || read <= bytes {
            break;
        }
    }
    trim(&mut results, reading.max_bytes);
    Ok(results)
}

/// Parks on every shard until one of them has its share of what is missing.
async fn wait_for_any<W: World>(
    context: &Rc<Context<W>>,
    reading: &Reading,
    shards: &[usize],
    have: &[usize],
    deadline_ns: u64,
) -> Result<Wake, Lost> {
    let mut owners = shards.to_vec();
    owners.sort_unstable();
    owners.dedup();
    let missing = reading.min_bytes.saturating_sub(have.iter().sum());
    let share = missing.div_ceil(owners.len()).max(1);
    let waiting = context.parked.begin(owners.clone());
    let mut calls = Vec::with_capacity(owners.len());
    for owner in owners {
        let mine = || {
            shards
                .iter()
                .enumerate()
                .filter(|(_, shard)| **shard == owner)
        };
        let parts = mine().filter_map(|(place, _)| reading.parts.get(place));
        let readable: usize = mine().filter_map(|(place, _)| have.get(place)).sum();
        let min_bytes = readable.saturating_add(share);
        let request = AwaitRequest {
            isolation: reading.isolation,
            parts: parts
                .map(|part| (part.partition, part.fetch_offset))
                .collect(),
            wait: Wait {
                min_bytes,
                deadline_ns,
                token: waiting.token,
            },
        };
        calls.push(context.router.ask(owner, request).await);
    }
    let (first, _, _others) = select_all(calls).await;
    // Dropping `waiting` cancels the waits of the other shards.
    drop(waiting);
    first
}

/// Each shard kept to the limit by itself; together they keep to it here. The first partition with
/// records stays whole whatever it has (KIP-74).
fn trim(results: &mut [ReadResult], max_bytes: usize) {
    let mut used = 0_usize;
    for result in results {
        let bytes = result.records.len();
        if bytes == 0 {
            continue;
        }
        if used > 0 && used.saturating_add(bytes) > max_bytes {
            result.records = Records::default();
        } else {
            used = used.saturating_add(bytes);
        }
    }
}
