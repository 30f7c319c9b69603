//! `meta.properties` and `quorum-state`: who a data directory belongs to, and its last epoch.
//!
//! Owns the two files' formats, which are Kafka's. Runs on the designated shard at start; never
//! changes a directory that belongs to somebody else.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use chronik_io::World;
use chronik_protocol::{Str, Uuid};

/// Bytes of either file that are read; real ones have a hundred.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// The name of the file that identifies a data directory.
pub(crate) const META_PROPERTIES: &str = "meta.properties";

/// The name of the file with the metadata quorum's last epoch, inside the metadata log's directory.
pub(crate) const QUORUM_STATE: &str = "quorum-state";

/// Whose a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// The cluster's id.
    pub cluster_id: Str,
    /// The broker's id.
    pub node_id: i32,
    /// The directory's own id.
    pub directory_id: Uuid,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("{META_PROPERTIES}: {0}")]
    Io(#[from] io::Error),
    /// Not the format this and Kafka's later versions write.
    #[error("{META_PROPERTIES} has {key}={value:?}; {wanted} is needed")]
    Unusable {
        /// Which line.
        key: &'static str,
        /// What it says; empty when it is missing.
        value: String,
        /// What it should say.
        wanted: String,
    },
}

impl DirectoryIdentity {
    /// Reads the identity of `directory`; on an empty directory gives it one and writes it.
    ///
    /// # Errors
    /// When the directory belongs to another node or cluster, or cannot be read or written.
    pub(crate) async fn load_or_create<W: World>(
        world: &W,
        directory: &Path,
        node_id: i32,
        cluster_id: Option<&Str>,
    ) -> Result<DirectoryIdentity, IdentityError> {
        let path = directory.join(META_PROPERTIES);
        match world.read_file(&path, FILE_BYTES_MAX).await {
            Ok(content) => {
                let found = parse(&String::from_utf8_lossy(&content), world.random_u128())?;
                found.check(node_id, cluster_id)?;
                Ok(found)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fresh = DirectoryIdentity {
                    cluster_id: cluster_id.cloned().unwrap_or_else(|| {
                        Str::from(Uuid::from_random(world.random_u128()).to_string())
                    }),
                    node_id,
                    directory_id: Uuid::from_random(world.random_u128()),
                };
                world
                    .write_file_atomic(&path, fresh.to_text().as_bytes())
                    .await?;
                Ok(fresh)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check(&self, node_id: i32, cluster_id: Option<&Str>) -> Result<(), IdentityError> {
        if self.node_id != node_id {
            return Err(IdentityError::Unusable {
                key: "node.id",
                value: self.node_id.to_string(),
                wanted: format!("node.id={node_id} as configured"),
            });
        }
        match cluster_id {
            Some(wanted) if *wanted != self.cluster_id => Err(IdentityError::Unusable {
                key: "cluster.id",
                value: self.cluster_id.to_string(),
                wanted: format!("cluster.id={wanted} as configured"),
            }),
            _ => Ok(()),
        }
    }

    /// The file as Java's `Properties` reads it; the order of lines has no meaning.
    fn to_text(&self) -> String {
        format!(
            "#\nnode.id={}\ndirectory.id={}\nversion=1\ncluster.id={}\n",
            self.node_id, self.directory_id, self.cluster_id
        )
    }
}

fn parse(text: &str, random: u128) -> Result<DirectoryIdentity, IdentityError> {
    let lines: BTreeMap<&str, &str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '!']))
        .filter_map(|line| line.split_once(['=', ':']))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let get = |key: &'static str, wanted: &str| {
        lines
            .get(key)
            .copied()
            .ok_or_else(|| IdentityError::Unusable {
                key,
                value: String::new(),
                wanted: wanted.to_owned(),
            })
    };
    let unusable = |key: &'static str, value: &str, wanted: &str| IdentityError::Unusable {
        key,
        value: value.to_owned(),
        wanted: wanted.to_owned(),
    };
    let version = get("version", "version=1")?;
    if version != "1" {
        return Err(unusable("version", version, "version=1 (KRaft)"));
    }
    let node_id = get("node.id", "a number")?;
    let node_id = node_id
        .parse()
        .map_err(|_| unusable("node.id", node_id, "a number"))?;
    let cluster_id = Str::from(get("cluster.id", "the cluster's id")?);
    // Directories formatted before Kafka 3.7 have no id of their own.
    let directory_id = match lines.get("directory.id") {
        Some(id) => id
            .parse()
            .map_err(|_| unusable("directory.id", id, "a base64 id"))?,
        None => Uuid::from_random(random),
    };
    Ok(DirectoryIdentity {
        cluster_id,
        node_id,
        directory_id,
    })
}

/// The metadata quorum as this node last saw it (`QuorumStateData` v0 as JSON). It is a quorum of
/// one, so that only the epoch is worth remembering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuorumState {
    leader_id: i32,
    /// Never goes back.
    pub(crate) leader_epoch: i32,
}

impl QuorumState {
    /// This node leads since `leader_epoch`, alone.
    pub(crate) fn leading(node_id: i32, leader_epoch: i32) -> QuorumState {
        QuorumState {
            leader_id: node_id,
            leader_epoch,
        }
    }

    fn parse(content: &[u8]) -> Option<QuorumState> {
        let value: serde_json::Value = serde_json::from_slice(content).ok()?;
        let number = |key: &str| i32::try_from(value.get(key)?.as_i64()?).ok();
        Some(QuorumState {
            leader_id: number("leaderId")?,
            leader_epoch: number("leaderEpoch")?,
        })
    }

    /// In Kafka's order of keys.
    fn to_json(self) -> String {
        let QuorumState {
            leader_id,
            leader_epoch,
        } = self;
        format!(
            "{{\"clusterId\":\"\",\"leaderId\":{leader_id},\"leaderEpoch\":{leader_epoch},\
             \"votedId\":-1,\"appliedOffset\":0,\"currentVoters\":[{{\"voterId\":{leader_id}}}],\
             \"data_version\":0}}"
        )
    }

    /// Reads the file of `directory`; `None` when it is missing or cannot be understood (the log's
    /// own epochs then say enough).
    pub(crate) async fn load<W: World>(
        world: &W,
        directory: &Path,
    ) -> io::Result<Option<QuorumState>> {
        let path = directory.join(QUORUM_STATE);
        match world.read_file(&path, FILE_BYTES_MAX).await {
            Ok(content) => {
                let state = QuorumState::parse(&content);
                if state.is_none() {
                    tracing::warn!(path = %path.display(), "quorum state passed over");
                }
                Ok(state)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file; durable when this returns.
    pub(crate) async fn store<W: World>(&self, world: &W, directory: &Path) -> io::Result<()> {
        let content = self.to_json();
        world
            .write_file_atomic(&directory.join(QUORUM_STATE), content.as_bytes())
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Kafka 4.3.1.
    const KAFKA_META: &str = "#\n#Sat Nov 21 17:23:22 UTC 2026\nnode.id=1\n\
        directory.id=HxYXXJN9VRTc7WjvTTEfeQ\nversion=1\ncluster.id=AAAAAAAAQACAAAAAAAAAAQ\n";
    const KAFKA_QUORUM: &str = r#"{"clusterId":"","leaderId":1,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#;

    #[test]
    fn kafkas_identity_is_read_and_ours_reads_the_same() {
        let found = parse(KAFKA_META, 0).expect("Kafka's file");
        assert_eq!(found.node_id, 1);
        assert_eq!(found.cluster_id, "AAAAAAAAQACAAAAAAAAAAQ");
        assert_eq!(found.directory_id.to_string(), "HxYXXJN9VRTc7WjvTTEfeQ");
        assert_eq!(parse(&found.to_text(), 7).expect("our file"), found);
    }

    #[test]
    fn foreign_directories_are_refused() {
        let found = parse(KAFKA_META, 0).expect("Kafka's file");
        assert!(found.check(1, None).is_ok());
        assert!(found.check(2, None).is_err());
        assert!(found.check(1, Some(&Str::from("other"))).is_err());
        assert!(parse("version=0\nbroker.id=1\ncluster.id=x\n", 0).is_err());
        assert!(parse("", 0).is_err());
    }

    #[test]
    fn quorum_state_is_kafkas_to_the_byte() {
        let state = QuorumState::parse(KAFKA_QUORUM.as_bytes()).expect("Kafka's file");
        assert_eq!(state, QuorumState::leading(1, 1));
        assert_eq!(state.to_json(), KAFKA_QUORUM);
        assert_eq!(QuorumState::parse(b"{}"), None);
    }
}
