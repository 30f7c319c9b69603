//! `meta.properties`: who a data directory belongs to.
//!
//! Owns the file's format, which is Kafka's. Runs on the designated shard at start; never
//! changes a directory that belongs to somebody else.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use chronik_io::World;
use chronik_protocol::{Str, Uuid};

/// Bytes of either file that are read; real ones have a hundred.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// The name of the file that identifies a data directory.
pub(crate) const META_PROPERTIES: &str = "meta.properties";

/// The node that a data directory belongs to, as far as its `meta.properties` can be read. For settings,
/// before there is a shard; blocks the thread.
pub fn node_id_of(directory: &Path) -> Option<i32> {
    let file = std::fs::File::open(directory.join(META_PROPERTIES)).ok()?;
    let mut text = String::new();
    let mut content = file.take(FILE_BYTES_MAX as u64);
    content.read_to_string(&mut text).ok()?;
    parse(&text).ok().map(|identity| identity.node_id)
}

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
        if let Some((found, has_id)) = read(world, directory).await? {
            found.check(node_id, cluster_id)?;
            if !has_id {
                found.store(world, directory).await?;
            }
            return Ok(found);
        }
        let fresh = DirectoryIdentity {
            cluster_id: cluster_id
                .cloned()
                .unwrap_or_else(|| Str::from(Uuid::from_random(world.random_u128()).to_string())),
            node_id,
            directory_id: Uuid::from_random(world.random_u128()),
        };
        fresh.store(world, directory).await?;
        Ok(fresh)
    }

    /// Reads the identity of `directory`; `None` when it has none. One without an id of its own (Kafka
    /// before 3.7) is given one that nobody remembers.
    ///
    /// # Errors
    /// When the file cannot be read or is not of a KRaft node.
    pub(crate) async fn load<W: World>(
        world: &W,
        directory: &Path,
    ) -> Result<Option<DirectoryIdentity>, IdentityError> {
        Ok(read(world, directory).await?.map(|(found, _)| found))
    }

    async fn store<W: World>(&self, world: &W, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join(META_PROPERTIES);
        Ok(world
            .write_file_atomic(&path, self.to_text().as_bytes())
            .await?)
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

/// What the file says, and whether it names the directory's id.
async fn read<W: World>(
    world: &W,
    directory: &Path,
) -> Result<Option<(DirectoryIdentity, bool)>, IdentityError> {
    let path = directory.join(META_PROPERTIES);
    match world.read_file(&path, FILE_BYTES_MAX).await {
        Ok(content) => {
            let text = String::from_utf8_lossy(&content);
            let found = parse(&text)?;
            let has_id = found.directory_id != Uuid::ZERO;
            let random = Uuid::from_random(world.random_u128());
            let directory_id = if has_id { found.directory_id } else { random };
            Ok(Some((
                DirectoryIdentity {
                    directory_id,
                    ..found
                },
                has_id,
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse(text: &str) -> Result<DirectoryIdentity, IdentityError> {
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
        let wanted = "version=1: it is of a Kafka that uses ZooKeeper; migrate that to KRaft first";
        return Err(unusable("version", version, wanted));
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
        None => Uuid::ZERO,
    };
    Ok(DirectoryIdentity {
        cluster_id,
        node_id,
        directory_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Kafka 4.3.1.
    const KAFKA_META: &str = "#\n#Sat Nov 21 17:23:22 UTC 2026\nnode.id=1\n\
        directory.id=HxYXXJN9VRTc7WjvTTEfeQ\nversion=1\ncluster.id=AAAAAAAAQACAAAAAAAAAAQ\n";

    #[test]
    fn kafkas_identity_is_read_and_ours_reads_the_same() {
        let found = parse(KAFKA_META).expect("Kafka's file");
        assert_eq!(found.node_id, 1);
        assert_eq!(found.cluster_id, "AAAAAAAAQACAAAAAAAAAAQ");
        assert_eq!(found.directory_id.to_string(), "HxYXXJN9VRTc7WjvTTEfeQ");
        assert_eq!(parse(&found.to_text()).expect("our file"), found);
    }

    #[test]
    fn foreign_directories_are_refused() {
        let found = parse(KAFKA_META).expect("Kafka's file");
        assert!(found.check(1, None).is_ok());
        assert!(found.check(2, None).is_err());
        assert!(found.check(1, Some(&Str::from("other"))).is_err());
        assert!(parse("version=0\nbroker.id=1\ncluster.id=x\n").is_err());
        assert!(parse("").is_err());
    }
}
