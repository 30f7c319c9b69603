//! Stretches of work of one task, short enough for everybody else on its shard.

use chronik_io::World;

/// Longest stretch before other tasks have their turn, ns.
const SLICE_NS_MAX: u64 = 80_000;

/// A stretch of work that is cut before it lasts too long.
pub(crate) struct Slice {
    began_ns: u64,
}

impl Slice {
    /// A stretch that begins now.
    pub(crate) fn begin(world: &impl World) -> Self {
        Self {
            began_ns: world.monotonic_ns(),
        }
    }

    /// Lets others have their turn when the slice has lasted long enough.
    pub(crate) async fn breathe(&mut self, world: &impl World) {
        if world.monotonic_ns().saturating_sub(self.began_ns) >= SLICE_NS_MAX {
            world.pause().await;
            self.began_ns = world.monotonic_ns();
        }
    }
}
