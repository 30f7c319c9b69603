//! The settings of a topic: which broker settings stand behind each, and the parsed result.
//!
//! Pure; runs wherever an image is built (the designated shard). A value given here has been
//! validated when it was set; one that cannot be read all the same (a log written by other
//! software) counts as not set, so that a partition is never kept offline by a setting.

use std::collections::BTreeMap;

use chronik_protocol::{Str, configs};

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

/// The name of Chronik's own topic and broker setting.
pub const DURABILITY: &str = "chronik.durability";

impl Default for TopicConfig {
    /// Kafka's defaults (`LogConfig`), durable on disk.
    fn default() -> TopicConfig {
        TopicConfig {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10_485_760,
            max_message_bytes: 1_048_588,
            timestamp_kind: TimestampKind::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            delete_retention_ms: 86_400_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX as u64,
            min_cleanable_dirty_ratio: 0.5,
            compression: TopicCompression::Producer,
            compression_level: None,
            min_insync_replicas: 1,
            flush_messages: None,
            flush_ms: None,
            file_delete_delay_ms: 60_000,
            durability: Durability::Disk,
        }
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
    (DURABILITY, &[(DURABILITY, Same)]),
    ("cleanup.policy", &[("log.cleanup.policy", Same)]),
    (
        "compression.gzip.level",
        &[("compression.gzip.level", Same)],
    ),
    ("compression.lz4.level", &[("compression.lz4.level", Same)]),
    ("compression.type", &[("compression.type", Same)]),
    (
        "compression.zstd.level",
        &[("compression.zstd.level", Same)],
    ),
    (
        "delete.retention.ms",
        &[("log.cleaner.delete.retention.ms", Same)],
    ),
    (
        "file.delete.delay.ms",
        &[("log.segment.delete.delay.ms", Same)],
    ),
    ("flush.messages", &[("log.flush.interval.messages", Same)]),
    (
        "flush.ms",
        &[
            ("log.flush.interval.ms", Same),
            ("log.flush.scheduler.interval.ms", Same),
        ],
    ),
    (
        "index.interval.bytes",
        &[("log.index.interval.bytes", Same)],
    ),
    (
        "local.retention.bytes",
        &[("log.local.retention.bytes", Same)],
    ),
    ("local.retention.ms", &[("log.local.retention.ms", Same)]),
    (
        "max.compaction.lag.ms",
        &[("log.cleaner.max.compaction.lag.ms", Same)],
    ),
    ("max.message.bytes", &[("message.max.bytes", Same)]),
    (
        "message.timestamp.after.max.ms",
        &[("log.message.timestamp.after.max.ms", Same)],
    ),
    (
        "message.timestamp.before.max.ms",
        &[("log.message.timestamp.before.max.ms", Same)],
    ),
    (
        "message.timestamp.type",
        &[("log.message.timestamp.type", Same)],
    ),
    (
        "min.cleanable.dirty.ratio",
        &[("log.cleaner.min.cleanable.ratio", Same)],
    ),
    (
        "min.compaction.lag.ms",
        &[("log.cleaner.min.compaction.lag.ms", Same)],
    ),
    ("min.insync.replicas", &[("min.insync.replicas", Same)]),
    ("preallocate", &[("log.preallocate", Same)]),
    ("retention.bytes", &[("log.retention.bytes", Same)]),
    (
        "retention.ms",
        &[
            ("log.retention.ms", Same),
            ("log.retention.minutes", MinutesToMs),
            ("log.retention.hours", HoursToMs),
        ],
    ),
    ("segment.bytes", &[("log.segment.bytes", Same)]),
    ("segment.index.bytes", &[("log.index.size.max.bytes", Same)]),
    (
        "segment.jitter.ms",
        &[
            ("log.roll.jitter.ms", Same),
            ("log.roll.jitter.hours", HoursToMs),
        ],
    ),
    (
        "segment.ms",
        &[("log.roll.ms", Same), ("log.roll.hours", HoursToMs)],
    ),
    (
        "unclean.leader.election.enable",
        &[("unclean.leader.election.enable", Same)],
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

/// Reads settings by name, falling back on what is there.
struct Settings<'a>(&'a ConfigLayers<'a>);

impl Settings<'_> {
    fn parsed<T: std::str::FromStr>(&self, name: &str, fallback: T) -> T {
        self.0
            .effective(name)
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(fallback)
    }

    fn limit(&self, name: &str, fallback: Option<u64>) -> Option<u64> {
        match self
            .0
            .effective(name)
            .and_then(|value| value.trim().parse::<i64>().ok())
        {
            Some(value) => u64::try_from(value).ok(),
            None => fallback,
        }
    }

    fn flush(&self, name: &str) -> Option<u64> {
        self.limit(name, None)
            .filter(|value| *value != i64::MAX as u64)
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
        let base = TopicConfig::default();
        let settings = Settings(layers);
        let compression = compression(layers.effective("compression.type").as_deref());
        TopicConfig {
            segment_bytes: settings.parsed("segment.bytes", base.segment_bytes),
            segment_ms: settings.parsed("segment.ms", base.segment_ms),
            segment_jitter_ms: settings.parsed("segment.jitter.ms", base.segment_jitter_ms),
            index_interval_bytes: settings
                .parsed("index.interval.bytes", base.index_interval_bytes),
            segment_index_bytes: settings.parsed("segment.index.bytes", base.segment_index_bytes),
            max_message_bytes: settings.parsed("max.message.bytes", base.max_message_bytes),
            timestamp_kind: match layers.effective("message.timestamp.type").as_deref() {
                Some("LogAppendTime") => TimestampKind::LogAppendTime,
                _ => TimestampKind::CreateTime,
            },
            timestamp_before_max_ms: settings.parsed(
                "message.timestamp.before.max.ms",
                base.timestamp_before_max_ms,
            ),
            timestamp_after_max_ms: settings.parsed(
                "message.timestamp.after.max.ms",
                base.timestamp_after_max_ms,
            ),
            retention_ms: settings.limit("retention.ms", base.retention_ms),
            retention_bytes: settings.limit("retention.bytes", base.retention_bytes),
            cleanup_policy: cleanup_policy(layers.effective("cleanup.policy").as_deref()),
            delete_retention_ms: settings.parsed("delete.retention.ms", base.delete_retention_ms),
            min_compaction_lag_ms: settings
                .parsed("min.compaction.lag.ms", base.min_compaction_lag_ms),
            max_compaction_lag_ms: settings
                .parsed("max.compaction.lag.ms", base.max_compaction_lag_ms),
            min_cleanable_dirty_ratio: settings
                .parsed("min.cleanable.dirty.ratio", base.min_cleanable_dirty_ratio),
            compression,
            compression_level: match compression {
                TopicCompression::Gzip => Some(settings.parsed("compression.gzip.level", -1)),
                TopicCompression::Zstd => Some(settings.parsed("compression.zstd.level", 3)),
                // Snappy has no levels, and `lz4_flex` has one.
                _ => None,
            },
            min_insync_replicas: settings.parsed("min.insync.replicas", base.min_insync_replicas),
            flush_messages: settings.flush("flush.messages"),
            flush_ms: settings.flush("flush.ms"),
            file_delete_delay_ms: settings
                .parsed("file.delete.delay.ms", base.file_delete_delay_ms),
            durability: match layers.effective(DURABILITY).as_deref() {
                Some("process") => Durability::Process,
                _ => Durability::Disk,
            },
        }
    }
}

fn cleanup_policy(value: Option<&str>) -> CleanupPolicy {
    let Some(value) = value else {
        return TopicConfig::default().cleanup_policy;
    };
    let has = |wanted: &str| value.split(',').any(|part| part.trim() == wanted);
    CleanupPolicy {
        delete: has("delete"),
        compact: has("compact"),
    }
}

fn compression(value: Option<&str>) -> TopicCompression {
    match value {
        Some("uncompressed") => TopicCompression::Uncompressed,
        Some("gzip") => TopicCompression::Gzip,
        Some("snappy") => TopicCompression::Snappy,
        Some("lz4") => TopicCompression::Lz4,
        Some("zstd") => TopicCompression::Zstd,
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
            (DURABILITY, " process"),
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
