//! Parts of reads, and lookups, that were under way when their log was closed for the last step of a move.
//!
//! State only. They are asked again when the move is over, of the log where it lies by then: Kafka's clients
//! see no move. Bounded by what may be under way.

use chronik_io::World;
use chronik_terms::PartitionId;

use super::Shard;
use super::ahead::AheadWaiter;

/// See the module's text.
#[derive(Default)]
pub(super) struct AskedAgain {
    reads: Vec<AheadWaiter>,
    /// Questions of some pending lookups.
    pub(super) lookups: Vec<(usize, usize)>,
}

impl<W: World, R> Shard<W, R> {
    /// Whether this partition's log is closed for a moment.
    pub(super) fn is_away(&self, id: PartitionId) -> bool {
        self.following.moves.away() == Some(id)
    }

    /// Keeps a part of a read until its log is there again.
    pub(super) fn ask_again(&mut self, waiter: AheadWaiter) {
        self.reading.asked_again.reads.push(waiter);
    }

    /// The log is there again, or will not be soon.
    pub(super) fn ask_all_again(&mut self) {
        let AskedAgain { reads, lookups } = std::mem::take(&mut self.reading.asked_again);
        self.turns_of_asked(reads);
        self.turns_of_lookups(lookups);
    }
}
