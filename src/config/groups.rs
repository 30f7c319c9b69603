//! Settings of group coordination: the shape of its topic, and what Kafka refuses together.
//!
//! Runs on the main thread at start. The coordinator reads its other settings from
//! [`super::Config::values`].

use chronik_protocol::configs::keys::broker;

use super::ConfigError;
use super::consumer_groups;
use super::keys::Values;

/// How `__consumer_offsets` is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetsTopic {
    /// `offsets.topic.num.partitions`.
    pub partitions: i32,
    /// `offsets.topic.segment.bytes`.
    pub segment_bytes: i32,
}

impl OffsetsTopic {
    pub(super) fn read(values: &Values<'_>) -> Result<OffsetsTopic, ConfigError> {
        check_sessions(values)?;
        consumer_groups::check(values)?;
        Ok(OffsetsTopic {
            // As many as one request may create.
            partitions: values.bounded(broker::OFFSETS_TOPIC_NUM_PARTITIONS, 1..=10_000)?,
            // A topic's least segment (`segment.bytes`).
            segment_bytes: values
                .bounded(broker::OFFSETS_TOPIC_SEGMENT_BYTES, 1_048_576..=i64::MAX)?,
        })
    }
}

/// `AbstractKafkaConfig`: the longest session is not shorter than the shortest.
fn check_sessions(values: &Values<'_>) -> Result<(), ConfigError> {
    let (longest, shortest) = (
        broker::GROUP_MAX_SESSION_TIMEOUT_MS,
        broker::GROUP_MIN_SESSION_TIMEOUT_MS,
    );
    let max_ms = values.bounded(longest, 0..=i64::MAX)?;
    let min_ms = values.bounded(shortest, 0..=i64::MAX)?;
    if max_ms < min_ms {
        let accepted = format!("at least {}, which is {min_ms}", shortest.name());
        let max_ms = max_ms.to_string();
        return Err(ConfigError::invalid(longest.name(), &max_ms, accepted));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<OffsetsTopic, ConfigError> {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let values: BTreeMap<String, String> = pairs.iter().map(text).collect();
        OffsetsTopic::read(&Values(&values))
    }

    #[test]
    fn the_topic_has_kafkas_shape_unless_told_otherwise() {
        let topic = read(&[]).expect("defaults");
        assert_eq!((topic.partitions, topic.segment_bytes), (50, 104_857_600));
        let topic = read(&[("offsets.topic.num.partitions", "3")]).expect("set");
        assert_eq!(topic.partitions, 3);
        assert!(read(&[("offsets.topic.num.partitions", "0")]).is_err());
    }

    #[test]
    fn sessions_cannot_be_shorter_than_the_shortest() {
        let error = read(&[("group.max.session.timeout.ms", "5999")]).expect_err("refused");
        assert!(error.to_string().contains("group.min.session.timeout.ms"));
    }
}
