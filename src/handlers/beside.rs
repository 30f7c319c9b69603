//! Work that grows with what a request names, done beside the shard when that is much.
//!
//! Called on the shard of the connection; the work itself is pure and runs on the thread that the shard
//! has for what is long. A request of a megabyte names up to half a million things: to decode them, to
//! look them up or to encode the answer takes tens of milliseconds each, and nobody else on the shard
//! would be served meanwhile (measured by `tests/amplification/stalls.rs`).

use chronik_io::World;

/// From so many bytes of a request on its parts are looked at beside the shard: below, that takes less
/// than a millisecond.
pub(super) const LARGE_REQUEST_BYTES: usize = 32 << 10;

/// Does `work`, beside the shard if it `is_large`. Where no thread can be had it is done here: slowly,
/// but done.
pub(super) async fn beside<W: World, T: Send + 'static>(
    world: &W,
    is_large: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if !is_large {
        return work();
    }
    world.compute_surely(work).await
}

/// Parts of a request that are looked at in one go, a step at a time.
const PARTS_AT_ONCE: usize = 1_000;

/// Lets others have their turn between two steps over so many parts.
pub(super) async fn rest<W: World>(world: &W, parts: usize) {
    if parts > PARTS_AT_ONCE {
        world.pause().await;
    }
}
