//! How many entries of a cache each partition has.
//!
//! Part of the shard's cache. Knows none of the entries: who adds or drops one says so.

use std::collections::HashMap;

use chronik_terms::PartitionId;

/// Entries by partition; one without any is not listed.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<PartitionId, usize>);

impl Counts {
    /// Whether a partition has any.
    pub(super) fn any(&self, partition: PartitionId) -> bool {
        self.0.contains_key(&partition)
    }

    /// One more.
    pub(super) fn more(&mut self, partition: PartitionId) {
        *self.0.entry(partition).or_default() += 1;
    }

    /// One less.
    pub(super) fn less(&mut self, partition: PartitionId) {
        if let Some(count) = self.0.get_mut(&partition) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&partition);
            }
        }
    }
}
