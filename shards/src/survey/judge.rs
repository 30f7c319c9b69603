//! What the catalogue says against a start, and what it holds that nobody here acts upon.
//!
//! Pure: judges an image that was read. Each reason is a sentence that says what was found and what to do.

use std::collections::BTreeSet;
use std::path::Path;

use chronik_catalog::versions::{KRAFT_VERSION_MAX, unknown_level};
use chronik_catalog::{Image, RetainedKey};
use chronik_protocol::Uuid;
use chronik_protocol::configs::keys::topic as keys;
use chronik_protocol::records_of::MetadataRecord;

use super::{LastWriter, Survey, known_ids, listed, partitions_of};
use crate::log_dirs::is_assigned;
use crate::metadata_log::{QuorumState, Reading};

/// States of a migration from ZooKeeper that is under way (`ZkMigrationState`).
const MIGRATING: [i8; 2] = [1, 2];

/// Adds to the survey what is wrong with the catalogue below `data`, and what is to be known of it.
pub(super) fn judge(
    survey: &mut Survey,
    data: &Path,
    reading: &Reading,
    quorum_state: Option<&QuorumState>,
) {
    let image = &reading.image;
    let reasons = [
        unknown_level(&image.features),
        quorum(image, quorum_state),
        other_brokers(image),
        other_replicas(image),
        migration(image),
        remote_storage(image),
        other_directories(survey, image),
    ];
    for reason in reasons.into_iter().flatten() {
        survey.refuse(data, reason);
    }
    survey.notes.extend(kept(image));
    if reading.is_unfinished() {
        let note = "the metadata log ends within a transaction of its controller: it is aborted, as \
                    Kafka does";
        survey.notes.push(note.to_owned());
    }
    let ours = |name: &str| image.topic(name).is_some();
    if ours("__share_group_state") {
        let note = "share groups are kept, but not served";
        survey.notes.push(note.to_owned());
    }
}

/// The metadata quorum has to be this node alone.
fn quorum(image: &Image, state: Option<&QuorumState>) -> Option<String> {
    let (quorum, node_id) = (&image.quorum, image.node_id);
    if quorum.version > KRAFT_VERSION_MAX {
        return Some(format!(
            "kraft.version is {}, and versions up to {KRAFT_VERSION_MAX} are known: use a newer Chronik",
            quorum.version
        ));
    }
    let of_log = quorum.voters.iter().flat_map(|voters| &voters.voters);
    let of_log = of_log.map(|voter| voter.voter_id);
    let elected = quorum
        .leader
        .iter()
        .flat_map(|(leader, voters)| [leader].into_iter().chain(voters));
    let seen = state.into_iter().flat_map(QuorumState::members);
    let others: BTreeSet<i32> = of_log
        .chain(elected.copied())
        .chain(seen)
        .filter(|id| *id != node_id)
        .collect();
    let others: Vec<String> = others.iter().map(i32::to_string).collect();
    (!others.is_empty()).then(|| {
        format!(
            "it is of a cluster with other controllers (node {}), and Chronik is a cluster of its own: \
             make node {node_id} the only controller and broker first",
            listed(&others)
        )
    })
}

fn other_brokers(image: &Image) -> Option<String> {
    let others = image.brokers.keys().filter(|id| **id != image.node_id);
    let others: Vec<String> = others.map(i32::to_string).collect();
    (!others.is_empty()).then(|| {
        format!(
            "other brokers are registered (node {}), and Chronik is a cluster of its own: move their \
             partitions to node {} and remove them with kafka-cluster.sh unregister",
            listed(&others),
            image.node_id
        )
    })
}

fn other_replicas(image: &Image) -> Option<String> {
    let alone = [image.node_id];
    let shared = partitions_of(image).filter(|(_, info)| {
        info.replicas != alone
            || !info.removing_replicas.is_empty()
            || !info.adding_replicas.is_empty()
    });
    let shared: Vec<String> = shared.map(|(name, _)| name).collect();
    (!shared.is_empty()).then(|| {
        format!(
            "partitions have replicas on other nodes ({}): give each node {} as its only replica with \
             kafka-reassign-partitions.sh",
            listed(&shared),
            image.node_id
        )
    })
}

fn migration(image: &Image) -> Option<String> {
    match image.retained.get(&RetainedKey::ZkMigration) {
        Some(MetadataRecord::ZkMigrationState(record))
            if MIGRATING.contains(&record.zk_migration_state) =>
        {
            let sentence = "a migration from ZooKeeper is under way: finish it with Kafka first";
            Some(sentence.to_owned())
        }
        _ => None,
    }
}

fn remote_storage(image: &Image) -> Option<String> {
    let is_on = |value: &str| value.trim().eq_ignore_ascii_case("true");
    let topics = image.topics().filter(|topic| {
        let value = topic.configs.get(keys::REMOTE_STORAGE_ENABLE.name());
        value.is_some_and(|value| is_on(value))
    });
    let topics: Vec<String> = topics.map(|topic| topic.name.to_string()).collect();
    (!topics.is_empty()).then(|| {
        format!(
            "part of the records lies in remote storage, which is not read ({}): turn \
             remote.storage.enable off for these topics first",
            listed(&topics)
        )
    })
}

/// Partitions that lie in a directory which was not named. Where one of those that were cannot be read,
/// it may be that one, and what lies there is offline; so it is where only this broker can have moved.
fn other_directories(survey: &Survey, image: &Image) -> Option<String> {
    let is_whole = survey.dirs.iter().all(|dir| dir.failure.is_none());
    if survey.last_writer != LastWriter::Kafka || !is_whole {
        return None;
    }
    let known = known_ids(&survey.dirs);
    let elsewhere = |id: &&Uuid| is_assigned(**id) && !known.contains(id);
    let missing: BTreeSet<Uuid> = partitions_of(image)
        .flat_map(|(_, info)| {
            info.directories
                .iter()
                .filter(elsewhere)
                .copied()
                .collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<String> = missing.iter().map(Uuid::to_string).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "partitions lie in another log directory, whose directory.id is {}: name all of Kafka's \
             log.dirs",
            listed(&missing)
        )
    })
}

/// What is carried along for a Kafka that takes over again.
fn kept(image: &Image) -> Option<String> {
    type IsOne = fn(&RetainedKey) -> bool;
    let kinds: [(&str, IsOne); 4] = [
        ("ACLs", |key| matches!(key, RetainedKey::Access(_))),
        ("SCRAM credentials", |key| {
            matches!(key, RetainedKey::ScramCredential(..))
        }),
        ("client quotas", |key| {
            matches!(key, RetainedKey::ClientQuota(..))
        }),
        ("delegation tokens", |key| {
            matches!(key, RetainedKey::DelegationToken(_))
        }),
    ];
    let counted = kinds.iter().filter_map(|(name, is_one)| {
        let count = image.retained.keys().filter(|key| is_one(key)).count();
        (count > 0).then(|| format!("{name} ({count})"))
    });
    let counted: Vec<String> = counted.collect();
    (!counted.is_empty()).then(|| {
        format!(
            "kept for a Kafka that takes over again, but not enforced: {}",
            counted.join(", ")
        )
    })
}
