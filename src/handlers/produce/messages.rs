//! What producers before Kafka 0.11 send: message sets, turned into the one batch that a log takes.
//!
//! Runs on the connection's shard, in slices short enough for everybody else. Order and codes are
//! those of Apache Kafka 3.9.1, the last one that takes them; a malformed message, of which it says
//! UNKNOWN_SERVER_ERROR, is an INVALID_RECORD here. Never holds more than a batch and a message.

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::CheckedBatch;
use chronik_protocol::record::legacy::{
    MessageError, MessageSetCheck, STEP_BYTES, SetProgress, UpConversion, UpProgress, UpRules,
};
use chronik_shards::catalog::TimestampKind;

use super::check::{Refusal, Rules, limits, refusal, target_codec};
use super::conversions::Conversions;
use crate::handlers::context::{Context, LARGE_RECORD_BYTES};
use crate::handlers::slice::Slice;

/// The newest version whose records may be message sets.
const MESSAGE_SET_VERSION_MAX: i16 = 2;
/// Where the magic stands, in messages and in batches.
const MAGIC: usize = 16;

/// Whether `bytes`, from a request of `version`, are no batches: messages, or nothing whole at all.
pub(super) fn are_messages(version: i16, bytes: &Bytes) -> bool {
    version <= MESSAGE_SET_VERSION_MAX && bytes.get(MAGIC) != Some(&2)
}

/// The messages as one batch; `None` when there is none, which old versions allow.
///
/// # Errors
/// Why the producer gets an error for this partition.
pub(super) async fn batch<W: World>(
    context: &Context<W>,
    slice: &mut Slice,
    conversions: &mut Conversions<'_, W>,
    rules: &Rules<'_>,
    bytes: Bytes,
) -> Result<Option<CheckedBatch>, Refusal> {
    let world = &context.world;
    let config = rules.config();
    let now_ms = world.now_ms();
    let limits = limits(config, now_ms);
    let refuse = |error| refused(&error, rules, now_ms);
    let batch_bytes_max = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
    conversions.room_for(bytes.len()).await?;
    let mut check = MessageSetCheck::new(bytes, batch_bytes_max);
    let set = loop {
        match check.step(STEP_BYTES).map_err(refuse)? {
            SetProgress::More => slice.breathe(world).await,
            SetProgress::Done(set) => break set,
        }
    };
    let Some(set) = set else {
        return Ok(None);
    };
    let append_time_ms = match config.timestamp_kind {
        TimestampKind::LogAppendTime => Some(now_ms),
        TimestampKind::CreateTime => None,
    };
    let rules = UpRules {
        compression: target_codec(config, set.compression()),
        level: None,
        limits,
        append_time_ms,
        batch_bytes_max,
    };
    let mut conversion = UpConversion::new(set, rules).map_err(refuse)?;
    let mut turn = None;
    loop {
        if turn.is_none() && conversion.held_bytes() > LARGE_RECORD_BYTES {
            turn = Some(context.large_record.lock().await);
        }
        match conversion.step(STEP_BYTES).map_err(refuse)? {
            UpProgress::More => slice.breathe(world).await,
            UpProgress::Done(batch) => {
                conversions.made(batch.bytes.len());
                return Ok(Some(batch));
            }
        }
    }
}

fn refused(error: &MessageError, rules: &Rules<'_>, now_ms: i64) -> Refusal {
    let code = match error {
        MessageError::Size(_) | MessageError::Magic(_) | MessageError::CrcMismatch { .. } => {
            ErrorCode::CorruptMessage
        }
        MessageError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        MessageError::Batch(error) => {
            return refusal(error, rules, &limits(rules.config(), now_ms));
        }
        MessageError::MixedFormats
        | MessageError::WrapperNotAlone
        | MessageError::Codec(_)
        | MessageError::WrapperEmpty
        | MessageError::WrapperOffset { .. }
        | MessageError::Nested
        | MessageError::InnerIncomplete
        | MessageError::Fields => ErrorCode::InvalidRecord,
    };
    Refusal::saying(code, error.to_string())
}
