//! From read results to a Fetch response; in a session, only what is news to the client.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use chronik_protocol::messages::{FetchRequest, FetchResponse};
use chronik_terms::ReadResult;

use super::{TOPIC_ID_VERSION, legacy};
use crate::handlers::fetch_sessions::{FetchPart, Opened, Session, Told, TopicKey};
use crate::handlers::partitions;
use crate::router::tell_by_name;

/// A response that says the same of everything that is asked for; by name of every partition as well
/// (`FetchRequest#getErrorResponse`).
pub(super) fn all_refused(request: &FetchRequest, version: i16, error: ErrorCode) -> FetchResponse {
    let by_name = version < TOPIC_ID_VERSION;
    let topics = request.topics.iter().filter(|_| by_name);
    let responses = topics.map(|topic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition,
                error_code: error.as_i16(),
                high_watermark: -1,
                ..PartitionData::default()
            })
            .collect(),
        ..FetchableTopicResponse::default()
    });
    FetchResponse {
        error_code: error.as_i16(),
        responses: responses.collect(),
        ..FetchResponse::default()
    }
}

/// Everything a response is made of.
pub(super) struct Outcome {
    /// The session and the partitions, in order.
    pub(super) opened: Opened,
    /// For each partition, why it was not read.
    pub(super) errors: Vec<Option<ErrorCode>>,
    /// For each partition that was.
    pub(super) results: Vec<ReadResult>,
}

impl Outcome {
    /// The response in `version`; the session, if it is still there, learns what the client is told.
    pub(super) fn into_response(
        self,
        mut session: Option<&mut Session>,
        version: i16,
    ) -> FetchResponse {
        if session
            .as_ref()
            .is_some_and(|session| !session.is_as_for(&self.opened))
        {
            // Another request of the session came meanwhile: what this one would tell is no answer to that
            // (`IncrementalFetchContext#updateAndGenerateResponseData`).
            return FetchResponse {
                error_code: ErrorCode::InvalidFetchSessionEpoch.as_i16(),
                session_id: self.opened.session_id,
                ..FetchResponse::default()
            };
        }
        let Self {
            opened:
                Opened {
                    session_id,
                    incremental,
                    parts,
                    ..
                },
            errors,
            results,
        } = self;
        let mut results: Vec<ReadResult> =
            partitions::merge(errors, results, ReadResult::failed).collect();
        if legacy::WITHOUT_ZSTD.contains(&version) {
            results.iter_mut().for_each(legacy::refuse_zstd);
        }
        let had_records: Vec<bool> = results
            .iter()
            .map(|result| !result.records.is_empty())
            .collect();
        let mut news = vec![true; results.len()];
        if let Some(session) = &mut session {
            let told = session.told();
            for ((told, result), news) in told.zip(&results).zip(&mut news) {
                let changed = tell(told, result);
                *news = changed || !incremental;
            }
        }
        if incremental && let Some(session) = session {
            session.rotate(&had_records);
        }
        let mut responses: Vec<FetchableTopicResponse> = Vec::new();
        let mut last_topic: Option<&TopicKey> = None;
        for ((part, result), news) in parts.iter().zip(results).zip(news) {
            if !news {
                continue;
            }
            if last_topic != Some(&part.topic) {
                responses.push(topic(&part.topic));
                last_topic = Some(&part.topic);
            }
            if let Some(response) = responses.last_mut() {
                response.partitions.push(partition(part, result));
            }
        }
        FetchResponse {
            session_id,
            responses,
            ..FetchResponse::default()
        }
    }
}

/// Whether a result is news, by what the client was told last
/// (`CachedPartition#maybeUpdateResponseData`).
fn tell(told: &mut Told, result: &ReadResult) -> bool {
    let now = Told {
        high_watermark: result.high_watermark,
        log_start_offset: result.log_start_offset,
    };
    let failed = result.error != ErrorCode::None;
    let news = *told != now || failed || !result.records.is_empty() || result.diverging.is_some();
    // After an error the recovery is news, whatever the offsets are.
    *told = if failed {
        Told {
            high_watermark: -1,
            ..now
        }
    } else {
        now
    };
    news
}

fn topic(key: &TopicKey) -> FetchableTopicResponse {
    match key {
        TopicKey::Name(name) => FetchableTopicResponse {
            topic: name.clone(),
            ..FetchableTopicResponse::default()
        },
        TopicKey::Id(id) => FetchableTopicResponse {
            topic_id: *id,
            ..FetchableTopicResponse::default()
        },
    }
}

fn partition(part: &FetchPart, mut result: ReadResult) -> PartitionData {
    if let TopicKey::Name(_) = &part.topic {
        tell_by_name(&mut result);
    }
    let error = result.error;
    let aborted = result.aborted.map(|aborted| {
        let transactions =
            aborted
                .into_iter()
                .map(|(producer_id, first_offset)| AbortedTransaction {
                    producer_id,
                    first_offset,
                    ..AbortedTransaction::default()
                });
        transactions.collect()
    });
    // Where nothing was looked for Kafka has an empty list, and null where nothing was found.
    let unknown = matches!(
        error,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId
    );
    let aborted = aborted.or_else(|| unknown.then(Vec::new));
    let mut data = PartitionData {
        partition_index: part.partition,
        error_code: error.as_i16(),
        high_watermark: result.high_watermark,
        last_stable_offset: result.last_stable_offset,
        log_start_offset: result.log_start_offset,
        aborted_transactions: aborted,
        records: Some(result.records),
        ..PartitionData::default()
    };
    if let Some((epoch, end_offset)) = result.diverging {
        data.diverging_epoch = EpochEndOffset {
            epoch,
            end_offset,
            ..EpochEndOffset::default()
        };
    }
    data
}

#[cfg(test)]
mod tests {
    use chronik_protocol::Records;

    use super::*;
    use crate::handlers::fetch_sessions::{Ask, SessionCache};

    fn result(error: ErrorCode, high_watermark: i64, bytes: &'static [u8]) -> ReadResult {
        ReadResult {
            error,
            high_watermark,
            log_start_offset: 0,
            records: Records::from(bytes::Bytes::from_static(bytes)),
            ..ReadResult::failed(error)
        }
    }

    #[test]
    fn only_changes_records_and_errors_are_news() {
        let mut told = Told {
            high_watermark: -1,
            log_start_offset: -1,
        };
        assert!(
            tell(&mut told, &result(ErrorCode::None, 5, b"")),
            "the first time"
        );
        assert!(
            !tell(&mut told, &result(ErrorCode::None, 5, b"")),
            "nothing happened"
        );
        assert!(
            tell(&mut told, &result(ErrorCode::None, 6, b"")),
            "a new high watermark"
        );
        assert!(
            tell(&mut told, &result(ErrorCode::None, 6, b"x")),
            "records"
        );
        assert!(
            tell(&mut told, &result(ErrorCode::KafkaStorageError, 6, b"")),
            "an error"
        );
        assert!(tell(&mut told, &result(ErrorCode::None, 6, b"")), "its end");
        assert!(
            !tell(&mut told, &result(ErrorCode::None, 6, b"")),
            "nothing again"
        );
    }

    #[test]
    fn a_request_that_another_of_its_session_has_overtaken_tells_nothing() {
        let mut cache = SessionCache::new(1);
        let mut open = |session_id, epoch, partitions: &[i32], forgotten: &[i32]| {
            let topic = TopicKey::Name("t".into());
            let parts = partitions.iter().map(|partition| FetchPart {
                topic: topic.clone(),
                partition: *partition,
                fetch_offset: 0,
                max_bytes: 1,
                current_leader_epoch: -1,
                last_fetched_epoch: -1,
            });
            let forgotten = forgotten.iter().map(|gone| (topic.clone(), *gone));
            let ask = Ask {
                session_id,
                epoch,
                parts: parts.collect(),
                forgotten: forgotten.collect(),
                uses_ids: false,
            };
            let opening = cache.open(ask, 0, || 1 << 33).expect("in order");
            let id = opening.session_id();
            let (opened, session) = opening.run();
            cache.give_back(id, session.expect("there is room"));
            opened
        };
        let id = open(0, 0, &[0, 1, 2], &[]).session_id;
        let first = open(id, 1, &[], &[]);
        let second = open(id, 2, &[3], &[0]);
        let mut session = cache.lend(id).expect("there");
        let mut answer = |opened: Opened| {
            let high_watermarks = opened
                .parts
                .iter()
                .map(|part| 10 + i64::from(part.partition));
            let results = high_watermarks.map(|end| result(ErrorCode::None, end, b""));
            let outcome = Outcome {
                errors: vec![None; opened.parts.len()],
                results: results.collect(),
                opened,
            };
            let response = outcome.into_response(Some(&mut session), 12);
            let topics = response.responses.into_iter();
            let told = topics.flat_map(|topic| topic.partitions);
            let told: Vec<(i32, i64)> = told
                .map(|part| (part.partition_index, part.high_watermark))
                .collect();
            (response.error_code, told)
        };
        let overtaken = ErrorCode::InvalidFetchSessionEpoch.as_i16();
        assert_eq!(answer(first), (overtaken, Vec::new()));
        assert_eq!(answer(second), (0, vec![(1, 11), (2, 12), (3, 13)]));
    }
}
