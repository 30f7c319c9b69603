//! What producers before Kafka 0.11 send: message sets, turned into the one batch that a log takes.
//!
//! Runs on the connection's shard, in slices short enough for everybody else. Order and codes are
//! those of Apache Kafka 3.9.1, the last one that takes them; a malformed message, of which it says
//! UNKNOWN_SERVER_ERROR, is an INVALID_RECORD here. Never holds more than a batch and a message.

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::record::legacy::{MessageError, MessageSetCheck, UpConversion, UpRules};
use chronik_protocol::record::{CheckedBatch, RecordLimits};
use chronik_terms::topic_settings::TimestampKind;

use super::conversions::Conversions;
use super::refusal::{Listing, Refusal, refusal};
use super::rules::{Rules, target_codec};
use crate::handlers::context::Context;
use crate::handlers::conversion;
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
    let config = rules.config();
    let now_ms = context.world.now_ms();
    // Versions that carry message sets answer with a code and no list.
    let limits = RecordLimits {
        refused_listed_max: 1,
        ..conversions.limits(config, now_ms)
    };
    let refuse = |error| refused(&error, rules, &limits);
    let batch_bytes_max = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
    conversions.room_for(bytes.len()).await?;
    let bytes_in = bytes.len();
    let check = MessageSetCheck::new(bytes, batch_bytes_max);
    let checked = conversion::run(context, slice, check, bytes_in).await;
    let Some(set) = checked.map_err(no_thread)?.map_err(refuse)? else {
        return Ok(None);
    };
    let append_time_ms = match config.timestamp_kind {
        TimestampKind::LogAppendTime => Some(now_ms),
        TimestampKind::CreateTime => None,
    };
    let up_rules = UpRules {
        compression: target_codec(config, set.compression()),
        level: None,
        limits,
        append_time_ms,
        batch_bytes_max,
    };
    let conversion = UpConversion::new(set, up_rules).map_err(refuse)?;
    let batch = conversion::run(context, slice, conversion, bytes_in).await;
    let batch = batch.map_err(no_thread)?.map_err(refuse)?;
    conversions.made(batch.bytes.len());
    Ok(Some(batch))
}

fn no_thread(error: std::io::Error) -> Refusal {
    Refusal::saying(ErrorCode::UnknownServerError, error.to_string())
}

fn refused(error: &MessageError, rules: &Rules<'_>, limits: &RecordLimits) -> Refusal {
    let code = match error {
        MessageError::Size(_) | MessageError::Magic(_) | MessageError::CrcMismatch { .. } => {
            ErrorCode::CorruptMessage
        }
        MessageError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        MessageError::Batch(error) => {
            return refusal(error, rules, limits, &mut Listing::default());
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
