//! The settings of a topic: which broker settings stand behind each, and the parsed result.
//!
//! Pure; runs wherever an image is built (the designated shard). A value given here has been
//! validated when it was set; one that cannot be read all the same (a log written by other
//! software) counts as not set, so that a partition is never kept offline by a setting.

use std::collections::BTreeMap;

use chronik_protocol::Str;
use chronik_protocol::configs::keys::{broker, topic};
use chronik_protocol::configs::{self, Key, Typed};

/// What `acks=all` promises (`chronik.durability`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage: survives a power cut. The default.
    Disk,
    /// In memory or files that outlive the process: Kafka's own promise.
    Process,
}

/// Who decides a record's timestamp (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    /// The producer.
    CreateTime,
    /// The broker, when it appends.
    LogAppendTime,
}

/// What may be removed from a log (`cleanup.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments, by age and size.
    pub delete: bool,
    /// Records whose key appears again later.
    pub compact: bool,
}

/// How batches are stored (`compression.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCompression {
    /// As the producer sent them.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// Effective, parsed settings of a topic: its own, else the broker's dynamic ones, else the
/// broker's static ones, else Kafka's defaults. `None` means "no limit".
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `segment.bytes`: a segment never grows beyond it.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is closed at this age.
    pub segment_ms: u64,
    /// `segment.jitter.ms`: at most this much is taken off `segment_ms`, at random.
    pub segment_jitter_ms: u64,
    /// `index.interval.bytes`: about one index entry for so many bytes.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: size of a full index file.
    pub segment_index_bytes: u32,
    /// `max.message.bytes`: the largest batch accepted, as stored.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_kind: TimestampKind,
    /// `message.timestamp.before.max.ms`: how old a producer's timestamp may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far in the future it may be.
    pub timestamp_after_max_ms: i64,
    /// `retention.ms`.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`.
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `delete.retention.ms`: how long a compacted log keeps tombstones.
    pub delete_retention_ms: u64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: u64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: u64,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// The level of that codec, as `Compression::compress` takes it (`compression.gzip.level`,
    /// `compression.zstd.level`); `None` where it has none.
    pub compression_level: Option<i32>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// `flush.messages`.
    pub flush_messages: Option<u64>,
    /// `flush.ms`.
    pub flush_ms: Option<u64>,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: u64,
    /// `chronik.durability`.
    pub durability: Durability,
}

impl Default for TopicConfig {
    /// Kafka's defaults (`LogConfig`), durable on disk.
    fn default() -> TopicConfig {
        static NONE: BTreeMap<Str, Str> = BTreeMap::new();
        TopicConfig::effective(&ConfigLayers {
            topic: &NONE,
            dynamic_broker: &NONE,
            dynamic_default: &NONE,
            static_broker: &NONE,
        })
    }
}

/// How a broker setting's value becomes a topic setting's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// As it is.
    Same,
    /// Hours to milliseconds.
    HoursToMs,
    /// Minutes to milliseconds.
    MinutesToMs,
}

impl Conversion {
    /// The topic's value for a broker's `value`; `None` when that is not a number.
    pub fn apply(self, value: &str) -> Option<Str> {
        let factor_ms = match self {
            Conversion::Same => return Some(Str::from(value.to_owned())),
            Conversion::HoursToMs => 3_600_000i64,
            Conversion::MinutesToMs => 60_000,
        };
        let number: i64 = value.trim().parse().ok()?;
        // −1 hours or minutes means "no limit" just as −1 ms does.
        let ms = if number < 0 {
            -1
        } else {
            number.checked_mul(factor_ms)?
        };
        Some(Str::from(ms.to_string()))
    }
}

use Conversion::{HoursToMs, MinutesToMs, Same};

/// The broker settings behind each topic setting, the strongest first (`ServerTopicConfigSynonyms`).
const SYNONYMS: &[(&str, &[(&str, Conversion)])] = &[
    (
        topic::CHRONIK_DURABILITY.name(),
        &[(broker::CHRONIK_DURABILITY.name(), Same)],
    ),
    (
        topic::CLEANUP_POLICY.name(),
        &[(broker::LOG_CLEANUP_POLICY.name(), Same)],
    ),
    (
        topic::COMPRESSION_GZIP_LEVEL.name(),
        &[(broker::COMPRESSION_GZIP_LEVEL.name(), Same)],
    ),
    (
        topic::COMPRESSION_LZ4_LEVEL.name(),
        &[(broker::COMPRESSION_LZ4_LEVEL.name(), Same)],
    ),
    (
        topic::COMPRESSION_TYPE.name(),
        &[(broker::COMPRESSION_TYPE.name(), Same)],
    ),
    (
        topic::COMPRESSION_ZSTD_LEVEL.name(),
        &[(broker::COMPRESSION_ZSTD_LEVEL.name(), Same)],
    ),
    (
        topic::DELETE_RETENTION_MS.name(),
        &[(broker::LOG_CLEANER_DELETE_RETENTION_MS.name(), Same)],
    ),
    (
        topic::FILE_DELETE_DELAY_MS.name(),
        &[(broker::LOG_SEGMENT_DELETE_DELAY_MS.name(), Same)],
    ),
    (
        topic::FLUSH_MESSAGES.name(),
        &[(broker::LOG_FLUSH_INTERVAL_MESSAGES.name(), Same)],
    ),
    (
        topic::FLUSH_MS.name(),
        &[
            (broker::LOG_FLUSH_INTERVAL_MS.name(), Same),
            (broker::LOG_FLUSH_SCHEDULER_INTERVAL_MS.name(), Same),
        ],
    ),
    (
        topic::INDEX_INTERVAL_BYTES.name(),
        &[(broker::LOG_INDEX_INTERVAL_BYTES.name(), Same)],
    ),
    (
        topic::LOCAL_RETENTION_BYTES.name(),
        &[(broker::LOG_LOCAL_RETENTION_BYTES.name(), Same)],
    ),
    (
        topic::LOCAL_RETENTION_MS.name(),
        &[(broker::LOG_LOCAL_RETENTION_MS.name(), Same)],
    ),
    (
        topic::MAX_COMPACTION_LAG_MS.name(),
        &[(broker::LOG_CLEANER_MAX_COMPACTION_LAG_MS.name(), Same)],
    ),
    (
        topic::MAX_MESSAGE_BYTES.name(),
        &[(broker::MESSAGE_MAX_BYTES.name(), Same)],
    ),
    (
        topic::MESSAGE_TIMESTAMP_AFTER_MAX_MS.name(),
        &[(broker::LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS.name(), Same)],
    ),
    (
        topic::MESSAGE_TIMESTAMP_BEFORE_MAX_MS.name(),
        &[(broker::LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS.name(), Same)],
    ),
    (
        topic::MESSAGE_TIMESTAMP_TYPE.name(),
        &[(broker::LOG_MESSAGE_TIMESTAMP_TYPE.name(), Same)],
    ),
    (
        topic::MIN_CLEANABLE_DIRTY_RATIO.name(),
        &[(broker::LOG_CLEANER_MIN_CLEANABLE_RATIO.name(), Same)],
    ),
    (
        topic::MIN_COMPACTION_LAG_MS.name(),
        &[(broker::LOG_CLEANER_MIN_COMPACTION_LAG_MS.name(), Same)],
    ),
    (
        topic::MIN_INSYNC_REPLICAS.name(),
        &[(broker::MIN_INSYNC_REPLICAS.name(), Same)],
    ),
    (
        topic::PREALLOCATE.name(),
        &[(broker::LOG_PREALLOCATE.name(), Same)],
    ),
    (
        topic::RETENTION_BYTES.name(),
        &[(broker::LOG_RETENTION_BYTES.name(), Same)],
    ),
    (
        topic::RETENTION_MS.name(),
        &[
            (broker::LOG_RETENTION_MS.name(), Same),
            (broker::LOG_RETENTION_MINUTES.name(), MinutesToMs),
            (broker::LOG_RETENTION_HOURS.name(), HoursToMs),
        ],
    ),
    (
        topic::SEGMENT_BYTES.name(),
        &[(broker::LOG_SEGMENT_BYTES.name(), Same)],
    ),
    (
        topic::SEGMENT_INDEX_BYTES.name(),
        &[(broker::LOG_INDEX_SIZE_MAX_BYTES.name(), Same)],
    ),
    (
        topic::SEGMENT_JITTER_MS.name(),
        &[
            (broker::LOG_ROLL_JITTER_MS.name(), Same),
            (broker::LOG_ROLL_JITTER_HOURS.name(), HoursToMs),
        ],
    ),
    (
        topic::SEGMENT_MS.name(),
        &[
            (broker::LOG_ROLL_MS.name(), Same),
            (broker::LOG_ROLL_HOURS.name(), HoursToMs),
        ],
    ),
    (
        topic::UNCLEAN_LEADER_ELECTION_ENABLE.name(),
        &[(broker::UNCLEAN_LEADER_ELECTION_ENABLE.name(), Same)],
    ),
];

/// The broker settings behind a topic setting, the strongest first; empty for settings that only
/// topics have.
pub fn broker_synonyms(topic_setting: &str) -> &'static [(&'static str, Conversion)] {
    SYNONYMS
        .binary_search_by_key(&topic_setting, |(name, _)| name)
        .ok()
        .and_then(|found| SYNONYMS.get(found))
        .map_or(&[], |(_, synonyms)| synonyms)
}

/// Where a value comes from, the strongest first; the numbers are DescribeConfigs' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic = 1,
    /// Set at run time for this broker.
    DynamicBroker = 2,
    /// Set at run time for every broker.
    DynamicDefaultBroker = 3,
    /// In the broker's file, environment or command line.
    StaticBroker = 4,
    /// Kafka's (or Chronik's) default.
    Default = 5,
    /// Set on the group.
    Group = 8,
}

/// The places a topic's value may come from.
#[derive(Clone, Copy, Debug)]
pub struct ConfigLayers<'a> {
    /// Set on the topic.
    pub topic: &'a BTreeMap<Str, Str>,
    /// Set at run time for this broker.
    pub dynamic_broker: &'a BTreeMap<Str, Str>,
    /// Set at run time for every broker.
    pub dynamic_default: &'a BTreeMap<Str, Str>,
    /// The broker's own file, environment and command line.
    pub static_broker: &'a BTreeMap<Str, Str>,
}

impl ConfigLayers<'_> {
    /// The value that holds for a topic setting, converted and as it is shown; `None` when every place
    /// is silent. A value of any synonym that was set at run time wins over the broker's file
    /// (`DynamicBrokerConfig`).
    pub fn effective(&self, name: &str) -> Option<Str> {
        let own = self.topic.get(name).map(|value| (value, Same));
        let brokers = [
            self.dynamic_broker,
            self.dynamic_default,
            self.static_broker,
        ];
        let behind = brokers.into_iter().flat_map(|layer| {
            let synonyms = broker_synonyms(name).iter();
            synonyms.filter_map(|(synonym, conversion)| Some((layer.get(*synonym)?, *conversion)))
        });
        let mut given = own.into_iter().chain(behind);
        let value = given.find_map(|(value, conversion)| conversion.apply(value))?;
        let definition = configs::topic(name);
        Some(definition.map_or(value.clone(), |known| Str::from(known.shown_value(&value))))
    }
}

impl ConfigLayers<'_> {
    /// The value that holds, parsed: what [`Self::effective`] gives, else the default.
    fn get<T: Typed>(&self, key: Key<T>) -> T {
        key.read(self.effective(key.name()).as_deref())
    }

    /// A number that cannot be negative; one that is counts as not set.
    fn unsigned<T: Typed, U: TryFrom<T> + Default>(&self, key: Key<T>) -> U {
        let given = U::try_from(self.get(key));
        given
            .or_else(|_| U::try_from(key.default()))
            .unwrap_or_default()
    }

    /// A number that means no limit where it is negative.
    fn limit(&self, key: Key<i64>) -> Option<u64> {
        u64::try_from(self.get(key)).ok()
    }

    /// A number that means no limit where it is the greatest.
    fn flush(&self, key: Key<i64>) -> Option<u64> {
        self.limit(key).filter(|value| *value != i64::MAX as u64)
    }
}

impl TopicConfig {
    /// A segment goes on being appended to for this long, ms: `segment.ms`, and where the topic is
    /// compacted at most `max.compaction.lag.ms`, for the active segment cannot be
    /// (`LogConfig#maxSegmentMs`).
    pub fn roll_ms(&self) -> u64 {
        match self.cleanup_policy.compact && self.max_compaction_lag_ms > 0 {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        }
    }

    /// Parses what `layers` say; defaults stand in for what they do not.
    pub fn effective(layers: &ConfigLayers<'_>) -> TopicConfig {
        let compression = compression(&layers.get(topic::COMPRESSION_TYPE));
        TopicConfig {
            segment_bytes: layers.unsigned(topic::SEGMENT_BYTES),
            segment_ms: layers.unsigned(topic::SEGMENT_MS),
            segment_jitter_ms: layers.unsigned(topic::SEGMENT_JITTER_MS),
            index_interval_bytes: layers.unsigned(topic::INDEX_INTERVAL_BYTES),
            segment_index_bytes: layers.unsigned(topic::SEGMENT_INDEX_BYTES),
            max_message_bytes: layers.unsigned(topic::MAX_MESSAGE_BYTES),
            timestamp_kind: match &*layers.get(topic::MESSAGE_TIMESTAMP_TYPE) {
                "LogAppendTime" => TimestampKind::LogAppendTime,
                _ => TimestampKind::CreateTime,
            },
            timestamp_before_max_ms: layers.get(topic::MESSAGE_TIMESTAMP_BEFORE_MAX_MS),
            timestamp_after_max_ms: layers.get(topic::MESSAGE_TIMESTAMP_AFTER_MAX_MS),
            retention_ms: layers.limit(topic::RETENTION_MS),
            retention_bytes: layers.limit(topic::RETENTION_BYTES),
            cleanup_policy: cleanup_policy(&layers.get(topic::CLEANUP_POLICY)),
            delete_retention_ms: layers.unsigned(topic::DELETE_RETENTION_MS),
            min_compaction_lag_ms: layers.unsigned(topic::MIN_COMPACTION_LAG_MS),
            max_compaction_lag_ms: layers.unsigned(topic::MAX_COMPACTION_LAG_MS),
            min_cleanable_dirty_ratio: layers.get(topic::MIN_CLEANABLE_DIRTY_RATIO),
            compression,
            compression_level: match compression {
                TopicCompression::Gzip => Some(layers.get(topic::COMPRESSION_GZIP_LEVEL)),
                TopicCompression::Zstd => Some(layers.get(topic::COMPRESSION_ZSTD_LEVEL)),
                // Snappy has no levels, and `lz4_flex` has one.
                _ => None,
            },
            min_insync_replicas: layers.unsigned(topic::MIN_INSYNC_REPLICAS),
            flush_messages: layers.flush(topic::FLUSH_MESSAGES),
            flush_ms: layers.flush(topic::FLUSH_MS),
            file_delete_delay_ms: layers.unsigned(topic::FILE_DELETE_DELAY_MS),
            durability: match &*layers.get(topic::CHRONIK_DURABILITY) {
                "process" => Durability::Process,
                _ => Durability::Disk,
            },
        }
    }
}

fn cleanup_policy(policies: &[String]) -> CleanupPolicy {
    let has = |wanted: &str| policies.iter().any(|policy| policy == wanted);
    CleanupPolicy {
        delete: has("delete"),
        compact: has("compact"),
    }
}

fn compression(name: &str) -> TopicCompression {
    match name {
        "uncompressed" => TopicCompression::Uncompressed,
        "gzip" => TopicCompression::Gzip,
        "snappy" => TopicCompression::Snappy,
        "lz4" => TopicCompression::Lz4,
        "zstd" => TopicCompression::Zstd,
        _ => TopicCompression::Producer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> BTreeMap<Str, Str> {
        pairs
            .iter()
            .map(|(name, value)| (Str::from(*name), Str::from(*value)))
            .collect()
    }

    #[test]
    fn synonyms_are_sorted_so_that_they_can_be_searched() {
        assert!(SYNONYMS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_topic_wins_over_the_broker_and_the_broker_over_the_default() {
        let (topic, none) = (map(&[("retention.ms", "5")]), map(&[]));
        let dynamic = map(&[("log.retention.ms", "6")]);
        let fixed = map(&[("log.retention.hours", "2")]);
        let mut layers = ConfigLayers {
            topic: &topic,
            dynamic_broker: &none,
            dynamic_default: &dynamic,
            static_broker: &fixed,
        };
        assert_eq!(TopicConfig::effective(&layers).retention_ms, Some(5));
        layers.topic = &none;
        assert_eq!(TopicConfig::effective(&layers).retention_ms, Some(6));
        layers.dynamic_default = &none;
        assert_eq!(
            TopicConfig::effective(&layers).retention_ms,
            Some(7_200_000)
        );
        layers.static_broker = &none;
        assert_eq!(TopicConfig::effective(&layers), TopicConfig::default());
    }

    /// Kafka 4.3.1 takes each of these texts.
    #[test]
    fn values_are_read_as_they_are_shown() {
        let topic = map(&[
            ("cleanup.policy", " compact , compact"),
            ("compression.type", " lz4 "),
            ("message.timestamp.type", " LogAppendTime"),
            ("retention.ms", " +5 "),
            ("min.cleanable.dirty.ratio", "25e-2d"),
            ("chronik.durability", " process"),
        ]);
        let none = map(&[]);
        let config = TopicConfig::effective(&ConfigLayers {
            topic: &topic,
            dynamic_broker: &none,
            dynamic_default: &none,
            static_broker: &none,
        });
        assert!(config.cleanup_policy.compact && !config.cleanup_policy.delete);
        assert_eq!(config.compression, TopicCompression::Lz4);
        assert_eq!(config.timestamp_kind, TimestampKind::LogAppendTime);
        assert_eq!(config.retention_ms, Some(5));
        assert_eq!(config.min_cleanable_dirty_ratio, 0.25);
        assert_eq!(config.durability, Durability::Process);
    }

    #[test]
    fn a_level_goes_with_its_codec() {
        let none = map(&[]);
        let level = |pairs: &[(&'static str, &'static str)]| {
            let topic = map(pairs);
            let layers = ConfigLayers {
                topic: &topic,
                dynamic_broker: &none,
                dynamic_default: &none,
                static_broker: &none,
            };
            TopicConfig::effective(&layers).compression_level
        };
        let levels = [
            ("compression.gzip.level", "9"),
            ("compression.zstd.level", "-7"),
        ];
        assert_eq!(
            level(&[("compression.type", "gzip"), levels[0], levels[1]]),
            Some(9)
        );
        assert_eq!(
            level(&[("compression.type", "zstd"), levels[0], levels[1]]),
            Some(-7)
        );
        assert_eq!(level(&[("compression.type", "zstd")]), Some(3));
        assert_eq!(level(&[("compression.type", "lz4"), levels[0]]), None);
        assert_eq!(level(&levels), None);
    }

    #[test]
    fn minus_one_is_no_limit_and_garbage_is_not_set() {
        let topic = map(&[("retention.ms", "-1"), ("segment.bytes", "lots")]);
        let none = map(&[]);
        let layers = ConfigLayers {
            topic: &topic,
            dynamic_broker: &none,
            dynamic_default: &none,
            static_broker: &none,
        };
        let config = TopicConfig::effective(&layers);
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.segment_bytes, TopicConfig::default().segment_bytes);
    }
}
