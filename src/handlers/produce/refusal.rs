//! Why records are not taken: Kafka's code, a sentence, and the records that are to blame.
//!
//! Runs on the connection's shard. Owns the words (`LogValidator#processRecordErrors`; producers show
//! them to people) and the bounds of what one answer lists. Never looks at a batch.

use chronik_protocol::record::{
    BatchError, CompressionError, RecordFault, RecordLimits, RefusedRecords,
};
use chronik_protocol::{ErrorCode, Str};

use super::rules::Rules;

/// Records that the answer to one request lists one by one. Kafka lists any number; clients take a
/// record that is not listed for one that had the bad luck of being in that batch.
const LISTED_MAX: usize = RecordLimits::REFUSED_LISTED_MAX;
/// Bytes of sentences about single records in the answer to one request: behind them records are
/// listed without one, which clients replace by the sentence about the whole batch.
const LISTED_TEXT_BYTES_MAX: usize = 1 << 20;
/// Memory of one listed record: twice its place in the answer before that is encoded.
pub(super) const LISTED_MEMORY_BYTES: usize = 160;
/// Records whose sentences the sentence about the batch repeats.
const SHOWN_MAX: usize = 3;

/// Why records were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Kafka's code.
    pub(super) error: ErrorCode,
    /// A sentence for people.
    pub(super) message: Option<Str>,
    /// Positions and sentences of single records, when such are to blame.
    pub(super) records: Vec<(i32, Option<Str>)>,
}

impl Refusal {
    /// A code alone.
    pub(super) fn of(error: ErrorCode) -> Self {
        Self {
            error,
            message: None,
            records: Vec::new(),
        }
    }

    /// No error: there is nothing to append, so no offset is given either.
    pub(super) fn nothing() -> Self {
        Self::of(ErrorCode::None)
    }

    /// A code and a sentence.
    pub(super) fn saying(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: Some(Str::from(message.into())),
            records: Vec::new(),
        }
    }
}

/// What one answer still has room for.
#[derive(Debug)]
pub(super) struct Listing {
    records: usize,
    text_bytes: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            records: LISTED_MAX,
            text_bytes: LISTED_TEXT_BYTES_MAX,
        }
    }
}

impl Listing {
    /// Records that may be listed.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Lists them, each with its sentence while there is room for that.
    fn list(
        &mut self,
        refused: &RefusedRecords,
        sentence: impl Fn(i32, RecordFault) -> Str,
    ) -> Vec<(i32, Option<Str>)> {
        let listed = refused.listed.iter().take(self.records);
        let mut without_key = None;
        let listed: Vec<_> = listed
            .map(|(index, fault)| {
                let text = (self.text_bytes > 0).then(|| match fault {
                    RecordFault::NullKey => without_key
                        .get_or_insert_with(|| sentence(*index, *fault))
                        .clone(),
                    _ => sentence(*index, *fault),
                });
                // The last one may be longer than the room: that is not worth a rule.
                let bytes = text.as_ref().map_or(0, |text| text.len());
                self.text_bytes = self.text_bytes.saturating_sub(bytes);
                (*index, text)
            })
            .collect();
        self.records -= listed.len();
        listed
    }
}

/// The code and the sentence of what is wrong with a batch.
pub(super) fn refusal(
    error: &BatchError,
    rules: &Rules<'_>,
    limits: &RecordLimits,
    listing: &mut Listing,
) -> Refusal {
    let code = match error {
        BatchError::CrcMismatch { .. }
        | BatchError::InvalidLength { .. }
        | BatchError::UnknownMagic { .. } => ErrorCode::CorruptMessage,
        BatchError::Compression(CompressionError::LimitExceeded { .. }) | BatchError::TooLarge => {
            ErrorCode::MessageTooLarge
        }
        // Kafka has no word of its own for a codec that does not exist.
        BatchError::UnknownCompression { .. } => ErrorCode::UnknownServerError,
        BatchError::Refused(refused) => return of_records(refused, rules, limits, listing),
        _ => ErrorCode::InvalidRecord,
    };
    Refusal::saying(code, error.to_string())
}

/// `LogValidator#processRecordErrors`: a single time out of bounds gives the code to all of them.
fn of_records(
    refused: &RefusedRecords,
    rules: &Rules<'_>,
    limits: &RecordLimits,
    listing: &mut Listing,
) -> Refusal {
    let words = |index, fault| Str::from(sentence(index, fault, rules, limits));
    let (error, message) = if refused.by_timestamp {
        (
            ErrorCode::InvalidTimestamp,
            "One or more records have been rejected due to invalid timestamp".to_owned(),
        )
    } else {
        let shown = refused.listed.iter().take(SHOWN_MAX);
        let shown: Vec<_> = shown
            .map(|(index, fault)| {
                let words = words(*index, *fault);
                format!("RecordError(batchIndex={index}, message='{words}')")
            })
            .collect();
        let message = format!(
            "One or more records have been rejected due to {} record errors in total, and only \
             showing the first three errors at most: [{}]",
            refused.count,
            shown.join(", ")
        );
        (ErrorCode::InvalidRecord, message)
    };
    Refusal {
        error,
        message: Some(Str::from(message)),
        records: listing.list(refused, words),
    }
}

fn sentence(index: i32, fault: RecordFault, rules: &Rules<'_>, limits: &RecordLimits) -> String {
    match fault {
        RecordFault::TimestampOutOfRange(timestamp) => format!(
            "Timestamp {timestamp} of message with offset {index} is out of range. The timestamp \
             should be within [{}, {}]",
            limits.timestamp_ms_min, limits.timestamp_ms_max
        ),
        RecordFault::TimestampType => format!(
            "Invalid timestamp type in message {index}. Producer should not set timestamp type to \
             LogAppendTime."
        ),
        _ => format!(
            "Compacted topic cannot accept message without key in topic partition {}",
            rules.partition()
        ),
    }
}

/// Checks that the topic takes a batch of so many bytes.
///
/// # Errors
/// `MESSAGE_TOO_LARGE`, with the sizes.
pub(super) fn check_size(rules: &Rules<'_>, size_bytes: usize) -> Result<(), Refusal> {
    let limit = rules.config().max_message_bytes;
    if u64::try_from(size_bytes).unwrap_or(u64::MAX) <= u64::from(limit) {
        return Ok(());
    }
    let message = format!(
        "the batch for {} is {size_bytes} bytes, max.message.bytes is {limit}",
        rules.partition()
    );
    Err(Refusal::saying(ErrorCode::MessageTooLarge, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lists_no_more_than_it_has_room_for() {
        let mut listing = Listing {
            records: 5,
            text_bytes: 3,
        };
        let fault = RecordFault::TimestampOutOfRange(0);
        let refused = |count: i32| RefusedRecords {
            listed: (0..count).map(|index| (index, fault)).collect(),
            count,
            by_timestamp: true,
        };
        let sentence = |_, _| Str::from_static("xy");
        let kept = |listed: Vec<(i32, Option<Str>)>| {
            let kept = listed
                .into_iter()
                .map(|(index, text)| (index, text.is_some()));
            kept.collect::<Vec<_>>()
        };
        let first = kept(listing.list(&refused(3), sentence));
        assert_eq!(first, [(0, true), (1, true), (2, false)]);
        let second = kept(listing.list(&refused(9), sentence));
        assert_eq!(second, [(0, false), (1, false)]);
        assert_eq!(listing.records(), 0);
        assert_eq!(kept(listing.list(&refused(9), sentence)), []);
    }
}
