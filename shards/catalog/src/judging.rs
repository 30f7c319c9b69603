//! One change of the catalogue on its way through the controller: judged and framed beside the shard.
//!
//! Made on the designated shard, which lets nothing else change the catalogue meanwhile, so that the
//! image a change is judged by is the one that its records follow. The work is pure and runs on the
//! shard's thread for what is long: a request names up to half a million things, a broker's setting
//! touches every topic, and every change copies the image (measured by `tests/amplification/stalls.rs`:
//! 40 to 140 ms for a megabyte, in one slice before). Never sees a log or a file.

use std::sync::Arc;

use chronik_protocol::ErrorCode;
use chronik_protocol::record::CheckedBatch;
use chronik_terms::PartitionId;

use super::batches::atomic_batch;
use super::change::{ApiError, ControllerReply, ControllerRequest};
use super::controller::{Decision, judge};
use super::image::Image;
use super::versions::MetadataVersion;
use crate::limits::PARTITIONS_PER_REQUEST_MAX;

/// A change to be judged.
#[derive(Debug)]
pub struct Judging {
    image: Arc<Image>,
    request: ControllerRequest,
    now_ms: i64,
    /// What new topics get their ids from: the world's, which stays on its shard.
    random: Vec<u128>,
}

/// What is to become of it.
#[derive(Debug)]
pub struct Judged {
    /// The answer, to be held back until the records count.
    pub reply: ControllerReply,
    /// `None` when nothing changes.
    pub change: Option<Change>,
    /// The request, where the change places logs: it may have to wait, and is judged again.
    pub again: Option<ControllerRequest>,
}

/// What is to be written, and what the catalogue is then.
#[derive(Debug)]
pub struct Change {
    /// The catalogue once the batch is committed.
    pub next: Image,
    /// The change's records, as one batch of the metadata log.
    pub batch: CheckedBatch,
    /// The partition whose directory changes.
    pub moves: Option<PartitionId>,
}

impl Judging {
    /// Of `request`, by `image`; the records get the time `now_ms`.
    pub fn new(
        image: Arc<Image>,
        request: ControllerRequest,
        now_ms: i64,
        random: impl FnMut() -> u128,
    ) -> Judging {
        let ids = match &request {
            ControllerRequest::CreateTopics { topics, .. } => {
                let most = usize::try_from(PARTITIONS_PER_REQUEST_MAX).unwrap_or(usize::MAX);
                topics.len().min(most)
            }
            _ => 0,
        };
        Judging {
            random: std::iter::repeat_with(random).take(ids).collect(),
            image,
            request,
            now_ms,
        }
    }

    /// Judges it, and frames its records.
    pub fn judge(self) -> Judged {
        let Judging {
            image,
            request,
            now_ms,
            random,
        } = self;
        let (mut given, mut last) = (random.into_iter(), 0_u128);
        // One that is taken has the next number: that happens to nobody.
        let mut random = || {
            last = given.next().unwrap_or_else(|| last.wrapping_add(1));
            last
        };
        let refused = |code, why: String| Judged {
            reply: request.refused(&ApiError::new(code, why)),
            change: None,
            again: None,
        };
        let decision = match judge(&image, &request, &mut random) {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(%error, "a change of the catalogue was not applied");
                return refused(ErrorCode::UnknownServerError, error.to_string());
            }
        };
        let Decision {
            reply,
            records,
            next,
        } = decision;
        let Some(next) = next else {
            return Judged {
                reply,
                change: None,
                again: None,
            };
        };
        match atomic_batch(MetadataVersion::of(&image.features), &records, now_ms) {
            Ok(batch) => Judged {
                reply,
                change: Some(Change {
                    next,
                    batch,
                    moves: request.moves(),
                }),
                again: Some(request).filter(ControllerRequest::places_logs),
            },
            Err(error) => refused(ErrorCode::PolicyViolation, error.to_string()),
        }
    }
}
