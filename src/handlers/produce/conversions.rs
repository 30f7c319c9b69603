//! What the records of one request become where a topic wants another codec, time or format.
//!
//! Runs on the connection's shard. Owns the bounds: converted batches are not slices of the request's
//! frame, so they are charged to the shard's budget besides it, one request at a time makes many of
//! them, and none makes more than a client could have sent as they are. Never converts anything.

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::RecordLimits;
use chronik_terms::topic_settings::TopicConfig;

use super::refusal::{Listing, Refusal};
use super::rules;
use crate::handlers::context::Context;
use crate::server::budget::Grant;
use crate::server::turns::Turn;

/// Bytes of converted batches that a request makes without waiting for its turn.
const FREE_BYTES: usize = 1 << 20;

/// The conversions of one request.
pub(super) struct Conversions<'a, W> {
    context: &'a Context<W>,
    bytes: usize,
    turn: Option<Turn<'a>>,
    charge: Option<Grant>,
    listing: Listing,
}

impl<'a, W: World> Conversions<'a, W> {
    /// None so far.
    pub(super) fn new(context: &'a Context<W>) -> Self {
        Self {
            context,
            bytes: 0,
            turn: None,
            charge: None,
            listing: Listing::default(),
        }
    }

    /// The rules for records of a topic with this configuration, now; they list no more refused
    /// records than the answer has room for.
    pub(super) fn limits(&self, config: &TopicConfig, now_ms: i64) -> RecordLimits {
        RecordLimits {
            refused_listed_max: self.listing.records(),
            ..rules::limits(config, now_ms)
        }
    }

    /// The room that the answer still has for single records.
    pub(super) fn listing(&mut self) -> &mut Listing {
        &mut self.listing
    }

    /// To be called before a batch is converted to about `bytes` bytes: waits for the request's turn
    /// where it makes many.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE when the request would become longer than `socket.request.max.bytes`.
    pub(super) async fn room_for(&mut self, bytes: usize) -> Result<(), Refusal> {
        let all = self.bytes.saturating_add(bytes);
        let most = self.context.config.request_bytes_max;
        if all > most {
            let message = format!(
                "the request's batches become more than {most} bytes in the topics' formats; send \
                 fewer of them at once"
            );
            return Err(Refusal::saying(ErrorCode::MessageTooLarge, message));
        }
        if all > FREE_BYTES && self.turn.is_none() {
            self.turn = Some(self.context.conversions.lock().await);
        }
        Ok(())
    }

    /// A converted batch of so many bytes is there.
    pub(super) fn made(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.charge(bytes);
    }

    /// Memory that the request takes besides its frame.
    pub(super) fn charge(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let more = self.context.budget.charge_request(bytes);
        match &mut self.charge {
            Some(charge) => charge.absorb(more),
            None => self.charge = Some(more),
        }
    }

    /// What is charged for them, to be held until the request is answered.
    pub(super) fn into_charge(self) -> Option<Grant> {
        self.charge
    }
}
