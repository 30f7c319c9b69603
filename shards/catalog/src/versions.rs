//! `metadata.version` and the other feature levels: which can be read, and what a log of each may hold.
//!
//! Pure. The levels and what they bring are Kafka's (`MetadataVersion`, `Feature`); a log keeps the
//! level it has, so that a Kafka that wrote it reads what is written here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{Str, Uuid};

/// The feature that says which metadata records there are.
pub const METADATA_VERSION_FEATURE: &str = "metadata.version";
/// `group.version`: consumer groups of the new protocol (KIP-848).
pub const GROUP_VERSION_FEATURE: &str = "group.version";

/// The oldest level whose records are read.
const OLDEST: i16 = 7;
/// Names of the levels from [`OLDEST`] on.
const NAMES: [&str; 24] = [
    "3.3-IV3", "3.4-IV0", "3.5-IV0", "3.5-IV1", "3.5-IV2", "3.6-IV0", "3.6-IV1", "3.6-IV2",
    "3.7-IV0", "3.7-IV1", "3.7-IV2", "3.7-IV3", "3.7-IV4", "3.8-IV0", "3.9-IV0", "4.0-IV0",
    "4.0-IV1", "4.0-IV2", "4.0-IV3", "4.1-IV0", "4.1-IV1", "4.2-IV0", "4.2-IV1", "4.3-IV0",
];

/// The greatest level of each other feature whose records and rules are known.
const LEVELS: [(&str, i16); 5] = [
    (GROUP_VERSION_FEATURE, 1),
    ("transaction.version", 2),
    ("share.version", 1),
    ("streams.version", 1),
    ("eligible.leader.replicas.version", 1),
];
/// The greatest `kraft.version`.
pub const KRAFT_VERSION_MAX: i16 = 1;
/// The feature that says how the quorum keeps its voters; it stands in control records.
pub(crate) const KRAFT_VERSION_FEATURE: &str = "kraft.version";
/// The level of `group.version` at which consumer groups of the new protocol are on.
pub const GROUP_VERSION: i16 = 1;
/// Levels of `metadata.version` that brought records or fields, so that a log above one cannot go below
/// it (`MetadataVersion#didMetadataChange`, Kafka 4.3.1).
const CHANGED: [i16; 9] = [7, 8, 11, 13, 14, 15, 17, 23, 30];

/// The features that are served: name, least and greatest level.
pub fn supported() -> [(&'static str, i16, i16); 2] {
    let (least, greatest) = (MetadataVersion::OLDEST, MetadataVersion::NEWEST);
    [
        (GROUP_VERSION_FEATURE, 0, GROUP_VERSION),
        (METADATA_VERSION_FEATURE, least.level(), greatest.level()),
    ]
}

/// The greatest level of a feature whose records are read, served or not.
pub(crate) fn known_level_max(name: &str) -> Option<i16> {
    let known = LEVELS.iter().find(|(known, _)| *known == name);
    known.map(|(_, max)| *max)
}

/// A level of `metadata.version` that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetadataVersion(i16);

impl MetadataVersion {
    /// The oldest that is read, 3.3-IV3.
    pub(crate) const OLDEST: MetadataVersion = MetadataVersion(OLDEST);
    /// What a log begun here is written in, 4.3-IV0.
    pub const NEWEST: MetadataVersion = MetadataVersion(OLDEST + NAMES.len() as i16 - 1);

    /// What a log with these feature levels is written in; a log without a level is one that begins.
    pub fn of(features: &BTreeMap<Str, i16>) -> MetadataVersion {
        let level = features.get(METADATA_VERSION_FEATURE);
        level.map_or(Self::NEWEST, |level| MetadataVersion(*level))
    }

    /// The feature's level.
    pub fn level(self) -> i16 {
        self.0
    }

    /// As Kafka calls it.
    pub fn name(self) -> &'static str {
        let at = usize::try_from(self.0.saturating_sub(OLDEST)).ok();
        at.and_then(|at| NAMES.get(at))
            .copied()
            .unwrap_or("unknown")
    }

    /// Whether the records of `above` say what those of `below` cannot.
    pub(crate) fn changed_between(below: i16, above: i16) -> bool {
        CHANGED
            .iter()
            .any(|level| below < *level && *level <= above)
    }

    /// Whether controllers register (3.7-IV0).
    pub fn has_controllers(self) -> bool {
        self.0 >= 15
    }

    /// Whether a partition's log directory stands in its record (3.7-IV2).
    pub fn has_directories(self) -> bool {
        self.0 >= 17
    }

    /// Whether eligible leader replicas do (4.0-IV1).
    fn has_eligible_leaders(self) -> bool {
        self.0 >= 23
    }

    /// Whether log directories can be cordoned (4.3-IV0).
    fn has_cordons(self) -> bool {
        self.0 >= 30
    }

    /// The record as a log of this level may hold it, and the version to write it in.
    pub(crate) fn fit(self, record: &MetadataRecord) -> (Cow<'_, MetadataRecord>, i16) {
        use MetadataRecord as R;
        let version = match record {
            R::RegisterBroker(_) => match self {
                _ if self.has_cordons() => 4,
                _ if self.has_directories() => 3,
                _ if self.0 > OLDEST => 2,
                _ => 1,
            },
            R::Partition(_) | R::PartitionChange(_) => match self {
                _ if self.has_eligible_leaders() => 2,
                _ if self.has_directories() => 1,
                _ => 0,
            },
            R::BrokerRegistrationChange(_) => match self {
                _ if self.has_cordons() => 3,
                _ if self.has_directories() => 2,
                _ => 1,
            },
            _ => 0,
        };
        let mut record = Cow::Borrowed(record);
        if !self.has_directories() {
            match record.to_mut() {
                R::RegisterBroker(record) => record.log_dirs = Vec::<Uuid>::new(),
                R::Partition(record) => record.directories = Vec::new(),
                R::PartitionChange(record) => record.directories = None,
                R::BrokerRegistrationChange(record) => record.log_dirs = Vec::new(),
                _ => {}
            }
        }
        if !self.has_eligible_leaders() {
            match record.to_mut() {
                R::Partition(record) => {
                    record.eligible_leader_replicas = None;
                    record.last_known_elr = None;
                }
                R::PartitionChange(record) => {
                    record.eligible_leader_replicas = None;
                    record.last_known_elr = None;
                }
                _ => {}
            }
        }
        (record, version)
    }
}

/// What is wrong with the levels of a log, in a sentence; `None` for nothing.
pub fn unknown_level(features: &BTreeMap<Str, i16>) -> Option<String> {
    let (least, greatest) = (MetadataVersion::OLDEST, MetadataVersion::NEWEST);
    for (name, level) in features {
        if &**name == METADATA_VERSION_FEATURE {
            if (least.0..=greatest.0).contains(level) {
                continue;
            }
            return Some(format!(
                "metadata.version is {level}, and {} ({}) to {} ({}) can be read: finalize one of \
                 these with kafka-features.sh first",
                least.0,
                least.name(),
                greatest.0,
                greatest.name()
            ));
        }
        let known = LEVELS.iter().find(|(known, _)| *known == &**name);
        match known {
            Some((_, max)) if level <= max => {}
            Some((_, max)) => {
                return Some(format!(
                    "the feature {name} has level {level}, and levels up to {max} are known: \
                     downgrade it with kafka-features.sh first"
                ));
            }
            None => {
                return Some(format!(
                    "the feature {name} (level {level}) is not known: disable it with \
                     kafka-features.sh first"
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use chronik_protocol::messages::{PartitionRecord, RegisterBrokerRecord};

    use super::*;

    fn at(level: i16) -> BTreeMap<Str, i16> {
        BTreeMap::from([(Str::from(METADATA_VERSION_FEATURE), level)])
    }

    #[test]
    fn the_levels_have_kafkas_names() {
        assert_eq!(MetadataVersion::NEWEST.level(), 30);
        for (level, name) in [
            (7, "3.3-IV3"),
            (21, "3.9-IV0"),
            (22, "4.0-IV0"),
            (30, "4.3-IV0"),
        ] {
            assert_eq!(MetadataVersion::of(&at(level)).name(), name);
        }
    }

    #[test]
    fn every_level_encodes_what_it_is_given() {
        let partition = MetadataRecord::Partition(PartitionRecord {
            directories: vec![Uuid(1_000)],
            eligible_leader_replicas: Some(vec![1]),
            last_known_elr: Some(vec![1]),
            ..PartitionRecord::default()
        });
        let broker = MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            log_dirs: vec![Uuid(1_000)],
            ..RegisterBrokerRecord::default()
        });
        for level in MetadataVersion::OLDEST.0..=MetadataVersion::NEWEST.0 {
            let version = MetadataVersion(level);
            for (record, expected) in [
                (&partition, [(23, 2), (17, 1), (0, 0)].as_slice()),
                (&broker, &[(30, 4), (17, 3), (8, 2), (0, 1)]),
            ] {
                let (fitted, written) = version.fit(record);
                let wanted = expected.iter().find(|(from, _)| level >= *from);
                assert_eq!(
                    Some(written),
                    wanted.map(|(_, version)| *version),
                    "{level}"
                );
                let bytes = fitted.encode(written).expect("what the version can carry");
                let (read, _) = MetadataRecord::decode(bytes).expect("what was written");
                assert_eq!(read, *fitted, "{level}");
            }
        }
    }

    #[test]
    fn levels_that_nobody_knows_are_named() {
        assert_eq!(unknown_level(&at(30)), None);
        for level in [6, 31] {
            let said = unknown_level(&at(level)).expect("refused");
            assert!(
                said.contains(&level.to_string()) && said.contains("4.3-IV0"),
                "{said}"
            );
        }
        let mut features = at(30);
        features.insert(Str::from("share.version"), 2);
        assert!(unknown_level(&features).is_some_and(|said| said.contains("share.version")));
        let mut features = at(30);
        features.insert(Str::from("new.version"), 1);
        assert!(unknown_level(&features).is_some_and(|said| said.contains("new.version")));
    }
}
