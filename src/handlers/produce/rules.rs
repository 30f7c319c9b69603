//! What holds for the records of a partition: the request's version, the topic's settings.
//!
//! Runs on the connection's shard. Owns how settings become bounds and codecs; looks at no batch.

use chronik_catalog::Topic;
use chronik_protocol::record::{Compression, RecordLimits};
use chronik_terms::topic_settings::{TimestampKind, TopicCompression, TopicConfig};

/// What holds for the records of one partition of one request.
pub(super) struct Rules<'a> {
    pub(super) version: i16,
    pub(super) topic: &'a Topic,
    pub(super) index: i32,
    pub(super) transactional: bool,
}

impl<'a> Rules<'a> {
    /// Rules for partition `index` of `topic` in a request of `version`.
    pub(super) fn new(version: i16, topic: &'a Topic, index: i32, transactional: bool) -> Self {
        Self {
            version,
            topic,
            index,
            transactional,
        }
    }

    /// The topic's settings.
    pub(super) fn config(&self) -> &TopicConfig {
        &self.topic.config
    }

    /// Topic and partition, as Kafka writes them.
    pub(super) fn partition(&self) -> String {
        format!("{}-{}", self.topic.name, self.index)
    }
}

/// The topic's rules for records, now.
pub(super) fn limits(config: &TopicConfig, now_ms: i64) -> RecordLimits {
    let (timestamp_ms_min, timestamp_ms_max) = match config.timestamp_kind {
        TimestampKind::CreateTime => (
            now_ms.saturating_sub(config.timestamp_before_max_ms),
            now_ms.saturating_add(config.timestamp_after_max_ms),
        ),
        TimestampKind::LogAppendTime => (i64::MIN, i64::MAX),
    };
    RecordLimits {
        keys_required: config.cleanup_policy.compact,
        timestamps_replaced: config.timestamp_kind == TimestampKind::LogAppendTime,
        timestamp_ms_min,
        timestamp_ms_max,
        ..RecordLimits::default()
    }
}

/// The codec that the topic asks for, of what came with codec `source`.
pub(super) fn target_codec(config: &TopicConfig, source: Compression) -> Compression {
    match config.compression {
        TopicCompression::Producer => source,
        TopicCompression::Uncompressed => Compression::None,
        TopicCompression::Gzip => Compression::Gzip,
        TopicCompression::Snappy => Compression::Snappy,
        TopicCompression::Lz4 => Compression::Lz4,
        TopicCompression::Zstd => Compression::Zstd,
    }
}
