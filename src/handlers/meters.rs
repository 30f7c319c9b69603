//! How often each API was answered on one shard: its own core writes, any thread reads.

use std::array;

use chronik_io::meters::Counter;
use chronik_protocol::versions::{ADVERTISED, ServedApi};

/// The meters of one shard's requests.
#[derive(Debug)]
pub(crate) struct RequestMeters {
    answered: [Counter; ADVERTISED.len()],
}

impl Default for RequestMeters {
    fn default() -> Self {
        Self {
            answered: array::from_fn(|_| Counter::default()),
        }
    }
}

impl RequestMeters {
    /// Counts a request that is answered, be it with an error.
    pub(super) fn answered(&self, api: ServedApi) {
        if let Some(counter) = self.answered.get(api as usize) {
            counter.add(1);
        }
    }

    /// How many requests of each API were answered, in the order of the version table.
    #[cfg(test)]
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.answered.iter().map(Counter::get)
    }
}
